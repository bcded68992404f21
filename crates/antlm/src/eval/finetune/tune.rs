//! Many tasks and seeds of one trained model: which files, what is there already, fine-tuning, results.

use std::path::{Path, PathBuf};

use antlm_nn::rng::{Rng, Stream};
use antlm_nn::tape::Pool;

use super::data::{self, Files, Missing, Task};
use super::frame::{self, Example};
use super::head::{Classifier, Reading, Vector};
use super::metrics::Metric;
use super::presets::{Preset, Settings};
use super::train::{self, Job, Moment};
use crate::eval::results::{CheckpointId, Part, TaskResult};
use crate::files;
use crate::train::trained::Trained;
use crate::{Error, Result};

/// Stands in results: a change of what is computed makes it higher, and older results are not taken for newer ones.
const CODE: &str = "1";

/// Which rows choose the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// Those that are scored, as both official pipelines have it. The score is then the best of several.
    #[default]
    Official,
    /// A tenth of the training rows, which is not learnt from; the validation rows are scored once.
    Holdout,
}

impl Select {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Select::Official => "official",
            Select::Holdout => "holdout",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose settings.
    pub preset: Preset,
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Where their files lie.
    pub data: PathBuf,
    /// What chooses the epoch.
    pub select: Select,
    /// One fine-tuning each.
    pub seeds: Vec<u64>,
    /// Changes of settings, see [`Settings::set`].
    pub set: Vec<String>,
    /// At most so many rows of every file.
    pub limit: Option<u64>,
    /// How texts are read.
    pub reading: Reading,
    /// Also what is there already.
    pub again: bool,
}

/// How a preset reads a model, unless it is told: from both sides if masks were trained, as our exports are read by
/// AutoModel and AutoModelForSequenceClassification; then the head gets the first token. From the left it gets the last
/// one (2024, as our remote code has it) or the last but one (2026, what the script's `--causal --take_final` reads).
pub fn reading(trained: &Trained, preset: Preset, causal: Option<bool>, take_final: Option<bool>) -> Reading {
    let causal = causal.unwrap_or(trained.last_masked().is_none());
    let vector = match (take_final.unwrap_or(causal), preset) {
        (false, _) => Vector::First,
        (true, Preset::Y2024) => Vector::Last,
        (true, Preset::Y2026) => Vector::SecondLast,
    };
    Reading { causal, vector }
}

/// What a fine-tuning is learnt from and scored on.
#[derive(Clone, Debug)]
pub struct Group {
    /// The task that is learnt.
    pub task: Task,
    settings: Settings,
    train: Vec<Example>,
    /// With [`Select::Official`].
    choose: Option<Vec<Example>>,
    /// What is scored: one task, or MNLI and its mismatched rows.
    scored: Vec<Scored>,
}

#[derive(Clone, Debug)]
struct Scored {
    task: Task,
    rows: Vec<Example>,
    /// SHA-256 of all files that decide its score.
    data: String,
}

/// What was found of the tasks that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// What can be done.
    pub groups: Vec<Group>,
    /// What cannot, for want of a file.
    pub missing: Vec<Missing>,
    /// For people: which files, how many rows, how many of them cut.
    pub notes: Vec<String>,
}

/// Finds, reads and tokenizes the files of all tasks, so that what is wrong in one is said before hours of work. An error
/// from `ask`, which is called before each file, ends it.
///
/// # Errors
/// [`Error::Usage`] for a folder that is not there or a wrong `set`; what is wrong in a file; what `ask` says.
pub fn prepare(trained: &Trained, options: &Options, ask: &mut dyn FnMut() -> Result<()>) -> Result<Prepared> {
    if !options.data.is_dir() {
        return Err(Error::Usage(format!("--data {}: no such folder", options.data.display())));
    }
    let mut prepared = Prepared::default();
    for &task in &options.tasks {
        let learnt = task.trained_as();
        let mut settings = options.preset.settings(learnt);
        settings.set(learnt, &options.set)?;
        let files = match data::find(&options.data, task)? {
            Ok(files) => files,
            Err(missing) => {
                prepared.missing.push(missing);
                continue;
            }
        };
        // The epoch is chosen by the task that is learnt.
        let chooser = match (options.select, data::find(&options.data, learnt)?) {
            (Select::Holdout, _) => None,
            (Select::Official, Ok(files)) => Some(files),
            (Select::Official, Err(missing)) => {
                prepared.missing.push(Missing { task, ..missing });
                continue;
            }
        };
        let mut read = |paths: &[PathBuf]| -> Result<Vec<Example>> {
            let mut examples = Vec::new();
            for path in paths {
                ask()?;
                let rows = data::read(path, task, options.limit)?;
                let (framed, cut) = frame::examples(&trained.tokenizer, &rows, settings.length as usize)?;
                let cut =
                    if cut > 0 { format!(", {cut} of them cut to {} tokens", settings.length) } else { String::new() };
                prepared.notes.push(format!("{}: {} rows{cut}", path.display(), framed.len()));
                examples.extend(framed);
            }
            Ok(examples)
        };
        let rows = match prepared.groups.iter().find(|group| group.task == learnt) {
            Some(_) => None,
            None => Some((
                read(std::slice::from_ref(&files.train))?,
                chooser.as_ref().map(|files| read(&files.valid)).transpose()?,
            )),
        };
        let scored_rows = match &rows {
            // The same files, read once.
            Some((_, Some(choose))) if task == learnt => choose.clone(),
            _ => read(&files.valid)?,
        };
        let scored = Scored { task, rows: scored_rows, data: hash(&files, chooser.as_ref())? };
        if let Some((train, choose)) = rows {
            let held = if choose.is_none() { held_out(0, train.len()).iter().filter(|&&held| held).count() } else { 0 };
            train::steps(&settings, train.len() - held)?;
            prepared.groups.push(Group { task: learnt, settings, train, choose, scored: vec![scored] });
        } else if let Some(group) = prepared.groups.iter_mut().find(|group| group.task == learnt) {
            group.scored.push(scored);
        }
    }
    Ok(prepared)
}

/// SHA-256 of what decides a score: the task's files, and those that choose the epoch if they are others.
fn hash(files: &Files, chooser: Option<&Files>) -> Result<String> {
    match chooser {
        Some(chooser) if chooser != files => Ok(files::sha256((files.hash()? + "\n" + &chooser.hash()?).as_bytes())),
        _ => files.hash(),
    }
}

impl Group {
    /// Tokens through the model until all is done, a step's counted three times: once forward, twice back.
    fn work(&self) -> u64 {
        let tokens = |rows: &[Example]| rows.iter().map(|row| row.ids.len() as u64).sum::<u64>();
        // With a holdout the training rows are read once an epoch as well, as learnt from or as looked at.
        let epoch = 3 * tokens(&self.train) + self.choose.as_deref().map_or(0, tokens);
        u64::from(self.settings.epochs) * epoch + self.scored.iter().map(|s| tokens(&s.rows)).sum::<u64>()
    }

    /// The rows that are learnt from and those that choose the epoch.
    fn split(&self, seed: u64) -> Result<(Vec<Example>, Vec<Example>)> {
        if let Some(choose) = &self.choose {
            return Ok((self.train.clone(), choose.clone()));
        }
        let held = held_out(seed, self.train.len());
        if held.iter().all(|&held| held) {
            let what = format!("{}: {} rows are too few to hold out a tenth", self.task.name(), self.train.len());
            return Err(Error::Usage(what));
        }
        let part = |wanted| {
            let rows = self.train.iter().zip(&held).filter(|&(_, &held)| held == wanted);
            rows.map(|(row, _)| row.clone()).collect()
        };
        Ok((part(false), part(true)))
    }
}

/// Which of `n` training rows are held out: a tenth, rounded down, but at least one; a function of the seed alone.
fn held_out(seed: u64, n: usize) -> Vec<bool> {
    let mut held = vec![false; n];
    let order = Rng::new(seed).permutation(Stream::HOLDOUT, 0, n as u32);
    order.iter().take((n / 10).max(1)).for_each(|&row| held[row as usize] = true);
    held
}

/// What happens, for whoever watches.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A fine-tuning begins.
    Begin {
        /// The task that is learnt.
        task: Task,
        /// The seed.
        seed: u64,
        /// Epochs, at most.
        epochs: u32,
        /// Steps, at most.
        steps: u64,
        /// Tokens of this and all that follow, a step's counted three times.
        work: u64,
    },
    /// It goes on.
    Moment(Moment),
    /// A result is there.
    Result(&'a Found),
}

/// A result and where it lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The result.
    pub result: TaskResult,
    /// Its file.
    pub path: PathBuf,
    /// It was there before.
    pub cached: bool,
    /// A result with other settings was there, and is no more.
    pub replaced: bool,
}

/// Fine-tunes every group with every seed, and leaves results in the run's folder; those that are there already for the
/// same weights, data and settings are taken. In the order of tasks, then seeds, on the device of `pool`. An error from `tell` (a signal came)
/// ends it; what is done stays.
///
/// # Errors
/// [`Error::Usage`] for too few rows; [`Error::Diverged`]; [`Error::Io`]; what `tell` says.
pub fn run(
    trained: &Trained,
    id: &CheckpointId,
    options: &Options,
    groups: &[Group],
    pool: &mut Pool,
    tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    let jobs: Vec<(&Group, u64)> =
        groups.iter().flat_map(|group| options.seeds.iter().map(move |&seed| (group, seed))).collect();
    // What is there is looked up first, so that the time left is that of the work to do.
    let mut there = Vec::new();
    for &(group, seed) in &jobs {
        there.push(if options.again { None } else { cached(group, id, options, seed, &trained.run)? });
    }
    let mut work: u64 =
        jobs.iter().zip(&there).filter(|(_, there)| there.is_none()).map(|((group, _), _)| group.work()).sum();
    for ((group, seed), there) in jobs.into_iter().zip(there) {
        if let Some(found) = there {
            for found in found {
                tell(Event::Result(&found))?;
                all.push(found);
            }
            continue;
        }
        let (learn, choose) = group.split(seed)?;
        let settings = &group.settings;
        let steps = train::steps(settings, learn.len())? * u64::from(settings.epochs);
        tell(Event::Begin { task: group.task, seed, epochs: settings.epochs, steps, work })?;
        work -= group.work();
        let classifier = Classifier::new(&trained.model, options.preset, group.task.classes(), options.reading);
        let job = Job {
            classifier: &classifier,
            trained: &trained.params,
            train: &learn,
            choose: &choose,
            metric: options.preset.chooses_by(group.task),
            settings,
            seed,
        };
        let mut watch = |moment: Moment| tell(Event::Moment(moment));
        let tuned = job.run(pool, &mut watch)?;
        let params = pool.device().buffer(tuned.params)?;
        for scored in &group.scored {
            let predicted = train::predict(&classifier, &params, &scored.rows, pool, &mut watch)?;
            let mut result = blank(scored, group, id, options, seed);
            fill(&mut result, options.preset.metric(scored.task), &predicted, &train::labels(&scored.rows));
            result.values.insert("by_epoch".into(), tuned.by_epoch.clone());
            let path = result.path(&trained.run);
            let replaced = path.exists();
            result.write(&path)?;
            all.push(Found { result, path, cached: false, replaced });
        }
        for found in &all[all.len() - group.scored.len()..] {
            tell(Event::Result(found))?;
        }
    }
    Ok(all)
}

/// The results of a group that are there for the same weights, data and settings; `None` unless all are. A file that
/// cannot be read is an error: it may be of use to somebody.
fn cached(group: &Group, id: &CheckpointId, options: &Options, seed: u64, run: &Path) -> Result<Option<Vec<Found>>> {
    let mut found = Vec::new();
    for scored in &group.scored {
        let wanted = blank(scored, group, id, options, seed);
        let path = wanted.path(run);
        if !path.is_file() {
            return Ok(None);
        }
        let result = TaskResult::read(&path)?;
        let same = result.checkpoint == wanted.checkpoint
            && result.data == wanted.data
            && result.settings == wanted.settings
            && (result.task.as_str(), result.seed, result.limit) == (wanted.task.as_str(), wanted.seed, wanted.limit);
        if !same {
            return Ok(None);
        }
        found.push(Found { result, path, cached: true, replaced: false });
    }
    Ok(Some(found))
}

/// A result without its numbers: whose it is, and what decides them.
fn blank(scored: &Scored, group: &Group, id: &CheckpointId, options: &Options, seed: u64) -> TaskResult {
    let mut result = TaskResult::new(scored.task.name(), options.preset.name());
    result.checkpoint = id.clone();
    result.seed = Some(seed);
    result.limit = options.limit;
    result.data = scored.data.clone();
    result.settings = group.settings.listed();
    let read = if options.reading.causal { "causal" } else { "both sides" };
    let more = [
        ("select", options.select.name()),
        ("chosen_by", options.preset.chooses_by(group.task).name()),
        ("read", read),
        ("vector", options.reading.vector.name()),
        ("code", CODE),
    ];
    result.settings.extend(more.map(|(key, value)| (key.to_owned(), value.to_owned())));
    result
}

/// The numbers of a result.
fn fill(result: &mut TaskResult, metric: Metric, predicted: &[u32], labels: &[u32]) {
    let classes = if result.task.starts_with("mnli") { 3 } else { 2 };
    result.metric = metric.name().into();
    result.score = 100.0 * metric.score(predicted, labels);
    result.n = labels.len() as u64;
    for &other in Metric::of(classes).iter().filter(|&&other| other != metric) {
        let part = Part { score: 100.0 * other.score(predicted, labels), n: result.n, ties: 0 };
        result.parts.entry("metric".into()).or_default().insert(other.name().into(), part);
    }
    let right = predicted.iter().zip(labels).map(|(p, l)| if p == l { '1' } else { '0' });
    result.outcomes.insert(result.task.clone(), right.collect());
    let numbers = |classes: &[u32]| classes.iter().map(|&class| f64::from(class)).collect();
    result.values.insert("prediction".into(), numbers(predicted));
    result.values.insert("label".into(), numbers(labels));
}

/// A metric of a result, times 100: its score, or one of its parts.
pub fn metric_of(result: &TaskResult, metric: Metric) -> Option<f64> {
    if result.metric == metric.name() {
        return Some(result.score);
    }
    Some(result.parts.get("metric")?.get(metric.name())?.score)
}
