//! From raw text to token segments: corpus -> cleaning -> words -> tokenizer -> shards -> segments. No tensors here.

mod archive;
mod bpe;
pub mod clean;
pub mod corpus;
pub mod dataset;
pub mod diff;
mod encode;
pub mod offsets;
#[cfg(feature = "parquet")]
mod parquet;
mod pieces;
pub mod prepare;
pub mod sample;
pub mod shards;
pub mod source;
pub mod special;
pub mod tokenizer;
pub mod tokens;
pub mod words;
