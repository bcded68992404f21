//! To and from the Hugging Face Hub: exports that transformers loads, imports of such folders, uploads.

pub mod card;
mod card_scores;
pub mod config;
pub mod export;
pub mod import;
pub mod push;

pub use export::{Options, Which, export};
pub use import::import;

/// The file with sizes and constants.
pub const CONFIG: &str = "config.json";
/// The file with the weights.
pub const MODEL: &str = "model.safetensors";
/// The tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";
/// The recipe of the run, without the places of its text.
pub const RECIPE: &str = "antlm_recipe.toml";
/// The model card.
pub const CARD: &str = "README.md";
