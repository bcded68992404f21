//! `antlm diff`: two runs side by side.

use std::io::Write;

use antlm::train::compare::{self, Comparison, Key, Measured};
use anyhow::Result;

use crate::args;
use crate::output::{grouped, table};

/// Longer values are cut in the table; `--json` has them whole.
const WIDEST: usize = 48;

pub fn run(args: &args::Diff, out: &mut impl Write) -> Result<()> {
    let both = compare::runs(&args.first, &args.second)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&both)?)?;
        return Ok(());
    }
    let names = [&args.first, &args.second].map(|path| path.display().to_string());
    let [first, second] = names.each_ref().map(String::as_str);
    keys(out, "recipe", &both.recipe, &["key", first, second])?;
    keys(out, "data", &both.data, &["key", first, second])?;
    losses(out, &both, [first, second])?;
    let (equal, [a, b]) = (both.equal_steps, both.steps);
    writeln!(
        out,
        "steps: {} and {}; the first {} have the same losses to the bit",
        grouped(a),
        grouped(b),
        grouped(equal)
    )?;
    Ok(())
}

fn keys(out: &mut impl Write, title: &str, keys: &[Key], heading: &[&str]) -> Result<()> {
    if keys.is_empty() {
        writeln!(out, "{title}: the same\n")?;
        return Ok(());
    }
    writeln!(out, "{title}")?;
    let cell = |value: &Option<String>| value.as_deref().map_or("-".to_owned(), short);
    let rows: Vec<Vec<String>> =
        keys.iter().map(|key| vec![key.key.clone(), cell(&key.values[0]), cell(&key.values[1])]).collect();
    table(out, heading, &rows)?;
    writeln!(out)?;
    Ok(())
}

fn short(value: &str) -> String {
    if value.chars().count() <= WIDEST {
        return value.to_owned();
    }
    value.chars().take(WIDEST - 1).chain(['…']).collect()
}

fn losses(out: &mut impl Write, both: &Comparison, [first, second]: [&str; 2]) -> Result<()> {
    let loss = |loss: Option<f64>| loss.map_or("-".to_owned(), |loss| format!("{loss:.4}"));
    let apart = |[a, b]: [Option<f64>; 2]| a.zip(b).map_or("-".to_owned(), |(a, b)| format!("{:+.4}", b - a));
    let mut rows = Vec::new();
    for dev in &both.dev {
        for (which, pair) in [("last", dev.last), ("lowest", dev.best)] {
            let step = |at: Option<Measured>| at.map_or("-".to_owned(), |at| grouped(at.step));
            let losses = pair.map(|at| at.map(|at| at.loss));
            let name = format!("dev {} {which}", dev.backend);
            rows.push(vec![name, loss(losses[0]), step(pair[0]), loss(losses[1]), step(pair[1]), apart(losses)]);
        }
    }
    for last in &both.training {
        let name = format!("training {} last", last.objective);
        rows.push(vec![name, loss(last.loss[0]), String::new(), loss(last.loss[1]), String::new(), apart(last.loss)]);
    }
    if rows.is_empty() {
        writeln!(out, "losses: none yet\n")?;
        return Ok(());
    }
    writeln!(out, "losses (nats per target)")?;
    let (first, second) = (format!(">{first}"), format!(">{second}"));
    table(out, &["", &first, ">at step", &second, ">at step", ">second - first"], &rows)?;
    if !both.comparable {
        writeln!(out, "text, tokenizer or dev settings differ: the dev losses cannot be compared with each other")?;
    }
    writeln!(out)?;
    Ok(())
}
