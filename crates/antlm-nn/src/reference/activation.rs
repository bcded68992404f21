//! gelu (exact and tanh), and the two gated activations.

use super::{erf, layer_norm, layer_norm_backward};
use std::f64::consts::{PI, SQRT_2};

/// x Φ(x), Φ the normal distribution, element by element.
pub fn gelu(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| 0.5 * x * (1.0 + erf(x / SQRT_2))).collect()
}

/// Backward of [`gelu`].
pub fn gelu_backward(x: &[f64], dy: &[f64]) -> Vec<f64> {
    let slope = |x: f64| 0.5 * (1.0 + erf(x / SQRT_2)) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
    x.iter().zip(dy).map(|(x, dy)| dy * slope(*x)).collect()
}

/// The tanh approximation of [`gelu`].
pub fn gelu_tanh(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| 0.5 * x * (1.0 + tanh_argument(*x).tanh())).collect()
}

fn tanh_argument(x: f64) -> f64 {
    (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)
}

/// Backward of [`gelu_tanh`].
pub fn gelu_tanh_backward(x: &[f64], dy: &[f64]) -> Vec<f64> {
    let slope = |x: f64| {
        let tanh = tanh_argument(x).tanh();
        let inner = (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044715 * x * x);
        0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner
    };
    x.iter().zip(dy).map(|(x, dy)| dy * slope(*x)).collect()
}

/// Cuts `[n, 2 i]` into its left and right halves, `[n, i]` each.
fn halves(x: &[f64], i: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = x.chunks(2 * i);
    (rows.clone().flat_map(|r| &r[..i]).copied().collect(), rows.flat_map(|r| &r[i..]).copied().collect())
}

/// Puts two halves `[n, i]` side by side: `[n, 2 i]`.
fn beside(left: &[f64], right: &[f64], i: usize) -> Vec<f64> {
    left.chunks(i).zip(right.chunks(i)).flat_map(|(l, r)| l.iter().chain(r)).copied().collect()
}

fn product(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}

/// LTG-BERT's gate and the norm behind it: `[n, 2 i]` = [u | g] -> layer_norm(u * gelu_tanh(g)), `[n, i]`, the norm
/// without parameters. The second half is the gate.
pub fn geglu(x: &[f64], i: usize, eps: f64) -> Vec<f64> {
    let (u, g) = halves(x, i);
    layer_norm(&product(&u, &gelu_tanh(&g)), i, eps, None)
}

/// Backward of [`geglu`]: dx.
pub fn geglu_backward(x: &[f64], i: usize, eps: f64, dy: &[f64]) -> Vec<f64> {
    let (u, g) = halves(x, i);
    let gate = gelu_tanh(&g);
    let (inner, _, _) = layer_norm_backward(&product(&u, &gate), i, eps, None, dy);
    beside(&product(&inner, &gate), &gelu_tanh_backward(&g, &product(&inner, &u)), i)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Llama's gate: `[n, 2 i]` = [gate | up] -> silu(gate) * up, `[n, i]`, silu(x) = x / (1 + e^-x).
pub fn swiglu(x: &[f64], i: usize) -> Vec<f64> {
    let (gate, up) = halves(x, i);
    gate.iter().zip(&up).map(|(gate, up)| gate * sigmoid(*gate) * up).collect()
}

/// Backward of [`swiglu`]: dx.
pub fn swiglu_backward(x: &[f64], i: usize, dy: &[f64]) -> Vec<f64> {
    let (gate, up) = halves(x, i);
    let slope = |x: f64| sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)));
    let dgate: Vec<f64> = gate.iter().zip(&up).zip(dy).map(|((gate, up), dy)| dy * up * slope(*gate)).collect();
    let dup: Vec<f64> = gate.iter().zip(dy).map(|(gate, dy)| dy * gate * sigmoid(*gate)).collect();
    beside(&dgate, &dup, i)
}
