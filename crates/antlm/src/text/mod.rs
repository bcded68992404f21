//! From raw text to token segments: corpus -> words -> tokenizer -> shards -> segments. No tensors here.

mod bpe;
pub mod corpus;
pub mod dataset;
mod encode;
mod pieces;
pub mod prepare;
pub mod sample;
pub mod shards;
pub mod special;
pub mod tokenizer;
pub mod words;
