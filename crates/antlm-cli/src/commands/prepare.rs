//! `antlm prepare`: text into a tokenizer and token files.

use std::io::Write;

use antlm::Error;
use antlm::recipe::Recipe;
use antlm::text::prepare::Counts;
use antlm::train::input;
use anyhow::Result;

use crate::args::Prepare;
use crate::output::grouped;
use crate::progress::Preparing;

pub fn run(args: &Prepare, out: &mut impl Write) -> Result<()> {
    let recipe = Recipe::load(&args.recipe, &args.set)?;
    super::use_threads(args.threads)?;
    let options = input::options(&recipe, &args.text, args.dev.as_slice())?;
    let prepared = with_progress(args.quiet || args.json, &crate::signals::install()?, |progress, cancelled| {
        antlm::text::prepare::prepare(&options, &args.out, progress, cancelled)
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

fn counts(counts: &Counts) -> String {
    format!(
        "{} documents, {} words, {} tokens",
        grouped(counts.documents),
        grouped(counts.words),
        grouped(counts.tokens)
    )
}
