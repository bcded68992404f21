//! `cargo xtask memory`: trains a very small model for 10,000 steps and holds the memory that it takes at the end against
//! that near its beginning.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Steps until the last look; the run has some more, so that the process is still there.
const STEPS: u64 = 10_000;
/// Steps between two looks.
const EVERY: u64 = 500;
/// By so much the last look may be above the one after a tenth of the steps, by when all code and text was used: what a
/// leak of some hundred bytes a step would come to.
const SLACK_KIB: u64 = 1024;

/// Some 320 steps an epoch. Every objective, switches, dev losses at each epoch, checkpoints, milestones, the average.
const RECIPE: &str = "version = 1\nbase = \"ltg-bert-tiny\"\nschedule = \"2 x (6 clm + 6 mntp + 6 mlm)\"\nseq_len = 16\n\
    [model]\nlayers = 2\nhidden = 32\nheads = 2\nintermediate = 64\nvocab_size = 300\n\
    [batch]\nsegments = 4\nmicro_tokens = 40\n[optimizer]\nema_decay = 0.99\n[dev]\nmax_segments = 20\n\
    [checkpoints]\nevery = 100\nmilestones = [10000, 50000, 100000]\n";

pub fn run(root: &Path) -> Result<()> {
    let antlm = crate::build_antlm(root, &[])?;
    let folder = root.join("target/memory");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("small.toml"), RECIPE)?;
    let antlm = |args: &[&str]| {
        let mut command = Command::new(&antlm);
        command.args(args).current_dir(&folder).stdin(Stdio::null());
        command
    };
    let status = antlm(&["sample-text", "--words", "10000", "--out", "text.txt"]).status()?;
    if !status.success() {
        bail!("antlm sample-text: {status}");
    }
    let began = Instant::now();
    let mut child = antlm(&["train", "small.toml", "--text", "text.txt", "--out", "run", "--json"])
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().context("its output was asked for")?;
    let mut looks: Vec<(u64, u64)> = Vec::new();
    println!("{:>6}  {:>8}", "step", "RSS, KiB");
    for line in BufReader::new(out).lines() {
        let event: Value = serde_json::from_str(&line?)?;
        let (kind, step) = (event["event"].as_str(), event["step"].as_u64().unwrap_or_default());
        if kind == Some("step") && step <= STEPS && step.is_multiple_of(EVERY) {
            let rss = resident(child.id())?;
            println!("{step:>6}  {rss:>8}");
            looks.push((step, rss));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("antlm train: {status}");
    }
    let [first, last] = [looks.iter().find(|look| look.0 >= STEPS / 10), looks.last()];
    let (Some(&(from, first)), Some(&(to, last))) = (first, last) else {
        bail!("the run was too short to be looked at")
    };
    if to < STEPS {
        bail!("the run had {to} steps, not {STEPS}");
    }
    let grown = last as i64 - first as i64;
    println!("step {from} to {to}: {grown:+} KiB, in {:.0} s", began.elapsed().as_secs_f64());
    if last > first + SLACK_KIB {
        bail!("the memory grows: {last} KiB after {to} steps, {first} KiB after {from}");
    }
    Ok(())
}

/// What a process holds in memory now, in KiB.
fn resident(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse().ok());
    kib.with_context(|| format!("{path}: no VmRSS"))
}
