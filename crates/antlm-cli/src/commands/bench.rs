//! `antlm bench`: the time of one optimiser step.

use std::io::Write;

use antlm::bench::{self, Options};
use antlm::objective::Objective;
use antlm::recipe::{self, Recipe};
use anyhow::Result;

use crate::args::{Bench, BenchObjective, Precision};
use crate::output::grouped;

pub fn run(args: &Bench, out: &mut impl Write) -> Result<()> {
    let objective = match args.objective {
        BenchObjective::Clm => Objective::Clm,
        BenchObjective::Mlm => Objective::Mlm,
    };
    let precision = match args.precision {
        Precision::F32 => recipe::Precision::F32,
        Precision::Bf16 => recipe::Precision::Bf16,
        Precision::Auto => recipe::Precision::Auto,
    };
    super::use_threads(args.threads)?;
    let recipe = Recipe::load(&args.recipe, &[])?;
    let options = Options { objective, batch: args.batch, seq: args.seq, steps: args.steps, precision };
    let device = args.device.open(args.json)?;
    let report = bench::run(&recipe, options, &device)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(
            out,
            "{} {objective}, {} x {} tokens, {}, {}, {} threads: {:.3} s a step (fastest {:.3} s), {} tokens/s, peak {} MB",
            report.model,
            report.batch,
            report.seq,
            if report.bf16 { "bf16" } else { "f32" },
            report.device,
            report.threads,
            report.seconds_median,
            report.seconds_min,
            grouped(report.tokens_per_second as u64),
            grouped(report.peak_bytes / 1_000_000),
        )?;
    }
    Ok(())
}
