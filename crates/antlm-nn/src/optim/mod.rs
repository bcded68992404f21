//! Optimisers over the flat buffers: AdamW and LAMB, and the global-norm clip.
//!
//! Work is cut into blocks of 65,536 values of a tensor, and sums of blocks are added in order, so the result has the
//! same bits for any number of threads. No multiply-adds are fused, so it also has the same bits on any CPU.

pub mod curve;
mod kernels;

use crate::params::Layout;
use crate::{Error, Result};
use rayon::prelude::*;

/// Values in one block of work.
const BLOCK: usize = 65_536;

/// What an optimiser makes of the moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019), as `torch.optim.AdamW` computes it:
    /// `w *= 1 - lr * weight_decay` for decayed tensors, then `w -= lr * u` with Adam's update `u`.
    AdamW,
    /// LAMB (You et al., 2020), as LTG-BERT trains with it: for decayed tensors `u += weight_decay * w` and
    /// `w -= lr * |w| / |u| * u`, the norms taken over the whole tensor, their ratio 1 if either is 0 and otherwise
    /// not clamped. The other tensors get plain Adam.
    Lamb,
}

/// An optimiser and its constants. It keeps no state: the caller holds the moments `m` and `v` and counts updates.
///
/// ```
/// use antlm_nn::optim::{Optimizer, Rule, State, Update};
/// use antlm_nn::params::{Init, Layout};
/// let mut layout = Layout::default();
/// layout.add("w", &[2], Init::Ones, false);
/// let (mut w, mut m, mut v) = (vec![1.0, 1.0], vec![0.0; 2], vec![0.0; 2]);
/// let adamw = Optimizer { rule: Rule::AdamW, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
/// let at = Update { t: 1, lr: 0.25, grad_scale: 1.0 };
/// let of = State { params: &mut w, grads: &[3.0, -5.0], m: &mut m, v: &mut v, average: None };
/// adamw.step(&layout, of, at)?;
/// assert!((w[0] - 0.75).abs() < 1e-6 && (w[1] - 1.25).abs() < 1e-6); // the first update is lr * sign(gradient)
/// # Ok::<(), antlm_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// What is made of the moments.
    pub rule: Rule,
    /// Decay of the first moment, 0.9.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay of the layout's decayed tensors.
    pub weight_decay: f64,
}

/// The numbers that change from update to update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Which update this is, from 1 on (the moments are corrected for their start at 0).
    pub t: u64,
    /// Learning rate. With 0 the moments move and the parameters stay.
    pub lr: f64,
    /// Factor of every gradient before it is used: the clip's coefficient.
    pub grad_scale: f32,
}

/// What an update works on: flat buffers of one layout.
#[derive(Debug)]
pub struct State<'a> {
    /// Parameters.
    pub params: &'a mut [f32],
    /// Gradient.
    pub grads: &'a [f32],
    /// First moments.
    pub m: &'a mut [f32],
    /// Second moments.
    pub v: &'a mut [f32],
    /// A moving average of the parameters and its decay: every value moves (1 - decay) of its way to the new parameter.
    pub average: Option<(&'a mut [f32], f64)>,
}

/// One block of one tensor in all buffers.
struct Block<'a> {
    tensor: usize,
    decay: bool,
    w: &'a mut [f32],
    g: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    /// The moving average; empty where none is kept.
    average: &'a mut [f32],
}

impl Optimizer {
    /// Refuses buffers of another length than the layout's, and an update number 0.
    pub(crate) fn check(layout: &Layout, lengths: &[usize], at: Update) -> Result<()> {
        if lengths.iter().all(|&length| length == layout.len()) && at.t > 0 {
            return Ok(());
        }
        Err(Error::Shape {
            op: "optimizer step",
            expected: format!("buffers of {} values and an update number from 1 on", layout.len()),
            got: format!("lengths {lengths:?}, update {}", at.t),
        })
    }

    /// One update of all parameters in place, and of their moving average.
    ///
    /// # Errors
    /// [`Error::Shape`] when a buffer has not `layout`'s length, or `t` is 0.
    pub fn step(&self, layout: &Layout, of: State<'_>, at: Update) -> Result<()> {
        let State { params, grads, m, v, average } = of;
        Self::check(layout, &[params.len(), grads.len(), m.len(), v.len()], at)?;
        if let Some((average, _)) = &average {
            Self::check(layout, &[average.len()], at)?;
        }
        let (average, decay) = average.unwrap_or_default();
        let part = (1.0 - decay) as f32;
        let c = kernels::Coefficients::new(self, at);
        let mut blocks = cut(layout, params, grads, m, v, average);
        match self.rule {
            Rule::AdamW => blocks.par_iter_mut().for_each(|b| {
                let keep = if b.decay { (1.0 - at.lr * self.weight_decay) as f32 } else { 1.0 };
                kernels::adam(&c, keep, b.w, b.g, b.m, b.v);
                kernels::average(part, b.average, b.w);
            }),
            Rule::Lamb => {
                // First the moments, the norms, and all of the tensors without decay; then the others' step.
                let squares: Vec<[f64; 2]> = blocks
                    .par_iter_mut()
                    .map(|b| {
                        if b.decay {
                            return kernels::lamb_moments(&c, b.w, b.g, b.m, b.v);
                        }
                        kernels::adam(&c, 1.0, b.w, b.g, b.m, b.v);
                        kernels::average(part, b.average, b.w);
                        [0.0; 2]
                    })
                    .collect();
                let mut norms = vec![[0.0; 2]; layout.tensors().len()];
                for (b, [w, u]) in blocks.iter().zip(squares) {
                    norms[b.tensor][0] += w;
                    norms[b.tensor][1] += u;
                }
                blocks.par_iter_mut().filter(|b| b.decay).for_each(|b| {
                    let [w, u] = norms[b.tensor].map(f64::sqrt);
                    let ratio = if w > 0.0 && u > 0.0 { w / u } else { 1.0 };
                    kernels::lamb_step(&c, (at.lr * ratio) as f32, b.w, b.m, b.v);
                    kernels::average(part, b.average, b.w);
                });
            }
        }
        Ok(())
    }
}

/// Cuts the buffers into blocks that cross no tensor's border.
fn cut<'a>(
    layout: &Layout,
    mut w: &'a mut [f32],
    mut g: &'a [f32],
    mut m: &'a mut [f32],
    mut v: &'a mut [f32],
    mut average: &'a mut [f32],
) -> Vec<Block<'a>> {
    let mut blocks = Vec::new();
    for (tensor, t) in layout.tensors().iter().enumerate() {
        // A layout's tensors follow each other without gaps.
        let mut left = t.len();
        while left > 0 {
            let n = left.min(BLOCK);
            let block = Block {
                tensor,
                decay: t.decay,
                w: front_mut(&mut w, n),
                g: g.split_off(..n).unwrap_or_default(),
                m: front_mut(&mut m, n),
                v: front_mut(&mut v, n),
                average: front_mut(&mut average, n),
            };
            blocks.push(block);
            left -= n;
        }
    }
    blocks
}

/// Takes the first `n` values away from `rest`.
fn front_mut<'a>(rest: &mut &'a mut [f32], n: usize) -> &'a mut [f32] {
    rest.split_off_mut(..n).unwrap_or_default()
}

/// The Euclidean norm of a whole buffer.
pub fn global_norm(grads: &[f32]) -> f64 {
    let squares: Vec<f64> = grads.par_chunks(BLOCK).map(kernels::sum_of_squares).collect();
    squares.iter().sum::<f64>().sqrt()
}

/// The factor that brings a gradient of this norm down to `max`: min(1, max / (norm + 1e-6)), as PyTorch clips.
/// NaN for a norm that is NaN.
///
/// ```
/// use antlm_nn::optim::clip_coefficient;
/// assert_eq!(clip_coefficient(1.0, 2.0), 1.0);
/// assert!((clip_coefficient(8.0, 2.0) - 0.25).abs() < 1e-6);
/// assert!(clip_coefficient(f64::NAN, 2.0).is_nan());
/// ```
pub fn clip_coefficient(norm: f64, max: f64) -> f32 {
    let coefficient = max / (norm + 1e-6);
    if coefficient >= 1.0 { 1.0 } else { coefficient as f32 }
}

#[cfg(test)]
mod tests;
