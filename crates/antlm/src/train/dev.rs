//! Dev losses: the same text and the same masks for every run, read with every backend.

use antlm_nn::device::Slice;
use antlm_nn::rng::Rng;
use antlm_nn::tape::{Pool, Tape};

use super::step::Packing;
use crate::Result;
use crate::model::Model;
use crate::objective::{Backend, Batch, Objective};
use crate::recipe::Recipe;
use crate::text::dataset::Dataset;

/// Seed of the dev masks: the same for every run, so that losses can be compared.
const MASKS: u64 = 0;

/// One way to read the dev set.
#[derive(Clone, Debug)]
struct Reading {
    backend: Backend,
    batches: Vec<Batch>,
    targets: u64,
    unigram: f64,
}

/// The dev set, masked and packed once.
#[derive(Clone, Debug)]
pub struct DevSet {
    readings: Vec<Reading>,
}

/// A dev loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DevLoss {
    /// How the model was read.
    pub backend: Backend,
    /// Mean -log p of the targets, in nats.
    pub loss: f64,
    /// Their number.
    pub targets: u64,
    /// The same for a model that knows the training text's token frequencies only.
    pub unigram: f64,
}

impl DevSet {
    /// At most `recipe.dev.max_segments` segments (0: all), spread evenly over `dev`. `train` gives token frequencies.
    pub fn new(recipe: &Recipe, dev: &Dataset, train: &Dataset) -> DevSet {
        let most = if recipe.dev.max_segments == 0 { dev.len() } else { dev.len().min(recipe.dev.max_segments) };
        let spread = (0..most).map(|i| (u64::from(i) * u64::from(dev.len()) / u64::from(most)) as u32);
        let frequencies = Frequencies::count(train);
        let readings = [Objective::Clm, Objective::Mlm, Objective::Mntp].map(|objective| {
            let packing = Packing { recipe, objective, rng: Rng::new(MASKS), step: 0 };
            let batches = packing.batches(dev, spread.clone());
            let targets = batches.iter().map(|batch| batch.targets.len() as u64).sum::<u64>();
            let sum: f64 = batches.iter().flat_map(|batch| &batch.targets).map(|&id| frequencies.loss(id)).sum();
            Reading { backend: objective.backend(), batches, targets, unigram: sum / targets.max(1) as f64 }
        });
        DevSet { readings: readings.into_iter().filter(|reading| reading.targets > 0).collect() }
    }

    /// Begins to read the model with every backend.
    pub fn measure(&self) -> Measuring<'_> {
        Measuring { left: &self.readings, batch: 0, sum: 0.0, losses: Vec::new() }
    }
}

/// A measurement that goes on batch by batch, so that whoever makes it can do something else between them.
#[derive(Debug)]
pub struct Measuring<'a> {
    /// What is not read to its end yet.
    left: &'a [Reading],
    /// Batches done of the first of these, and the sum of -log p over their targets.
    batch: usize,
    sum: f64,
    losses: Vec<DevLoss>,
}

impl Measuring<'_> {
    /// True when every batch was read.
    pub fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// Reads one more batch, if there is one.
    ///
    /// # Errors
    /// The engine's.
    pub fn next_batch(&mut self, model: &Model, params: Slice<'_>, pool: &mut Pool) -> Result<()> {
        let Some((reading, rest)) = self.left.split_first() else { return Ok(()) };
        // A reading without a batch has no targets, and is left out.
        let mut tape = Tape::new(params, None, None, pool)?;
        let nll = model.loss(&mut tape, &reading.batches[self.batch], 0.0)?;
        self.sum += nll.iter().map(|&x| f64::from(x)).sum::<f64>();
        self.batch += 1;
        if self.batch == reading.batches.len() {
            let Reading { backend, targets, unigram, .. } = *reading;
            self.losses.push(DevLoss { backend, loss: self.sum / targets as f64, targets, unigram });
            (self.left, self.batch, self.sum) = (rest, 0, 0.0);
        }
        Ok(())
    }

    /// The losses of the backends that were read to their end.
    pub fn losses(self) -> Vec<DevLoss> {
        self.losses
    }
}

/// How often each token occurs in the training text, plus one.
struct Frequencies {
    counts: Vec<u64>,
    total: u64,
}

impl Frequencies {
    fn count(train: &Dataset) -> Frequencies {
        let mut counts = vec![1u64; train.vocab_size()];
        for i in 0..train.len() {
            for &token in train.tokens(i) {
                if let Some(count) = counts.get_mut(usize::from(token)) {
                    *count += 1;
                }
            }
        }
        // Every document ends once with the closing mark, which clm predicts there.
        counts[crate::text::special::SEP as usize] += train.documents();
        let total = counts.iter().sum();
        Frequencies { counts, total }
    }

    fn loss(&self, id: u32) -> f64 {
        let count = self.counts.get(id as usize).copied().unwrap_or(1);
        antlm_nn::kernels::math::ln(self.total as f64 / count as f64)
    }
}
