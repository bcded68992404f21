//! One file a command; here they are told apart.

mod bench;
mod compare;
mod completions;
mod demo;
mod diff;
mod eval;
mod export;
mod fill;
mod finetune;
mod generate;
mod import;
mod info;
mod init;
mod plan;
mod prepare;
mod push;
mod recipes;
mod sample_pairs;
mod sample_text;
mod score;
mod submit;
mod sweep;
mod tokenize;
mod train;

use antlm::recipe::Recipe;

use crate::args::Command;

/// Runs a command. Its output goes to stdout, and nothing else does.
pub fn run(command: Command) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::Demo(args) => demo::run(&args, &mut out),
        Command::Recipes(args) => recipes::run(&args, &mut out),
        Command::Init(args) => init::run(&args, &mut out),
        Command::Plan(args) => plan::run(&args, &mut out),
        Command::Prepare(args) => prepare::run(&args, &mut out),
        Command::Train(args) => train::run(&args, &mut out),
        Command::Info(args) => info::run(&args, &mut out),
        Command::Score(args) => score::run(&args, std::io::stdin().lock(), &mut out),
        Command::Eval(args) => eval::run(&args, &mut out),
        Command::Compare(args) => compare::run(&args, &mut out),
        Command::Submit(args) => submit::run(&args, &mut out),
        Command::Sweep(args) => sweep::run(&args, &mut out),
        Command::Generate(args) => generate::run(&args, &mut out),
        Command::Fill(args) => fill::run(&args, std::io::stdin().lock(), &mut out),
        Command::Finetune(args) => finetune::run(&args, &mut out),
        Command::Tokenize(args) => tokenize::run(&args, std::io::stdin().lock(), &mut out),
        Command::Export(args) => export::run(&args, &mut out),
        Command::Import(args) => import::run(&args, &mut out),
        Command::Push(args) => push::run(&args, &mut out),
        Command::Bench(args) => bench::run(&args, &mut out),
        Command::Diff(args) => diff::run(&args, &mut out),
        Command::Completions(args) => completions::run(&args, &mut out),
        Command::SampleText(args) => sample_text::run(&args, &mut out),
        Command::SamplePairs(args) => sample_pairs::run(&args, &mut out),
    }
}

/// Reads a recipe with what the command line changes of it.
fn recipe(name: &str, set: &[String], track: Option<&str>) -> antlm::Result<Recipe> {
    let set: Vec<String> = set.iter().cloned().chain(track.map(|track| format!("track={track}"))).collect();
    Recipe::load(name, &set)
}

/// Sets up rayon's threads: this many, or one for each processor. Called once, before anything runs. The calling
/// thread is one of them, so that it works on what it hands out instead of sleeping meanwhile.
fn use_threads(threads: Option<u32>) -> anyhow::Result<()> {
    let threads = threads.unwrap_or(0) as usize;
    Ok(rayon::ThreadPoolBuilder::new().use_current_thread().num_threads(threads).build_global()?)
}
