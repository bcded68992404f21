//! Reading from left to right a few rows at a time: what is kept of the rows before, and the pass over the next ones.
//! Every architecture has this pass a second time, plain and without dropout, beside the one that is trained.

use std::sync::Arc;

use antlm_nn::device::Slice;
use antlm_nn::kernels::past::Past;
use antlm_nn::kernels::rope::Table;
use antlm_nn::tape::{Act, Pool, Tape};

use super::Model;
use crate::{Error, Result};

/// Keys and values of the tokens of one text so far, for every layer.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(super) layers: Vec<Past>,
    /// Rotary positions, made anew when a text outgrows them.
    pub(super) turns: Arc<Table>,
}

impl Cache {
    /// How many tokens it holds.
    pub fn rows(&self) -> usize {
        self.layers.first().map_or(0, Past::rows)
    }
}

impl Model {
    /// A cache that holds no tokens yet. It belongs to these parameters.
    ///
    /// # Errors
    /// The engine's, for parameters that are not this model's.
    pub fn cache<'a>(&self, params: impl Into<Slice<'a>>, pool: &'a mut Pool) -> Result<Cache> {
        Ok(match self {
            Model::LtgBert(m) => m.cache(&mut Tape::new(params, None, None, pool)?)?,
            Model::Llama(m) => m.cache()?,
        })
    }

    /// Logits at rows `picked` of the new tokens `ids`, which follow those in the cache and are added to it: `[m, V]`.
    /// The same as [`logits`](Model::logits) of a causal pass over all of them, up to rounding.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use antlm::model::{Config, Kind, Model};
    /// use antlm_nn::tape::{Pool, Tape};
    /// let config = Config {
    ///     kind: Kind::LtgBert, layers: 2, hidden: 32, heads: 2, intermediate: 48, vocab_size: 100,
    ///     norm_eps: 1e-7, hidden_dropout: 0.1, attention_dropout: 0.1, tied: true,
    /// };
    /// let (model, mut pool) = (Model::new(&config)?, Pool::default());
    /// let params = model.init(1);
    /// let mut cache = model.cache(&params, &mut pool)?;
    /// for ids in [&[1, 40, 41][..], &[42]] {
    ///     let mut tape = Tape::new(&params, None, None, &mut pool)?;
    ///     let last = Arc::from([ids.len() as u32 - 1]);
    ///     let logits = model.logits_next(&mut tape, &Arc::from(ids), &last, &mut cache)?;
    ///     assert_eq!((logits.rows, logits.cols), (1, 100));
    /// }
    /// assert_eq!(cache.rows(), 4);
    /// # Ok::<(), antlm::Error>(())
    /// ```
    ///
    /// # Errors
    /// The engine's, for ids or rows outside their range, and [`Error::Usage`] for another model's cache. After an error
    /// the cache is of no use.
    pub fn logits_next(
        &self,
        tape: &mut Tape<'_>,
        ids: &Arc<[u32]>,
        picked: &Arc<[u32]>,
        cache: &mut Cache,
    ) -> Result<Act> {
        if cache.layers.len() != self.config().layers {
            let (has, needs) = (cache.layers.len(), self.config().layers);
            return Err(Error::Usage(format!("a cache of {has} layers for a model of {needs}")));
        }
        let hidden = match self {
            Model::LtgBert(m) => m.hidden_next(tape, ids, picked, cache)?,
            Model::Llama(m) => m.hidden_next(tape, ids, picked, cache)?,
        };
        let (table, bias) = self.output();
        Ok(tape.linear(hidden, table, bias, None)?)
    }
}
