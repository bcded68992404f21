//! `antlm plan`: what a recipe would do, before it does it.

use std::io::Write;

use antlm::recipe::{Plan, Recipe};
use antlm::train::input;
use anyhow::Result;

use super::prepare::with_progress;
use crate::args;

pub fn run(args: &args::Plan, out: &mut impl Write) -> Result<()> {
    let recipe = Recipe::load(&args.recipe, &args.set)?;
    let facts = if args.text.is_empty() {
        None
    } else {
        // Segments are counted in tokens, so the text is prepared, and forgotten again.
        let folder = tempfile::tempdir()?;
        let options = input::options(&recipe, &args.text, &[])?;
        let prepared = with_progress(true, &crate::signals::install()?, |progress, cancelled| {
            antlm::text::prepare::prepare(&options, folder.path().join("prepared"), progress, cancelled)
        })?;
        Some(input::facts(&prepared))
    };
    let plan = Plan::new(&recipe, facts)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&plan)?)?;
    } else {
        write!(out, "{plan}")?;
    }
    Ok(())
}
