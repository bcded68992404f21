//! Raw text: which files a source means, and the documents in them. Files are streamed, compressed ones too; nothing is
//! cleaned here.
//!
//! A document is its lines joined by `\n`, without the blank lines before and after it. Line ends may be `\n` or
//! `\r\n`; a byte-order mark at the start of a file is dropped; everything else is kept as given.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::archive::{self, Compression};
use super::clean::Corpus;
pub use super::source::Source;
use crate::{Error, Result};

/// Where one document ends and the next begins, in files that are not `.jsonl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DocumentRule {
    /// Blank lines (nothing but whitespace) separate documents.
    #[default]
    BlankLine,
    /// A file is one document; it must fit in memory.
    File,
    /// A line `= = = title = = =` opens a document and belongs to it; blank lines inside are kept.
    Title,
}

/// How the documents lie in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Plain text.
    Text(DocumentRule),
    /// A JSON object a line; the text is in this field.
    Jsonl(String),
    /// A table; the text is in this column.
    Parquet(String),
}

/// One file of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Where it is.
    pub path: PathBuf,
    /// Index of its source.
    pub source: usize,
    /// How to read it.
    pub format: Format,
    /// How it is packed.
    pub compression: Compression,
    /// Whose rules it is cleaned by.
    pub cleaning: Option<Corpus>,
    /// Its size.
    pub bytes: u64,
}

/// What the files are for: it decides which endings a folder gives. A file named by itself may have any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Training: a folder gives `.txt`, `.train`, `.jsonl` and `.parquet`; never `.dev` and `.test`.
    Train,
    /// The dev set: a folder gives `.txt`, `.dev`, `.jsonl` and `.parquet`.
    Dev,
}

/// What a file's name may end in, `.gz` and `.zst` apart.
const ENDINGS: [&str; 6] = ["txt", "train", "jsonl", "parquet", "dev", "test"];

/// The longest document, in bytes: about fifty million words. A document is held whole, so something must stop a file
/// that unpacks to one endless line.
const MAX_DOCUMENT: usize = 256 << 20;

/// Folders nested deeper than this are taken for a loop of links.
const MAX_DEPTH: usize = 64;

/// The files of the sources: by source, and within a source sorted by the bytes of their paths, never in directory
/// order. Folders are walked to any depth; hidden files and folders are skipped; a file reached twice within a source
/// counts once. Any of the endings may be followed by `.gz` or `.zst`, but for `.parquet`.
///
/// # Errors
/// A path that is missing, not a file or folder, or has an unknown ending; a source without any file, or whose settings
/// do not go together; a file that belongs to two sources, or lies there packed and unpacked; a name that says no corpus
/// to a cleaning that needs it.
pub fn files(sources: &[Source], purpose: Purpose) -> Result<Vec<TextFile>> {
    let mut all: Vec<TextFile> = Vec::new();
    // By their real places: `a.txt` and `./a.txt` are one file.
    let mut owner: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for (source, s) in sources.iter().enumerate() {
        s.check().map_err(|(key, what)| Error::Usage(format!("{key}: {what}")))?;
        let mut found = Vec::new();
        for path in &s.paths {
            let before = found.len();
            let meta = fs::metadata(path).map_err(Error::io(path))?;
            if meta.is_dir() {
                walk(path, purpose, 0, &mut found)?;
                if found.len() == before {
                    let endings = folder_endings(purpose).map(|e| format!(".{e}")).join(", ");
                    return Err(Error::data(path, "folder", format!("no {endings} file in it")));
                }
            } else if !meta.is_file() {
                return Err(Error::data(path, "file", "not a regular file (text is read more than once)"));
            } else if !ENDINGS.contains(&ending(path)) {
                let what = format!("ends in none of .{} (with .gz or .zst behind it, if packed)", ENDINGS.join(", ."));
                return Err(Error::data(path, "name", what));
            } else {
                found.push((path.clone(), meta.len()));
            }
        }
        found.sort_by(|a, b| a.0.as_os_str().as_encoded_bytes().cmp(b.0.as_os_str().as_encoded_bytes()));
        for (path, bytes) in found {
            let real = fs::canonicalize(&path).map_err(Error::io(&path))?;
            match owner.insert(real, source) {
                Some(other) if other == source => continue,
                Some(other) => {
                    let what = format!("belongs to two sources, {} and {}", sources[other].name, s.name);
                    return Err(Error::data(path, "file", what));
                }
                None => {}
            }
            let format = match ending(&path) {
                "jsonl" => Format::Jsonl(s.field.clone()),
                "parquet" if cfg!(feature = "parquet") => Format::Parquet(s.field.clone()),
                "parquet" => {
                    let what = "this antlm was built without parquet; build it with `--features parquet`, or convert \
                                the file to .jsonl";
                    return Err(Error::data(path, "name", what));
                }
                _ => Format::Text(s.documents),
            };
            let cleaning = s.cleaning.for_file(&path).map_err(|what| Error::data(&path, "name", what))?;
            let compression = Compression::of(&path).0;
            all.push(TextFile { path, source, format, compression, cleaning, bytes });
        }
    }
    for file in all.iter().filter(|file| file.compression != Compression::None) {
        let unpacked = file.path.with_extension("");
        if all.iter().any(|other| other.path == unpacked) {
            return Err(Error::data(&file.path, "file", "is there unpacked, too; keep one of the two"));
        }
    }
    if all.is_empty() {
        return Err(Error::Usage("no text given".into()));
    }
    Ok(all)
}

fn folder_endings(purpose: Purpose) -> [&'static str; 4] {
    match purpose {
        Purpose::Train => ["txt", "train", "jsonl", "parquet"],
        Purpose::Dev => ["txt", "dev", "jsonl", "parquet"],
    }
}

/// The ending of the file's name, unpacked; of a packed parquet file, which nobody has, none.
fn ending(path: &Path) -> &str {
    let (compression, name) = Compression::of(path);
    let ending = name.extension().and_then(|e| e.to_str()).unwrap_or("");
    if ending == "parquet" && compression != Compression::None { "" } else { ending }
}

fn walk(folder: &Path, purpose: Purpose, depth: usize, found: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::data(folder, "folder", format!("more than {MAX_DEPTH} folders deep (a loop of links?)")));
    }
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let wanted = folder_endings(purpose).contains(&ending(&path));
        // A dangling link that nobody asked for is no reason to stop; anything else that cannot be read is.
        let meta = match fs::metadata(&path) {
            Ok(meta) => meta,
            Err(e) if !wanted && e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::Io { path, source: e }),
        };
        if meta.is_dir() {
            // What antlm itself wrote is no text: a run's log, prepared text.
            if ["environment.json", "prepared.json"].iter().all(|name| !path.join(name).is_file()) {
                walk(&path, purpose, depth + 1, found)?;
            }
        } else if meta.is_file() && wanted {
            found.push((path, meta.len()));
        }
    }
    Ok(())
}

/// Opens a file of any format and hands each of its documents, in order, to `each`. `read` is kept at the number of
/// bytes of the file read so far.
///
/// # Errors
/// Those of [`read_documents`], a damaged archive (path and place), a file that has another size than before.
pub(crate) fn documents(
    file: &TextFile,
    read: &std::cell::Cell<u64>,
    each: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    #[cfg(feature = "parquet")]
    if let Format::Parquet(column) = &file.format {
        return parquet_documents(file, column, read, each);
    }
    read_documents(file, archive::open(&file.path, file.compression, read)?, each)?;
    if read.get() != file.bytes {
        return Err(Error::data(&file.path, "file", "changed while it was read"));
    }
    Ok(())
}

#[cfg(feature = "parquet")]
fn parquet_documents(
    file: &TextFile,
    column: &str,
    read: &std::cell::Cell<u64>,
    mut each: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut any = false;
    super::parquet::read(&file.path, column, |text, share| {
        read.set((file.bytes as f64 * share) as u64);
        let text = text.replace("\r\n", "\n");
        let Some(document) = without_blank_edges(&text) else { return Ok(()) };
        any = true;
        each(document)
    })?;
    if any { Ok(()) } else { Err(Error::data(&file.path, "file", "no text in it")) }
}

/// Reads the documents of one file of text or JSON lines, unpacked, in order and hands each to `each`; returns the
/// number of bytes read.
///
/// # Errors
/// Text that is not UTF-8 or holds a NUL byte (path and byte offset), a bad `.jsonl` line (path and line), a file
/// without any text, a document of more than 256 MiB, and whatever `each` returns.
pub fn read_documents(file: &TextFile, reader: impl BufRead, each: impl FnMut(&str) -> Result<()>) -> Result<u64> {
    read_documents_up_to(MAX_DOCUMENT, file, reader, each)
}

fn read_documents_up_to(
    max: usize,
    file: &TextFile,
    reader: impl BufRead,
    mut each: impl FnMut(&str) -> Result<()>,
) -> Result<u64> {
    let mut lines = Lines { path: &file.path, reader, buffer: Vec::new(), max, offset: 0, number: 0 };
    let mut documents = 0u64;
    let mut give = |document: &str| {
        documents += 1;
        each(document)
    };
    match &file.format {
        Format::Parquet(_) => return Err(Error::Usage("a parquet file is not read as a stream".into())),
        Format::Jsonl(field) => {
            while let Some((line, number)) = lines.next()? {
                if is_blank(line) {
                    continue;
                }
                let text =
                    json_text(line, field).map_err(|what| Error::data(&file.path, format!("line {number}"), what))?;
                let text = text.replace("\r\n", "\n");
                if let Some(document) = without_blank_edges(&text) {
                    give(document)?;
                }
            }
        }
        Format::Text(rule) => {
            let mut document = String::new();
            while let Some((line, number)) = lines.next()? {
                let ends_before = match rule {
                    DocumentRule::BlankLine => is_blank(line),
                    DocumentRule::Title => is_title(line),
                    DocumentRule::File => false,
                };
                if ends_before {
                    if let Some(whole) = without_blank_edges(&document) {
                        give(whole)?;
                    }
                    document.clear();
                }
                if document.len() + line.len() > max {
                    return Err(Error::data(&file.path, format!("line {number}"), too_long(max)));
                }
                document.push_str(line);
                document.push('\n');
            }
            if let Some(whole) = without_blank_edges(&document) {
                give(whole)?;
            }
        }
    }
    if documents == 0 {
        let what = if lines.offset == 0 { "empty" } else { "no text in it" };
        return Err(Error::data(&file.path, "file", what));
    }
    Ok(lines.offset)
}

/// The lines of a text file, checked, without their ends.
struct Lines<'a, R> {
    path: &'a Path,
    reader: R,
    buffer: Vec<u8>,
    /// The longest line.
    max: usize,
    /// Bytes read so far.
    offset: u64,
    /// Lines read so far.
    number: u64,
}

impl<R: BufRead> Lines<'_, R> {
    /// The next line and its number, from 1 on.
    fn next(&mut self) -> Result<Option<(&str, u64)>> {
        self.buffer.clear();
        let start = self.offset;
        let mut limited = (&mut self.reader).take(self.max as u64 + 2);
        let read = limited.read_until(b'\n', &mut self.buffer).map_err(|error| {
            // What the system did not say was said by the unpacking.
            if error.raw_os_error().is_some() {
                return Error::io(self.path)(error);
            }
            let place = format!("byte {} of the unpacked text", start + self.buffer.len() as u64);
            Error::data(self.path, place, error.to_string())
        })?;
        if read == 0 {
            return Ok(None);
        }
        self.offset += read as u64;
        self.number += 1;
        let bytes = &self.buffer[..];
        if bytes.len() > self.max + 1 {
            return Err(Error::data(self.path, format!("line {}", self.number), too_long(self.max)));
        }
        let wrong = |at: usize, what: String| Error::data(self.path, format!("byte {}", start + at as u64), what);
        if start == 0 {
            if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
                return Err(wrong(0, "UTF-16 text; convert it to UTF-8 first".into()));
            }
            if bytes.starts_with(&[0x1F, 0x8B]) || bytes.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
                return Err(wrong(0, "a compressed file; let its name end in .gz or .zst".into()));
            }
            if bytes.starts_with(b"PK\x03\x04") {
                return Err(wrong(0, "a compressed file; unpack it first".into()));
            }
        }
        // The text check first, so that the offset named is that of the first fault of either kind.
        let valid = match std::str::from_utf8(bytes) {
            Ok(_) => bytes.len(),
            Err(e) => e.valid_up_to(),
        };
        if let Some(at) = bytes[..valid].iter().position(|&b| b == 0) {
            return Err(wrong(at, "a NUL byte; this is no text file".into()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| {
            let what = "is not UTF-8; convert the file first (for example `iconv -f latin1 -t utf-8`)";
            wrong(valid, format!("0x{:02X} {what}", bytes[valid]))
        })?;
        let text = if start == 0 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
        let text = text.strip_suffix('\n').unwrap_or(text);
        Ok(Some((text.strip_suffix('\r').unwrap_or(text), self.number)))
    }
}

fn too_long(max: usize) -> String {
    let max = max >> 20;
    format!("more than {max} MiB without the end of a document; put blank lines between the documents")
}

fn is_blank(line: &str) -> bool {
    line.chars().all(char::is_whitespace)
}

/// `= = = title = = =`, with a title.
fn is_title(line: &str) -> bool {
    let inner = line.trim().strip_prefix("= = = ").and_then(|rest| rest.strip_suffix(" = = ="));
    inner.is_some_and(|title| !is_blank(title))
}

/// The text without its first and last blank lines; nothing, if there is no other line. Spaces at the edges of the
/// first and the last line stay.
fn without_blank_edges(text: &str) -> Option<&str> {
    let first = text.find(|c: char| !c.is_whitespace())?;
    let start = text[..first].rfind('\n').map_or(0, |at| at + 1);
    let last = text.trim_end().len();
    let end = text[last..].find('\n').map_or(text.len(), |at| last + at);
    Some(&text[start..end])
}

fn json_text(line: &str, field: &str) -> std::result::Result<String, String> {
    let object: serde_json::Value = serde_json::from_str(line).map_err(|e| {
        // serde_json counts lines of its own; here the line is known, the column is not.
        let what = e.to_string();
        let what = what.split(" at line ").next().unwrap_or("").to_owned();
        format!("column {}: {what}", e.column())
    })?;
    let serde_json::Value::Object(mut object) = object else { return Err("not a JSON object".into()) };
    match object.remove(field) {
        Some(serde_json::Value::String(text)) => Ok(text),
        Some(_) => Err(format!("the field {field:?} is not a string")),
        None => Err(format!("no field {field:?}")),
    }
}

#[cfg(test)]
mod tests;
