//! One optimiser step: segments -> micro-batches -> loss and gradient -> clip -> update. The loss is the sum over all
//! targets of the step divided by their number, however the step is cut into micro-batches.

use std::borrow::Cow;

use antlm_nn::device::Precision;
use antlm_nn::device::{Buffer, Device, Slice, SliceMut, Trained};
use antlm_nn::optim::{Optimizer, Rule, Update, clip_coefficient};
use antlm_nn::rng::Rng;
use antlm_nn::tape::{Dropout, Pool, Tape};

use crate::Result;
use crate::model::Model;
use crate::objective::stream::{Order, Step};
use crate::objective::{Batch, Objective, SegmentTokens, build};
use crate::recipe::{OptimizerKind, Recipe};
use crate::text::dataset::Dataset;

/// The numbers that training changes: as a checkpoint holds them, or as [`Buffer`]s of the device that trains them.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights<B = Vec<f32>> {
    /// Parameters, in the model's layout.
    pub params: B,
    /// First moments.
    pub m: B,
    /// Second moments.
    pub v: B,
    /// The moving average of the parameters, in the same layout, of a recipe with `optimizer.ema_decay`.
    pub ema: Option<B>,
    /// Updates done.
    pub t: u64,
}

impl Weights {
    /// These parameters before the first update: moments of 0, and an average that begins with them if it is wanted.
    pub fn new(params: Vec<f32>, ema: bool) -> Weights {
        let zeros = || vec![0.0; params.len()];
        Weights { m: zeros(), v: zeros(), ema: ema.then(|| params.clone()), params, t: 0 }
    }

    /// In the memory of a device.
    ///
    /// # Errors
    /// The device's.
    pub fn on(self, device: &Device) -> Result<Weights<Buffer>> {
        let Weights { params, m, v, ema, t } = self;
        let put = |values| Ok::<_, crate::Error>(device.buffer(values)?);
        Ok(Weights { params: put(params)?, m: put(m)?, v: put(v)?, ema: ema.map(put).transpose()?, t })
    }
}

impl Weights<Buffer> {
    /// As a checkpoint holds them; a copy where they are on a card.
    ///
    /// # Errors
    /// The device's.
    pub fn read(&self) -> Result<Weights<Cow<'_, [f32]>>> {
        let Weights { params, m, v, ema, t } = self;
        let ema = ema.as_ref().map(Buffer::read).transpose()?;
        Ok(Weights { params: params.read()?, m: m.read()?, v: v.read()?, ema, t: *t })
    }
}

/// What training has besides the plain loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Training {
    /// Dropout, where the model has it.
    pub dropout: Option<Dropout>,
    /// Coefficient of the z-loss, which is in the gradient and not in the loss that is given back.
    pub z_loss: f32,
    /// The operands of its products.
    pub precision: Precision,
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
    params: Slice<'_>,
    batches: &[Batch],
    training: Training,
    mut grads: SliceMut<'_>,
    pool: &mut Pool,
) -> Result<std::result::Result<(f64, u64, u64), i32>> {
    if batches.is_empty() {
        pool.device().clear(grads.all())?;
    }
    let targets: usize = batches.iter().map(|batch| batch.targets.len()).sum();
    let weight = 1.0 / targets.max(1) as f32;
    let (mut sum, mut rows) = (0.0, 0);
    for (i, batch) in batches.iter().enumerate() {
        if let Some(signal) = cancel() {
            return Ok(Err(signal));
        }
        let tape = Tape::new(params, Some(grads.all()), training.dropout, pool)?;
        let tape = if i == 0 { tape.with_fresh_gradients() } else { tape };
        let mut tape = tape.with_precision(training.precision);
        let nll = model.loss_with_z(&mut tape, batch, weight, training.z_loss)?;
        tape.backward()?;
        sum += nll.iter().map(|&x| f64::from(x)).sum::<f64>();
        rows += batch.ids.len() as u64;
    }
    Ok(Ok((sum / targets.max(1) as f64, rows, targets as u64)))
}

/// Mean loss and gradient of micro-batches; `grads` is overwritten. Returns loss, rows and targets.
///
/// # Errors
/// The engine's.
pub fn gradient<'a>(
    model: &Model,
    params: impl Into<Slice<'a>>,
    batches: &[Batch],
    training: Training,
    grads: impl Into<SliceMut<'a>>,
    pool: &mut Pool,
) -> Result<(f64, u64, u64)> {
    // Never asked to stop, so there is always a result.
    let (params, grads) = (params.into(), grads.into());
    Ok(gradient_unless(&|| None, model, params, batches, training, grads, pool)?.unwrap_or_default())
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
    pub grads: Buffer,
    /// The buffers of the device that computes.
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
        weights: &Weights<Buffer>,
        cancel: &dyn Fn() -> Option<i32>,
    ) -> Result<std::result::Result<Outcome, i32>> {
        let segments = self.segments(step);
        let (recipe, data) = (self.recipe, self.data);
        let words = segments.iter().map(|&i| u64::from(data.segment(i).words)).sum();
        let packing = Packing { recipe, objective: step.objective, rng: self.rng, step: step.index };
        let batches = packing.batches(data, segments.into_iter());
        let dropout = Some(Dropout { rng: self.rng, step: step.index });
        let precision = recipe.precision.on(self.pool.device());
        let training = Training { dropout, z_loss: recipe.optimizer.z_loss as f32, precision };
        let (params, grads, pool) = (weights.params.slice(), self.grads.slice_mut(), &mut self.pool);
        let found = gradient_unless(cancel, self.model, params, &batches, training, grads, pool)?;
        let grad_norm = self.pool.device().norm(self.grads.slice())?;
        Ok(found.map(|(loss, rows, targets)| Outcome { loss, grad_norm, rows, targets, words }))
    }

    /// Updates the weights by the gradient of a step. One without any target changes nothing.
    ///
    /// # Errors
    /// The engine's.
    pub fn update(&self, found: &Outcome, lr: f64, weights: &mut Weights<Buffer>) -> Result<()> {
        if found.targets == 0 {
            return Ok(());
        }
        let recipe = self.recipe;
        weights.t += 1;
        let update = Update { t: weights.t, lr, grad_scale: clip_coefficient(found.grad_norm, recipe.optimizer.clip) };
        let Weights { params, m, v, ema, .. } = weights;
        let average = ema.as_mut().map(|ema| (ema.slice_mut(), recipe.optimizer.ema_decay));
        let (params, grads, m, v) = (params.slice_mut(), self.grads.slice(), m.slice_mut(), v.slice_mut());
        let of = Trained { params, grads, m, v, average };
        Ok(self.pool.device().update(&optimizer(recipe), self.model.layout(), of, update)?)
    }
}
