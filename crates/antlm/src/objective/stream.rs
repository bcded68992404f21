//! Which segments make which optimiser step: the endless stream of segments, cut into blocks and steps.
//!
//! Position p of the stream is segment `permutation(p / n)[p % n]` of n segments: every epoch is a permutation of its
//! own, by f(seed, epoch). Blocks follow each other in the stream; steps follow each other in a block. A [`Layout`]
//! holds the edges of all blocks, so that every step is a pure function of its number: to resume a run is to go on
//! with the next number, and a checkpoint needs no more of the stream than that.

use super::Objective;
use super::schedule::{Amount, Block};
use crate::{Error, Result};
use antlm_nn::rng::{Rng, Stream};
use std::ops::Range;

/// The order in which segments are visited, epoch after epoch.
#[derive(Clone, Debug)]
pub struct Order {
    rng: Rng,
    segments: u32,
    /// The epoch that was asked for last, and its permutation.
    cached: Option<(u64, Vec<u32>)>,
}

impl Order {
    /// The order of `segments` segments (at least 1) by this seed.
    pub fn new(rng: Rng, segments: u32) -> Order {
        Order { rng, segments, cached: None }
    }

    /// The segment at a position of the stream. Computes a permutation when the epoch changes, otherwise looks it up.
    ///
    /// ```
    /// use antlm::objective::stream::Order;
    /// let mut order = Order::new(antlm_nn::rng::Rng::new(1), 100);
    /// let mut epoch: Vec<u32> = (300..400).map(|position| order.segment(position)).collect();
    /// epoch.sort();
    /// assert!(epoch.into_iter().eq(0..100));
    /// ```
    pub fn segment(&mut self, position: u64) -> u32 {
        let n = u64::from(self.segments);
        self.epoch(position / n)[(position % n) as usize]
    }

    fn epoch(&mut self, epoch: u64) -> &[u32] {
        if self.cached.as_ref().is_none_or(|(known, _)| *known != epoch) {
            // A layout refuses schedules with more epochs than a u32 counts.
            self.cached = Some((epoch, self.rng.permutation(Stream::ORDER, epoch as u32, self.segments)));
        }
        // Filled just above.
        &self.cached.as_ref().unwrap().1
    }
}

/// The place of one block in the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The numbers of its optimiser steps (the run's first step is 0).
    pub steps: Range<u64>,
    /// Its positions in the stream.
    pub positions: Range<u64>,
    /// Raw words of all its segments, repeats counted.
    pub words: u64,
    /// The objectives of its steps, repeated from its start on (see [`super::schedule::What::pattern`]).
    pub pattern: Vec<Objective>,
}

impl Span {
    /// How many of its steps train each objective, sorted by objective.
    pub fn steps_by_objective(&self) -> Vec<(Objective, u64)> {
        let steps = self.steps.end - self.steps.start;
        let mut objectives = self.pattern.clone();
        objectives.sort_unstable();
        objectives.dedup();
        let count = |objective| {
            let of = |part: &[Objective]| part.iter().filter(|&&other| other == objective).count() as u64;
            let n = self.pattern.len() as u64;
            steps / n * of(&self.pattern) + of(&self.pattern[..(steps % n) as usize])
        };
        objectives.into_iter().map(|objective| (objective, count(objective))).collect()
    }
}

/// One optimiser step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 0; also the `step` of its random numbers.
    pub index: u32,
    /// The block it belongs to.
    pub block: usize,
    /// Its number within the block, from 0.
    pub in_block: u64,
    /// What it trains.
    pub objective: Objective,
    /// Its positions in the stream; [`Order::segment`] says which segments these are.
    pub positions: Range<u64>,
    /// It is the last step of its block.
    pub ends_block: bool,
    /// The number of complete epochs after it, if it completes one.
    pub ends_epoch: Option<u64>,
}

/// All blocks and steps of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The blocks' places, in order, without gaps.
    pub blocks: Vec<Span>,
    /// Segments of an optimiser step (the last of a block may have fewer).
    pub batch: u32,
    /// Segments of an epoch.
    pub segments: u32,
}

impl Layout {
    /// Lays out the blocks over `segments` segments, of which segment i has `words(i)` raw words.
    ///
    /// A block of n epochs takes exactly n x `segments` positions. A block of words ends with the first step at or past
    /// its mark. No step spans two blocks.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is nothing to train on, or more steps or epochs than a u32 counts.
    pub fn new(blocks: &[Block], segments: u32, words: impl Fn(u32) -> u32, batch: u32, rng: Rng) -> Result<Layout> {
        let usage = |what: &str| Err(Error::Usage(format!("schedule: {what}")));
        if segments == 0 {
            return usage("there is no segment to train on");
        }
        if batch == 0 {
            return usage("a step needs at least one segment");
        }
        let mut count = Words::new(segments, words, rng);
        let mut spans: Vec<Span> = Vec::new();
        let (mut step, mut position) = (0u64, 0u64);
        for block in blocks {
            let before = count.before(position);
            let (batch, n) = (u64::from(batch), u64::from(segments));
            let end = match block.amount {
                Amount::Epochs(epochs) => epochs.checked_mul(n).and_then(|taken| position.checked_add(taken)),
                Amount::Words(_) if count.total == 0 => {
                    return usage("a block of words never ends: there is not one word in the text");
                }
                Amount::Words(mark) => {
                    let reached = before.checked_add(mark).and_then(|target| count.reached(target));
                    reached.and_then(|at| position.checked_add((at - position).div_ceil(batch).checked_mul(batch)?))
                }
            };
            let Some(end) = end.filter(|end| end.div_ceil(n) <= u64::from(u32::MAX)) else {
                return usage("more epochs than can be counted");
            };
            let next = step + (end - position).div_ceil(batch);
            if next > u64::from(u32::MAX) {
                return usage("more optimiser steps than can be counted (4,294,967,295)");
            }
            spans.push(Span {
                steps: step..next,
                positions: position..end,
                words: count.before(end) - before,
                pattern: block.what.pattern(),
            });
            (step, position) = (next, end);
        }
        Ok(Layout { blocks: spans, batch, segments })
    }

    /// Optimiser steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.blocks.last().map_or(0, |span| span.steps.end)
    }

    /// The step of this number, or `None` after the last one.
    pub fn step(&self, index: u64) -> Option<Step> {
        let block = self.blocks.partition_point(|span| span.steps.end <= index);
        let span = self.blocks.get(block)?;
        let in_block = index - span.steps.start;
        let (batch, n) = (u64::from(self.batch), u64::from(self.segments));
        let start = span.positions.start + in_block * batch;
        let end = (start + batch).min(span.positions.end);
        Some(Step {
            index: index as u32, // `new` refuses more steps than a u32 counts
            block,
            in_block,
            objective: span.pattern[(in_block % span.pattern.len() as u64) as usize],
            positions: start..end,
            ends_block: end == span.positions.end,
            ends_epoch: (start / n < end / n).then_some(end / n),
        })
    }

    /// The steps from number `first` on.
    pub fn steps_from(&self, first: u64) -> impl Iterator<Item = Step> + '_ {
        (first..self.total_steps()).map_while(|index| self.step(index))
    }
}

/// The position of the stream with its `word`-th word (from 0), if `words(i)` of the segments begin with segment i;
/// nothing for a text without words, or beyond the epochs that can be counted.
pub fn position_of_word(word: u64, segments: u32, words: impl Fn(u32) -> u32, rng: Rng) -> Option<u64> {
    let mut count = Words::new(segments, words, rng);
    if count.total == 0 {
        return None;
    }
    // The first n positions hold the word; the last of them is it.
    Some(count.reached(word.checked_add(1)?)? - 1)
}

/// Counts the words of the stream, epoch by epoch.
struct Words<F> {
    order: Order,
    words: F,
    /// Words of an epoch.
    total: u64,
    /// An epoch, and the words of its first 0, 1, …, n segments.
    sums: Option<(u64, Vec<u64>)>,
}

impl<F: Fn(u32) -> u32> Words<F> {
    fn new(segments: u32, words: F, rng: Rng) -> Words<F> {
        let total = (0..segments).map(|segment| u64::from(words(segment))).sum();
        Words { order: Order::new(rng, segments), words, total, sums: None }
    }

    /// Words of the first 0, 1, …, n segments of an epoch: `[n + 1]`, increasing.
    fn sums(&mut self, epoch: u64) -> &[u64] {
        if self.sums.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let mut sums = vec![0];
            let mut sum = 0;
            for &segment in self.order.epoch(epoch) {
                sum += u64::from((self.words)(segment));
                sums.push(sum);
            }
            self.sums = Some((epoch, sums));
        }
        // Filled just above.
        &self.sums.as_ref().unwrap().1
    }

    /// Words of the first `position` positions.
    fn before(&mut self, position: u64) -> u64 {
        let n = u64::from(self.order.segments);
        let (epoch, rest) = (position / n, (position % n) as usize);
        let head = if rest == 0 { 0 } else { self.sums(epoch)[rest] };
        // A segment has fewer words than a u32, positions fit in n x 2^32: at most 2^96, so saturate; a text of that
        // size does not exist.
        epoch.saturating_mul(self.total).saturating_add(head)
    }

    /// The smallest number of positions that hold at least `target` words (at least 1); `None` beyond u32 epochs.
    fn reached(&mut self, target: u64) -> Option<u64> {
        let epoch = (target - 1) / self.total;
        let rest = target - epoch * self.total; // 1..=total
        if epoch > u64::from(u32::MAX) {
            return None;
        }
        let n = u64::from(self.order.segments);
        Some(epoch * n + self.sums(epoch).partition_point(|&sum| sum < rest) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Schedule;
    use super::*;
    use antlm_nn::rng::Rng;
    use proptest::prelude::*;

    fn lay_out(schedule: &str, segments: u32, words: impl Fn(u32) -> u32, batch: u32, seed: u64) -> Layout {
        Layout::new(&Schedule::parse(schedule).unwrap().blocks(), segments, words, batch, Rng::new(seed)).unwrap()
    }

    #[test]
    fn epochs_take_exactly_their_segments() {
        let layout = lay_out("1 clm + 2 mlm + 1 clm", 10, |_| 7, 4, 1);
        let steps: Vec<Step> = layout.steps_from(0).collect();
        assert_eq!(layout.total_steps(), 3 + 5 + 3);
        let text: Vec<String> = steps
            .iter()
            .map(|s| format!("{}{:?}{}", s.objective, s.positions, if s.ends_block { "." } else { "" }))
            .collect();
        assert_eq!(
            text,
            [
                "clm0..4",
                "clm4..8",
                "clm8..10.",
                "mlm10..14",
                "mlm14..18",
                "mlm18..22",
                "mlm22..26",
                "mlm26..30.",
                "clm30..34",
                "clm34..38",
                "clm38..40."
            ]
        );
        let epochs: Vec<(u32, u64)> = steps.iter().filter_map(|s| Some((s.index, s.ends_epoch?))).collect();
        assert_eq!(epochs, [(2, 1), (5, 2), (7, 3), (10, 4)]);
        assert_eq!(layout.blocks.iter().map(|b| b.words).collect::<Vec<_>>(), [70, 140, 70]);
        assert!(layout.step(11).is_none());
    }

    #[test]
    fn mixes() {
        let layout = lay_out("1 clm + 1 mix(clm:1, mlm:3)", 20, |_| 1, 2, 1);
        assert_eq!(layout.blocks[1].steps_by_objective(), [(Objective::Clm, 3), (Objective::Mlm, 7)]);
        let objectives: Vec<Objective> = layout.steps_from(10).map(|step| step.objective).collect();
        let count = objectives.iter().filter(|&&o| o == Objective::Clm).count();
        assert_eq!((objectives.len(), count), (10, 3));
    }

    #[test]
    fn what_cannot_be_laid_out() {
        let blocks = |text| Schedule::parse(text).unwrap().blocks();
        for (text, segments, words, batch, part) in [
            ("1 clm", 0, 1, 1, "no segment"),
            ("1 clm", 1, 1, 0, "at least one segment"),
            ("1kw clm", 5, 0, 1, "not one word"),
            ("1000000 clm", 10_000, 1, 1, "optimiser steps"),
            ("1000000Mw clm", 1, 1, 1000, "more epochs"),
        ] {
            let error = Layout::new(&blocks(text), segments, |_| words, batch, Rng::new(1)).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    /// Walks the stream position by position, as the definition says, without any shortcut.
    fn walk(schedule: &str, segments: u32, words: &[u32], batch: u64, seed: u64) -> Vec<(usize, Range<u64>)> {
        let mut order = Order::new(Rng::new(seed), segments);
        let (mut position, mut steps) = (0u64, Vec::new());
        for (index, block) in Schedule::parse(schedule).unwrap().blocks().into_iter().enumerate() {
            let (mut taken, mut seen) = (0u64, 0u64);
            loop {
                let left = match block.amount {
                    Amount::Epochs(n) => n * u64::from(segments) - taken,
                    Amount::Words(n) if seen < n => u64::MAX,
                    Amount::Words(_) => 0,
                };
                if left == 0 {
                    break;
                }
                let size = batch.min(left);
                for p in position..position + size {
                    seen += u64::from(words[order.segment(p) as usize]);
                }
                steps.push((index, position..position + size));
                position += size;
                taken += size;
            }
        }
        steps
    }

    fn schedules() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "1 clm + 2 mlm + 1 clm",
            "3kw clm + 1 mlm",
            "2x(1kw mlm + 2kw clm)",
            "1kw clm + 1 mix(clm:1, mlm:2) + 5kw mntp",
            "2 mix(mlm:3, clm:2, mntp:1) + 1kw mlm",
        ])
    }

    proptest! {
        #[test]
        fn as_defined(
            schedule in schedules(),
            words in prop::collection::vec(0u32..200, 1..40),
            batch in 1u32..12,
            seed: u64,
        ) {
            let mut words = words;
            words[0] += 1; // a block of words needs a word
            let segments = words.len() as u32;
            let layout = lay_out(schedule, segments, |i| words[i as usize], batch, seed);
            let steps: Vec<Step> = layout.steps_from(0).collect();
            let plain: Vec<(usize, Range<u64>)> = steps.iter().map(|s| (s.block, s.positions.clone())).collect();
            prop_assert_eq!(plain, walk(schedule, segments, &words, u64::from(batch), seed));

            // Words, steps per objective and block ends are those of the steps.
            let mut order = Order::new(Rng::new(seed), segments);
            for (index, block) in layout.blocks.iter().enumerate() {
                let own: Vec<&Step> = steps.iter().filter(|step| step.block == index).collect();
                let seen: u64 =
                    block.positions.clone().map(|p| u64::from(words[order.segment(p) as usize])).sum();
                prop_assert_eq!(seen, block.words);
                for (objective, count) in block.steps_by_objective() {
                    prop_assert_eq!(own.iter().filter(|s| s.objective == objective).count() as u64, count);
                }
                prop_assert_eq!(own.iter().filter(|s| s.ends_block).count(), 1);
                prop_assert!(own.last().unwrap().ends_block);
            }
        }

        #[test]
        fn resuming_goes_on_where_it_stopped(
            schedule in schedules(), segments in 1u32..40, batch in 1u32..12, seed: u64, stop in 0u64..60,
        ) {
            let whole: Vec<Step> = lay_out(schedule, segments, |i| i + 1, batch, seed).steps_from(0).collect();
            let stop = stop.min(whole.len() as u64);
            // A new process: everything is made again, nothing but the step's number is known.
            let again = lay_out(schedule, segments, |i| i + 1, batch, seed);
            let rest: Vec<Step> = again.steps_from(stop).collect();
            prop_assert_eq!(&rest, &whole[stop as usize..]);
            let (mut one, mut other) = (Order::new(Rng::new(seed), segments), Order::new(Rng::new(seed), segments));
            whole.iter().for_each(|step| step.positions.clone().for_each(|p| { one.segment(p); }));
            for position in rest.iter().flat_map(|step| step.positions.clone()) {
                prop_assert_eq!(one.segment(position), other.segment(position));
            }
        }

        #[test]
        fn no_segment_twice_in_an_epoch(segments in 1u32..50, batch in 1u32..12, seed: u64) {
            let layout = lay_out("2 clm + 3 mlm", segments, |_| 1, batch, seed);
            let mut order = Order::new(Rng::new(seed), segments);
            let visits: Vec<u32> =
                layout.steps_from(0).flat_map(|step| step.positions).map(|p| order.segment(p)).collect();
            prop_assert_eq!(visits.len(), 5 * segments as usize);
            for epoch in visits.chunks(segments as usize) {
                let mut sorted = epoch.to_vec();
                sorted.sort_unstable();
                prop_assert!(sorted.into_iter().eq(0..segments));
            }
        }
    }
}
