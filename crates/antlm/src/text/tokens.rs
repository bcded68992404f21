//! A text's tokens with their names and places, for people and scripts that want to see how a text is cut; whether
//! tokens make up one word; and bytes that arrive token by token as text.

use serde::Serialize;

use super::encode::Cache;
pub(crate) use super::pieces::with_prefix;
use super::tokenizer::Tokenizer;
use crate::Result;

/// How a text is cut, as parallel lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// The text.
    pub text: String,
    /// Ids of the tokens: `[n]`.
    pub ids: Vec<u32>,
    /// Their names in tokenizer.json: `[n]`.
    pub tokens: Vec<String>,
    /// First character and the one behind the last, counted in Unicode characters from 0: `[n]`. See
    /// [`Tokenizer::encode_with_offsets`].
    pub offsets: Vec<(usize, usize)>,
    /// Words: runs of what is not whitespace.
    pub words: u64,
}

/// Cuts a text into tokens.
///
/// ```
/// use antlm::text::{special::Family, tokenizer::Tokenizer, tokens::cut};
/// let tokenizer = Tokenizer::train(["the cat and the hat"; 9], 300, 2, Family::LtgBert)?;
/// let cut = cut(&tokenizer, "the hat")?;
/// assert_eq!(cut.tokens, ["Ġthe", "Ġhat"]);
/// assert_eq!((cut.offsets, cut.words), (vec![(0, 3), (3, 7)], 2));
/// # Ok::<(), antlm::Error>(())
/// ```
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn cut(tokenizer: &Tokenizer, text: &str) -> Result<Cut> {
    let (ids, offsets) = tokenizer.encode_with_offsets(text)?;
    let tokens = ids.iter().map(|&id| tokenizer.token(id).unwrap_or_default().to_owned()).collect();
    Ok(Cut { text: text.to_owned(), ids, tokens, offsets, words: super::words::count(text) })
}

/// Finds out again and again how words and their surroundings are cut; it remembers pieces.
pub(crate) struct Words(Cache);

impl Words {
    pub(crate) fn new() -> Words {
        Words(Cache::new())
    }

    /// The ids of a text that [`with_prefix`] made, or of a part of one: no space is put in front.
    pub(crate) fn encode(&mut self, tokenizer: &Tokenizer, part: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.0.encode(tokenizer, part, &mut ids)?;
        Ok(ids.into_iter().map(u32::from).collect())
    }

    /// The word that tokens make up, if they do: one piece that the tokenizer never cuts across (a run of letters, of
    /// digits or of other signs), cut into these very tokens, with a space in front or without as `spaced` asks. The
    /// word is without the space.
    pub(crate) fn word(&mut self, tokenizer: &Tokenizer, ids: &[u32], spaced: bool) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        ids.iter().for_each(|&id| tokenizer.push_bytes(id, &mut bytes));
        let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
        let word = text.strip_prefix(' ').unwrap_or(&text);
        if text.starts_with(' ') != spaced || word.chars().any(char::is_whitespace) || word.is_empty() {
            return Ok(None);
        }
        let whole = self.0.pieces(&text) == 1 && self.encode(tokenizer, &text)? == ids;
        Ok(whole.then(|| word.to_owned()))
    }
}

/// Text from bytes that come a few at a time: never half a character. What is no UTF-8 becomes U+FFFD, as in
/// [`Tokenizer::decode`].
#[derive(Debug, Default)]
pub struct Characters {
    /// The beginning of a character whose rest has not come.
    waiting: Vec<u8>,
}

impl Characters {
    /// Adds a token's bytes, and appends to `text` the characters that are whole now.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32, text: &mut String) {
        tokenizer.push_bytes(id, &mut self.waiting);
        self.take(text);
    }

    fn take(&mut self, text: &mut String) {
        let mut at = 0;
        loop {
            match std::str::from_utf8(&self.waiting[at..]) {
                Ok(rest) => {
                    text.push_str(rest);
                    self.waiting.clear();
                    return;
                }
                Err(error) => {
                    let good = at + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.waiting[at..good]));
                    let Some(bad) = error.error_len() else {
                        self.waiting.drain(..good);
                        return;
                    };
                    text.push('\u{fffd}');
                    at = good + bad;
                }
            }
        }
    }

    /// No more bytes come: appends U+FFFD for a character that was begun.
    pub fn finish(self, text: &mut String) {
        text.push_str(&String::from_utf8_lossy(&self.waiting));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::special::Family;
    use proptest::prelude::*;

    fn tokenizer() -> Tokenizer {
        let text = "the dogs bark and the dog barked at the café — don't 🦊";
        Tokenizer::train([text; 9], 330, 2, Family::Llama).unwrap()
    }

    #[test]
    fn places_are_those_of_the_text() {
        let tokenizer = tokenizer();
        for (text, want) in [
            ("the dogs", &["the", " dogs"][..]),
            // The space is the text's own.
            (" the dogs", &[" the", " dogs"]),
            ("the\n dog", &["the", "\n", " dog"]),
            ("", &[]),
        ] {
            let cut = cut(&tokenizer, text).unwrap();
            let chars: Vec<char> = text.chars().collect();
            let got: Vec<String> = cut.offsets.iter().map(|&(a, b)| chars[a..b].iter().collect()).collect();
            assert_eq!(got, want, "{text:?}");
        }
        // A character of four bytes that were never seen together: each token has it whole.
        let cut = cut(&tokenizer, "é🐙!").unwrap();
        assert_eq!(cut.offsets.last(), Some(&(2, 3)));
        assert!(cut.offsets.iter().filter(|&&at| at == (1, 2)).count() > 1, "{cut:?}");
        // An added space that is a token of its own counts as the first character.
        assert_eq!((cut.words, cut.offsets[0].0), (1, 0));
    }

    #[test]
    fn words_are_whole_pieces_in_their_own_tokens() {
        let tokenizer = tokenizer();
        let mut words = Words::new();
        let mut is = |text: &str, spaced| {
            let ids = words.encode(&tokenizer, text).unwrap();
            words.word(&tokenizer, &ids, spaced).unwrap()
        };
        assert_eq!(is(" dogs", true).as_deref(), Some("dogs"));
        assert_eq!(is(" bark", true).as_deref(), Some("bark"));
        assert_eq!(is("ing", false).as_deref(), Some("ing"));
        assert_eq!(is(" —", true).as_deref(), Some("—"));
        for (text, spaced) in [("dogs", true), (" dogs", false), (" don't", true), (" the dogs", true), (" ", true)] {
            assert_eq!(is(text, spaced), None, "{text:?}");
        }
        // The same letters in other tokens than the tokenizer's own.
        let [dog, s] = [" dog", "s"].map(|text| words.encode(&tokenizer, text).unwrap());
        assert_eq!(words.word(&tokenizer, &[dog, s].concat(), true).unwrap(), None);
        // Half a character.
        let octopus = words.encode(&tokenizer, "🐙").unwrap();
        assert_eq!(words.word(&tokenizer, &octopus[..1], false).unwrap(), None);
    }

    proptest! {
        #[test]
        fn characters_come_whole_and_make_the_same_text(ids in prop::collection::vec(0u32..340, 0..40)) {
            let tokenizer = tokenizer();
            let (mut characters, mut text) = (Characters::default(), String::new());
            for &id in &ids {
                let before = text.len();
                characters.push(&tokenizer, id, &mut text);
                // What came before is never changed, and what waits is less than a character.
                prop_assert!(text.len() >= before && characters.waiting.len() < 4);
            }
            characters.finish(&mut text);
            prop_assert_eq!(text, tokenizer.decode(&ids));
        }

        #[test]
        fn places_cover_the_text(text in "(\\PC|[ \n\t'sld0-9]|\\s){0,40}") {
            let tokenizer = tokenizer();
            let cut = cut(&tokenizer, &text).unwrap();
            let length = text.chars().count();
            let mut reached = 0;
            for &(from, to) in &cut.offsets {
                prop_assert!(from <= reached && from <= to && to <= length, "{:?}", cut);
                reached = to;
            }
            prop_assert_eq!(reached, length);
        }
    }
}
