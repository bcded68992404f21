//! How sure a difference of scores is: the items of a task are drawn anew, with replacement, within every paradigm (UID,
//! domain, subset), for all models the same ones; with several seeds of a recipe, the seeds too.
//!
//! Efron's percentile interval. The numbers come from a counter-based generator with a fixed seed, so the same results
//! always have the same interval.

use std::collections::BTreeMap;

use antlm_nn::rng::{Rng, Stream};
use rayon::prelude::*;

use crate::eval::finetune::metrics::Metric;
use crate::eval::results::TaskResult;
use crate::eval::stats::spearman;
use crate::{Error, Result, files};

/// How often everything is drawn anew.
pub const RESAMPLES: u32 = 2000;
/// The seed of all of it.
const SEED: u64 = 0x0061_6e74_6c6d;

/// The scores of several models on items that are drawn anew: `[models][RESAMPLES]`, all models on the same items. Nothing
/// for a metric that cannot be made of what a result keeps (reading times).
///
/// # Errors
/// [`Error::Usage`] when the results are not of the same items, or do not give their own score.
pub fn scores(results: &[&TaskResult]) -> Result<Option<Vec<Vec<f64>>>> {
    let Some(first) = results.first() else { return Ok(None) };
    if let Some(other) = results.iter().find(|r| r.metric != first.metric || r.task != first.task) {
        let what = format!("{} ({}) beside {} ({})", first.task, first.metric, other.task, other.metric);
        return Err(Error::Usage(format!("{what}: scores of different kinds have no difference")));
    }
    let items = match &first.metric[..] {
        "accuracy" => Items::outcomes(results)?,
        "f1" | "mcc" => Items::pairs(results, "prediction", "label")?,
        "spearman" => Items::pairs(results, "probability", "human")?,
        _ => return Ok(None),
    };
    for (model, result) in results.iter().enumerate() {
        let own = items.score(&first.metric, model, &mut |_, n, f| (0..n).for_each(f));
        if own.is_none_or(|own| (own - result.score).abs() > 1e-6) {
            let what = format!("{} of {}: its items do not give its score", result.task, result.checkpoint.name);
            return Err(Error::Usage(format!("{what} ({own:?}, {}); evaluate it with --again", result.score)));
        }
    }
    let rng = Rng::new(SEED);
    let rows: Vec<u32> = items.units.iter().map(|unit| row(&format!("{}/{}", first.task, unit.name))).collect();
    // [RESAMPLES][models]
    let drawn: Vec<Vec<f64>> = (0..RESAMPLES)
        .into_par_iter()
        .map(|resample| {
            items.all_scores(&first.metric, results, &mut |unit, n, f| draw(&rng, resample, rows[unit], n, f))
        })
        .collect();
    Ok(Some((0..results.len()).map(|model| drawn.iter().map(|scores| scores[model]).collect()).collect()))
}

/// Hands out `n` numbers below `n`.
fn draw(rng: &Rng, resample: u32, row: u32, n: usize, f: &mut dyn FnMut(usize)) {
    for quad in 0..n.div_ceil(4) {
        let values = rng.quad(Stream::BOOTSTRAP, resample, row, quad as u32);
        for value in values.into_iter().take(n - 4 * quad) {
            f(((u64::from(value) * n as u64) >> 32) as usize);
        }
    }
}

/// The place of a list's random numbers, by its name: whatever else is drawn, they stay the same.
fn row(name: &str) -> u32 {
    // Eight hexadecimal digits always are a u32.
    u32::from_str_radix(&files::sha256(name.as_bytes())[..8], 16).unwrap_or(0)
}

/// What models did with the items of one task.
struct Items {
    models: usize,
    units: Vec<Unit>,
}

/// Items that are drawn from together, and whose accuracy counts as one.
struct Unit {
    name: String,
    n: usize,
    /// Its share of the score.
    weight: f64,
    /// Right or not, `[n, models]`; or nothing where `pairs` are.
    right: Vec<u8>,
    /// Per model the two numbers of each item: prediction and label, or probability and people's share.
    pairs: Vec<Vec<[f64; 2]>>,
}

/// Hands out the items of a unit (its index, its size) one by one.
type Draw<'a> = dyn FnMut(usize, usize, &mut dyn FnMut(usize)) + 'a;

impl Items {
    fn outcomes(results: &[&TaskResult]) -> Result<Items> {
        let first = results[0];
        // Of entity tracking the splits' mean, of each split the mean of its numbers of operations.
        let split = |name: &str| match &first.task[..] {
            "entity-tracking" => {
                let stem = name.strip_suffix("_ops").and_then(|name| name.rsplit_once('_'));
                stem.map_or(name, |(stem, _)| stem).to_owned()
            }
            _ => String::new(),
        };
        let mut splits: BTreeMap<String, u32> = BTreeMap::new();
        first.outcomes.keys().for_each(|name| *splits.entry(split(name)).or_default() += 1);
        let mut units = Vec::new();
        for (name, outcomes) in &first.outcomes {
            let n = outcomes.len();
            let mut right = vec![0; n * results.len()];
            for (model, result) in results.iter().enumerate() {
                let own = result.outcomes.get(name).filter(|own| own.len() == n);
                let own = own.ok_or_else(|| not_the_same(result, first))?;
                own.bytes().enumerate().for_each(|(i, byte)| right[i * results.len() + model] = u8::from(byte != b'0'));
            }
            let weight = 1.0 / (splits.len() as f64 * f64::from(splits[&split(name)]));
            units.push(Unit { name: name.clone(), n, weight, right, pairs: Vec::new() });
        }
        match results.iter().find(|result| result.outcomes.len() != units.len()) {
            Some(other) => Err(not_the_same(other, first)),
            None => Ok(Items { models: results.len(), units }),
        }
    }

    fn pairs(results: &[&TaskResult], a: &str, b: &str) -> Result<Items> {
        let first = results[0];
        let mut pairs = Vec::new();
        for result in results {
            let (Some(a), Some(b)) = (result.values.get(a), result.values.get(b)) else {
                let what = format!("{} of {}: no {a} and {b}", result.task, result.checkpoint.name);
                return Err(Error::Usage(format!("{what} of its items; evaluate it with --again")));
            };
            let own: Vec<[f64; 2]> = a.iter().zip(b).map(|(&a, &b)| [a, b]).collect();
            if a.len() != b.len() || pairs.first().is_some_and(|first: &Vec<_>| first.len() != own.len()) {
                return Err(not_the_same(result, first));
            }
            pairs.push(own);
        }
        let unit = Unit { name: first.task.clone(), n: pairs[0].len(), weight: 1.0, right: Vec::new(), pairs };
        Ok(Items { models: results.len(), units: vec![unit] })
    }

    /// A model's score on the items that are handed out; nothing where it has none.
    fn score(&self, metric: &str, model: usize, draw: &mut Draw) -> Option<f64> {
        if metric != "accuracy" {
            let unit = &self.units[0];
            let mut drawn = Vec::with_capacity(unit.n);
            draw(0, unit.n, &mut |i| drawn.push(unit.pairs[model][i]));
            return of_pairs(metric, &drawn);
        }
        let mut score = 0.0;
        for (index, unit) in self.units.iter().enumerate() {
            let mut right = 0u32;
            draw(index, unit.n, &mut |i| right += u32::from(unit.right[i * self.models + model]));
            score += unit.weight * 100.0 * f64::from(right) / unit.n.max(1) as f64;
        }
        Some(score)
    }

    /// All models' scores on the same items. A score that these items do not give (nothing differs) is the model's own.
    fn all_scores(&self, metric: &str, results: &[&TaskResult], draw: &mut Draw) -> Vec<f64> {
        if metric != "accuracy" {
            let mut drawn = Vec::new();
            draw(0, self.units[0].n, &mut |i| drawn.push(i));
            let again = |model| self.score(metric, model, &mut |_, _, f| drawn.iter().for_each(|&i| f(i)));
            return results.iter().enumerate().map(|(model, own)| again(model).unwrap_or(own.score)).collect();
        }
        let mut scores = vec![0.0; self.models];
        let mut right = vec![0u32; self.models];
        for (index, unit) in self.units.iter().enumerate() {
            right.fill(0);
            draw(index, unit.n, &mut |i| {
                let of_item = &unit.right[i * self.models..(i + 1) * self.models];
                right.iter_mut().zip(of_item).for_each(|(sum, &one)| *sum += u32::from(one));
            });
            let times = unit.weight * 100.0 / unit.n.max(1) as f64;
            scores.iter_mut().zip(&right).for_each(|(score, &right)| *score += times * f64::from(right));
        }
        scores
    }
}

/// F1 of class 1 or Matthews' correlation of predictions and labels; Spearman's of other numbers. Times 100.
fn of_pairs(metric: &str, pairs: &[[f64; 2]]) -> Option<f64> {
    if metric == "spearman" {
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().map(|&[a, b]| (a, b)).unzip();
        return Some(100.0 * spearman(&a, &b)?);
    }
    let (predicted, labels): (Vec<u32>, Vec<u32>) = pairs.iter().map(|&[a, b]| (a as u32, b as u32)).unzip();
    let metric = if metric == "f1" { Metric::F1 } else { Metric::Mcc };
    Some(100.0 * metric.score(&predicted, &labels))
}

fn not_the_same(result: &TaskResult, other: &TaskResult) -> Error {
    let (a, b) = (&result.checkpoint.name, &other.checkpoint.name);
    Error::Usage(format!("{}: the results of {a} and {b} are not of the same items; evaluate again", result.task))
}

/// Models of one recipe: their seeds are drawn anew as one list of this name.
pub struct Group<'a> {
    /// The same name has the same draws.
    pub name: &'a str,
    /// Each model's scores, `[models][RESAMPLES]`.
    pub scores: Vec<&'a [f64]>,
}

/// What the mean of `a` has above that of `b`, for every resample. In a group of several models these are drawn too.
pub fn differences(a: &Group, b: &Group) -> Vec<f64> {
    let rng = Rng::new(SEED);
    let rows = [a, b].map(|group| row(&format!("seeds of {}", group.name)));
    let mean = |group: &Group, row: u32, resample: u32| {
        let n = group.scores.len();
        let mut sum = 0.0;
        let mut add = |model: usize| sum += group.scores[model][resample as usize];
        if n == 1 {
            add(0)
        } else {
            draw(&rng, resample, row, n, &mut add)
        }
        sum / n as f64
    };
    (0..RESAMPLES).map(|resample| mean(a, rows[0], resample) - mean(b, rows[1], resample)).collect()
}

/// The interval that holds 95 % of the values: their 2.5th and 97.5th percentiles, linear between two values.
pub fn interval(values: &[f64]) -> [f64; 2] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [0.025, 0.975].map(|share| {
        let place = share * sorted.len().saturating_sub(1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        let (Some(&a), Some(&b)) = (sorted.get(low), sorted.get(high)) else { return f64::NAN };
        a + (place - place.floor()) * (b - a)
    })
}

#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
