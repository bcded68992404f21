//! Tokenizers: a tokenizer.json as it is, and a text behind a zero byte; or a good one that gets merges from lines of the
//! form `a b`.

use std::sync::OnceLock;

use antlm::text::special::Family;
use antlm::text::tokenizer::Tokenizer;
use antlm::text::tokens::{Characters, cut};
use serde_json::{Value, json};

pub fn run(data: &[u8]) -> bool {
    let Some((way, rest)) = crate::choice(data, 2) else { return false };
    let [file, text] = crate::parts(rest);
    let file = if way == 0 { file.to_vec() } else { merged(&String::from_utf8_lossy(file)) };
    let Some(tokenizer) = crate::read(Tokenizer::load(crate::file("tokenizer.json", &file), None)) else {
        return false;
    };
    let json = tokenizer.to_json().expect("what was read is written");
    let again = Tokenizer::from_json(&json, Some(tokenizer.family())).expect("what it writes it reads");
    encode(&tokenizer, &again, &String::from_utf8_lossy(text));
    true
}

fn encode(tokenizer: &Tokenizer, again: &Tokenizer, text: &str) {
    let ids = tokenizer.encode(text).expect("every text has ids");
    assert!(ids.iter().all(|&id| id >= 5 && (id as usize) < tokenizer.vocab_size()));
    assert_eq!(again.encode(text).expect("every text has ids"), ids);
    let decoded = tokenizer.decode(&ids);
    let spaced = text.replace('\n', " ");
    assert_eq!(decoded.strip_prefix(' ').unwrap_or(&decoded), spaced.strip_prefix(' ').unwrap_or(&spaced));
    let cut = cut(tokenizer, text).expect("every text has ids");
    let length = text.chars().count();
    let mut reached = 0;
    for &(from, to) in &cut.offsets {
        assert!(from <= reached && from <= to && to <= length, "{cut:?}");
        reached = to;
    }
    assert_eq!(reached, length);
    let (mut characters, mut streamed) = (Characters::default(), String::new());
    ids.iter().for_each(|&id| characters.push(tokenizer, id, &mut streamed));
    characters.finish(&mut streamed);
    assert_eq!(streamed, decoded);
}

/// A good tokenizer.json without merges.
fn good() -> &'static str {
    static GOOD: OnceLock<String> = OnceLock::new();
    GOOD.get_or_init(|| {
        let tokenizer = Tokenizer::train(["the cat"], 261, 2, Family::LtgBert).expect("a tokenizer");
        tokenizer.to_json().expect("it is written")
    })
}

/// With a merge for each line `a b`, and the tokens that it needs.
fn merged(lines: &str) -> Vec<u8> {
    let mut json: Value = serde_json::from_str(good()).expect("good JSON");
    for pair in lines.lines().take(200) {
        let Some((a, b)) = pair.split_once(' ') else { continue };
        for token in [a, b, &format!("{a}{b}")] {
            let vocabulary = json["model"]["vocab"].as_object_mut().expect("a vocabulary");
            let next = vocabulary.len();
            vocabulary.entry(token).or_insert(next.into());
        }
        json["model"]["merges"].as_array_mut().expect("merges").push(json!([a, b]));
    }
    json.to_string().into_bytes()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let trained = Tokenizer::train(["the cat and the hat, the cats"; 9], 275, 2, Family::Llama).expect("a tokenizer");
    let trained = trained.to_json().expect("it is written");
    // Without the line breaks it is half as long.
    let short: Value = serde_json::from_str(&trained).expect("good JSON");
    let texts = ["the cat's 3 caf\u{e9}s\n\n [MASK] <s>  x", " caf\u{e9} \u{1f98a}\n1"];
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| format!("\0{short}\0{text}").into_bytes()).collect();
    seeds.push(format!("\0{trained}").into_bytes());
    seeds.push("\u{1}t h\nth e\n\u{120} the\n\0the cat".into());
    seeds.push("\u{1}\u{c3} \u{a9}\na a\naa aa\n\0aaaaa caf\u{e9}".into());
    seeds
}
