//! `antlm import`: a folder of the Hugging Face Hub becomes one that this program reads.

use std::io::Write;

use anyhow::Result;

use crate::args::Import;
use crate::output::grouped;

pub fn run(args: &Import, out: &mut impl Write) -> Result<()> {
    let foreign = antlm::hub::import(&args.dir, &args.out)?;
    let (model, parameters) = (foreign.model.config(), foreign.params.len() as u64);
    let known = foreign.recipe.imported.as_ref().is_some_and(|imported| imported.recipe_known);
    if !args.quiet {
        for note in &foreign.notes {
            eprintln!("antlm: note: {note}");
        }
    }
    if args.json {
        let json = serde_json::json!({
            "run": args.out, "model": model, "parameters": parameters, "schedule": foreign.recipe.schedule,
            "recipe_known": known, "notes": foreign.notes,
        });
        writeln!(out, "{json}")?;
    } else if !args.quiet {
        let place = args.out.display();
        writeln!(out, "{place}: {} parameters; read it with: antlm score {place}", grouped(parameters))?;
        if !known {
            writeln!(
                out,
                "how it was trained is not known; it counts as {} (schedule in {place}/recipe.toml)",
                foreign.recipe.schedule
            )?;
        }
    }
    Ok(())
}
