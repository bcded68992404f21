//! `antlm prepare`.

use std::io::Write;

use anyhow::Result;

use crate::args::Prepare;

pub fn run(_args: &Prepare, _out: &mut impl Write) -> Result<()> {
    anyhow::bail!("prepare: not built yet")
}
