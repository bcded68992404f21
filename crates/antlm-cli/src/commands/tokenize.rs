//! `antlm tokenize`: how a tokenizer cuts text, and what ids stand for.

use std::io::{BufRead, Write};

use antlm::text::tokens::cut;
use antlm::train::trained;
use antlm::{Error, text::tokenizer::Tokenizer};
use anyhow::Result;

use crate::args::Tokenize;
use crate::output::{grouped, table};

pub fn run(args: &Tokenize, input: impl BufRead, out: &mut impl Write) -> Result<()> {
    let tokenizer = trained::tokenizer(&args.from)?;
    for text in super::score::texts(args.text.as_deref(), input) {
        let text = text?;
        if args.decode {
            let ids = ids(&text, &tokenizer)?;
            // The space that the tokenizer puts before a first word.
            let decoded = tokenizer.decode(&ids);
            let decoded = decoded.strip_prefix(' ').unwrap_or(&decoded);
            if args.json {
                writeln!(out, "{}", serde_json::json!({ "ids": ids, "text": decoded }))?;
            } else {
                writeln!(out, "{decoded}")?;
            }
            continue;
        }
        let cut = cut(&tokenizer, &text)?;
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&cut)?)?;
            continue;
        }
        let tokens = cut.ids.iter().zip(&cut.tokens).zip(&cut.offsets);
        let rows: Vec<Vec<String>> = tokens
            .map(|((id, token), (from, to))| vec![id.to_string(), token.clone(), format!("{from}-{to}")])
            .collect();
        table(out, &[">id", "token", "characters"], &rows)?;
        writeln!(out, "{} words, {} tokens", grouped(cut.words), grouped(cut.ids.len() as u64))?;
    }
    Ok(())
}

/// Numbers of tokens that there are.
fn ids(text: &str, tokenizer: &Tokenizer) -> antlm::Result<Vec<u32>> {
    let most = tokenizer.vocab_size() - 1;
    let numbers = text.split(|c: char| c.is_whitespace() || c == ',').filter(|number| !number.is_empty());
    numbers
        .map(|number| match number.parse() {
            Ok(id) if id as usize <= most => Ok(id),
            _ => {
                let shown: String = number.chars().take(30).collect();
                Err(Error::Usage(format!(
                    "{shown:?} is no token's id; with --decode the text is numbers from 0 to {most}"
                )))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use antlm::text::special::Family;

    #[test]
    fn ids_are_numbers_of_tokens() {
        let tokenizer = Tokenizer::train(["a b"; 3], 261, 2, Family::Llama).unwrap();
        assert_eq!(ids(" 1, 2 260,\t0", &tokenizer).unwrap(), [1, 2, 260, 0]);
        for wrong in ["261", "-1", "two", "1.5", "99999999999999999999"] {
            let error = ids(&format!("5 {wrong}"), &tokenizer).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("0 to 260"), "{error}");
        }
    }
}
