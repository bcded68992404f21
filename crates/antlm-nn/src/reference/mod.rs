//! Every fused operation a second time: slow, obvious, in f64, with its backward. Tests compare the kernels with it.
//!
//! Matrices are row-major slices. A backward takes the forward's inputs and `dy`, the gradient of the output, and
//! gives the gradients of the inputs in the inputs' order. Shapes stand in the comments as `[rows, columns]`.

mod activation;
mod attention;
mod dense;
mod norm;

pub use activation::{
    geglu, geglu_backward, gelu, gelu_backward, gelu_tanh, gelu_tanh_backward, swiglu, swiglu_backward,
};
pub use attention::{Attention, Keep, rope, rope_backward};
pub use dense::{
    ClassifierLoss, classifier_loss, dropout, dropout_backward, embedding, embedding_backward, linear, linear_backward,
};
pub use norm::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};

/// f32 values as f64.
pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// The largest |got - want| as a part of the largest |want|; 0 when all are 0, infinite for other lengths or NaN.
pub fn difference(got: &[f32], want: &[f64]) -> f64 {
    let largest = want.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let mut worst = 0.0;
    for (got, want) in got.iter().zip(want) {
        let off = (f64::from(*got) - want).abs();
        if off.is_nan() {
            return f64::INFINITY;
        }
        worst = f64::max(worst, off);
    }
    match got.len() == want.len() {
        true if worst == 0.0 => 0.0,
        true => worst / largest,
        false => f64::INFINITY,
    }
}

/// The error function, by its series with positive terms alone: 2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (1·3·5···(2n+1)).
pub fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum(); // 1 - erf(6) is 2e-17
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests;
