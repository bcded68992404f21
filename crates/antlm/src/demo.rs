//! The demonstration: text of the sample grammar, four tiny models that differ in their objectives alone, and what each
//! has learnt, asked by minimal pairs with every backend it was trained for.
//!
//! Everything lies in one folder, and what is there already is used again: a demonstration that was stopped goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use antlm_nn::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::eval::pack::Request;
use crate::eval::score::{Scorer, framed};
use crate::eval::trigram::Trigram;
use crate::objective::{Backend, Batch, Objective};
use crate::recipe::Recipe;
use crate::text::prepare::{self, Prepared};
use crate::text::sample::pairs::{self, Pair};
use crate::text::sample::{self, Part};
use crate::text::tokenizer::Tokenizer;
use crate::train::events::{Event, Moment};
use crate::train::step::Packing;
use crate::train::{info, input, run, run_folder};
use crate::{Error, Result, files};

/// The models: the name of the folder, which is that of the recipe without `demo-`.
pub const MODELS: [&str; 4] = ["clm", "mlm", "antlm", "antlm-mntp"];
/// The name of the trigram model's row.
pub const TRIGRAM: &str = "trigram";
/// What the folder was made with, in the folder.
const SETTINGS: &str = "demo.json";

/// What decides the outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Version of antlm: another one may have another grammar.
    pub antlm: String,
    /// Words of training text.
    pub words: u64,
    /// Words of dev text.
    pub dev_words: u64,
    /// Minimal pairs of each phenomenon.
    pub pairs: u32,
    /// Seed of the text, the pairs and the models.
    pub seed: u64,
    /// Keys of the recipes that are not as built in.
    pub set: Vec<String>,
}

impl Settings {
    /// Those of `antlm demo`.
    pub fn new(seed: u64) -> Settings {
        let antlm = env!("CARGO_PKG_VERSION").into();
        Settings { antlm, words: 60_000, dev_words: 3000, pairs: 100, seed, set: Vec::new() }
    }
}

/// What has been done.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The tokenizer and the tokens are being made.
    Preparing(prepare::Progress),
    /// A model trains; its number among [`MODELS`] and what happened.
    Training(usize, &'a Event),
    /// A model answers: its name, how it is read, pairs done and pairs in all.
    Asking(&'a str, Backend, u64, u64),
}

/// What a model has learnt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// One of [`MODELS`], or [`TRIGRAM`].
    pub name: String,
    /// Its schedule; the trigram model has none.
    pub schedule: Option<String>,
    /// By backend: per cent of the pairs whose good sentence is the more probable one, of each phenomenon and on average
    /// (`mean`).
    pub pairs: BTreeMap<Backend, BTreeMap<String, f64>>,
    /// By backend: the dev loss at the end, in nats per token that was asked for.
    pub dev_loss: BTreeMap<Backend, f64>,
    /// The masked backend's dev loss when the last masked block ended: what the block after it has to keep.
    #[serde(skip)]
    pub masked_before: Option<f64>,
}

/// The outcome: a row a model, the trigram model last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The rows.
    pub models: Vec<Row>,
}

/// Makes the demonstration in a folder, or goes on with it.
///
/// # Errors
/// [`Error::Usage`] for a folder that holds something else, [`Error::Stopped`] when `cancel` gave a signal, and what
/// training and scoring refuse.
pub fn run(
    dir: &Path,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress<'_>) -> Result<()>,
    cancel: &dyn Fn() -> Option<i32>,
) -> Result<Report> {
    let pairs = text(dir, settings)?;
    let mut models = Vec::new();
    let mut prepared = None;
    for (number, name) in MODELS.into_iter().enumerate() {
        let folder = dir.join(name);
        prepared = Some(train(dir, number, settings, progress, cancel)?);
        let found = info::read(&folder)?;
        let mut scorer = Scorer::open(&folder)?;
        let requests = sentences(&scorer.model().tokenizer, &pairs)?;
        let mut row = Row::new(name, Some(found.schedule.clone()));
        for backend in scorer.trained() {
            let mut asked =
                |done, of| stopped(dir, cancel).and_then(|()| progress(Progress::Asking(name, backend, done, of)));
            let scores = scorer.log_probabilities(&requests, backend, &mut asked)?;
            let scores: Vec<f64> = scores.iter().map(|tokens| tokens.iter().sum()).collect();
            row.pairs.insert(backend, accuracies(&pairs, &scores));
            let of_backend = || found.dev.iter().filter(|dev| dev.backend == backend);
            if let Some(dev) = of_backend().next_back() {
                row.dev_loss.insert(backend, dev.loss);
            }
            if backend != Backend::Causal && found.schedule.contains('+') {
                row.masked_before = of_backend().filter(|dev| dev.at == Moment::Block).nth_back(1).map(|dev| dev.loss);
            }
        }
        models.push(row);
    }
    if let Some(prepared) = prepared {
        models.push(trigram(&prepared, &pairs, settings)?);
    }
    Ok(Report { models })
}

/// Writes the text and the pairs if they are not there, and returns the pairs.
fn text(dir: &Path, settings: &Settings) -> Result<Vec<Vec<Pair>>> {
    let file = dir.join(SETTINGS);
    let wanted = serde_json::to_string_pretty(settings).map_err(|e| Error::data(&file, "settings", e.to_string()))?;
    match fs::read_to_string(&file) {
        Ok(found) if found.trim_end() == wanted => {}
        Ok(_) => {
            let what = "holds a demonstration with another seed or of another version of antlm";
            return Err(Error::Usage(format!("{}: {what}; give another --out, or remove it", dir.display())));
        }
        Err(_) => {
            run_folder::check_new(dir)?;
            fs::create_dir_all(dir).map_err(Error::io(dir))?;
            files::write_atomic(&file, format!("{wanted}\n").as_bytes())?;
        }
    }
    for (name, part, words) in [("train.txt", Part::Train, settings.words), ("dev.txt", Part::Dev, settings.dev_words)]
    {
        let path = dir.join(name);
        if !path.exists() {
            let mut file = files::AtomicFile::create(&path)?;
            sample::write(words, settings.seed, part, &mut file).map_err(Error::io(&path))?;
            file.finish()?;
        }
    }
    let pairs = pairs::make(settings.pairs, settings.seed);
    let place = dir.join("pairs");
    let there: Vec<_> =
        pairs::phenomena().map(|uid| place.join(format!("{uid}.jsonl"))).filter(|p| p.exists()).collect();
    if there.len() < pairs.len() {
        // What an interrupted call left is written again.
        for path in there {
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        pairs::save(&pairs, &place)?;
    }
    Ok(pairs)
}

/// Trains a model, or goes on with it, or leaves it when it is done; gives back the text.
fn train(
    dir: &Path,
    number: usize,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress<'_>) -> Result<()>,
    cancel: &dyn Fn() -> Option<i32>,
) -> Result<Prepared> {
    let name = MODELS[number];
    let folder = dir.join(name);
    let mut recipe = Recipe::load(&format!("demo-{name}"), &settings.set)?;
    recipe.seed = settings.seed;
    input::choose(&mut recipe, &[dir.join("train.txt")], &[dir.join("dev.txt")], None)?;
    let options = input::options(&recipe, &[], &[])?;
    let mut said = Ok(());
    let mut preparing = |p| said = std::mem::replace(&mut said, Ok(())).and_then(|()| progress(Progress::Preparing(p)));
    let prepared = prepare::prepare(&options, dir.join("prepared"), &mut preparing, &|| cancel().is_some());
    said?;
    stopped(dir, cancel)?;
    let prepared = prepared?;
    let begun = folder.join(run_folder::RECIPE).is_file();
    if begun && info::read(&folder)?.finished {
        return Ok(prepared);
    }
    let run = if begun { run::resume(&folder)? } else { run::create(&recipe, prepared, &folder)? };
    let mut listener = |event: &Event| progress(Progress::Training(number, event));
    run.train(&mut listener, cancel).map_err(|error| match error {
        Error::Stopped { signal, .. } => Error::Stopped { signal, left: left(dir) },
        error => error,
    })?;
    prepare::open(dir.join("prepared"), recipe.seq_len)
}

fn left(dir: &Path) -> String {
    format!("saved; the same command goes on with {}", dir.display())
}

fn stopped(dir: &Path, cancel: &dyn Fn() -> Option<i32>) -> Result<()> {
    cancel().map_or(Ok(()), |signal| Err(Error::Stopped { signal, left: left(dir) }))
}

/// Per cent of the pairs whose good sentence is the likelier one, for each phenomenon and in the mean. `scores` are the
/// log-probabilities of [`sentences`].
fn accuracies(pairs: &[Vec<Pair>], scores: &[f64]) -> BTreeMap<String, f64> {
    let mut scores = scores.chunks_exact(2);
    let mut found = BTreeMap::new();
    for pairs in pairs {
        let right = scores.by_ref().take(pairs.len()).filter(|pair| pair[0] > pair[1]).count();
        if let Some(pair) = pairs.first() {
            found.insert(pair.uid.to_owned(), 100.0 * right as f64 / pairs.len() as f64);
        }
    }
    let mean = found.values().sum::<f64>() / found.len().max(1) as f64;
    found.insert("mean".into(), mean);
    found
}

/// The sentences of all pairs, good and bad by turns, as requests for all their tokens.
fn sentences(tokenizer: &Tokenizer, pairs: &[Vec<Pair>]) -> Result<Vec<Request>> {
    let sentences = pairs.iter().flatten().flat_map(|pair| [&pair.sentence_good, &pair.sentence_bad]);
    sentences.map(|sentence| Ok(Request::all(framed(tokenizer, sentence)?))).collect()
}

/// The row of a trigram model on the same tokens.
fn trigram(prepared: &Prepared, pairs: &[Vec<Pair>], settings: &Settings) -> Result<Row> {
    let recipe = Recipe::load("demo-clm", &settings.set)?;
    let packing = Packing { recipe: &recipe, objective: Objective::Clm, rng: Rng::new(0), step: 0 };
    let train = packing.batches(&prepared.train, 0..prepared.train.len());
    let model = Trigram::new(prepared.train.vocab_size(), &train);
    let mut row = Row::new(TRIGRAM, None);
    let mut scores = Vec::new();
    for request in sentences(&prepared.tokenizer, pairs)? {
        scores.push(model.logprobs(&causal(&request.ids)).iter().sum());
    }
    row.pairs.insert(Backend::Causal, accuracies(pairs, &scores));
    if let Some(dev) = &prepared.dev {
        let batches = packing.batches(dev, 0..dev.len());
        let logprobs: Vec<f64> = batches.iter().flat_map(|batch| model.logprobs(batch)).collect();
        row.dev_loss.insert(Backend::Causal, -logprobs.iter().sum::<f64>() / logprobs.len().max(1) as f64);
    }
    Ok(row)
}

/// Every token after the first, from what is left of it.
fn causal(ids: &[u32]) -> Batch {
    let n = ids.len() as u32;
    let (rows, targets) = ((0..n - 1).collect(), ids[1..].to_vec());
    Batch { ids: ids.to_vec(), bounds: vec![0, n], rows, targets, causal: true, first_row: 0 }
}

impl Row {
    fn new(name: &str, schedule: Option<String>) -> Row {
        Row { name: name.into(), schedule, pairs: BTreeMap::new(), dev_loss: BTreeMap::new(), masked_before: None }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A demonstration of a moment: it has all parts of the real one and learns nothing.
    fn small(seed: u64) -> Settings {
        let set = ["model.layers=1", "model.hidden=16", "model.intermediate=16", "model.vocab_size=400"];
        Settings { words: 1500, dev_words: 200, pairs: 4, set: set.map(String::from).into(), ..Settings::new(seed) }
    }

    fn quietly(dir: &Path, settings: &Settings) -> Result<Report> {
        run(dir, settings, &mut |_| Ok(()), &|| None)
    }

    #[test]
    fn every_model_is_asked_with_every_backend_that_it_was_trained_for() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("demo");
        let report = quietly(&dir, &small(1)).unwrap();
        let rows: Vec<(&str, Vec<Backend>)> =
            report.models.iter().map(|row| (row.name.as_str(), row.pairs.keys().copied().collect())).collect();
        let (causal, mlm, mntp) = (Backend::Causal, Backend::Mlm, Backend::Mntp);
        assert_eq!(
            rows,
            [
                ("clm", vec![causal]),
                ("mlm", vec![mlm]),
                ("antlm", vec![causal, mlm]),
                ("antlm-mntp", vec![causal, mntp]),
                (TRIGRAM, vec![causal]),
            ]
        );
        for row in &report.models {
            assert!(row.pairs.keys().eq(row.dev_loss.keys()) && row.dev_loss.values().all(|loss| loss.is_finite()));
            for found in row.pairs.values() {
                let phenomena: Vec<f64> = pairs::phenomena().map(|uid| found[uid]).collect();
                assert!((found["mean"] - phenomena.iter().sum::<f64>() / 7.0).abs() < 1e-9, "{found:?}");
            }
            assert_eq!(row.masked_before.is_some(), row.name.starts_with("antlm"));
        }
        let json = serde_json::to_value(&report).unwrap();
        assert!(
            json["models"][2]["pairs"]["mlm"]["mean"].is_number() && json["models"][2]["dev_loss"]["mlm"].is_number()
        );
        // What is done is not done again, and another seed's folder is left alone.
        let mut trained = 0;
        let mut count = |p: Progress<'_>| {
            trained += u32::from(matches!(p, Progress::Training(..)));
            Ok(())
        };
        assert_eq!(run(&dir, &small(1), &mut count, &|| None).unwrap(), report);
        assert_eq!(trained, 0);
        let error = quietly(&dir, &small(2)).unwrap_err().to_string();
        assert!(error.contains("another seed"), "{error}");
    }

    #[test]
    fn one_that_was_stopped_goes_on_to_the_same_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, whole) = (folder.path().join("stopped"), folder.path().join("whole"));
        let (steps, stop_at) = (Cell::new(0), Cell::new(30)); // in the second model
        let mut count = |p: Progress<'_>| {
            steps.set(steps.get() + u32::from(matches!(p, Progress::Training(_, Event::Step { .. }))));
            Ok(())
        };
        let cancel = || (steps.get() >= stop_at.get()).then_some(2);
        let error = run(&dir, &small(3), &mut count, &cancel).unwrap_err().to_string();
        assert!(error.contains("SIGINT") && error.contains("stopped"), "{error}");
        stop_at.set(u32::MAX);
        let report = run(&dir, &small(3), &mut count, &cancel).unwrap();
        assert_eq!(report, quietly(&whole, &small(3)).unwrap());
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
        let error = quietly(folder.path(), &small(1)).unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
