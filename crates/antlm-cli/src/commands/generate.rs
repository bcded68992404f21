//! `antlm generate`: text as a model continues it, shown while it is made.

use std::io::Write;

use antlm::Error;
use antlm::eval::generate::{Generator, Options};
use antlm::eval::sampling::Sampling;
use antlm::objective::Backend;
use antlm::train::trained::Trained;
use anyhow::Result;

use crate::args::Generate;

pub fn run(args: &Generate, out: &mut impl Write) -> Result<()> {
    let sampling = Sampling { temperature: args.temperature, top_k: args.top_k, top_p: args.top_p, min_p: args.min_p };
    let (stop, seed, max_tokens) = (args.stop.clone(), args.seed, args.max_tokens);
    let options = Options { sampling, seed, max_tokens, stop, ..Options::default() };
    options.check()?;
    super::use_threads(None)?;
    let signals = crate::signals::install()?;
    let cancel = || signals.stop();
    let trained = if args.ema { Trained::open_ema(&args.run)? } else { Trained::open(&args.run)? };
    let mut notes = Notes { quiet: args.quiet, length: trained.recipe.seq_len, said: false };
    notes.on_training(&trained.trained());
    let mut generator = Generator::new(trained).on(&args.device.open(args.quiet)?)?;
    let prompt = generator.read(&args.prompt)?;
    notes.on_length(prompt.tokens());
    for sample in 0..args.count {
        if !args.json {
            write!(out, "{}{}", if sample == 0 { "" } else { "\n" }, args.prompt.trim_end())?;
            out.flush()?;
        }
        let result = generator.generate(&prompt, sample, &options, &mut |piece| {
            if !args.json && !piece.is_empty() {
                write!(out, "{piece}").and_then(|()| out.flush()).map_err(Error::io("<stdout>"))?;
            }
            match cancel() {
                Some(signal) => Err(Error::Stopped { signal, left: "the text ends here".into() }),
                None => Ok(()),
            }
        });
        if !args.json {
            writeln!(out)?;
        }
        let generated = result?;
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&generated)?)?;
        }
        out.flush()?;
        notes.on_length(prompt.tokens() + generated.ids.len());
    }
    Ok(())
}

/// What the user should know of the text, on stderr.
struct Notes {
    quiet: bool,
    /// Tokens of a training segment.
    length: usize,
    /// The note on the length was said.
    said: bool,
}

impl Notes {
    fn on_training(&self, trained: &[Backend]) {
        if self.quiet || trained.contains(&Backend::Causal) {
            return;
        }
        let why = match trained {
            [] => "has not been trained yet",
            [Backend::Mntp] => {
                "was trained with mntp only: it predicts the next token, but learnt that with the text on the right in sight"
            }
            [Backend::Mlm] => {
                "was trained with mlm only: nothing taught it to read from left to right, nor to predict the next token \
                 rather than the masked one"
            }
            _ => "was trained with mlm and mntp, not with clm: nothing taught it to read from left to right alone",
        };
        eprintln!("antlm: note: this model {why}; its text will be poor");
    }

    fn on_length(&mut self, tokens: usize) {
        if self.quiet || self.said || tokens <= self.length {
            return;
        }
        self.said = true;
        let length = self.length;
        eprintln!(
            "antlm: note: {tokens} tokens with the prompt, but the model was trained on segments of {length}; it can read \
             on, but past {length} tokens its text is likely to be worse"
        );
    }
}
