//! `antlm score`: log-probabilities of the sentences on standard input.

use std::io::{BufRead, IsTerminal, Write};

use antlm::eval::score::Scorer;
use antlm::{Error, Result};

use crate::args::Score;

pub fn run(args: &Score, input: impl BufRead, out: &mut impl Write) -> anyhow::Result<()> {
    super::use_threads(None)?;
    let mut scorer = if args.ema { Scorer::open_ema(&args.run)? } else { Scorer::open(&args.run)? };
    scorer = scorer.on(&args.device.open(args.quiet)?)?;
    let backend = args.backend.map_or(scorer.last(), Into::into);
    if !args.quiet && !scorer.trained().contains(&backend) {
        let trained: Vec<String> = scorer.trained().iter().map(ToString::to_string).collect();
        eprintln!(
            "antlm: note: this model was not trained to be read by {backend}, only by {}; its numbers mean little",
            trained.join(" and ")
        );
    }
    for sentence in texts(None, input) {
        let score = scorer.score(&sentence?, backend)?;
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&score)?)?;
        } else {
            writeln!(out, "{:.4}\t{}", score.total, score.text)?;
        }
        out.flush()?;
    }
    Ok(())
}

/// A text that was given, or else the lines of the input.
pub fn texts<'a>(given: Option<&str>, input: impl BufRead + 'a) -> Box<dyn Iterator<Item = Result<String>> + 'a> {
    match given {
        Some(text) => Box::new(std::iter::once(Ok(text.to_owned()))),
        None => {
            // Whoever forgot the text would wait for us, and we for them.
            if std::io::stdin().is_terminal() {
                eprintln!("antlm: note: reading lines from the keyboard; Ctrl-D (on Windows Ctrl-Z, Enter) ends them");
            }
            Box::new(sentences(input))
        }
    }
}

/// The lines of the input without their ends; empty lines are skipped.
fn sentences(input: impl BufRead) -> impl Iterator<Item = Result<String>> {
    let lines = input.split(b'\n').enumerate().map(|(number, line)| {
        let mut line = line.map_err(Error::io("<stdin>"))?;
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map_err(|e| {
            let place = format!("line {}, byte {}", number + 1, e.utf8_error().valid_up_to());
            Error::data("<stdin>", place, "not UTF-8; convert the file first (iconv -t UTF-8)")
        })
    });
    lines.filter(|line| line.as_ref().map_or(true, |text| !text.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_lines() {
        let lines: Vec<String> = sentences(&b"One dog.\r\n\n  \nTwo\tdogs"[..]).map(Result::unwrap).collect();
        assert_eq!(lines, ["One dog.", "Two\tdogs"]);
        let error = sentences(&b"fine\nna\xefve\n"[..]).last().unwrap().unwrap_err().to_string();
        assert!(error.contains("<stdin>: line 2, byte 2: not UTF-8"), "{error}");
    }
}
