//! The files of a submission to BabyLM 2025 or 2026, from results that are there: the tree of predictions and the collated
//! file. Every size is checked; whatever is missing is said, with the command that makes it.
//!
//! `OUT/MODEL/REVISION/zero_shot/BACKEND/TASK/DATASET/predictions.json`, `OUT/MODEL/main/finetune/TASK/predictions.json`
//! and `OUT/MODEL/all_full_preds_and_fast_scores_BACKEND.json`. REVISION is `main` for the last checkpoint, which has the
//! full sets, and a milestone's name for the short ones.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::eval::results::{Set, TaskResult};
use crate::eval::submit_sizes::{self, Sizes};
use crate::eval::zeroshot::items::{self, Item};
use crate::eval::zeroshot::{Task, aoa, find};
use crate::objective::Backend;
use crate::recipe::{Milestones, mark};
use crate::train::checkpoint::{self, MILESTONES};
use crate::train::trained::{self, Which};
use crate::{Error, Result, files};

/// The protocol and the preset whose files these are.
pub const PRESET: &str = "2026";
/// The seed of the official fine-tuning.
const SEED: u64 = 42;
/// The tasks of the full sets, in the order of the collated file; those of the short sets are the same but for COMPS.
const TASKS: [Task; 8] = [
    Task::Blimp,
    Task::Supplement,
    Task::Ewok,
    Task::EntityTracking,
    Task::WugAdj,
    Task::WugPast,
    Task::Comps,
    Task::Reading,
];

/// A track of the challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// 10 M words, 19 milestones.
    StrictSmall,
    /// 100 M words, 28 milestones.
    Strict,
}

impl Track {
    /// The milestones that it demands.
    pub fn milestones(self) -> Milestones {
        match self {
            Track::StrictSmall => Milestones::StrictSmall,
            Track::Strict => Milestones::Strict,
        }
    }
}

/// What is submitted.
#[derive(Clone, Debug)]
pub struct Options {
    /// The run.
    pub run: PathBuf,
    /// The tasks' data, as it was evaluated on.
    pub data: PathBuf,
    /// How the model is read; a submission has one way.
    pub backend: Backend,
    /// The track.
    pub track: Track,
    /// What the model is called.
    pub name: String,
    /// The folder of all submissions.
    pub out: PathBuf,
    /// Write what is there, even if something is missing; then there is no collated file.
    pub partial: bool,
}

/// Something that is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// What.
    pub what: String,
    /// What to do about it.
    pub to_do: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Whatever keeps this from being a submission; empty for a whole one.
    pub problems: Vec<Problem>,
    /// The files that were written, or none.
    pub written: Vec<PathBuf>,
    /// The collated file, if everything was there.
    pub collated: Option<PathBuf>,
}

/// A task's data and its results' predictions.
struct Source {
    task: Task,
    hash: String,
    items: Vec<Item>,
}

/// Makes a submission of what was evaluated. `tell` hears what is done just now; an error from it ends the work.
///
/// # Errors
/// [`Error::Usage`] for a name that the official scripts would cut; broken data and results; [`Error::Io`]. What is
/// missing is no error but a problem of the report.
pub fn submit(options: &Options, tell: &mut dyn FnMut(&str) -> Result<()>) -> Result<Report> {
    check_name(&options.name)?;
    let mut work = Work { options, problems: Vec::new(), files: Vec::new() };
    let last = trained::choose(&options.run, Which::Last)?;
    let full = work.full(&last[0], tell)?;
    let fast = work.fast(tell)?;
    let aoa = work.aoa(tell)?;
    let glue = work.glue(&last[0])?;

    let Work { problems, files, .. } = work;
    let mut report = Report { problems, written: Vec::new(), collated: None };
    let whole = report.problems.is_empty();
    if !whole && !options.partial {
        return Ok(report);
    }
    let folder = options.out.join(&options.name);
    let mut write = |path: PathBuf, text: &str| -> Result<()> {
        let path = folder.join(path);
        let parent = files::parent(&path);
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        files::write_atomic(&path, text.as_bytes())?;
        report.written.push(path);
        Ok(())
    };
    tell("writing")?;
    for (path, text) in files {
        write(path, &text)?;
    }
    let collated = PathBuf::from(format!("all_full_preds_and_fast_scores_{}.json", options.backend));
    if whole {
        let mut text = full;
        let _ = write!(text, ", \"aoa\": {aoa}, \"glue\": {{{glue}}}, \"fast_eval_results\": {fast}}}");
        write(collated.clone(), &text)?;
        report.collated = Some(folder.join(collated));
    } else if folder.join(&collated).exists() {
        // One of an earlier, whole submission would pass for this one's.
        let path = folder.join(collated);
        std::fs::remove_file(&path).map_err(Error::io(&path))?;
    }
    Ok(report)
}

fn check_name(name: &str) -> Result<()> {
    let wrong = |what: &str| Err(Error::Usage(format!("--name {name:?}: {what}")));
    if name.contains('.') {
        return wrong(
            "the official scripts take a path's stem for the model's name, so everything behind the last dot would be cut off \
             and the results not found; write it without a dot",
        );
    }
    if name.is_empty() || name.contains(['/', '\\']) || name.chars().any(char::is_control) {
        return wrong("not a name of a folder; give the model's name alone, without its owner");
    }
    Ok(())
}

/// What gathers on the way.
struct Work<'a> {
    options: &'a Options,
    problems: Vec<Problem>,
    /// Path below the model's folder, and text.
    files: Vec<(PathBuf, String)>,
}

impl Work<'_> {
    fn problem(&mut self, what: String, to_do: String) {
        self.problems.push(Problem { what, to_do });
    }

    fn command(&self, set: Set, tasks: &str) -> String {
        let Options { run, data, backend, .. } = self.options;
        let more = if set == Set::Fast { " --set fast --checkpoints milestones" } else { "" };
        format!("antlm eval {} --data {} --tasks {tasks} --backend {backend}{more}", run.display(), data.display())
    }

    /// Whether the run has a milestone.
    fn milestone(&self, name: &str) -> bool {
        self.options.run.join(MILESTONES).join(name).join(checkpoint::MODEL).is_file()
    }

    /// A task's data, read as `antlm eval` reads it.
    fn source(&mut self, task: Task, set: Set) -> Result<Option<Source>> {
        let Some(found) = find::find(&self.options.data, task, set)? else {
            let kind = if set == Set::Fast { " (short set)" } else { "" };
            let what = format!("{task}{kind}: no data in {}", self.options.data.display());
            self.problem(what, find::source(task).into());
            return Ok(None);
        };
        if task == Task::Reading {
            return Ok(Some(Source { task, hash: items::hash(&found.files)?, items: Vec::new() }));
        }
        let items::Items { items, hash, .. } = items::read(&found, None)?;
        Ok(Some(Source { task, hash, items }))
    }

    /// A result, if it is one of these weights and this data; otherwise why not.
    fn result(
        &self,
        checkpoint: &Path,
        weights: &str,
        source: &Source,
        set: Set,
    ) -> Result<std::result::Result<TaskResult, &'static str>> {
        let mut wanted = TaskResult::new(source.task.name(), PRESET);
        (wanted.backend, wanted.set) = (Some(self.options.backend), set);
        wanted.checkpoint.name = name(checkpoint);
        let path = wanted.path(&self.options.run);
        if !path.is_file() {
            return Ok(Err("not evaluated"));
        }
        let result = TaskResult::read(&path)?;
        Ok(if result.checkpoint.weights != weights {
            Err("evaluated with other weights")
        } else if result.data != source.hash {
            Err("evaluated on other data")
        } else {
            Ok(result)
        })
    }

    /// The full sets on the last checkpoint; the beginning of the collated file.
    fn full(&mut self, last: &Path, tell: &mut dyn FnMut(&str) -> Result<()>) -> Result<String> {
        let weights = files::sha256_file(&last.join(checkpoint::MODEL))?;
        let mut collated = String::from("{");
        for task in TASKS {
            tell(&format!("{task}: reading data and results"))?;
            let Some(source) = self.source(task, Set::Full)? else { continue };
            let result = match self.result(last, &weights, &source, Set::Full)? {
                Ok(result) => result,
                Err(why) => {
                    self.problem(format!("{task}: {why}"), self.command(Set::Full, task.name()));
                    continue;
                }
            };
            let text = self.predictions(&source, &result, "main", Set::Full)?;
            let comma = if collated.len() > 1 { ", " } else { "" };
            let _ = write!(collated, "{comma}\"{}\": {text}", official(task).0);
        }
        Ok(collated)
    }

    /// The short sets on every milestone; their scores as the collated file has them.
    fn fast(&mut self, tell: &mut dyn FnMut(&str) -> Result<()>) -> Result<String> {
        let names = self.options.track.milestones().names();
        let folder = self.options.run.join(MILESTONES);
        let (present, absent): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| self.milestone(name));
        if !absent.is_empty() {
            let what = format!(
                "{}: {} of {} milestones are not there: {}",
                folder.display(),
                absent.len(),
                names.len(),
                list(&absent)
            );
            let track = if self.options.track == Track::Strict { "babylm-strict" } else { "babylm-strict-small" };
            let to_do =
                "they are kept while a run trains: antlm train RECIPE --out NEW-RUN --set checkpoints.milestones=";
            self.problem(what, format!("{to_do}{track}"));
        }
        let mut weights = Vec::new();
        for name in &present {
            weights.push(files::sha256_file(&folder.join(name).join(checkpoint::MODEL))?);
        }
        let mut scores = Vec::new();
        for task in TASKS.into_iter().filter(|&task| task != Task::Comps) {
            tell(&format!("{task}, short set: reading data and results"))?;
            let Some(source) = self.source(task, Set::Fast)? else { continue };
            let mut lacking: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
            let mut of_task = Vec::new();
            for (milestone, weights) in present.iter().zip(&weights) {
                match self.result(&folder.join(milestone), weights, &source, Set::Fast)? {
                    Ok(result) => {
                        self.predictions(&source, &result, milestone, Set::Fast)?;
                        of_task.push(fast_scores(task, &result));
                    }
                    Err(why) => lacking.entry(why).or_default().push(milestone),
                }
            }
            for (why, milestones) in lacking {
                let what = format!("{task} (short set): {why} of {}", list(&milestones));
                self.problem(what, self.command(Set::Fast, task.name()));
            }
            scores.push(format!("\"{}\": [{}]", official(task).0, of_task.join(", ")));
        }
        Ok(format!("{{{}}}", scores.join(", ")))
    }

    /// Checks one result, and remembers its file of predictions; its text.
    fn predictions(&mut self, source: &Source, result: &TaskResult, revision: &str, set: Set) -> Result<String> {
        let (folder, full, fast) = official(source.task).1;
        let (text, sizes) = predictions(source, result)?;
        let wrong = submit_sizes::of(source.task, set).map_or_else(Vec::new, |must: Sizes| must.check(&sizes));
        if !wrong.is_empty() {
            let what = format!("{}, {revision}: {}", source.task, wrong.join("; "));
            let to_do = "get the official data (osf.io/ryjfm, filtered EWoK) and evaluate on it: ".to_owned();
            self.problem(what, to_do + &self.command(set, source.task.name()));
        }
        let backend = self.options.backend.to_string();
        let dataset = if set == Set::Full { full } else { fast };
        let path: PathBuf = [revision, "zero_shot", &backend, folder, dataset, "predictions.json"].iter().collect();
        self.files.push((path, text.clone()));
        Ok(text)
    }

    /// The fine-tuned tasks.
    fn glue(&mut self, last: &Path) -> Result<String> {
        let weights = files::sha256_file(&last.join(checkpoint::MODEL))?;
        let mut all = Vec::new();
        for (task, size) in submit_sizes::GLUE {
            let mut wanted = TaskResult::new(task, PRESET);
            wanted.checkpoint.name = name(last);
            wanted.seed = Some(SEED);
            let path = wanted.path(&self.options.run);
            let run = self.options.run.display();
            let to_do = format!("antlm finetune {run} --task {task} --data DIR --preset {PRESET}");
            if !path.is_file() {
                self.problem(format!("{task}: not fine-tuned with seed {SEED}"), to_do);
                continue;
            }
            let result = TaskResult::read(&path)?;
            let Some(predicted) = result.values.get("prediction").filter(|_| result.checkpoint.weights == weights)
            else {
                self.problem(format!("{task}: fine-tuned from other weights, or without predictions"), to_do);
                continue;
            };
            if predicted.len() != size {
                self.problem(format!("{task}: {} predictions, and must have {size}", predicted.len()), to_do);
            }
            let lines =
                predicted.iter().enumerate().map(|(i, label)| format!("{{\"id\": \"{task}_{i}\", \"pred\": {label}}}"));
            let text = format!("\"{task}\": {{\"predictions\": [{}]}}", lines.collect::<Vec<_>>().join(", "));
            self.files.push((
                [Path::new("main/finetune"), Path::new(task), Path::new("predictions.json")].iter().collect(),
                format!("{{{text}}}"),
            ));
            all.push(text);
        }
        Ok(all.join(", "))
    }

    /// Surprisals for the age of acquisition, of every milestone.
    fn aoa(&mut self, tell: &mut dyn FnMut(&str) -> Result<()>) -> Result<String> {
        let task = Task::Aoa;
        tell(&format!("{task}: reading data and results"))?;
        let Options { run, data, backend, .. } = self.options;
        let Some(found) = find::find(data, task, Set::Full)? else {
            self.problem(format!("{task}: no data in {}", data.display()), find::source(task).into());
            return Ok(String::new());
        };
        let source = Source { task, hash: items::hash(&found.files)?, items: Vec::new() };
        let words = aoa::read(&found.files[0], None)?;
        let contexts: usize = words.iter().map(|word| word.contexts.len()).sum();
        if contexts != submit_sizes::AOA {
            let what = format!("{task}: {contexts} contexts, and must have {}", submit_sizes::AOA);
            self.problem(what, find::source(task).into());
        }
        let mut lacking: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let (mut rows, mut steps) = (Vec::new(), 0);
        let names = self.options.track.milestones().names();
        // Milestones that are not there are named with the short sets.
        for name in names.iter().filter(|name| self.milestone(name)) {
            let folder = run.join(MILESTONES).join(name);
            let weights = files::sha256_file(&folder.join(checkpoint::MODEL))?;
            let result = match self.result(&folder, &weights, &source, Set::Full)? {
                Ok(result) => result,
                Err(why) => {
                    lacking.entry(why).or_default().push(name.clone());
                    continue;
                }
            };
            let surprisals = result.values.get("surprisal").map_or(&[][..], |all| &all[..]);
            if surprisals.len() != contexts {
                lacking.entry("not all contexts").or_default().push(name.clone());
                continue;
            }
            steps += 1;
            let all = words.iter().flat_map(|word| word.contexts.iter().enumerate().map(move |(n, c)| (word, n, c)));
            for ((word, number, context), surprisal) in all.zip(surprisals) {
                let seen = mark(name).unwrap_or(result.checkpoint.words);
                rows.push(format!(
                    "{{\"step\": {}, \"word_count\": {seen}, \"target_word\": {}, \"context_id\": {number}, \"context\": {}, \
                     \"surprisal\": {surprisal}}}",
                    Value::from(&name[..]),
                    Value::from(&word.word[..]),
                    Value::from(&context[..])
                ));
            }
        }
        for (why, milestones) in lacking {
            let what = format!("{task}: {why} of {}", list(&milestones.iter().collect::<Vec<_>>()));
            let (run, data) = (run.display(), data.display());
            let to_do =
                format!("antlm eval {run} --data {data} --tasks {task} --backend {backend} --checkpoints milestones");
            self.problem(what, to_do);
        }
        let text = format!(
            "{{\"metadata\": {{\"model_name\": {}, \"use_bos_only\": false, \"total_steps\": {}, \"completed_steps\": \
             {steps}}}, \"results\": [{}]}}",
            Value::from(&self.options.name[..]),
            names.len(),
            rows.join(", ")
        );
        if steps > 0 {
            let backend = backend.to_string();
            let place = ["main", "zero_shot", &backend, "AoA_word", "surprisal.json"].iter().collect();
            self.files.push((place, text.clone()));
        }
        Ok(text)
    }
}

/// A task's key in the collated file, and its folder with those of the full and of the short set.
fn official(task: Task) -> (&'static str, (&'static str, &'static str, &'static str)) {
    match task {
        Task::Blimp => ("blimp", ("blimp", "blimp_filtered", "blimp_fast")),
        Task::Supplement => ("blimp_supplement", ("blimp", "supplement_filtered", "supplement_fast")),
        Task::Ewok => ("ewok", ("ewok", "ewok_filtered", "ewok_fast")),
        Task::EntityTracking => ("entity_tracking", ("entity_tracking", "entity_tracking", "entity_tracking_fast")),
        Task::WugAdj => ("wug_adj", ("wug_adj", "wug_adj_nominalization", "wug_adj_nominalization")),
        Task::WugPast => ("wug_past", ("wug_past", "wug_past_tense", "wug_past_tense")),
        Task::Comps => ("comps", ("comps", "comps", "comps")),
        // It has no folder for a dataset.
        Task::Reading => ("reading", ("reading", "", "")),
        // Made apart from the others.
        Task::Aoa => ("aoa", ("AoA_word", "", "")),
        // No submission has them.
        Task::BlimpNl | Task::Zhoblimp | Task::Multiblimp | Task::Pairs => (task.name(), (task.name(), "", "")),
    }
}

/// The text of a file of predictions, and how many each part has, in file order.
fn predictions(source: &Source, result: &TaskResult) -> Result<(String, Vec<(String, usize)>)> {
    let damaged = |what: String| {
        Error::Usage(format!("{} of {}: {what}; evaluate it with --again", result.task, result.checkpoint.name))
    };
    if source.task == Task::Reading {
        let list = |name: &str| result.values.get(name).ok_or_else(|| damaged(format!("no {name}")));
        let (own, previous) = (list("surprisal")?, list("previous")?);
        let mut lines = Vec::new();
        for (index, (own, previous)) in own.iter().zip(previous).enumerate() {
            // No word before: pandas has NaN there, and Python's json writes it so, though JSON knows no such number.
            let previous = if *previous < 0.0 { "NaN".into() } else { previous.to_string() };
            lines.push(format!("{{\"id\": {index}, \"pred\": {own}, \"prev_pred\": {previous}}}"));
        }
        let text = format!("{{\"reading\": {{\"predictions\": [{}]}}}}", lines.join(", "));
        return Ok((text, vec![("reading".into(), lines.len())]));
    }
    // In the order in which the files have them.
    let mut parts: Vec<(&str, Vec<String>)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let probabilities = result.values.get("probability");
    for (index, item) in source.items.iter().enumerate() {
        let place = *places.entry(&item.uid).or_insert_with(|| {
            parts.push((&item.uid, Vec::new()));
            parts.len() - 1
        });
        let chosen =
            chosen(result, item).ok_or_else(|| damaged(format!("nothing for item {} of {}", item.number, item.uid)))?;
        // Strings always are JSON.
        let json = |text: &str| Value::from(text).to_string();
        let mut line = format!(
            "{{\"id\": {}, \"pred\": {}",
            json(&format!("{}_{}", item.uid, item.number)),
            json(&item.candidates[chosen].name)
        );
        if item.ratio.is_some() {
            let probability = probabilities.and_then(|all| all.get(index));
            let probability = probability.ok_or_else(|| damaged(format!("no probability of item {index}")))?;
            let _ = write!(line, ", \"prob\": {probability}");
        }
        parts[place].1.push(line + "}");
    }
    let sizes = parts.iter().map(|(uid, lines)| ((*uid).to_owned(), lines.len())).collect();
    let parts = parts
        .into_iter()
        .map(|(uid, lines)| format!("{}: {{\"predictions\": [{}]}}", Value::from(uid), lines.join(", ")));
    Ok((format!("{{{}}}", parts.collect::<Vec<_>>().join(", ")), sizes))
}

/// Which candidate of an item won.
fn chosen(result: &TaskResult, item: &Item) -> Option<usize> {
    let of =
        |all: &BTreeMap<String, String>| all.get(&item.uid).and_then(|text| text.as_bytes().get(item.number)).copied();
    let index = match of(&result.chosen) {
        Some(digit) => char::from(digit).to_digit(36)? as usize,
        // Of two: the right one, or the right one with a tie, or the other.
        None => usize::from(of(&result.outcomes)? == b'0'),
    };
    (index < item.candidates.len()).then_some(index)
}

/// A milestone's scores as the collated file has them: shares by part, correlations, shares of explained variance.
fn fast_scores(task: Task, result: &TaskResult) -> String {
    let part = |kind: &str, name: &str| {
        result.parts.get(kind).and_then(|parts| parts.get(name)).map(|part| part.score / 100.0)
    };
    let scores: Vec<(&str, Option<f64>)> = match task {
        Task::WugAdj | Task::WugPast => vec![(official(task).0, Some(result.score / 100.0))],
        Task::Reading => vec![("spr", part("measure", "self_paced")), ("rt", part("measure", "eye_tracking"))],
        _ => {
            let kind = if task == Task::Ewok { "domain" } else { "uid" };
            let names = result.parts.get(kind).into_iter().flat_map(BTreeMap::keys);
            names.map(|name| (&name[..], part(kind, name))).collect()
        }
    };
    let scores = scores.into_iter().filter_map(|(name, score)| Some(format!("{}: {}", Value::from(name), score?)));
    format!("{{{}}}", scores.collect::<Vec<_>>().join(", "))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn list(names: &[&String]) -> String {
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "submit_tests.rs"]
mod tests;
