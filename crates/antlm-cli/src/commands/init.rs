//! `antlm init`: a commented recipe for the user's own text.

use std::io::Write;
use std::path::Path;

use antlm::recipe::init;
use antlm::{Error, files};
use anyhow::Result;

use super::prepare::with_progress;
use crate::args::Init;

pub fn run(args: &Init, out: &mut impl Write) -> Result<()> {
    let to_stdout = args.out == Path::new("-");
    if !to_stdout && args.out.exists() {
        let what = "exists already; give another --out, or - to see the recipe";
        return Err(Error::Usage(format!("{}: {what}", args.out.display())).into());
    }
    let amount = if args.text.is_empty() {
        init::Amount { words: 300_000, documents: 1000, files: 1 }
    } else {
        let quiet = args.quiet || to_stdout;
        let signals = crate::signals::install()?;
        with_progress(quiet, &|| signals.stop(), |progress, cancelled| init::count(&args.text, progress, cancelled))?
    };
    let text = init::recipe(&args.text, amount)?;
    if to_stdout {
        write!(out, "{text}")?;
        return Ok(());
    }
    files::write_atomic(&args.out, text.as_bytes())?;
    if !args.quiet {
        let (path, more) = (args.out.display(), if args.text.is_empty() { " --text PATH" } else { "" });
        writeln!(out, "{path}: written; read it, then: antlm train {path}{more} --out RUN")?;
    }
    Ok(())
}
