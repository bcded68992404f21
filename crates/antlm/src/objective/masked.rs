//! Which tokens are masked and what stands in their place: per token (BERT) or in spans (LTG-BERT).
//!
//! Masks are drawn anew at every visit: the numbers belong to (optimiser step, row in the step), so the same segment
//! gets other masks in the next epoch, and the same ones however the step is split into micro-batches.
//!
//! LTG-BERT also cuts every tenth segment to a random length. That is left out: all objectives see the same framing
//! here, so that a switch of objective changes mask and loss only.

use crate::text::special::{FIRST_ORDINARY, MASK};
use antlm_nn::rng::Draws;
use serde::{Deserialize, Serialize};

/// Spans whose position is drawn before a segment counts as done (LTG-BERT's limit).
const MAX_TRIES: usize = 100;

/// How tokens are chosen for masking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Each token on its own (BERT).
    Token,
    /// Runs of tokens (LTG-BERT).
    Span,
}

/// The `[masking]` table of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Masking {
    /// Per token or in spans.
    pub rule: Rule,
    /// Share of the tokens that are to be guessed (0.15). Spans overshoot it a little, in short segments a lot.
    #[serde(default = "defaults::rate")]
    pub rate: f64,
    /// Of these, the share that becomes the mask token (0.8).
    #[serde(default = "defaults::mask")]
    pub mask: f64,
    /// Of these, the share that becomes a random ordinary token (0.1); the rest keeps its own token.
    #[serde(default = "defaults::random")]
    pub random: f64,
}

mod defaults {
    pub fn rate() -> f64 {
        0.15
    }
    pub fn mask() -> f64 {
        0.8
    }
    pub fn random() -> f64 {
        0.1
    }
}

impl Masking {
    /// BERT's numbers (15 %; 80 / 10 / 10) with this rule.
    pub fn new(rule: Rule) -> Masking {
        Masking { rule, rate: defaults::rate(), mask: defaults::mask(), random: defaults::random() }
    }

    /// Masks one framed segment in place; returns the positions to be guessed with their original tokens, increasing.
    ///
    /// Special tokens (ids below [`FIRST_ORDINARY`]) are never chosen and never stand in. With [`Rule::Token`] a
    /// segment may end up with no position at all; with [`Rule::Span`] only a segment without ordinary tokens does, or
    /// a very short one that no try hits.
    pub fn apply(&self, ids: &mut [u32], seq_len: usize, vocab_size: usize, draws: &mut Draws) -> Vec<(u32, u32)> {
        let vocab_size = vocab_size as u32;
        match self.rule {
            Rule::Token => self.tokens(ids, vocab_size, draws),
            Rule::Span => self.spans(ids, seq_len, vocab_size, draws),
        }
    }

    fn tokens(&self, ids: &mut [u32], vocab_size: u32, draws: &mut Draws) -> Vec<(u32, u32)> {
        let mut chosen = Vec::new();
        for (position, id) in ids.iter_mut().enumerate() {
            if *id < FIRST_ORDINARY || draws.unit() >= self.rate {
                continue;
            }
            chosen.push((position as u32, *id));
            let branch = draws.unit();
            *id = self.replacement(branch, *id, vocab_size, draws);
        }
        chosen
    }

    /// LTG-BERT's spans, with its oddities: the length is geometric (1/3) **modulo 10**, so it can be 0; one draw
    /// decides between mask, random and keep for the whole span; a later span overwrites an earlier one, also with the
    /// original tokens, which stay to be guessed; the last span may overshoot.
    fn spans(&self, ids: &mut [u32], seq_len: usize, vocab_size: u32, draws: &mut Draws) -> Vec<(u32, u32)> {
        let original = ids.to_vec();
        let ordinary = original.iter().filter(|&&id| id >= FIRST_ORDINARY).count();
        // Binomial(ordinary, rate), at least 1 where there is something to mask.
        let drawn = (0..ordinary).filter(|_| draws.unit() < self.rate).count();
        let wanted = drawn.max(1).min(ordinary);
        let mut chosen = vec![false; ids.len()];
        let mut count = 0;
        for _ in 0..MAX_TRIES {
            if count >= wanted {
                break;
            }
            let length = i64::from(geometric(draws) % 10);
            // The start is uniform over -(length - 1) ..= seq_len + length - 1, so that the edges are as likely as the
            // middle; the last position of a full segment, [SEP], is out of reach.
            let choices = seq_len as i64 + 2 * length - 1;
            let start = i64::from(draws.below(choices.max(1) as u32)) - (length - 1);
            let end = (start + length).min(seq_len as i64 - 1).min(ids.len() as i64);
            let branch = draws.unit();
            for position in start.max(0)..end {
                let position = position as usize;
                if original[position] >= FIRST_ORDINARY {
                    ids[position] = self.replacement(branch, original[position], vocab_size, draws);
                    count += usize::from(!chosen[position]);
                    chosen[position] = true;
                }
            }
        }
        (0..ids.len())
            .filter(|&position| chosen[position])
            .map(|position| (position as u32, original[position]))
            .collect()
    }

    /// What stands in the place of `original`; `branch` is uniform in [0, 1).
    fn replacement(&self, branch: f64, original: u32, vocab_size: u32, draws: &mut Draws) -> u32 {
        if branch < self.mask {
            MASK
        } else if branch < self.mask + self.random && vocab_size > FIRST_ORDINARY {
            FIRST_ORDINARY + draws.below(vocab_size - FIRST_ORDINARY)
        } else {
            original
        }
    }
}

/// A geometric number with success 1/3: 1, 2, 3, … with mean 3. By comparison, without a logarithm, so that it is the
/// same on every machine.
fn geometric(draws: &mut Draws) -> u32 {
    let left = 1.0 - draws.unit(); // (0, 1], in steps of 2^-32: at most 55 rounds
    let (mut length, mut tail) = (1, 2.0 / 3.0); // P(length > k) = (2/3)^k
    while left <= tail {
        length += 1;
        tail *= 2.0 / 3.0;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::special::{CLS, SEP};
    use antlm_nn::rng::{Rng, Stream};

    const VOCAB: usize = 1000;

    struct Counts {
        rate: f64,
        mask: f64,
        random: f64,
        kept: f64,
    }

    /// Masks at least 100,000 tokens in segments of `n` and counts; checks on the way what must never happen.
    fn measure(rule: Rule, n: usize) -> Counts {
        let masking = Masking::new(rule);
        let rng = Rng::new(11);
        let segments = 100_000 / n as u32 + 1;
        let (mut masked, mut mask, mut random, mut kept) = (0u32, 0u32, 0u32, 0u32);
        for row in 0..segments {
            // Ordinary tokens from a small range, so that a random replacement is seldom the original.
            let mut ids = vec![CLS];
            ids.extend((0..n as u32).map(|i| FIRST_ORDINARY + (row + i) % 7));
            ids.push(SEP);
            let original = ids.clone();
            let chosen = masking.apply(&mut ids, 128, VOCAB, &mut rng.draws(Stream::MASK, 5, row * 128));
            assert!(chosen.windows(2).all(|pair| pair[0].0 < pair[1].0));
            assert_eq!((ids[0], ids[n + 1]), (CLS, SEP));
            for &(position, label) in &chosen {
                let position = position as usize;
                assert_eq!(label, original[position]);
                assert!((1..=n).contains(&position));
                match ids[position] {
                    MASK => mask += 1,
                    id if id == label => kept += 1,
                    id => {
                        assert!((FIRST_ORDINARY..VOCAB as u32).contains(&id));
                        random += 1;
                    }
                }
                ids[position] = label;
            }
            masked += chosen.len() as u32;
            assert_eq!(ids, original, "only chosen positions change");
        }
        let share = |count: u32| f64::from(count) / f64::from(masked);
        Counts {
            rate: f64::from(masked) / (f64::from(segments) * n as f64),
            mask: share(mask),
            random: share(random),
            kept: share(kept),
        }
    }

    fn close(got: f64, wanted: f64, tolerance: f64, what: &str) {
        assert!((got - wanted).abs() < tolerance, "{what}: {got}, expected {wanted} within {tolerance}");
    }

    #[test]
    fn token_rates() {
        // 4 standard deviations of a binomial: 100,000 tokens at 15 %, then about 15,000 at 80 / 10 / 10 %.
        let counts = measure(Rule::Token, 126);
        close(counts.rate, 0.15, 0.0046, "rate");
        close(counts.mask, 0.8, 0.0131, "mask");
        close(counts.random, 0.1, 0.0098, "random");
        close(counts.kept, 0.1, 0.0098, "kept");
    }

    #[test]
    fn span_rates() {
        // The rates measured on the original (three digits). Masked tokens come in spans of 2.7 on average, so there
        // are fewer independent draws: the tolerances are 4 standard deviations for 100,000 tokens in segments.
        for (n, rate, tolerance) in [(126, 0.162, 0.006), (60, 0.171, 0.006), (20, 0.217, 0.006), (3, 0.576, 0.008)] {
            let counts = measure(Rule::Span, n);
            close(counts.rate, rate, tolerance, &format!("rate at {n} tokens"));
            close(counts.mask, 0.8, 0.026, "mask");
            close(counts.random, 0.1, 0.02, "random");
            close(counts.kept, 0.1, 0.02, "kept");
        }
    }

    #[test]
    fn geometric_is_one() {
        let rng = Rng::new(3);
        let n = 90_000;
        let mut draws = rng.draws(Stream::MASK, 0, 0);
        let values: Vec<u32> = (0..n).map(|_| geometric(&mut draws)).collect();
        let share = |k: u32| values.iter().filter(|&&v| v == k).count() as f64 / f64::from(n);
        close(share(1), 1.0 / 3.0, 0.0063, "P(1)");
        close(share(2), 2.0 / 9.0, 0.0056, "P(2)");
        close(values.iter().sum::<u32>() as f64 / f64::from(n), 3.0, 0.033, "mean"); // variance 6
    }

    #[test]
    fn nothing_to_mask() {
        for rule in [Rule::Token, Rule::Span] {
            let mut ids = vec![CLS, MASK, SEP];
            let chosen = Masking::new(rule).apply(&mut ids, 128, VOCAB, &mut Rng::new(1).draws(Stream::MASK, 0, 0));
            assert!(chosen.is_empty());
            assert_eq!(ids, [CLS, MASK, SEP]);
        }
    }

    #[test]
    fn no_ordinary_token_means_no_random_one() {
        let masking = Masking { rate: 1.0, mask: 0.0, random: 1.0, ..Masking::new(Rule::Token) };
        let mut ids = vec![CLS, 9, 9, SEP];
        masking.apply(&mut ids, 8, 5, &mut Rng::new(1).draws(Stream::MASK, 0, 0));
        assert_eq!(ids, [CLS, 9, 9, SEP]);
    }
}
