//! Sources that say more: packed, weighted, cleaned, counted by bytes, as tables; what of it is in the key.

use super::super::clean::Cleaning;
use super::super::corpus::DocumentRule;
use super::super::source::Weight;
use super::super::words;
use super::tests::{options, run, text};
use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// The training shard and the tokenizer without what the key puts into the shard's header.
fn content(dir: &Path) -> (Vec<u8>, Vec<u8>) {
    let shard = fs::read(dir.join(TRAIN_FILE)).unwrap();
    (shard[128..].to_vec(), fs::read(dir.join(TOKENIZER_FILE)).unwrap())
}

#[test]
fn packed_text_is_the_same_text() {
    let dir = tempfile::tempdir().unwrap();
    let plain = text(2_000_000, 1);
    let json = "{\"text\":\"one document\"}\n{\"text\":\"another\"}\n";
    let mut all = Vec::new();
    for (name, pack) in [("", None), (".gz", Some(gzip as fn(&[u8]) -> Vec<u8>)), (".zst", Some(zstd))] {
        let folder = dir.path().join(format!("corpus{name}"));
        fs::create_dir(&folder).unwrap();
        for (file, bytes) in [("a.train", plain.as_bytes()), ("b.jsonl", json.as_bytes())] {
            let bytes = pack.map_or(bytes.to_vec(), |pack| pack(bytes));
            fs::write(folder.join(format!("{file}{name}")), bytes).unwrap();
        }
        let out = dir.path().join(format!("out{name}"));
        let prepared = run(&options(&[folder]), &out).unwrap();
        all.push((content(&out), prepared.summary.train));
    }
    assert!(all[0] == all[1] && all[1] == all[2]);

    // A folder must not count a file twice.
    let folder = dir.path().join("corpus");
    fs::write(folder.join("a.train.gz"), gzip(plain.as_bytes())).unwrap();
    let error = run(&options(&[folder]), &dir.path().join("twice")).unwrap_err().to_string();
    assert!(error.contains("a.train.gz: file: is there unpacked, too"), "{error}");
}

#[test]
fn broken_archives_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let plain = text(100_000, 1);
    let out = dir.path().join("out");
    for (name, packed) in [("a.txt.gz", gzip(plain.as_bytes())), ("a.txt.zst", zstd(plain.as_bytes()))] {
        let path = dir.path().join(name);
        let mut flipped = packed.clone();
        flipped[packed.len() / 2] ^= 0x10;
        for (bytes, expect) in [
            (&packed[..packed.len() / 2], "is cut short"),
            (&packed[..packed.len() - 1], "is cut short"),
            (&[], "is cut short"),
            // What it unpacks to may be no text long before the checksum is read.
            (&flipped, "byte "),
            (plain.as_bytes(), "damaged"),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = run(&options(std::slice::from_ref(&path)), &out).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::Data { .. }), "{text}");
            assert!(text.contains(name) && text.contains("byte ") && text.contains(expect), "{text}");
            assert!(!text.contains('\n') && !out.exists(), "{text}");
        }
        fs::remove_file(path).unwrap();
    }
    // Not called what it is.
    for bytes in [gzip(b"a"), zstd(b"a")] {
        let path = dir.path().join("a.txt");
        fs::write(&path, bytes).unwrap();
        let error = run(&options(&[path]), &out).unwrap_err().to_string();
        assert!(error.contains("let its name end in .gz or .zst"), "{error}");
    }
}

#[test]
fn weights_repeat_and_choose_documents_and_count_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["a.txt", "b.txt"].map(|name| dir.path().join(name));
    let document = |name, i| format!("{name} document number {i} has some words");
    for file in &files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let all: Vec<String> = (0..1000).map(|i| document(name, i)).collect();
        fs::write(file, all.join("\n\n")).unwrap();
    }
    let prepare = |weights: [f64; 2], name: &str| {
        let mut options = options(&[]);
        options.sources = [0, 1]
            .map(|i| Source { weight: Weight::try_from(weights[i]).unwrap(), ..Source::new("s", [&files[i]]) })
            .into();
        run(&options, &dir.path().join(name)).unwrap()
    };
    let once = prepare([1.0, 1.0], "once");
    let weighted = prepare([2.0, 0.5], "weighted");
    assert_ne!(once.summary.key, weighted.summary.key);
    // The dev set is the same whatever the weights.
    assert_eq!(once.summary.dev.unwrap().documents, weighted.summary.dev.unwrap().documents);
    let [a, b] = &weighted.summary.sources[..] else { panic!() };
    let [a1, b1] = &once.summary.sources[..] else { panic!() };
    assert_eq!((a1.documents, a1.text_words), (a1.epoch.documents, a1.epoch.words));
    assert_eq!((a.documents, a.text_words), (a1.documents, a1.text_words));
    assert_eq!((a.epoch.documents, a.epoch.words), (2 * a.documents, 2 * a.text_words));
    assert!(b.documents.abs_diff(b1.documents / 2) < 60, "{}", b.documents);
    assert_eq!((b.epoch.documents, b.epoch.words), (b.documents, b.text_words));
    assert_eq!(a.text_words, 7 * a.documents);
    let summary = &weighted.summary;
    assert_eq!(summary.train.words, a.epoch.words + b.epoch.words);
    assert_eq!(weighted.train.total_words(), summary.train.words);
    assert_eq!(summary.text_words(), a.text_words + b.text_words);
    assert_eq!(weighted.train.documents(), a.epoch.documents + b.epoch.documents);
    // Twice the same tokens, one after the other.
    let tokens = |i| weighted.train.tokens(i).to_vec();
    assert_eq!(tokens(0), tokens(1));
    assert_ne!(tokens(1), tokens(2));
    assert!(prepare([2.0, 0.5], "weighted").reused);
}

#[test]
fn cleaning_weights_words_and_languages_are_in_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("childes.txt");
    let lines = "*MOT:\tdo you  see it ?\n*CHI:\tyes .\n*CHI:\tyes .\n\n*CHI:\t[laughs]\n\n";
    fs::write(&file, lines.repeat(20) + &text(5_000, 1)).unwrap();
    let mut keys = Vec::new();
    let mut prepare = |change: &dyn Fn(&mut Source)| {
        let mut options = options(std::slice::from_ref(&file));
        change(&mut options.sources[0]);
        let out = dir.path().join(format!("out{}", keys.len()));
        let prepared = run(&options, &out).unwrap();
        assert!(run(&options, &out).unwrap().reused);
        keys.push(prepared.summary.key.clone());
        prepared
    };
    let plain = prepare(&|_| {});
    let cleaned = prepare(&|s| s.cleaning = Cleaning::Babylm);
    prepare(&|s| s.cleaning = "babylm:bnc_spoken".parse().unwrap());
    prepare(&|s| s.weight = 2.0.try_into().unwrap());
    prepare(&|s| s.language = Some("eng".to_owned().try_into().unwrap()));
    let bytes = prepare(&|s| {
        s.words = words::Rule::Bytes;
        s.language = Some("eng".to_owned().try_into().unwrap());
    });
    prepare(&|s| s.documents = DocumentRule::File);
    let last = keys.len() - 1;
    for (i, key) in keys.iter().enumerate() {
        assert!(!keys[..i].contains(key), "{i} of {last}");
    }
    // A name is no content, and a corpus is the same whoever says it.
    let mut options = options(std::slice::from_ref(&file));
    options.sources[0].name = "another".into();
    assert!(run(&options, &dir.path().join("out0")).unwrap().reused);
    options.sources[0].cleaning = Cleaning::Corpus(Corpus::Childes);
    assert!(run(&options, &dir.path().join("out1")).unwrap().reused);

    let (plain, cleaned, bytes) = (&plain.summary.sources[0], &cleaned.summary.sources[0], &bytes.summary.sources[0]);
    // 20 documents of nothing but a comment count no words; the others count those of the raw text.
    assert_eq!((plain.dropped, cleaned.dropped), (0, 20));
    assert!(cleaned.text_words < plain.text_words && cleaned.epoch.tokens < plain.epoch.tokens);
    assert!(bytes.text_words > 0 && bytes.text_words != plain.text_words);
}

#[test]
fn cleaned_text_is_what_the_model_sees_and_raw_words_are_what_counts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("qed.txt");
    fs::write(&file, "- so  it is\n- so  it is\n\n&lt;i&gt;\n\nmore &amp; more").unwrap();
    let mut options = options(&[file]);
    options.sources[0].cleaning = Cleaning::Babylm;
    let it = run(&options, &dir.path().join("out")).unwrap();
    let decode = |i| it.tokenizer.decode(&it.train.tokens(i).iter().map(|&t| t.into()).collect::<Vec<_>>());
    assert_eq!((0..it.train.len()).map(decode).collect::<String>(), " so it is more & more");
    // Two lines of four, and three; the line of mark-up is a document that was dropped.
    assert_eq!((it.train.documents(), it.summary.train.words, it.summary.sources[0].dropped), (2, 11, 1));

    options.sources[0].paths = vec![dir.path().join("notes.txt")];
    fs::write(dir.path().join("notes.txt"), "x").unwrap();
    let error = run(&options, &dir.path().join("other")).unwrap_err().to_string();
    assert!(error.contains("notes.txt: name: cleaning \"babylm\" goes by file names"), "{error}");
    options.sources[0].paths = vec![dir.path().join("qed.txt")];
    fs::write(dir.path().join("qed.txt"), "&lt;i&gt;\n").unwrap();
    let error = run(&options, &dir.path().join("other")).unwrap_err().to_string();
    assert!(error.contains("no text is left to train on"), "{error}");
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_needs_its_feature() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.parquet");
    fs::write(&file, "PAR1").unwrap();
    let error = run(&options(&[file]), &dir.path().join("out")).unwrap_err().to_string();
    assert!(error.contains("a.parquet: name: this antlm was built without parquet"), "{error}");
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_is_prepared_as_jsonl_is() {
    let dir = tempfile::tempdir().unwrap();
    let texts = ["a document\r\nof two lines", "", "another"];
    let (table, lines) = (dir.path().join("a.parquet"), dir.path().join("a.jsonl"));
    super::super::parquet::tests::write(&table, &texts.map(Some), 2, parquet::basic::Compression::SNAPPY);
    let json: Vec<String> = texts.iter().map(|t| serde_json::json!({ "text": t }).to_string()).collect();
    fs::write(&lines, json.join("\n")).unwrap();
    let (a, b) = (dir.path().join("out-table"), dir.path().join("out-lines"));
    let prepared = run(&options(std::slice::from_ref(&table)), &a).unwrap();
    run(&options(&[lines]), &b).unwrap();
    assert_eq!((prepared.train.documents(), content(&a)), (2, content(&b)));
    let mut options = options(&[table]);
    options.sources[0].field = "body".into();
    let error = run(&options, &dir.path().join("no")).unwrap_err().to_string();
    assert!(
        error.contains("a.parquet: column \"body\": not there; name one of these with `field`: id, text"),
        "{error}"
    );
}
