//! The passes over the text: for the key, for the dev set, for the tokenizer, for the shards. Each reads the files as a
//! stream, some megabytes at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::super::corpus::{self, Source, TextFile};
use super::super::encode::{Caches, count_pieces, encode_documents};
use super::super::pieces::with_prefix;
use super::super::shards::{Key, Writer};
use super::super::special::Family;
use super::super::tokenizer::{Tokenizer, hex};
use super::super::words;
use super::{Counts, DEV_FILE, FileRecord, Phase, Progress, TRAIN_FILE};
use crate::{Error, Result};

/// Text held in memory at a time, in bytes (a longer document is held whole).
const WINDOW: usize = 8 << 20;
/// Without dev files one document in this many goes to the dev set …
const DEV_SHARE: u64 = 100;
/// … if there are at least this many.
const DEV_MIN_DOCUMENTS: u64 = 10;

pub(super) fn total_bytes(files: &[TextFile]) -> u64 {
    files.iter().map(|f| f.bytes).sum()
}

pub(super) fn stopped() -> Error {
    Error::Stopped { signal: 2, left: "nothing was prepared, and nothing is left of it".into() }
}

/// Which documents of the training files are the dev set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    None,
    /// Those whose hash is a multiple of [`DEV_SHARE`].
    Share,
    /// The one with this hash (and its copies).
    One(u64),
}

impl Split {
    pub(super) fn is_dev(self, hash: u64) -> bool {
        match self {
            Split::None => false,
            Split::Share => hash.is_multiple_of(DEV_SHARE),
            Split::One(one) => hash == one,
        }
    }
}

/// A document's place in the order that chooses the dev set: it depends on nothing but its content.
pub(super) fn document_hash(text: &str) -> u64 {
    let digest = Sha256::digest(text);
    digest[..8].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

/// The passes over the text, and whom they report to.
pub(super) struct Work<'a> {
    pub(super) progress: &'a mut dyn FnMut(Progress),
    pub(super) cancelled: &'a dyn Fn() -> bool,
}

impl Work<'_> {
    fn report(&mut self, phase: Phase, done: u64, total: u64) -> Result<()> {
        if (self.cancelled)() {
            return Err(stopped());
        }
        (self.progress)(Progress { phase, done, total });
        Ok(())
    }

    /// Reads the files for their checksums.
    pub(super) fn records(
        &mut self,
        sources: &[Source],
        files: &[TextFile],
        done: &mut u64,
        total: u64,
    ) -> Result<Vec<FileRecord>> {
        let mut records = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        for file in files {
            let mut reader = File::open(&file.path).map_err(Error::io(&file.path))?;
            let mut hash = Sha256::new();
            let mut bytes = 0;
            loop {
                self.report(Phase::Hash, *done, total)?;
                let n = reader.read(&mut buffer).map_err(Error::io(&file.path))?;
                if n == 0 {
                    break;
                }
                hash.update(&buffer[..n]);
                bytes += n as u64;
                *done += n as u64;
            }
            if bytes != file.bytes {
                return Err(changed(file));
            }
            records.push(FileRecord {
                source: sources[file.source].name.clone(),
                name: file.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                format: file.format.clone(),
                bytes,
                sha256: hex(&hash.finalize()),
            });
        }
        Ok(records)
    }

    /// Hands the documents of the files, in order, to `window`, some megabytes at a time. `before` and `total` are for
    /// the reports.
    fn windows(
        &mut self,
        files: &[TextFile],
        phase: Phase,
        before: u64,
        total: u64,
        mut window: impl FnMut(Vec<String>) -> Result<()>,
    ) -> Result<()> {
        let mut documents = Vec::new();
        let mut held = 0;
        let mut done = before;
        for file in files {
            let reader = File::open(&file.path).map_err(Error::io(&file.path))?;
            let read = std::cell::Cell::new(0);
            let counted = Counted { reader: BufReader::with_capacity(1 << 18, reader), read: &read };
            let bytes = corpus::read_documents(file, counted, |document| {
                held += document.len();
                documents.push(document.to_owned());
                if held >= WINDOW {
                    self.report(phase, done + read.get(), total)?;
                    held = 0;
                    window(std::mem::take(&mut documents))?;
                }
                Ok(())
            })?;
            if bytes != file.bytes {
                return Err(changed(file));
            }
            done += bytes;
        }
        self.report(phase, done, total)?;
        window(documents)
    }

    /// Finds out how the dev set is to be chosen.
    pub(super) fn scan(&mut self, files: &[TextFile]) -> Result<Split> {
        let (mut documents, mut any, mut least) = (0, false, u64::MAX);
        self.windows(files, Phase::Scan, 0, total_bytes(files), |window| {
            let hashes: Vec<u64> = window.par_iter().map(|d| document_hash(d)).collect();
            documents += hashes.len() as u64;
            any |= hashes.iter().any(|&h| Split::Share.is_dev(h));
            least = hashes.into_iter().fold(least, u64::min);
            Ok(())
        })?;
        Ok(match (documents < DEV_MIN_DOCUMENTS, any) {
            (true, _) => Split::None,
            (false, true) => Split::Share,
            (false, false) => Split::One(least),
        })
    }

    pub(super) fn train(
        &mut self,
        files: &[TextFile],
        split: Split,
        vocab_size: usize,
        min_frequency: u64,
        family: Family,
    ) -> Result<Tokenizer> {
        let mut counts = HashMap::new();
        self.windows(files, Phase::Count, 0, total_bytes(files), |window| {
            let kept = window.par_iter().filter(|d| split == Split::None || !split.is_dev(document_hash(d)));
            let kept: Vec<String> = kept.map(|d| with_prefix(d)).collect();
            count_pieces(&kept, &mut counts);
            Ok(())
        })?;
        let tokenizer = Tokenizer::from_counts(&counts, vocab_size, min_frequency, family, |tokens| {
            tokens % 64 != 0 || self.report(Phase::Merge, tokens as u64, vocab_size as u64).is_ok()
        })?;
        tokenizer.ok_or_else(stopped)
    }

    /// Writes the shards into the folder.
    pub(super) fn encode(
        &mut self,
        folder: &Path,
        tokenizer: &Tokenizer,
        train_files: &[TextFile],
        dev_files: &[TextFile],
        split: Split,
        key: Key,
    ) -> Result<(Counts, Option<Counts>)> {
        let caches = Caches::default();
        let mut train = Writer::create(folder.join(TRAIN_FILE), tokenizer.vocab_size())?;
        let mut dev = Writer::create(folder.join(DEV_FILE), tokenizer.vocab_size())?;
        let train_bytes = total_bytes(train_files);
        let total = train_bytes + total_bytes(dev_files);
        for (files, before, is_dev) in [(train_files, 0, false), (dev_files, train_bytes, true)] {
            if files.is_empty() {
                continue;
            }
            self.windows(files, Phase::Encode, before, total, |window| {
                let facts: Vec<(bool, u64)> = window
                    .par_iter()
                    .map(|d| (is_dev || split != Split::None && split.is_dev(document_hash(d)), words::count(d)))
                    .collect();
                let texts: Vec<String> = window.par_iter().map(|d| with_prefix(d)).collect();
                drop(window);
                let (ids, lengths) = encode_documents(tokenizer, &caches, &texts)?;
                let mut from = 0;
                for (&(is_dev, words), length) in facts.iter().zip(lengths) {
                    let to = from + length as usize;
                    let writer = if is_dev { &mut dev } else { &mut train };
                    writer.push(&ids[from..to], words)?;
                    from = to;
                }
                Ok(())
            })?;
        }
        let counts = |writer: &Writer| {
            let (documents, tokens, words) = writer.counts();
            Counts { documents, tokens, words }
        };
        let (train_counts, dev_counts) = (counts(&train), counts(&dev));
        train.finish(key)?;
        if dev_counts.documents == 0 {
            return Ok((train_counts, None));
        }
        dev.finish(key)?;
        Ok((train_counts, Some(dev_counts)))
    }
}

fn changed(file: &TextFile) -> Error {
    Error::data(&file.path, "file", "changed while it was read")
}

/// Counts what is read.
struct Counted<'a, R> {
    reader: R,
    read: &'a std::cell::Cell<u64>,
}

impl<R: BufRead> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.read.set(self.read.get() + n as u64);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Counted<'_, R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.read.set(self.read.get() + n as u64);
        self.reader.consume(n);
    }
}
