//! One optimiser step: segments -> micro-batches -> loss and gradient -> clip -> update. The loss is the sum over all
//! targets of the step divided by their number, however the step is cut into micro-batches.

use antlm_nn::optim::{Optimizer, Rule, Update, clip_coefficient, global_norm};
use antlm_nn::rng::Rng;
use antlm_nn::tape::{Dropout, Pool, Tape};
use rayon::prelude::*;

use crate::Result;
use crate::model::Model;
use crate::objective::stream::{Order, Step};
use crate::objective::{Batch, Objective, SegmentTokens, build};
use crate::recipe::{OptimizerKind, Recipe};
use crate::text::dataset::Dataset;

/// The numbers that training changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Parameters, in the model's layout.
    pub params: Vec<f32>,
    /// First moments.
    pub m: Vec<f32>,
    /// Second moments.
    pub v: Vec<f32>,
    /// The moving average of the parameters, in the same layout, of a recipe with `optimizer.ema_decay`.
    pub ema: Option<Vec<f32>>,
    /// Updates done.
    pub t: u64,
}

impl Weights {
    /// These parameters before the first update: moments of 0, and an average that begins with them if it is wanted.
    pub fn new(params: Vec<f32>, ema: bool) -> Weights {
        let zeros = || vec![0.0; params.len()];
        Weights { m: zeros(), v: zeros(), ema: ema.then(|| params.clone()), params, t: 0 }
    }
}

/// One update of the moving average: every value moves (1 - `decay`) of its way to the parameter.
fn average(ema: &mut [f32], params: &[f32], decay: f64) {
    /// Values of a task. Each value stands alone, so the result does not depend on it.
    const PIECE: usize = 65_536;
    let part = (1.0 - decay) as f32;
    ema.par_chunks_mut(PIECE).zip(params.par_chunks(PIECE)).for_each(|(ema, params)| {
        for (e, p) in ema.iter_mut().zip(params) {
            *e += part * (p - *e);
        }
    });
}

/// What training adds to the plain loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regularizers {
    /// Dropout, where the model has it.
    pub dropout: Option<Dropout>,
    /// Coefficient of the z-loss, which is in the gradient and not in the loss that is given back.
    pub z_loss: f32,
}

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Mean -log p over the step's targets, before the update and without z-loss; 0 without targets.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Rows that went through the model.
    pub rows: u64,
    /// Targets.
    pub targets: u64,
    /// Raw words that begin in the step's segments.
    pub words: u64,
}

/// Cuts segments into batches of at most `micro_tokens` rows (a longer segment is a batch of its own).
#[derive(Clone, Copy, Debug)]
pub struct Packing<'a> {
    /// What is asked of the segments, and how they are masked.
    pub recipe: &'a Recipe,
    /// The objective.
    pub objective: Objective,
    /// Source of the masks.
    pub rng: Rng,
    /// Optimiser step that the masks belong to.
    pub step: u32,
}

impl Packing<'_> {
    /// The micro-batches of these segments, in order.
    pub fn batches(&self, data: &Dataset, segments: impl Iterator<Item = u32>) -> Vec<Batch> {
        let limit = self.recipe.micro_rows() as usize;
        let (mut batches, mut pending, mut rows, mut first) = (Vec::new(), Vec::new(), 0, 0u32);
        let mut close = |pending: &mut Vec<SegmentTokens<'_>>, rows: &mut usize| {
            if !pending.is_empty() {
                let (masking, length) = (&self.recipe.masking, self.recipe.seq_len);
                let batch =
                    build(self.objective, pending, masking, length, data.vocab_size(), self.rng, self.step, first);
                first += *rows as u32;
                (*rows, *pending) = (0, Vec::new());
                batches.push(batch);
            }
        };
        for i in segments {
            let tokens = data.tokens(i);
            if rows + tokens.len() + 2 > limit {
                close(&mut pending, &mut rows);
            }
            rows += tokens.len() + 2;
            pending.push(SegmentTokens { tokens, ends_document: data.segment(i).ends_document });
        }
        close(&mut pending, &mut rows);
        batches
    }
}

/// The recipe's optimiser.
pub fn optimizer(recipe: &Recipe) -> Optimizer {
    let o = &recipe.optimizer;
    let rule = match o.kind {
        OptimizerKind::Adamw => Rule::AdamW,
        OptimizerKind::Lamb => Rule::Lamb,
    };
    Optimizer { rule, beta1: o.betas[0], beta2: o.betas[1], eps: o.eps, weight_decay: o.weight_decay }
}

/// As [`gradient`], but asks before every micro-batch whether to stop; then `Err` holds the signal.
///
/// # Errors
/// The engine's.
pub fn gradient_unless(
    cancel: &dyn Fn() -> Option<i32>,
    model: &Model,
    params: &[f32],
    batches: &[Batch],
    regularizers: Regularizers,
    grads: &mut [f32],
    pool: &mut Pool,
) -> Result<std::result::Result<(f64, u64, u64), i32>> {
    antlm_nn::kernels::clear(grads);
    let targets: usize = batches.iter().map(|batch| batch.targets.len()).sum();
    let weight = 1.0 / targets.max(1) as f32;
    let (mut sum, mut rows) = (0.0, 0);
    for batch in batches {
        if let Some(signal) = cancel() {
            return Ok(Err(signal));
        }
        let mut tape = Tape::new(params, Some(grads), regularizers.dropout, pool)?;
        let nll = model.loss_with_z(&mut tape, batch, weight, regularizers.z_loss)?;
        tape.backward();
        sum += nll.iter().map(|&x| f64::from(x)).sum::<f64>();
        rows += batch.ids.len() as u64;
    }
    Ok(Ok((sum / targets.max(1) as f64, rows, targets as u64)))
}

/// Mean loss and gradient of micro-batches; `grads` is overwritten. Returns loss, rows and targets.
///
/// # Errors
/// The engine's.
pub fn gradient(
    model: &Model,
    params: &[f32],
    batches: &[Batch],
    regularizers: Regularizers,
    grads: &mut [f32],
    pool: &mut Pool,
) -> Result<(f64, u64, u64)> {
    // Never asked to stop, so there is always a result.
    Ok(gradient_unless(&|| None, model, params, batches, regularizers, grads, pool)?.unwrap_or_default())
}

/// Everything a step needs besides the weights.
#[derive(Debug)]
pub struct Stepper<'a> {
    /// The run's recipe.
    pub recipe: &'a Recipe,
    /// The model.
    pub model: &'a Model,
    /// The training text.
    pub data: &'a Dataset,
    /// The run's random numbers.
    pub rng: Rng,
    /// The order of segments.
    pub order: Order,
    /// Gradients, kept between steps to save their allocation.
    pub grads: Vec<f32>,
    /// The engine's buffers.
    pub pool: Pool,
}

impl Stepper<'_> {
    /// The segments of a step.
    pub fn segments(&mut self, step: &Step) -> Vec<u32> {
        step.positions.clone().map(|position| self.order.segment(position)).collect()
    }

    /// Loss and gradient of a step; the gradient is left in `grads`, the weights are as they were. Stops before a
    /// micro-batch when `cancel` gives a signal, which is then in `Err`.
    ///
    /// # Errors
    /// The engine's.
    pub fn gradient(
        &mut self,
        step: &Step,
        weights: &Weights,
        cancel: &dyn Fn() -> Option<i32>,
    ) -> Result<std::result::Result<Outcome, i32>> {
        let segments = self.segments(step);
        let (recipe, data) = (self.recipe, self.data);
        let words = segments.iter().map(|&i| u64::from(data.segment(i).words)).sum();
        let packing = Packing { recipe, objective: step.objective, rng: self.rng, step: step.index };
        let batches = packing.batches(data, segments.into_iter());
        let dropout = Some(Dropout { rng: self.rng, step: step.index });
        let regularizers = Regularizers { dropout, z_loss: recipe.optimizer.z_loss as f32 };
        let (grads, pool) = (&mut self.grads, &mut self.pool);
        let found = gradient_unless(cancel, self.model, &weights.params, &batches, regularizers, grads, pool)?;
        let grad_norm = global_norm(&self.grads);
        Ok(found.map(|(loss, rows, targets)| Outcome { loss, grad_norm, rows, targets, words }))
    }

    /// Updates the weights by the gradient of a step. One without any target changes nothing.
    ///
    /// # Errors
    /// The engine's.
    pub fn update(&self, found: &Outcome, lr: f64, weights: &mut Weights) -> Result<()> {
        if found.targets == 0 {
            return Ok(());
        }
        let recipe = self.recipe;
        weights.t += 1;
        let update = Update { t: weights.t, lr, grad_scale: clip_coefficient(found.grad_norm, recipe.optimizer.clip) };
        let Weights { params, m, v, ema, .. } = weights;
        optimizer(recipe).step(self.model.layout(), params, &self.grads, m, v, update)?;
        if let Some(ema) = ema {
            average(ema, params, recipe.optimizer.ema_decay);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_the_sum_of_the_weights_past() {
        // More than one task's values, and updates enough to forget the beginning by 0.9^20.
        let params =
            |t: u32| -> Vec<f32> { (0..70_000).map(|i| (f64::from(i * (t + 3) % 97) / 97.0) as f32).collect() };
        let mut ema = params(0);
        for t in 1..=20 {
            average(&mut ema, &params(t), 0.9);
        }
        let all: Vec<Vec<f32>> = (0..=20).map(params).collect();
        for i in (0..70_000).step_by(997) {
            let past = (1..=20).map(|t| 0.1 * 0.9f64.powi(20 - t) * f64::from(all[t as usize][i])).sum::<f64>();
            let want = 0.9f64.powi(20) * f64::from(all[0][i]) + past;
            assert!((f64::from(ema[i]) - want).abs() < 1e-6, "{i}: {} {want}", ema[i]);
        }
        average(&mut ema, &all[3], 0.0);
        assert!(ema.iter().zip(&all[3]).all(|(e, p)| (e - p).abs() < 1e-7), "a decay of 0 is the weights");
    }
}
