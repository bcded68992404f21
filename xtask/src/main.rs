//! `cargo xtask`: the checks that every change has to pass besides the tests, and the measurements.

mod bench;
mod bench_floor;
mod bench_ops;
mod bench_parts;
mod bench_scaling;
mod bench_score;
mod check_export;
mod check_kernels;
mod dev_bf16;
mod dev_table;
mod floors;
mod fuzz;
mod gpu;
mod gpu_runs;
mod gpu_speed;
mod licences;
mod memory;
mod mutations;
mod readme;
mod recipe_reference;
mod release;
mod sanitize;
mod sizes;
mod texts;
mod torture;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

/// Checks and chores of this repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// format, readme, recipe-reference --check, floors, sizes, release --check, licences and clippy, one after another
    Check,
    /// rustfmt would change nothing
    Format,
    /// No warnings
    Clippy,
    /// Every import points down
    Floors,
    /// The engine's lines against its limit; files over 600 lines
    Sizes,
    /// Licences of the dependencies; advisories, where cargo-deny and its database are there
    Licences,
    /// README.md's commands are those that .ci/run runs
    Readme,
    /// Writes docs/recipe-reference.md and docs/recipe.schema.json from the table of keys
    RecipeReference {
        /// Only says whether both are up to date
        #[arg(long)]
        check: bool,
    },
    /// Builds antlm as releases have it and packs it, with README, licences and completions: target/release-dist/
    Release {
        /// Only says whether the features and files that it takes exist
        #[arg(long)]
        check: bool,
    },
    Bench(bench::Options),
    BenchOps(bench_ops::Options),
    BenchScore(bench_score::Options),
    BenchParts(bench_parts::Options),
    BenchScaling(bench_scaling::Options),
    DevTable(dev_table::Options),
    DevBf16(dev_bf16::Options),
    /// Trains a very small model for 10,000 steps; its memory has to stay flat (Linux, minutes)
    Memory,
    CheckExport(check_export::Options),
    CheckKernels(check_kernels::Options),
    Gpu(gpu::Options),
    Torture(torture::Options),
    Fuzz(fuzz::Options),
    /// The tests around our unsafe blocks under AddressSanitizer (nightly, Linux)
    Sanitize,
}

fn main() -> ExitCode {
    match run(Cli::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    let root = root()?;
    match chore {
        Chore::Check => {
            format(&root)?;
            readme::check(&root)?;
            recipe_reference::check(&root)?;
            floors::check(&root)?;
            sizes::check(&root)?;
            release::check(&root)?;
            licences::check(&root)?;
            clippy(&root)
        }
        Chore::Format => format(&root),
        Chore::Clippy => clippy(&root),
        Chore::Floors => floors::check(&root),
        Chore::Sizes => sizes::check(&root),
        Chore::Licences => licences::check(&root),
        Chore::Readme => readme::check(&root),
        Chore::RecipeReference { check: true } => recipe_reference::check(&root),
        Chore::RecipeReference { check: false } => recipe_reference::write(&root),
        Chore::Release { check: true } => release::check(&root),
        Chore::Release { check: false } => release::run(&root),
        Chore::Bench(options) => in_release(&root, || bench::run(&root, &options)),
        Chore::BenchOps(options) => in_release(&root, || bench_ops::run(&options)),
        Chore::BenchScore(options) => in_release(&root, || bench_score::run(&root, &options)),
        Chore::BenchParts(options) => in_release(&root, || bench_parts::run(&root, &options)),
        Chore::BenchScaling(options) => in_release(&root, || bench_scaling::run(&options)),
        Chore::CheckExport(options) => check_export::run(&root, &options),
        Chore::CheckKernels(options) => check_kernels::run(&root, &options),
        Chore::Gpu(options) => gpu::run(&root, &options),
        Chore::Torture(options) => torture::run(&root, &options),
        Chore::Fuzz(options) => fuzz::run(&root, &options),
        Chore::Sanitize => sanitize::run(&root),
        Chore::Memory => memory::run(&root),
        Chore::DevTable(options) => dev_table::run(&root, &options),
        Chore::DevBf16(options) => dev_bf16::run(&root, &options),
    }
}

/// What is timed inside this program has to be built for speed: builds it so and starts again, unless it is already.
fn in_release(root: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if !cfg!(debug_assertions) {
        return work();
    }
    let program = build(root, &["--package=xtask"])?;
    let status = Command::new(&program).args(std::env::args_os().skip(1)).status();
    if !status.with_context(|| program.display().to_string())?.success() {
        bail!("it failed");
    }
    Ok(())
}

/// The repository: two folders above this package's manifest is what cargo compiled us from.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask lies in the repository's root")?.to_owned())
}

fn format(root: &Path) -> Result<()> {
    cargo(root, &["fmt", "--all", "--check"])
}

fn clippy(root: &Path) -> Result<()> {
    // The default build, the one with everything but cards, and the one whose tests can have both kinds of card.
    let both = "antlm/cuda,antlm/cuda-emulation";
    for features in ["", "antlm-cli/parquet,antlm-cli/hub,antlm-nn/cuda-emulation", both] {
        let args =
            ["clippy", "--workspace", "--all-targets", "--locked", "--features", features, "--", "-D", "warnings"];
        cargo(root, &args)?;
    }
    Ok(())
}

fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    println!("cargo {}", args.join(" "));
    let status = Command::new(env!("CARGO")).args(args).current_dir(root).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    Ok(())
}

/// Builds antlm for release, with these features; where it lies.
fn build_antlm(root: &Path, features: &[&str]) -> Result<PathBuf> {
    build(root, &["--package=antlm-cli", &format!("--features={}", features.join(","))])
}

/// Builds a program for release.
fn build(root: &Path, args: &[&str]) -> Result<PathBuf> {
    artifact(root, &[&["build"], args].concat())
}

/// Has cargo make a program, for release; says where it put it, which its settings may change.
fn artifact(root: &Path, args: &[&str]) -> Result<PathBuf> {
    let mut command = Command::new(env!("CARGO"));
    let output = command
        .args(args)
        .args(["--release", "--locked", "--message-format=json-render-diagnostics"])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo build failed");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = artifacts.filter_map(|artifact| artifact["executable"].as_str().map(PathBuf::from)).next_back();
    program.context("cargo build names no program")
}
