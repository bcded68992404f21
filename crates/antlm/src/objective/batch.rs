//! Segments and an objective in, one packed batch out: framing, masks and targets.

use super::{Batch, Masking, Objective};
use crate::text::special::{CLS, SEP};
use antlm_nn::rng::{Rng, Stream};

/// The tokens of one segment, without framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentTokens<'a> {
    /// At most the recipe's length less 2; may be empty.
    pub tokens: &'a [u16],
    /// These are the last tokens of their document, not the last ones before a cut.
    pub ends_document: bool,
}

/// Packs `segments` as `[CLS] tokens [SEP]` each, one after another, with what `objective` asks of them.
///
/// - `clm`: every row predicts the next token of its segment; `[SEP]` is wanted only where the document ends.
/// - `mlm`: tokens are masked; each masked position is to be guessed at its own row.
/// - `mntp`: the same masks; each is to be guessed one row to the left.
///
/// `step` is the optimiser step and `first_row` the number of rows of the same step in the micro-batches before this
/// one: a segment's masks depend on its first row in the whole step, never on how the step is split.
///
/// A batch can have no target at all (an empty segment that ends no document; masks that hit nothing in a very short
/// one): whoever divides by the number of targets must expect 0.
///
/// ```
/// use antlm::objective::{Masking, Objective, SegmentTokens, build, masked::Rule};
/// let segment = SegmentTokens { tokens: &[7, 8], ends_document: true };
/// let masking = Masking::new(Rule::Token);
/// let batch = build(Objective::Clm, &[segment], &masking, 128, 100, antlm_nn::rng::Rng::new(1), 0, 0);
/// assert_eq!(batch.ids, [1, 7, 8, 2]); // [CLS] 7 8 [SEP]
/// assert_eq!(batch.rows, [0, 1, 2]);
/// assert_eq!(batch.targets, [7, 8, 2]);
/// ```
#[allow(clippy::too_many_arguments)] // eight plain values; a struct for them would be taken apart at once
pub fn build(
    objective: Objective,
    segments: &[SegmentTokens],
    masking: &Masking,
    seq_len: usize,
    vocab_size: usize,
    rng: Rng,
    step: u32,
    first_row: u32,
) -> Batch {
    let capacity = segments.iter().map(|segment| segment.tokens.len() + 2).sum();
    let mut batch = Batch {
        ids: Vec::with_capacity(capacity),
        bounds: vec![0],
        causal: objective == Objective::Clm,
        first_row,
        ..Batch::default()
    };
    for segment in segments {
        let start = batch.ids.len() as u32;
        batch.ids.push(CLS);
        batch.ids.extend(segment.tokens.iter().map(|&token| u32::from(token)));
        batch.ids.push(SEP);
        let ids = &mut batch.ids[start as usize..]; // [tokens + 2]
        if objective == Objective::Clm {
            let last = if segment.ends_document { ids.len() } else { ids.len() - 1 };
            batch.rows.extend(start..start + last as u32 - 1);
            batch.targets.extend(&ids[1..last]);
        } else {
            let mut draws = rng.draws(Stream::MASK, step, first_row + start);
            // [CLS] at position 0 is never masked, so position - 1 is in the segment.
            let shift = u32::from(objective == Objective::Mntp);
            for (position, original) in masking.apply(ids, seq_len, vocab_size, &mut draws) {
                batch.rows.push(start + position - shift);
                batch.targets.push(original);
            }
        }
        batch.bounds.push(batch.ids.len() as u32);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::super::masked::Rule;
    use super::*;
    use antlm_nn::rng::Rng;
    use proptest::prelude::*;

    fn make(objective: Objective, rule: Rule, segments: &[SegmentTokens], step: u32, first_row: u32) -> Batch {
        build(objective, segments, &Masking::new(rule), 32, 300, Rng::new(4), step, first_row)
    }

    #[test]
    fn clm_targets() {
        let segments = [
            SegmentTokens { tokens: &[10, 11, 12], ends_document: false },
            SegmentTokens { tokens: &[], ends_document: false },
            SegmentTokens { tokens: &[], ends_document: true },
            SegmentTokens { tokens: &[13], ends_document: true },
        ];
        let batch = make(Objective::Clm, Rule::Token, &segments, 0, 40);
        assert_eq!(batch.ids, [CLS, 10, 11, 12, SEP, CLS, SEP, CLS, SEP, CLS, 13, SEP]);
        assert_eq!(batch.bounds, [0, 5, 7, 9, 12]);
        assert_eq!(batch.rows, [0, 1, 2, 7, 9, 10]);
        assert_eq!(batch.targets, [10, 11, 12, SEP, 13, SEP]);
        assert!(batch.causal);
        assert_eq!(batch.first_row, 40);
    }

    #[test]
    fn empty_batches() {
        let empty = SegmentTokens { tokens: &[], ends_document: true };
        for objective in [Objective::Mlm, Objective::Mntp] {
            let batch = make(objective, Rule::Span, &[empty], 3, 0);
            assert_eq!((batch.ids.as_slice(), batch.rows.len(), batch.targets.len()), (&[CLS, SEP][..], 0, 0));
        }
        assert_eq!(make(Objective::Clm, Rule::Span, &[], 3, 0).bounds, [0]);
    }

    #[test]
    fn other_visit_other_masks() {
        let tokens: Vec<u16> = (5..35).collect();
        let segment = [SegmentTokens { tokens: &tokens, ends_document: true }];
        assert_ne!(
            make(Objective::Mlm, Rule::Token, &segment, 1, 0),
            make(Objective::Mlm, Rule::Token, &segment, 2, 0)
        );
    }

    fn texts() -> impl Strategy<Value = Vec<Vec<u16>>> {
        prop::collection::vec(prop::collection::vec(0u16..300, 0..30), 1..6)
    }

    fn view(texts: &[Vec<u16>]) -> Vec<SegmentTokens<'_>> {
        texts.iter().map(|tokens| SegmentTokens { tokens, ends_document: tokens.len() % 2 == 0 }).collect()
    }

    proptest! {
        #[test]
        fn micro_batches_change_nothing(texts in texts(), cut in 0usize..6, span: bool, step in 0u32..50) {
            let rule = if span { Rule::Span } else { Rule::Token };
            let segments = view(&texts);
            let (left, right) = segments.split_at(cut.min(segments.len()));
            for objective in [Objective::Clm, Objective::Mlm, Objective::Mntp] {
                let whole = make(objective, rule, &segments, step, 0);
                let first = make(objective, rule, left, step, 0);
                let rows = first.ids.len() as u32;
                let second = make(objective, rule, right, step, rows);
                prop_assert_eq!(&whole.ids, &[first.ids, second.ids].concat());
                prop_assert_eq!(&whole.targets, &[first.targets, second.targets].concat());
                let shifted: Vec<u32> = second.rows.iter().map(|row| row + rows).collect();
                prop_assert_eq!(&whole.rows, &[first.rows, shifted].concat());
            }
        }

        #[test]
        fn masked_objectives_agree(texts in texts(), span: bool, step in 0u32..50) {
            let rule = if span { Rule::Span } else { Rule::Token };
            let segments = view(&texts);
            let plain = make(Objective::Clm, rule, &segments, step, 0);
            let mlm = make(Objective::Mlm, rule, &segments, step, 0);
            let mntp = make(Objective::Mntp, rule, &segments, step, 0);
            prop_assert!(!mlm.causal && !mntp.causal);
            prop_assert_eq!(&mlm.ids, &mntp.ids);
            prop_assert_eq!(&mlm.targets, &mntp.targets);
            prop_assert!(mlm.rows.windows(2).all(|pair| pair[0] < pair[1]));
            for ((&row, &left), &target) in mlm.rows.iter().zip(&mntp.rows).zip(&mlm.targets) {
                prop_assert_eq!(left + 1, row);
                prop_assert_eq!(plain.ids[row as usize], target);
                prop_assert!(target >= crate::text::special::FIRST_ORDINARY);
                prop_assert!(!mlm.bounds.contains(&row));
            }
        }
    }
}
