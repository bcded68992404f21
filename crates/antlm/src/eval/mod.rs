//! Reading a trained model: log-probabilities of sentences, by every backend.

pub mod score;
pub mod trigram;
