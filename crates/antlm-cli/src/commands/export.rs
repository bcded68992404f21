//! `antlm export`: checkpoints as folders for the Hugging Face Hub.

use std::io::Write;

use antlm::Error;
use antlm::hub::{Options, Which, export};
use antlm::train::trained::Weights;
use anyhow::Result;

use crate::args::Export;

pub fn run(args: &Export, out: &mut impl Write) -> Result<()> {
    let signals = crate::signals::install()?;
    let cancel = || signals.stop();
    let which = match (&args.checkpoint, args.milestones) {
        (Some(name), _) => Which::One(name.clone()),
        (None, true) => Which::Milestones,
        (None, false) => Which::Last,
    };
    let options = Options {
        run: args.run.clone(),
        which,
        weights: if args.ema { Weights::Average } else { Weights::Last },
        license: args.license.clone(),
        out: args.out.clone(),
    };
    let mut said = 0;
    let written = export(&options, &mut |number, all, folder| {
        if let Some(signal) = cancel() {
            return Err(Error::Stopped { signal, left: "nothing was written".into() });
        }
        if all > 1 && !args.quiet && number == said {
            said += 1;
            eprintln!("{} of {all}: {}", number + 1, folder.display());
        }
        Ok(())
    })?;
    if args.json {
        writeln!(out, "{}", serde_json::json!({"folders": written}))?;
    } else if !args.quiet {
        let what =
            if written.len() == 1 { "a repository for the Hub".into() } else { format!("{} models", written.len()) };
        writeln!(out, "{}: {what}; its README.md says how to load it", args.out.display())?;
    }
    Ok(())
}
