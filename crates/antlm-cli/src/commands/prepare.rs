//! `antlm prepare`: text into a tokenizer and token files.

use std::io::Write;

use antlm::Error;
use antlm::recipe::Recipe;
use antlm::text::diff::{SourceDiff, diff};
use antlm::text::prepare::Counts;
use antlm::train::input;
use anyhow::Result;

use crate::args::Prepare;
use crate::output::{grouped, table};
use crate::progress::Preparing;

pub fn run(args: &Prepare, out: &mut impl Write) -> Result<()> {
    let mut recipe = Recipe::load(&args.recipe, &args.set)?;
    input::choose(&mut recipe, &args.text, args.dev.as_slice(), args.cleaning)?;
    super::use_threads(args.threads)?;
    let options = input::options(&recipe, &[], &[])?;
    let (quiet, signals) = (args.quiet || args.json, crate::signals::install()?);
    let cancel = || signals.stop();
    // clap asks for --out unless --diff is there.
    let Some(folder) = args.out.as_ref().filter(|_| !args.diff) else {
        let diffs = with_progress(quiet, &cancel, |progress, cancelled| diff(&options.sources, progress, cancelled))?;
        return show_diff(args, &diffs, out);
    };
    let prepared = with_progress(quiet, &cancel, |progress, cancelled| {
        antlm::text::prepare::prepare(&options, folder, progress, cancelled)
    })?;
    if args.json {
        let json = serde_json::json!({
            "dir": prepared.dir,
            "reused": prepared.reused,
            "segments": prepared.train.len(),
            "prepared": prepared.summary,
        });
        writeln!(out, "{json}")?;
    } else if !args.quiet {
        let summary = &prepared.summary;
        let again = if prepared.reused { " (used again)" } else { "" };
        writeln!(out, "{}: vocabulary of {}{again}", prepared.dir.display(), grouped(summary.vocab_size as u64))?;
        writeln!(out, "  train  {}, {} segments", counts(&summary.train), grouped(u64::from(prepared.train.len())))?;
        for source in &summary.sources {
            writeln!(out, "  source {source}")?;
        }
        match &summary.dev {
            Some(dev) => writeln!(out, "  dev    {}", counts(dev))?,
            None => writeln!(out, "  dev    none: fewer than ten documents to choose from; give --dev")?,
        }
    }
    Ok(())
}

/// Reads text with progress and signals. A signal ends it without leaving anything behind.
pub fn with_progress<T>(
    quiet: bool,
    cancel: &dyn Fn() -> Option<i32>,
    work: impl FnOnce(&mut dyn FnMut(antlm::text::prepare::Progress), &dyn Fn() -> bool) -> antlm::Result<T>,
) -> Result<T> {
    let mut progress = Preparing::new(quiet);
    let result = work(&mut |p| progress.show(p), &|| cancel().is_some());
    drop(progress);
    Ok(result.map_err(|error| match (error, cancel()) {
        (Error::Stopped { left, .. }, Some(signal)) => Error::Stopped { signal, left },
        (error, _) => error,
    })?)
}

/// What cleaning changes, for people or as JSON.
fn show_diff(args: &Prepare, diffs: &[SourceDiff], out: &mut impl Write) -> Result<()> {
    if args.json {
        return Ok(writeln!(out, "{}", serde_json::json!({ "sources": diffs }))?);
    }
    for source in diffs {
        writeln!(out, "{}: cleaning {}", source.name, source.cleaning)?;
        for (what, before, after) in [
            ("documents", source.documents, source.documents - source.documents_dropped),
            ("words", source.words_before, source.words_after),
            ("bytes", source.bytes_before, source.bytes_after),
        ] {
            writeln!(out, "  {what:<9}  {} before, {} after", grouped(before), grouped(after))?;
        }
        let heading = ["  corpus", "rule", ">lines changed", ">dropped", ">characters gone", ">new", "what it does"];
        let rows: Vec<Vec<String>> = source
            .rules
            .iter()
            .map(|rule| {
                let numbers = [rule.lines_changed, rule.lines_dropped, rule.characters_removed, rule.characters_added]
                    .map(grouped);
                let names = [format!("  {}", rule.corpus.name()), rule.rule.into()];
                names.into_iter().chain(numbers).chain([rule.says.to_owned()]).collect()
            })
            .collect();
        if !rows.is_empty() {
            table(out, &heading, &rows)?;
        }
        for rule in source.rules.iter().filter(|rule| !rule.examples.is_empty()) {
            writeln!(out, "  {}, {}:", rule.corpus.name(), rule.rule)?;
            for example in &rule.examples {
                writeln!(out, "    - {}", plain(&example.before))?;
                if let Some(after) = &example.after {
                    writeln!(out, "    + {}", plain(after))?;
                }
            }
        }
    }
    if diffs.iter().all(|source| source.rules.is_empty()) {
        writeln!(out, "nothing is cleaned: give --cleaning babylm, or `cleaning` in the recipe's [[data]]")?;
    }
    Ok(())
}

/// Text for a terminal: control characters as escapes.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn counts(counts: &Counts) -> String {
    format!(
        "{} documents, {} words, {} tokens",
        grouped(counts.documents),
        grouped(counts.words),
        grouped(counts.tokens)
    )
}
