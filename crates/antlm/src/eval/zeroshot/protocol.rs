//! Which tokens of a text are scored, and how they add up: the three official protocols. They give different numbers, so
//! each number is printed with its own.
//!
//! | name | text | score |
//! |---|---|---|
//! | `2026` (and 2025) | the tokenizer's own framing: opening mark, then the text | sum over tokens that end behind the context |
//! | `lm-eval` (2024 causal, 2026 multilingual) | opening mark, then a space and the text | sum over all tokens but the mark |
//! | the same, behind a context | the text, no mark | sum over tokens behind as many as the context has |
//! | `2024` with masks (minicons) | opening mark, closing mark, two spaces, then the text | mean over all tokens but the marks |
//! | the same, behind a context | opening mark, context, one space more, then the rest | mean over tokens behind as many as the context has |

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::items::Candidate;
use crate::eval::pack::Request;
use crate::eval::score::framed;
use crate::objective::Backend;
use crate::text::special::{CLS, SEP};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A protocol of the official pipelines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// BabyLM 2025 and 2026, strict tracks.
    #[default]
    #[serde(rename = "2026")]
    Y2026,
    /// BabyLM 2024: causal as [`Protocol::LmEval`], masked as minicons does.
    #[serde(rename = "2024")]
    Y2024,
    /// lm-evaluation-harness.
    #[serde(rename = "lm-eval")]
    LmEval,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Protocol::Y2026 => "2026",
            Protocol::Y2024 => "2024",
            Protocol::LmEval => "lm-eval",
        })
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Protocol> {
        match text {
            // The two years' scripts are the same.
            "2026" | "2025" => Ok(Protocol::Y2026),
            "2024" => Ok(Protocol::Y2024),
            "lm-eval" => Ok(Protocol::LmEval),
            other => Err(Error::Usage(format!("no protocol {other:?}; there are 2026, 2024 and lm-eval"))),
        }
    }
}

/// How the tokens' log-probabilities become a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
}

impl Total {
    /// The score.
    pub fn of(self, logprobs: &[f64]) -> f64 {
        let sum: f64 = logprobs.iter().sum();
        match self {
            Total::Sum => sum,
            Total::Mean => sum / logprobs.len().max(1) as f64,
        }
    }
}

impl Protocol {
    /// How scores are made of a backend's log-probabilities.
    pub fn total(self, backend: Backend) -> Total {
        match (self, backend) {
            (Protocol::Y2024, Backend::Mlm | Backend::Mntp) => Total::Mean,
            _ => Total::Sum,
        }
    }

    /// A candidate's tokens, and which of them are scored.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn request(self, backend: Backend, tokenizer: &Tokenizer, candidate: &Candidate) -> Result<Request> {
        let Candidate { text, start, .. } = candidate;
        match (self, backend) {
            (Protocol::Y2026, _) => {
                let (tokens, offsets) = tokenizer.encode_with_offsets(text)?;
                let scored = (1..).zip(&offsets).filter(|(_, (_, end))| end > start).map(|(place, _)| place);
                Ok(Request { scored: scored.collect(), ids: [&[CLS][..], &tokens].concat() })
            }
            (Protocol::Y2024, Backend::Mlm | Backend::Mntp) => {
                let (context, rest) = cut(text, *start);
                let (ids, behind) = if context.is_empty() {
                    ([&[CLS, SEP][..], &tokenizer.encode(&format!("  {rest}"))?].concat(), 2)
                } else {
                    (framed(tokenizer, &format!("{context} {rest}"))?, framed(tokenizer, context)?.len())
                };
                Ok(Request { scored: (behind as u32..ids.len() as u32).collect(), ids })
            }
            (Protocol::Y2024 | Protocol::LmEval, _) => {
                let (context, rest) = cut(text, *start);
                let (ids, behind) = if context.is_empty() {
                    (framed(tokenizer, &format!(" {rest}"))?, 1)
                } else {
                    // The harness moves spaces from the end of a context to what follows, and gives no mark.
                    (tokenizer.encode(text)?, tokenizer.encode(context.trim_end())?.len())
                };
                // Behind nothing, the first token has nothing to be read from.
                Ok(Request { scored: (behind.max(1) as u32..ids.len() as u32).collect(), ids })
            }
        }
    }
}

/// The first so many characters of a text, and the others.
fn cut(text: &str, characters: usize) -> (&str, &str) {
    text.split_at(text.char_indices().nth(characters).map_or(text.len(), |(byte, _)| byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::special::Family;

    fn tokenizer() -> Tokenizer {
        Tokenizer::train(["the cat sat on the mat and the hat é"; 9], 300, 2, Family::LtgBert).unwrap()
    }

    fn names(tokenizer: &Tokenizer, request: &Request) -> (String, String) {
        let all: Vec<&str> = request.ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect();
        let scored: Vec<&str> = request.scored.iter().map(|&place| all[place as usize]).collect();
        (all.join(" "), scored.join(" "))
    }

    fn asked(protocol: Protocol, backend: Backend, text: &str, start: usize) -> (String, String) {
        let candidate = Candidate { text: text.into(), start, name: String::new() };
        let tokenizer = tokenizer();
        names(&tokenizer, &protocol.request(backend, &tokenizer, &candidate).unwrap())
    }

    #[test]
    fn texts_are_framed_and_cut_as_the_protocols_say() {
        let new = |backend, text, start| asked(Protocol::Y2026, backend, text, start);
        for backend in [Backend::Causal, Backend::Mlm, Backend::Mntp] {
            let expected = ("[CLS] Ġthe Ġcat Ġsat".to_owned(), "Ġthe Ġcat Ġsat".to_owned());
            assert_eq!(new(backend, "the cat sat", 0), expected);
            // " sat" begins behind "the cat"; "sat" behind "the cat " is the same token.
            for start in [7, 8] {
                assert_eq!(new(backend, "the cat sat", start).1, "Ġsat");
            }
        }
        // Characters are counted, not bytes; a token that reaches over the border is scored.
        assert_eq!(new(Backend::Causal, "é é the", 3).1, "Ġthe");
        assert_eq!(new(Backend::Causal, "the cat sat", 5).1, "Ġcat Ġsat");

        let old = |backend| asked(Protocol::Y2024, backend, "the cat", 0);
        assert_eq!(old(Backend::Mlm), ("[CLS] [SEP] Ġ Ġthe Ġcat".to_owned(), "Ġ Ġthe Ġcat".to_owned()));
        assert_eq!(old(Backend::Causal), ("[CLS] Ġthe Ġcat".to_owned(), "Ġthe Ġcat".to_owned()));
        // Behind a context: the harness gives no mark, minicons one space more, which counts.
        let whole = ("[CLS] Ġthe Ġcat Ġ Ġsat".to_owned(), "Ġ Ġsat".to_owned());
        assert_eq!(asked(Protocol::Y2024, Backend::Mlm, "the cat sat", 7), whole);
        for protocol in [Protocol::Y2024, Protocol::LmEval] {
            for start in [7, 8] {
                let whole = ("Ġthe Ġcat Ġsat".to_owned(), "Ġsat".to_owned());
                assert_eq!(asked(protocol, Backend::Causal, "the cat sat", start), whole);
            }
        }
        assert_eq!((Protocol::Y2024.total(Backend::Mlm), Total::Mean.of(&[-1.0, -3.0])), (Total::Mean, -2.0));
        assert_eq!((Protocol::Y2024.total(Backend::Causal), Total::Sum.of(&[-1.0, -3.0])), (Total::Sum, -4.0));
    }

    #[test]
    fn names_are_read_back() {
        for protocol in [Protocol::Y2026, Protocol::Y2024, Protocol::LmEval] {
            assert_eq!(protocol.to_string().parse::<Protocol>().unwrap(), protocol);
        }
        assert!("2023".parse::<Protocol>().unwrap_err().to_string().contains("lm-eval"));
    }
}
