//! From a row to token ids, exactly as `tokenizer(first, second, truncation=True, max_length=…)` makes them with the
//! tokenizer of our exports: the opening mark before every text, no closing mark, the longer text cut first.

use rayon::prelude::*;

use super::data::Row;
use crate::Result;
use crate::text::special::CLS;
use crate::text::tokenizer::Tokenizer;

/// A text (or two) as the model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Token ids, `[n]`, n at least 1.
    pub ids: Vec<u32>,
    /// The class.
    pub label: u32,
}

/// Frames rows in their order, of at most `length` tokens each. Also says how many were cut.
///
/// # Errors
/// What the tokenizer refuses.
pub fn examples(tokenizer: &Tokenizer, rows: &[Row], length: usize) -> Result<(Vec<Example>, u64)> {
    let framed = rows.par_iter().map(|row| {
        let first = tokenizer.encode(&row.first)?;
        let second = row.second.as_deref().map(|text| tokenizer.encode(text)).transpose()?;
        let (ids, cut) = frame(&first, second.as_deref(), length);
        Ok((Example { ids, label: row.label }, cut))
    });
    let framed = framed.collect::<Result<Vec<_>>>()?;
    let cut = framed.iter().filter(|(_, cut)| *cut).count() as u64;
    Ok((framed.into_iter().map(|(example, _)| example).collect(), cut))
}

/// `[CLS] first`, or `[CLS] first [CLS] second`; and whether something was cut off.
fn frame(first: &[u32], second: Option<&[u32]>, length: usize) -> (Vec<u32>, bool) {
    let Some(second) = second else {
        let kept = first.len().min(length - 1);
        return ([&[CLS][..], &first[..kept]].concat(), kept < first.len());
    };
    let (n, m) = longest_first(first.len(), second.len(), length - 2);
    let ids = [&[CLS][..], &first[..n], &[CLS], &second[..m]].concat();
    (ids, (n, m) != (first.len(), second.len()))
}

/// How much of two texts stays when the longer one is cut first, and both are when each is longer than half. As the
/// `tokenizers` crate has it: of an odd number of places the longer text gets one more.
fn longest_first(first: usize, second: usize, most: usize) -> (usize, usize) {
    if first + second <= most {
        return (first, second);
    }
    let (short, half) = (first.min(second), most / 2);
    let (short, long) = if short <= half { (short, most - short) } else { (half, most - half) };
    if first <= second { (short, long) } else { (long, short) }
}

#[cfg(test)]
mod tests {
    use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};

    use tokenizers::{Encoding, truncate_encodings};

    use super::*;
    use crate::model::Kind;
    use crate::text::sample;

    /// What `encode` did up to the crate's version 0.21, which the pipelines' transformers 4.51.3 has. Newer ones stop
    /// reading a text after `length` tokens, and so may give the odd place to the other of two texts that are both longer.
    fn truncated(tokenizer: &tokenizers::Tokenizer, first: &str, second: Option<&str>, length: usize) -> Encoding {
        let encode = |text: &str| tokenizer.encode(text, false).unwrap();
        let params = TruncationParams {
            max_length: length - if second.is_some() { 2 } else { 1 },
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
            direction: TruncationDirection::Right,
        };
        let (first, second) = truncate_encodings(encode(first), second.map(encode), &params).unwrap();
        tokenizer.post_process(first, second, true).unwrap()
    }

    /// The exported tokenizer.json in the crate that transformers' fast tokenizers are.
    #[test]
    fn pairs_are_framed_as_by_the_exported_tokenizer() {
        for kind in [Kind::LtgBert, Kind::Llama] {
            let documents: Vec<String> = (0..40).map(|index| sample::document(3, index, sample::Part::Train)).collect();
            let tokenizer = Tokenizer::train(&documents, 400, 2, kind).unwrap();
            let crates: tokenizers::Tokenizer = tokenizer.to_json().unwrap().parse().unwrap();
            let texts: Vec<String> =
                (0..9).map(|n| documents[n].split(' ').take(1 + n * n).collect::<Vec<_>>().join(" ")).collect();
            let texts = texts.iter().map(String::as_str).chain(["", " two  spaces", "a\nnewline", "naïve café 北京"]);
            let texts: Vec<&str> = texts.collect();
            for length in [8, 9, 16, 31, 128] {
                let mut cuts = 0;
                for first in &texts {
                    for second in texts.iter().map(Some).chain([None]) {
                        let theirs = truncated(&crates, first, second.copied(), length);
                        let row = Row { first: (*first).into(), second: second.map(|s| (*s).into()), label: 1 };
                        let (ours, cut) = examples(&tokenizer, &[row], length).unwrap();
                        assert_eq!(ours[0].ids, theirs.get_ids(), "{first:?} {second:?} {length}");
                        assert_eq!(cut > 0, !theirs.get_overflowing().is_empty(), "{first:?} {second:?} {length}");
                        cuts += cut;
                    }
                }
                assert!(length > 100 || cuts > 10, "{length}: hardly anything was cut");
            }
        }
    }

    #[test]
    fn the_longer_text_is_cut_first() {
        assert_eq!(longest_first(3, 4, 10), (3, 4));
        assert_eq!(longest_first(3, 40, 10), (3, 7));
        assert_eq!(longest_first(40, 3, 10), (7, 3));
        assert_eq!([longest_first(40, 50, 9), longest_first(50, 40, 9)], [(4, 5), (5, 4)]);
    }
}
