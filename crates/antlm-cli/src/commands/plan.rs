//! `antlm plan`: what a recipe would do, before it does it.

use std::io::Write;

use antlm::recipe::Plan;
use antlm::train::input;
use anyhow::Result;

use super::prepare::with_progress;
use crate::args;

pub fn run(args: &args::Plan, out: &mut impl Write) -> Result<()> {
    let mut recipe = super::recipe(&args.recipe, &args.set, args.track.as_deref())?;
    input::choose(&mut recipe, &args.text, args.dev.as_slice(), args.cleaning)?;
    let plan = if let Some(dir) = input::prepared_dir(&args.text) {
        Plan::of(&recipe, &input::open(&recipe, dir, args.dev.is_some())?)?
    } else if recipe.data.is_empty() && args.dev.is_none() {
        Plan::new(&recipe, None)?
    } else {
        // Segments are counted in tokens, so the text is prepared, and forgotten again.
        let folder = tempfile::tempdir()?;
        let options = input::options(&recipe, &[], &[])?;
        let signals = crate::signals::install()?;
        let prepared = with_progress(args.quiet || args.json, &|| signals.stop(), |progress, cancelled| {
            antlm::text::prepare::prepare(&options, folder.path().join("prepared"), progress, cancelled)
        })?;
        Plan::of(&recipe, &prepared)?
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&plan)?)?;
    } else {
        write!(out, "{plan}")?;
    }
    Ok(())
}
