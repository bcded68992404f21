//! Checkpoints of a run: `checkpoints/step-%09d/{model.safetensors, optimizer.safetensors, state.json}`, each one
//! complete or absent; with `ema.safetensors` where the run keeps a moving average of its weights.
//!
//! A checkpoint is written into a hidden folder beside its place (`.tmp-step-…`), synced, and renamed. `state.json`
//! holds the SHA-256 of the other files, of the log until then and of itself, so that damage is noticed wherever it comes
//! from.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use antlm_nn::params::Layout;
use serde::{Deserialize, Serialize};

use super::events::LogEnd;
use super::health::Memory;
use super::step::Weights;
use crate::objective::Objective;
use crate::recipe::{Checkpoints, Plan, Recipe};
use crate::{Error, Result, files, tensor_file};

/// The version of `state.json` that this build writes and reads.
pub const VERSION: u32 = 2;
/// Where a run keeps checkpoints under names of their own (`chck_1M`), beside `checkpoints/step-…`.
pub const MILESTONES: &str = "milestones";
/// The weights.
pub const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
/// Their moving average.
pub const EMA: &str = "ema.safetensors";
const STATE: &str = "state.json";
/// A `state.json` larger than this is damaged: 1 MB.
const MAX_STATE: u64 = 1_000_000;

/// What a run's text, tokenizer and recipe were when the checkpoint was written: SHA-256 in hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hashes {
    /// The prepared training data.
    pub data: String,
    /// `tokenizer.json`.
    pub tokenizer: String,
    /// The recipe as used.
    pub recipe: String,
}

/// What one objective has had of the run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Words of the raw text, repeats counted.
    pub words: u64,
    /// Tokens that were predicted.
    pub targets: u64,
}

/// Everything besides the weights and the moments that the next step depends on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Text, tokenizer and recipe; resuming with others is refused.
    pub hashes: Hashes,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Optimiser steps done.
    pub step: u64,
    /// The optimiser's own count t (differs from `step` when a schedule restarts it).
    pub optimizer_t: u64,
    /// Index of the schedule's block that the next step belongs to, from 0 on.
    pub block: u64,
    /// Index of the block of the last step; nothing before the first one (and in what older builds wrote).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_block: Option<u64>,
    /// Position in the endless stream of segments (see [`crate::objective::stream`]): segments visited, repeats counted.
    pub position: u64,
    /// Words and targets by objective.
    pub seen: BTreeMap<Objective, Seen>,
    /// What [`Memory::judge`] goes by.
    #[serde(default, skip_serializing_if = "Memory::is_empty")]
    pub health: Memory,
    /// A signal came before all that follows step `step` was done (dev losses, the end of its block): resuming begins
    /// with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmeasured: bool,
    /// The part of `log.jsonl` that belongs to these steps; what is behind is cut off on resume.
    pub log: LogEnd,
    /// The arithmetic of the products: `f32`, `bf16-avx512` and others ([`Device::arithmetic`](antlm_nn::device::Device::arithmetic)).
    pub precision: String,
    /// Where it ran: `cpu`, `cuda`.
    pub device: String,
}

/// The keys of `state.json` that concern the checkpoint and not the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    version: u32,
    kept: bool,
    sha256: BTreeMap<String, String>,
}

/// A checkpoint in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Retention leaves it alone.
    pub kept: bool,
    /// The run's state.
    pub state: State,
    /// Weights, moments (`exp_avg`, `exp_avg_sq`) and average, in the layout's order.
    pub weights: Weights,
}

/// A checkpoint's folder, not yet opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Optimiser steps, from the folder's name.
    pub step: u64,
    /// The folder.
    pub path: PathBuf,
}

/// Where a run's checkpoints lie.
pub fn folder(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// Bytes of a checkpoint that can be trained on, about.
pub fn size(layout: &Layout, ema: bool) -> u64 {
    // The tensors in f32; names, shapes and state are kilobytes.
    4 * layout.len() as u64 * (3 + u64::from(ema)) + 100_000
}

/// Writes the checkpoint of `state.step` and returns its folder. A checkpoint of the same step is replaced; the others
/// stay until [`retain`] removes them.
///
/// # Errors
/// [`Error::Io`] with the path, before anything is written if there is no room; the older checkpoints are as they were.
pub fn save<B: Deref<Target = [f32]>>(
    run: &Path,
    state: &State,
    layout: &Layout,
    weights: &Weights<B>,
    kept: bool,
) -> Result<PathBuf> {
    let Weights { params, m, v, ema, .. } = weights;
    put_step(run, state, kept, size(layout, ema.is_some()), |folder| {
        tensor_file::write(&folder.join(MODEL), layout, &[("", params)])?;
        tensor_file::write(&folder.join(OPTIMIZER), layout, &[("exp_avg.", m), ("exp_avg_sq.", v)])?;
        if let Some(ema) = ema {
            tensor_file::write(&folder.join(EMA), layout, &[("", ema)])?;
        }
        Ok([Some(MODEL), Some(OPTIMIZER), ema.as_ref().map(|_| EMA)].into_iter().flatten().collect())
    })
}

/// Writes a checkpoint that can be read but not trained on: weights without the optimiser's moments. It is kept.
///
/// # Errors
/// As [`save`].
pub fn save_weights(run: &Path, state: &State, layout: &Layout, params: &[f32]) -> Result<PathBuf> {
    put_step(run, state, true, 4 * layout.len() as u64, |folder| {
        tensor_file::write(&folder.join(MODEL), layout, &[("", params)])?;
        Ok(vec![MODEL])
    })
}

/// Writes a milestone, `RUN/milestones/NAME`: a checkpoint that can be read but not trained on. One of this name that is
/// there is replaced, by the same bytes where a run was resumed.
///
/// # Errors
/// As [`save`].
pub fn save_milestone<B: Deref<Target = [f32]>>(
    run: &Path,
    name: &str,
    state: &State,
    layout: &Layout,
    weights: &Weights<B>,
) -> Result<PathBuf> {
    let all = run.join(MILESTONES);
    files::create_folders(&all)?;
    // Left over from an interrupted run; what was moved away is written again.
    for prefix in [".tmp-", ".old-"] {
        let left = files::hidden(&all.join(name), prefix);
        if left.exists() {
            fs::remove_dir_all(&left).map_err(Error::io(&left))?;
        }
    }
    let bytes = 4 * layout.len() as u64 * (1 + u64::from(weights.ema.is_some()));
    files::check_room(&all, bytes, files::available(&all))?;
    let place = put(&all, name, state, true, |folder| {
        tensor_file::write(&folder.join(MODEL), layout, &[("", &weights.params)])?;
        if let Some(ema) = &weights.ema {
            tensor_file::write(&folder.join(EMA), layout, &[("", ema)])?;
        }
        Ok([Some(MODEL), weights.ema.as_ref().map(|_| EMA)].into_iter().flatten().collect())
    })?;
    let old = files::hidden(&place, ".old-");
    if old.exists() {
        fs::remove_dir_all(&old).map_err(Error::io(&old))?;
    }
    Ok(place)
}

/// Puts the checkpoint of a step in its place, and tidies up around it.
fn put_step(
    run: &Path,
    state: &State,
    kept: bool,
    bytes: u64,
    write: impl FnOnce(&Path) -> Result<Vec<&'static str>>,
) -> Result<PathBuf> {
    let all = folder(run);
    files::create_folders(&all)?;
    clean(run)?;
    files::check_room(&all, bytes, files::available(&all))?;
    let place = put(&all, &format!("step-{:09}", state.step), state, kept, write)?;
    clean(run)?;
    Ok(place)
}

/// Puts a folder with the files that `write` makes, and their checksums, in its place. What an error left half written is
/// removed: on a full disk it would take the room of the next try.
fn put(
    all: &Path,
    name: &str,
    state: &State,
    kept: bool,
    write: impl FnOnce(&Path) -> Result<Vec<&'static str>>,
) -> Result<PathBuf> {
    let place = all.join(name);
    let beside = files::hidden(&place, ".tmp-");
    fs::create_dir(&beside).map_err(Error::io(&beside))?;
    let fill = || -> Result<()> {
        let mut sha256 = BTreeMap::new();
        for name in write(&beside)? {
            sha256.insert(name.to_owned(), files::sha256_file(&beside.join(name))?);
        }
        let json = to_json(&Envelope { version: VERSION, kept, sha256 }, state);
        files::write_atomic(beside.join(STATE), json.as_bytes()) // syncs the folder, too
    };
    fill().inspect_err(|_| {
        // The first error is the one that matters; what stays is removed before the next save.
        let _ = fs::remove_dir_all(&beside);
    })?;
    if place.exists() {
        // Not atomic with the next rename, so clean() undoes this one when the next one did not happen.
        let old = files::hidden(&place, ".old-");
        fs::rename(&place, &old).map_err(Error::io(&place))?;
    }
    fs::rename(&beside, &place).map_err(Error::io(&place))?;
    files::sync_folder(all)?;
    Ok(place)
}

/// Removes what an interrupted [`save`] left beside the checkpoints.
fn clean(run: &Path) -> Result<()> {
    for (name, path) in names(run)? {
        if name.starts_with(".tmp-step-") {
            fs::remove_dir_all(&path).map_err(Error::io(&path))?;
        } else if let Some(place) = name.strip_prefix(".old-").filter(|n| step_of(n).is_some()) {
            let place = folder(run).join(place);
            if place.exists() {
                fs::remove_dir_all(&path).map_err(Error::io(&path))?;
            } else {
                fs::rename(&path, &place).map_err(Error::io(&path))?;
            }
        }
    }
    Ok(())
}

/// What to say when there is no room for all that the run will keep.
pub fn room(recipe: &Recipe, layout: &Layout, plan: &Plan, free: Option<u64>) -> Option<String> {
    let ema = recipe.optimizer.ema_decay > 0.0;
    let Checkpoints { keep_last, keep_every, .. } = recipe.checkpoints;
    let for_good = if keep_every > 0 { plan.steps / u64::from(keep_every) } else { 0 };
    // The newest is written before the oldest is removed.
    let whole = (u64::from(keep_last) + 1 + for_good + plan.blocks.len() as u64).min(plan.steps + 1);
    let weights = 4 * layout.len() as u64 * (1 + u64::from(ema)) * plan.milestones.len() as u64;
    let bytes = whole.saturating_mul(size(layout, ema)).saturating_add(weights);
    let free = free.filter(|&free| free < bytes)?;
    let [bytes, free] = [bytes, free].map(|bytes| format!("{:.1} GB", bytes as f64 / 1e9));
    Some(format!("the checkpoints of this run will take up to {bytes}, and {free} are free"))
}

/// Of the checkpoints up to `step`, which was just written, removes all but the newest `last` (at least 1) of those that
/// are neither kept nor of a step that is a multiple of `every` (0: none is). What cannot be read stays: a person should
/// look at it.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn retain(run: &Path, step: u64, last: u32, every: u32) -> Result<()> {
    let mut rolling: Vec<Entry> = list(run)?;
    let stays = |entry: &Entry| every > 0 && entry.step > 0 && entry.step.is_multiple_of(u64::from(every));
    rolling.retain(|e| e.step <= step && !stays(e) && matches!(read_state(&e.path), Ok((_, false))));
    rolling.truncate(rolling.len().saturating_sub(last.max(1) as usize));
    rolling.iter().try_for_each(|entry| files::remove_folder(&entry.path))
}

/// All checkpoints of a run, oldest first. None when the run has no folder for them; leftovers of interrupted writes
/// do not count.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be read.
pub fn list(run: &Path) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> =
        names(run)?.into_iter().filter_map(|(name, path)| Some(Entry { step: step_of(&name)?, path })).collect();
    entries.sort_by_key(|entry| entry.step);
    Ok(entries)
}

/// The newest checkpoint of a run.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be read.
pub fn newest(run: &Path) -> Result<Option<Entry>> {
    Ok(list(run)?.pop())
}

/// Loads the newest checkpoint that is whole, and says what was wrong with the newer ones. `None` when there is none
/// at all.
///
/// # Errors
/// When there are checkpoints but none is whole: the newest one's error.
pub fn newest_good(run: &Path, layout: &Layout) -> Result<Option<(Checkpoint, Vec<Error>)>> {
    let mut damaged = Vec::new();
    for entry in list(run)?.iter().rev() {
        match load(&entry.path, layout) {
            Ok(checkpoint) => return Ok(Some((checkpoint, damaged))),
            Err(error) => damaged.push(error),
        }
    }
    if damaged.is_empty() { Ok(None) } else { Err(damaged.swap_remove(0)) }
}

/// Loads one checkpoint and checks everything about it.
///
/// # Errors
/// [`Error::Io`] or [`Error::Data`] with the file and the place that is missing or wrong.
pub fn load(path: &Path, layout: &Layout) -> Result<Checkpoint> {
    let (state, envelope) = read_json(path)?;
    let mut params = read_checked(path, MODEL, &envelope, layout, &[""])?;
    let mut moments = read_checked(path, OPTIMIZER, &envelope, layout, &["exp_avg.", "exp_avg_sq."])?;
    // One buffer for each prefix that was asked for.
    let (v, m) = (moments.pop().unwrap_or_default(), moments.pop().unwrap_or_default());
    let params = params.pop().unwrap_or_default();
    let ema = match envelope.sha256.contains_key(EMA) {
        true => read_checked(path, EMA, &envelope, layout, &[""])?.pop(),
        false => None,
    };
    let weights = Weights { params, m, v, ema, t: state.optimizer_t };
    Ok(Checkpoint { path: path.to_owned(), kept: envelope.kept, state, weights })
}

/// Loads a checkpoint's state and weights and leaves the optimiser's moments alone; for scoring and export.
///
/// # Errors
/// As [`load`].
pub fn load_weights(path: &Path, layout: &Layout) -> Result<(State, Vec<f32>)> {
    let (state, envelope) = read_json(path)?;
    let mut params = read_checked(path, MODEL, &envelope, layout, &[""])?;
    Ok((state, params.pop().unwrap_or_default()))
}

/// As [`load_weights`], but the moving average of the weights.
///
/// # Errors
/// As [`load`], and [`Error::Usage`] when the checkpoint has none.
pub fn load_ema(path: &Path, layout: &Layout) -> Result<(State, Vec<f32>)> {
    let (state, envelope) = read_json(path)?;
    if !envelope.sha256.contains_key(EMA) {
        return Err(Error::Usage(format!(
            "{}: no averaged weights here; a run keeps them when it is trained with --set optimizer.ema_decay=0.999",
            path.display()
        )));
    }
    let mut ema = read_checked(path, EMA, &envelope, layout, &[""])?;
    Ok((state, ema.pop().unwrap_or_default()))
}

/// Reads a checkpoint's state, and whether it is kept; does not look at the tensors.
///
/// # Errors
/// [`Error::Io`] or [`Error::Data`] with `state.json` and the key that is wrong.
pub fn read_state(path: &Path) -> Result<(State, bool)> {
    let (state, envelope) = read_json(path)?;
    Ok((state, envelope.kept))
}

fn read_checked(
    path: &Path,
    name: &str,
    envelope: &Envelope,
    layout: &Layout,
    prefixes: &[&str],
) -> Result<Vec<Vec<f32>>> {
    let file = path.join(name);
    // The structure first: "ends at byte 7" says more than "the checksum differs".
    let sets = tensor_file::read(&file, layout, prefixes)?;
    let expected = envelope.sha256.get(name).map(String::as_str).unwrap_or("none");
    let found = files::sha256_file(&file)?;
    if found != expected {
        let what = format!("is {found}, but {STATE} says {expected}: the file was damaged or changed");
        return Err(Error::data(file, "sha256", what));
    }
    Ok(sets)
}

fn to_json(envelope: &Envelope, state: &State) -> String {
    // Its own checksum is that of the text without it.
    let mut envelope = envelope.clone();
    envelope.sha256.remove(STATE);
    let own = files::sha256(merged(&envelope, state).as_bytes());
    envelope.sha256.insert(STATE.into(), own);
    merged(&envelope, state)
}

fn merged(envelope: &Envelope, state: &State) -> String {
    // Both are plain structs with string keys, which serde_json always turns into objects.
    let mut json = serde_json::to_value(envelope).expect("an envelope is JSON");
    let state = serde_json::to_value(state).expect("a state is JSON");
    if let (Some(all), serde_json::Value::Object(state)) = (json.as_object_mut(), state) {
        all.extend(state);
    }
    format!("{json:#}\n")
}

fn read_json(path: &Path) -> Result<(State, Envelope)> {
    let file = path.join(STATE);
    let text = files::read_text(&file, MAX_STATE)?;
    let mut json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text)
        .map_err(|e| Error::data(&file, format!("line {}, column {}", e.line(), e.column()), e.to_string()))?;
    // The version first, so that a newer file is not called damaged for its new keys.
    match json.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        found => {
            let found = found.map_or("none".to_owned(), |v| v.to_string());
            let what = format!("is {found}, but this antlm reads version {VERSION}");
            return Err(Error::data(file, "version", what));
        }
    }
    let mut own = serde_json::Map::new();
    for key in ["version", "kept", "sha256"] {
        own.extend(json.remove_entry(key));
    }
    let wrong = |e: serde_json::Error| Error::data(&file, "keys", e.to_string());
    let envelope: Envelope = serde_json::from_value(own.into()).map_err(wrong)?;
    let state: State = serde_json::from_value(json.into()).map_err(wrong)?;
    // Byte by byte what was written.
    if to_json(&envelope, &state) != text {
        return Err(Error::data(file, "sha256", "its own checksum differs: the file was damaged or changed"));
    }
    if step_of(&path.file_name().unwrap_or_default().to_string_lossy()).is_some_and(|step| step != state.step) {
        let what = format!("is {}, but the folder has another number: was it renamed or copied?", state.step);
        return Err(Error::data(file, "step", what));
    }
    Ok((state, envelope))
}

/// `step-000000120` -> 120; names that [`save`] would not write are not checkpoints.
fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("step-")?;
    let step = digits.parse().ok()?;
    (format!("{step:09}") == digits).then_some(step)
}

/// The names and paths in the folder of checkpoints, sorted.
fn names(run: &Path) -> Result<Vec<(String, PathBuf)>> {
    let all = folder(run);
    let read = match fs::read_dir(&all) {
        Ok(read) => read,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Io { path: all, source }),
    };
    let mut names = Vec::new();
    for entry in read {
        let entry = entry.map_err(Error::io(&all))?;
        names.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
