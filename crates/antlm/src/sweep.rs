//! A sweep: every schedule with every seed (and every variant) of one base recipe, as numbered jobs with their states.
//!
//! A job is a run in a folder of its own. Its state is what lies in that folder, so a sweep can be stopped at any time, and
//! several processes can work on jobs of the same sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::eval::finetune::presets::Preset;
use crate::eval::results::{Set, TaskResult};
use crate::eval::zeroshot::protocol::Protocol;
use crate::eval::zeroshot::{Task, find};
use crate::objective::Backend;
use crate::recipe::{Recipe, flat, names};
use crate::suggest::did_you_mean;
use crate::train::trained::{self, Trained, Which};
use crate::train::{info, run_folder};
use crate::{Error, Result, files};

/// The version that this build reads.
const VERSION: u32 = 1;
/// A sweep's file may have this many bytes.
const MAX_BYTES: u64 = 1 << 20;
/// A sweep may have this many runs. Two short lists multiply to more than any memory holds.
const MAX_JOBS: usize = 1000;

/// A sweep's file. Paths in it are relative to its folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// The file's version: 1.
    pub version: u32,
    /// A built-in recipe's name, or a recipe's file.
    pub base: String,
    /// One run each, for every seed.
    pub schedules: Vec<String>,
    /// One run each, for every schedule.
    pub seeds: Vec<u64>,
    /// Training text in place of the recipe's.
    #[serde(default)]
    pub text: Vec<PathBuf>,
    /// Dev text.
    pub dev: Option<PathBuf>,
    /// The folder of the runs.
    pub out: PathBuf,
    /// `KEY=VALUE` for all runs.
    #[serde(default)]
    pub set: Vec<String>,
    /// By name, `KEY=VALUE` that all schedules and seeds are run with once more.
    #[serde(default)]
    pub variants: BTreeMap<String, Vec<String>>,
    /// How runs are evaluated; without it they are only trained.
    pub eval: Option<Eval>,
    /// How runs are fine-tuned, if they are.
    pub finetune: Option<Finetune>,
}

/// `[eval]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eval {
    /// The tasks' data.
    pub data: PathBuf,
    /// Which tasks; empty for all whose data is there.
    #[serde(default)]
    pub tasks: Vec<Task>,
    /// How models are read; empty for every way that a model was trained for.
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// `[finetune]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finetune {
    /// The tasks' files.
    pub data: PathBuf,
    /// `2024` or `2026`.
    pub preset: String,
    /// Which tasks; empty for all of the preset.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// A fine-tuning each; empty for the preset's seed.
    #[serde(default)]
    pub seeds: Vec<u64>,
}

/// One run of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Job {
    /// From 1 on.
    pub number: usize,
    /// The run's folder.
    pub run: PathBuf,
    /// The variant's name.
    pub variant: Option<String>,
    /// The schedule.
    pub schedule: String,
    /// The seed.
    pub seed: u64,
    /// All `KEY=VALUE` of the run, the schedule's last.
    pub set: Vec<String>,
}

/// What has been done of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum State {
    /// Nothing.
    New,
    /// Training was interrupted, or goes on in another process.
    Stopped {
        /// Optimiser steps in its log.
        step: u64,
        /// Planned steps.
        steps: u64,
    },
    /// Training is done, evaluating is not.
    Trained,
    /// All is done.
    Done,
}

impl Sweep {
    /// Reads and checks a sweep: all its recipes are made once.
    ///
    /// # Errors
    /// [`Error::Data`] with the line, [`Error::Recipe`] for what would not train.
    pub fn load(path: &Path) -> Result<Sweep> {
        let text = files::read_text(path, MAX_BYTES)?;
        let mut sweep: Sweep = toml::from_str(&text).map_err(|error: toml::de::Error| {
            let before = error.span().map_or("", |span| &text[..span.start.min(text.len())]);
            let line = 1 + before.matches('\n').count();
            let what = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
            // "unknown field `seed`, expected one of `seeds`, …"
            let mut quoted = what.split('`').skip(1).step_by(2);
            let near = did_you_mean(quoted.next().unwrap_or_default(), quoted);
            let near = if what.starts_with("unknown ") { near } else { String::new() };
            Error::data(path, format!("line {line}"), what + &near)
        })?;
        let wrong = |place: &str, what: String| Err(Error::data(path, place, what));
        if sweep.version != VERSION {
            return wrong("version", format!("this antlm reads sweeps of version {VERSION}, not {}", sweep.version));
        }
        if sweep.schedules.is_empty() || sweep.seeds.is_empty() {
            return wrong("schedules and seeds", "at least one of each is needed".into());
        }
        let lists = [sweep.schedules.len(), sweep.seeds.len(), sweep.variants.len().max(1)];
        let jobs = lists.into_iter().fold(1, usize::saturating_mul);
        if jobs > MAX_JOBS {
            return wrong("schedules, seeds and variants", format!("make {jobs} runs; at most {MAX_JOBS}"));
        }
        if let Some(finetune) = &sweep.finetune
            && sweep.preset().is_none()
        {
            return wrong("finetune.preset", format!("{:?} is none; there are 2024 and 2026", finetune.preset));
        }
        let folder = files::parent(path);
        if !names().contains(&sweep.base) {
            sweep.base = folder.join(&sweep.base).display().to_string();
        }
        let data = [sweep.eval.as_mut().map(|eval| &mut eval.data), sweep.finetune.as_mut().map(|tune| &mut tune.data)];
        let paths =
            sweep.text.iter_mut().chain(&mut sweep.dev).chain([&mut sweep.out]).chain(data.into_iter().flatten());
        paths.for_each(|path| *path = if folder == Path::new(".") { path.clone() } else { folder.join(&*path) });
        // What runs are to be evaluated on is asked for before they are trained.
        let data = [
            ("eval.data", sweep.eval.as_ref().map(|eval| &eval.data)),
            ("finetune.data", sweep.finetune.as_ref().map(|finetune| &finetune.data)),
        ];
        for (place, folder) in data {
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                return wrong(place, format!("{}: no such folder", folder.display()));
            }
        }
        if let Some(eval) = &sweep.eval {
            for &task in &eval.tasks {
                if find::find(&eval.data, task, Set::Full)?.is_none() {
                    return wrong("eval.tasks", format!("no data of {task} in {}", eval.data.display()));
                }
            }
            if sweep.tasks()?.is_empty() {
                return wrong("eval.data", format!("{}: no data of any task", eval.data.display()));
            }
        }
        let jobs = sweep.jobs();
        for (index, job) in jobs.iter().enumerate() {
            sweep.recipe(job)?;
            if let Some(other) = jobs[..index].iter().find(|other| other.run == job.run) {
                let what =
                    format!("jobs {} and {} would be the same run, {}", other.number, job.number, job.run.display());
                return wrong("schedules, seeds and variants", what);
            }
        }
        Ok(sweep)
    }

    /// All runs: by variant, then schedule, then seed.
    pub fn jobs(&self) -> Vec<Job> {
        let none = (None, Vec::new());
        let variants = self.variants.iter().map(|(name, set)| (Some(name.clone()), set.clone()));
        let variants: Vec<_> = if self.variants.is_empty() { vec![none] } else { variants.collect() };
        let mut jobs = Vec::new();
        for (variant, more) in variants {
            for schedule in &self.schedules {
                for &seed in &self.seeds {
                    let name = [variant.as_deref().map(slug), Some(slug(schedule)), Some(format!("seed-{seed}"))];
                    let name = name.into_iter().flatten().collect::<Vec<_>>().join("_");
                    let schedule_set = format!("schedule={schedule}");
                    jobs.push(Job {
                        number: jobs.len() + 1,
                        run: self.out.join(name),
                        variant: variant.clone(),
                        schedule: schedule.clone(),
                        seed,
                        set: self.set.iter().chain(&more).cloned().chain([schedule_set]).collect(),
                    });
                }
            }
        }
        jobs
    }

    /// The recipe of a job, without the text of the sweep.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn recipe(&self, job: &Job) -> Result<Recipe> {
        let mut recipe = Recipe::load(&self.base, &job.set)?;
        recipe.seed = job.seed;
        Ok(recipe)
    }

    /// The preset of the fine-tunings.
    pub fn preset(&self) -> Option<Preset> {
        let name = &self.finetune.as_ref()?.preset;
        [Preset::Y2024, Preset::Y2026].into_iter().find(|preset| preset.name() == name)
    }

    /// The zero-shot tasks: those that were asked for, or all whose data is there.
    ///
    /// # Errors
    /// [`Error::Io`] for data that cannot be looked at.
    pub fn tasks(&self) -> Result<Vec<Task>> {
        let Some(eval) = &self.eval else { return Ok(Vec::new()) };
        if !eval.tasks.is_empty() {
            return Ok(eval.tasks.clone());
        }
        let mut tasks = Vec::new();
        for task in Task::ALL {
            if find::find(&eval.data, task, Set::Full)?.is_some() {
                tasks.push(task);
            }
        }
        Ok(tasks)
    }

    /// The fine-tuning tasks, by name.
    pub fn tuned(&self) -> Vec<String> {
        match (&self.finetune, self.preset()) {
            (Some(finetune), Some(_)) if !finetune.tasks.is_empty() => finetune.tasks.clone(),
            (_, Some(preset)) => preset.tasks().iter().map(|task| task.name().to_owned()).collect(),
            _ => Vec::new(),
        }
    }

    /// What has been done of a job. Whether results are of the data of today is asked when they are used.
    ///
    /// # Errors
    /// [`Error::Usage`] when its folder holds a run of another recipe; damaged files' errors.
    pub fn state(&self, job: &Job) -> Result<State> {
        if !job.run.join(run_folder::RECIPE).is_file() {
            return Ok(State::New);
        }
        let (there, _) = Recipe::read(&job.run.join(run_folder::RECIPE))?;
        let settings = |recipe: &Recipe| -> Result<BTreeMap<String, String>> {
            let mut keys = flat::entries(recipe)?;
            // The sweep's text is not in the recipe's file.
            keys.retain(|key, _| key != "data" && key != "dev.paths");
            Ok(keys)
        };
        let (there, wanted) = (settings(&there)?, settings(&self.recipe(job)?)?);
        let keys: BTreeSet<&String> = there.keys().chain(wanted.keys()).collect();
        if let Some(key) = keys.into_iter().find(|key| there.get(*key) != wanted.get(*key)) {
            let value = |keys: &BTreeMap<String, String>| keys.get(key).cloned().unwrap_or_else(|| "nothing".into());
            let (there, wanted) = (value(&there), value(&wanted));
            let what = format!("holds a run of another recipe: {key} is {there}, but {wanted} in this sweep");
            return Err(Error::Usage(format!("{}: {what}; give another out, or remove it", job.run.display())));
        }
        let info = info::read(&job.run)?;
        if !info.finished {
            return Ok(State::Stopped { step: info.step, steps: info.steps });
        }
        let last = trained::choose(&job.run, Which::Last)?.into_iter().next_back().unwrap_or_default();
        let name = last.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut wanted = Vec::new();
        if let Some(eval) = &self.eval {
            let known =
                if eval.backends.is_empty() { Trained::open(&job.run)?.trained() } else { eval.backends.clone() };
            for task in self.tasks()? {
                for &backend in &known {
                    let mut result = TaskResult::new(task.name(), &eval.protocol.to_string());
                    result.backend = Some(backend);
                    wanted.push(result);
                }
            }
        }
        if let (Some(finetune), Some(preset)) = (&self.finetune, self.preset()) {
            let seeds = if finetune.seeds.is_empty() { vec![preset.seed()] } else { finetune.seeds.clone() };
            for task in self.tuned() {
                for &seed in &seeds {
                    let mut result = TaskResult::new(&task, preset.name());
                    result.seed = Some(seed);
                    wanted.push(result);
                }
            }
        }
        let there = |mut result: TaskResult| {
            result.checkpoint.name.clone_from(&name);
            result.path(&job.run).is_file()
        };
        Ok(if wanted.into_iter().all(there) { State::Done } else { State::Trained })
    }
}

/// A name for folders: letters, digits, and `-` for everything between.
fn slug(text: &str) -> String {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Sweep> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sweep.toml");
        std::fs::write(&path, text).unwrap();
        let mut sweep = Sweep::load(&path)?;
        sweep.out = sweep.out.strip_prefix(folder.path()).unwrap().to_owned();
        Ok(sweep)
    }

    const GOOD: &str = "version = 1\nbase = \"ltg-bert-tiny\"\nschedules = [\"2 clm\", \"1 clm + 1 mlm\"]\nseeds = [1, 2]\nout = \"runs\"\n";

    #[test]
    fn jobs_are_all_combinations_in_one_order() {
        let names =
            |sweep: &Sweep| -> Vec<String> { sweep.jobs().iter().map(|job| job.run.display().to_string()).collect() };
        let plain = load(GOOD).unwrap();
        assert_eq!(
            names(&plain),
            ["runs/2-clm_seed-1", "runs/2-clm_seed-2", "runs/1-clm-1-mlm_seed-1", "runs/1-clm-1-mlm_seed-2"]
        );
        let sweep =
            load(&format!("{GOOD}set = [\"seq_len=64\"]\n[variants]\nfast = [\"optimizer.lr=0.01\"]\nslow = []\n"))
                .unwrap();
        assert_eq!((sweep.jobs().len(), &names(&sweep)[0][..]), (8, "runs/fast_2-clm_seed-1"));
        let recipe = sweep.recipe(&sweep.jobs()[3]).unwrap();
        assert_eq!((recipe.seed, recipe.seq_len, recipe.optimizer.lr), (2, 64, 0.01));
        assert_eq!(recipe.schedule.to_string(), "1 clm + 1 mlm");
    }

    #[test]
    fn wrong_sweeps_are_named() {
        for (text, words) in [
            (GOOD.replace("seeds", "seed"), "did you mean `seeds`?"),
            (format!("{GOOD}[eval]\ndata = \"x\"\nbackend = []\n"), "did you mean `backends`?"),
            (format!("{GOOD}[eval]\ndata = \"x\"\ntasks = [\"blimb\"]\n"), "did you mean `blimp`?"),
            (format!("{GOOD}[finetune]\ndata = \"x\"\npreset = \"2023\"\n"), "2024 and 2026"),
            (format!("{GOOD}[finetune]\ndata = \"x\"\npreset = \"2024\"\n"), "finetune.data"),
            (format!("{GOOD}[eval]\ndata = \"pears\"\n"), "pears: no such folder"),
            (format!("{GOOD}[eval]\ndata = \".\"\n"), "no data of any task"),
            (format!("{GOOD}[eval]\ndata = \".\"\ntasks = [\"blimp\"]\n"), "no data of blimp"),
            (GOOD.replace("[1, 2]", "[]"), "at least one"),
            (GOOD.replace("[1, 2]", "[1, 1]"), "the same run"),
            (GOOD.replace("[1, 2]", &format!("{:?}", (0..600).collect::<Vec<_>>())), "make 1200 runs; at most 1000"),
            (GOOD.replace("2 clm", "2 cml"), "clm"),
            (GOOD.replace("version = 1", "version = 2"), "version 1"),
            (GOOD.replace("ltg-bert-tiny", "none.toml"), "none.toml"),
            (format!("{GOOD}set = [\"optimiser.lr=1\"]\n"), "optimizer"),
            (GOOD.replace("= [\"2 clm\"", "= [2 clm"), "line 3"),
        ] {
            let error = load(&text).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
