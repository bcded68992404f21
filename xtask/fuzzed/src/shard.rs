//! Prepared text: a shard as it is, a shard whose checksum is put right first, or the index of a prepared folder, with its
//! checksum put right, too.

use std::cell::OnceCell;
use std::path::PathBuf;

use antlm::files;
use antlm::recipe::Recipe;
use antlm::text::dataset::Dataset;
use antlm::text::prepare::{self, Summary, prepare};
use antlm::text::shards::{Shard, Writer};
use antlm::train::input;
use sha2::{Digest, Sha256};

pub fn run(data: &[u8]) -> bool {
    match crate::choice(data, 3) {
        Some((0, bytes)) => shard(bytes.to_vec()),
        Some((1, bytes)) => shard(sealed(bytes)),
        Some((_, bytes)) => index(bytes),
        None => false,
    }
}

/// With the checksum that belongs to it, as somebody would write it who wants to be read.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 128 {
        let hash = Sha256::new().chain_update(&bytes[128..]).chain_update(&bytes[..72]).finalize();
        bytes[72..104].copy_from_slice(&hash);
    }
    bytes
}

fn shard(bytes: Vec<u8>) -> bool {
    let path = crate::file("shard", &bytes);
    let Some(shard) = crate::read(Shard::open(&path)) else { return false };
    // Read and written, it holds the same.
    let again = crate::place("again.shard");
    let mut writer = Writer::create(&again, shard.vocab_size()).expect("a temporary file");
    let mut from = 0;
    for &[to, words] in shard.documents() {
        writer.push(&shard.tokens()[from..to as usize], words).expect("a temporary file");
        from = to as usize;
    }
    writer.finish(shard.key()).expect("a temporary file");
    let same = Shard::open(&again).expect("what it writes it reads");
    assert!(same.tokens() == shard.tokens() && same.documents() == shard.documents() && same.key() == shard.key());
    assert_eq!((same.words(), same.vocab_size()), (shard.words(), shard.vocab_size()));

    for seq_len in [3, 7, 512] {
        let Some(dataset) = crate::read(Dataset::open_file(path.clone(), seq_len)) else { continue };
        let (mut tokens, mut words) = (0, 0);
        for i in 0..dataset.len() {
            let segment = dataset.segment(i);
            assert_eq!((segment.first, segment.len as usize), (tokens, dataset.tokens(i).len()));
            assert!((1..=seq_len - 2).contains(&(segment.len as usize)));
            assert!(dataset.tokens(i).iter().all(|&token| usize::from(token) < dataset.vocab_size()));
            tokens += u64::from(segment.len);
            words += u64::from(segment.words);
        }
        assert_eq!((tokens, words), (dataset.total_tokens(), dataset.total_words()));
    }
    true
}

fn index(bytes: &[u8]) -> bool {
    let folder = prepared();
    std::fs::write(folder.join(INDEX), bytes).expect("a temporary file");
    crate::read(prepare::read_summary(&folder));
    // With the checksum that belongs to it.
    if let Ok(mut summary) = serde_json::from_slice::<Summary>(bytes) {
        let text = |summary: &Summary| serde_json::to_string_pretty(summary).expect("an index is JSON") + "\n";
        summary.sha256.clear();
        summary.sha256 = files::sha256(text(&summary).as_bytes());
        std::fs::write(folder.join(INDEX), text(&summary)).expect("a temporary file");
        assert_eq!(crate::read(prepare::read_summary(&folder)), Some(Some(summary)));
    }
    let Some(prepared) = crate::read(prepare::open(&folder, 16)) else { return false };
    assert_eq!(prepared.summary.key, prepared.train.hash());
    assert_eq!(prepared.tokenizer.vocab_size(), prepared.train.vocab_size());
    true
}

const INDEX: &str = "prepared.json";

/// A prepared text, made once in a thread.
fn prepared() -> PathBuf {
    thread_local! {
        static MADE: OnceCell<PathBuf> = const { OnceCell::new() };
    }
    let make = || {
        let set = ["model.vocab_size=270", "seq_len=16"].map(String::from);
        let recipe = Recipe::load("ltg-bert-tiny", &set).expect("a built-in recipe");
        let lines: String = (0..150).map(|i| format!("the cat {i} sees the dog\n\n")).collect();
        let text = crate::file("text.txt", lines.as_bytes());
        let options = input::options(&recipe, &[text], &[]).expect("a text");
        let folder = crate::place("prepared");
        prepare(&options, &folder, &mut |_| {}, &|| false).expect("a prepared text");
        folder
    };
    MADE.with(|made| made.get_or_init(make).clone())
}

pub fn seeds() -> Vec<Vec<u8>> {
    let path = crate::place("seed.shard");
    let mut writer = Writer::create(&path, 300).expect("a temporary file");
    for (n, words) in [(3, 2), (1, 0), (9, 7)] {
        writer.push(&(5..5 + n).collect::<Vec<u16>>(), words).expect("a temporary file");
    }
    writer.finish([7; 32]).expect("a temporary file");
    let shard = std::fs::read(path).expect("the seed");
    let index = prepared().join(INDEX);
    // It may have been replaced by what was tried last.
    static GOOD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let index = GOOD.get_or_init(|| std::fs::read(index).expect("the index"));
    let changed = String::from_utf8_lossy(index).replace("\"dropped\": 0", "\"dropped\": 1");
    assert_ne!(changed.as_bytes(), index);
    let seed = |way: u8, bytes: &[u8]| [&[way], bytes].concat();
    vec![seed(0, &shard), seed(1, &shard), seed(2, index), seed(2, changed.as_bytes())]
}
