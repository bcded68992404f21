//! What each format's lines mean, and what is wrong with the ones that are not such lines.

use std::fs;
use std::path::PathBuf;

use super::*;

fn found(task: Task, name: &str, text: impl AsRef<[u8]>) -> (tempfile::TempDir, Found) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let found = Found { task, folder: folder.path().to_owned(), files: vec![path] };
    (folder, found)
}

fn items(task: Task, name: &str, text: &str) -> Items {
    let (_folder, found) = found(task, name, text);
    read(&found, None).unwrap()
}

fn texts(item: &Item) -> Vec<(&str, usize, &str)> {
    item.candidates.iter().map(|c| (&c.text[..], c.start, &c.name[..])).collect()
}

#[test]
fn lines_of_blimp_and_its_kin() {
    let blimp = r#"{"sentence_good": "A b.", "sentence_bad": "B a.", "UID": "order", "field": "syntax_semantics", "linguistics_term": "x"}"#;
    let read = items(Task::Blimp, "file.jsonl", &format!("{blimp}\n{blimp}\r\n\n"));
    assert_eq!(read.items.len(), 2);
    assert_eq!(texts(&read.items[1]), [("A b.", 0, "A b."), ("B a.", 0, "B a.")]);
    assert_eq!((&read.items[1].uid[..], read.items[1].number), ("order", 1));
    assert_eq!(read.items[0].groups, [("field", "syntax/semantics".into()), ("phenomenon", "x".to_owned())]);
    // Without a UID the file is the paradigm.
    let line = "{\"sentence_good\": \"Who?\\nMe.\", \"sentence_bad\": \"Who?\\nIt.\"}";
    let read = items(Task::Supplement, "qa.jsonl", line);
    assert_eq!((&read.items[0].uid[..], texts(&read.items[0])[0].0), ("qa", "Who?\nMe."));
    let read = items(Task::Multiblimp, "nl.jsonl", r#"{"sen": "Zij lopen.", "wrong_sen": "Zij loopt."}"#);
    assert_eq!(texts(&read.items[0])[1].0, "Zij loopt.");
    let line = r#"{"sentence_good": "a", "sentence_bad": "b", "paradigm": "p", "phenomenon": "q"}"#;
    let read = items(Task::Zhoblimp, "z.jsonl", line);
    assert_eq!((&read.items[0].uid[..], &read.items[0].groups[0].1[..]), ("p", "q"));
}

#[test]
fn lines_with_contexts() {
    let ewok = r#"{"Context1": "It é rains.", "Context2": "It is dry.", "Target1": "I am wet.", "Target2": "I am dry.", "Domain": "water"}"#;
    let read = items(Task::Ewok, "water.jsonl", ewok);
    // Alone, the item is also asked the other way round; in the organisers' files both stand there.
    assert_eq!((read.items.len(), read.notes.len()), (2, 1));
    assert_eq!(texts(&read.items[0])[0], ("It é rains. I am wet.", 11, " I am wet."));
    assert_eq!(texts(&read.items[1])[0], ("It is dry. I am dry.", 10, " I am dry."));
    let turned = r#"{"Context1": "It is dry.", "Context2": "It é rains.", "Target1": "I am dry.", "Target2": "I am wet.", "Domain": "water"}"#;
    let both = items(Task::Ewok, "water.jsonl", &format!("{ewok}\n{turned}\n"));
    assert_eq!((&both.items, both.notes.len()), (&read.items, 0));

    let entity = r#"{"input_prefix": "Box 0 has", "options": [" a hat.", " a cat."], "numops": 2}"#;
    let read = items(Task::EntityTracking, "regular.jsonl", entity);
    assert_eq!((&read.items[0].uid[..], &read.items[0].groups[0].1[..]), ("regular_2_ops", "regular"));
    assert_eq!(texts(&read.items[0])[1], ("Box 0 has a cat.", 9, " a cat."));

    let comps = r#"{"prefix_acceptable": "A bird", "prefix_unacceptable": "A stone", "property_phrase": "can fly."}"#;
    let read = items(Task::Comps, "comps_wugs_dist-before.jsonl", comps);
    assert_eq!(&read.items[0].uid[..], "wugs_dist_before");
    assert_eq!(texts(&read.items[0])[1], ("A stone can fly.", 8, "A stone can fly."));

    let read =
        items(Task::WugPast, "wug_past_tense.jsonl", r#"{"sentences": "He splang.\tHe splinged.", "ratio": 0.25}"#);
    assert_eq!((&read.items[0].uid[..], read.items[0].ratio), ("wug_past", Some(0.25)));
    assert_eq!(texts(&read.items[0])[1].0, "He splinged.");
}

#[test]
fn a_limit_is_one_of_each_file() {
    let line = |n: u32| format!("{{\"sentence_good\": \"a {n}\", \"sentence_bad\": \"b\"}}\n");
    let (folder, mut found) = found(Task::Pairs, "one.jsonl", (0..5).map(line).collect::<String>());
    let two = folder.path().join("two.jsonl");
    fs::write(&two, line(1)).unwrap();
    found.files.push(two);
    assert_eq!(read(&found, Some(3)).unwrap().items.len(), 4);
    assert_eq!(read(&found, None).unwrap().items.len(), 6);
}

/// What is wrong is named with file and line; nothing panics.
#[test]
fn malformed_files_are_named_with_their_line() {
    let good = [
        (Task::Blimp, r#"{"sentence_good": "a", "sentence_bad": "b"}"#),
        (Task::Zhoblimp, r#"{"sentence_good": "a", "sentence_bad": "b", "paradigm": "c"}"#),
        (Task::Ewok, r#"{"Context1": "a", "Context2": "b", "Target1": "c", "Target2": "d", "Domain": "e"}"#),
        (Task::EntityTracking, r#"{"input_prefix": "a", "options": ["b", "c"], "numops": 0}"#),
        (Task::Comps, r#"{"prefix_acceptable": "a", "prefix_unacceptable": "b", "property_phrase": "c"}"#),
        (Task::WugAdj, r#"{"sentences": "a\tb", "ratio": 0.5}"#),
    ];
    let says = |task, text: &[u8], line: &str, what: &str| {
        let (_folder, found) = found(task, "bad.jsonl", text);
        let error = read(&found, None).unwrap_err().to_string();
        assert!(error.contains("bad.jsonl") && error.contains(line) && error.contains(what), "{task}: {error}");
    };
    for (task, line) in good {
        let six = format!("{line}\n").repeat(6);
        let with = |seventh: &str| format!("{six}{seventh}\n{line}\n");
        assert_eq!(items(task, "ok.jsonl", &six).notes.len(), usize::from(task == Task::Ewok));
        says(task, b"", "line 1", "empty");
        says(task, b"\n\n", "line 1", "empty");
        says(task, with("{\"sentence_good\": ").as_bytes(), "line 7, column 17", "not JSON");
        says(task, with("[1]").as_bytes(), "line 7", "object");
        says(task, &[six.as_bytes(), b"{\"a\": \"\xff\"}\n"].concat(), "line 7", "UTF-8");
        says(task, with("{}").as_bytes(), "line 7", "");
        // Each key that is missing, of another type or empty.
        let Value::Object(object) = serde_json::from_str(line).unwrap() else { panic!() };
        for key in object.keys() {
            let mut missing = object.clone();
            missing.remove(key);
            says(task, with(&Value::Object(missing).to_string()).as_bytes(), "line 7", key);
            for value in [Value::Null, Value::from(-1.5), Value::from(""), Value::from(vec![1])] {
                if key == "ratio" && value.is_number() {
                    continue;
                }
                let mut other = object.clone();
                other.insert(key.clone(), value);
                says(task, with(&Value::Object(other).to_string()).as_bytes(), "line 7", key);
            }
        }
    }
    // A paradigm that is none would make another score of the same file, and nobody would know.
    let pair = |more: &str| format!("{{\"sentence_good\": \"a\", \"sentence_bad\": \"b\", \"UID\": \"u\"{more}}}\n");
    for (line, what) in [
        (pair("").replace("\"u\"", "7"), "\"UID\" is a number"),
        (pair(", \"field\": 3"), "\"field\" is a number"),
        (pair(", \"linguistics_term\": []"), "\"linguistics_term\" is a list"),
        (pair("").replace(", \"UID\": \"u\"", ""), "has no paradigm, but line 1 has \"UID\""),
        (pair("").replace("UID", "paradigm"), "has \"paradigm\", but line 1 has \"UID\""),
    ] {
        says(Task::Blimp, (pair("").repeat(6) + &line + &pair("")).as_bytes(), "line 7", what);
    }
    let wug = |line: &str, what| says(Task::WugAdj, line.as_bytes(), "line 1", what);
    wug(r#"{"sentences": "a\tb", "ratio": "NaN"}"#, "ratio");
    wug(r#"{"sentences": "a\tb\tc", "ratio": 1}"#, "tab");
    wug(r#"{"sentences": "a\t", "ratio": 1}"#, "empty");
    says(Task::EntityTracking, br#"{"input_prefix": "a", "options": ["b"], "numops": 0}"#, "line 1", "fewer");
    says(Task::Blimp, &vec![b' '; MOST_LINE + 2], "line 1", "longer");
    let none = Found { task: Task::Blimp, folder: PathBuf::new(), files: vec!["not/there.jsonl".into()] };
    assert!(read(&none, None).unwrap_err().to_string().contains("not/there.jsonl"));
}
