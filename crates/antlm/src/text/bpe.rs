//! Learns byte-pair merges from counted pieces (Sennrich et al. 2016), the same for the same counts always: sums and
//! an order over (count, pair) decide, never threads or the order of a hash table.
//!
//! The `tokenizers` crate's trainer is not used: it fills its queue in the order of randomly seeded hash tables and may
//! hold a pair there more than once, counts in 32 bits, and lets a text that is full of `[MASK]` merge its way to the
//! special token's id. Where none of that matters both learn the same (a test holds it to that).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::pieces::BYTE_CHARS;
use super::special::{FIRST_ORDINARY, Family};
use crate::{Error, Result};

/// The least number of tokens: the special ones and the 256 bytes.
pub(crate) const MIN_VOCAB: usize = FIRST_ORDINARY as usize + 256;
/// The greatest: ids are stored in 16 bits.
pub(crate) const MAX_VOCAB: usize = 1 << 16;

/// Refuses a number of tokens that no tokenizer can have.
pub(crate) fn check_vocab_size(size: usize) -> Result<()> {
    if !(MIN_VOCAB..=MAX_VOCAB).contains(&size) {
        let what = format!("a vocabulary has {MIN_VOCAB} to {MAX_VOCAB} tokens, not {size}");
        return Err(Error::Usage(what));
    }
    Ok(())
}

/// A pair of neighbours.
pub(crate) type Pair = (u32, u32);

/// What is learnt.
pub(crate) struct Learnt {
    /// Every token in byte characters, by id.
    pub tokens: Vec<String>,
    /// The pairs to merge, first come first served.
    pub merges: Vec<Pair>,
}

/// The byte characters in the order of their ids: that of the characters, as the crate has it.
pub(crate) fn alphabet() -> [char; 256] {
    let mut chars = *BYTE_CHARS;
    chars.sort_unstable();
    chars
}

/// A piece of the text as token ids that merge step by step, and how often it occurs.
struct Piece {
    ids: Vec<u32>,
    count: u64,
}

/// Learns merges until there are `vocab_size` tokens or no pair occurs `min_frequency` times (at least once).
/// `counts` are pieces with their numbers; their order does not matter. Returns `None` when `go_on` says so; it is
/// called with the number of tokens so far.
pub(crate) fn learn(
    counts: &HashMap<Box<str>, u64>,
    family: Family,
    vocab_size: usize,
    min_frequency: u64,
    mut go_on: impl FnMut(usize) -> bool,
) -> Option<Learnt> {
    let mut tokens: Vec<String> = family.special_names().map(String::from).into();
    tokens.extend(alphabet().map(String::from));
    let mut ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
    let byte_ids = BYTE_CHARS.map(|c| ids[c.encode_utf8(&mut [0; 4]) as &str]);

    let mut pieces: Vec<Piece> = counts
        .iter()
        .map(|(piece, &count)| Piece { ids: piece.bytes().map(|b| byte_ids[usize::from(b)]).collect(), count })
        .collect();
    let mut pair_counts: HashMap<Pair, u64> = HashMap::new();
    // Indices of the pieces that may hold the pair: none is missing, some hold it no longer.
    let mut holders: HashMap<Pair, Vec<u32>> = HashMap::new();
    for (i, piece) in pieces.iter().enumerate() {
        for pair in pairs(&piece.ids) {
            *pair_counts.entry(pair).or_default() += piece.count;
            holders.entry(pair).or_default().push(i as u32);
        }
    }
    // The most frequent pair comes first; of equals the one with the smaller ids. An entry may be out of date: it is
    // then too high (put back with the right count) or too low (a newer entry is there, drop it).
    let mut heap: BinaryHeap<(u64, Reverse<Pair>)> = pair_counts.iter().map(|(&p, &n)| (n, Reverse(p))).collect();

    let mut merges = Vec::new();
    let mut grown: Vec<Pair> = Vec::new();
    while tokens.len() < vocab_size {
        if !go_on(tokens.len()) {
            return None;
        }
        let Some((count, Reverse(pair))) = heap.pop() else { break };
        let now = pair_counts.get(&pair).copied().unwrap_or(0);
        if now != count {
            if 0 < now && now < count {
                heap.push((now, Reverse(pair)));
            }
            continue;
        }
        if count < min_frequency.max(1) {
            break;
        }
        let joined = format!("{}{}", tokens[pair.0 as usize], tokens[pair.1 as usize]);
        let id = match ids.get(&joined) {
            // Text never becomes a special token.
            Some(&id) if id < FIRST_ORDINARY => continue,
            Some(&id) => id,
            None => {
                let id = tokens.len() as u32;
                tokens.push(joined.clone());
                ids.insert(joined, id);
                id
            }
        };
        merges.push(pair);

        let mut where_held = holders.remove(&pair).unwrap_or_default();
        where_held.sort_unstable();
        where_held.dedup();
        grown.clear();
        for index in where_held {
            let piece = &mut pieces[index as usize];
            if !pairs(&piece.ids).any(|p| p == pair) {
                continue;
            }
            for old in pairs(&piece.ids) {
                // Every pair of a piece was counted when it arose.
                *pair_counts.get_mut(&old).expect("counted before") -= piece.count;
            }
            merge(&mut piece.ids, pair, id);
            for new in pairs(&piece.ids) {
                *pair_counts.entry(new).or_default() += piece.count;
                if new.0 == id || new.1 == id {
                    holders.entry(new).or_default().push(index);
                    grown.push(new);
                }
            }
        }
        pair_counts.remove(&pair);
        grown.sort_unstable();
        grown.dedup();
        heap.extend(grown.iter().filter(|p| **p != pair).map(|p| (pair_counts[p], Reverse(*p))));
    }
    Some(Learnt { tokens, merges })
}

fn pairs(ids: &[u32]) -> impl Iterator<Item = Pair> + '_ {
    ids.windows(2).map(|w| (w[0], w[1]))
}

/// Replaces each `pair` by `id`, from left to right.
fn merge(ids: &mut Vec<u32>, pair: Pair, id: u32) {
    let mut to = 0;
    let mut from = 0;
    while from < ids.len() {
        if from + 1 < ids.len() && (ids[from], ids[from + 1]) == pair {
            ids[to] = id;
            from += 2;
        } else {
            ids[to] = ids[from];
            from += 1;
        }
        to += 1;
    }
    ids.truncate(to);
}

#[cfg(test)]
mod tests {
    use super::super::pieces::byte_chars;
    use super::*;

    fn text_of(piece: &str) -> String {
        let mut out = String::new();
        byte_chars(piece, &mut out);
        out
    }

    fn counts(words: &[(&str, u64)]) -> HashMap<Box<str>, u64> {
        words.iter().map(|(w, n)| (Box::from(*w), *n)).collect()
    }

    fn merges(words: &[(&str, u64)], vocab: usize, min: u64) -> Vec<String> {
        let learnt = learn(&counts(words), Family::LtgBert, vocab, min, |_| true).unwrap();
        let name = |id: u32| learnt.tokens[id as usize].clone();
        learnt.merges.iter().map(|&(a, b)| format!("{}+{}", name(a), name(b))).collect()
    }

    #[test]
    fn the_most_frequent_pair_is_merged_first() {
        // Counted by hand: lo 7, ow 7; then low; then the two words' ends by count and id.
        let words = [("low", 5), ("lows", 2), ("xy", 3)];
        assert_eq!(merges(&words, 1000, 2), ["l+o", "lo+w", "x+y", "low+s"]);
        assert_eq!(merges(&words, 1000, 3), ["l+o", "lo+w", "x+y"]);
        assert_eq!(merges(&words, MIN_VOCAB + 1, 0), ["l+o"]);
        assert_eq!(merges(&words, MIN_VOCAB, 0), [""; 0]);
        assert_eq!(merges(&[("aaaaa", 1)], 1000, 1), ["a+a", "aa+a", "aa+aaa"]);
        assert_eq!(merges(&[], 1000, 0), [""; 0]);
    }

    #[test]
    fn text_never_merges_into_a_special_token() {
        let learnt = learn(&counts(&[("[MASK]", 1000)]), Family::LtgBert, 1000, 1, |_| true).unwrap();
        assert_eq!(learnt.tokens.iter().filter(|t| *t == "[MASK]").count(), 1);
        for &(a, b) in &learnt.merges {
            let joined = format!("{}{}", learnt.tokens[a as usize], learnt.tokens[b as usize]);
            assert_ne!(joined, "[MASK]");
        }
        assert!(!learnt.merges.is_empty());
    }

    #[test]
    fn it_stops_when_told() {
        assert!(learn(&counts(&[("abc", 9)]), Family::Llama, 1000, 1, |_| false).is_none());
    }

    #[test]
    fn the_crate_learns_the_same() {
        use tokenizers::Trainer;
        use tokenizers::models::bpe::{BPE, BpeTrainer};
        // Made-up words with a skewed distribution and few ties.
        let syllables = ["ba", "ke", "li", "mo", "nu", "ra", "st", "ing", "er", "th"];
        let mut words = HashMap::<Box<str>, u64>::new();
        for i in 0..600u64 {
            let h = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
            let len = 1 + h % 3;
            let word: String = (0..len).map(|k| syllables[((h >> (4 * k)) % 10) as usize]).collect();
            *words.entry(format!(" {word}").into()).or_default() += 1 + 100_000 / (i + 1);
        }
        let learnt = learn(&words, Family::LtgBert, 500, 2, |_| true).unwrap();

        let mut trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(500)
            .min_frequency(2)
            .initial_alphabet(alphabet().into_iter().collect())
            .special_tokens(Family::LtgBert.special_names().map(|n| tokenizers::AddedToken::from(n, true)).into())
            .build();
        let all: Vec<String> = words.iter().flat_map(|(w, &n)| std::iter::repeat_n(text_of(w), n as usize)).collect();
        trainer.feed(all.iter(), |w| Ok(vec![w.to_owned()])).unwrap();
        let mut model = BPE::default();
        trainer.train(&mut model).unwrap();
        let vocab = model.get_vocab();
        assert!(learnt.merges.len() > 100);
        assert_eq!(vocab.len(), learnt.tokens.len());
        for (id, token) in learnt.tokens.iter().enumerate() {
            assert_eq!(vocab.get(token), Some(&(id as u32)), "{token}");
        }
    }
}
