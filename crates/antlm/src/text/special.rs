//! The five special tokens, ids 0-4 in both families, and their names.

use serde::{Deserialize, Serialize};

/// Stands for what the vocabulary lacks.
pub const UNK: u32 = 0;
/// Opens a segment.
pub const CLS: u32 = 1;
/// Closes a segment.
pub const SEP: u32 = 2;
/// Padding (never in our batches; the Hub's readers need it).
pub const PAD: u32 = 3;
/// Replaces a token that is to be guessed.
pub const MASK: u32 = 4;
/// The first id that may be masked or stand in as a random replacement.
pub const FIRST_ORDINARY: u32 = 5;

/// The model family: it decides the special tokens' names, nothing else in `text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// NormFormer/GEGLU encoder with disentangled relative positions.
    LtgBert,
    /// Llama decoder, as BabyLlama.
    Llama,
}

impl Family {
    /// The names of ids 0-4.
    pub fn special_names(self) -> [&'static str; 5] {
        match self {
            Family::LtgBert => ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"],
            Family::Llama => ["<unk>", "<s>", "</s>", "<pad>", "<mask>"],
        }
    }
}
