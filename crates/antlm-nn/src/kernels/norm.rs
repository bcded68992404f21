//! Layer norm and RMS norm over rows, forward and backward; layer norm can also drop and add a residual in the same pass.

use rayon::prelude::*;

use super::dropout::{Rows, Site};
use super::math::{dot, fma, sum, sum_of};
use super::{BLOCK, add_partials, dispatch};

/// What belongs to a layer norm besides its input: y = residual + drop(γ x̂ + β).
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// Added to the variance.
    pub eps: f32,
    /// γ and β, `[d]` each; without them y = x̂.
    pub affine: Option<(&'a [f32], &'a [f32])>,
    /// Dropout of the result, before the residual is added.
    pub drop: Option<(Site, &'a Rows)>,
}

/// `x: [n, d]` -> `y: [n, d]`; keeps mean and 1/σ of each row in `stats: [n, 2]` for the backward pass.
pub fn layer_norm(
    spec: LayerNorm<'_>,
    d: usize,
    x: &[f32],
    residual: Option<&[f32]>,
    y: &mut [f32],
    stats: &mut [f32],
) {
    let size = BLOCK * d;
    y.par_chunks_mut(size).zip(x.par_chunks(size)).zip(stats.par_chunks_mut(2 * BLOCK)).enumerate().for_each(
        |(block, ((y, x), stats))| {
            let mut factors = vec![1.0; d];
            dispatch(
                #[inline(always)]
                || {
                    for (i, ((y, x), stats)) in
                        y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(stats.chunks_exact_mut(2)).enumerate()
                    {
                        let row = block * BLOCK + i;
                        let (mean, inv) = moments(x, spec.eps);
                        (stats[0], stats[1]) = (mean, inv);
                        for (y, x) in y.iter_mut().zip(x) {
                            *y = (x - mean) * inv;
                        }
                        if let Some((gamma, beta)) = spec.affine {
                            for ((y, g), b) in y.iter_mut().zip(gamma).zip(beta) {
                                *y = fma(*y, *g, *b);
                            }
                        }
                        if let Some((site, rows)) = spec.drop {
                            site.factors(rows.row(row), 0, &mut factors);
                            for (y, f) in y.iter_mut().zip(&factors) {
                                *y *= f;
                            }
                        }
                        if let Some(residual) = residual {
                            for (y, r) in y.iter_mut().zip(&residual[row * d..(row + 1) * d]) {
                                *y += r;
                            }
                        }
                    }
                },
            );
        },
    );
}

/// Mean and 1 / √(variance + eps) of a row (population variance, two passes).
#[inline(always)]
pub fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let scale = 1.0 / x.len() as f32;
    let mean = sum(x) * scale;
    let variance = sum_of(
        x,
        #[inline(always)]
        |x| (x - mean) * (x - mean),
    ) * scale;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// Where the gradients of γ and β are added.
pub type AffineGrads<'a> = Option<(&'a mut [f32], &'a mut [f32])>;

/// Backward of [`layer_norm`]: from `gy: [n, d]` to `gx: [n, d]` (added when `add`, else written) and γ, β.
/// The residual's gradient is `gy` itself and is not handled here.
#[expect(clippy::too_many_arguments, reason = "the operands of one operation")]
pub fn layer_norm_backward(
    spec: LayerNorm<'_>,
    d: usize,
    x: &[f32],
    stats: &[f32],
    gy: &[f32],
    gx: &mut [f32],
    add: bool,
    grads: AffineGrads<'_>,
) {
    let size = BLOCK * d;
    let wide = if spec.affine.is_some() { 2 * d } else { 0 };
    let mut partials = vec![0.0; x.len().div_ceil(size) * wide];
    let step = |block: usize, gx: &mut [f32], partial: &mut [f32]| {
        let (mut factors, mut h, mut xhat) = (vec![1.0; d], vec![0.0; d], vec![0.0; d]);
        let (ggamma, gbeta) = partial.split_at_mut(wide / 2);
        dispatch(
            #[inline(always)]
            || {
                for (i, gx) in gx.chunks_exact_mut(d).enumerate() {
                    let row = block * BLOCK + i;
                    let (x, gy) = (&x[row * d..(row + 1) * d], &gy[row * d..(row + 1) * d]);
                    let (mean, inv) = (stats[2 * row], stats[2 * row + 1]);
                    for (h, x) in xhat.iter_mut().zip(x) {
                        *h = (x - mean) * inv;
                    }
                    if let Some((site, rows)) = spec.drop {
                        site.factors(rows.row(row), 0, &mut factors);
                        for ((h, g), f) in h.iter_mut().zip(gy).zip(&factors) {
                            *h = g * f;
                        }
                    } else {
                        h.copy_from_slice(gy);
                    }
                    if let Some((gamma, _)) = spec.affine {
                        for ((g, h), x) in ggamma.iter_mut().zip(&h).zip(&xhat) {
                            *g = fma(*h, *x, *g);
                        }
                        for (g, h) in gbeta.iter_mut().zip(&h) {
                            *g += h;
                        }
                        for (h, g) in h.iter_mut().zip(gamma) {
                            *h *= g;
                        }
                    }
                    norm_backward_row(&h, &xhat, inv, gx, add);
                }
            },
        );
    };
    if wide == 0 {
        gx.par_chunks_mut(size).enumerate().for_each(|(block, gx)| step(block, gx, &mut []));
    } else {
        gx.par_chunks_mut(size).zip(partials.par_chunks_mut(wide)).enumerate().for_each(|(b, (gx, p))| step(b, gx, p));
        if let Some((ggamma, gbeta)) = grads {
            for partial in partials.chunks_exact(wide) {
                add_partials(&partial[..d], ggamma);
                add_partials(&partial[d..], gbeta);
            }
        }
    }
}

/// One row through a norm without parameters: gx = (h - mean(h) - x̂ mean(h x̂)) / σ.
#[inline(always)]
pub fn norm_backward_row(h: &[f32], xhat: &[f32], inv: f32, gx: &mut [f32], add: bool) {
    let scale = 1.0 / h.len() as f32;
    let (a, b) = (sum(h) * scale, dot(h, xhat) * scale);
    if add {
        for ((g, h), x) in gx.iter_mut().zip(h).zip(xhat) {
            *g = fma(inv, fma(-b, *x, h - a), *g);
        }
    } else {
        for ((g, h), x) in gx.iter_mut().zip(h).zip(xhat) {
            *g = inv * fma(-b, *x, h - a);
        }
    }
}

/// y = w x / √(mean(x²) + eps) over rows of `d`; keeps 1/rms of each row in `stats: [n]`.
pub fn rms_norm(d: usize, eps: f32, x: &[f32], w: &[f32], y: &mut [f32], stats: &mut [f32]) {
    let size = BLOCK * d;
    y.par_chunks_mut(size).zip(x.par_chunks(size)).zip(stats.par_chunks_mut(BLOCK)).for_each(|((y, x), stats)| {
        dispatch(
            #[inline(always)]
            || {
                for ((y, x), stat) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(stats) {
                    let inv = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
                    *stat = inv;
                    for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                        *y = w * (x * inv);
                    }
                }
            },
        );
    });
}

/// Backward of [`rms_norm`]: `gx` is added to when `add`, else written; `gw: [d]` is added to.
#[expect(clippy::too_many_arguments, reason = "the operands of one operation")]
pub fn rms_norm_backward(
    d: usize,
    x: &[f32],
    w: &[f32],
    stats: &[f32],
    gy: &[f32],
    gx: &mut [f32],
    add: bool,
    gw: &mut [f32],
) {
    let size = BLOCK * d;
    let mut partials = vec![0.0; x.len().div_ceil(size) * d];
    gx.par_chunks_mut(size).zip(partials.par_chunks_mut(d)).enumerate().for_each(|(block, (gx, gw))| {
        let mut h = vec![0.0; d];
        dispatch(
            #[inline(always)]
            || {
                for (i, gx) in gx.chunks_exact_mut(d).enumerate() {
                    let row = block * BLOCK + i;
                    let (x, gy, inv) = (&x[row * d..(row + 1) * d], &gy[row * d..(row + 1) * d], stats[row]);
                    for ((gw, g), x) in gw.iter_mut().zip(gy).zip(x) {
                        *gw = fma(*g, x * inv, *gw);
                    }
                    for ((h, g), w) in h.iter_mut().zip(gy).zip(w) {
                        *h = g * w;
                    }
                    let b = inv * inv * (dot(&h, x) / d as f32);
                    if add {
                        for ((g, h), x) in gx.iter_mut().zip(&h).zip(x) {
                            *g = fma(inv, fma(-b, *x, *h), *g);
                        }
                    } else {
                        for ((g, h), x) in gx.iter_mut().zip(&h).zip(x) {
                            *g = inv * fma(-b, *x, *h);
                        }
                    }
                }
            },
        );
    });
    add_partials(&partials, gw);
}
