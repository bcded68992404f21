//! One file an architecture: configuration and forward pass. Tensor names are the Hub's names; no files here.

pub mod config;
pub use config::{Config, Kind};
