//! Gated feed-forward activations, GELU and dropout with residual, forward and backward, row by row.

use rayon::prelude::*;

use super::dropout::{Rows, Site};
use super::math::{fma, gelu, gelu_derivative, gelu_tanh, silu};
use super::norm::{moments, norm_backward_row};
use super::{BLOCK, dispatch};

/// LTG-BERT's feed-forward middle: `[u|g]: [n, 2 width]` -> z = LN₀(u ⊙ gelu_tanh(g)): `[n, width]`; `stats: [n]` is 1/σ.
pub fn geglu_norm(width: usize, eps: f32, ug: &[f32], z: &mut [f32], stats: &mut [f32]) {
    z.par_chunks_mut(BLOCK * width).zip(ug.par_chunks(BLOCK * 2 * width)).zip(stats.par_chunks_mut(BLOCK)).for_each(
        |((z, ug), stats)| {
            dispatch(
                #[inline(always)]
                || {
                    for ((z, ug), stat) in z.chunks_exact_mut(width).zip(ug.chunks_exact(2 * width)).zip(stats) {
                        let (u, g) = ug.split_at(width);
                        gated_row(gelu_tanh, (g, u), z);
                        let (mean, inv) = moments(z, eps);
                        *stat = inv;
                        for z in z.iter_mut() {
                            *z = (*z - mean) * inv;
                        }
                    }
                },
            );
        },
    );
}

/// y = f(gate) ⊙ up for one row; `f` also gives its slope. A function of its own: in one loop with the rows around it, the
/// compiler makes no vectors of it.
#[inline(always)]
fn gated_row(f: impl Fn(f32) -> (f32, f32), (gate, up): (&[f32], &[f32]), y: &mut [f32]) {
    let n = y.len();
    let (gate, up) = (&gate[..n], &up[..n]);
    for i in 0..n {
        y[i] = f(gate[i]).0 * up[i];
    }
}

/// Backward of [`gated_row`].
#[inline(always)]
fn gated_backward_row(
    f: impl Fn(f32) -> (f32, f32),
    (gate, up): (&[f32], &[f32]),
    gy: &[f32],
    (ggate, gup): (&mut [f32], &mut [f32]),
) {
    let n = gy.len();
    let (gate, up, ggate, gup) = (&gate[..n], &up[..n], &mut ggate[..n], &mut gup[..n]);
    for i in 0..n {
        let (y, slope) = f(gate[i]);
        ggate[i] = gy[i] * up[i] * slope;
        gup[i] = gy[i] * y;
    }
}

/// Backward of [`geglu_norm`]: writes `gug: [n, 2 width]`.
pub fn geglu_norm_backward(width: usize, ug: &[f32], z: &[f32], stats: &[f32], gz: &[f32], gug: &mut [f32]) {
    gug.par_chunks_mut(BLOCK * 2 * width).enumerate().for_each(|(block, gug)| {
        let mut h = vec![0.0; width];
        dispatch(
            #[inline(always)]
            || {
                for (i, gug) in gug.chunks_exact_mut(2 * width).enumerate() {
                    let row = block * BLOCK + i;
                    let (u, g) = ug[row * 2 * width..(row + 1) * 2 * width].split_at(width);
                    let range = row * width..(row + 1) * width;
                    norm_backward_row(&gz[range.clone()], &z[range], stats[row], &mut h, false);
                    let (gu, gg) = gug.split_at_mut(width);
                    gated_backward_row(gelu_tanh, (g, u), &h, (gg, gu));
                }
            },
        );
    });
}

/// Llama's feed-forward middle: `[gate|up]: [n, 2 width]` -> silu(gate) ⊙ up: `[n, width]`.
pub fn swiglu(width: usize, gu: &[f32], y: &mut [f32]) {
    y.par_chunks_mut(BLOCK * width).zip(gu.par_chunks(BLOCK * 2 * width)).for_each(|(y, gu)| {
        dispatch(
            #[inline(always)]
            || {
                for (y, gu) in y.chunks_exact_mut(width).zip(gu.chunks_exact(2 * width)) {
                    gated_row(silu, gu.split_at(width), y);
                }
            },
        );
    });
}

/// Backward of [`swiglu`]: writes `ggu: [n, 2 width]`.
pub fn swiglu_backward(width: usize, gu: &[f32], gy: &[f32], ggu: &mut [f32]) {
    let (wide, narrow) = (BLOCK * 2 * width, BLOCK * width);
    ggu.par_chunks_mut(wide).zip(gu.par_chunks(wide)).zip(gy.par_chunks(narrow)).for_each(|((ggu, gu), gy)| {
        dispatch(
            #[inline(always)]
            || {
                for ((ggu, gu), gy) in
                    ggu.chunks_exact_mut(2 * width).zip(gu.chunks_exact(2 * width)).zip(gy.chunks_exact(width))
                {
                    gated_backward_row(silu, gu.split_at(width), gy, ggu.split_at_mut(width));
                }
            },
        );
    });
}

/// Elements that one task handles where rows do not matter.
const CHUNK: usize = 1 << 14;

/// Exact GELU, element by element.
pub fn gelu_forward(x: &[f32], y: &mut [f32]) {
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        dispatch(
            #[inline(always)]
            || {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = gelu(*x);
                }
            },
        );
    });
}

/// Backward of [`gelu_forward`]: writes `gx`.
pub fn gelu_backward(x: &[f32], gy: &[f32], gx: &mut [f32]) {
    gx.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(gy.par_chunks(CHUNK)).for_each(|((gx, x), gy)| {
        dispatch(
            #[inline(always)]
            || {
                for ((gx, x), gy) in gx.iter_mut().zip(x).zip(gy) {
                    *gx = gy * gelu_derivative(*x);
                }
            },
        );
    });
}

/// y = residual + drop(x) over rows of `d`; without `drop` the sum alone. Backward: the same with `x = gy`, no residual.
pub fn dropout_add(d: usize, drop: Option<(Site, &Rows)>, x: &[f32], residual: Option<&[f32]>, y: &mut [f32]) {
    y.par_chunks_mut(BLOCK * d).zip(x.par_chunks(BLOCK * d)).enumerate().for_each(|(block, (y, x))| {
        let mut factors = vec![1.0; d];
        dispatch(
            #[inline(always)]
            || {
                for (i, (y, x)) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).enumerate() {
                    let row = block * BLOCK + i;
                    if let Some((site, rows)) = drop {
                        site.factors(rows.row(row), 0, &mut factors);
                    }
                    match residual {
                        Some(r) => {
                            let r = &r[row * d..(row + 1) * d];
                            for (((y, x), f), r) in y.iter_mut().zip(x).zip(&factors).zip(r) {
                                *y = fma(*x, *f, *r);
                            }
                        }
                        None => {
                            for ((y, x), f) in y.iter_mut().zip(x).zip(&factors) {
                                *y = x * f;
                            }
                        }
                    }
                }
            },
        );
    });
}
