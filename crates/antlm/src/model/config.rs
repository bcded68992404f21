//! The sizes of a model, as they stand in a recipe's `[model]` table.

use serde::{Deserialize, Serialize};

pub use crate::text::special::Family as Kind;

/// Sizes and constants of a model (models.md, sections 1, 2 and 4 of the project's specification).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The architecture: `ltg-bert` or `llama`.
    pub kind: Kind,
    /// Number of layers, L.
    pub layers: usize,
    /// Width of the residual stream, d.
    pub hidden: usize,
    /// Number of attention heads, H; divides `hidden`, and for Llama leaves an even width.
    pub heads: usize,
    /// Width of the feed-forward layer, I.
    pub intermediate: usize,
    /// Number of tokens, V, with the five special ones.
    pub vocab_size: usize,
    /// Added to the variance in norms (LTG-BERT 1e-7, Llama 1e-6).
    pub norm_eps: f64,
    /// Dropout on embeddings, feed-forward outputs and in the head.
    #[serde(default)]
    pub hidden_dropout: f64,
    /// Dropout on attention weights, attention outputs and relative positions.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Input and output embeddings are one matrix (LTG-BERT: always).
    #[serde(default)]
    pub tied: bool,
}
