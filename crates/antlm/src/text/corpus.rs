//! Raw text: which files a source means, and the documents in them. Files are streamed; nothing is cleaned here.
//!
//! A document is its lines joined by `\n`, without the blank lines before and after it. Line ends may be `\n` or
//! `\r\n`; a byte-order mark at the start of a file is dropped; everything else is kept as given.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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

/// A part of the corpus that is read in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What to call it in plans and reports.
    pub name: String,
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// The field that holds the text in `.jsonl` files, where each line is one document.
    #[serde(default = "default_field")]
    pub field: String,
    /// The rule for the other files.
    #[serde(default)]
    pub documents: DocumentRule,
}

fn default_field() -> String {
    "text".into()
}

impl Source {
    /// A source with the default field and rule.
    pub fn new(name: impl Into<String>, paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Source {
        Source {
            name: name.into(),
            paths: paths.into_iter().map(Into::into).collect(),
            field: default_field(),
            documents: DocumentRule::default(),
        }
    }
}

/// How the documents lie in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Plain text.
    Text(DocumentRule),
    /// A JSON object a line; the text is in this field.
    Jsonl(String),
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
    /// Its size.
    pub bytes: u64,
}

/// What the files are for: it decides which endings a folder gives. A file named by itself may have any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Training: a folder gives `.txt`, `.train` and `.jsonl`; never `.dev` and `.test`.
    Train,
    /// The dev set: a folder gives `.txt`, `.dev` and `.jsonl`.
    Dev,
}

/// Folders nested deeper than this are taken for a loop of links.
const MAX_DEPTH: usize = 64;

/// The files of the sources: by source, and within a source sorted by the bytes of their paths, never in directory
/// order. Folders are walked to any depth; hidden files and folders are skipped; a file reached twice within a source
/// counts once.
///
/// # Errors
/// A path that is missing, not a file or folder, or has an unknown ending; a source without any file; a file that
/// belongs to two sources.
pub fn files(sources: &[Source], purpose: Purpose) -> Result<Vec<TextFile>> {
    let mut all: Vec<TextFile> = Vec::new();
    // By their real places: `a.txt` and `./a.txt` are one file.
    let mut owner: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for (source, s) in sources.iter().enumerate() {
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
            } else if !["txt", "train", "jsonl", "dev", "test"].contains(&ending(path)) {
                return Err(Error::data(path, "name", "ends in none of .txt, .train, .jsonl, .dev, .test"));
            } else {
                found.push((path.clone(), meta.len()));
            }
        }
        if found.is_empty() {
            return Err(Error::Usage(format!("text source {}: no path given", s.name)));
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
                _ => Format::Text(s.documents),
            };
            all.push(TextFile { path, source, format, bytes });
        }
    }
    if all.is_empty() {
        return Err(Error::Usage("no text given".into()));
    }
    Ok(all)
}

fn folder_endings(purpose: Purpose) -> [&'static str; 3] {
    match purpose {
        Purpose::Train => ["txt", "train", "jsonl"],
        Purpose::Dev => ["txt", "dev", "jsonl"],
    }
}

fn ending(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or("")
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

/// Reads the documents of one file in order and hands each to `each`; returns the number of bytes read.
///
/// # Errors
/// Text that is not UTF-8 or holds a NUL byte (path and byte offset), a bad `.jsonl` line (path and line), a file
/// without any text, and whatever `each` returns.
pub fn read_documents(file: &TextFile, reader: impl BufRead, mut each: impl FnMut(&str) -> Result<()>) -> Result<u64> {
    let mut lines = Lines { path: &file.path, reader, buffer: Vec::new(), offset: 0, number: 0 };
    let mut documents = 0u64;
    let mut give = |document: &str| {
        documents += 1;
        each(document)
    };
    match &file.format {
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
            while let Some((line, _)) = lines.next()? {
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
        let read = self.reader.read_until(b'\n', &mut self.buffer).map_err(Error::io(self.path))?;
        if read == 0 {
            return Ok(None);
        }
        self.offset += read as u64;
        self.number += 1;
        let bytes = &self.buffer[..];
        let wrong = |at: usize, what: String| Error::data(self.path, format!("byte {}", start + at as u64), what);
        if start == 0 {
            if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
                return Err(wrong(0, "UTF-16 text; convert it to UTF-8 first".into()));
            }
            if bytes.starts_with(&[0x1F, 0x8B]) || bytes.starts_with(b"PK\x03\x04") {
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
mod tests {
    use super::*;

    fn file(format: Format) -> TextFile {
        TextFile { path: "some/file.txt".into(), source: 0, format, bytes: 0 }
    }

    fn read(format: Format, bytes: &[u8]) -> Result<Vec<String>> {
        let mut documents = Vec::new();
        // A tiny buffer, so that lines span many fills.
        let reader = std::io::BufReader::with_capacity(3, bytes);
        let read = read_documents(&file(format), reader, |d| {
            documents.push(d.to_owned());
            Ok(())
        })?;
        assert_eq!(read, bytes.len() as u64);
        Ok(documents)
    }

    #[test]
    fn documents_by_rule() {
        use DocumentRule::*;
        let cases: [(DocumentRule, &str, &[&str]); 10] = [
            (BlankLine, "a\nb\n\n\nc", &["a\nb", "c"]),
            (BlankLine, "\n \t\na\r\nb\r\n\r\nc\r\n", &["a\nb", "c"]),
            (BlankLine, "\u{feff}a\n\u{feff}b", &["a\n\u{feff}b"]),
            (BlankLine, "  a \n b  ", &["  a \n b  "]),
            (File, "\n\na\n\n b\n\n", &["a\n\n b"]),
            (
                Title,
                "x\n\n= = = T = = =\na\n\nb\n= = = U = = =\nc\n",
                &["x", "= = = T = = =\na\n\nb", "= = = U = = =\nc"],
            ),
            (Title, " = = = T = = = \r\na", &[" = = = T = = = \na"]),
            (Title, "= = =  = = =\n= = = T\n", &["= = =  = = =\n= = = T"]),
            (BlankLine, "= = = T = = =\na", &["= = = T = = =\na"]),
            (File, "one \r two", &["one \r two"]),
        ];
        for (rule, text, expect) in cases {
            assert_eq!(read(Format::Text(rule), text.as_bytes()).unwrap(), expect, "{rule:?} {text:?}");
        }
    }

    #[test]
    fn jsonl_lines_are_documents() {
        let lines = "{\"text\":\"a\\r\\n\\nb\\n\",\"n\":1}\n\n{\"text\":\"\"}\r\n{\"text\":\"c\"}";
        assert_eq!(read(Format::Jsonl("text".into()), lines.as_bytes()).unwrap(), ["a\n\nb", "c"]);
        for (line, expect) in [
            ("{\"text\":\"a\"}\n{\"txt\":1}", "some/file.txt: line 2: no field \"text\""),
            ("{\"text\":3}", "some/file.txt: line 1: the field \"text\" is not a string"),
            ("[1]", "some/file.txt: line 1: not a JSON object"),
            ("{\"text\":\"a\"}\nhello", "some/file.txt: line 2: column 1: expected value"),
            ("{\"text\":\"\"}", "some/file.txt: file: no text in it"),
        ] {
            let error = read(Format::Jsonl("text".into()), line.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expect);
        }
        let deep = "[".repeat(100_000);
        assert!(read(Format::Jsonl("text".into()), deep.as_bytes()).is_err());
    }

    #[test]
    fn bad_bytes_are_named_by_offset() {
        for (bytes, expect) in [
            (&b""[..], "some/file.txt: file: empty"),
            (b" \n\t\n", "some/file.txt: file: no text in it"),
            (b"ab\ncaf\xE9 x\n", "some/file.txt: byte 6: 0xE9 is not UTF-8"),
            (b"ab\nc\xE2\x82", "some/file.txt: byte 4: 0xE2 is not UTF-8"),
            (b"\xFF\xFEa\0", "some/file.txt: byte 0: UTF-16 text"),
            (b"\0\0\0\0\0", "some/file.txt: byte 0: a NUL byte"),
            (b"ab\nc\0d\xFF", "some/file.txt: byte 4: a NUL byte"),
            (b"\x7fELF\x02\x01\x01\0\0", "some/file.txt: byte 7: a NUL byte"),
            (b"\x1f\x8b\x08\x00", "some/file.txt: byte 0: a compressed file"),
            (b"\xEF\xBB\xBFa\xE9", "some/file.txt: byte 4: 0xE9 is not UTF-8"),
        ] {
            let error = read(Format::Text(DocumentRule::BlankLine), bytes).unwrap_err().to_string();
            assert!(error.starts_with(expect), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_line_of_ten_megabytes_is_one_document() {
        let text = "word and ".repeat(10_000_000 / 9 + 1);
        let documents = read_documents(&file(Format::Text(DocumentRule::BlankLine)), text.as_bytes(), |d| {
            assert_eq!(d, text);
            Ok(())
        });
        assert_eq!(documents.unwrap(), text.len() as u64);
    }

    #[test]
    fn folders_are_sorted_and_filtered() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("b/deep")).unwrap();
        fs::create_dir_all(at(".git")).unwrap();
        let names = [
            "z.txt",
            "a.train",
            "b/deep/x.jsonl",
            "b-.txt",
            "m.dev",
            "m.test",
            ".hidden.txt",
            ".git/y.txt",
            "notes.md",
            "B.txt",
        ];
        for name in names {
            fs::write(at(name), name).unwrap();
        }
        let list = |sources: &[Source], purpose| -> Result<Vec<String>> {
            let found = files(sources, purpose)?;
            Ok(found.iter().map(|f| f.path.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned()).collect())
        };
        let folder = Source::new("all", [dir.path()]);
        let expect = ["B.txt", "a.train", "b-.txt", "b/deep/x.jsonl", "z.txt"];
        assert_eq!(list(std::slice::from_ref(&folder), Purpose::Train).unwrap(), expect);
        assert_eq!(
            list(std::slice::from_ref(&folder), Purpose::Dev).unwrap(),
            ["B.txt", "b-.txt", "b/deep/x.jsonl", "m.dev", "z.txt"]
        );
        // Named by itself, a file may be a dev file; named twice, it counts once; two sources may not share it.
        let named = Source::new("named", [at("m.dev"), at("z.txt"), at("m.dev")]);
        assert_eq!(list(std::slice::from_ref(&named), Purpose::Train).unwrap(), ["m.dev", "z.txt"]);
        let error = list(&[folder, named], Purpose::Train).unwrap_err().to_string();
        assert!(error.ends_with("z.txt: file: belongs to two sources, all and named"), "{error}");

        for (path, expect) in [
            (at("nothing.txt"), "No such file"),
            (at("notes.md"), "notes.md: name: ends in none of .txt"),
            (at("empty"), "empty: folder: no .txt, .train, .jsonl file in it"),
        ] {
            fs::create_dir_all(at("empty")).unwrap();
            let error = list(&[Source::new("s", [path])], Purpose::Train).unwrap_err().to_string();
            assert!(error.contains(expect) && !error.contains('\n'), "{error}");
        }
        assert!(files(&[], Purpose::Train).is_err());
        assert!(files(&[Source::new("none", Vec::<PathBuf>::new())], Purpose::Train).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_loop_of_links_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.txt"), "a").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
        assert!(files(&[Source::new("s", [dir.path()])], Purpose::Train).is_err());
    }
}
