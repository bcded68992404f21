//! Cross-entropy of logits and its gradient; the products around it are not the kernel's.

use antlm_nn::kernels::classifier::{Classifier, Grads, classifier_loss};
use antlm_nn::kernels::lines::Lines;
use antlm_nn::kernels::matmul::Precision;

use super::card::{Card, Compiled, grid};
use super::{assert_close, below, random, run};
use crate::arguments;

/// The CPU's loss of these logits: with a table that is the identity, rows are logits, and their gradient is the logits'.
fn on_the_cpu(rows: &[f32], vocab: usize, bias: Option<&[f32]>, targets: &[u32], weight: f32, z: f32) -> [Vec<f32>; 2] {
    let mut table = vec![0.0; vocab * vocab];
    (0..vocab).for_each(|i| table[i * vocab + i] = 1.0);
    let layer = Classifier { d: vocab, table: &table, bias, precision: Precision::F32 };
    let (mut nll, mut gx, mut gtable) = (vec![0.0; targets.len()], vec![0.0; rows.len()], vec![0.0; table.len()]);
    let grads = Grads { x: &mut gx, table: &mut gtable, add: false, bias: None, weight, z };
    classifier_loss(layer, rows, targets, &mut nll, Some(grads), &mut Lines::default());
    [nll, gx]
}

#[test]
fn losses_and_gradients() {
    for (i, (n, vocab)) in [(1, 1), (3, 2), (5, 33), (4, 511), (2, 513), (7, 1200)].into_iter().enumerate() {
        for (scale, z) in [(1.0, 0.0), (30.0, 1e-4)] {
            let (rows, bias, targets) = (random(1, n * vocab, scale), random(2, vocab, 1.0), below(3, n, vocab));
            let (bias, weight) = ((i % 2 == 0).then_some(&bias[..]), 1.0f32 / 37.0);
            let want = on_the_cpu(&rows, vocab, bias, &targets, weight, z);
            let got = run(|card| {
                let (there, targets, bias) = (card.put(&rows), card.put(&targets), bias.map(|bias| card.put(bias)));
                let nll = card.room::<f32>(n);
                let operands = arguments![vocab, bias.as_ref(), &targets, 1u32, weight, z, &there, &nll];
                card.launch("cross_entropy", grid(n, 1, 512), operands);
                let (again, alone) = (card.put(&rows), card.room::<f32>(n));
                let operands = arguments![vocab, bias.as_ref(), &targets, 0u32, weight, z, &again, &alone];
                card.launch("cross_entropy", grid(n, 1, 512), operands);
                vec![card.get(&nll), card.get(&there), card.get(&alone)]
            });
            // Only the order of one sum of exponentials differs: some roundings of 6e-8.
            assert_close("losses", &got[0], &want[0], 3e-7);
            assert_close("losses alone", &got[2], &want[0], 3e-7);
            assert_close("gradients", &got[1], &want[1], 5e-7);
        }
    }
}

#[test]
fn what_is_no_number_stays_none() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut rows = random(1, 2 * 40, 1.0);
        rows[13] = bad;
        let mut card = Card::start(Compiled::Plain, 1);
        let (there, targets, nll) = (card.put(&rows), card.put(&[3u32, 3]), card.room::<f32>(2));
        let none = None::<&super::card::Buffer<f32>>;
        let operands = arguments![40usize, none, &targets, 1u32, 1.0f32, 0.0f32, &there, &nll];
        card.launch("cross_entropy", grid(2, 1, 512), operands);
        let nll = card.get(&nll);
        assert!(nll[0].is_nan() && nll[1].is_finite(), "{nll:?}");
    }
}
