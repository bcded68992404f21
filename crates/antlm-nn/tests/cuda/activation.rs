//! Gated activations, GELU, dropout with residual, rotary positions.

use antlm_nn::kernels::dropout::Rows;
use antlm_nn::kernels::rope::{self, Table};
use antlm_nn::kernels::{activation, dropout};

use super::card::grid;
use super::{Drops, assert_bits, below, random, run};
use crate::arguments;

const SHAPES: [(usize, usize); 7] = [(1, 1), (3, 7), (5, 31), (66, 33), (9, 64), (17, 264), (2, 1000)];

#[test]
fn gated() {
    for (n, width) in SHAPES {
        let (x, gy, eps) = (random(1, n * 2 * width, 6.0), random(2, n * width, 1.0), 1e-5f32);
        let [mut z, mut y] = [(); 2].map(|()| vec![0.0; n * width]);
        let [mut gug, mut ggu] = [(); 2].map(|()| vec![0.0; 2 * n * width]);
        let mut stats = vec![0.0; n];
        activation::geglu_norm(width, eps, &x, &mut z, &mut stats);
        activation::geglu_norm_backward(width, &x, &z, &stats, &gy, &mut gug);
        activation::swiglu(width, &x, &mut y);
        activation::swiglu_backward(width, &x, &gy, &mut ggu);
        let got = run(|card| {
            let (x, gy) = (card.put(&x), card.put(&gy));
            let [z, y] = [(); 2].map(|()| card.room::<f32>(n * width));
            let [gug, ggu] = [(); 2].map(|()| card.room::<f32>(2 * n * width));
            let stats = card.room::<f32>(n);
            let warps = grid(n.div_ceil(4), 1, 128);
            card.launch("geglu_norm", warps, arguments![n, width, &x, eps, &z, &stats]);
            card.launch("geglu_norm_backward", warps, arguments![n, width, &x, &z, &stats, &gy, &gug]);
            card.launch("swiglu", grid(n, 1, 256), arguments![width, &x, &y]);
            card.launch("swiglu_backward", grid(n, 1, 256), arguments![width, &x, &gy, &ggu]);
            [z, stats, gug, y, ggu].map(|buffer| card.get(&buffer)).into()
        });
        for (what, (got, want)) in got.iter().zip([z, stats, gug, y, ggu]).enumerate() {
            assert_bits(&format!("result {what} of {n} x {width}"), got, &want);
        }
    }
}

#[test]
fn gelu() {
    let mut x = random(1, 1003, 8.0);
    x.extend([0.0, -0.0, 100.0, -100.0, f32::MIN_POSITIVE]);
    let gy = random(2, x.len(), 1.0);
    let (mut y, mut gx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    activation::gelu_forward(&x, &mut y);
    activation::gelu_backward(&x, &gy, &mut gx);
    let got = run(|card| {
        let n = x.len() as u64;
        let (there, gy, y, gx) = (card.put(&x), card.put(&gy), card.room(x.len()), card.room(x.len()));
        card.launch("gelu", grid(2, 1, 256), arguments![n, &there, &y]);
        card.launch("gelu_backward", grid(7, 1, 256), arguments![n, &there, &gy, &gx]);
        vec![card.get(&y), card.get(&gx)]
    });
    assert_bits("y", &got[0], &y);
    assert_bits("gx", &got[1], &gx);
}

#[test]
fn dropout_has_the_same_masks() {
    for (i, (n, d)) in SHAPES.into_iter().enumerate() {
        let list: Vec<u32> = below(1, n, 1_000_000);
        let rows = [Rows::Shared, Rows::From(u32::MAX - 1), Rows::Picked(9, list.into())][i % 3].clone();
        for (p, with_residual) in [(0.1, true), (0.5, false), (0.0, true), (0.0, false)] {
            let (x, residual) = (random(2, n * d, 1.0), random(3, n * d, 1.0));
            let residual = with_residual.then_some(&residual[..]);
            let drops = Drops::new(p, rows.clone());
            let mut y = vec![0.0; n * d];
            activation::dropout_add(d, drops.cpu(), &x, residual, &mut y);
            let got = run(|card| {
                let (x, y, drop) = (card.put(&x), card.room(n * d), drops.argument(card));
                let residual = residual.map(|residual| card.put(residual));
                card.launch("dropout_add", grid(2, 1, 256), arguments![n, d, drop, &x, residual.as_ref(), &y]);
                vec![card.get(&y)]
            });
            assert_bits(&format!("{n} x {d}, {p}"), &got[0], &y);
        }
    }
    // The test's own seed and number mean what they say: masks drop something and keep something.
    let mut factors = vec![0.0; 256];
    let site: Option<dropout::Site> = Drops::new(0.5, Rows::Shared).site;
    site.unwrap().factors(0, 0, &mut factors);
    assert!(factors.contains(&0.0) && factors.contains(&2.0));
}

/// Cosines and sines of a table: what it makes of pairs (1, 0).
fn cosines_and_sines(table: &Table) -> (Vec<f32>, Vec<f32>) {
    let (width, positions) = (table.width(), table.positions());
    let mut qkv: Vec<f32> = (0..positions * 3 * width).map(|i| f32::from(u8::from(i % width < width / 2))).collect();
    let places: Vec<u32> = (0..positions as u32).collect();
    rope::rope(table, width, 1, &places, &mut qkv, false);
    let half = |row: &[f32], second: usize| row[second * width / 2..(second + 1) * width / 2].to_vec();
    let part = |second| qkv.chunks_exact(3 * width).flat_map(|row| half(row, second)).collect();
    (part(0), part(1))
}

#[test]
fn rotary_positions() {
    for (n, heads, width) in [(1, 1, 2), (7, 3, 6), (40, 2, 64), (5, 4, 66)] {
        let (d, table, positions) = (heads * width, Table::new(50, width, 10_000.0), below(1, n, 50));
        let (cosines, sines) = cosines_and_sines(&table);
        let before = random(2, n * 3 * d, 1.0);
        let [there, back] = [false, true].map(|inverse| {
            let mut qkv = before.clone();
            rope::rope(&table, d, heads, &positions, &mut qkv, inverse);
            qkv
        });
        let got = run(|card| {
            let (positions, cosines, sines) = (card.put(&positions), card.put(&cosines), card.put(&sines));
            let turned = [0u32, 1].map(|inverse| {
                let qkv = card.put(&before);
                let operands = arguments![d, width / 2, &positions, &cosines, &sines, inverse, &qkv];
                card.launch("rope", grid(n, 1, 128), operands);
                card.get(&qkv)
            });
            turned.into()
        });
        assert_bits("turned", &got[0], &there);
        assert_bits("turned back", &got[1], &back);
    }
}
