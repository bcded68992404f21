//! Attention of new rows over the rows before them, whose keys and values were kept: what a causal pass computes for
//! its last rows, without the others. Row by row, as plain loops, so that it does not matter how many come at a time.

use rayon::prelude::*;

use super::attention::{for_runs, runs};
use super::dispatch;
use super::math::{dot, exp, fma, max, sum};
use crate::relative::RELATIVE_ROWS;
use crate::{Error, Result};

/// Keys and values of the rows of one segment so far, in one layer; at first of none.
#[derive(Clone, Debug)]
pub struct Past {
    d: usize,
    positions: Option<Vec<f32>>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Past {
    /// Of rows of width `d`, with projected positions `[qᵖ|kᵖ]: [63, 2 d]` or none.
    ///
    /// # Errors
    /// [`Error::Shape`] for a width of 0 or positions of another shape.
    pub fn new(d: usize, positions: Option<Vec<f32>>) -> Result<Past> {
        if d == 0 || positions.as_ref().is_some_and(|p| p.len() != RELATIVE_ROWS * 2 * d) {
            let got = format!("a width of {d} and {:?} values", positions.map(|p| p.len()));
            return Err(Error::Shape { op: "past", expected: "a width above 0 and positions [63, 2 d]".into(), got });
        }
        Ok(Past { d, positions, keys: Vec::new(), values: Vec::new() })
    }

    /// Width of the rows.
    pub fn width(&self) -> usize {
        self.d
    }

    /// How many rows it holds.
    pub fn rows(&self) -> usize {
        self.keys.len() / self.d
    }
}

/// Attention of the rows `qkv: [m, 3 d]`, which follow those of `past` and are added to it, over all up to each of
/// them: `o: [m, d]`. Scores are those of [`attention`](super::attention::attention), made as K_j·(Q_i + Qᵖ_b) + Q_i·Kᵖ_b.
pub fn attend(past: &mut Past, heads: usize, scale: f32, qkv: &[f32], o: &mut [f32]) {
    let (d, first) = (past.d, past.rows());
    for row in qkv.chunks_exact(3 * d) {
        past.keys.extend_from_slice(&row[d..2 * d]);
        past.values.extend_from_slice(&row[2 * d..]);
    }
    let (h, past) = (d / heads, &*past);
    let runs = if past.positions.is_some() { runs(past.rows()) } else { Vec::new() };
    o.par_chunks_mut(d).zip(qkv.par_chunks(3 * d)).enumerate().for_each(|(i, (o, qkv))| {
        let i = first + i;
        let (mut s, mut shifted) = (vec![0.0; i + 1], vec![0.0; h]);
        dispatch(
            #[inline(always)]
            || {
                for head in 0..heads {
                    let columns = head * h..(head + 1) * h;
                    let q = &qkv[columns.clone()];
                    match &past.positions {
                        None => {
                            for (s, k) in s.iter_mut().zip(past.keys.chunks_exact(d)) {
                                *s = scale * dot(q, &k[columns.clone()]);
                            }
                        }
                        Some(positions) => for_runs(
                            &runs,
                            i,
                            i + 1,
                            #[inline(always)]
                            |row, j| {
                                let (qp, kp) = positions[row * 2 * d..(row + 1) * 2 * d].split_at(d);
                                for ((shifted, q), p) in shifted.iter_mut().zip(q).zip(&qp[columns.clone()]) {
                                    *shifted = q + p;
                                }
                                let c = dot(q, &kp[columns.clone()]);
                                let keys = past.keys[j.start * d..j.end * d].chunks_exact(d);
                                for (s, k) in s[j].iter_mut().zip(keys) {
                                    *s = scale * (dot(&shifted, &k[columns.clone()]) + c);
                                }
                            },
                        ),
                    }
                    let top = max(&s);
                    for s in s.iter_mut() {
                        *s = exp(*s - top);
                    }
                    let inv = 1.0 / sum(&s);
                    let o = &mut o[columns.clone()];
                    o.fill(0.0);
                    for (s, v) in s.iter().zip(past.values.chunks_exact(d)) {
                        let weight = s * inv;
                        for (o, v) in o.iter_mut().zip(&v[columns.clone()]) {
                            *o = fma(weight, *v, *o);
                        }
                    }
                }
            },
        );
    });
}
