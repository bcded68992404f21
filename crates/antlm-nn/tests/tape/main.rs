//! Every operation of the tape, forward and backward, against its slow f64 reference, over random shapes.
//!
//! Operands are parameters, so that their gradients arrive in the flat buffer. The result goes through the output layer
//! with a random table, the one place where gradients start; the reference does the same in f64.

use std::sync::Arc;

use antlm_nn::kernels::dropout::{Rows, Site};
use antlm_nn::params::View;
use antlm_nn::reference;
use antlm_nn::rng::{Rng, Stream};
use antlm_nn::tape::{Act, Dropout, Pool, Tape};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

mod adding;
mod attention;
mod dense;
mod past;
mod refused;
mod rowwise;

/// Largest difference, as a part of the largest value. An f32 rounding is 6e-8; results are sums of up to some hundred
/// products, rounded at every step.
const TOLERANCE: f64 = 1e-5;

/// Tokens of the table that starts the gradients.
const VOCAB: usize = 7;

type Outcome = Result<(), TestCaseError>;

/// Operands in one flat buffer, all numbers drawn from one seed.
struct Flat {
    rng: Rng,
    values: Vec<f32>,
}

impl Flat {
    fn new(seed: u64) -> Flat {
        Flat { rng: Rng::new(seed), values: Vec::new() }
    }

    /// Appends a matrix of numbers in -scale..scale.
    fn add(&mut self, rows: usize, cols: usize, scale: f64) -> View {
        let offset = self.values.len();
        let draw = |i| (scale * (2.0 * self.rng.unit(Stream::SAMPLE, 0, 0, i as u32) - 1.0)) as f32;
        self.values.extend((offset..offset + rows * cols).map(draw));
        View { offset, rows, cols }
    }

    /// A matrix in f64.
    fn get(&self, view: View) -> Vec<f64> {
        reference::widen(&self.values[view.range()])
    }

    /// `n` whole numbers below `limit`.
    fn below(&self, n: usize, limit: usize) -> Arc<[u32]> {
        (0..n).map(|i| (self.rng.u32(Stream::SAMPLE, 1, 0, i as u32) as usize % limit) as u32).collect()
    }

    /// Two different vectors of `d` values: γ around 1 and β.
    fn affine(&mut self, d: usize) -> (View, View) {
        let (gamma, beta) = (self.add(1, d, 0.5), self.add(1, d, 0.5));
        self.values[gamma.range()].iter_mut().for_each(|g| *g += 1.0);
        (gamma, beta)
    }
}

/// What a gradient should be. Parts that lie side by side (q|k|v) differ in size, so each is compared for itself.
struct Wanted {
    of: View,
    gradient: Vec<f64>,
    parts: usize,
    /// By how much the operation can make rounding errors of its result's gradient larger, where that is not about 1.
    gain: f64,
}

fn wanted(of: View, gradient: Vec<f64>) -> Wanted {
    Wanted { of, gradient, parts: 1, gain: 1.0 }
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// Compares relative to the largest wanted value, or to `least` where that is more.
fn close(what: &str, got: &[f32], want: &[f64], least: f64) -> Outcome {
    prop_assert_eq!(got.len(), want.len(), "{}", what);
    let bound = TOLERANCE * largest(want).max(least);
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        // Not `off > bound`: NaN must fail.
        let off = (f64::from(*got) - want).abs();
        prop_assert!(off <= bound, "{what} {i}: {got}, want {want}, allowed {bound:e}");
    }
    Ok(())
}

/// The columns `part * cols / parts ..` of a matrix.
fn part<T: Copy>(x: &[T], cols: usize, part: usize, parts: usize) -> Vec<T> {
    x.chunks(cols).flat_map(|row| &row[part * cols / parts..(part + 1) * cols / parts]).copied().collect()
}

/// Runs `forward`, whose result should be `y: [n, cols]`, and its backward, which should give
/// `backward(gradient of y)` and touch no other gradient.
fn agrees(
    flat: &mut Flat,
    dropout: Option<Dropout>,
    y: &[f64],
    cols: usize,
    forward: impl FnOnce(&mut Tape) -> antlm_nn::Result<Act>,
    backward: impl FnOnce(&[f64]) -> Vec<Wanted>,
) -> Outcome {
    // Logits of about 1: then no softmax is so sharp that it hides a row.
    let table = flat.add(VOCAB, cols, 1.0 / (cols as f64).sqrt());
    let targets = flat.below(y.len() / cols, VOCAB);

    let (mut grads, mut pool) = (vec![0.0; flat.values.len()], Pool::default());
    let mut tape = Tape::new(&flat.values, Some((&mut grads).into()), dropout, &mut pool).unwrap();
    let got = forward(&mut tape).unwrap();
    prop_assert_eq!((got.rows, got.cols), (y.len() / cols, cols));
    close("value", &tape.read(got).unwrap(), y, 0.0)?;
    tape.classifier_loss(got, table, None, &targets, 1.0, 0.0).unwrap();
    tape.backward().unwrap();

    let start = reference::classifier_loss(y, cols, &flat.get(table), None, &targets, 1.0, 0.0);
    // A gradient can be small because large terms cancel (softmax over one key; the table's rows here): f32 rounds
    // the terms, and those are about as large as the table.
    let least = 0.1 * largest(&flat.get(table));
    let mut all = backward(&start.dx);
    all.push(wanted(table, start.dtable));
    let mut touched = vec![false; grads.len()];
    for Wanted { of, gradient, parts, gain } in all {
        let least = least * gain;
        for p in 0..parts {
            let got = part(&grads[of.range()], of.cols, p, parts);
            // The gradient of a vector is a sum over all rows, with as much room to cancel.
            let least = if of.rows == 1 { least * ((y.len() / cols) as f64).sqrt() } else { least };
            close(&format!("gradient of {of:?}"), &got, &part(&gradient, of.cols, p, parts), least)?;
        }
        touched[of.range()].fill(true);
    }
    prop_assert!(grads.iter().zip(touched).all(|(g, touched)| touched || *g == 0.0), "a gradient without an operand");
    Ok(())
}

/// Dropout in a pass; `p` as exact as masks are (a multiple of 1 / 65536).
fn dropping(seed: u64) -> Option<Dropout> {
    Some(Dropout { rng: Rng::new(seed), step: 5 })
}

const P: f64 = 0.125;

/// What dropout number `site` keeps of `[n, cols]`.
fn kept(dropout: Dropout, site: u32, rows: &Rows, n: usize, cols: usize) -> Vec<bool> {
    let site = Site::new(dropout.rng, site, dropout.step, P).unwrap();
    let mut factors = vec![0.0; n * cols];
    factors.chunks_mut(cols).enumerate().for_each(|(r, factors)| site.factors(rows.row(r), 0, factors));
    factors.iter().map(|&f| f != 0.0).collect()
}

/// Numbers of rows: one, a few, and around the blocks of 64 that work is cut into.
fn rows() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1usize), 2usize..9, 60usize..70, 125usize..135]
}

/// Widths: narrow ones, and around the 32 lanes of a reduction and dropout's 128 columns.
fn widths() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1usize), 3usize..9, 30usize..36, 62usize..67, 126usize..132]
}
