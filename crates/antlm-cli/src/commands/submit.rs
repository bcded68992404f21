//! `antlm submit`: the files of a submission, or the list of what is missing.

use std::io::Write;

use antlm::Error;
use antlm::eval::submit::{self, Options};
use anyhow::Result;

use crate::args::Submit;
use crate::output::grouped;

pub fn run(args: &Submit, out: &mut impl Write) -> Result<()> {
    let signals = crate::signals::install()?;
    let cancel = || signals.stop();
    // A name that the organisers' scripts would cut at a dot is refused below, as one that was given would be.
    let folder = || std::path::absolute(&args.run).ok()?.file_name()?.to_str().map(String::from);
    let name = args.name.clone().or_else(folder).ok_or_else(|| Error::Usage("no name; give one with --name".into()))?;
    let options = Options {
        run: args.run.clone(),
        data: args.data.clone(),
        backend: args.backend.into(),
        track: args.track.into(),
        name,
        out: args.out.clone(),
        partial: args.partial,
    };
    let mut tell = |what: &str| {
        if let Some(signal) = cancel() {
            return Err(Error::Stopped {
                signal,
                left: "no submission was written; the same command starts again".into(),
            });
        }
        if !args.quiet && !args.json {
            eprintln!("{what}");
        }
        Ok(())
    };
    let report = submit::submit(&options, &mut tell)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        for problem in &report.problems {
            writeln!(out, "- {}\n    {}", problem.what, problem.to_do)?;
        }
        if let Some(collated) = &report.collated {
            writeln!(
                out,
                "{} files; the one to upload to BabyLM {} is {}",
                grouped(report.written.len() as u64),
                args.preset,
                collated.display()
            )?;
        } else if !report.written.is_empty() {
            writeln!(out, "{} files of predictions, no collated file", grouped(report.written.len() as u64))?;
        }
    }
    if report.written.is_empty() {
        let n = grouped(report.problems.len() as u64);
        let what = format!("{}: {n} things are missing, listed above; nothing was written", args.run.display());
        return Err(Error::Usage(what).into());
    }
    Ok(())
}
