//! `antlm train`: from text to a trained model, or on with an interrupted run.

use std::io::Write;

use antlm::train::events::{Event, Listener};
use anyhow::Result;

use crate::args::Train;
use crate::progress::Progress;

pub fn run(args: &Train, out: &mut impl Write) -> Result<()> {
    let _cancel = crate::signals::install()?; // Fn() -> Option<i32>
    let mut _listeners: Vec<Box<dyn Listener + '_>> = Vec::new();
    if args.json {
        _listeners.push(Box::new(JsonLines(out)));
    } else if !args.quiet {
        _listeners.push(Box::new(Progress::new()));
    }
    // CALL SITE: antlm::train::run::{train, resume} go here, with args, `_listeners` and `_cancel`.
    let what = args.resume.as_ref().or(args.out.as_ref()).map(|p| p.display().to_string()).unwrap_or_default();
    anyhow::bail!("train into {what}: not built yet")
}

/// Prints every event as a line of JSON.
struct JsonLines<'a, W: Write>(&'a mut W);

impl<W: Write> Listener for JsonLines<'_, W> {
    fn event(&mut self, event: &Event) -> antlm::Result<()> {
        // Events are plain data, which serde_json always accepts.
        let line = serde_json::to_string(event).expect("an event is JSON");
        writeln!(self.0, "{line}").and_then(|()| self.0.flush()).map_err(antlm::Error::io("<stdout>"))
    }
}
