//! The items of the tasks with candidates: read from JSON lines, every one checked, with file and line in every error.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use super::Task;
use super::find::Found;
use crate::{Error, Result, files};

/// A line longer than this is not an item.
const MOST_LINE: usize = 1 << 20;

/// What a minimal pair's paradigm may be called.
const PARADIGM: [&str; 2] = ["UID", "paradigm"];

/// A text that competes with others, and which part of it is scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The whole text, context included.
    pub text: String,
    /// Characters before the part that is scored.
    pub start: usize,
    /// What a file of predictions calls it.
    pub name: String,
}

/// A question: which candidate is the likeliest? The first one is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The paradigm, domain or subset.
    pub uid: String,
    /// Its number among those of its `uid`, in the order of the file.
    pub number: usize,
    /// What else it belongs to: kind and name.
    pub groups: Vec<(&'static str, String)>,
    /// At least two.
    pub candidates: Vec<Candidate>,
    /// How often people choose the first (WUG).
    pub ratio: Option<f64>,
}

/// The items of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Items {
    /// In the order of files and lines.
    pub items: Vec<Item>,
    /// SHA-256 of the files that were read, with their names.
    pub hash: String,
    /// What a user should know of how they were read.
    pub notes: Vec<String>,
}

/// Reads a task's files; of each at most `limit` items.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] with file and line for anything that is not an item.
pub fn read(found: &Found, limit: Option<u64>) -> Result<Items> {
    let mut items = Vec::new();
    let mut notes = Vec::new();
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    for path in &found.files {
        let mut lines = Vec::new();
        each_line(path, &mut |line, object| {
            lines.push(Line { path, line, object });
            Ok(limit.is_none_or(|limit| (lines.len() as u64) < limit))
        })?;
        if lines.is_empty() {
            return Err(Error::data(path, "line 1", "the file is empty"));
        }
        let ewok = found.task == Task::Ewok;
        if ewok && limit.is_some() {
            notes.push(format!("{}: with a limit, items are asked one way round only", file_stem(path)));
        }
        let turned = ewok && limit.is_none() && !has_turned(&lines);
        if turned {
            notes.push(format!("{}: each item was also asked the other way round", file_stem(path)));
        }
        for line in &lines {
            // A file has a name for each item's paradigm, or none has and the file's name is it.
            let named = |line: &Line<'_>| PARADIGM.iter().find(|key| line.object.contains_key(**key));
            if named(line) != named(&lines[0]) {
                let [this, first] =
                    [line, &lines[0]].map(|l| named(l).map_or("no paradigm".into(), |k| format!("{k:?}")));
                return Err(line.wrong(format!("has {this}, but line {} has {first}", lines[0].line)));
            }
            let mut add = |mut item: Item| {
                let number = numbers.entry(item.uid.clone()).or_default();
                item.number = *number;
                *number += 1;
                items.push(item);
            };
            add(line.item(found.task)?);
            if turned {
                add(line.turned().item(found.task)?);
            }
        }
    }
    Ok(Items { items, hash: hash(&found.files)?, notes })
}

/// SHA-256 over the names and contents of files.
///
/// # Errors
/// [`Error::Io`].
pub fn hash(paths: &[std::path::PathBuf]) -> Result<String> {
    let mut all = String::new();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        all += &format!("{name} {}\n", files::sha256_file(path)?);
    }
    Ok(files::sha256(all.as_bytes()))
}

pub(super) fn file_stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Hands out every object of a file of JSON lines with its line's number, until `f` says that it is enough.
pub(crate) fn each_line(path: &Path, f: &mut dyn FnMut(usize, Map<String, Value>) -> Result<bool>) -> Result<()> {
    let mut reader = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let mut part = std::io::Read::take(&mut reader, MOST_LINE as u64 + 1);
        if part.read_until(b'\n', &mut bytes).map_err(Error::io(path))? == 0 {
            break;
        }
        let place = || format!("line {number}");
        if bytes.len() > MOST_LINE {
            return Err(Error::data(path, place(), format!("longer than {MOST_LINE} bytes")));
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| {
            // The place is the file's, not serde's, which knows this line only.
            let said = e.to_string();
            let what = said.split(" at line ").next().unwrap_or_default();
            let what = if std::str::from_utf8(&bytes).is_err() { "not UTF-8" } else { what };
            // Of a line that ends too early, serde counts the newline as a line of its own.
            let column = if e.line() > 1 { bytes.trim_ascii_end().len() } else { e.column() };
            Error::data(path, format!("line {number}, column {column}"), format!("not JSON: {what}"))
        })?;
        let Value::Object(object) = value else {
            return Err(Error::data(path, place(), "not a JSON object ({…})"));
        };
        if !f(number, object)? {
            break;
        }
    }
    Ok(())
}

/// An object with where it stands.
struct Line<'a> {
    path: &'a Path,
    line: usize,
    object: Map<String, Value>,
}

impl Line<'_> {
    fn wrong(&self, what: impl Into<String>) -> Error {
        Error::data(self.path, format!("line {}", self.line), what)
    }

    /// The first of some keys that is there; it has to be a text.
    fn first(&self, keys: &[&'static str]) -> Result<Option<&str>> {
        keys.iter().find(|key| self.object.contains_key(**key)).map(|key| self.text(key)).transpose()
    }

    /// A text that is there and not empty.
    fn text(&self, key: &str) -> Result<&str> {
        match self.object.get(key) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            Some(Value::String(_)) => Err(self.wrong(format!("{key:?} is empty"))),
            Some(other) => Err(self.wrong(format!("{key:?} is {}, not a text", kind(other)))),
            None => Err(self.wrong(format!("no key {key:?}"))),
        }
    }

    fn item(&self, task: Task) -> Result<Item> {
        let item = |uid: &str, groups, candidates| Item { uid: uid.into(), number: 0, groups, candidates, ratio: None };
        let stem = file_stem(self.path);
        match task {
            Task::Blimp | Task::Supplement | Task::BlimpNl | Task::Zhoblimp | Task::Multiblimp | Task::Pairs => {
                let (good, bad) = if self.object.contains_key("sen") {
                    ("sen", "wrong_sen")
                } else {
                    ("sentence_good", "sentence_bad")
                };
                let uid = self.first(&PARADIGM)?.unwrap_or(&stem);
                let mut groups = Vec::new();
                if let Some(field) = self.first(&["field"])? {
                    // One of BLiMP's files spells it otherwise.
                    groups.push(("field", field.replace("syntax_semantics", "syntax/semantics")));
                }
                if let Some(term) = self.first(&["linguistics_term", "linguistic_phenomenon", "phenomenon"])? {
                    groups.push(("phenomenon", term.to_owned()));
                }
                let candidates = vec![whole(self.text(good)?), whole(self.text(bad)?)];
                Ok(item(uid, groups, candidates))
            }
            Task::Ewok => {
                let context = self.text("Context1")?;
                let mut candidates = Vec::new();
                for key in ["Target1", "Target2"] {
                    let target = format!(" {}", self.text(key)?);
                    candidates.push(after(context, &target, target.clone()));
                }
                self.text("Context2")?;
                Ok(item(self.text("Domain")?, Vec::new(), candidates))
            }
            Task::EntityTracking => {
                let prefix = self.text("input_prefix")?;
                let operations = self.object.get("numops").and_then(Value::as_u64);
                let operations = operations.ok_or_else(|| self.wrong("\"numops\" is not a whole number"))?;
                let options = self.object.get("options").and_then(Value::as_array);
                let options = options.ok_or_else(|| self.wrong("\"options\" is not a list"))?;
                let mut candidates = Vec::new();
                for option in options {
                    match option.as_str() {
                        Some(text) if !text.is_empty() => candidates.push(after(prefix, text, text.to_owned())),
                        _ => return Err(self.wrong("\"options\" has something that is no text")),
                    }
                }
                if candidates.len() < 2 {
                    return Err(self.wrong("\"options\" has fewer than two"));
                }
                Ok(item(&format!("{stem}_{operations}_ops"), vec![("split", stem)], candidates))
            }
            Task::Comps => {
                let phrase = self.text("property_phrase")?;
                let uid = match &stem[..] {
                    "comps_base" => "base",
                    "comps_wugs" => "wugs",
                    "comps_wugs_dist-before" => "wugs_dist_before",
                    "comps_wugs_dist-in-between" => "wugs_dist_in_between",
                    other => other,
                };
                let mut candidates = Vec::new();
                for key in ["prefix_acceptable", "prefix_unacceptable"] {
                    let prefix = format!("{} ", self.text(key)?);
                    candidates.push(after(&prefix, phrase, format!("{prefix}{phrase}")));
                }
                Ok(item(uid, Vec::new(), candidates))
            }
            Task::WugAdj | Task::WugPast => {
                let parts: Vec<&str> = self.text("sentences")?.split('\t').collect();
                let [a, b] = parts[..] else {
                    return Err(self.wrong("\"sentences\" is not two texts with a tab between them"));
                };
                if a.is_empty() || b.is_empty() {
                    return Err(self.wrong("one of the \"sentences\" is empty"));
                }
                let ratio = match self.object.get("ratio") {
                    Some(Value::String(text)) => text.trim().parse().ok(),
                    other => other.and_then(Value::as_f64),
                };
                let ratio = ratio.filter(|ratio: &f64| ratio.is_finite());
                let ratio = ratio.ok_or_else(|| self.wrong("\"ratio\" is not a number"))?;
                let uid = if task == Task::WugAdj { "wug_adj" } else { "wug_past" };
                Ok(Item { ratio: Some(ratio), ..item(uid, Vec::new(), vec![whole(a), whole(b)]) })
            }
            // It has no candidates; see `reading`.
            Task::Reading | Task::Aoa => Err(self.wrong("this task has no JSON lines")),
        }
    }

    /// The same question with contexts and targets exchanged.
    fn turned(&self) -> Line<'_> {
        let mut object = self.object.clone();
        for (a, b) in [("Context1", "Context2"), ("Target1", "Target2")] {
            if let (Some(first), Some(second)) = (self.object.get(a), self.object.get(b)) {
                object.insert(a.into(), second.clone());
                object.insert(b.into(), first.clone());
            }
        }
        Line { path: self.path, line: self.line, object }
    }
}

/// Whether every item stands in the file also with contexts and targets exchanged, as in the organisers' files. In the
/// original ones no item does.
fn has_turned(lines: &[Line<'_>]) -> bool {
    let key = |line: &Line<'_>| ["Context1", "Context2", "Target1", "Target2"].map(|k| line.object.get(k).cloned());
    let text = |line: &Line<'_>| format!("{:?}", key(line));
    let all: HashSet<String> = lines.iter().map(text).collect();
    lines.iter().any(|line| all.contains(&text(&line.turned())))
}

fn whole(text: &str) -> Candidate {
    Candidate { text: text.into(), start: 0, name: text.into() }
}

fn after(prefix: &str, text: &str, name: String) -> Candidate {
    Candidate { text: format!("{prefix}{text}"), start: prefix.chars().count(), name }
}

/// What a JSON value is, for errors.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[path = "items_tests.rs"]
mod tests;
