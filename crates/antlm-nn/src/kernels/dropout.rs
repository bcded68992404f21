//! Dropout masks as functions of (seed, site, step, row, column): eight 16-bit numbers from each Philox block, sixteen
//! blocks at a time. Nothing is stored; the backward pass makes the same mask again.

use super::dispatch;
use crate::rng::{Rng, Stream};

/// Numbers made at once: 16 blocks of 8.
const STRIDE: usize = 128;
/// A column whose block of 8 columns starts a row of another kind: attention gives every head a range of its own.
pub const HEAD_COLUMNS: u32 = 1 << 16;

/// Where in the step a mask is used, and how much it drops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Site {
    rng: Rng,
    stream: Stream,
    step: u32,
    /// Values whose 16-bit number is below this are dropped.
    threshold: u16,
}

impl Site {
    /// Dropout with probability `p` (rounded to a multiple of 1/65536, below 1) at place `site` of the model.
    /// `None` when nothing is dropped.
    pub fn new(rng: Rng, site: u32, step: u32, p: f64) -> Option<Site> {
        let threshold = (p.clamp(0.0, 0.999) * 65_536.0).round() as u16;
        (threshold > 0).then_some(Site { rng, stream: Stream::dropout(site), step, threshold })
    }

    /// The seed's halves, the stream, the step, and the threshold: what a card makes the same masks of.
    pub(crate) fn numbers(&self) -> [u32; 5] {
        let [low, high] = self.rng.key();
        [low, high, self.stream.0, self.step, u32::from(self.threshold)]
    }

    /// 1 / (1 - p): what the kept values are multiplied with.
    #[inline(always)]
    pub fn scale(&self) -> f32 {
        (65_536.0 / (65_536.0 - f64::from(self.threshold))) as f32
    }

    /// The factors (0 or [`scale`](Site::scale)) of one row, for columns `first .. first + out.len()`;
    /// `first` must be a multiple of 8. A function of its own, never a part of the loop around it, where the compiler would
    /// make no vectors of it.
    #[inline(never)]
    pub fn factors(&self, row: u32, first: u32, out: &mut [f32]) {
        let (scale, threshold) = (self.scale(), u32::from(self.threshold));
        dispatch(
            #[inline(always)]
            || {
                let mut block = first / 8;
                let mut chunks = out.chunks_exact_mut(STRIDE);
                for chunk in &mut chunks {
                    self.fill(row, block, threshold, scale, chunk);
                    block += (STRIDE / 8) as u32;
                }
                let rest = chunks.into_remainder();
                if !rest.is_empty() {
                    let mut last = [0.0; STRIDE];
                    self.fill(row, block, threshold, scale, &mut last);
                    rest.copy_from_slice(&last[..rest.len()]);
                }
            },
        );
    }

    /// Sixteen blocks side by side. Column 8 b + 2 w + half is half `half` of word w of block b.
    #[inline(always)]
    fn fill(&self, row: u32, block: u32, threshold: u32, scale: f32, out: &mut [f32]) {
        for lane in 0..STRIDE / 8 {
            let words = self.rng.quad(self.stream, self.step, row, block + lane as u32);
            for (w, word) in words.into_iter().enumerate() {
                out[8 * lane + 2 * w] = if word & 0xffff < threshold { 0.0 } else { scale };
                out[8 * lane + 2 * w + 1] = if word >> 16 < threshold { 0.0 } else { scale };
            }
        }
    }
}

/// Which rows of the whole optimiser step the rows of a buffer are, so that masks do not depend on how the step is
/// cut into micro-batches.
#[derive(Clone, Debug)]
pub enum Rows {
    /// Rows of something that belongs to no batch (the relative position table): 0, 1, 2, …
    Shared,
    /// Consecutive rows of the step from this one on.
    From(u32),
    /// The rows at these places after the first number.
    Picked(u32, std::sync::Arc<[u32]>),
}

impl Rows {
    /// The row of the step behind local row `r`.
    #[inline(always)]
    pub fn row(&self, r: usize) -> u32 {
        match self {
            Rows::Shared => r as u32,
            Rows::From(first) => first.wrapping_add(r as u32),
            Rows::Picked(first, list) => first.wrapping_add(list[r]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_scale_are_as_asked() {
        assert_eq!(Site::new(Rng::new(1), 0, 0, 0.0), None);
        for p in [0.1, 0.5] {
            let site = Site::new(Rng::new(1), 3, 9, p).unwrap();
            let mut row = vec![0.0; 1003];
            let (mut dropped, mut sum) = (0, 0.0);
            for r in 0..100 {
                site.factors(r, 0, &mut row);
                dropped += row.iter().filter(|&&x| x == 0.0).count();
                sum += row.iter().map(|&x| f64::from(x)).sum::<f64>();
            }
            assert!((dropped as f64 / 100_300.0 - p).abs() < 0.004, "{dropped}");
            assert!((sum / 100_300.0 - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn columns_do_not_depend_on_how_a_row_is_asked_for() {
        let site = Site::new(Rng::new(5), 1, 2, 0.3).unwrap();
        let mut whole = vec![0.0; 400];
        site.factors(7, 0, &mut whole);
        for (first, len) in [(0, 13), (8, 300), (392, 8), (128, 128)] {
            let mut part = vec![0.0; len];
            site.factors(7, first as u32, &mut part);
            assert_eq!(part, whole[first..first + len]);
        }
        // Column 0 is the low half of the first word.
        let word = crate::rng::philox4x32([5, 0], [0, 7, 2, Stream::dropout(1).0])[0];
        assert_eq!(whole[0] == 0.0, word & 0xffff < (0.3f64 * 65_536.0).round() as u32);
    }
}
