//! Shards: the tokens of a corpus in one file that is mapped into memory, with the bounds and the words of each
//! document. Written as a stream, so a corpus may be larger than memory; complete or absent, never half-written.
//!
//! The file, all numbers little-endian: a header of 128 bytes (below); the tokens, u16 each, `[tokens]`; zeros up to a
//! multiple of 8; a pair of u64 a document, `[documents, 2]`: the index after its last token, and its raw words.
//!
//! | bytes | header |
//! |---|---|
//! | 0..8 | `antlmtok` |
//! | 8..16 | u32 version, u32 vocabulary size |
//! | 16..40 | u64 tokens, u64 documents, u64 words |
//! | 40..72 | content key |
//! | 72..104 | SHA-256 of everything after the header, then of the header's bytes 0..72 |
//! | 104..128 | zeros |

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::{Error, Result};

#[cfg(target_endian = "big")]
compile_error!("shards are read in place as little-endian numbers");

const MAGIC: &[u8; 8] = b"antlmtok";
/// The version of the file format.
pub const VERSION: u32 = 1;
const HEADER: usize = 128;

/// What a prepared text is known by: SHA-256 of its contents and of the settings it was prepared with.
pub type Key = [u8; 32];

/// Writes a shard, document by document.
pub struct Writer {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    /// `[documents, 2]`, kept on disk too: there may be very many documents.
    documents_file: BufWriter<File>,
    hash: Sha256,
    vocab_size: usize,
    tokens: u64,
    documents: u64,
    words: u64,
}

impl Writer {
    /// Starts a shard; nothing is at `path` before [`finish`](Self::finish).
    ///
    /// # Errors
    /// If no file can be made beside `path`.
    pub fn create(path: impl AsRef<Path>, vocab_size: usize) -> Result<Writer> {
        let path = path.as_ref().to_owned();
        let folder = folder_of(&path);
        let mut builder = tempfile::Builder::new();
        // Temporary files are the owner's alone; this one becomes an ordinary file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.prefix(".shard-").tempfile_in(folder).map_err(Error::io(&path))?;
        file.write_all(&[0; HEADER]).map_err(Error::io(&path))?;
        Ok(Writer {
            documents_file: BufWriter::new(tempfile::tempfile_in(folder).map_err(Error::io(&path))?),
            file: BufWriter::with_capacity(1 << 20, file),
            path,
            hash: Sha256::new(),
            vocab_size,
            tokens: 0,
            documents: 0,
            words: 0,
        })
    }

    /// Adds a document of `words` raw words; one without tokens is left out.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn push(&mut self, tokens: &[u16], words: u64) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        let bytes: &[u8] = bytemuck::cast_slice(tokens);
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(Error::io(&self.path))?;
        self.tokens += tokens.len() as u64;
        self.documents += 1;
        self.words += words;
        for number in [self.tokens, words] {
            self.documents_file.write_all(&number.to_le_bytes()).map_err(Error::io(&self.path))?;
        }
        Ok(())
    }

    /// Number of documents, tokens and words so far.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.documents, self.tokens, self.words)
    }

    /// Completes the file under its name, on disk before this returns.
    ///
    /// # Errors
    /// If the disk refuses; then there is no file.
    pub fn finish(self, key: Key) -> Result<()> {
        let Writer { path, mut file, documents_file, mut hash, vocab_size, tokens, documents, words } = self;
        let io = || Error::io(&path);
        let padding = vec![0; padding(tokens)];
        hash.update(&padding);
        file.write_all(&padding).map_err(io())?;
        let mut records = documents_file.into_inner().map_err(|e| e.into_error()).map_err(io())?;
        records.seek(SeekFrom::Start(0)).map_err(io())?;
        let mut records = BufReader::new(records);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = records.read(&mut buffer).map_err(io())?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(io())?;
        }

        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(vocab_size as u32).to_le_bytes());
        for (i, number) in [tokens, documents, words].into_iter().enumerate() {
            header[16 + 8 * i..24 + 8 * i].copy_from_slice(&number.to_le_bytes());
        }
        header[40..72].copy_from_slice(&key);
        hash.update(&header[..72]);
        header[72..104].copy_from_slice(&hash.finalize());

        let mut file = file.into_inner().map_err(|e| e.into_error()).map_err(io())?;
        file.seek(SeekFrom::Start(0)).map_err(io())?;
        file.write_all(&header).map_err(io())?;
        file.as_file().sync_all().map_err(io())?;
        file.persist(&path).map_err(|e| e.error).map_err(io())?;
        // The name, too, should outlive a power cut; not every file system lets a folder be opened for that.
        if let Ok(folder) = File::open(folder_of(&path)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Zeros after the tokens.
fn padding(tokens: u64) -> usize {
    (4 - (tokens % 4) as usize) % 4 * 2
}

/// A shard that is open for reading.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: Mmap,
    vocab_size: usize,
    tokens: usize,
    documents: usize,
    words: u64,
}

impl Shard {
    /// Opens a shard, and reads all of it once: a second or two for each gigabyte, for which no damage goes unnoticed.
    ///
    /// # Errors
    /// Path and place of what is wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Shard> {
        let path = path.as_ref().to_owned();
        let file = File::open(&path).map_err(Error::io(&path))?;
        // SAFETY: a map is sound as long as nobody changes the file; antlm never writes into a finished shard, it
        // replaces it by renaming, which leaves the mapped file as it is. Against another program that writes into it
        // meanwhile no map can be proved sound; that is the user's affair, as with any mapped file. What is in the file
        // needs no trust: numbers are read byte by byte or as u16 and u64, for which any bits are values.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(&path))?;
        let wrong = |place: &str, what: &str| Err(Error::data(&path, place, what));
        if map.len() < HEADER {
            return wrong(
                &format!("byte {}", map.len()),
                "truncated: the header has 128 bytes; prepare the text again",
            );
        }
        if map[..8] != *MAGIC {
            return wrong("byte 0", "not a file of tokens made by antlm");
        }
        let u32_at = |at: usize| u32::from_le_bytes([map[at], map[at + 1], map[at + 2], map[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(8) != VERSION {
            let what = format!("version {}; this antlm reads version {VERSION}: prepare the text again", u32_at(8));
            return wrong("byte 8", &what);
        }
        let (tokens, documents, words) = (u64_at(16), u64_at(24), u64_at(32));
        // In u128, since a broken header can hold any numbers.
        let expect = HEADER as u128 + 2 * u128::from(tokens) + padding(tokens) as u128 + 16 * u128::from(documents);
        if map.len() as u128 != expect {
            let kind = if (map.len() as u128) < expect { "truncated" } else { "too long" };
            let what = format!("{kind}: {expect} bytes expected; prepare the text again");
            return wrong(&format!("byte {}", map.len()), &what);
        }
        // Both fit in usize, as they are less than the map's length.
        let shard = Shard {
            vocab_size: u32_at(12) as usize,
            tokens: tokens as usize,
            documents: documents as usize,
            words,
            path,
            map,
        };
        shard.verify()?;
        shard.check_documents()?;
        Ok(shard)
    }

    /// Compares the checksum and looks at every token.
    fn verify(&self) -> Result<()> {
        let mut hash = Sha256::new();
        hash.update(&self.map[HEADER..]);
        hash.update(&self.map[..72]);
        if hash.finalize()[..] != self.map[72..104] || self.map[104..HEADER].iter().any(|&b| b != 0) {
            return Err(Error::data(&self.path, "checksum", "the file was damaged; prepare the text again"));
        }
        if let Some(at) = self.tokens().iter().position(|&t| usize::from(t) >= self.vocab_size) {
            return Err(Error::data(
                &self.path,
                format!("token {at}"),
                "not in the vocabulary; prepare the text again",
            ));
        }
        Ok(())
    }

    /// Bounds increase and end with the last token; words add up.
    fn check_documents(&self) -> Result<()> {
        let (mut last, mut words) = (0, 0u64);
        for (i, &[end, w]) in self.documents().iter().enumerate() {
            if end <= last || end > self.tokens as u64 {
                return Err(Error::data(&self.path, format!("document {i}"), "wrong bounds; prepare the text again"));
            }
            last = end;
            words = words.wrapping_add(w);
        }
        if last != self.tokens as u64 || words != self.words {
            return Err(Error::data(&self.path, "documents", "do not add up; prepare the text again"));
        }
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tokens, without any framing: `[tokens]`.
    pub fn tokens(&self) -> &[u16] {
        // The map starts at a page, the tokens at byte 128: aligned.
        bytemuck::cast_slice(&self.map[HEADER..HEADER + 2 * self.tokens])
    }

    /// For each document the index after its last token, and its raw words: `[documents, 2]`.
    pub fn documents(&self) -> &[[u64; 2]] {
        let from = HEADER + 2 * self.tokens + padding(self.tokens as u64);
        bytemuck::cast_slice(&self.map[from..from + 16 * self.documents])
    }

    /// Raw words of all documents.
    pub fn words(&self) -> u64 {
        self.words
    }

    /// Number of tokens of the tokenizer, V.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// What the text was prepared from and how.
    pub fn key(&self) -> Key {
        let mut key = [0; 32];
        key.copy_from_slice(&self.map[40..72]);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, documents: &[(Vec<u16>, u64)]) {
        let mut writer = Writer::create(path, 300).unwrap();
        for (tokens, words) in documents {
            writer.push(tokens, *words).unwrap();
        }
        writer.finish([7; 32]).unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..9u16 {
            let path = dir.path().join(format!("{n}"));
            write(&path, &[((5..5 + n).collect(), 3), (vec![], 9), (vec![299], 1)]);
            let shard = Shard::open(&path).unwrap();
            let expect: Vec<u16> = (5..5 + n).chain([299]).collect();
            assert_eq!(shard.tokens(), expect);
            let expect: &[[u64; 2]] = if n == 0 { &[[1, 1]] } else { &[[n.into(), 3], [u64::from(n) + 1, 1]] };
            assert_eq!(shard.documents(), expect);
            assert_eq!((shard.words(), shard.vocab_size(), shard.key()), (if n == 0 { 1 } else { 4 }, 300, [7; 32]));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 9, "no temporary file is left");
    }

    #[test]
    fn an_unfinished_shard_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path().join("x"), 300).unwrap();
        writer.push(&[5], 1).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write(&path, &[(vec![5, 6, 7], 2), (vec![8, 9], 2)]);
        let good = std::fs::read(&path).unwrap();
        let broken = dir.path().join("broken");
        for len in 0..good.len() {
            std::fs::write(&broken, &good[..len]).unwrap();
            let error = Shard::open(&broken).unwrap_err().to_string();
            assert!(error.contains("broken: byte ") && error.contains("truncated"), "{len}: {error}");
        }
        for at in (0..good.len()).filter(|at| !(104..HEADER).contains(at)) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x55;
            std::fs::write(&broken, &bytes).unwrap();
            let error = Shard::open(&broken).unwrap_err().to_string();
            assert!(error.contains("broken") && !error.contains('\n'), "{at}: {error}");
        }
        let mut newer = good.clone();
        newer[8] = 2;
        std::fs::write(&broken, &newer).unwrap();
        assert!(
            Shard::open(&broken).unwrap_err().to_string().contains("byte 8: version 2; this antlm reads version 1")
        );
    }

    #[test]
    fn tokens_outside_the_vocabulary_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write(&path, &[(vec![5, 300], 2)]);
        assert!(Shard::open(&path).unwrap_err().to_string().contains("token 1: not in the vocabulary"));
    }
}
