//! What device.cuh has, one thing a kernel: on the emulated card these are the host's twins.

use super::card::{Grid, grid};
use super::{assert_bits, assert_close, below, random, run};
use crate::arguments;

#[test]
fn exchanges_inside_a_warp() {
    let x = random(1, 64, 1.0);
    for (mask, from) in [(1u32, 0u32), (16, 31), (31, 7), (5, 16)] {
        let got = run(|card| {
            let (x, out) = (card.put(&x), card.room(5 * 64));
            card.launch("probe_exchanges", grid(1, 1, 64), arguments![&x, mask, from, &out]);
            vec![card.get(&out)]
        });
        for t in 0..64usize {
            let lane = |l: u32| x[t / 32 * 32 + l as usize];
            let yes = (0..32).filter(|&l| lane(l) > 0.0).fold(0u32, |bits, l| bits | 1 << l);
            let zeros = (t as u32).leading_zeros() as f32;
            let want = [lane((t as u32 % 32) ^ mask), lane(from), x[63 - t], f32::from_bits(yes), zeros];
            for (what, want) in want.into_iter().enumerate() {
                assert_bits("exchange", &[got[0][64 * what + t]], &[want]);
            }
        }
    }
}

#[test]
fn numbers_become_bf16_to_nearest_even() {
    // Half way between two numbers of 8 bits, a little less, a little more; ties that go up and down; overflow.
    let mut x: Vec<f32> =
        vec![0.0, 1.0, f32::INFINITY, f32::MAX, 1e-40, 1.003_906_3, 1.011_718_8, 1.003_906_2, 1.0039064];
    x.extend(below(3, 500, usize::MAX >> 32).into_iter().map(f32::from_bits).filter(|x| !x.is_nan()));
    let got = run(|card| {
        let (there, out) = (card.put(&x), card.room(2 * x.len()));
        card.launch("probe_bf16", grid(1, 1, 32), arguments![x.len(), &there, &out]);
        vec![card.get(&out)]
    });
    for (x, got) in x.iter().zip(got[0].chunks_exact(2)) {
        // Of the two neighbours of 16 bits the nearer one, else the even one.
        let (down, up) = (x.to_bits() & 0xffff_0000, (x.to_bits() & 0xffff_0000).wrapping_add(0x1_0000));
        let rest = x.to_bits() & 0xffff;
        let goes_up = rest > 0x8000 || (rest == 0x8000 && down & 0x1_0000 != 0);
        let want = f32::from_bits(if goes_up { up } else { down });
        assert_bits(&format!("{x:e}"), got, &[want, -want]);
    }
    let nan = run(|card| {
        let (x, out) = (card.put(&[f32::from_bits(0x7f80_0001)]), card.room::<f32>(2));
        card.launch("probe_bf16", grid(1, 1, 32), arguments![1usize, &x, &out]);
        // NaN has many bits; whether it is one has one answer.
        vec![card.get(&out).iter().map(|x| f32::from(u8::from(x.is_nan()))).collect()]
    });
    assert_eq!(nan[0], [1.0, 1.0]);
}

#[test]
fn tensor_cores_multiply() {
    let (a, b) = (random(1, 256, 1.0), random(2, 128, 1.0));
    let got = run(|card| {
        let (a, b, d) = (card.put(&a), card.put(&b), card.room(128));
        card.launch("probe_mma", grid(1, 1, 32), arguments![&a, &b, &d]);
        vec![card.get(&d)]
    });
    let rounded = |x: f32| f32::from_bits((x.to_bits() + 0x7fff + (x.to_bits() >> 16 & 1)) & 0xffff_0000);
    let want: Vec<f32> =
        (0..128).map(|i| (0..16).map(|k| rounded(a[i / 8 * 16 + k]) * rounded(b[k * 8 + i % 8])).sum()).collect();
    assert_close("product", &got[0], &want, 1e-6);
}

#[test]
fn copies_arrive() {
    let x = random(1, 128, 1.0);
    let got = run(|card| {
        let (x, y) = (card.put(&x), card.room(128));
        card.launch("probe_copies", Grid { shared: 512, ..grid(1, 1, 32) }, arguments![&x, &y]);
        vec![card.get(&y)]
    });
    assert_bits("copied", &got[0], &x.into_iter().rev().collect::<Vec<_>>());
}
