//! From raw text to token segments: corpus -> words -> tokenizer -> shards -> segments. No tensors here.

pub mod sample;
pub mod special;
