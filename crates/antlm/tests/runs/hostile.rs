//! Files that were damaged, by accident or on purpose, are errors of one line; nothing panics, nothing asks for
//! absurd amounts of memory, and nothing is trained on.

use std::path::{Path, PathBuf};

use antlm::Error;
use antlm::eval::score::Scorer;
use antlm::train::{checkpoint, info, run};
use antlm_nn::rng::{Rng, Stream};

use super::toy::{Toy, read};

/// Numbers that no file of ours has.
const NUMBERS: [&str; 7] = ["-1", "0", "99999999999", "18446744073709551615", "1e308", "\"x\"", "[]"];

/// All files that a run is read from.
fn files(toy: &Toy) -> Vec<PathBuf> {
    let (run, prepared) = (toy.run("whole"), toy.path().join("prepared"));
    let newest = checkpoint::newest(&run).unwrap().unwrap().path;
    let mut files: Vec<PathBuf> = ["log.jsonl", "recipe.toml", "tokenizer.json"].map(|name| run.join(name)).into();
    files.extend(["state.json", "model.safetensors", "optimizer.safetensors"].map(|name| newest.join(name)));
    files.extend(["prepared.json", "tokenizer.json", "train.tokens", "dev.tokens"].map(|name| prepared.join(name)));
    files
}

/// Reads the run in every way there is; gives the errors.
fn open(toy: &Toy) -> Vec<Error> {
    let run = toy.run("whole");
    let mut errors: Vec<Error> = Vec::new();
    errors.extend(info::read(&run).err());
    errors.extend(Scorer::open(&run).err());
    // Not trained: what was opened is what would be trained on.
    errors.extend(run::resume(&run).err());
    errors
}

/// Puts every version of a file in its place and opens the run; returns how many were refused.
fn try_all(toy: &Toy, path: &Path, versions: impl Iterator<Item = Vec<u8>>) -> usize {
    let (good, log) = (read(path), toy.run("whole").join("log.jsonl"));
    let whole_log = read(&log);
    let mut refused = 0;
    for version in versions {
        std::fs::write(path, &version).unwrap();
        let errors = open(toy);
        for error in &errors {
            let line = error.to_string();
            assert!(!line.contains('\n') && line.len() < 2000, "{path:?}: {line:?}");
        }
        refused += usize::from(!errors.is_empty());
        std::fs::write(path, &good).unwrap();
        std::fs::write(&log, &whole_log).unwrap(); // a resumed run cuts it
    }
    refused
}

#[test]
fn truncated_anywhere() {
    let toy = Toy::new();
    for path in files(&toy) {
        let good = read(&path);
        let n = good.len();
        let lengths = (0..n).filter(|i| i % (n / 24 + 1) == 0 || *i < 12 || i + 4 > n);
        let refused = try_all(&toy, &path, lengths.clone().map(|length| good[..length].to_vec()));
        // A log, or a recipe, may end after any line; a damaged checkpoint may be passed over for the one before it.
        // What is checked by its sum cannot be cut at all.
        if path.extension().is_some_and(|e| e == "tokens") || path.ends_with("prepared/tokenizer.json") {
            assert_eq!(refused, lengths.count(), "{path:?}");
        }
    }
    assert!(open(&toy).is_empty());
}

#[test]
fn flipped_bits() {
    let toy = Toy::new();
    for path in files(&toy) {
        let good = read(&path);
        let mut draws = Rng::new(1).draws(Stream::SAMPLE, 0, 0);
        let flips: Vec<(usize, u32)> =
            (0..60).map(|_| (draws.below(good.len() as u32) as usize, draws.below(8))).collect();
        let refused = try_all(
            &toy,
            &path,
            flips.iter().map(|&(at, bit)| {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                bytes
            }),
        );
        if path.extension().is_some_and(|e| e == "tokens") {
            // The last 24 bytes of the header are the only ones that mean nothing.
            let sure = flips.iter().filter(|(at, _)| !(104..128).contains(at)).count();
            assert!(refused >= sure, "{path:?}: {refused} of {sure}");
        }
    }
    assert!(open(&toy).is_empty());
}

/// Every number of every text file, replaced by ones that are too large, too small or no numbers.
#[test]
fn absurd_numbers() {
    let toy = Toy::new();
    for path in files(&toy) {
        let Ok(text) = String::from_utf8(read(&path)) else { continue };
        // Of a long file, the first numbers: the rest is more of the same.
        let places = numbers(&text).into_iter().take(40);
        let versions = places.flat_map(|(start, end)| {
            let text = &text;
            NUMBERS.map(|number| [&text[..start], number, &text[end..]].concat().into_bytes()).into_iter()
        });
        try_all(&toy, &path, versions);
    }
    assert!(open(&toy).is_empty());
}

/// The bounds of the numbers that stand where a value stands.
fn numbers(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(|b| b.is_ascii_digit() || b".-+e".contains(b));
    let mut found = Vec::new();
    let mut i = 1;
    while i < bytes.len() {
        if bytes[i].is_ascii_digit() && b" :,[".contains(&bytes[i - 1]) {
            let end = (i..).find(|&j| !digit(j)).unwrap_or(bytes.len());
            found.push((i, end));
            i = end;
        }
        i += 1;
    }
    found
}

/// Headers of safetensors files that lie about shapes and places.
#[test]
fn lying_tensor_headers() {
    let toy = Toy::new();
    let newest = checkpoint::newest(&toy.run("whole")).unwrap().unwrap().path;
    for name in ["model.safetensors", "optimizer.safetensors"] {
        let path = newest.join(name);
        let good = read(&path);
        let length = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        let header = std::str::from_utf8(&good[8..8 + length]).unwrap();
        let versions = numbers(header).into_iter().take(60).flat_map(|(start, end)| {
            let good = &good;
            NUMBERS.map(move |number| {
                let header = [&header[..start], number, &header[end..]].concat();
                [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &good[8 + length..]].concat()
            })
        });
        try_all(&toy, &path, versions);
        for version in
            [u64::MAX, 100_000_001, good.len() as u64, 0].map(|n| [&n.to_le_bytes()[..], &good[8..]].concat())
        {
            std::fs::write(&path, version).unwrap();
            let layout = antlm::model::Model::new(&toy.recipe.config()).unwrap();
            assert!(checkpoint::load(&newest, layout.layout()).is_err());
        }
        std::fs::write(&path, &good).unwrap();
    }
}
