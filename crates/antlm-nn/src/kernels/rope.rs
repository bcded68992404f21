//! Rotary positions (half-split, as Llama has them): pair (c, c + h/2) turns by position · θ^(-2c/h).

use rayon::prelude::*;

use super::{BLOCK, dispatch};

/// Cosines and sines of every position below `positions`: `[positions, h/2]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Table {
    /// The table of heads of width `h` (even). Angles are computed in f64.
    pub fn new(positions: usize, h: usize, theta: f64) -> Table {
        let half = h / 2;
        let angle = |i: usize| (i / half) as f64 * libm::pow(theta, -2.0 * (i % half) as f64 / h as f64);
        let angles: Vec<f64> = (0..positions * half).map(angle).collect();
        Table {
            cos: angles.iter().map(|a| libm::cos(*a) as f32).collect(),
            sin: angles.iter().map(|a| libm::sin(*a) as f32).collect(),
            half,
        }
    }

    /// Width of the heads that the table is for.
    pub fn width(&self) -> usize {
        2 * self.half
    }

    /// Cosines and sines, `[positions, h/2]` each.
    pub(crate) fn parts(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }

    /// Number of positions in the table.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }
}

/// Turns the q and k parts of `qkv: [n, 3 d]` in place, or back when `inverse` (the backward pass).
/// `positions: [n]` are places within the segments.
pub fn rope(table: &Table, d: usize, heads: usize, positions: &[u32], qkv: &mut [f32], inverse: bool) {
    let half = table.half;
    let sign = if inverse { -1.0 } else { 1.0 };
    qkv.par_chunks_mut(BLOCK * 3 * d).zip(positions.par_chunks(BLOCK)).for_each(|(rows, positions)| {
        dispatch(
            #[inline(always)]
            || {
                for (row, &position) in rows.chunks_exact_mut(3 * d).zip(positions) {
                    let at = position as usize * half;
                    let (cos, sin) = (&table.cos[at..at + half], &table.sin[at..at + half]);
                    // q's heads and k's heads lie behind each other: 2 * heads pieces of width h.
                    for head in row[..2 * d].chunks_exact_mut(d / heads) {
                        let (a, b) = head.split_at_mut(half);
                        for (((a, b), c), s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                            let s = s * sign;
                            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                        }
                    }
                }
            },
        );
    });
}
