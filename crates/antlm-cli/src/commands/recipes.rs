//! `antlm recipes`.

use std::io::Write;

use anyhow::Result;

use crate::args::Recipes;

pub fn run(_args: &Recipes, _out: &mut impl Write) -> Result<()> {
    anyhow::bail!("recipes: not built yet")
}
