//! One file an architecture: configuration and forward pass. Tensor names are the Hub's names; no files here.

pub mod cache;
pub mod config;
pub mod llama;
pub mod ltg_bert;

use std::sync::Arc;

use antlm_nn::params::{Layout, View};
use antlm_nn::tape::{Act, Attention, Tape};

use crate::objective::Batch;
use crate::{Error, Result};
pub use cache::Cache;
pub use config::{Config, Kind};
use llama::Llama;
use ltg_bert::LtgBert;

/// A model's tensors and forward pass. The numbers live outside, in one flat buffer with the model's [`Layout`].
///
/// ```
/// use antlm::model::{Config, Kind, Model};
/// let config = Config {
///     kind: Kind::Llama, layers: 2, hidden: 32, heads: 2, intermediate: 48, vocab_size: 100,
///     norm_eps: 1e-6, hidden_dropout: 0.0, attention_dropout: 0.0, tied: true,
/// };
/// let model = Model::new(&config)?;
/// assert_eq!(model.init(1).len(), model.layout().len());
/// # Ok::<(), antlm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum Model {
    /// See [`ltg_bert`].
    LtgBert(LtgBert),
    /// See [`llama`].
    Llama(Llama),
}

/// The rows of a batch in the form that operations share.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Token ids, `[n]`.
    pub ids: Arc<[u32]>,
    /// Segment starts and `n`; with `shared`, those of the spread rows and their number.
    pub bounds: Arc<[u32]>,
    /// Rows with a target, `[m]`.
    pub picked: Arc<[u32]>,
    /// Nothing to the right is seen.
    pub causal: bool,
    /// Rows of the step before this batch.
    pub first: u32,
    /// Rows that belong to several segments.
    pub shared: Option<Shared>,
}

/// Causal segments that begin alike have the same rows there, which are computed once; only attention sees each segment
/// whole.
#[derive(Clone, Debug)]
pub struct Shared {
    /// All segments, one behind the other: the row of each of their places, `[s]`.
    pub spread: Arc<[u32]>,
    /// One place of each row among these, `[n]`.
    pub kept: Arc<[u32]>,
}

impl From<&Batch> for Rows {
    fn from(batch: &Batch) -> Rows {
        Rows {
            ids: Arc::from(&batch.ids[..]),
            bounds: Arc::from(&batch.bounds[..]),
            picked: Arc::from(&batch.rows[..]),
            causal: batch.causal,
            first: batch.first_row,
            shared: None,
        }
    }
}

impl Rows {
    /// The place of every row within its segment, `[n]`.
    pub fn positions(&self) -> Arc<[u32]> {
        let places: Arc<[u32]> = self.bounds.windows(2).flat_map(|w| 0..w[1].saturating_sub(w[0])).collect();
        match &self.shared {
            Some(shared) => shared.kept.iter().filter_map(|&at| places.get(at as usize).copied()).collect(),
            None => places,
        }
    }

    /// Attention over these rows: `qkv: [n, 3 d]` -> `[n, d]`.
    fn attend(&self, tape: &mut Tape<'_>, qkv: Act, positions: Option<Act>, spec: &Attention) -> antlm_nn::Result<Act> {
        let Some(shared) = &self.shared else { return tape.attention(qkv, positions, spec, &self.bounds) };
        let qkv = tape.gather(qkv, &shared.spread)?; // [s, 3 d]
        let o = tape.attention(qkv, positions, spec, &self.bounds)?;
        tape.gather(o, &shared.kept)
    }
}

impl Model {
    /// The model of these sizes.
    ///
    /// # Errors
    /// [`Error::Usage`] when heads do not divide the width or a size is 0.
    pub fn new(config: &Config) -> Result<Model> {
        let c = config;
        let sizes = [c.layers, c.hidden, c.heads, c.intermediate, c.vocab_size];
        if sizes.contains(&0) || !c.hidden.is_multiple_of(c.heads.max(1)) {
            return Err(Error::Usage(format!("a model needs sizes above 0 and heads that divide the width: {c:?}")));
        }
        Ok(match c.kind {
            Kind::LtgBert => Model::LtgBert(LtgBert::new(c)?),
            Kind::Llama if (c.hidden / c.heads).is_multiple_of(2) => Model::Llama(Llama::new(c)?),
            Kind::Llama => return Err(Error::Usage(format!("rotary positions need heads of even width: {c:?}"))),
        })
    }

    /// Its sizes.
    pub fn config(&self) -> &Config {
        match self {
            Model::LtgBert(m) => &m.config,
            Model::Llama(m) => &m.config,
        }
    }

    /// The names, shapes and places of its tensors.
    pub fn layout(&self) -> &Layout {
        match self {
            Model::LtgBert(m) => &m.layout,
            Model::Llama(m) => &m.layout,
        }
    }

    /// Its first parameters, the same for the same seed.
    pub fn init(&self, seed: u64) -> Vec<f32> {
        let mut params = self.layout().init(seed);
        if let Model::Llama(m) = self {
            m.clear_padding(&mut params);
        }
        params
    }

    /// The output layer: the vocabulary matrix `[V, d]` and its bias `[V]`.
    pub fn output(&self) -> (View, Option<View>) {
        match self {
            Model::LtgBert(m) => m.output(),
            Model::Llama(m) => (m.output(), None),
        }
    }

    /// Everything below the output layer, at the picked rows only: `[m, d]`.
    ///
    /// # Errors
    /// The engine's, for ids or rows outside their range.
    pub fn hidden(&self, tape: &mut Tape<'_>, rows: &Rows) -> Result<Act> {
        Ok(match self {
            Model::LtgBert(m) => m.hidden(tape, rows)?,
            Model::Llama(m) => m.hidden(tape, rows)?,
        })
    }

    /// What stands below the head of language modelling, at the picked rows only: `[m, d]`. Of an LTG-BERT the last
    /// layer's output, of a Llama the final norm's. Another head can be put on it; `tape` may run over a longer buffer
    /// than the model's, if it begins with the model's.
    ///
    /// # Errors
    /// The engine's, for ids or rows outside their range.
    pub fn features(&self, tape: &mut Tape<'_>, rows: &Rows) -> Result<Act> {
        Ok(match self {
            Model::LtgBert(m) => m.features(tape, rows)?,
            Model::Llama(m) => m.hidden(tape, rows)?,
        })
    }

    /// Logits at the picked rows: `[m, V]`.
    ///
    /// # Errors
    /// The engine's, for ids or rows outside their range.
    pub fn logits(&self, tape: &mut Tape<'_>, rows: &Rows) -> Result<Act> {
        let hidden = self.hidden(tape, rows)?;
        let (table, bias) = self.output();
        Ok(tape.linear(hidden, table, bias, None)?)
    }

    /// -log p of every target of the batch in nats, `[m]`. Each counts `weight` times in the gradient.
    ///
    /// # Errors
    /// The engine's, for ids or rows outside their range.
    pub fn loss(&self, tape: &mut Tape<'_>, batch: &Batch, weight: f32) -> Result<Vec<f32>> {
        self.loss_with_z(tape, batch, weight, 0.0)
    }

    /// As [`Model::loss`], but with `z` · lse² added to every target's loss in the gradient (not in the result); see
    /// [`Tape::classifier_loss`].
    ///
    /// # Errors
    /// The engine's, for ids or rows outside their range.
    pub fn loss_with_z(&self, tape: &mut Tape<'_>, batch: &Batch, weight: f32, z: f32) -> Result<Vec<f32>> {
        let hidden = self.hidden(tape, &Rows::from(batch))?;
        let (table, bias) = self.output();
        Ok(tape.classifier_loss(hidden, table, bias, &batch.targets, weight, z)?)
    }
}
