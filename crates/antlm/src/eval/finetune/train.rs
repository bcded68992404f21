//! The loop of a fine-tuning: epochs of steps, a look at the file that chooses the epoch after each, the best
//! parameters kept. A row is packed, not padded: what it becomes does not depend on its neighbours.

use antlm_nn::device::{Buffer, Slice, Trained};
use antlm_nn::optim::{Optimizer, Rule, Update, clip_coefficient};
use antlm_nn::rng::{Rng, Stream};
use antlm_nn::tape::{Dropout, Pool, Tape};

use super::frame::Example;
use super::head::Classifier;
use super::metrics::Metric;
use super::presets::Settings;
use crate::{Error, Result};

/// Rows of one pass through the model; a longer text is a pass of its own.
const ROWS: usize = 4096;

/// Both official fine-tunings have PyTorch's constants.
const BETAS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;

/// Where a fine-tuning is, for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// So many rows of tokens went through the model, forward and back.
    Trained {
        /// The epoch, from 1 on.
        epoch: u32,
        /// Steps done, of all epochs so far.
        step: u64,
        /// Mean loss of this step.
        loss: f64,
        /// Tokens.
        tokens: u64,
    },
    /// So many tokens went forward only.
    Read {
        /// Tokens.
        tokens: u64,
    },
    /// The end of an epoch, and the number that chooses among epochs.
    Epoch {
        /// The epoch, from 1 on.
        epoch: u32,
        /// The metric, times 100.
        score: f64,
    },
}

/// What a fine-tuning is made of.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The model with its head.
    pub classifier: &'a Classifier,
    /// The trained model's parameters.
    pub trained: &'a [f32],
    /// Learnt from.
    pub train: &'a [Example],
    /// Chooses the epoch.
    pub choose: &'a [Example],
    /// By this.
    pub metric: Metric,
    /// Settings.
    pub settings: &'a Settings,
    /// Seed of the head, the order and dropout.
    pub seed: u64,
}

/// A model that was fine-tuned.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned {
    /// Parameters after the best epoch, in the classifier's layout.
    pub params: Vec<f32>,
    /// What chose the epoch, after each, times 100; the first of the highest is the one that was chosen.
    pub by_epoch: Vec<f64>,
}

/// Asked between passes: an error (a signal came, nobody listens any more) ends the work.
pub type Watch<'a> = &'a mut dyn FnMut(Moment) -> Result<()>;

impl Job<'_> {
    /// Fine-tunes.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is no full batch; [`Error::Diverged`]; what `watch` says.
    pub fn run(&self, pool: &mut Pool, watch: Watch<'_>) -> Result<Tuned> {
        let Job { classifier, settings, train, .. } = *self;
        let per_epoch = steps(settings, train.len())?;
        let (rng, curve, total) = (Rng::new(self.seed), settings.curve(), per_epoch * u64::from(settings.epochs));
        let (beta1, beta2) = BETAS;
        let adamw = Optimizer { rule: Rule::AdamW, beta1, beta2, eps: EPS, weight_decay: settings.weight_decay };
        let device = pool.device().clone();
        let mut best = classifier.init(self.trained, self.seed);
        let mut params = device.buffer(best.clone())?;
        let zeros = || device.buffer(vec![0.0; best.len()]);
        let (mut m, mut v, mut grads) = (zeros()?, zeros()?, zeros()?);
        let (mut step, mut choice) = (0, Choice::default());
        for epoch in 1..=settings.epochs {
            let order = rng.permutation(Stream::ORDER, epoch - 1, train.len() as u32);
            for batch in order.chunks(settings.batch as usize).take(per_epoch as usize) {
                let batch: Vec<&Example> = batch.iter().map(|&row| &train[row as usize]).collect();
                let dropout = Dropout { rng, step: step as u32 };
                let loss = self.gradient(&params, &batch, dropout, &mut grads, pool, &mut |tokens, loss| {
                    watch(Moment::Trained { epoch, step: step + 1, loss, tokens })
                })?;
                let norm = device.norm(grads.slice())?;
                if !(loss.is_finite() && norm.is_finite()) {
                    let advice = "try a lower learning rate: --set lr=1e-5".into();
                    return Err(Error::Diverged { step: step as u32, loss, grad_norm: norm, advice });
                }
                let grad_scale = if settings.clip > 0.0 { clip_coefficient(norm, settings.clip) } else { 1.0 };
                let update = Update { t: step + 1, lr: settings.lr * curve.factor(step, total), grad_scale };
                let (params, m, v) = (params.slice_mut(), m.slice_mut(), v.slice_mut());
                let of = Trained { params, grads: grads.slice(), m, v, average: None };
                device.update(&adamw, classifier.layout(), of, update)?;
                step += 1;
            }
            let predicted = predict(classifier, &params, self.choose, pool, watch)?;
            let score = self.metric.score(&predicted, &labels(self.choose));
            watch(Moment::Epoch { epoch, score: 100.0 * score })?;
            if choice.is_best(score, settings) {
                best.copy_from_slice(&params.read()?);
            }
            if settings.patience > 0 && choice.waited >= settings.patience {
                break;
            }
        }
        Ok(Tuned { params: best, by_epoch: choice.scores.iter().map(|score| 100.0 * score).collect() })
    }

    /// Mean loss of a batch, and its gradient into `grads`. `tell` is called after every pass with its tokens and loss.
    fn gradient(
        &self,
        params: &Buffer,
        batch: &[&Example],
        dropout: Dropout,
        grads: &mut Buffer,
        pool: &mut Pool,
        tell: &mut dyn FnMut(u64, f64) -> Result<()>,
    ) -> Result<f64> {
        let weight = 1.0 / batch.len() as f32;
        let (mut sum, mut first) = (0.0, 0);
        for (i, part) in passes(batch).enumerate() {
            let rows = self.classifier.rows(part.iter().map(|example| &example.ids[..]), first);
            let tokens = rows.ids.len() as u32;
            let labels: Vec<u32> = part.iter().map(|example| example.label).collect();
            let tape = Tape::new(params, Some(grads.slice_mut()), Some(dropout), pool)?;
            let mut tape = if i == 0 { tape.with_fresh_gradients() } else { tape };
            let nll = self.classifier.loss(&mut tape, &rows, &labels, weight)?;
            tape.backward()?;
            first += tokens;
            let of_part: f64 = nll.iter().map(|&x| f64::from(x)).sum();
            sum += of_part;
            tell(u64::from(tokens), of_part / part.len() as f64)?;
        }
        Ok(sum / batch.len() as f64)
    }
}

/// Steps of one epoch over so many rows.
///
/// # Errors
/// [`Error::Usage`] when there is no full batch, and a part of one is left out.
pub fn steps(settings: &Settings, rows: usize) -> Result<u64> {
    match settings.steps(rows) {
        0 => {
            let (batch, less) = (settings.batch, rows.max(1));
            let what = format!("{rows} rows to learn from, but a batch has {batch} and a part of one is left out");
            Err(Error::Usage(format!("{what}; say --set batch={less}")))
        }
        steps => Ok(steps),
    }
}

/// What the epochs so far say.
#[derive(Debug, Default)]
struct Choice {
    scores: Vec<f64>,
    /// Epochs since the last improvement that counts.
    waited: u32,
}

impl Choice {
    /// Takes the next epoch's score: whether it is the best one. As the Trainer's early stopping has it, an improvement
    /// by no more than the threshold is still the best, but the patience runs on.
    fn is_best(&mut self, score: f64, settings: &Settings) -> bool {
        let best = self.scores.iter().copied().reduce(f64::max);
        self.scores.push(score);
        let counts = best.is_none_or(|best| score > best && score - best > settings.threshold);
        self.waited = if counts { 0 } else { self.waited + 1 };
        best.is_none_or(|best| score > best)
    }
}

/// Their classes.
pub fn labels(examples: &[Example]) -> Vec<u32> {
    examples.iter().map(|example| example.label).collect()
}

/// The likeliest class of every text, the first of equally likely ones: `[n]`.
///
/// # Errors
/// [`Error::Usage`] for a logit that is no number; what `watch` says.
pub fn predict<'a>(
    classifier: &Classifier,
    params: impl Into<Slice<'a>>,
    examples: &[Example],
    pool: &mut Pool,
    watch: Watch<'_>,
) -> Result<Vec<u32>> {
    let (params, all): (Slice<'_>, Vec<&Example>) = (params.into(), examples.iter().collect());
    let mut predicted = Vec::with_capacity(all.len());
    for part in passes(&all) {
        let rows = classifier.rows(part.iter().map(|example| &example.ids[..]), 0);
        let mut tape = Tape::new(params, None, None, pool)?;
        let logits = classifier.logits(&mut tape, &rows)?;
        for row in tape.read(logits)?.chunks_exact(logits.cols) {
            if row.iter().any(|x| x.is_nan()) {
                return Err(Error::Usage("the model gives NaN for a text; its weights are broken".into()));
            }
            let best = (0..row.len()).rev().max_by(|&i, &j| row[i].total_cmp(&row[j])).unwrap_or(0);
            predicted.push(best as u32);
        }
        drop(tape);
        watch(Moment::Read { tokens: rows.ids.len() as u64 })?;
    }
    Ok(predicted)
}

/// Cuts a list of texts into parts of at most [`ROWS`] tokens.
fn passes<'a, 'e>(mut examples: &'a [&'e Example]) -> impl Iterator<Item = &'a [&'e Example]> {
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let n = examples.iter().take_while(|example| {
            tokens += example.ids.len();
            tokens <= ROWS
        });
        let n = n.count().max(1);
        let part = examples.split_off(..n.min(examples.len()))?;
        (!part.is_empty()).then_some(part)
    })
}
