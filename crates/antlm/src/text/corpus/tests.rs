//! Documents by rule, bad bytes, folders.

use super::*;

fn file(format: Format) -> TextFile {
    TextFile {
        path: "some/file.txt".into(),
        source: 0,
        format,
        compression: Compression::None,
        cleaning: None,
        bytes: 0,
    }
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
        (Title, "x\n\n= = = T = = =\na\n\nb\n= = = U = = =\nc\n", &["x", "= = = T = = =\na\n\nb", "= = = U = = =\nc"]),
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
        (at("empty"), "empty: folder: no .txt, .train, .jsonl, .parquet file in it"),
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

#[test]
fn an_endless_document_is_an_error_not_all_the_memory() {
    let rules = [DocumentRule::BlankLine, DocumentRule::File, DocumentRule::Title];
    let formats = rules.map(Format::Text).into_iter().chain([Format::Jsonl("text".into())]);
    for format in formats {
        // One line without an end, and lines without an end.
        let line = std::io::BufReader::new(std::io::repeat(b'a'));
        let error = read_documents_up_to(1 << 20, &file(format.clone()), line, |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("line 1: more than 1 MiB without the end of a document"), "{error}");
        if let Format::Text(_) = format {
            let lines = "some words\n".repeat(200_000);
            let error = read_documents_up_to(1 << 20, &file(format), lines.as_bytes(), |_| Ok(())).unwrap_err();
            assert!(error.to_string().contains("more than 1 MiB"), "{error}");
        }
    }
    // As long as may be.
    let text = "a".repeat(1 << 20) + "\n";
    let rule = Format::Text(DocumentRule::BlankLine);
    read_documents_up_to(1 << 20, &file(rule), text.as_bytes(), |_| Ok(())).unwrap();
}
