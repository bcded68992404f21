//! `antlm fill`: the likeliest words for the masks of a text.

use std::io::{BufRead, Write};

use antlm::eval::fill::{BEAM, Filled, Filler, Options, Word};
use antlm::objective::Backend;
use antlm::train::trained::Trained;
use anyhow::Result;

use crate::args::Fill;
use crate::output::table;

pub fn run(args: &Fill, input: impl BufRead, out: &mut impl Write) -> Result<()> {
    super::use_threads(None)?;
    let (top, word_tokens) = (args.top, args.max_word_tokens);
    let mut options = Options { backend: args.backend.map_or(Backend::Mntp, Into::into), top, word_tokens };
    options.check()?;
    let trained = if args.ema { Trained::open_ema(&args.run)? } else { Trained::open(&args.run)? };
    if args.backend.is_none() {
        // Without any masked training, mntp: there an output predicts the next token, as clm teaches.
        options.backend = trained.last_masked().unwrap_or(Backend::Mntp);
    }
    if !args.quiet {
        note(&trained.trained(), options.backend);
    }
    let mut filler = Filler::new(trained);
    for text in super::score::texts(args.text.as_deref(), input) {
        let filled = filler.fill(&text?, &options)?;
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&filled)?)?;
        } else {
            show(&filled, &options, out)?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Says on stderr when the model was not trained for this.
fn note(trained: &[Backend], backend: Backend) {
    let names: Vec<String> = trained.iter().map(ToString::to_string).collect();
    match trained {
        _ if trained.contains(&backend) => {}
        [] => eprintln!("antlm: note: this model has not been trained yet; its words mean nothing"),
        [Backend::Causal] => eprintln!(
            "antlm: note: this model was trained with clm only and has never seen a mask; its words mean little. \
             `antlm generate` is what it was trained for"
        ),
        _ => eprintln!(
            "antlm: note: this model was not trained to be read by {backend}, only by {}; its words mean little",
            names.join(" and ")
        ),
    }
}

fn show(filled: &Filled, options: &Options, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{}", filled.text)?;
    for (number, words) in filled.masks.iter().enumerate() {
        if filled.masks.len() > 1 {
            writeln!(out, "mask {}, all others masked", number + 1)?;
        }
        for length in 1..=options.word_tokens {
            if options.word_tokens > 1 {
                let s = if length == 1 { "" } else { "s" };
                writeln!(out, "words of {length} token{s}")?;
            }
            let words: Vec<&Word> = words.iter().filter(|word| word.ids.len() == length).collect();
            let rows: Vec<Vec<String>> =
                words.iter().map(|word| vec![probability(word.p), word.word.clone()]).collect();
            if rows.is_empty() {
                writeln!(out, "  none found that fits here")?;
            } else {
                table(out, &[">       p", "word"], &rows)?;
            }
        }
    }
    if filled.masks.len() > 1 {
        let beam = BEAM.max(2 * options.top);
        writeln!(out, "together, filled from the left (the best that a beam of {beam} found)")?;
        let rows: Vec<Vec<String>> =
            filled.together.iter().map(|filling| vec![probability(filling.p), filling.text.clone()]).collect();
        if rows.is_empty() {
            writeln!(out, "  none found that fits here")?;
        } else {
            table(out, &[">       p", "text"], &rows)?;
        }
    }
    Ok(())
}

/// Four digits behind the point, or the exponent of what would be 0 with these.
fn probability(p: f64) -> String {
    if p >= 0.00005 { format!("{p:.4}") } else { format!("{p:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_any_size_are_shown() {
        assert_eq!([0.5, 0.00005, 0.00004, 3e-12].map(probability), ["0.5000", "0.0001", "4.0e-5", "3.0e-12"]);
    }
}
