//! A trigram model with interpolated Kneser-Ney smoothing (Kneser & Ney, 1995; Chen & Goodman, 1999): what two tokens
//! of context alone can tell, to hold a model's numbers against.

use std::collections::HashMap;
use std::hash::Hash;

use crate::objective::Batch;

/// Counts of a training text, read as causal language modelling reads it: segments with their marks.
#[derive(Clone, Debug, Default)]
pub struct Trigram {
    vocab: usize,
    three: Order<(u32, u32)>,
    two: Order<u32>,
    one: Order<()>,
}

/// N-grams of one length. The shorter ones count in how many different contexts they occur, not how often.
#[derive(Clone, Debug)]
struct Order<C> {
    counts: HashMap<(C, u32), u32>,
    /// For a context: the sum of its counts, and the number of different tokens that follow.
    contexts: HashMap<C, (u32, u32)>,
    /// What every count gives up for what was never seen.
    discount: f64,
}

impl<C> Default for Order<C> {
    fn default() -> Order<C> {
        Order { counts: HashMap::new(), contexts: HashMap::new(), discount: 0.0 }
    }
}

impl<C: Copy + Eq + Hash> Order<C> {
    /// Counts once more; true when it is the first time.
    fn add(&mut self, context: C, token: u32) -> bool {
        let count = self.counts.entry((context, token)).or_default();
        *count += 1;
        let new = *count == 1;
        let (sum, kinds) = self.contexts.entry(context).or_default();
        *sum += 1;
        *kinds += u32::from(new);
        new
    }

    /// The usual estimate of the best discount, n1 / (n1 + 2 n2), from how many n-grams occur once and twice.
    fn finish(&mut self) {
        let occur = |n: u32| self.counts.values().filter(|&&count| count == n).count() as f64;
        let (once, twice) = (occur(1), occur(2));
        self.discount = if once > 0.0 { once / (once + 2.0 * twice) } else { 0.5 };
    }

    fn p(&self, context: C, token: u32, lower: f64) -> f64 {
        let Some(&(sum, kinds)) = self.contexts.get(&context) else { return lower };
        let count = f64::from(self.counts.get(&(context, token)).copied().unwrap_or(0));
        ((count - self.discount).max(0.0) + self.discount * f64::from(kinds) * lower) / f64::from(sum)
    }
}

impl Trigram {
    /// Counts the targets of causal batches.
    pub fn new<'a>(vocab: usize, batches: impl IntoIterator<Item = &'a Batch>) -> Trigram {
        let mut model = Trigram { vocab, ..Trigram::default() };
        for batch in batches {
            for (a, b, token) in trigrams(batch) {
                if model.three.add((a, b), token) && model.two.add(b, token) {
                    model.one.add((), token);
                }
            }
        }
        model.three.finish();
        model.two.finish();
        model.one.finish();
        model
    }

    /// Natural logarithms of the probabilities of a causal batch's targets: `[m]`.
    pub fn logprobs(&self, batch: &Batch) -> Vec<f64> {
        trigrams(batch).map(|(a, b, token)| antlm_nn::kernels::math::ln(self.p(a, b, token))).collect()
    }

    fn p(&self, a: u32, b: u32, token: u32) -> f64 {
        let one = self.one.p((), token, 1.0 / self.vocab as f64);
        self.three.p((a, b), token, self.two.p(b, token, one))
    }
}

/// Each target with the two tokens before it; before a segment's mark stands the mark once more.
fn trigrams(batch: &Batch) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
    let mut segment = 0;
    batch.rows.iter().zip(&batch.targets).map(move |(&row, &token)| {
        while batch.bounds[segment + 1] <= row {
            segment += 1;
        }
        let before = row.saturating_sub(1).max(batch.bounds[segment]);
        (batch.ids[before as usize], batch.ids[row as usize], token)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments, each as all its tokens after the mark 1.
    fn batch(segments: &[&[u32]]) -> Batch {
        let mut batch = Batch { bounds: vec![0], causal: true, ..Batch::default() };
        for tokens in segments {
            let start = batch.ids.len() as u32;
            batch.ids.push(1);
            batch.ids.extend(*tokens);
            batch.rows.extend((0..tokens.len() as u32).map(|i| start + i));
            batch.targets.extend(*tokens);
            batch.bounds.push(batch.ids.len() as u32);
        }
        batch
    }

    #[test]
    fn probabilities_add_up_to_one_in_every_context() {
        let text = batch(&[&[5, 6, 7], &[5, 6, 8], &[5, 9, 7, 6], &[6, 7], &[6, 7, 7]]);
        let model = Trigram::new(10, [&text]);
        for (a, b) in (0..10).flat_map(|a| (0..10).map(move |b| (a, b))) {
            let sum: f64 = (0..10).map(|token| model.p(a, b, token)).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{a} {b}: {sum}");
        }
    }

    #[test]
    fn by_hand() {
        // 1 5 6, 1 5 7, 1 5 6: trigrams (1,1,5) x 3, (1,5,6) x 2, (1,5,7) x 1. One occurs once and one twice: D = 1/3.
        let model = Trigram::new(8, [&batch(&[&[5, 6], &[5, 7], &[5, 6]])]);
        assert!((model.three.discount - 1.0 / 3.0).abs() < 1e-12);
        // Bigrams by contexts: (1,5), (5,6), (5,7), once each, so D = 1; unigrams 5, 6, 7 once each, D = 1.
        assert_eq!((model.two.discount, model.one.discount), (1.0, 1.0));
        // All of the shorter ones' mass goes down to 1/8, so p(6 | 1 5) = (2 - 1/3 + 1/3 * 2 / 8) / 3.
        let want = (2.0 - 1.0 / 3.0 + 1.0 / 3.0 * 2.0 / 8.0) / 3.0;
        assert!((model.p(1, 5, 6) - want).abs() < 1e-12);
        // An unknown context is read as a shorter one.
        assert!((model.p(7, 5, 6) - 1.0 / 8.0).abs() < 1e-12);
        assert_eq!(model.logprobs(&batch(&[&[5]])).len(), 1);
    }

    #[test]
    fn a_context_does_not_cross_segments() {
        let text = batch(&[&[5, 6], &[7]]);
        assert_eq!(trigrams(&text).collect::<Vec<_>>(), [(1, 1, 5), (1, 5, 6), (1, 1, 7)]);
    }
}
