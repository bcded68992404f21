//! Layer norm and root-mean-square norm.

use antlm_nn::kernels::dropout::Rows;
use antlm_nn::kernels::norm::{self, LayerNorm};

use super::card::{Buffer, Card, grid};
use super::{Drops, assert_bits, random, run};
use crate::arguments;

/// Rows and columns: one, a few, around the blocks of 64 rows, the warps of 32 lanes, and the 256 columns of a mask.
const SHAPES: [(usize, usize); 9] =
    [(1, 1), (1, 7), (5, 31), (4, 32), (63, 33), (64, 64), (65, 127), (130, 260), (9, 768)];

/// Column sums of `[n, d]` in blocks: as many blocks, and room for them.
fn partials(card: &mut Card, n: usize, d: usize) -> (usize, Buffer<f32>) {
    (n.div_ceil(64), card.room(n.div_ceil(64) * d))
}

fn add_partials(card: &mut Card, (count, partials): (usize, Buffer<f32>), sums: &[f32]) -> Vec<f32> {
    let there = card.put(sums);
    let d = sums.len();
    card.launch("add_partials", grid(d.div_ceil(128), 1, 128), arguments![count, d, &partials, &there]);
    card.get(&there)
}

#[derive(Clone, Copy, Debug)]
struct Layer {
    affine: bool,
    residual: bool,
    p: f64,
    add: bool,
}

fn layer_norm_agrees(n: usize, d: usize, layer: Layer) {
    let (x, gy, residual) = (random(1, n * d, 2.0), random(2, n * d, 1.0), random(3, n * d, 1.0));
    let (gamma, beta, before) = (random(4, d, 1.5), random(5, d, 0.5), random(6, n * d, 1.0));
    let (gbefore, eps) = (random(7, d, 1.0), 1e-5f32);
    let picked: Vec<u32> = (0..n as u32).map(|r| 3 * r + 1).collect();
    let drops =
        Drops::new(layer.p, if layer.add { Rows::Picked(50, picked.into()) } else { Rows::From(4_000_000_000) });

    let affine = layer.affine.then_some((&gamma[..], &beta[..]));
    let spec = LayerNorm { eps, affine, drop: drops.cpu() };
    let (mut y, mut stats, mut gx) = (vec![0.0; n * d], vec![0.0; 2 * n], before.clone());
    norm::layer_norm(spec, d, &x, layer.residual.then_some(&residual), &mut y, &mut stats);
    let (mut ggamma, mut gbeta) = (gbefore.clone(), gbefore.clone());
    let grads = layer.affine.then_some((&mut ggamma[..], &mut gbeta[..]));
    norm::layer_norm_backward(spec, d, &x, &stats, &gy, &mut gx, layer.add, grads);

    let got = run(|card| {
        let drop = |card: &mut Card| drops.argument(card);
        let (x, gy) = (card.put(&x), card.put(&gy));
        let [gamma, beta] = [&gamma, &beta].map(|values| layer.affine.then(|| card.put(values)));
        let residual = layer.residual.then(|| card.put(&residual));
        let (y, stats, gx) = (card.room(n * d), card.room(2 * n), card.put(&before));
        let rows = grid(n.div_ceil(4), 1, 128);
        let operands =
            arguments![n, d, &x, gamma.as_ref(), beta.as_ref(), residual.as_ref(), drop(card), eps, &y, &stats];
        card.launch("layer_norm", rows, operands);
        let operands = arguments![n, d, &x, &stats, gamma.as_ref(), drop(card), &gy, &gx, u32::from(layer.add)];
        card.launch("layer_norm_backward", rows, operands);
        let mut results = vec![card.get(&y), card.get(&stats), card.get(&gx)];
        if layer.affine {
            let (of_gamma, of_beta) = (partials(card, n, d), partials(card, n, d));
            let operands = arguments![n, d, &x, &stats, drop(card), &gy, &of_gamma.1, &of_beta.1];
            card.launch("layer_norm_backward_affine", grid(d.div_ceil(128), n.div_ceil(64), 128), operands);
            results.extend([add_partials(card, of_gamma, &gbefore), add_partials(card, of_beta, &gbefore)]);
        }
        results
    });
    let want = [y, stats, gx, ggamma, gbeta];
    for ((what, got), want) in ["y", "stats", "gx", "ggamma", "gbeta"].iter().zip(&got).zip(&want) {
        assert_bits(&format!("{what} of {n} x {d}, {layer:?}"), got, want);
    }
}

#[test]
fn layer_norms() {
    for (i, (n, d)) in SHAPES.into_iter().enumerate() {
        for (affine, residual, p) in [(false, false, 0.0), (true, true, 0.3), (true, false, 0.0), (false, true, 0.1)] {
            layer_norm_agrees(n, d, Layer { affine, residual, p, add: i % 2 == 0 });
        }
    }
}

#[test]
fn rms_norms() {
    for (i, (n, d)) in SHAPES.into_iter().enumerate() {
        let (x, gy, before) = (random(1, n * d, 2.0), random(2, n * d, 1.0), random(3, n * d, 1.0));
        let (w, wbefore, eps, add) = (random(4, d, 1.5), random(5, d, 1.0), 1e-6f32, i % 2 == 0);
        let (mut y, mut stats, mut gx, mut gw) = (vec![0.0; n * d], vec![0.0; n], before.clone(), wbefore.clone());
        norm::rms_norm(d, eps, &x, &w, &mut y, &mut stats);
        norm::rms_norm_backward(d, &x, &w, &stats, &gy, &mut gx, add, &mut gw);
        let got = run(|card| {
            let (x, gy, w) = (card.put(&x), card.put(&gy), card.put(&w));
            let (y, stats, gx) = (card.room(n * d), card.room(n), card.put(&before));
            let rows = grid(n.div_ceil(4), 1, 128);
            card.launch("rms_norm", rows, arguments![n, d, &x, &w, eps, &y, &stats]);
            card.launch("rms_norm_backward", rows, arguments![n, d, &x, &w, &stats, &gy, &gx, u32::from(add)]);
            let of_w = partials(card, n, d);
            let columns = grid(d.div_ceil(128), n.div_ceil(64), 128);
            card.launch("rms_norm_backward_weight", columns, arguments![n, d, &x, &stats, &gy, &of_w.1]);
            vec![card.get(&y), card.get(&stats), card.get(&gx), add_partials(card, of_w, &wbefore)]
        });
        for ((what, got), want) in ["y", "stats", "gx", "gw"].iter().zip(&got).zip([&y, &stats, &gx, &gw]) {
            assert_bits(&format!("{what} of {n} x {d}"), got, want);
        }
    }
}
