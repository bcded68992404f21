//! The training loop and what it leaves on disk.

pub mod checkpoint;
pub mod events;
pub mod info;
pub mod input;
pub mod run_folder;
