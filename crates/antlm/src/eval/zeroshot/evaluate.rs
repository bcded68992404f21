//! One task, read one way, of one checkpoint: scored, or taken from a result that is there for the same model and data.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::aoa::{self, Acquisition, Norms};
use super::find::Found;
use super::items::{self, Item};
use super::protocol::Protocol;
use super::reading::{self, Word};
use super::{Task, report};
use crate::eval::pack::Request;
use crate::eval::results::{CheckpointId, Set, TaskResult};
use crate::eval::score::Scorer;
use crate::objective::Backend;
use crate::{Error, Result};

/// Counts up when the same model and data would get other numbers. By `2024` and `lm-eval`, contexts were framed otherwise
/// at first.
fn scoring(protocol: Protocol) -> &'static str {
    if protocol == Protocol::Y2026 { "1" } else { "2" }
}

/// What is evaluated how.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Full sets or the official short ones.
    pub set: Set,
    /// The protocol.
    pub protocol: Protocol,
    /// At most so many items of each file.
    pub limit: Option<u64>,
    /// Do not use results that are there.
    pub again: bool,
}

/// A task's data, read.
#[derive(Clone, Debug)]
pub struct Data {
    /// The task.
    pub task: Task,
    /// What a user should know of how it was read.
    pub notes: Vec<String>,
    hash: String,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Items(Vec<Item>),
    Words(Vec<Word>),
    /// Words in contexts, and the norms if there are some.
    Acquired(Vec<aoa::Word>, Option<Norms>),
}

/// A result, and where it is.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The result.
    pub result: TaskResult,
    /// Its file.
    pub path: PathBuf,
    /// It was there already.
    pub cached: bool,
}

/// Reads a task's files; of each at most `limit` items.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] with file and line.
pub fn read(found: &Found, limit: Option<u64>) -> Result<Data> {
    let task = found.task;
    if !matches!(task, Task::Reading | Task::Aoa) {
        let items::Items { items, hash, notes } = items::read(found, limit)?;
        return Ok(Data { task, notes, hash, body: Body::Items(items) });
    }
    let [path] = &found.files[..] else {
        let name = if task == Task::Reading { "reading_data.csv" } else { "cdi_childes.json" };
        let what = format!("{}: more than one file that may be the task's; keep {name} alone", found.folder.display());
        return Err(Error::Usage(what));
    };
    let body = match task {
        Task::Reading => Body::Words(reading::read(path, limit)?),
        _ => Body::Acquired(aoa::read(path, limit)?, aoa::norms_of(path).map(|norms| Norms::read(&norms)).transpose()?),
    };
    Ok(Data { task, notes: Vec::new(), hash: items::hash(&found.files)?, body })
}

/// What a run's results of this data, one for each checkpoint, say of when words were learnt; nothing for other tasks,
/// where there are no norms, and for fewer checkpoints than a curve needs. The untrained model is left out, as in the
/// official script.
///
/// # Errors
/// [`Error::Data`] for broken norms, and for a result that has not the data's number of surprisals; [`Error::Io`].
pub fn acquisition(data: &Data, results: &[&TaskResult]) -> Result<Option<Acquisition>> {
    let Body::Acquired(words, Some(norms)) = &data.body else { return Ok(None) };
    let mut surprisals = Vec::new();
    for result in results {
        // The mark, as the official script has it; of other checkpoints the true number.
        let seen = crate::recipe::mark(&result.checkpoint.name).unwrap_or(result.checkpoint.words);
        if seen > 0 {
            surprisals.push((seen, result.values.get("surprisal").map_or(&[][..], |all| &all[..])));
        }
    }
    if surprisals.len() < aoa::LEAST {
        return Ok(None);
    }
    Ok(Some(aoa::acquisition(words, norms, &surprisals)))
}

/// Evaluates, and leaves the result in the run's folder. Items, one JSON object a line, go to `out`; then nothing is taken
/// from a result that is there. `progress` is told the rows done and to do; an error from it ends the work.
///
/// # Errors
/// As [`Scorer::log_probabilities`]; [`Error::Usage`] where a score cannot be made (nothing differs); [`Error::Io`].
pub fn evaluate(
    scorer: &mut Scorer,
    id: &CheckpointId,
    data: &Data,
    backend: Backend,
    options: &Options,
    out: Option<&mut dyn Write>,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Outcome> {
    // These two are read by one rule in all official pipelines.
    let own_rule = matches!(data.task, Task::Reading | Task::Aoa);
    let protocol = if own_rule { Protocol::Y2026 } else { options.protocol };
    let mut result = TaskResult::new(data.task.name(), &protocol.to_string());
    result.backend = Some(backend);
    (result.set, result.limit) = (options.set, options.limit);
    result.checkpoint = id.clone();
    result.data = data.hash.clone();
    result.settings.insert("scoring".into(), scoring(protocol).into());
    result.metric = data.task.metric().into();
    let path = result.path(&scorer.model().run);
    if !options.again
        && out.is_none()
        && let Some(known) = known(&path, &result)
    {
        return Ok(Outcome { result: known, path, cached: true });
    }
    let run = scorer.model().run.display().to_string();
    match &data.body {
        Body::Items(items) => {
            let texts = score(scorer, items, backend, protocol, progress)?;
            let scores: Vec<Vec<f64>> =
                texts.iter().map(|texts| texts.iter().map(|text| text.score).collect()).collect();
            report::candidates(&mut result, data.task, items, &scores)?;
            if let Some(out) = out {
                write_items(out, &result, scorer, items, &texts)?;
            }
        }
        Body::Words(words) => {
            let (surprisal, previous) = surprisals(scorer, words, backend, progress)?;
            if let Some(out) = out {
                for (index, word) in words.iter().enumerate() {
                    let line = json!({
                        "run": run, "checkpoint": id.name, "task": data.task, "backend": backend,
                        "protocol": protocol, "set": options.set, "id": index, "before": word.before, "word": word.word,
                        "surprisal": surprisal[index], "previous": previous[index],
                    });
                    writeln!(out, "{line}").map_err(Error::io("items"))?;
                }
            }
            report::reading(&mut result, words, surprisal, previous)?;
        }
        Body::Acquired(words, _) => {
            let surprisal = acquired(scorer, words, backend, progress)?;
            if let Some(out) = out {
                let contexts = words.iter().flat_map(|word| word.contexts.iter().enumerate().map(move |c| (word, c)));
                for ((word, (number, context)), surprisal) in contexts.zip(&surprisal) {
                    let line = json!({
                        "run": run, "checkpoint": id.name, "task": data.task, "backend": backend,
                        "protocol": protocol, "set": options.set, "id": format!("{}_{number}", word.word),
                        "before": context, "word": word.word, "surprisal": surprisal,
                    });
                    writeln!(out, "{line}").map_err(Error::io("items"))?;
                }
            }
            report::acquired(&mut result, words, surprisal);
        }
    }
    result.write(&path)?;
    Ok(Outcome { result, path, cached: false })
}

/// The result that is there, if it is of the same model, data and settings. A damaged one is made again.
fn known(path: &Path, wanted: &TaskResult) -> Option<TaskResult> {
    let there = TaskResult::read(path).ok()?;
    let same = there.checkpoint == wanted.checkpoint
        && there.data == wanted.data
        && there.settings == wanted.settings
        && (there.set, there.limit, there.backend) == (wanted.set, wanted.limit, wanted.backend)
        && (&there.task, &there.protocol) == (&wanted.task, &wanted.protocol);
    same.then_some(there)
}

/// A candidate, scored.
struct Scored {
    request: Request,
    logprobs: Vec<f64>,
    score: f64,
}

/// `[items][candidates]`.
fn score(
    scorer: &mut Scorer,
    items: &[Item],
    backend: Backend,
    protocol: Protocol,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Vec<Vec<Scored>>> {
    let mut requests = Vec::new();
    for candidate in items.iter().flat_map(|item| &item.candidates) {
        requests.push(protocol.request(backend, &scorer.model().tokenizer, candidate)?);
    }
    let logprobs = scorer.log_probabilities(&requests, backend, progress)?;
    let mut scored = requests.into_iter().zip(logprobs).map(|(request, logprobs)| {
        let score = protocol.total(backend).of(&logprobs);
        Scored { request, logprobs, score }
    });
    Ok(items.iter().map(|item| scored.by_ref().take(item.candidates.len()).collect()).collect())
}

/// Surprisal of each word and of the one before it, in nats.
fn surprisals(
    scorer: &mut Scorer,
    words: &[Word],
    backend: Backend,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<(Vec<f64>, Vec<Option<f64>>)> {
    let tokenizer = &scorer.model().tokenizer;
    let mut requests = Vec::new();
    // How many requests belong to each word and to the one before it.
    let mut counts = Vec::new();
    for word in words {
        let own = reading::requests(&word.before, &word.word, backend, tokenizer)?;
        let previous = match &word.previous {
            Some((before, word)) => Some(reading::requests(before, word, backend, tokenizer)?),
            None => None,
        };
        counts.push((own.len(), previous.as_ref().map(Vec::len)));
        requests.extend(own);
        requests.extend(previous.into_iter().flatten());
    }
    let logprobs = scorer.log_probabilities(&requests, backend, progress)?;
    let mut logprobs = logprobs.into_iter().map(|one| one.into_iter().sum::<f64>());
    let mut sum = |n: usize| -logprobs.by_ref().take(n).sum::<f64>();
    Ok(counts.into_iter().map(|(own, previous)| (sum(own), previous.map(&mut sum))).unzip())
}

/// Surprisal of each word behind each context, in nats.
fn acquired(
    scorer: &mut Scorer,
    words: &[aoa::Word],
    backend: Backend,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Vec<f64>> {
    let tokenizer = &scorer.model().tokenizer;
    let mut requests = Vec::new();
    for word in words {
        for context in &word.contexts {
            requests.push(aoa::request(context, &word.word, backend, tokenizer)?);
        }
    }
    let logprobs = scorer.log_probabilities(&requests, backend, progress)?;
    Ok(logprobs.iter().map(|one| -one.iter().sum::<f64>()).collect())
}

/// A candidate as it stands in a file of items.
#[derive(Serialize)]
struct Shown<'a> {
    text: &'a str,
    logprob: f64,
    tokens: Vec<&'a str>,
    logprobs: &'a [f64],
}

fn write_items(
    out: &mut dyn Write,
    result: &TaskResult,
    scorer: &Scorer,
    items: &[Item],
    scored: &[Vec<Scored>],
) -> Result<()> {
    let tokenizer = &scorer.model().tokenizer;
    for (item, scored) in items.iter().zip(scored) {
        let scores: Vec<f64> = scored.iter().map(|scored| scored.score).collect();
        let shown = item.candidates.iter().zip(scored).map(|(candidate, scored)| Shown {
            text: &candidate.text,
            logprob: scored.score,
            tokens: scored
                .request
                .scored
                .iter()
                .map(|&place| tokenizer.token(scored.request.ids[place as usize]).unwrap_or_default())
                .collect(),
            logprobs: &scored.logprobs,
        });
        let groups: serde_json::Map<_, _> =
            item.groups.iter().map(|(kind, name)| ((*kind).to_owned(), name.clone().into())).collect();
        let line = json!({
            "run": scorer.model().run.display().to_string(), "checkpoint": result.checkpoint.name, "task": result.task,
            "backend": result.backend, "protocol": result.protocol, "set": result.set, "id": format!("{}_{}", item.uid, item.number), "uid": item.uid,
            "groups": groups, "logprobs": scores, "winner": report::winner(&scores), "tie": report::tied(&scores),
            "candidates": shown.collect::<Vec<_>>(),
        });
        writeln!(out, "{line}").map_err(Error::io("items"))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
