//! Reading a trained model: log-probabilities and dev losses.
