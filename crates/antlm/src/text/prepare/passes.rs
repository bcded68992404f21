//! The passes over the text: for the key, for the dev set, for the tokenizer, for the shards. Each reads the files as a
//! stream, some megabytes at a time.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::super::clean::clean;
use super::super::corpus::{self, Source, TextFile};
use super::super::encode::{Caches, count_pieces, encode_documents};
use super::super::pieces::with_prefix;
use super::super::shards::{Key, Writer};
use super::super::source::Weight;
use super::super::special::Family;
use super::super::tokenizer::{Tokenizer, hex};
use super::super::words::{Meter, Unit};
use super::{Counts, DEV_FILE, FileRecord, Phase, Progress, SourceRecord, TRAIN_FILE};
use crate::{Error, Result};

/// Text held in memory at a time, in bytes (a longer document is held whole).
const WINDOW: usize = 8 << 20;
/// Without dev files one document in this many goes to the dev set …
const DEV_SHARE: u64 = 100;
/// … if there are at least this many.
const DEV_MIN_DOCUMENTS: u64 = 10;

pub(in super::super) fn total_bytes(files: &[TextFile]) -> u64 {
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

/// A document as it was found.
pub(in super::super) struct Raw<'a> {
    pub(in super::super) file: &'a TextFile,
    pub(in super::super) text: String,
}

/// A document, cleaned.
struct Document {
    /// Empty, if cleaning left nothing.
    text: String,
    /// Words or bytes of the text before it was cleaned; the source's [`Unit`] says which.
    measured: u64,
    source: usize,
}

/// How the documents of each source count.
fn units(sources: &[Source]) -> Result<Vec<Unit>> {
    sources.iter().map(|source| source.unit().map_err(Error::Usage)).collect()
}

/// How often a document of this source is in an epoch, and whether it is in the dev set instead.
fn place(text: &str, split: Split, weight: Weight) -> (bool, u32) {
    if split == Split::None && weight.is_one() {
        return (false, 1);
    }
    let hash = document_hash(text);
    if split.is_dev(hash) { (true, 1) } else { (false, weight.copies(hash)) }
}

/// The passes over the text, and whom they report to.
pub(in super::super) struct Work<'a> {
    pub(in super::super) progress: &'a mut dyn FnMut(Progress),
    pub(in super::super) cancelled: &'a dyn Fn() -> bool,
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
                cleaning: file.cleaning,
                bytes,
                sha256: hex(&hash.finalize()),
            });
        }
        Ok(records)
    }

    /// Hands the documents of the files, in order and as they are, to `window`, some megabytes at a time. `before` and
    /// `total` are for the reports.
    pub(in super::super) fn raw_windows<'f>(
        &mut self,
        files: &'f [TextFile],
        phase: Phase,
        before: u64,
        total: u64,
        mut window: impl FnMut(Vec<Raw<'f>>) -> Result<()>,
    ) -> Result<()> {
        let mut documents = Vec::new();
        let mut held = 0;
        let mut done = before;
        for file in files {
            let read = Cell::new(0);
            corpus::documents(file, &read, |text| {
                held += text.len();
                documents.push(Raw { file, text: text.to_owned() });
                if held >= WINDOW {
                    self.report(phase, done + read.get(), total)?;
                    held = 0;
                    window(std::mem::take(&mut documents))?;
                }
                Ok(())
            })?;
            done += file.bytes;
        }
        self.report(phase, done, total)?;
        window(documents)
    }

    /// The same, cleaned, and measured before that.
    fn windows(
        &mut self,
        (files, units): (&[TextFile], &[Unit]),
        phase: Phase,
        before: u64,
        total: u64,
        mut window: impl FnMut(Vec<Document>) -> Result<()>,
    ) -> Result<()> {
        self.raw_windows(files, phase, before, total, |documents| {
            let cleaned = documents.into_par_iter().map(|Raw { file, text }| Document {
                measured: units[file.source].measure(&text),
                text: match file.cleaning {
                    Some(corpus) => clean(&text, corpus).unwrap_or_default(),
                    None => text,
                },
                source: file.source,
            });
            window(cleaned.collect())
        })
    }

    /// Finds out how the dev set is to be chosen.
    pub(super) fn scan(&mut self, sources: &[Source], files: &[TextFile]) -> Result<Split> {
        let (mut documents, mut any, mut least) = (0, false, u64::MAX);
        let units = units(sources)?;
        self.windows((files, &units), Phase::Scan, 0, total_bytes(files), |window| {
            let kept = window.par_iter().filter(|d| !d.text.is_empty());
            let hashes: Vec<u64> = kept.map(|d| document_hash(&d.text)).collect();
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

    /// Trains the tokenizer on the documents that are in an epoch, each taken once.
    pub(super) fn train(
        &mut self,
        (sources, files): (&[Source], &[TextFile]),
        split: Split,
        vocab_size: usize,
        min_frequency: u64,
        family: Family,
    ) -> Result<Tokenizer> {
        let mut counts = HashMap::new();
        let units = units(sources)?;
        self.windows((files, &units), Phase::Count, 0, total_bytes(files), |window| {
            let kept = window.par_iter().filter(|d| {
                let (is_dev, copies) = place(&d.text, split, sources[d.source].weight);
                !is_dev && copies > 0
            });
            let kept: Vec<String> = kept.map(|d| with_prefix(&d.text)).collect();
            count_pieces(&kept, &mut counts);
            Ok(())
        })?;
        let tokenizer = Tokenizer::from_counts(&counts, vocab_size, min_frequency, family, |tokens| {
            tokens % 64 != 0 || self.report(Phase::Merge, tokens as u64, vocab_size as u64).is_ok()
        })?;
        tokenizer.ok_or_else(stopped)
    }

    /// Writes the shards into the folder; what each source gave to the training text, what is in that, and in the dev
    /// text.
    pub(super) fn encode(
        &mut self,
        folder: &Path,
        tokenizer: &Tokenizer,
        (sources, train_files): (&[Source], &[TextFile]),
        (dev_sources, dev_files): (&[Source], &[TextFile]),
        split: Split,
        key: Key,
    ) -> Result<(Vec<SourceRecord>, Counts, Option<Counts>)> {
        let caches = Caches::default();
        let mut train = Writer::create(folder.join(TRAIN_FILE), tokenizer.vocab_size())?;
        let mut dev = Writer::create(folder.join(DEV_FILE), tokenizer.vocab_size())?;
        let train_bytes = total_bytes(train_files);
        let total = train_bytes + total_bytes(dev_files);
        let mut records: Vec<SourceRecord> = sources.iter().map(SourceRecord::of).collect();

        let units_of_train = units(sources)?;
        // Words of the text itself, of an epoch, and of the dev text.
        let mut meters: Vec<[Meter; 3]> = units_of_train.iter().map(|&unit| [Meter::new(unit); 3]).collect();
        self.windows((train_files, &units_of_train), Phase::Encode, 0, total, |window| {
            let places: Vec<(bool, u32)> =
                window.par_iter().map(|d| place(&d.text, split, sources[d.source].weight)).collect();
            let placed: Vec<(Document, (bool, u32))> = window.into_iter().zip(places).collect();
            let texts: Vec<String> = placed
                .par_iter()
                .map(|(d, (_, copies))| if *copies > 0 { with_prefix(&d.text) } else { String::new() })
                .collect();
            let (ids, lengths) = encode_documents(tokenizer, &caches, &texts)?;
            let mut from = 0;
            for ((document, (is_dev, copies)), length) in placed.iter().zip(lengths) {
                let tokens = &ids[from..from + length as usize];
                from += length as usize;
                let (record, meters) = (&mut records[document.source], &mut meters[document.source]);
                let [text, epoch, dev_text] = meters;
                if document.text.is_empty() {
                    record.dropped += 1;
                } else if *is_dev {
                    dev.push(tokens, dev_text.add(document.measured))?;
                } else if *copies > 0 {
                    record.documents += 1;
                    record.text_words += text.add(document.measured);
                    for _ in 0..*copies {
                        let words = epoch.add(document.measured);
                        train.push(tokens, words)?;
                        record.epoch.add(tokens.len() as u64, words);
                    }
                }
            }
            Ok(())
        })?;

        if !dev_files.is_empty() {
            let units = units(dev_sources)?;
            let mut meters: Vec<Meter> = units.iter().map(|&unit| Meter::new(unit)).collect();
            self.windows((dev_files, &units), Phase::Encode, train_bytes, total, |window| {
                let texts: Vec<String> = window.par_iter().map(|d| with_prefix(&d.text)).collect();
                let (ids, lengths) = encode_documents(tokenizer, &caches, &texts)?;
                let mut from = 0;
                for (document, length) in window.iter().zip(lengths) {
                    let to = from + length as usize;
                    if to > from {
                        dev.push(&ids[from..to], meters[document.source].add(document.measured))?;
                    }
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
            return Ok((records, train_counts, None));
        }
        dev.finish(key)?;
        Ok((records, train_counts, Some(dev_counts)))
    }
}

fn changed(file: &TextFile) -> Error {
    Error::data(&file.path, "file", "changed while it was read")
}
