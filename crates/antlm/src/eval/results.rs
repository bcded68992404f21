//! What an evaluation leaves on disk: one file for one task, read one way, of one checkpoint, in `RUN/results/`.
//!
//! | file | from |
//! |---|---|
//! | `results/CHECKPOINT/TASK.BACKEND.PROTOCOL.json` | zero-shot, all items of the full set |
//! | `results/CHECKPOINT/TASK.BACKEND.PROTOCOL.fast.json` | the official short set (`fast_eval`) |
//! | `results/CHECKPOINT/TASK.BACKEND.PROTOCOL.limit-N.json` | at most N items of every data file; not to be compared with full ones |
//! | `results/CHECKPOINT/finetune/TASK.PRESET.seed-N.json` | fine-tuning |
//!
//! CHECKPOINT is the folder's name (`step-000000120`, `chck_1M`), with `-ema` behind it for the moving average. A file
//! is a [`TaskResult`]; there is no clock in it, so equal evaluations leave equal bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::objective::Backend;
use crate::train::trained::{Trained, Weights};
use crate::train::{checkpoint, run_folder};
use crate::{Error, Result, files};

/// The version that this build writes and reads.
pub const VERSION: u32 = 1;
/// The folder inside a run's folder.
pub const FOLDER: &str = "results";
/// A result larger than this is not one: the largest (BLiMP, per-item outcomes) has some 100 kB.
const MOST_BYTES: u64 = 64 << 20;

/// The result of one task.
///
/// ```
/// use antlm::eval::results::TaskResult;
/// let folder = tempfile::tempdir().unwrap();
/// let mut result = TaskResult::new("blimp", "2026");
/// result.outcomes.insert("adjunct_island".into(), "110=".into());
/// result.write(&folder.path().join("blimp.json"))?;
/// assert_eq!(TaskResult::read(&folder.path().join("blimp.json"))?, result);
/// # Ok::<(), antlm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskResult {
    /// [`VERSION`].
    pub version: u32,
    /// The task: `blimp`, `supplement`, `ewok`, …; `rte`, `cola`, … for fine-tuning.
    pub task: String,
    /// How the model was read; nothing for fine-tuning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// The scoring protocol (`2026`, `2024`, `lm-eval`), or the preset of a fine-tuning.
    pub protocol: String,
    /// Which items: the full sets or the official short ones.
    pub set: Set,
    /// At most so many items of every data file were used. A number with a limit is not one to report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The seed of a fine-tuning; nothing for zero-shot tasks, which have no random numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Whose score it is.
    pub checkpoint: CheckpointId,
    /// SHA-256 of all data that was read, in hexadecimal digits.
    pub data: String,
    /// Whatever else decides the numbers: learning rate, head, … (fine-tuning), version of the scoring code.
    pub settings: BTreeMap<String, String>,
    /// What `score` is: `accuracy`, `mcc`, `f1`, `spearman`, `delta-r2`; `surprisal` (aoa).
    pub metric: String,
    /// The number that a table shows, times 100 (so an accuracy is a percentage, a correlation lies in -100..100); a
    /// surprisal is in nats.
    pub score: f64,
    /// Items scored.
    pub n: u64,
    /// Items whose first two candidates have exactly the same log-probability. The official scripts count them as right,
    /// and so does `score`.
    pub ties: u64,
    /// Scores of parts, by kind of part, then by name: `uid`, `field`, `phenomenon` for BLiMP; `domain` for EWoK;
    /// `split` for entity tracking; `measure` for reading; `word` for aoa; `metric` for the other metrics of a fine-tuning.
    pub parts: BTreeMap<String, BTreeMap<String, Part>>,
    /// For a paired bootstrap: of every UID (or data file) one character an item in file order: `1` the right candidate
    /// has the highest log-probability, `0` another has, `=` a tie of the right one with another (counts as right).
    pub outcomes: BTreeMap<String, String>,
    /// Of tasks with more than two candidates: the chosen one's index in a digit, in the order of `outcomes`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub chosen: BTreeMap<String, String>,
    /// Of tasks whose items have numbers: those numbers in file order, by name. `probability` (wug-*: of the first
    /// candidate) and `human`; `surprisal`, `previous` (reading); `surprisal` (aoa: word by word, its contexts in order); `prediction` and `label` (fine-tuning: class ids); not of
    /// items `by_epoch` (fine-tuning: what chose the epoch, after each, times 100; the first of the highest was chosen).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, Vec<f64>>,
}

/// Which items of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Set {
    /// All.
    #[default]
    Full,
    /// The official short ones for milestones (`fast_eval`).
    Fast,
}

/// The checkpoint that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointId {
    /// Its name in `results/`.
    pub name: String,
    /// Optimiser steps done.
    pub step: u64,
    /// Words seen until then, repeats counted.
    pub words: u64,
    /// SHA-256 of the weights' file.
    pub weights: String,
    /// SHA-256 of the tokenizer.
    pub tokenizer: String,
}

impl CheckpointId {
    /// Of a checkpoint that was opened with these weights.
    ///
    /// # Errors
    /// [`Error::Io`] for files that cannot be read.
    pub fn of(trained: &Trained, weights: Weights) -> Result<CheckpointId> {
        let name = trained.checkpoint.file_name().unwrap_or_default().to_string_lossy();
        let (ending, file) = match weights {
            Weights::Last => ("", checkpoint::MODEL),
            Weights::Average => ("-ema", checkpoint::EMA),
        };
        Ok(CheckpointId {
            name: format!("{name}{ending}"),
            step: trained.state.step,
            words: trained.state.seen.values().map(|seen| seen.words).sum(),
            weights: files::sha256_file(&trained.checkpoint.join(file))?,
            tokenizer: files::sha256_file(&trained.run.join(run_folder::TOKENIZER))?,
        })
    }
}

/// The score of a part of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// In the units of [`TaskResult::score`].
    pub score: f64,
    /// Items.
    pub n: u64,
    /// Ties among them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ties: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl TaskResult {
    /// An empty result.
    pub fn new(task: &str, protocol: &str) -> TaskResult {
        TaskResult {
            version: VERSION,
            task: task.into(),
            backend: None,
            protocol: protocol.into(),
            set: Set::Full,
            limit: None,
            seed: None,
            checkpoint: CheckpointId::default(),
            data: String::new(),
            settings: BTreeMap::new(),
            metric: String::new(),
            score: 0.0,
            n: 0,
            ties: 0,
            parts: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            values: BTreeMap::new(),
        }
    }

    /// Where this result belongs in a run's folder.
    pub fn path(&self, run: &Path) -> PathBuf {
        let folder = run.join(FOLDER).join(&self.checkpoint.name);
        let mut name = self.task.clone();
        match (self.backend, self.seed) {
            (Some(backend), _) => name += &format!(".{backend}.{}", self.protocol),
            (None, seed) => name += &format!(".{}.seed-{}", self.protocol, seed.unwrap_or(0)),
        }
        if self.set == Set::Fast {
            name += ".fast";
        }
        if let Some(limit) = self.limit {
            name += &format!(".limit-{limit}");
        }
        let folder = if self.backend.is_none() { folder.join("finetune") } else { folder };
        folder.join(name + ".json")
    }

    /// Writes it whole or not at all; makes the folders.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, [`Error::Usage`] for a score that is no number.
    pub fn write(&self, path: &Path) -> Result<()> {
        if !self.score.is_finite() {
            return Err(Error::Usage(format!("{}: the score is {}", self.task, self.score)));
        }
        let folder = files::parent(path);
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        // Plain data with string keys, which serde_json always accepts.
        let json = serde_json::to_string_pretty(self).expect("a result is JSON");
        files::write_atomic(path, format!("{json}\n").as_bytes())
    }

    /// Reads a result.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] with the line of what is damaged, or with the version that this build cannot read.
    pub fn read(path: &Path) -> Result<TaskResult> {
        let text = files::read_text(path, MOST_BYTES)?;
        let wrong = |e: serde_json::Error| {
            Error::data(path, format!("line {}, column {}", e.line(), e.column()), e.to_string())
        };
        // The version first, so that a newer file is not called damaged for its new keys.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(&text).map_err(wrong)?;
        if version != VERSION {
            let what =
                format!("is {version}, but this antlm reads version {VERSION}; remove the file and evaluate again");
            return Err(Error::data(path, "version", what));
        }
        serde_json::from_str(&text).map_err(wrong)
    }
}

/// All results of a run, in the order of their paths; `(path, result)`. None when nothing was evaluated.
///
/// # Errors
/// [`Error::Io`], or a damaged file's [`Error::Data`].
pub fn list(run: &Path) -> Result<Vec<(PathBuf, TaskResult)>> {
    let mut paths = Vec::new();
    collect(&run.join(FOLDER), 3, &mut paths)?;
    paths.sort();
    paths.into_iter().map(|path| TaskResult::read(&path).map(|result| (path, result))).collect()
}

fn collect(folder: &Path, depth: u32, paths: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Io { path: folder.to_owned(), source }),
    };
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && depth > 1 {
            collect(&path, depth - 1, paths)?;
        } else if !hidden && path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> TaskResult {
        let mut result = TaskResult::new("blimp", "2026");
        result.backend = Some(Backend::Mlm);
        result.checkpoint.name = "step-000000120".into();
        result.score = 50.125;
        let part = Part { score: 75.0, n: 4, ties: 1 };
        result.parts.entry("uid".into()).or_default().insert("adjunct_island".into(), part);
        result.outcomes.insert("adjunct_island".into(), "110=".into());
        result
    }

    #[test]
    fn every_result_has_its_place() {
        let run = Path::new("run");
        let mut result = example();
        assert_eq!(result.path(run), Path::new("run/results/step-000000120/blimp.mlm.2026.json"));
        result.set = Set::Fast;
        result.limit = Some(10);
        assert_eq!(result.path(run), Path::new("run/results/step-000000120/blimp.mlm.2026.fast.limit-10.json"));
        result = TaskResult::new("rte", "2024");
        result.checkpoint.name = "chck_1M".into();
        result.seed = Some(12);
        assert_eq!(result.path(run), Path::new("run/results/chck_1M/finetune/rte.2024.seed-12.json"));
    }

    #[test]
    fn results_are_found_again() {
        let run = tempfile::tempdir().unwrap();
        assert!(list(run.path()).unwrap().is_empty());
        let mut all = vec![example(), example()];
        all[1].backend = None;
        all[1].seed = Some(1);
        for result in &all {
            result.write(&result.path(run.path())).unwrap();
        }
        let found: Vec<TaskResult> = list(run.path()).unwrap().into_iter().map(|(_, result)| result).collect();
        assert_eq!(found, all);
    }

    #[test]
    fn damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        let mut result = example();
        result.write(&path).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        for (bad, what) in [
            (good[..good.len() / 2].to_owned(), "line"),
            (good.replace("\"version\": 1", "\"version\": 2"), "reads version 1"),
            (good.replace("\"metric\"", "\"mertic\""), "mertic"),
            ("[]".to_owned(), "line 1"),
        ] {
            std::fs::write(&path, bad).unwrap();
            let error = TaskResult::read(&path).unwrap_err().to_string();
            assert!(error.contains("x.json") && error.contains(what), "{error}");
        }
        result.score = f64::NAN;
        assert!(result.write(&path).unwrap_err().to_string().contains("NaN"));
    }
}
