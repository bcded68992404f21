//! Two runs side by side: where their recipes, texts and losses differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::events::{self, Event};
use super::info::{self, Info};
use super::run_folder;
use crate::Result;
use crate::objective::{Backend, Objective};
use crate::recipe::{Recipe, flat};

/// What two runs, the first and the second, have apart and in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Keys of the recipes with different values, by name.
    pub recipe: Vec<Key>,
    /// What the runs were made of: `antlm` (version), `text`, `tokenizer` (hashes), `vocab_size`.
    pub data: Vec<Key>,
    /// Dev losses in nats per target, one entry for each backend that either run has measured.
    pub dev: Vec<Dev>,
    /// Each objective's last training loss, in nats per target.
    pub training: Vec<Training>,
    /// The dev losses can be compared: same text, same tokenizer, and dev settings that choose the same segments.
    pub comparable: bool,
    /// Optimiser steps done.
    pub steps: [u64; 2],
    /// Steps from the start on whose objective, loss and gradient norm are the same to the bit.
    pub equal_steps: u64,
}

/// A key and its two values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Dotted name.
    pub key: String,
    /// Its values in TOML notation; nothing where a run does not have the key.
    pub values: [Option<String>; 2],
}

/// The dev losses of one backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dev {
    /// How the models were read.
    pub backend: Backend,
    /// The last measurement of each run.
    pub last: [Option<Measured>; 2],
    /// The lowest of each run.
    pub best: [Option<Measured>; 2],
}

/// A loss and when it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Optimiser steps done.
    pub step: u64,
    /// Nats per target.
    pub loss: f64,
}

/// The last training losses of one objective.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Training {
    /// What was trained.
    pub objective: Objective,
    /// The last step's loss in each run.
    pub loss: [Option<f64>; 2],
}

/// Compares two runs by what lies in their folders. Neither is locked: runs that go on can be looked at.
///
/// # Errors
/// As [`info::read`] and [`Recipe::read`], for either run.
pub fn runs(first: &Path, second: &Path) -> Result<Comparison> {
    let infos = [info::read(first)?, info::read(second)?];
    let recipes = [recipe(first)?, recipe(second)?];
    let settings = [flat::entries(&recipes[0])?, flat::entries(&recipes[1])?];
    let made_of = [made_of(&recipes[0]), made_of(&recipes[1])];
    let (recipe, data) = (differences(&settings), differences(&made_of));

    let same = |key: &str| made_of[0].contains_key(key) && made_of[0].get(key) == made_of[1].get(key);
    // What decides the dev segments and their masks, beside the text.
    let chosen = |recipe: &Recipe| (recipe.seq_len, recipe.dev.max_segments, recipe.masking.clone());
    let comparable = same("text") && same("tokenizer") && chosen(&recipes[0]) == chosen(&recipes[1]);

    Ok(Comparison {
        recipe,
        data,
        dev: dev(&infos),
        training: training(&infos),
        comparable,
        steps: [infos[0].step, infos[1].step],
        equal_steps: equal_steps(first, second)?,
    })
}

fn recipe(run: &Path) -> Result<Recipe> {
    Ok(Recipe::read(&run.join(run_folder::RECIPE))?.0)
}

fn made_of(recipe: &Recipe) -> BTreeMap<String, String> {
    let Some(used) = &recipe.used else { return BTreeMap::new() };
    let quoted = |text: &str| format!("{text:?}");
    BTreeMap::from([
        ("antlm".to_owned(), quoted(&used.antlm)),
        ("text".to_owned(), quoted(&used.text)),
        ("tokenizer".to_owned(), quoted(&used.tokenizer)),
        ("vocab_size".to_owned(), used.vocab_size.to_string()),
    ])
}

fn differences(sides: &[BTreeMap<String, String>; 2]) -> Vec<Key> {
    let names: BTreeSet<&String> = sides[0].keys().chain(sides[1].keys()).collect();
    let differing = names.into_iter().filter(|key| sides[0].get(*key) != sides[1].get(*key));
    differing.map(|key| Key { key: key.clone(), values: [0, 1].map(|side| sides[side].get(key).cloned()) }).collect()
}

fn dev(infos: &[Info; 2]) -> Vec<Dev> {
    [Backend::Causal, Backend::Mlm, Backend::Mntp]
        .into_iter()
        .map(|backend| {
            let of = |info: &Info| {
                let losses = info.dev.iter().filter(|dev| dev.backend == backend);
                losses.map(|dev| Measured { step: dev.step, loss: dev.loss }).collect::<Vec<_>>()
            };
            let measured = [of(&infos[0]), of(&infos[1])];
            let last = [0, 1].map(|side| measured[side].last().copied());
            let best = [0, 1].map(|side| measured[side].iter().copied().min_by(|a, b| a.loss.total_cmp(&b.loss)));
            Dev { backend, last, best }
        })
        .filter(|dev| dev.last.iter().any(Option::is_some))
        .collect()
}

fn training(infos: &[Info; 2]) -> Vec<Training> {
    let objectives: BTreeSet<Objective> = infos.iter().flat_map(|info| info.training_loss.keys().copied()).collect();
    let losses = |objective| [0, 1].map(|side: usize| infos[side].training_loss.get(&objective).copied());
    objectives.into_iter().map(|objective| Training { objective, loss: losses(objective) }).collect()
}

fn equal_steps(first: &Path, second: &Path) -> Result<u64> {
    let (logs, mut equal) = ([first.join(run_folder::LOG), second.join(run_folder::LOG)], 0);
    let mut readers =
        [events::read_log(&logs[0], events::open(&logs[0])?), events::read_log(&logs[1], events::open(&logs[1])?)];
    let [a, b] = &mut readers;
    loop {
        match (next_step(a)?, next_step(b)?) {
            (Some(one), Some(other)) if one == other => equal += 1,
            _ => return Ok(equal),
        }
    }
}

/// The next step of a log: objective, bits of loss and gradient norm.
fn next_step(log: &mut impl Iterator<Item = Result<Event>>) -> Result<Option<(Objective, u64, u64)>> {
    for event in log {
        let (objective, loss, grad_norm) = match event? {
            Event::Step { objective, loss, grad_norm, .. } => (objective, loss, grad_norm),
            // Negative, as no step's is, so that a step that was skipped equals none that was not.
            Event::Skip { objective, loss, grad_norm, .. } => {
                (objective, -loss.unwrap_or(f64::INFINITY), -grad_norm.unwrap_or(f64::INFINITY))
            }
            _ => continue,
        };
        return Ok(Some((objective, loss.to_bits(), grad_norm.to_bits())));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::events::{Listener, LogEnd, LogWriter, Moment};
    use super::*;
    use crate::recipe::{self, Used};

    fn run(folder: &Path, set: &[&str], text: &str, losses: &[f64]) {
        let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
        let mut recipe = Recipe::load("antlm-ltg-bert-tiny", &set).unwrap();
        recipe.used = Some(Used {
            antlm: "0.1.0".into(),
            prepared: folder.join("prepared"), // differs between runs, and is no difference
            text: text.into(),
            tokenizer: "t".into(),
            vocab_size: 300,
            init: None,
        });
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(run_folder::RECIPE), recipe.to_toml().unwrap()).unwrap();
        let mut log = LogWriter::open(&folder.join(run_folder::LOG), &LogEnd::default()).unwrap();
        for (step, &loss) in (1..).zip(losses) {
            let (block, epoch, objective, lr, grad_norm) = (0, 0, Objective::Clm, 0.1, 1.0);
            let (rows, targets, words_seen, backend) = (9, 8, 7, Backend::Causal);
            log.event(&Event::Step { step, block, epoch, objective, loss, lr, grad_norm, rows, targets, words_seen })
                .unwrap();
            log.event(&Event::Dev { step, block, at: Moment::Epoch, backend, loss, targets, unigram: 6.0 }).unwrap();
        }
        log.sync().unwrap();
    }

    #[test]
    fn what_differs_and_what_does_not() {
        let tmp = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| tmp.path().join(name));
        run(&a, &[], "x", &[5.0, 3.0, 4.0]);
        run(&b, &["optimizer.lr=0.001", "schedule=2 clm"], "x", &[5.0, 3.5]);
        run(&c, &["seq_len=64"], "y", &[]);

        let same = runs(&a, &a).unwrap();
        assert!(same.recipe.is_empty() && same.data.is_empty() && same.comparable);
        assert_eq!((same.steps, same.equal_steps), ([3, 3], 3));

        let other = runs(&a, &b).unwrap();
        let texts: Vec<_> =
            other.recipe.iter().map(|k| (k.key.as_str(), k.values.clone().map(Option::unwrap))).collect();
        assert_eq!(
            texts,
            [
                ("optimizer.lr", ["0.003".to_owned(), "0.001".to_owned()]),
                ("schedule", ["\"1 clm + 4 mlm + 1 clm\"".to_owned(), "\"2 clm\"".to_owned()]),
            ]
        );
        assert!(other.data.is_empty() && other.comparable);
        assert_eq!((other.steps, other.equal_steps), ([3, 2], 1));
        let at = |step, loss| Some(Measured { step, loss });
        let dev = Dev { backend: Backend::Causal, last: [at(3, 4.0), at(2, 3.5)], best: [at(2, 3.0), at(2, 3.5)] };
        assert_eq!(other.dev, [dev]);
        assert_eq!(other.training, [Training { objective: Objective::Clm, loss: [Some(4.0), Some(3.5)] }]);

        let apart = runs(&a, &c).unwrap();
        assert_eq!(apart.data.iter().map(|k| k.key.as_str()).collect::<Vec<_>>(), ["text"]);
        assert!(!apart.comparable);
        assert_eq!(apart.dev[0].last, [at(3, 4.0), None]);
    }

    #[test]
    fn a_run_without_hashes_is_not_comparable() {
        let tmp = tempfile::tempdir().unwrap();
        run(tmp.path(), &[], "x", &[1.0]);
        let plain = recipe::builtin("antlm-ltg-bert-tiny").unwrap().to_toml().unwrap();
        std::fs::write(tmp.path().join(run_folder::RECIPE), plain).unwrap();
        assert!(!runs(tmp.path(), tmp.path()).unwrap().comparable);
        assert!(runs(tmp.path(), &tmp.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
