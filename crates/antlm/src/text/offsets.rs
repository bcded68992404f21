//! Where tokens lie in the text that they were made of.

use super::pieces::with_prefix;
use super::tokenizer::Tokenizer;
use crate::Result;

/// For each token the characters it covers, from the first to behind the last.
pub type Offsets = Vec<(usize, usize)>;

impl Tokenizer {
    /// The ids of a text, as [`encode`](Tokenizer::encode) gives them, and for each the characters it covers, from the
    /// first to behind the last. As in the Hub's tokenizers, a space before a word belongs to the word's token, the space
    /// that is put before the text counts as its first character, and each part of a character covers all of it.
    ///
    /// ```
    /// # use antlm::text::{special::Family, tokenizer::Tokenizer};
    /// let tokenizer = Tokenizer::train(["the cat"; 9], 300, 2, Family::LtgBert)?;
    /// let (ids, offsets) = tokenizer.encode_with_offsets("the cat")?;
    /// assert_eq!(ids.len(), 2);
    /// assert_eq!(offsets, [(0, 3), (3, 7)]);
    /// # Ok::<(), antlm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `encode`.
    pub fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Offsets)> {
        let ids = self.encode(text)?;
        let prefixed = with_prefix(text);
        let added = usize::from(prefixed.len() > text.len());
        // The character of the original text that each byte belongs to.
        let of_byte: Vec<usize> = prefixed
            .chars()
            .enumerate()
            .flat_map(|(i, c)| std::iter::repeat_n(i.saturating_sub(added), c.len_utf8()))
            .collect();
        let mut at = 0;
        let mut offsets = Vec::with_capacity(ids.len());
        for &id in &ids {
            let end = at + self.bytes_of(id);
            // Tokens are at least a byte long, and together they are the text.
            offsets.push((of_byte[at], of_byte[end - 1] + 1));
            at = end;
        }
        Ok((ids, offsets))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::special::Family;
    use super::*;

    /// The crate's ids and offsets.
    fn theirs(tokenizer: &Tokenizer, text: &str) -> (Vec<u32>, Vec<(usize, usize)>) {
        let mut it: tokenizers::Tokenizer = tokenizer.to_json().unwrap().parse().unwrap();
        it.set_encode_special_tokens(true);
        let encoding = it.encode_char_offsets(text, false).unwrap();
        (encoding.get_ids().to_vec(), encoding.get_offsets().to_vec())
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::train(["the cat and the caf\u{e9} \u{1f600} on the mat"; 9], 300, 2, Family::Llama).unwrap()
    }

    #[test]
    fn hard_cases_equal_the_crates() {
        let tokenizer = tokenizer();
        for text in
            ["", "the cat", " the", "1", "\n\nthe\n", "caf\u{e9} \u{1f600}x", "a  b\u{0}", "e\u{301} <s>", "\u{feff}"]
        {
            assert_eq!(tokenizer.encode_with_offsets(text).unwrap(), theirs(&tokenizer, text), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn any_text_equals_the_crates(text in "(\\PC|[ \n\ta-z<>]|\\s|the |\\p{Lo}){0,40}") {
            let tokenizer = tokenizer();
            prop_assert_eq!(tokenizer.encode_with_offsets(&text).unwrap(), theirs(&tokenizer, &text));
        }
    }
}
