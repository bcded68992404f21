//! Log-probabilities of sentences, token by token: from the left (`causal`), or with one token masked at a time and
//! read at the mask (`mlm`) or one row to its left (`mntp`). Only the opening mark frames a sentence.

use std::path::Path;

use antlm_nn::tape::{Pool, Tape};
use serde::Serialize;

use crate::objective::{Backend, Batch};
use crate::text::special::{CLS, MASK};
use crate::train::trained::Trained;
use crate::{Error, Result};

/// Rows of one forward pass: many masked copies of a sentence at once.
pub(super) const ROWS: usize = 4096;
/// Tokens that a sentence may have. Masked scoring takes a copy a token, so its work grows with the square.
pub const MOST_TOKENS: usize = 4096;

/// Reads a trained model sentence by sentence.
pub struct Scorer {
    trained: Trained,
    pool: Pool,
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
        Scorer { trained, pool: Pool::default() }
    }

    /// The backends that read what this model has been trained for so far.
    pub fn trained(&self) -> Vec<Backend> {
        self.trained.trained()
    }

    /// The backend of what the run's last block teaches.
    pub fn last(&self) -> Backend {
        self.trained.last()
    }

    /// Scores one sentence.
    ///
    /// # Errors
    /// [`Error::Usage`] for more than [`MOST_TOKENS`] tokens, or when the model gives no number (its weights are broken).
    pub fn score(&mut self, text: &str, backend: Backend) -> Result<Score> {
        let mut ids = vec![CLS];
        ids.extend(self.trained.tokenizer.encode(text)?);
        let nll = self.nll(&ids, backend)?;
        if let Some(bad) = nll.iter().position(|x| !x.is_finite()) {
            return Err(Error::Usage(format!("the model gives {} for token {} of {text:?}", nll[bad], bad + 1)));
        }
        let logprobs: Vec<Option<f64>> =
            std::iter::once(None).chain(nll.iter().map(|&x| Some(-f64::from(x)))).collect();
        Ok(Score { text: text.to_owned(), total: logprobs.iter().flatten().sum(), ids, logprobs })
    }

    /// -log p of every token of `ids: [n]` after the first, which is the opening mark: `[n - 1]`.
    pub(super) fn nll(&mut self, ids: &[u32], backend: Backend) -> Result<Vec<f32>> {
        if ids.len() > MOST_TOKENS {
            return Err(Error::Usage(format!("a sentence of {} tokens; at most {MOST_TOKENS} are scored", ids.len())));
        }
        match backend {
            Backend::Causal => self.run(&causal(ids)),
            Backend::Mlm | Backend::Mntp => {
                let copies = (ROWS / ids.len()).max(1);
                let mut nll = Vec::with_capacity(ids.len());
                for start in (1..ids.len()).step_by(copies) {
                    nll.extend(self.run(&masked(ids, start..(start + copies).min(ids.len()), backend))?);
                }
                Ok(nll)
            }
        }
    }

    fn run(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let Trained { model, params, .. } = &self.trained;
        let mut tape = Tape::new(params, None, None, &mut self.pool)?;
        model.loss(&mut tape, batch, 0.0)
    }
}

/// Every token after the first, from what is left of it.
pub(crate) fn causal(ids: &[u32]) -> Batch {
    let n = ids.len() as u32;
    Batch {
        ids: ids.to_vec(),
        bounds: vec![0, n],
        rows: (0..n - 1).collect(),
        targets: ids[1..].to_vec(),
        causal: true,
        first_row: 0,
    }
}

/// One copy of the sentence for each of `positions`, masked there.
fn masked(ids: &[u32], positions: std::ops::Range<usize>, backend: Backend) -> Batch {
    let (n, shift) = (ids.len(), usize::from(backend == Backend::Mntp));
    let mut batch = Batch { bounds: vec![0], ..Batch::default() };
    for position in positions {
        let start = batch.ids.len();
        batch.ids.extend(ids);
        batch.ids[start + position] = MASK;
        batch.rows.push((start + position - shift) as u32);
        batch.targets.push(ids[position]);
        batch.bounds.push((start + n) as u32);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_masked_once_and_read_where_its_backend_reads() {
        let ids = [1, 7, 8, 9];
        for (backend, rows) in [(Backend::Mlm, [1, 6, 11]), (Backend::Mntp, [0, 5, 10])] {
            let batch = masked(&ids, 1..4, backend);
            assert_eq!(batch.ids, [1, MASK, 8, 9, 1, 7, MASK, 9, 1, 7, 8, MASK]);
            assert_eq!((batch.rows, batch.targets, batch.bounds), (rows.to_vec(), vec![7, 8, 9], vec![0, 4, 8, 12]));
            assert!(!batch.causal);
        }
        let batch = causal(&ids);
        assert_eq!((batch.rows, batch.targets), (vec![0, 1, 2], vec![7, 8, 9]));
        assert!(causal(&[1]).rows.is_empty());
    }
}
