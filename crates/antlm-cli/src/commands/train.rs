//! `antlm train`: from text to a trained model, or on with an interrupted run.

use std::io::{ErrorKind, Write};

use antlm::recipe::Recipe;
use antlm::train::events::{Event, Listener};
use antlm::train::{input, run_folder};
use anyhow::Result;

use crate::args::Train;
use crate::progress::Progress;

pub fn run(args: &Train, out: &mut impl Write) -> Result<()> {
    super::use_threads(args.threads)?;
    let _cancel = crate::signals::install()?; // Fn() -> Option<i32>
    let mut _listeners: Vec<Box<dyn Listener + '_>> = Vec::new();
    if args.json {
        _listeners.push(Box::new(JsonLines(Some(out))));
    } else if !args.quiet {
        _listeners.push(Box::new(Progress::new()));
    }
    if let Some(run) = &args.resume {
        run_folder::check_run(run)?;
        // CALL SITE: antlm::train::run::resume(run, &mut _listeners, &_cancel).
        anyhow::bail!("train --resume {}: not built yet", run.display());
    }
    // clap asks for both unless --resume is there.
    let (name, folder) = (args.recipe.clone().unwrap_or_default(), args.out.clone().unwrap_or_default());
    let mut recipe = Recipe::load(&name, &args.set)?;
    if let Some(seed) = args.seed {
        recipe.seed = seed;
    }
    let _options = input::options(&recipe, &args.text, args.dev.as_slice())?;
    // CALL SITE: antlm::train::run::train(&recipe, &_options, &folder, &mut _listeners, &_cancel).
    anyhow::bail!("train {} into {}: not built yet", recipe.name, folder.display())
}

/// Prints every event as a line of JSON. When nobody reads them any more, the run goes on without.
struct JsonLines<'a, W: Write>(Option<&'a mut W>);

impl<W: Write> Listener for JsonLines<'_, W> {
    fn event(&mut self, event: &Event) -> antlm::Result<()> {
        let Some(out) = &mut self.0 else { return Ok(()) };
        // Events are plain data, which serde_json always accepts.
        let line = serde_json::to_string(event).expect("an event is JSON");
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.0 = None,
            result => result.map_err(antlm::Error::io("<stdout>"))?,
        }
        Ok(())
    }
}
