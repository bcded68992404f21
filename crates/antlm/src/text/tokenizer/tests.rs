//! The tokenizer against the crate's own, and against files that are not what they should be.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const TEXT: &str = "The cat sat on the mat, and the dog didn't. \"We'll see,\" said the cat in 1998; \
    the caf\u{e9} \u{2014} na\u{ef}ve \u{1f600}!\nThe end of the tale is the tail of the end.";

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::train([TEXT; 20], 300, 2, Family::LtgBert).unwrap());

/// The crate's ids, where text that looks like a special token stays text.
fn theirs(text: &str) -> Vec<u32> {
    static CRATE: LazyLock<tokenizers::Tokenizer> = LazyLock::new(|| {
        let mut it: tokenizers::Tokenizer = TOKENIZER.to_json().unwrap().parse().unwrap();
        it.set_encode_special_tokens(true);
        it
    });
    CRATE.encode(text, false).unwrap().get_ids().to_vec()
}

#[test]
fn the_vocabulary_begins_with_the_special_tokens_and_all_bytes() {
    for family in [Family::LtgBert, Family::Llama] {
        let it = Tokenizer::train([TEXT], 270, 2, family).unwrap();
        assert_eq!((it.vocab_size(), it.family()), (270, family));
        assert_eq!(it.tokens[..5], family.special_names());
        let bytes: std::collections::BTreeSet<char> = it.tokens[5..261].iter().flat_map(|t| t.chars()).collect();
        assert_eq!(bytes, BYTE_CHARS.iter().copied().collect());
    }
}

#[test]
fn a_small_corpus_gives_a_smaller_vocabulary() {
    let it = Tokenizer::train(["ab ab"], 4096, 2, Family::Llama).unwrap();
    // " a" or "ab", then " ab": nothing else occurs twice.
    assert_eq!(it.vocab_size(), 263);
    assert_eq!(Tokenizer::train([""; 0], 4096, 2, Family::Llama).unwrap().vocab_size(), 261);
    for size in [0, 260, 65_537, usize::MAX] {
        assert!(Tokenizer::train(["ab"], size, 2, Family::Llama).is_err());
    }
}

#[test]
fn encoding_equals_the_crates() {
    for text in ["", "a", TEXT, " the", "\nthe\n\n\nend\n", "[MASK] [CLS]the <s>", "\u{0}\u{7f}\r\n", &TEXT.repeat(300)]
    {
        assert_eq!(TOKENIZER.encode(text).unwrap(), theirs(text), "{text:?}");
    }
}

#[test]
fn text_never_becomes_a_special_token() {
    let hostile = ["[MASK][MASK] [CLS] <mask> </s>"; 500];
    for family in [Family::LtgBert, Family::Llama] {
        let it = Tokenizer::train(hostile, 400, 2, family).unwrap();
        let ids = it.encode(hostile[0]).unwrap();
        assert!(ids.iter().all(|&id| id >= 5), "{ids:?}");
        assert_eq!(it.decode(&ids), format!(" {}", hostile[0]));
        // Nor after a round trip through the file.
        let again = Tokenizer::from_json(&it.to_json().unwrap(), Some(family)).unwrap();
        assert_eq!(again.encode(hostile[0]).unwrap(), ids);
    }
}

#[test]
fn the_file_says_what_other_readers_need() {
    let json = TOKENIZER.to_json().unwrap();
    let file: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(file["model"]["type"], "BPE");
    assert_eq!(file["decoder"]["type"], "ByteLevel");
    assert_eq!(file["pre_tokenizer"]["add_prefix_space"], true);
    assert_eq!(file["added_tokens"].as_array().unwrap().len(), 5);
    assert_eq!(file["added_tokens"][4]["content"], "[MASK]");
    assert_eq!(file["added_tokens"][4]["id"], 4);
    // Only the opening mark is added; the mask's name is the mask; decoding gives the text back.
    let it: tokenizers::Tokenizer = json.parse().unwrap();
    let ids = it.encode("the [MASK] end", true).unwrap().get_ids().to_vec();
    assert_eq!((ids[0], ids.iter().filter(|&&id| id < 5).count()), (1, 2));
    assert!(ids.contains(&4));
    assert_eq!(it.decode(&TOKENIZER.encode(TEXT).unwrap(), true).unwrap(), format!(" {}", TEXT.replace('\n', " ")));

    let again = Tokenizer::from_json(&json, None).unwrap();
    assert_eq!(again.to_json().unwrap(), json);
    assert_eq!(again.hash().unwrap(), TOKENIZER.hash().unwrap());
}

#[test]
fn merges_may_be_written_as_pairs_or_as_text() {
    let mut file: Value = serde_json::from_str(&TOKENIZER.to_json().unwrap()).unwrap();
    for merge in file["model"]["merges"].as_array_mut().unwrap() {
        *merge = json!(format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()));
    }
    file["normalizer"] = Value::Null;
    let again = Tokenizer::from_json(&file.to_string(), Some(Family::LtgBert)).unwrap();
    assert_eq!(again.to_json().unwrap(), TOKENIZER.to_json().unwrap());
}

#[test]
fn special_and_unknown_ids_decode_to_names() {
    assert_eq!(TOKENIZER.decode(&[1, 4, 2, 99_999]), "[CLS][MASK][SEP]\u{fffd}");
}

/// A change to a good file, the place that is named, and a part of what is said.
type Case = (fn(&mut Value), &'static str, &'static str);

#[test]
fn files_of_another_kind_are_refused() {
    let good: Value = serde_json::from_str(&TOKENIZER.to_json().unwrap()).unwrap();
    let cases: [Case; 25] = [
        (|f| f["model"] = json!({"type": "WordPiece", "vocab": {"a": 0}}), "model.type", "WordPiece"),
        (|f| f["model"] = json!({"type": "Unigram", "vocab": [["a", -1.5]]}), "model.type", "Unigram"),
        (|f| f["model"] = json!({"vocab": {}, "merges": []}), "model.type", "nameless"),
        (|f| f["model"]["vocab"] = json!({}), "model.vocab", "0 tokens"),
        (|f| f["model"]["byte_fallback"] = json!(true), "model", "byte_fallback"),
        (|f| f["model"]["dropout"] = json!(0.1), "model", "dropout"),
        (|f| f["model"]["continuing_subword_prefix"] = json!("##"), "model", "prefixes"),
        (|f| f["model"]["end_of_word_suffix"] = json!("</w>"), "model", "suffixes"),
        (|f| f["pre_tokenizer"] = Value::Null, "pre_tokenizer", "ByteLevel"),
        (|f| f["pre_tokenizer"]["add_prefix_space"] = json!(false), "pre_tokenizer", "add_prefix_space"),
        (|f| f["pre_tokenizer"]["use_regex"] = json!(false), "pre_tokenizer", "pattern"),
        (|f| f["pre_tokenizer"] = json!({"type": "Whitespace"}), "pre_tokenizer", "ByteLevel"),
        (|f| f["normalizer"] = json!({"type": "NFKC"}), "normalizer", "newlines"),
        (|f| f["decoder"] = json!({"type": "WordPiece"}), "decoder", "ByteLevel"),
        (|f| f["added_tokens"] = json!([]), "added_tokens", "five"),
        (|f| f["added_tokens"][2]["special"] = json!(false), "added_tokens", "five"),
        (|f| f["added_tokens"][2]["id"] = json!(7), "added_tokens", "five"),
        (|f| f["model"]["vocab"]["[MASK]"] = json!(5), "model.vocab", "each once"),
        (|f| f["model"]["vocab"]["extra"] = json!(70_000), "model.vocab", "each once"),
        (|f| f["model"]["vocab"][""] = json!(300), "model.vocab", "each once"),
        (|f| f["model"]["vocab"]["\u{4e00}"] = json!(300), "model.vocab", "byte characters"),
        (|f| f["model"]["vocab"]["a"] = json!(-1), "model.vocab", ""),
        (|f| f["model"]["merges"][0] = json!(["z", "zzz"]), "model.merges[0]", "must be tokens"),
        (|f| f["model"]["merges"][3] = f["model"]["merges"][1].clone(), "model.merges[3]", "once"),
        (|f| f["model"]["merges"][1] = json!("one"), "model.merges[1]", "must be tokens"),
    ];
    for (i, (change, place, says)) in cases.into_iter().enumerate() {
        let mut file = good.clone();
        change(&mut file);
        let (at, what) = Tokenizer::from_json(&file.to_string(), None).unwrap_err();
        assert_eq!(at, place, "case {i}: {what}");
        assert!(what.contains(says) && !what.contains('\n'), "case {i}: {what}");
    }

    // A byte without a token: another token takes its id.
    let mut file = good.clone();
    let vocab = file["model"]["vocab"].as_object_mut().unwrap();
    let id = vocab.remove("a").unwrap();
    vocab.insert("qqqqq".into(), id);
    assert_eq!(Tokenizer::from_json(&file.to_string(), None).unwrap_err().1, "no token for byte 0x61");

    let (at, what) = Tokenizer::from_json(&good.to_string(), Some(Family::Llama)).unwrap_err();
    assert_eq!(at, "model.vocab");
    assert!(what.starts_with("wrong family: ids 0-4 are [UNK]") && what.ends_with("needs <unk> <s> </s> <pad> <mask>"));
}

#[test]
fn broken_files_are_errors_with_path_and_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let good = TOKENIZER.to_json().unwrap();
    let deep = "[".repeat(1 << 20);
    let cut = &good[..good.len() / 2];
    for bytes in [&b""[..], b"\0", b"\xFF", b"{}", b"[]", b"null", b"{\"model\": 1}", deep.as_bytes(), cut.as_bytes()] {
        std::fs::write(&path, bytes).unwrap();
        let error = Tokenizer::load(&path, None).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: ") && !error.contains('\n') && error.len() < 600, "{error}");
    }
    assert!(Tokenizer::load(dir.path().join("none.json"), None).is_err());
    assert!(Tokenizer::load(dir.path(), None).is_err());
    std::fs::write(&path, &good).unwrap();
    assert_eq!(Tokenizer::load(&path, Some(Family::LtgBert)).unwrap().vocab_size(), 300);
}

/// Text of the kinds that matter here, and then any.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ \n\ta-z'A-Z0-9.,\\[\\]<>]{0,80}",
        "(\\PC|\\s|the |[\u{300}-\u{36f}]|\\p{Lo}){0,60}",
        proptest::collection::vec(any::<char>(), 0..60).prop_map(|c| c.into_iter().collect()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn decoding_gives_the_text_back(text in text()) {
        let ids = TOKENIZER.encode(&text).unwrap();
        prop_assert!(ids.iter().all(|&id| (5..300).contains(&id)));
        let spaced = text.replace('\n', " ");
        let space = if spaced.is_empty() || spaced.starts_with(' ') { "" } else { " " };
        prop_assert_eq!(TOKENIZER.decode(&ids), format!("{space}{spaced}"));
        prop_assert_eq!(ids, theirs(&text));
    }

    #[test]
    fn damaged_files_never_panic(at in 0usize..12_000, byte in any::<u8>()) {
        let mut bytes = TOKENIZER.to_json().unwrap().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(json) = std::str::from_utf8(&bytes)
            && let Ok(it) = Tokenizer::from_json(json, None)
        {
            // Whatever is accepted still works.
            let ids = it.encode(TEXT).unwrap();
            prop_assert_eq!(it.decode(&ids), format!(" {}", TEXT.replace('\n', " ")));
        }
    }
}
