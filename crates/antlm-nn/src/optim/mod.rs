//! Optimisers and learning-rate curves.

pub mod curve;
