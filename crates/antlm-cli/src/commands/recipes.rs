//! `antlm recipes`: the built-in recipes.

use std::io::Write;

use antlm::model::Kind;
use antlm::recipe;
use anyhow::Result;
use serde::Serialize;

use crate::args::Recipes;
use crate::output::{grouped, table};

#[derive(Serialize)]
struct Row {
    name: String,
    model: Kind,
    parameters: u64,
    schedule: String,
    description: String,
}

pub fn run(args: &Recipes, out: &mut impl Write) -> Result<()> {
    if args.schema {
        writeln!(out, "{:#}", recipe::keys::schema())?;
        return Ok(());
    }
    let mut rows = Vec::new();
    for name in recipe::names() {
        let recipe = recipe::builtin(&name)?;
        rows.push(Row {
            name,
            model: recipe.model.kind,
            parameters: recipe::size::parameters(&recipe.model),
            schedule: recipe.schedule.to_string(),
            description: recipe.description,
        });
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&rows)?)?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| vec![row.name, grouped(row.parameters), row.schedule, row.description]).collect();
    table(out, &["recipe", ">parameters", "schedule", "what it is"], &rows)?;
    Ok(())
}
