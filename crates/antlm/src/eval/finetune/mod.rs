//! Fine-tuning on GLUE and SuperGLUE as BabyLM's two pipelines do it: a trained model gets a new head, learns a task's
//! training rows and is scored on its validation rows.
//!
//! `presets` has the settings of both, `data` the tasks and their files, `frame` turns rows into token ids, `head` is the
//! classifier, `train` the loop, `metrics` what it is scored by, `tune` all of it for many tasks and seeds, with results
//! on disk. Random numbers are the project's own, so a score is not that of the official scripts for the same seed, only
//! one of the same distribution.

pub mod data;
pub mod frame;
pub mod head;
pub mod metrics;
pub mod presets;
#[cfg(test)]
mod tests;
pub mod train;
pub mod tune;
