//! What is asked of the model: tokens in -> inputs, targets, mask out. No tensors and no files here.

use serde::{Deserialize, Serialize};
use std::fmt;

pub mod batch;
pub mod masked;
pub mod schedule;
pub mod stream;

pub use batch::{SegmentTokens, build};
pub use masked::Masking;

/// What a training step teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Causal language modelling: left context, output k predicts token k + 1.
    Clm,
    /// Masked language modelling: both sides, output k predicts the masked token k.
    Mlm,
    /// Masked next-token prediction: both sides, output k predicts the masked token k + 1.
    Mntp,
}

/// How a model is read when it is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Sum of log p(token | left context).
    Causal,
    /// Pseudo-log-likelihood, one mask at a time, read at the mask.
    Mlm,
    /// Pseudo-log-likelihood, one mask at a time, read one position to the left.
    Mntp,
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Objective::Clm => "clm",
            Objective::Mlm => "mlm",
            Objective::Mntp => "mntp",
        })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Backend::Causal => "causal",
            Backend::Mlm => "mlm",
            Backend::Mntp => "mntp",
        })
    }
}

impl Objective {
    /// The backend that reads what this objective teaches.
    pub fn backend(self) -> Backend {
        match self {
            Objective::Clm => Backend::Causal,
            Objective::Mlm => Backend::Mlm,
            Objective::Mntp => Backend::Mntp,
        }
    }
}

/// The rows of one forward pass: packed segments without padding.
///
/// The objective is data here: a model cannot tell an MLM batch from a CLM batch but for `causal`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, framing included: `[n]`.
    pub ids: Vec<u32>,
    /// Where each segment starts, and at the end `n`: `[segments + 1]`.
    pub bounds: Vec<u32>,
    /// The rows that have a target, increasing: `[m]`.
    pub rows: Vec<u32>,
    /// The token wanted at each of `rows`: `[m]`.
    pub targets: Vec<u32>,
    /// A row sees only itself and what is left of it in its segment.
    pub causal: bool,
    /// Number of rows of the same optimiser step in the micro-batches before this one.
    pub first_row: u32,
}
