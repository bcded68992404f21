//! Fine-tuning as a whole, on small models that were not trained.
