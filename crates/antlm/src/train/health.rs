//! The health of a run: steps whose loss or gradient is no number, and losses that leap out of the recent ones.

use std::collections::{BTreeMap, VecDeque};

use antlm_nn::params::Layout;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::objective::Objective;
use crate::objective::stream::Step;
use crate::recipe::{Health, OnNotFinite, OnSpike};

/// Steps that are skipped in a row, at most: then a run without a number ends, and a loss that leaps is the new level.
pub const MOST_SKIPPED: u32 = 10;
/// Losses that a judgement needs, or as many as the window holds.
const LEAST: usize = 20;
/// The spread of the recent losses counts as this, in nats, where it is smaller.
const LEAST_SPREAD: f64 = 0.01;

/// What a run remembers of its last steps; a part of a checkpoint's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Losses of the last steps of the block, by objective, oldest first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    recent: BTreeMap<Objective, VecDeque<f64>>,
    /// Steps that were skipped one after another until now.
    #[serde(default)]
    skipped: u32,
}

/// Why a step was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Its loss or its gradient's norm is no finite number.
    NotFinite,
    /// Its loss leaps out of the recent ones.
    Spike,
}

/// What is to become of a step whose gradient is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The weights are updated; with a number, its loss lies so many standard deviations above the mean of the recent
    /// ones.
    Take(Option<f64>),
    /// They stay as they are.
    Skip(Why, Option<f64>),
    /// The run ends.
    Stop,
}

impl Memory {
    /// Nothing is remembered.
    pub fn is_empty(&self) -> bool {
        *self == Memory::default()
    }

    /// Judges a step by its loss and its gradient's norm, and remembers it. Steps without targets say nothing, nor do
    /// those that end a block, which may be small.
    pub fn judge(&mut self, health: &Health, step: &Step, targets: u64, loss: f64, grad_norm: f64) -> Verdict {
        if step.in_block == 0 {
            // Another objective has another level, and a block before this one may be long ago.
            self.recent.clear();
        }
        if !(loss.is_finite() && grad_norm.is_finite()) {
            if health.not_finite == OnNotFinite::Stop || self.skipped >= MOST_SKIPPED {
                return Verdict::Stop;
            }
            self.skipped += 1;
            return Verdict::Skip(Why::NotFinite, None);
        }
        if health.spikes == OnSpike::Off || targets == 0 || step.ends_block {
            self.skipped = 0;
            return Verdict::Take(None);
        }
        let recent = self.recent.entry(step.objective).or_default();
        let spike = z_score(recent, health.window as usize, loss).filter(|&z| z > health.spike_z);
        if spike.is_some() && health.spikes == OnSpike::Skip {
            if self.skipped < MOST_SKIPPED {
                self.skipped += 1;
                return Verdict::Skip(Why::Spike, spike);
            }
            recent.clear();
        }
        self.skipped = 0;
        recent.push_back(loss);
        while recent.len() > health.window as usize {
            recent.pop_front();
        }
        Verdict::Take(spike)
    }
}

/// How many standard deviations a loss lies above the mean of the recent ones; nothing while these are too few.
fn z_score(recent: &VecDeque<f64>, window: usize, loss: f64) -> Option<f64> {
    if recent.len() < LEAST.min(window) {
        return None;
    }
    let n = recent.len() as f64;
    let mean = recent.iter().sum::<f64>() / n;
    let variance = recent.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    Some((loss - mean) / variance.sqrt().max(LEAST_SPREAD))
}

/// What is kept of a step that ends a run: `diverged.json`. Numbers that JSON does not have are texts there.
pub fn diagnosis(
    step: &Step,
    segments: &[u32],
    (lr, loss, grad_norm): (f64, f64, f64),
    layout: &Layout,
    (params, grads): (&[f32], &[f32]),
) -> Value {
    let number = |x: f64| if x.is_finite() { json!(x) } else { json!(x.to_string()) };
    let tensors = layout.tensors().iter().map(|tensor| {
        let of = |values: &[f32]| {
            let values = &values[tensor.range()];
            let norm = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let wrong = values.iter().filter(|x| !x.is_finite()).count();
            json!({"norm": number(norm), "not_finite": wrong})
        };
        json!({"name": tensor.name, "values": tensor.len(), "weights": of(params), "gradient": of(grads)})
    });
    json!({
        "step": step.index, "block": step.block, "objective": step.objective, "lr": lr, "loss": number(loss),
        "grad_norm": number(grad_norm), "segments": segments, "tensors": tensors.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use antlm_nn::params::Init;
    use proptest::prelude::*;

    use super::*;

    fn step(in_block: u64, objective: Objective) -> Step {
        let index = in_block as u32;
        Step { index, block: 0, in_block, objective, positions: 0..8, ends_block: false, ends_epoch: None }
    }

    /// Losses that go up and down by 0.1 around 3: a standard deviation of 0.1.
    fn settled(health: &Health, objective: Objective) -> Memory {
        let mut memory = Memory::default();
        for i in 0..100 {
            let loss = if i % 2 == 0 { 3.1 } else { 2.9 };
            assert_eq!(memory.judge(health, &step(i, objective), 9, loss, 1.0), Verdict::Take(None));
        }
        memory
    }

    #[test]
    fn what_is_no_number_stops_or_is_skipped_some_times() {
        let stop = Health::default();
        let skip = Health { not_finite: OnNotFinite::Skip, ..stop };
        for (loss, norm) in [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (3.0, f64::NAN), (3.0, f64::INFINITY)] {
            let judge =
                |health: &Health, memory: &mut Memory| memory.judge(health, &step(5, Objective::Clm), 9, loss, norm);
            assert_eq!(judge(&stop, &mut Memory::default()), Verdict::Stop);
            let mut memory = Memory::default();
            for _ in 0..MOST_SKIPPED {
                assert_eq!(judge(&skip, &mut memory), Verdict::Skip(Why::NotFinite, None));
            }
            assert_eq!(judge(&skip, &mut memory), Verdict::Stop);
            // A good one between begins the count anew.
            memory.judge(&skip, &step(6, Objective::Clm), 9, 3.0, 1.0);
            assert_eq!(judge(&skip, &mut memory), Verdict::Skip(Why::NotFinite, None));
        }
    }

    #[test]
    fn a_leap_is_told_by_its_z_score() {
        let report = Health::default();
        let memory = settled(&report, Objective::Clm);
        let judge = |loss: f64, step: &Step, targets| memory.clone().judge(&report, step, targets, loss, 1.0);
        let next = step(100, Objective::Clm);
        assert_eq!(judge(3.59, &next, 9), Verdict::Take(None));
        let Verdict::Take(Some(z)) = judge(3.7, &next, 9) else { panic!("not told") };
        assert!((z - 7.0).abs() < 1e-9, "{z}");
        assert_eq!(judge(-50.0, &next, 9), Verdict::Take(None), "downwards is what training is for");
        // Another objective, another block, the end of a block, no targets: nothing to compare with.
        assert_eq!(judge(9.0, &step(100, Objective::Mlm), 9), Verdict::Take(None));
        assert_eq!(judge(9.0, &step(0, Objective::Clm), 9), Verdict::Take(None));
        assert_eq!(judge(9.0, &Step { ends_block: true, ..next.clone() }, 9), Verdict::Take(None));
        assert_eq!(judge(9.0, &next, 0), Verdict::Take(None));
        let off = Health { spikes: OnSpike::Off, ..report };
        assert_eq!(memory.clone().judge(&off, &next, 9, 9.0, 1.0), Verdict::Take(None));
        // Losses that are all the same have a spread all the same.
        let mut flat = Memory::default();
        for i in 0..50 {
            assert_eq!(flat.judge(&report, &step(i, Objective::Clm), 9, 3.0, 1.0), Verdict::Take(None));
        }
        assert_eq!(flat.judge(&report, &step(50, Objective::Clm), 9, 3.05, 1.0), Verdict::Take(None));
    }

    /// Too few losses say nothing: twenty are needed, or as many as a smaller window holds; and each objective of a
    /// `mix` needs its own.
    #[test]
    fn the_first_steps_are_not_judged() {
        for (window, needed) in [(100, 20), (20, 20), (5, 5), (2, 2)] {
            let health = Health { window, ..Health::default() };
            for before in [needed - 1, needed] {
                let mut memory = Memory::default();
                for i in 0..before {
                    assert_eq!(memory.judge(&health, &step(i, Objective::Clm), 9, 3.0, 1.0), Verdict::Take(None));
                    memory.judge(&health, &step(i.max(1), Objective::Mlm), 9, 8.0, 1.0);
                }
                let told = memory.judge(&health, &step(before, Objective::Clm), 9, 8.0, 1.0);
                assert_eq!(matches!(told, Verdict::Take(Some(_))), before == needed, "{window}: {told:?}");
                let same = memory.judge(&health, &step(before, Objective::Mlm), 9, 8.0, 1.0);
                assert_eq!(same, Verdict::Take(None), "its own level");
            }
        }
    }

    /// The window moves: what is older does not count, and what was skipped never did.
    #[test]
    fn only_the_last_losses_count() {
        let health = Health { window: 3, spikes: OnSpike::Skip, ..Health::default() };
        let mut memory = Memory::default();
        for (i, loss) in [9.0, 3.0, 3.0, 3.0].into_iter().enumerate() {
            memory.judge(&health, &step(i as u64, Objective::Clm), 9, loss, 1.0);
        }
        let mut judge = |loss| memory.judge(&health, &step(9, Objective::Clm), 9, loss, 1.0);
        for _ in 0..2 {
            let Verdict::Skip(Why::Spike, Some(z)) = judge(4.0) else { panic!("the 9 is forgotten") };
            assert!((z - 100.0).abs() < 1e-9, "one nat over the least spread of 0.01, twice: {z}");
        }
    }

    #[test]
    fn a_leap_that_lasts_is_the_new_level() {
        let skip = Health { spikes: OnSpike::Skip, ..Health::default() };
        let mut memory = settled(&skip, Objective::Clm);
        let mut judge = |loss| memory.judge(&skip, &step(100, Objective::Clm), 9, loss, 1.0);
        for _ in 0..MOST_SKIPPED {
            assert!(matches!(judge(9.0), Verdict::Skip(Why::Spike, Some(z)) if z > 50.0));
        }
        assert!(matches!(judge(9.0), Verdict::Take(Some(_))));
        assert_eq!(judge(9.1), Verdict::Take(None));
    }

    #[test]
    fn memories_come_back_to_the_bit() {
        let health = Health { spikes: OnSpike::Skip, window: 50, ..Health::default() };
        let mut memory = settled(&health, Objective::Mntp);
        memory.judge(&health, &step(100, Objective::Mntp), 9, 9.0, 1.0);
        memory.judge(&health, &step(101, Objective::Mntp), 9, 1.0 / 3.0, 1.0);
        let json = serde_json::to_string(&memory).unwrap();
        assert_eq!(serde_json::from_str::<Memory>(&json).unwrap(), memory);
        assert_eq!(memory.recent[&Objective::Mntp].len(), 50);
    }

    #[test]
    fn the_diagnosis_names_the_tensor() {
        let mut layout = Layout::default();
        layout.add("a", &[2], Init::Ones, false);
        layout.add("b", &[2], Init::Ones, false);
        let numbers = (0.1, f64::NAN, f64::INFINITY);
        let found = diagnosis(
            &step(7, Objective::Clm),
            &[4, 9],
            numbers,
            &layout,
            (&[3.0, 4.0, 0.0, 1.0], &[0.0, 2.0, f32::NAN, 1.0]),
        );
        assert_eq!((&found["step"], &found["segments"], &found["loss"]), (&7.into(), &json!([4, 9]), &"NaN".into()));
        assert_eq!(found["tensors"][0]["weights"], json!({"norm": 5.0, "not_finite": 0}));
        assert_eq!(found["tensors"][1]["gradient"], json!({"norm": "NaN", "not_finite": 1}));
    }

    proptest! {
        /// Stopped after any step and read back from its text, a memory judges all that follows as it would have.
        #[test]
        fn resumed_anywhere_the_verdicts_are_the_same(
            losses in prop::collection::vec((0u8..40, -1.0f64..1.0, any::<bool>(), any::<bool>()), 1..60),
            stop in 0usize..60, window in 2u32..8, spike_z in 0.5f64..3.0, skip in any::<bool>(),
        ) {
            let spikes = if skip { OnSpike::Skip } else { OnSpike::Report };
            let health = Health { not_finite: OnNotFinite::Skip, spikes, spike_z, window };
            let judge = |memory: &mut Memory, i: usize| {
                let (kind, noise, ends_block, second) = losses[i];
                // Now and then no number, or the beginning of a block.
                let loss = if kind == 0 { f64::NAN } else { 3.0 + noise };
                let in_block = if kind == 1 { 0 } else { 1 + i as u64 };
                let objective = if second { Objective::Mlm } else { Objective::Clm };
                let step = Step { ends_block: ends_block && kind < 5, ..step(in_block, objective) };
                memory.judge(&health, &step, u64::from(kind != 2), loss, 1.0)
            };
            let mut whole = Memory::default();
            let expected: Vec<Verdict> = (0..losses.len()).map(|i| judge(&mut whole, i)).collect();
            let mut memory = Memory::default();
            let mut found = Vec::new();
            for i in 0..losses.len() {
                if i == stop {
                    memory = serde_json::from_str(&serde_json::to_string(&memory).unwrap()).unwrap();
                }
                found.push(judge(&mut memory, i));
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(memory, whole);
        }
    }
}
