//! To and from the Hugging Face Hub, without Python: what an export is made of, what an import refuses, runs that start
//! from a model. That transformers reads it is checked by `cargo xtask check-export`.

mod export;
mod folder;
mod import;
mod init;
