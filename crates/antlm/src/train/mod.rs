//! The training loop and what it leaves on disk.

pub mod checkpoint;
pub mod events;
pub mod run_folder;
