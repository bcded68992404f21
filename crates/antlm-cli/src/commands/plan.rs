//! `antlm plan`.

use std::io::Write;

use anyhow::Result;

use crate::args::Plan;

pub fn run(_args: &Plan, _out: &mut impl Write) -> Result<()> {
    anyhow::bail!("plan: not built yet")
}
