//! `antlm bench`: the time of one optimiser step.

use std::io::Write;

use antlm::objective::Objective;
use anyhow::Result;

use crate::args::{Bench, BenchObjective, Precision};

pub fn run(args: &Bench, _out: &mut impl Write) -> Result<()> {
    let _objective = match args.objective {
        BenchObjective::Clm => Objective::Clm,
        BenchObjective::Mlm => Objective::Mlm,
    };
    let Precision::F32 = args.precision;
    // CALL SITE: antlm::bench(recipe, objective, batch, seq, steps, threads) goes here; with --json one line with the
    // keys of torch_peer.py.
    anyhow::bail!("bench of {}: not built yet", args.recipe)
}
