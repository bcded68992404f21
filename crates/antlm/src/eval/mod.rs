//! Reading a trained model: log-probabilities of sentences by every backend, text from left to right, words for masks;
//! what evaluations leave on disk.

pub mod bootstrap;
pub mod compare;
pub mod fill;
pub mod finetune;
pub mod generate;
pub mod pack;
pub mod results;
pub mod sampling;
pub mod score;
pub mod sigmoid;
pub mod stats;
pub mod submit;
pub mod submit_sizes;
#[cfg(test)]
mod test_models;
pub mod trigram;
pub mod zeroshot;
