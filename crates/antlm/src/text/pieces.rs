//! Pieces: what byte-level BPE merges within. Newlines become spaces, a space is put before the first word, the text is
//! cut by GPT-2's pattern, and bytes are written as the 256 printable characters that tokenizer.json uses.
//!
//! Equal to the `tokenizers` crate's Replace + ByteLevel (tests hold it to that), without what costs the crate time: the
//! alignment of every character, and a back-tracking expression for one look-ahead.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

/// GPT-2's pattern without its look-ahead `\s+(?!\S)|`, which [`Splitter::each`] does by hand.
static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+").expect("a constant that compiles")
});

/// The text as the pattern sees it: newlines are spaces, and unless it is empty it starts with a space.
pub(crate) fn with_prefix(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1);
    if !text.is_empty() && !text.starts_with([' ', '\n']) {
        out.push(' ');
    }
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.push(' ');
        }
        out.push_str(line);
    }
    out
}

/// Cuts text into pieces.
pub(crate) struct Splitter(Cow<'static, Regex>);

impl Splitter {
    /// With scratch memory of its own, so that threads with one each do not wait; for much text, as the memory is filled
    /// anew.
    pub(crate) fn new() -> Splitter {
        Splitter(Cow::Owned(PATTERN.clone()))
    }

    /// With the scratch memory that all share; for a short text.
    pub(crate) fn shared() -> Splitter {
        Splitter(Cow::Borrowed(&PATTERN))
    }

    /// The pieces of a text that [`with_prefix`] made, in order and without gaps.
    pub(crate) fn each<'t>(&self, text: &'t str, mut piece: impl FnMut(&'t str)) {
        let mut at = 0;
        while let Some(found) = self.0.find_at(text, at) {
            let mut end = found.end();
            // `\s+(?!\S)`: a run of whitespace before something else leaves its last character to what follows.
            // Only whitespace pieces end in whitespace.
            if end < text.len()
                && let Some(last) = found.as_str().chars().next_back().filter(|c| c.is_whitespace())
                && end - last.len_utf8() > at
            {
                end -= last.len_utf8();
            }
            piece(&text[at..end]);
            at = end;
        }
        debug_assert_eq!(at, text.len());
    }
}

/// Cuts a text that [`with_prefix`] made where a piece is sure to begin (a space before something that is not
/// whitespace), so that the parts' pieces one after another are the whole text's. A part is the shortest possible of
/// at least `bytes` bytes.
pub(crate) fn parts(mut text: &str, bytes: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    while text.len() > bytes {
        let from = text.as_bytes();
        let cut = (bytes.max(1)..from.len() - 1).find(|&i| {
            // A space byte is a character of its own in UTF-8, so i and i + 1 are boundaries where the first test holds.
            from[i] == b' ' && !text[i + 1..].starts_with(char::is_whitespace)
        });
        let Some(cut) = cut else { break };
        parts.push(&text[..cut]);
        text = &text[cut..];
    }
    if !text.is_empty() {
        parts.push(text);
    }
    parts
}

/// The character that stands for each byte in tokenizer.json (Radford et al. 2019, `bytes_to_unicode`): printable
/// Latin-1 for itself, the 68 others from U+0100 on.
pub(crate) static BYTE_CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        if matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) {
            char::from(byte as u8)
        } else {
            next += 1;
            char::from_u32(next - 1).expect("below U+0200 there are no surrogates")
        }
    })
});

/// The bytes behind [`BYTE_CHARS`].
pub(crate) static CHAR_BYTES: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0..=255u8).map(|b| (BYTE_CHARS[usize::from(b)], b)).collect());

/// A piece, written in [`BYTE_CHARS`].
pub(crate) fn byte_chars(piece: &str, out: &mut String) {
    out.clear();
    out.extend(piece.bytes().map(|b| BYTE_CHARS[usize::from(b)]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::{Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    /// What the crate makes of it: Replace, then ByteLevel.
    fn theirs(text: &str) -> Vec<String> {
        let mut normalized = tokenizers::NormalizedString::from(text);
        tokenizers::normalizers::replace::Replace::new("\n", " ").unwrap().normalize(&mut normalized).unwrap();
        let mut split = PreTokenizedString::from(normalized);
        ByteLevel::default().pre_tokenize(&mut split).unwrap();
        let splits = split.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        splits.into_iter().map(|(s, _, _)| s.to_owned()).filter(|s| !s.is_empty()).collect()
    }

    fn ours(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        Splitter::new().each(&with_prefix(text), |piece| {
            let mut chars = String::new();
            byte_chars(piece, &mut chars);
            out.push(chars);
        });
        out
    }

    const HARD: [&str; 14] = [
        "",
        " ",
        "\n\n",
        "I'll we're 'tis don't",
        "  two  spaces   three ",
        "a\n\n\nb \n c\t\nd",
        "x\u{a0}\u{a0}y\u{3000}z",
        "12 345\u{2460}\u{bd} VIII\u{2167}",
        "e\u{301}\u{20d7}\u{1f469}\u{200d}\u{1f4bb}",
        "[MASK] <s> </s>",
        "\u{feff}\u{85}\u{2028}end",
        "\u{661}\u{662} \u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947}",
        "'s's'S 'LL",
        "\r\n\r\n a\u{b}\u{c} b",
    ];

    #[test]
    fn pieces_equal_the_crates_on_hard_cases() {
        for text in HARD {
            assert_eq!(ours(text), theirs(text), "{text:?}");
        }
    }

    #[test]
    fn bytes_and_characters_are_one_to_one() {
        let theirs = ByteLevel::alphabet();
        assert_eq!(CHAR_BYTES.len(), 256);
        assert!(BYTE_CHARS.iter().all(|c| theirs.contains(c)));
        assert_eq!((BYTE_CHARS[0x20], BYTE_CHARS[0x0A], BYTE_CHARS[0xAD]), ('\u{120}', '\u{10a}', '\u{143}'));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn pieces_equal_the_crates(text in "(\\PC|[ \n\t'sld0-9]|\\s|\\p{L}){0,60}") {
            prop_assert_eq!(ours(&text), theirs(&text));
        }

        #[test]
        fn parts_have_the_same_pieces(text in "([ \n\ta'é1.]|\\s){0,80}", bytes in 0usize..20) {
            let text = with_prefix(&text);
            let splitter = Splitter::new();
            let (mut whole, mut by_part) = (Vec::new(), Vec::new());
            splitter.each(&text, |p| whole.push(p));
            let parts = parts(&text, bytes);
            prop_assert_eq!(parts.concat(), text.clone());
            for part in parts {
                splitter.each(part, |p| by_part.push(p));
            }
            prop_assert_eq!(whole, by_part);
        }
    }
}
