//! Words as the BabyLM rules count them: whitespace-separated tokens of the raw text, never tokenizer tokens.

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
