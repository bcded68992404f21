//! Segments: the prepared text as training sees it. Every document is cut each `seq_len - 2` tokens (the room between
//! the opening and the closing mark); no segment crosses documents, none is dropped.

use std::path::{Path, PathBuf};

use super::shards::Shard;
use super::tokenizer::hex;
use super::words;
use crate::{Error, Result};

/// Far above what attention can pay for.
const MAX_SEQ_LEN: usize = 1 << 20;

/// Refuses a number of tokens that no row can have.
pub(crate) fn check_seq_len(seq_len: usize) -> Result<()> {
    if !(3..=MAX_SEQ_LEN).contains(&seq_len) {
        return Err(Error::Usage(format!("a sequence length of {seq_len}; must be 3 to {MAX_SEQ_LEN}")));
    }
    Ok(())
}

/// A piece of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of its first token among all tokens.
    pub first: u64,
    /// Number of tokens, without framing: 1 to `seq_len - 2`.
    pub len: u32,
    /// Raw words it counts for ([`words::share`]).
    pub words: u32,
    /// The document ends with it.
    pub ends_document: bool,
}

/// The segments of a shard.
#[derive(Debug)]
pub struct Dataset {
    shard: Shard,
    /// Tokens of a full segment.
    cut: u64,
    /// Index of each document's first segment, and at the end their number: `[documents + 1]`.
    first_segment: Vec<u32>,
}

impl Dataset {
    /// Opens the shard of training text in a folder that [`prepare`](super::prepare::prepare) made, for rows of
    /// `seq_len` tokens, framing included.
    ///
    /// # Errors
    /// A broken shard, a `seq_len` below 3 or above 2^20, more than 2^32 - 1 segments, or words in a document.
    pub fn open(dir: impl AsRef<Path>, seq_len: usize) -> Result<Dataset> {
        Self::open_file(dir.as_ref().join(super::prepare::TRAIN_FILE), seq_len)
    }

    /// As [`open`](Self::open), for the dev text; nothing, if the folder has none.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_dev(dir: impl AsRef<Path>, seq_len: usize) -> Result<Option<Dataset>> {
        let path = dir.as_ref().join(super::prepare::DEV_FILE);
        if path.exists() { Self::open_file(path, seq_len).map(Some) } else { Ok(None) }
    }

    /// Opens one shard by its path.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_file(path: PathBuf, seq_len: usize) -> Result<Dataset> {
        check_seq_len(seq_len)?;
        let cut = seq_len as u64 - 2;
        let shard = Shard::open(&path)?;
        let mut first_segment = Vec::with_capacity(shard.documents().len() + 1);
        let (mut segments, mut start) = (0u64, 0);
        for (i, &[end, words]) in shard.documents().iter().enumerate() {
            first_segment.push(segments as u32);
            segments += (end - start).div_ceil(cut);
            if segments > u64::from(u32::MAX) || words > u64::from(u32::MAX) {
                return Err(Error::data(&path, format!("document {i}"), "more than 2^32 segments, or words in it"));
            }
            start = end;
        }
        first_segment.push(segments as u32);
        Ok(Dataset { shard, cut, first_segment })
    }

    /// Number of segments.
    pub fn len(&self) -> u32 {
        self.first_segment[self.first_segment.len() - 1]
    }

    /// Whether there is no segment.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Segment `i`; panics if `i >= len()`, as indexing does.
    pub fn segment(&self, i: u32) -> Segment {
        assert!(i < self.len(), "segment {i} of {}", self.len());
        let document = self.first_segment.partition_point(|&first| first <= i) - 1;
        let documents = self.shard.documents();
        let start = if document == 0 { 0 } else { documents[document - 1][0] };
        let [end, words] = documents[document];
        let from = u64::from(i - self.first_segment[document]) * self.cut;
        let to = (from + self.cut).min(end - start);
        Segment {
            first: start + from,
            // Both fit: at most a sequence length; at most the document's words (see open_file).
            len: (to - from) as u32,
            words: words::share(words, end - start, from, to) as u32,
            ends_document: to == end - start,
        }
    }

    /// The tokens of segment `i`, without framing: `[len]`; panics if `i >= len()`.
    pub fn tokens(&self, i: u32) -> &[u16] {
        let segment = self.segment(i);
        let first = segment.first as usize;
        &self.shard.tokens()[first..first + segment.len as usize]
    }

    /// Raw words of all segments.
    pub fn total_words(&self) -> u64 {
        self.shard.words()
    }

    /// Tokens of all segments, without framing.
    pub fn total_tokens(&self) -> u64 {
        self.shard.tokens().len() as u64
    }

    /// Number of documents.
    pub fn documents(&self) -> u64 {
        self.shard.documents().len() as u64
    }

    /// Number of tokens of the tokenizer, V.
    pub fn vocab_size(&self) -> usize {
        self.shard.vocab_size()
    }

    /// The content key in hexadecimal: the same text, tokenizer and settings have the same.
    pub fn hash(&self) -> String {
        hex(&self.shard.key())
    }
}

#[cfg(test)]
mod tests {
    use super::super::shards::Writer;
    use super::*;
    use proptest::prelude::*;

    fn dataset(documents: &[(usize, u64)], seq_len: usize) -> Dataset {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut writer = Writer::create(&path, 65536).unwrap();
        let mut next = 0u16;
        for &(tokens, words) in documents {
            let tokens: Vec<u16> = (0..tokens)
                .map(|_| {
                    next = next.wrapping_add(1);
                    next
                })
                .collect();
            writer.push(&tokens, words).unwrap();
        }
        writer.finish([0xAB; 32]).unwrap();
        Dataset::open_file(path, seq_len).unwrap()
    }

    #[test]
    fn documents_are_cut_every_seq_len_minus_two_tokens() {
        let set = dataset(&[(7, 5), (3, 3), (1, 1)], 5);
        let expect = [(0, 3, 2, false), (3, 3, 2, false), (6, 1, 1, true), (7, 3, 3, true), (10, 1, 1, true)];
        assert_eq!(set.len(), 5);
        for (i, (first, len, words, ends_document)) in (0..).zip(expect) {
            assert_eq!(set.segment(i), Segment { first, len, words, ends_document });
            let tokens: Vec<u16> = (first as u16 + 1..=first as u16 + len as u16).collect();
            assert_eq!(set.tokens(i), tokens);
        }
        assert_eq!((set.total_words(), set.total_tokens(), set.documents()), (9, 11, 3));
        assert_eq!(set.hash(), "ab".repeat(32));
    }

    #[test]
    fn a_sequence_needs_room_for_a_token() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Dataset::open(dir.path(), 2).unwrap_err().to_string().contains("sequence length of 2"));
        assert!(Dataset::open_dev(dir.path(), 8).unwrap().is_none());
        assert!(Dataset::open(dir.path(), 8).unwrap_err().to_string().contains("train.tokens"));
        assert!(dataset(&[], 8).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn segments_tile_the_documents(
            documents in proptest::collection::vec((1usize..50, 0u64..60), 1..20),
            seq_len in 3usize..20,
        ) {
            let set = dataset(&documents, seq_len);
            let (mut at, mut words, mut i) = (0, 0, 0);
            for &(tokens, document_words) in &documents {
                let end = at + tokens as u64;
                while at < end {
                    let s = set.segment(i);
                    prop_assert_eq!(s.first, at);
                    at += u64::from(s.len);
                    prop_assert!(at <= end);
                    prop_assert_eq!(s.ends_document, at == end);
                    prop_assert!(s.len as usize == seq_len - 2 || s.ends_document);
                    words += u64::from(s.words);
                    i += 1;
                }
                prop_assert_eq!(words, document_words);
                words = 0;
            }
            prop_assert_eq!(i, set.len());
        }
    }
}
