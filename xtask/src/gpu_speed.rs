//! The part of `cargo xtask gpu` that times steps on the card, antlm's and PyTorch's by turns.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::bench::{median, spread};
use crate::gpu::{Check, Clock};
use crate::gpu_runs::CARD;

/// What is timed: recipes (which the peer knows by the same names), sequences, tokens in each, steps.
pub struct Cells {
    models: [&'static str; 2],
    batch: u32,
    seq: u32,
    steps: u32,
}

/// The cells of the CPU's table.
pub const CELLS: Cells = Cells { models: ["ltg-bert-small", "babyllama-58m"], batch: 8, seq: 128, steps: 20 };
/// Enough to see that it works, on an emulated card.
pub const TRIAL: Cells = Cells { models: ["ltg-bert-tiny", "babyllama-tiny"], batch: 1, seq: 16, steps: 1 };

/// Times all of it; a table.
pub fn run(
    antlm: &Path,
    peer: &Path,
    python: Option<&Path>,
    cells: &Cells,
    rounds: u32,
    clock: Clock,
    note: &mut dyn FnMut(Check),
) -> Result<String> {
    let mut table = format!(
        "Seconds a step of {} x {} tokens, medians of {rounds} rounds of {} steps\n\n\
         | cell | antlm | PyTorch | PyTorch/antlm (min-max) |\n|---|---|---|---|\n",
        cells.batch, cells.seq, cells.steps
    );
    for model in cells.models {
        for objective in ["clm", "mlm"] {
            for precision in ["f32", "bf16"] {
                let began = Instant::now();
                let found = cell(antlm, peer, python, cells, rounds, clock, [model, objective, precision]);
                if let Ok(row) = &found {
                    table += row;
                }
                let seen =
                    found.map(|row| row.split('|').skip(2).take(3).map(str::trim).collect::<Vec<_>>().join("; "));
                note(Check::of("speed", format!("{model} {objective} {precision}"), began, seen));
            }
        }
    }
    Ok(table)
}

/// One row.
fn cell(
    antlm: &Path,
    peer: &Path,
    python: Option<&Path>,
    cells: &Cells,
    rounds: u32,
    clock: Clock,
    [model, objective, precision]: [&str; 3],
) -> Result<String> {
    let shape = [("batch", cells.batch), ("seq", cells.seq), ("steps", cells.steps)];
    let shape = shape.map(|(key, value)| format!("--{key}={value}"));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut command = clock.command(antlm)?;
        command.args(["bench", model, "--objective", objective, "--precision", precision, "--json"]);
        ours.push(one(command.args(&shape).args(["--device", CARD]))?);
        if let Some(python) = python {
            let mut command = clock.command(python)?;
            command.arg(peer).args([model, objective, "--device=cuda"]).args(&shape);
            theirs.push(one(command.args((precision == "bf16").then_some("--bf16")))?);
        }
    }
    let column = |lines: &[Value], key: &str| -> Result<Vec<f64>> {
        lines.iter().map(|line| line[key].as_f64().with_context(|| format!("no number {key:?} in {line}"))).collect()
    };
    let seconds = column(&ours, "seconds_median")?;
    let (torch, ratio) = match &theirs[..] {
        [] => ("-".into(), "-".into()),
        lines => {
            let torch = column(lines, "seconds_median")?;
            (format!("{:.5}", median(&torch)), spread(torch.iter().zip(&seconds).map(|(torch, ours)| torch / ours)))
        }
    };
    Ok(format!("| {model} {objective} {precision} | {:.5} | {torch} | {ratio} |\n", median(&seconds)))
}

/// The line of JSON that a program ends with.
fn one(command: &mut Command) -> Result<Value> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| name.clone())?;
    if !output.status.success() {
        bail!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().with_context(|| format!("{name} printed nothing"))?;
    serde_json::from_str(line).with_context(|| format!("{name}: {line}"))
}
