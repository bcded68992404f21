//! Tasks and their files: what they are called, where they lie, what a line must have, which texts it means.
//!
//! The keys and the two templates (MultiRC, WSC) are facts of the official pipelines' readers, which are the same in
//! 2024 and 2026.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::eval::zeroshot::items::kind;
use crate::suggest::did_you_mean;
use crate::{Error, Result, files};

/// A file larger than this is none of these.
const MOST_BYTES: u64 = 1 << 30;

/// A task of GLUE or SuperGLUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the tasks' own")]
pub enum Task {
    Boolq,
    Cola,
    Mnli,
    /// The mismatched validation rows of MNLI, scored with the model of MNLI.
    MnliMm,
    Mrpc,
    Multirc,
    Qnli,
    Qqp,
    Rte,
    Sst2,
    Wsc,
}

impl Task {
    /// All.
    pub const ALL: [Task; 11] = [
        Task::Boolq,
        Task::Cola,
        Task::Mnli,
        Task::MnliMm,
        Task::Mrpc,
        Task::Multirc,
        Task::Qnli,
        Task::Qqp,
        Task::Rte,
        Task::Sst2,
        Task::Wsc,
    ];

    /// Its name in files and results.
    pub fn name(self) -> &'static str {
        match self {
            Task::Boolq => "boolq",
            Task::Cola => "cola",
            Task::Mnli => "mnli",
            Task::MnliMm => "mnli-mm",
            Task::Mrpc => "mrpc",
            Task::Multirc => "multirc",
            Task::Qnli => "qnli",
            Task::Qqp => "qqp",
            Task::Rte => "rte",
            Task::Sst2 => "sst2",
            Task::Wsc => "wsc",
        }
    }

    /// The task of this name; capitals do not count, nor does the hyphen of SST-2.
    ///
    /// # Errors
    /// [`Error::Usage`] with the names there are.
    pub fn parse(name: &str) -> Result<Task> {
        let small = name.trim().to_lowercase().replace("sst-2", "sst2");
        let names = || Task::ALL.into_iter().map(Task::name);
        Task::ALL.into_iter().find(|task| task.name() == small).ok_or_else(|| {
            let all: Vec<&str> = names().collect();
            let near = did_you_mean(&small, names());
            Error::Usage(format!("`{name}` is no task of fine-tuning{near} (there are {} and all)", all.join(", ")))
        })
    }

    /// The task whose training file it has: MNLI's, for its mismatched rows.
    pub fn trained_as(self) -> Task {
        if self == Task::MnliMm { Task::Mnli } else { self }
    }

    /// Number of classes; labels are 0, 1, …
    pub fn classes(self) -> u32 {
        if matches!(self, Task::Mnli | Task::MnliMm) { 3 } else { 2 }
    }

    /// The texts of a line: one, or two.
    fn texts(self, line: &Line<'_>) -> Result<(String, Option<String>)> {
        let pair = |a: &str, b: &str| Ok((line.text(a)?.to_owned(), Some(line.text(b)?.to_owned())));
        match self {
            Task::Boolq => pair("question", "passage"),
            Task::Cola | Task::Sst2 => Ok((line.text("sentence")?.to_owned(), None)),
            Task::Mnli | Task::MnliMm => pair("premise", "hypothesis"),
            Task::Mrpc | Task::Rte => pair("sentence1", "sentence2"),
            Task::Qnli => pair("question", "sentence"),
            Task::Qqp => pair("question1", "question2"),
            Task::Multirc => {
                let asked = format!("Question: {} Answer: {}", line.text("question")?, line.text("answer")?);
                Ok((asked, Some(line.text("paragraph")?.to_owned())))
            }
            Task::Wsc => {
                let (pronoun, noun) = (line.text("span2_text")?, line.text("span1_text")?);
                let asked = format!("Does \"{pronoun}\" refer to \"{noun}\" in this passage?");
                Ok((asked, Some(line.text("text")?.to_owned())))
            }
        }
    }
}

/// A row of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The text, or the first of two.
    pub first: String,
    /// The second.
    pub second: Option<String>,
    /// The class.
    pub label: u32,
}

/// One line, for errors that name it.
struct Line<'a> {
    path: &'a Path,
    number: usize,
    json: Map<String, Value>,
}

impl Line<'_> {
    fn wrong(&self, what: String) -> Error {
        Error::data(self.path, format!("line {}", self.number), what)
    }

    fn get(&self, key: &str) -> Result<&Value> {
        let there = self.json.keys().take(12).map(String::as_str).collect::<Vec<_>>().join(", ");
        self.json.get(key).ok_or_else(|| self.wrong(format!("lacks the key `{key}` (there are: {there})")))
    }

    fn text(&self, key: &str) -> Result<&str> {
        let value = self.get(key)?;
        value.as_str().ok_or_else(|| self.wrong(format!("`{key}` is {}; expected a text", kind(value))))
    }

    fn label(&self, classes: u32) -> Result<u32> {
        let value = self.get("label")?;
        let label = value.as_i64();
        let label = label.ok_or_else(|| self.wrong(format!("`label` is {}; expected a whole number", kind(value))))?;
        match u32::try_from(label) {
            Ok(label) if label < classes => Ok(label),
            _ => {
                let more = if label == -1 { " (-1 stands in test files, whose labels are not published)" } else { "" };
                Err(self.wrong(format!("`label` is {label}; the classes are 0 to {}{more}", classes - 1)))
            }
        }
    }
}

/// Reads a file of a task, at most `limit` rows from its beginning. Lines without anything are no rows.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] with the line for broken JSON, a key that is missing or of another type, a label that
/// is no class; and for a file without a row.
pub fn read(path: &Path, task: Task, limit: Option<u64>) -> Result<Vec<Row>> {
    let text = files::read_text(path, MOST_BYTES)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let rows = lines.take(limit.map_or(usize::MAX, |n| n as usize)).map(|(index, line)| {
        let json = serde_json::from_str(line).map_err(|e| {
            let what = e.to_string();
            let what = what.split(" at line ").next().unwrap_or_default().to_owned();
            Error::data(path, format!("line {}, column {}", index + 1, e.column()), what)
        })?;
        let line = Line { path, number: index + 1, json };
        let (first, second) = task.texts(&line)?;
        Ok(Row { first, second, label: line.label(task.classes())? })
    });
    let rows = rows.collect::<Result<Vec<Row>>>()?;
    if rows.is_empty() {
        return Err(Error::data(path, "line 1", "the file is empty; each line is to be a JSON object with a label"));
    }
    Ok(rows)
}

/// The folders below DIR that are looked into, in this order: DIR itself holds loose files, the others are the official
/// trees'.
const FOLDERS: [&str; 6] = [
    "",
    "glue",
    "glue_filtered",
    "full_eval/glue_filtered",
    "evaluation_data/full_eval/glue_filtered",
    "evaluation_data/glue_filtered",
];

/// A file that was looked for in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The task that needs it.
    pub task: Task,
    /// Its name.
    pub file: String,
}

/// The files of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The training file.
    pub train: PathBuf,
    /// The validation file, or several that belong together (CoLA's, in domain and out of domain).
    pub valid: Vec<PathBuf>,
}

impl Files {
    /// SHA-256 over the hashes of all of them, in hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn hash(&self) -> Result<String> {
        let all = std::iter::once(&self.train).chain(&self.valid);
        let hashes = all.map(|path| files::sha256_file(path)).collect::<Result<Vec<String>>>()?;
        Ok(files::sha256(hashes.join("\n").as_bytes()))
    }
}

/// Looks for a task's files: `TASK.train.jsonl`, and `TASK.valid.jsonl` or else all of `TASK.valid_*.jsonl`. The names
/// of those that are not there are the error of the inner result.
///
/// # Errors
/// [`Error::Io`] when a folder cannot be read.
pub fn find(dir: &Path, task: Task) -> Result<std::result::Result<Files, Missing>> {
    let (name, trained_as) = (task.name(), task.trained_as().name());
    let train = format!("{trained_as}.train.jsonl");
    let mut lacking = None;
    for folder in FOLDERS.map(|folder| dir.join(folder)).iter().filter(|folder| folder.is_dir()) {
        let train_path = folder.join(&train);
        let valid = valid_files(folder, name)?;
        match (train_path.is_file(), valid.is_empty()) {
            (true, false) => return Ok(Ok(Files { train: train_path, valid })),
            (true, true) => lacking = Some(format!("{name}.valid.jsonl")),
            (false, false) => lacking = Some(train.clone()),
            (false, true) => {}
        }
    }
    Ok(Err(Missing { task, file: lacking.unwrap_or(train) }))
}

fn valid_files(folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let official = folder.join(format!("{name}.valid.jsonl"));
    if official.is_file() {
        return Ok(vec![official]);
    }
    let begins = format!("{name}.valid_");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if file.starts_with(&begins) && file.ends_with(".jsonl") && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
