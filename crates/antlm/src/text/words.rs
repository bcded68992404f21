//! Words as the BabyLM rules count them, in the raw text, never tokenizer tokens: whitespace-separated, or by bytes for
//! languages that write no spaces.

use serde::{Deserialize, Serialize};

/// What is counted as a word of a text source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Runs of characters that are not whitespace ([`count`]).
    #[default]
    Whitespace,
    /// Equivalents of English words: UTF-8 bytes / (5.43 x the language's premium), as in BabyLM's multilingual track
    /// of 2026. The language must be one whose premium is known: see [`byte_premium`].
    Bytes,
}

/// UTF-8 bytes that stand for one word of English (BabyLM's multilingual track, 2026).
const BYTES_PER_WORD: f64 = 5.43;

/// How many times as many bytes a language needs as English for the same text, where BabyLM's rules say it: English 1,
/// Dutch 1.0516739, Chinese 0.9893825. `language` is the primary subtag, of two or three letters.
pub fn byte_premium(language: &str) -> Option<f64> {
    Some(match language {
        "eng" | "en" => 1.0,
        "nld" | "nl" => 1.051_673_9,
        "zho" | "zh" | "cmn" => 0.989_382_5,
        _ => return None,
    })
}

/// How a source's words are counted: a [`Rule`] together with what its language adds to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// By whitespace.
    Whitespace,
    /// By bytes, so many a word.
    Bytes(f64),
}

impl Unit {
    /// The unit of a language with this [`byte_premium`].
    pub fn bytes(premium: f64) -> Unit {
        Unit::Bytes(BYTES_PER_WORD * premium)
    }

    /// What is added up over documents: words, or bytes.
    pub fn measure(self, text: &str) -> u64 {
        match self {
            Unit::Whitespace => count(text),
            Unit::Bytes(_) => text.len() as u64,
        }
    }

    /// The whole words in what [`measure`](Self::measure) gave, added up over any number of documents.
    ///
    /// ```
    /// use antlm::text::words::{Unit, byte_premium};
    /// let chinese = Unit::bytes(byte_premium("zho").unwrap());
    /// assert_eq!(chinese.words(chinese.measure("语言模型") * 100), 223); // 1200 bytes / (5.43 x 0.9893825)
    /// ```
    pub fn words(self, measured: u64) -> u64 {
        match self {
            Unit::Whitespace => measured,
            // One division of IEEE numbers, the same everywhere; exact enough below 2^53 bytes.
            Unit::Bytes(each) => (measured as f64 / each) as u64,
        }
    }
}

/// Adds documents up, so that the words of all are right to the last one: each document gets the words that it takes
/// the sum further.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    unit: Unit,
    measured: u64,
}

impl Meter {
    /// Nothing yet.
    pub fn new(unit: Unit) -> Meter {
        Meter { unit, measured: 0 }
    }

    /// Adds a document that measures so much; its words.
    pub fn add(&mut self, measured: u64) -> u64 {
        let before = self.words();
        self.measured += measured;
        self.words() - before
    }

    /// Words so far.
    pub fn words(&self) -> u64 {
        self.unit.words(self.measured)
    }
}

/// Number of words in raw text: runs of characters that are not Unicode whitespace.
///
/// ```
/// assert_eq!(antlm::text::words::count("It's  two\nwords - no, five."), 6);
/// ```
pub fn count(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

/// Words that the tokens `from..to` of a document stand for, when the document has `tokens` tokens and `words` raw
/// words: floor(words * to / tokens) - floor(words * from / tokens). Over any cut of the document the shares add up to
/// `words`. A document without tokens has no share to give: 0.
///
/// ```
/// use antlm::text::words::share;
/// assert_eq!(share(3, 4, 0, 2) + share(3, 4, 2, 4), 3);
/// ```
pub fn share(words: u64, tokens: u64, from: u64, to: u64) -> u64 {
    if tokens == 0 {
        return 0;
    }
    // u128, because words * tokens of one long document can pass 2^64. Each quotient is at most `words`, so fits.
    let up_to = |at: u64| (u128::from(words) * u128::from(at) / u128::from(tokens)) as u64;
    up_to(to) - up_to(from)
}

/// A whole number with a comma before every three digits, as reports write numbers of words.
///
/// ```
/// assert_eq!(antlm::text::words::grouped(9_916_433), "9,916,433");
/// ```
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_split_by_any_whitespace() {
        for (text, expect) in [("", 0), (" \n\t ", 0), ("one", 1), ("a\u{a0}b\u{3000}c\r\nd", 4), ("don't-stop now", 2)]
        {
            assert_eq!(count(text), expect, "{text:?}");
        }
    }

    #[test]
    fn short_documents_lose_no_bytes() {
        let english = Unit::bytes(byte_premium("en").unwrap());
        let mut meter = Meter::new(english);
        // 1000 documents of 8 bytes: 8000 / 5.43 = 1473.3, though each alone is one word.
        let each: Vec<u64> = (0..1000).map(|_| meter.add(english.measure("word fou"))).collect();
        assert_eq!((each.iter().sum::<u64>(), meter.words()), (1473, 1473));
        assert!(each.iter().all(|&words| words == 1 || words == 2));
        let mut meter = Meter::new(Unit::Whitespace);
        assert_eq!([meter.add(3), meter.add(0), meter.add(2), meter.words()], [3, 0, 2, 5]);
    }

    #[test]
    fn a_language_needs_a_known_premium() {
        let words = |language| byte_premium(language).map(|premium| Unit::bytes(premium).words(5_430_000));
        assert_eq!([words("eng"), words("nld"), words("zho")], [Some(1_000_000), Some(950_865), Some(1_010_731)]);
        assert_eq!(words("fra"), None);
    }

    proptest! {
        #[test]
        fn shares_add_up(words in 0u64..u64::MAX / 2, tokens in 1u64..1_000_000, cut in 1u64..500_000) {
            let mut sum = 0;
            let mut from = 0;
            while from < tokens {
                let to = (from + cut.max(tokens / 1000)).min(tokens);
                sum += share(words, tokens, from, to);
                from = to;
            }
            prop_assert_eq!(sum, words);
        }
    }
}
