//! Text from a trained model, token by token from left to right, with the keys and values of what came before kept.
//!
//! A text begins with the opening mark and the prompt, as a training segment does. Of the special tokens only the
//! closing mark can be drawn, and it ends the text. The random number of a token is f(seed, position, sample), so a text
//! depends neither on threads nor on what was generated before it.

use std::sync::Arc;

use antlm_nn::device::{Buffer, Device};
use antlm_nn::rng::{Rng, Stream};
use antlm_nn::tape::{Pool, Tape};
use serde::Serialize;

use super::sampling::{Sampling, log_softmax};
use crate::model::{Cache, Rows};
use crate::text::special::{CLS, FIRST_ORDINARY, SEP};
use crate::text::tokenizer::Tokenizer;
use crate::text::tokens::Characters;
use crate::train::trained::Trained;
use crate::{Error, Result};

/// Tokens that a prompt may have, and tokens that may be generated after it.
pub const MOST_TOKENS: usize = 4096;

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Seed of the random numbers.
    pub seed: u64,
    /// The text ends after so many tokens, if nothing else ends it before.
    pub max_tokens: usize,
    /// The text ends before the first of these that is complete.
    pub stop: Vec<String>,
    /// Keep keys and values. Without, every token is computed from the whole text again: slow, and the same text.
    pub cache: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { sampling: Sampling::default(), seed: 1, max_tokens: 100, stop: Vec::new(), cache: true }
    }
}

impl Options {
    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::Usage`] with the option and its range.
    pub fn check(&self) -> Result<()> {
        self.sampling.check()?;
        if !(1..=MOST_TOKENS).contains(&self.max_tokens) {
            let what = format!("max-tokens is {}; it must be 1 to {MOST_TOKENS}", self.max_tokens);
            return Err(Error::Usage(what));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::Usage("a stop text is empty; leave it out to stop at nothing".into()));
        }
        Ok(())
    }
}

/// What ended a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The model: it drew the closing mark, which stands at the ends of documents.
    Mark,
    /// A stop text.
    Stop,
    /// The limit of tokens.
    Limit,
}

/// A generated text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Generated {
    /// The prompt, without spaces at its end.
    pub prompt: String,
    /// What follows it. It begins with a space where a new word begins, unless the prompt is empty.
    pub text: String,
    /// The tokens drawn after the prompt: `[n]`. Those of a stop text are among them.
    pub ids: Vec<u32>,
    /// Natural logarithm of each token's probability as the model gives it, before temperature and cuts: `[n]`. It is
    /// what the backend `causal` scores.
    pub logprobs: Vec<f64>,
    /// What ended it.
    pub end: End,
    /// Which of several texts it is.
    pub sample: u32,
}

/// A prompt that the model has read.
#[derive(Clone, Debug)]
pub struct Prompt {
    text: String,
    /// The opening mark and the prompt's tokens.
    ids: Vec<u32>,
    /// Logits of the token that follows: `[V]`.
    logits: Vec<f32>,
    cache: Cache,
}

impl Prompt {
    /// Number of its tokens, with the opening mark.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }
}

/// Generates text with a trained model.
pub struct Generator {
    trained: Trained,
    /// The parameters on a card.
    placed: Option<Buffer>,
    pool: Pool,
}

impl Generator {
    /// Of a model that is open.
    pub fn new(trained: Trained) -> Generator {
        Generator { trained, placed: None, pool: Pool::default() }
    }

    /// The same on a device.
    ///
    /// # Errors
    /// The device's.
    pub fn on(self, device: &Device) -> Result<Generator> {
        Ok(Generator { placed: self.trained.placed(device)?, pool: Pool::of(device.clone()), ..self })
    }

    /// The model.
    pub fn model(&self) -> &Trained {
        &self.trained
    }

    /// Reads a prompt, which may be empty. Spaces at its end are left out: a word's space belongs to the word's token, so
    /// that a model has hardly ever seen one at an end.
    ///
    /// # Errors
    /// [`Error::Usage`] for more than [`MOST_TOKENS`] tokens.
    pub fn read(&mut self, text: &str) -> Result<Prompt> {
        let text = text.trim_end();
        let Trained { model, tokenizer, .. } = &self.trained;
        let mut ids = vec![CLS];
        ids.extend(tokenizer.encode(text)?);
        if ids.len() > MOST_TOKENS {
            let what = format!("the prompt has {} tokens; at most {MOST_TOKENS} are read", ids.len());
            return Err(Error::Usage(what));
        }
        let mut cache = model.cache(self.trained.read_from(&self.placed), &mut self.pool)?;
        let logits = self.next(&ids, &mut cache)?;
        Ok(Prompt { text: text.to_owned(), ids, logits, cache })
    }

    /// Generates text number `sample` after a prompt. `listener` is called after every token with the text that has
    /// become certain, which may be empty; its pieces together are the result's text.
    ///
    /// # Errors
    /// [`Error::Usage`] for [wrong options](Options::check), or when the model gives no number (its weights are broken);
    /// what `listener` returns.
    pub fn generate(
        &mut self,
        prompt: &Prompt,
        sample: u32,
        options: &Options,
        listener: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Generated> {
        options.check()?;
        let rng = Rng::new(options.seed);
        let Prompt { text, ids: read, logits, cache } = prompt.clone();
        let (mut all, mut logits, mut cache) = (read, logits, cache);
        let (first, mut logprobs, mut end) = (all.len(), Vec::new(), End::Limit);
        // The tokenizer puts a space before the first word; a text that begins with it is shown without.
        let mut writer = Writer::new(&options.stop, text.is_empty());
        while all.len() - first < options.max_tokens {
            let position = all.len();
            let log_p = log_softmax(&logits);
            for id in (0..FIRST_ORDINARY).filter(|&id| id != SEP) {
                logits[id as usize] = f32::NEG_INFINITY;
            }
            let drawn = options.sampling.draw(&logits, rng.unit(Stream::GENERATE, position as u32, sample, 0));
            let Some(id) = drawn.filter(|&id| log_p[id as usize].is_finite()) else {
                return Err(Error::Usage(format!("the model gives no number for token {position} of the text")));
            };
            if id == SEP {
                end = End::Mark;
                break;
            }
            all.push(id);
            logprobs.push(log_p[id as usize]);
            let stopped = writer.push(&self.trained.tokenizer, id);
            listener(writer.certain())?;
            if stopped {
                end = End::Stop;
                break;
            }
            if all.len() - first < options.max_tokens {
                logits = if options.cache { self.next(&[id], &mut cache)? } else { self.whole(&all)? };
            }
        }
        let generated = writer.finish();
        listener(&generated.rest)?;
        let ids = all.split_off(first);
        Ok(Generated { prompt: text, text: generated.text, ids, logprobs, end, sample })
    }

    /// Logits after the last of `ids`, which follow the tokens of the cache: `[V]`.
    fn next(&mut self, ids: &[u32], cache: &mut Cache) -> Result<Vec<f32>> {
        let (model, params) = (&self.trained.model, self.trained.read_from(&self.placed));
        let mut tape = Tape::new(params, None, None, &mut self.pool)?;
        let last = Arc::from([ids.len() as u32 - 1]);
        let logits = model.logits_next(&mut tape, &Arc::from(ids), &last, cache)?;
        Ok(tape.read(logits)?.into_owned())
    }

    /// The same from the whole text, without a cache.
    fn whole(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        let (model, params) = (&self.trained.model, self.trained.read_from(&self.placed));
        let mut tape = Tape::new(params, None, None, &mut self.pool)?;
        let n = ids.len() as u32;
        let (bounds, picked) = (Arc::from([0, n]), Arc::from([n - 1]));
        let rows = Rows { ids: Arc::from(ids), bounds, picked, causal: true, first: 0, shared: None };
        let logits = model.logits(&mut tape, &rows)?;
        Ok(tape.read(logits)?.into_owned())
    }
}

/// Turns tokens into text that can be shown: whole characters, and nothing that may be the beginning of a stop text.
struct Writer<'a> {
    stop: &'a [String],
    characters: Characters,
    /// Whole characters, without a stop text once one is complete.
    text: String,
    /// How much of `text` is certain, and how much of that the listener has had.
    certain: usize,
    shown: usize,
    /// One space at the beginning is left out.
    skip_space: bool,
}

/// What [`Writer::finish`] gives back: all text, and what of it was held back until the end.
struct Finished {
    text: String,
    rest: String,
}

impl<'a> Writer<'a> {
    fn new(stop: &'a [String], skip_space: bool) -> Writer<'a> {
        Writer { stop, characters: Characters::default(), text: String::new(), certain: 0, shown: 0, skip_space }
    }

    /// Adds a token. True when a stop text is complete; it is then cut off, and nothing comes after it.
    fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> bool {
        let mut new = String::new();
        self.characters.push(tokenizer, id, &mut new);
        self.push_text(&new)
    }

    /// Character by character, so that it does not matter how the text was cut into tokens.
    fn push_text(&mut self, new: &str) -> bool {
        for c in new.chars() {
            if std::mem::take(&mut self.skip_space) && c == ' ' {
                continue;
            }
            self.text.push(c);
            // The longest of those that end here begins first.
            let ends = self.stop.iter().filter(|stop| self.text.ends_with(stop.as_str())).map(String::len).max();
            if let Some(length) = ends {
                self.text.truncate(self.text.len() - length);
                self.certain = self.text.len();
                self.characters = Characters::default();
                return true;
            }
        }
        self.certain = self.text.len() - self.held();
        false
    }

    /// Bytes at the end of the text that a stop text begins with.
    fn held(&self) -> usize {
        let starts = |stop: &String| {
            let mut cuts = stop.char_indices().map(|(at, _)| at).rev();
            cuts.find(|&at| self.text.ends_with(&stop[..at])).unwrap_or(0)
        };
        self.stop.iter().map(starts).max().unwrap_or(0)
    }

    /// What has become certain since the last call.
    fn certain(&mut self) -> &str {
        let from = std::mem::replace(&mut self.shown, self.certain);
        &self.text[from..self.certain]
    }

    fn finish(mut self) -> Finished {
        let mut last = String::new();
        std::mem::take(&mut self.characters).finish(&mut last);
        self.push_text(&last);
        Finished { rest: self.text[self.shown..].to_owned(), text: self.text }
    }
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
