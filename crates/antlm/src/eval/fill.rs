//! Words for the masks of a text, with their probabilities.
//!
//! A mask, written `[MASK]` or `<mask>`, stands for a word, and a space before it belongs to that word, as it does in
//! the tokenizer. A word is what the tokenizer never cuts across: a run of letters, of digits or of other signs. What a
//! text with another word in the mask's place would cut into other tokens than those asked about is left out, so that
//! the probability given is that of the text as it is read.
//!
//! - A word of one token: p(token | everything else, all masks in place), from softmax over the whole vocabulary. With
//!   one mask it is what [`score`](super::score) gives for that token of the filled text.
//! - A word of n tokens: n masks stand in its place, and are filled from the left: p(t1 | n masks) · p(t2 | t1, n - 1
//!   masks) · …; the words of one length share a probability of 1 at most, so words of different lengths cannot be
//!   compared. A beam finds them; a word that begins with an improbable token can be missed.
//! - Several masks: each for itself with all others in place (as one mask token each); and together, one token each, by
//!   the same product from the left over all masks.

use std::sync::Arc;

use antlm_nn::tape::{Pool, Tape};
use serde::Serialize;

use super::sampling::{before, log_softmax};
use super::score::{MOST_TOKENS, ROWS};
use crate::model::Rows;
use crate::objective::Backend;
use crate::text::special::{CLS, FIRST_ORDINARY, Family, MASK};
use crate::text::tokens::{Words, with_prefix};
use crate::train::trained::Trained;
use crate::{Error, Result};

/// Masks that a text may have.
pub const MOST_MASKS: usize = 16;
/// Tokens that a word may be asked to have.
pub const MOST_WORD_TOKENS: usize = 8;
/// Words that may be asked for.
pub const MOST_WORDS: usize = 1000;
/// Fillings that are followed from one mask token to the next, at least; twice as many as are asked for, if that is more.
pub const BEAM: usize = 32;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `mlm` or `mntp`.
    pub backend: Backend,
    /// Words for each mask and length, and fillings of all masks together.
    pub top: usize,
    /// Words of 1 to so many tokens.
    pub word_tokens: usize,
}

/// A word for a mask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Word {
    /// The word, without the space before it.
    pub word: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Its probability, among words of as many tokens.
    pub p: f64,
    /// The natural logarithm of it.
    pub logp: f64,
}

/// A word for each mask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Filling {
    /// The words, in the order of the masks.
    pub words: Vec<String>,
    /// The text with them.
    pub text: String,
    /// The product of p(word | the words before it, masks after it).
    pub p: f64,
    /// The natural logarithm of it.
    pub logp: f64,
}

/// What a model would put in a text's masks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Filled {
    /// The text as given.
    pub text: String,
    /// How the model was read.
    pub backend: Backend,
    /// For each mask, with all masks in place: the likeliest words of one token, then those of two, and so on.
    pub masks: Vec<Vec<Word>>,
    /// The likeliest fillings of all masks together that the beam found, one token each. Empty with a single mask.
    pub together: Vec<Filling>,
}

/// Fills masks with a trained model.
pub struct Filler {
    trained: Trained,
    pool: Pool,
    cutter: Words,
}

/// A text cut at its masks.
struct Template {
    /// What stands between the masks, without the spaces that belong to them: `[masks + 1]`.
    parts: Vec<String>,
    /// Whether a space belongs to each mask's word.
    spaced: Vec<bool>,
    /// The tokens of each part.
    ids: Vec<Vec<u32>>,
}

/// Tokens in place of some masks.
#[derive(Clone, Debug)]
struct Beam {
    /// The whole text: `[n]`.
    ids: Vec<u32>,
    /// What was put in, for each mask that was begun.
    words: Vec<Vec<u32>>,
    logp: f64,
}

impl Filler {
    /// Of a model that is open.
    pub fn new(trained: Trained) -> Filler {
        Filler { trained, pool: Pool::default(), cutter: Words::new() }
    }

    /// The model.
    pub fn model(&self) -> &Trained {
        &self.trained
    }

    /// The words for the masks of `text`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a text without masks, with more than [`MOST_MASKS`] or [`MOST_TOKENS`], for options out of
    /// range, and when the model gives no number (its weights are broken).
    pub fn fill(&mut self, text: &str, options: &Options) -> Result<Filled> {
        options.check()?;
        let template = self.template(text)?;
        let masks = template.spaced.len();
        let mut all = Vec::with_capacity(masks);
        for mask in 0..masks {
            let mut words = Vec::new();
            for length in 1..=options.word_tokens {
                words.extend(self.words(&template, mask, length, options)?);
            }
            all.push(words);
        }
        let together = if masks > 1 { self.together(&template, options)? } else { Vec::new() };
        Ok(Filled { text: text.to_owned(), backend: options.backend, masks: all, together })
    }

    fn template(&mut self, text: &str) -> Result<Template> {
        let names = [Family::LtgBert, Family::Llama].map(|family| family.special_names()[MASK as usize]);
        // As the tokenizer sees a text: newlines are spaces, and there is one before the first word.
        let whole = with_prefix(text);
        let (mut parts, mut spaced, mut rest) = (Vec::new(), Vec::new(), whole.as_str());
        while let Some((at, name)) = names.iter().filter_map(|name| Some((rest.find(name)?, name))).min() {
            let part = &rest[..at];
            let bare = part.strip_suffix(' ');
            spaced.push(bare.is_some());
            parts.push(bare.unwrap_or(part).to_owned());
            rest = &rest[at + name.len()..];
        }
        parts.push(rest.to_owned());
        if spaced.is_empty() {
            let shown: String = text.chars().take(60).collect();
            let what = format!("no mask in {shown:?}; write {} where a word is to be filled in", names.join(" or "));
            return Err(Error::Usage(what));
        }
        if spaced.len() > MOST_MASKS {
            let what = format!("a text with {} masks; at most {MOST_MASKS} are filled", spaced.len());
            return Err(Error::Usage(what));
        }
        let Filler { trained, cutter, .. } = self;
        let ids = parts.iter().map(|part| cutter.encode(&trained.tokenizer, part)).collect::<Result<Vec<_>>>()?;
        let template = Template { parts, spaced, ids };
        let n = template.tokens(&vec![1; template.spaced.len()]).0.len();
        if n > MOST_TOKENS {
            let what = format!("a text of {n} tokens with its masks; at most {MOST_TOKENS} are read");
            return Err(Error::Usage(what));
        }
        Ok(template)
    }

    /// The likeliest words of `length` tokens for one mask, the others being one mask token each.
    fn words(&mut self, template: &Template, mask: usize, length: usize, options: &Options) -> Result<Vec<Word>> {
        let mut lengths = vec![1; template.spaced.len()];
        lengths[mask] = length;
        let (ids, places) = template.tokens(&lengths);
        let slots: Vec<(usize, usize)> = places[mask].clone().map(|place| (mask, place)).collect();
        let mut found = self.search(template, ids, &slots, &lengths, options)?;
        found.truncate(options.top);
        let mut words = Vec::with_capacity(found.len());
        for beam in found {
            let ids = beam.words.concat();
            if let Some(word) = self.cutter.word(&self.trained.tokenizer, &ids, template.spaced[mask])? {
                words.push(Word { word, ids, p: beam.logp.exp(), logp: beam.logp });
            }
        }
        Ok(words)
    }

    /// The likeliest fillings of all masks.
    fn together(&mut self, template: &Template, options: &Options) -> Result<Vec<Filling>> {
        let lengths = vec![1; template.spaced.len()];
        let (ids, places) = template.tokens(&lengths);
        let slots: Vec<(usize, usize)> = places.into_iter().enumerate().map(|(mask, p)| (mask, p.start)).collect();
        let found = self.search(template, ids, &slots, &lengths, options)?;
        let Filler { trained: Trained { tokenizer, .. }, cutter, .. } = self;
        let mut fillings = Vec::new();
        for beam in found {
            let mut words = Vec::with_capacity(lengths.len());
            for (ids, &spaced) in beam.words.iter().zip(&template.spaced) {
                words.extend(cutter.word(tokenizer, ids, spaced)?);
            }
            let text = template.filled(&words);
            // Each word fits its neighbours; the whole is looked at once more.
            if words.len() == lengths.len() && cutter.encode(tokenizer, &text)? == beam.ids[1..] {
                let text = text.strip_prefix(' ').unwrap_or(&text).to_owned();
                fillings.push(Filling { words, text, p: beam.logp.exp(), logp: beam.logp });
            }
            if fillings.len() == options.top {
                break;
            }
        }
        Ok(fillings)
    }

    /// Fills `slots` (which mask, which row) from the left, the likeliest fillings first. With one slot nothing is missed.
    fn search(
        &mut self,
        template: &Template,
        ids: Vec<u32>,
        slots: &[(usize, usize)],
        lengths: &[usize],
        options: &Options,
    ) -> Result<Vec<Beam>> {
        let width = BEAM.max(2 * options.top);
        let mut beams = vec![Beam { ids, words: Vec::new(), logp: 0.0 }];
        for (step, &(mask, place)) in slots.iter().enumerate() {
            let begins = step == 0 || slots[step - 1].0 != mask;
            let ends = slots.get(step + 1).is_none_or(|next| next.0 != mask);
            let rows = self.log_probabilities(&beams, place, options.backend)?;
            // The first time every token is a candidate; later, of each beam's the likeliest.
            let most = if step == 0 { usize::MAX } else { 4 * width };
            let mut candidates = Vec::new();
            for (number, log_p) in rows.iter().enumerate() {
                let mut likeliest: Vec<(u32, f64)> =
                    (0..).zip(log_p.iter().copied()).skip(FIRST_ORDINARY as usize).collect();
                likeliest.sort_unstable_by(before);
                let fits = likeliest.into_iter().filter(|&(id, _)| self.may_stand(id, begins, template.spaced[mask]));
                candidates.extend(fits.take(most).map(|(id, p)| (number, id, beams[number].logp + p)));
            }
            candidates.sort_by(|a, b| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
            let mut next = Vec::new();
            for (number, id, logp) in candidates {
                let mut beam = beams[number].clone();
                beam.ids[place] = id;
                beam.logp = logp;
                if begins {
                    beam.words.push(Vec::with_capacity(lengths[mask]));
                }
                beam.words.last_mut().unwrap_or(&mut Vec::new()).push(id);
                if !ends || self.fits(template, mask, beam.words.last().map_or(&[], Vec::as_slice))? {
                    next.push(beam);
                }
                if next.len() == width {
                    break;
                }
            }
            beams = next;
        }
        Ok(beams)
    }

    /// Whether a token may stand in a word: at its beginning with a space or without, and without whitespace inside.
    fn may_stand(&self, id: u32, begins: bool, spaced: bool) -> bool {
        let mut bytes = Vec::new();
        self.trained.tokenizer.push_bytes(id, &mut bytes);
        let space = bytes.first() == Some(&b' ');
        let rest = if space { &bytes[1..] } else { &bytes[..] };
        space == (begins && spaced) && !rest.iter().any(u8::is_ascii_whitespace)
    }

    /// Whether tokens are a word that, between what stands around the mask, is cut into these very tokens.
    fn fits(&mut self, template: &Template, mask: usize, ids: &[u32]) -> Result<bool> {
        let Filler { trained: Trained { tokenizer, .. }, cutter, .. } = self;
        let Some(word) = cutter.word(tokenizer, ids, template.spaced[mask])? else { return Ok(false) };
        let (left, right) = (&template.parts[mask], &template.parts[mask + 1]);
        let space = if template.spaced[mask] { " " } else { "" };
        let whole = cutter.encode(tokenizer, &format!("{left}{space}{word}{right}"))?;
        Ok(whole == [&template.ids[mask][..], ids, &template.ids[mask + 1]].concat())
    }

    /// Logarithms of the probabilities of all tokens at a row of each text: `[beams][V]`.
    fn log_probabilities(&mut self, beams: &[Beam], place: usize, backend: Backend) -> Result<Vec<Vec<f64>>> {
        let Trained { model, params, .. } = &self.trained;
        let (n, row) = (beams.first().map_or(1, |beam| beam.ids.len()), place - usize::from(backend == Backend::Mntp));
        let mut all = Vec::with_capacity(beams.len());
        for beams in beams.chunks((ROWS / n).max(1)) {
            let ids: Arc<[u32]> = beams.iter().flat_map(|beam| beam.ids.iter().copied()).collect();
            let bounds = (0..=beams.len()).map(|beam| (beam * n) as u32).collect();
            let picked = (0..beams.len()).map(|beam| (beam * n + row) as u32).collect();
            let mut tape = Tape::new(params, None, None, &mut self.pool)?;
            let logits =
                model.logits(&mut tape, &Rows { ids, bounds, picked, causal: false, first: 0, shared: None })?;
            all.extend(tape.read(logits)?.chunks_exact(logits.cols).map(log_softmax));
        }
        if all.iter().flatten().any(|p| p.is_nan()) {
            return Err(Error::Usage(format!("the model gives no number for token {place} of the text")));
        }
        Ok(all)
    }
}

impl Template {
    /// The opening mark and the text with so many mask tokens for each mask; and where those are.
    fn tokens(&self, lengths: &[usize]) -> (Vec<u32>, Vec<std::ops::Range<usize>>) {
        let (mut ids, mut places) = (vec![CLS], Vec::with_capacity(lengths.len()));
        for (part, length) in self.ids.iter().zip(lengths) {
            ids.extend(part);
            places.push(ids.len()..ids.len() + length);
            ids.extend(std::iter::repeat_n(MASK, *length));
        }
        ids.extend(self.ids.last().into_iter().flatten());
        (ids, places)
    }

    /// The text with these words.
    fn filled(&self, words: &[String]) -> String {
        let mut text = String::new();
        for ((part, word), &spaced) in self.parts.iter().zip(words).zip(&self.spaced) {
            text.push_str(part);
            text.push_str(if spaced { " " } else { "" });
            text.push_str(word);
        }
        text + self.parts.last().map_or("", String::as_str)
    }
}

impl Options {
    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::Usage`] with the option and its range.
    pub fn check(&self) -> Result<()> {
        let range = |name: &str, value: usize, most: usize| match (1..=most).contains(&value) {
            true => Ok(()),
            false => Err(Error::Usage(format!("{name} is {value}; it must be 1 to {most}"))),
        };
        range("top", self.top, MOST_WORDS)?;
        range("max-word-tokens", self.word_tokens, MOST_WORD_TOKENS)?;
        match self.backend {
            Backend::Causal => {
                let what = "causal reading sees nothing to the right of a mask; masks are filled by mlm or mntp";
                Err(Error::Usage(what.into()))
            }
            Backend::Mlm | Backend::Mntp => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "fill_tests.rs"]
mod tests;
