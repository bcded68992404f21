//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, one after another, each for some minutes, from seeds that our own code
//! makes. Needs a nightly toolchain, cargo-fuzz and a C++ compiler.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use fuzzed::TARGETS;

/// Fuzzes everything that reads files from outside (nightly, `cargo install cargo-fuzz`)
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                         all of them
  cargo xtask fuzz --minutes 1 recipe log
What is found is left in fuzz/artifacts, what is interesting in fuzz/corpus; neither is committed. A finding that was mended
goes to xtask/fuzzed/found/TARGET, where the tests try it.")]
pub struct Options {
    /// For each target
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// Which; all, if none is named
    #[arg(value_name = "TARGET", value_parser = TARGETS.map(|target| target.name))]
    targets: Vec<String>,
}

/// More than this in all, or at once, is a finding: no input is longer than some kilobytes.
const MEMORY: [&str; 2] = ["-rss_limit_mb=2048", "-malloc_limit_mb=512"];

/// Runs them; fails with the names of those that found something.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let mut found = Vec::new();
    for target in TARGETS {
        if !options.targets.is_empty() && !options.targets.iter().any(|name| name == target.name) {
            continue;
        }
        let corpus = root.join("fuzz/corpus").join(target.name);
        fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
        for (i, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(corpus.join(format!("seed-{i}")), seed)?;
        }
        println!("\n{}: {} minutes", target.name, options.minutes);
        let time = format!("-max_total_time={}", 60 * options.minutes);
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "cargo", "fuzz", "run", target.name, "--", &time, "-timeout=20"]);
        command.args(MEMORY).args(["-max_len=16384", "-print_final_stats=1"]).current_dir(root);
        // One thread: the fuzzer cannot tell what another one has done.
        command.env("RAYON_NUM_THREADS", "1");
        if Path::new("/dev/shm").is_dir() {
            command.env("TMPDIR", "/dev/shm");
        }
        if !command.status().context("cannot start rustup")?.success() {
            found.push(target.name);
        }
    }
    if !found.is_empty() {
        bail!("stopped with a finding (or could not start): {}", found.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_program() {
        let fuzz = crate::root().unwrap().join("fuzz");
        let files = fs::read_dir(fuzz.join("fuzz_targets")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut files: Vec<String> = files.map(|name| name.into_string().unwrap()).collect();
        files.sort();
        let mut names = TARGETS.map(|target| format!("{}.rs", target.name));
        names.sort();
        assert_eq!(files, names);
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        for target in TARGETS {
            let program = fs::read_to_string(fuzz.join(format!("fuzz_targets/{}.rs", target.name))).unwrap();
            assert!(program.contains(&format!("fuzzed::run(\"{}\", data)", target.name)));
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{}.rs\"", target.name)));
        }
    }
}
