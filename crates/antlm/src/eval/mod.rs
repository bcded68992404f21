//! Reading a trained model: log-probabilities of sentences, by every backend; tasks, and what they leave on disk.

pub mod results;
pub mod score;
