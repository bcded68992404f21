//! `cargo xtask check`: what every change has to pass besides the tests.

mod licences;
mod readme;
mod sizes;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const HELP: &str = "\
usage: cargo xtask COMMAND
  check      all of the following
  format     rustfmt would change nothing
  clippy     no warnings
  sizes      the engine's lines against its limit; files over 600 lines
  licences   every dependency has a licence that we accept; advisories, where cargo-deny and its database are there
  readme     README.md's commands are those that .ci/run runs";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = root()?;
    let command = std::env::args().nth(1).unwrap_or_default();
    match command.as_str() {
        "check" => {
            format(&root)?;
            readme::check(&root)?;
            sizes::check(&root)?;
            licences::check(&root)?;
            clippy(&root)
        }
        "format" => format(&root),
        "clippy" => clippy(&root),
        "sizes" => sizes::check(&root),
        "licences" => licences::check(&root),
        "readme" => readme::check(&root),
        "" | "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("no command {other:?}\n{HELP}"),
    }
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
    cargo(root, &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
}

fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    println!("cargo {}", args.join(" "));
    let status = Command::new(env!("CARGO")).args(args).current_dir(root).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    Ok(())
}
