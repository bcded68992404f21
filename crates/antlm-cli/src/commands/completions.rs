//! `antlm completions`: scripts with which a shell completes commands and options.

use std::io::Write;

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Cli, Completions};

pub fn run(args: &Completions, out: &mut impl Write) -> Result<()> {
    // By way of memory: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "antlm", &mut script);
    out.write_all(&script)?;
    Ok(())
}
