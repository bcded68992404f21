//! The output layer with its loss: product with the vocabulary matrix, softmax, cross-entropy and all gradients in
//! tiles of rows, so that the `[n, V]` logits never exist at once.

use rayon::prelude::*;

use super::lines::Lines;
use super::math::{exp, ln, max, sum};
use super::matmul::{Into, Mat, MatMut, Precision, Threads, matmul};
use super::{add_column_sums, dispatch};

/// Rows of a tile: every tile reads and writes the gradient of the whole vocabulary matrix once, so not too few.
pub const TILE: usize = 512;
/// Rows that one softmax task handles.
const ROWS: usize = 4;

/// Where the loss leaves its gradients.
#[derive(Debug)]
pub struct Grads<'a> {
    /// Gradient of `x`, `[m, d]`: written.
    pub x: &'a mut [f32],
    /// Gradient of the vocabulary matrix, `[V, d]`.
    pub table: &'a mut [f32],
    /// Whether that is added to what is there, or written over it.
    pub add: bool,
    /// Gradient of the bias, `[V]`: added to.
    pub bias: Option<&'a mut [f32]>,
    /// Factor of every row's gradient: 1 / targets of the whole step.
    pub weight: f32,
    /// Coefficient of the z-loss: the gradient is that of weight · (-log p + z · lse²), where lse is the logarithm of the
    /// sum of the exponentials of a row's logits. It draws lse towards 0 (Chowdhery et al., PaLM, 2022).
    pub z: f32,
}

/// The operands of the output layer.
#[derive(Clone, Copy, Debug)]
pub struct Classifier<'a> {
    /// Width of the rows.
    pub d: usize,
    /// `[V, d]`.
    pub table: &'a [f32],
    /// `[V]`.
    pub bias: Option<&'a [f32]>,
    /// The numbers of its products.
    pub precision: Precision,
}

/// -log p(target) of every row of `x: [m, d]` into `nll: [m]`, without any z-loss, and the gradients if wanted.
/// `scratch` is grown to one tile of logits. Targets must be below V (checked by the caller).
pub fn classifier_loss(
    layer: Classifier<'_>,
    x: &[f32],
    targets: &[u32],
    nll: &mut [f32],
    mut grads: Option<Grads<'_>>,
    scratch: &mut Lines,
) {
    let d = layer.d;
    let vocab = layer.table.len() / d;
    let tile = TILE.min(targets.len()) * vocab;
    if scratch.len() < tile {
        scratch.set_len(tile);
    }
    if let Some(grads) = &mut grads
        && targets.is_empty()
        && !grads.add
    {
        grads.table.fill(0.0);
    }
    for start in (0..targets.len()).step_by(TILE) {
        let rows = TILE.min(targets.len() - start);
        let x = &x[start * d..(start + rows) * d];
        let z = &mut scratch[..rows * vocab];
        matmul(
            MatMut::new(z, rows, vocab),
            Into::Write,
            layer.precision,
            Mat::new(x, rows, d),
            Mat::new(layer.table, vocab, d).t(),
            Threads::All,
        );
        let weights = grads.as_ref().map(|g| (g.weight, g.z));
        z.par_chunks_mut(ROWS * vocab)
            .zip(nll[start..start + rows].par_chunks_mut(ROWS))
            .zip(targets[start..start + rows].par_chunks(ROWS))
            .for_each(|((z, nll), targets)| {
                dispatch(
                    #[inline(always)]
                    || {
                        for ((z, nll), &target) in z.chunks_exact_mut(vocab).zip(nll).zip(targets) {
                            *nll = cross_entropy_row(z, layer.bias, target as usize, weights);
                        }
                    },
                );
            });
        if let Some(grads) = &mut grads {
            let z = &scratch[..rows * vocab];
            let gx = &mut grads.x[start * d..(start + rows) * d];
            matmul(
                MatMut::new(gx, rows, d),
                Into::Write,
                layer.precision,
                Mat::new(z, rows, vocab),
                Mat::new(layer.table, vocab, d),
                Threads::All,
            );
            matmul(
                MatMut::new(grads.table, vocab, d),
                if grads.add || start > 0 { Into::Add } else { Into::Write },
                layer.precision,
                Mat::new(z, rows, vocab).t(),
                Mat::new(x, rows, d),
                Threads::All,
            );
            if let Some(bias) = &mut grads.bias {
                add_column_sums(z, bias);
            }
        }
    }
}

/// -log softmax(z + bias)[target]; with `weights` (w, c), `z` becomes the gradient of w · (that + c · lse²):
/// w · ((1 + 2 c lse) · softmax - onehot).
#[inline(always)]
fn cross_entropy_row(z: &mut [f32], bias: Option<&[f32]>, target: usize, weights: Option<(f32, f32)>) -> f32 {
    if let Some(bias) = bias {
        for (z, b) in z.iter_mut().zip(bias) {
            *z += b;
        }
    }
    let (top, wanted) = (max(z), z[target]);
    for z in z.iter_mut() {
        *z = exp(*z - top);
    }
    let total = sum(z);
    // NaN or infinity in the logits: `ln` is for ordinary numbers only, so say NaN plainly.
    let lse = if total.is_finite() && total > 0.0 { ln(f64::from(total)) + f64::from(top) } else { f64::NAN };
    if let Some((weight, c)) = weights {
        let (hit, more) = (z[target] / total, 2.0 * c * lse as f32);
        let factor = weight * (1.0 + more) / total;
        for z in z.iter_mut() {
            *z *= factor;
        }
        if c == 0.0 {
            z[target] -= weight;
        } else {
            // The two terms apart: where the target is nearly certain, their sum would lose the second one's digits.
            z[target] = weight * (hit - 1.0) + weight * more * hit;
        }
    }
    (lse - f64::from(wanted)) as f32
}
