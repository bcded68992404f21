//! `antlm train`: from text to a trained model, or on with an interrupted run.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Instant;

use antlm::error::TIME_UP;
use antlm::recipe::{Recipe, size};
use antlm::text::prepare::{self, Prepared, TokenizerChoice};
use antlm::train::events::{Event, Listener};
use antlm::train::tensorboard::TensorBoard;
use antlm::train::trained::{self, Trained, Weights};
use antlm::train::{input, run, run_folder};
use anyhow::Result;

use crate::args::Train;
use crate::progress::{Progress, Warnings};
use crate::signals::Signals;

pub fn run(args: &Train, out: &mut impl Write) -> Result<()> {
    super::use_threads(args.threads)?;
    train(args, &crate::signals::install()?, out)
}

/// Trains, or goes on, in a process whose threads and signals are set up. The time of --stop-after begins here.
pub fn train(args: &Train, signals: &Signals, out: &mut impl Write) -> Result<()> {
    let began = Instant::now();
    let is_late = || args.stop_after.is_some_and(|most| began.elapsed() >= most);
    let cancel: &dyn Fn() -> Option<i32> = &|| signals.stop().or_else(|| is_late().then_some(TIME_UP));
    let mut listeners: Vec<Box<dyn Listener + '_>> = Vec::new();
    if args.json {
        listeners.push(Box::new(JsonLines(Some(out))));
    } else if !args.quiet {
        listeners.push(Box::new(Progress::new()));
    } else {
        listeners.push(Box::new(Warnings));
    }
    let device = args.device.open(args.quiet || args.json)?;
    let run = match &args.resume {
        Some(folder) => run::resume_on(folder, &device)?,
        None => {
            // clap asks for both unless --resume is there.
            let (name, folder) = (args.recipe.clone().unwrap_or_default(), args.out.clone().unwrap_or_default());
            let again = if args.other_data { None } else { Recipe::used_by(&name)? };
            // A run that started anew and now starts from a model is not meant to be the same.
            let again = again.filter(|used| args.init.is_none() || used.init.is_some());
            let mut recipe = super::recipe(&name, &args.set, args.track.as_deref())?;
            if let Some(seed) = args.seed {
                recipe.seed = seed;
            }
            input::choose(&mut recipe, &args.text, args.dev.as_slice(), args.cleaning)?;
            run_folder::check_new(&folder)?;
            size::check_memory_on(&recipe, &device)?;
            let init = args.init.as_ref().map(|path| trained::open(path, Weights::Last)).transpose()?;
            if let Some(init) = &init {
                init.check_fits(&recipe)?;
            }
            if let Some(used) = &again {
                input::check_origin(&name, used, init.as_ref())?;
            }
            let prepared = prepared(args, &recipe, init.as_ref(), &folder, cancel)?;
            if let Some(used) = &again {
                input::check_same(&name, used, &prepared)?;
            }
            run::create_on(&recipe, prepared, init, &folder, &device)?
        }
    };
    if let Some(memory) = run.memory().filter(|_| !args.quiet && !args.json) {
        eprintln!("{memory}");
    }
    if args.tensorboard || TensorBoard::is_there(run.path()) {
        listeners.push(Box::new(TensorBoard::open(run.path())?));
    }
    let signals = signals.clone();
    Ok(run.save_when(move || signals.save()).train(&mut listeners, cancel)?)
}

/// Text that `antlm prepare` made, if `--text` names its folder; otherwise prepares it, or uses again what is there,
/// in a folder beside the run.
fn prepared(
    args: &Train,
    recipe: &Recipe,
    init: Option<&Trained>,
    folder: &Path,
    cancel: &dyn Fn() -> Option<i32>,
) -> Result<Prepared> {
    if let Some(dir) = input::prepared_dir(&args.text) {
        return Ok(input::open(recipe, dir, args.dev.is_some())?);
    }
    let mut options = input::options(recipe, &[], &[])?;
    if let Some(init) = init {
        options.tokenizer = TokenizerChoice::File(init.run.join(run_folder::TOKENIZER));
    }
    super::prepare::with_progress(args.quiet || args.json, cancel, |progress, cancelled| {
        prepare::prepare_beside(&options, folder, progress, cancelled)
    })
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
