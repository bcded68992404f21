//! Many documents at once: counting pieces and encoding, on all threads of the current rayon pool. Work is cut by
//! bytes of text, never by the number of threads, and results come in the order of the text.

use std::collections::HashMap;
use std::sync::Mutex;

use rayon::prelude::*;

use super::pieces::{Splitter, byte_chars, parts};
use super::tokenizer::Tokenizer;
use crate::Result;

/// Text of one task, in bytes.
const TASK: usize = 256 << 10;
/// A cache with this many pieces starts again.
const CACHED: usize = 200_000;
/// Longer pieces are not cached.
const CACHED_LEN: usize = 64;
/// Merges are learnt from at most this many bytes of a piece at once: a "word" of megabytes teaches nothing and would
/// take hours.
const LEARN_LEN: usize = 256;

/// Ids of the pieces seen so far. It changes the speed only.
pub(crate) struct Cache {
    splitter: Splitter,
    ids: HashMap<Box<str>, Box<[u16]>>,
    chars: String,
}

impl Cache {
    pub(crate) fn new() -> Cache {
        Cache { splitter: Splitter::new(), ids: HashMap::new(), chars: String::new() }
    }

    /// For a single text.
    pub(crate) fn for_one() -> Cache {
        Cache { splitter: Splitter::shared(), ids: HashMap::new(), chars: String::new() }
    }

    /// How many pieces a text that `with_prefix` made, or a part of one, is cut into.
    pub(crate) fn pieces(&self, text: &str) -> usize {
        let mut pieces = 0;
        self.splitter.each(text, |_| pieces += 1);
        pieces
    }

    /// Appends the ids of a text that `with_prefix` made, or of a part of it that `parts` cut.
    pub(crate) fn encode(&mut self, tokenizer: &Tokenizer, text: &str, out: &mut Vec<u16>) -> Result<()> {
        let Cache { splitter, ids, chars } = self;
        let mut result = Ok(());
        splitter.each(text, |piece| {
            if let Some(known) = ids.get(piece) {
                out.extend_from_slice(known);
            } else if result.is_ok() {
                let from = out.len();
                byte_chars(piece, chars);
                result = tokenizer.encode_piece(chars, out);
                if piece.len() <= CACHED_LEN {
                    if ids.len() >= CACHED {
                        ids.clear();
                    }
                    ids.insert(piece.into(), out[from..].into());
                }
            }
        });
        result
    }
}

/// The caches of the threads at work.
#[derive(Default)]
pub(crate) struct Caches(Mutex<Vec<Cache>>);

impl Caches {
    fn with<T>(&self, f: impl FnOnce(&mut Cache) -> T) -> T {
        // A poisoned lock means that a thread panicked while pushing or popping; the list is whole all the same.
        let lock = || self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut cache = lock().pop().unwrap_or_else(Cache::new);
        let out = f(&mut cache);
        lock().push(cache);
        out
    }
}

/// Consecutive parts of documents, about [`TASK`] bytes together: `(document, text)`.
fn tasks(documents: &[String]) -> Vec<Vec<(usize, &str)>> {
    let mut tasks = vec![Vec::new()];
    let mut bytes = 0;
    for (i, document) in documents.iter().enumerate() {
        for part in parts(document, TASK) {
            if bytes + part.len() > TASK && bytes > 0 {
                tasks.push(Vec::new());
                bytes = 0;
            }
            bytes += part.len();
            // There is always a last task.
            if let Some(task) = tasks.last_mut() {
                task.push((i, part));
            }
        }
    }
    tasks
}

/// Adds the pieces of documents that `with_prefix` made to `counts`.
pub(crate) fn count_pieces(documents: &[String], counts: &mut HashMap<Box<str>, u64>) {
    let counted: Vec<HashMap<&str, u64>> = tasks(documents)
        .par_iter()
        .map_init(Splitter::new, |splitter, task| {
            let mut counts = HashMap::new();
            for (_, text) in task {
                splitter.each(text, |mut piece| {
                    while piece.len() > LEARN_LEN {
                        let (head, rest) = piece.split_at(piece.floor_char_boundary(LEARN_LEN));
                        *counts.entry(head).or_default() += 1;
                        piece = rest;
                    }
                    *counts.entry(piece).or_default() += 1;
                });
            }
            counts
        })
        .collect();
    for (piece, n) in counted.into_iter().flatten() {
        match counts.get_mut(piece) {
            Some(count) => *count += n,
            None => {
                counts.insert(piece.into(), n);
            }
        }
    }
}

/// The ids of documents that `with_prefix` made: all in a row, and how many each has.
pub(crate) fn encode_documents(
    tokenizer: &Tokenizer,
    caches: &Caches,
    documents: &[String],
) -> Result<(Vec<u16>, Vec<u64>)> {
    // Of each task the ids, and how many of them belong to which document.
    type Encoded = (Vec<u16>, Vec<(usize, u64)>);
    let encoded: Vec<Encoded> = tasks(documents)
        .par_iter()
        .map(|task| {
            caches.with(|cache| {
                let mut ids = Vec::new();
                let mut lengths = Vec::new();
                for &(document, text) in task {
                    let from = ids.len();
                    cache.encode(tokenizer, text, &mut ids)?;
                    lengths.push((document, (ids.len() - from) as u64));
                }
                Ok((ids, lengths))
            })
        })
        .collect::<Result<_>>()?;
    let mut all = Vec::new();
    let mut lengths = vec![0; documents.len()];
    for (ids, by_part) in encoded {
        all.extend(ids);
        for (document, n) in by_part {
            lengths[document] += n;
        }
    }
    Ok((all, lengths))
}
