//! Log-probabilities of sentences, token by token: from the left (`causal`), or with one token masked at a time and
//! read at the mask (`mlm`) or one row to its left (`mntp`). Only the opening mark frames a sentence.
//!
//! Many sentences are scored together: what [`pack`](super::pack) makes of them has no padding, computes what sentences
//! share once, and gives each of them the numbers that it would have alone.

use std::path::Path;

use antlm_nn::device::{Buffer, Device};
use antlm_nn::tape::{Pool, Tape};
use serde::Serialize;

use super::pack::{self, Packed, Request};
use crate::objective::Backend;
use crate::text::special::CLS;
use crate::text::tokenizer::Tokenizer;
use crate::train::trained::Trained;
use crate::{Error, Result};

/// Rows of one forward pass, about: enough for the products to be fast, few enough for the caches.
pub(super) const ROWS: usize = 1024;
/// Tokens that a sentence may have. Masked scoring takes a copy a token, so its work grows with the square.
pub const MOST_TOKENS: usize = 4096;

/// Reads a trained model.
pub struct Scorer {
    trained: Trained,
    /// The parameters on a card.
    placed: Option<Buffer>,
    pool: Pool,
    rows: usize,
}

/// A sentence's tokens behind the opening mark: `[n]`.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn framed(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let mut ids = vec![CLS];
    ids.extend(tokenizer.encode(text)?);
    Ok(ids)
}

/// What a model says of a sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The sentence.
    pub text: String,
    /// Its tokens, the opening mark included: `[n]`.
    pub ids: Vec<u32>,
    /// Natural logarithm of each token's probability; `None` where a token is not scored: `[n]`.
    pub logprobs: Vec<Option<f64>>,
    /// Their sum.
    pub total: f64,
}

impl Scorer {
    /// Opens the newest checkpoint of a run, or the very checkpoint that is named.
    ///
    /// # Errors
    /// As [`Trained::open`].
    pub fn open(path: &Path) -> Result<Scorer> {
        Ok(Scorer::new(Trained::open(path)?))
    }

    /// As [`Scorer::open`], but with the moving average of the weights (`optimizer.ema_decay`) in place of the weights.
    ///
    /// # Errors
    /// As [`Trained::open_ema`].
    pub fn open_ema(path: &Path) -> Result<Scorer> {
        Ok(Scorer::new(Trained::open_ema(path)?))
    }

    /// Of a model that is open.
    pub fn new(trained: Trained) -> Scorer {
        Scorer { trained, placed: None, pool: Pool::default(), rows: ROWS }
    }

    /// The same on a device.
    ///
    /// # Errors
    /// The device's.
    pub fn on(self, device: &Device) -> Result<Scorer> {
        Ok(Scorer { placed: self.trained.placed(device)?, pool: Pool::of(device.clone()), ..self })
    }

    /// With about so many rows in a forward pass. This changes the speed, and results by rounding only.
    pub fn with_rows(self, rows: usize) -> Scorer {
        Scorer { rows: rows.max(1), ..self }
    }

    /// The model.
    pub fn model(&self) -> &Trained {
        &self.trained
    }

    /// The backends that read what this model has been trained for so far.
    pub fn trained(&self) -> Vec<Backend> {
        self.trained.trained()
    }

    /// The backend of what was taught last; before the first step `causal`.
    pub fn last(&self) -> Backend {
        self.trained.last()
    }

    /// Scores one sentence.
    ///
    /// # Errors
    /// [`Error::Usage`] for more than [`MOST_TOKENS`] tokens, or when the model gives no number (its weights are broken).
    pub fn score(&mut self, text: &str, backend: Backend) -> Result<Score> {
        let request = Request::all(framed(&self.trained.tokenizer, text)?);
        let logprobs = self.log_probabilities(std::slice::from_ref(&request), backend, &mut |_, _| Ok(()))?;
        let logprobs: Vec<Option<f64>> =
            std::iter::once(None).chain(logprobs.into_iter().flatten().map(Some)).collect();
        Ok(Score { text: text.to_owned(), total: logprobs.iter().flatten().sum(), ids: request.ids, logprobs })
    }

    /// The natural logarithms of the probabilities of each request's scored tokens, in their order: `[requests][scored]`.
    /// `progress` is told the rows done and to do; an error from it ends the work.
    ///
    /// # Errors
    /// [`Error::Usage`] for more than [`MOST_TOKENS`] tokens, or when the model gives no number (its weights are broken);
    /// whatever `progress` returns.
    pub fn log_probabilities(
        &mut self,
        requests: &[Request],
        backend: Backend,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Vec<Vec<f64>>> {
        if let Some(long) = requests.iter().find(|request| request.ids.len() > MOST_TOKENS) {
            let n = long.ids.len();
            return Err(Error::Usage(format!("a sentence of {n} tokens; at most {MOST_TOKENS} are scored")));
        }
        let mut all: Vec<Vec<f64>> = requests.iter().map(|request| vec![0.0; request.scored.len()]).collect();
        let total = pack::rows(requests, backend);
        let mut done = 0;
        for packed in pack::batches(requests, backend, self.rows) {
            let nll = self.run(&packed)?;
            for &(request, slot, pick) in &packed.answers {
                let nll = nll[pick as usize];
                if !nll.is_finite() {
                    let Request { ids, scored } = &requests[request as usize];
                    let (place, text) = (scored[slot as usize], self.trained.tokenizer.decode(&ids[1..]));
                    return Err(Error::Usage(format!("the model gives {nll} for token {place} of {text:?}")));
                }
                all[request as usize][slot as usize] = -f64::from(nll);
            }
            done += packed.worth;
            progress(done, total)?;
        }
        Ok(all)
    }

    /// -log p of every target: `[m]`.
    fn run(&mut self, packed: &Packed) -> Result<Vec<f32>> {
        let (model, params) = (&self.trained.model, self.trained.read_from(&self.placed));
        let mut tape = Tape::new(params, None, None, &mut self.pool)?;
        let hidden = model.hidden(&mut tape, &packed.rows)?;
        let (table, bias) = model.output();
        Ok(tape.classifier_loss(hidden, table, bias, &packed.targets, 0.0, 0.0)?)
    }
}
