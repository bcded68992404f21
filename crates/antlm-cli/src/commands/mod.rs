//! One file a command; here they are told apart.

mod bench;
mod info;
mod plan;
mod prepare;
mod recipes;
mod sample_text;
mod score;
mod train;

use crate::args::Command;

/// Runs a command. Its output goes to stdout, and nothing else does.
pub fn run(command: Command) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::Recipes(args) => recipes::run(&args, &mut out),
        Command::Plan(args) => plan::run(&args, &mut out),
        Command::Prepare(args) => prepare::run(&args, &mut out),
        Command::Train(args) => train::run(&args, &mut out),
        Command::Info(args) => info::run(&args, &mut out),
        Command::Score(args) => score::run(&args, std::io::stdin().lock(), &mut out),
        Command::Bench(args) => bench::run(&args, &mut out),
        Command::SampleText(args) => sample_text::run(&args, &mut out),
    }
}

/// Limits rayon's threads to this number; all processors without one. Called once, before anything runs.
fn use_threads(threads: Option<u32>) -> anyhow::Result<()> {
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build_global()?;
    }
    Ok(())
}
