//! Finite differences check every backward; whole models made of the forwards must give PyTorch's golden logits.

use super::*;
use crate::rng::{Rng, Stream};

mod golden;

/// `n` numbers in -1..1, others for each seed.
fn random(seed: u64, n: usize) -> Vec<f64> {
    (0..n).map(|i| 2.0 * Rng::new(seed).unit(Stream::SAMPLE, 0, 0, i as u32) - 1.0).collect()
}

/// Compares the gradient of Σ weight * f(x) with central differences at every value of x.
fn check(what: &str, x: &[f64], f: impl Fn(&[f64]) -> Vec<f64>, weights: &[f64], gradient: &[f64]) {
    let value = |x: &[f64]| {
        let y = f(x);
        assert_eq!(y.len(), weights.len(), "{what}");
        dense::dot(&y, weights)
    };
    assert_eq!(gradient.len(), x.len(), "{what}");
    let largest = gradient.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    assert!(largest > 1e-3, "{what}: nothing to compare");
    for i in 0..x.len() {
        let moved = |by: f64| {
            let mut x = x.to_vec();
            x[i] += by;
            value(&x)
        };
        let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        assert!((slope - gradient[i]).abs() < 1e-6 * largest, "{what} {i}: {slope} {}", gradient[i]);
    }
}

#[test]
fn error_function() {
    // The known values to 15 places.
    for (x, want) in [(0.1, 0.112_462_916_018_285), (0.5, 0.520_499_877_813_047), (1.0, 0.842_700_792_949_715)] {
        assert!((erf(x) - want).abs() < 1e-15 && erf(-x) == -erf(x), "{x}: {}", erf(x));
    }
    assert!((erf(2.0) - 0.995_322_265_018_953).abs() < 1e-15 && erf(0.0) == 0.0);
    assert!((erf(5.999) - erf(6.001)).abs() < 1e-15);
}

#[test]
fn differences() {
    assert_eq!(difference(&[1.0, 2.0], &[1.0, 4.0]), 0.5);
    assert_eq!(difference(&[0.0], &[0.0]), 0.0);
    assert!(difference(&[1.0], &[0.0]).is_infinite() && difference(&[], &[0.0]).is_infinite());
    assert!(difference(&[f32::NAN], &[1.0]).is_infinite() && difference(&[1.0], &[f64::NAN]).is_infinite());
}

#[test]
fn embeddings() {
    let (table, ids, dy) = (random(1, 5 * 3), [4, 0, 4, 2], random(2, 4 * 3));
    check("table", &table, |t| embedding(t, &ids, 3), &dy, &embedding_backward(&ids, 5, 3, &dy));
}

#[test]
fn linear_maps() {
    let (x, w, bias, dy) = (random(1, 4 * 3), random(2, 5 * 3), random(3, 5), random(4, 4 * 5));
    let (dx, dw, dbias) = linear_backward(&x, 3, &w, &dy);
    check("x", &x, |x| linear(x, 3, &w, Some(&bias)), &dy, &dx);
    check("w", &w, |w| linear(&x, 3, w, None), &dy, &dw);
    check("bias", &bias, |b| linear(&x, 3, &w, Some(b)), &dy, &dbias);
}

#[test]
fn norms() {
    let (x, gamma, beta, dy) = (random(1, 4 * 7), random(2, 7), random(3, 7), random(4, 4 * 7));
    let affine = Some((&gamma[..], &beta[..]));
    for eps in [1e-7, 0.1] {
        let (dx, dgamma, dbeta) = layer_norm_backward(&x, 7, eps, affine, &dy);
        check("x", &x, |x| layer_norm(x, 7, eps, affine), &dy, &dx);
        check("gamma", &gamma, |g| layer_norm(&x, 7, eps, Some((g, &beta))), &dy, &dgamma);
        check("beta", &beta, |b| layer_norm(&x, 7, eps, Some((&gamma, b))), &dy, &dbeta);
        check("plain x", &x, |x| layer_norm(x, 7, eps, None), &dy, &layer_norm_backward(&x, 7, eps, None, &dy).0);
        let (dx, dgamma) = rms_norm_backward(&x, 7, eps, &gamma, &dy);
        check("rms x", &x, |x| rms_norm(x, 7, eps, &gamma), &dy, &dx);
        check("rms gamma", &gamma, |g| rms_norm(&x, 7, eps, g), &dy, &dgamma);
    }
}

#[test]
fn activations() {
    let x: Vec<f64> = random(1, 3 * 8).iter().map(|x| 4.0 * x).collect();
    let (dy, half) = (random(2, 3 * 8), random(3, 3 * 4));
    check("gelu", &x, gelu, &dy, &gelu_backward(&x, &dy));
    check("gelu tanh", &x, gelu_tanh, &dy, &gelu_tanh_backward(&x, &dy));
    check("geglu", &x, |x| geglu(x, 4, 1e-7), &half, &geglu_backward(&x, 4, 1e-7, &half));
    check("swiglu", &x, |x| swiglu(x, 4), &half, &swiglu_backward(&x, 4, &half));
    let keep: Vec<bool> = dy.iter().map(|x| *x > -0.5).collect();
    check("dropout", &x, |x| dropout(x, &keep, 0.25), &dy, &dropout_backward(&keep, 0.25, &dy));
}

#[test]
fn rotary_positions() {
    let (bounds, x, dy) = ([0, 1, 4, 6], random(1, 6 * 24), random(2, 6 * 24));
    check("rope", &x, |x| rope(x, 24, 16, 8, &bounds, 1e4), &dy, &rope_backward(&dy, 24, 16, 8, &bounds, 1e4));
    let y = rope(&x, 24, 16, 8, &bounds, 1e4);
    assert_eq!(y[24..48], x[24..48], "positions start again in each segment");
    assert_eq!(y[2 * 24 + 16..3 * 24], x[2 * 24 + 16..3 * 24], "the last columns stay");
}

#[test]
fn attentions() {
    let (d, bounds) = (6, [0u32, 1, 6, 8]);
    let (qkv, relative, dy) = (random(1, 8 * 3 * d), random(2, 63 * 2 * d), random(3, 8 * d));
    let keep = |i: usize, head: usize, j: usize| !(i * 5 + head * 3 + j).is_multiple_of(4);
    let drop = Some((&keep as &Keep, 0.25));
    for (causal, dropout) in [(true, None), (false, None), (true, drop), (false, drop)] {
        let a = Attention { d, heads: 2, bounds: &bounds, causal, scale: 0.7, dropout };
        let (dqkv, none) = a.backward(&qkv, None, &dy);
        assert!(none.is_empty());
        check("qkv", &qkv, |x| a.forward(x, None), &dy, &dqkv);
        let (dqkv, drelative) = a.backward(&qkv, Some(&relative), &dy);
        check("qkv with positions", &qkv, |x| a.forward(x, Some(&relative)), &dy, &dqkv);
        check("relative", &relative, |r| a.forward(&qkv, Some(r)), &dy, &drelative);
    }
}

#[test]
fn classifier_losses() {
    let (d, targets) = (3, [4u32, 0, 4]);
    let (x, table, bias) = (random(1, 3 * d), random(2, 5 * d), random(3, 5));
    let plain = classifier_loss(&x, d, &table, Some(&bias), &targets, 0.3, 0.0);
    assert!((plain.rows.iter().sum::<f64>() * 0.3 - plain.loss).abs() < 1e-15);
    for z in [0.0, 0.5] {
        let loss = |x: &[f64], t: &[f64], b: Option<&[f64]>| vec![classifier_loss(x, d, t, b, &targets, 0.3, z).loss];
        let got = classifier_loss(&x, d, &table, Some(&bias), &targets, 0.3, z);
        assert_eq!(got.rows, plain.rows, "the rows are without z-loss");
        check("x", &x, |x| loss(x, &table, Some(&bias)), &[1.0], &got.dx);
        check("table", &table, |t| loss(&x, t, Some(&bias)), &[1.0], &got.dtable);
        check("bias", &bias, |b| loss(&x, &table, Some(b)), &[1.0], &got.dbias);
        let no_bias = classifier_loss(&x, d, &table, None, &targets, 0.3, z);
        check("x without bias", &x, |x| loss(x, &table, None), &[1.0], &no_bias.dx);
    }
    // Two equal logits of 3: lse = 3 + ln 2.
    let lse = 3.0 + 2f64.ln();
    let two = classifier_loss(&[1.0], 1, &[3.0, 3.0], None, &[1], 1.0, 0.1);
    assert!((two.loss - (2f64.ln() + 0.1 * lse * lse)).abs() < 1e-15 && (two.rows[0] - 2f64.ln()).abs() < 1e-15);
}
