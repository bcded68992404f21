//! The inner loops of the optimisers, over one block of one tensor; compiled for each instruction set by `pulp`.
//!
//! Sums run in sixteen f32 lanes over at most 4,096 values, and from there on in f64.

use super::{Optimizer, Update};
use pulp::Arch;

const LANES: usize = 16;
const STRETCH: usize = 4096;

/// An update's constants, worked out in f64.
pub(super) struct Coefficients {
    grad_scale: f32,
    beta1: f32,
    beta2: f32,
    /// 1 - beta1
    new1: f32,
    /// 1 - beta2
    new2: f32,
    /// 1 / (1 - beta1^t)
    correct1: f32,
    /// 1 / (1 - beta2^t)
    correct2: f32,
    eps: f32,
    weight_decay: f32,
    lr: f32,
}

impl Coefficients {
    pub(super) fn new(optimizer: &Optimizer, at: Update) -> Coefficients {
        let (beta1, beta2) = (optimizer.beta1, optimizer.beta2);
        // A power this high is 0 long before the exponent stops growing.
        let t = at.t.min(i32::MAX as u64) as i32;
        Coefficients {
            grad_scale: at.grad_scale,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            new1: (1.0 - beta1) as f32,
            new2: (1.0 - beta2) as f32,
            correct1: (1.0 / (1.0 - beta1.powi(t))) as f32,
            correct2: (1.0 / (1.0 - beta2.powi(t))) as f32,
            eps: optimizer.eps as f32,
            weight_decay: optimizer.weight_decay as f32,
            lr: at.lr as f32,
        }
    }

    /// Moves both moments of one value.
    #[inline(always)]
    fn moments(&self, g: f32, m: &mut f32, v: &mut f32) {
        let g = g * self.grad_scale;
        *m = self.beta1 * *m + self.new1 * g;
        *v = self.beta2 * *v + self.new2 * (g * g);
    }

    /// Adam's update of one value, without the learning rate.
    #[inline(always)]
    fn update(&self, m: f32, v: f32) -> f32 {
        m * self.correct1 / ((v * self.correct2).sqrt() + self.eps)
    }
}

/// One Adam step; `keep` is the factor of the old weights.
pub(super) fn adam(c: &Coefficients, keep: f32, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                c.moments(*g, m, v);
                *w = *w * keep - c.lr * c.update(*m, *v);
            }
        },
    );
}

/// LAMB's first pass: moves the moments; returns the sums of the squares of w and of u = Adam's update + decay * w.
pub(super) fn lamb_moments(c: &Coefficients, w: &[f32], g: &[f32], m: &mut [f32], v: &mut [f32]) -> [f64; 2] {
    let (mut sums, mut u) = ([0.0; 2], [0.0; STRETCH]);
    let stretches = w.chunks(STRETCH).zip(g.chunks(STRETCH));
    let moments = m.chunks_mut(STRETCH).zip(v.chunks_mut(STRETCH));
    for ((w, g), (m, v)) in stretches.zip(moments) {
        let u = &mut u[..w.len()];
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for ((((u, w), g), m), v) in u.iter_mut().zip(w).zip(g).zip(m).zip(v) {
                    c.moments(*g, m, v);
                    *u = lamb_update(c, *w, *m, *v);
                }
                sums[0] += squares(w);
                sums[1] += squares(u);
            },
        );
    }
    sums
}

/// LAMB's second pass; `rate` is the learning rate times the trust ratio.
pub(super) fn lamb_step(c: &Coefficients, rate: f32, w: &mut [f32], m: &[f32], v: &[f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for ((w, m), v) in w.iter_mut().zip(m).zip(v) {
                *w -= rate * lamb_update(c, *w, *m, *v);
            }
        },
    );
}

/// The moving average takes `part` of the way to the weights. Nothing where none is kept.
pub(super) fn average(part: f32, average: &mut [f32], w: &[f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (e, w) in average.iter_mut().zip(w) {
                *e += part * (w - *e);
            }
        },
    );
}

/// The sum of the squares of one block.
pub(super) fn sum_of_squares(values: &[f32]) -> f64 {
    let stretch = |x: &[f32]| {
        Arch::new().dispatch(
            #[inline(always)]
            || squares(x),
        )
    };
    values.chunks(STRETCH).map(stretch).sum()
}

#[inline(always)]
fn lamb_update(c: &Coefficients, w: f32, m: f32, v: f32) -> f32 {
    c.update(m, v) + c.weight_decay * w
}

/// The sum of the squares in a fixed order: lane i mod 16, then the lanes from the first to the last.
#[inline(always)]
fn squares(values: &[f32]) -> f64 {
    let mut lanes = [0.0f32; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for x in whole {
        for (sum, x) in lanes.iter_mut().zip(x) {
            *sum += x * x;
        }
    }
    for (sum, x) in lanes.iter_mut().zip(rest) {
        *sum += x * x;
    }
    lanes.iter().map(|&x| f64::from(x)).sum()
}
