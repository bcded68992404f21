//! The training loop and what it leaves on disk.

pub mod checkpoint;
pub mod compare;
pub mod dev;
pub mod events;
pub mod health;
pub mod info;
pub mod input;
pub mod run;
pub mod run_folder;
pub mod step;
pub mod tensorboard;
pub mod trained;
