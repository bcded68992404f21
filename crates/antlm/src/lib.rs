//! antlm pretrains small language models that read both ways: causal and masked language modelling by turns on one
//! transformer (AntLM, Yu et al., CoNLL BabyLM 2024).
//!
//! Data flows one way: text -> tokens -> objective -> model -> loss -> optimiser -> checkpoint. ARCHITECTURE.md says
//! which folder does what and which rules hold between them.

pub mod bench;
pub mod error;
pub mod eval;
pub mod files;
pub mod model;
pub mod objective;
pub mod recipe;
pub mod tensor_file;
pub mod text;
pub mod train;

pub use error::{Error, Result};
