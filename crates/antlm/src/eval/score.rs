//! Log-probabilities of sentences, token by token: from the left (`causal`), or with one token masked at a time and
//! read at the mask (`mlm`) or one row to its left (`mntp`). Only the opening mark frames a sentence.

use std::path::Path;

use antlm_nn::tape::{Pool, Tape};
use serde::Serialize;

use crate::model::Model;
use crate::objective::{Backend, Batch};
use crate::recipe::Recipe;
use crate::text::special::{CLS, MASK};
use crate::text::tokenizer::Tokenizer;
use crate::train::trained::{self, Trained, Weights};
use crate::{Error, Result};

/// Rows of one forward pass: many masked copies of a sentence at once.
const ROWS: usize = 4096;
/// Tokens that a sentence may have. Masked scoring takes a copy a token, so its work grows with the square.
pub const MOST_TOKENS: usize = 4096;

/// A trained model, ready to be read.
pub struct Scorer {
    recipe: Recipe,
    model: Model,
    tokenizer: Tokenizer,
    params: Vec<f32>,
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
    /// A folder that is neither, a run without a checkpoint, damaged files.
    pub fn open(path: &Path) -> Result<Scorer> {
        Scorer::open_with(path, Weights::Last)
    }

    /// As [`Scorer::open`], but with the moving average of the weights (`optimizer.ema_decay`) in place of the weights.
    ///
    /// # Errors
    /// As [`Scorer::open`], and [`Error::Usage`] for a checkpoint without an average.
    pub fn open_ema(path: &Path) -> Result<Scorer> {
        Scorer::open_with(path, Weights::Average)
    }

    fn open_with(path: &Path, weights: Weights) -> Result<Scorer> {
        let Trained { recipe, model, tokenizer, params, .. } = trained::open(path, weights)?;
        Ok(Scorer { recipe, model, tokenizer, params, pool: Pool::default() })
    }

    /// The backends that read what this model was trained for.
    pub fn trained(&self) -> Vec<Backend> {
        self.recipe.schedule.objectives().into_iter().map(|objective| objective.backend()).collect()
    }

    /// The backend of what was trained last.
    pub fn last(&self) -> Backend {
        let last = self.recipe.schedule.blocks().last().and_then(|block| block.what.pattern().last().copied());
        last.map_or(Backend::Causal, |objective| objective.backend())
    }

    /// Scores one sentence.
    ///
    /// # Errors
    /// [`Error::Usage`] for more than [`MOST_TOKENS`] tokens, or when the model gives no number (its weights are broken).
    pub fn score(&mut self, text: &str, backend: Backend) -> Result<Score> {
        let mut ids = vec![CLS];
        ids.extend(self.tokenizer.encode(text)?);
        if ids.len() > MOST_TOKENS {
            return Err(Error::Usage(format!("a sentence of {} tokens; at most {MOST_TOKENS} are scored", ids.len())));
        }
        let nll = match backend {
            Backend::Causal => self.run(&causal(&ids))?,
            Backend::Mlm | Backend::Mntp => {
                let copies = (ROWS / ids.len()).max(1);
                let mut nll = Vec::with_capacity(ids.len());
                for start in (1..ids.len()).step_by(copies) {
                    nll.extend(self.run(&masked(&ids, start..(start + copies).min(ids.len()), backend))?);
                }
                nll
            }
        };
        if let Some(bad) = nll.iter().position(|x| !x.is_finite()) {
            return Err(Error::Usage(format!("the model gives {} for token {} of {text:?}", nll[bad], bad + 1)));
        }
        let logprobs: Vec<Option<f64>> =
            std::iter::once(None).chain(nll.iter().map(|&x| Some(-f64::from(x)))).collect();
        Ok(Score { text: text.to_owned(), total: logprobs.iter().flatten().sum(), ids, logprobs })
    }

    fn run(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let mut tape = Tape::new(&self.params, None, None, &mut self.pool)?;
        self.model.loss(&mut tape, batch, 0.0)
    }
}

/// Every token after the first, from what is left of it.
fn causal(ids: &[u32]) -> Batch {
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
