//! AdamW, LAMB, the clip and the moving average.

use antlm_nn::optim::{Optimizer, Rule, State, Update, clip_coefficient, global_norm};
use antlm_nn::params::{Init, Layout};

use super::card::{Argument, Buffer, Card, grid};
use super::{assert_bits, assert_close, random, run};
use crate::arguments;

/// Values of a piece.
const PIECE: usize = 4096;

/// Tensors of one value, of a few, around a piece, of several; with and without decay.
fn layout() -> Layout {
    let mut layout = Layout::default();
    for (i, len) in [1, 37, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5, 300].into_iter().enumerate() {
        layout.add(format!("{i}"), &[len], Init::Ones, i % 3 != 1);
    }
    layout
}

/// `struct Piece` of optim.cu for every piece, and where each tensor's begin.
fn pieces(layout: &Layout) -> (Vec<u32>, Vec<u32>) {
    let (mut words, mut firsts) = (Vec::new(), vec![0]);
    for (number, tensor) in layout.tensors().iter().enumerate() {
        for start in (0..tensor.len()).step_by(PIECE) {
            let at = (tensor.offset + start) as u64;
            words.extend([at as u32, (at >> 32) as u32, PIECE.min(tensor.len() - start) as u32, number as u32]);
        }
        firsts.push(words.len() as u32 / 4);
    }
    (words, firsts)
}

/// `struct Coefficients` of optim.cu.
fn coefficients(optimizer: &Optimizer, at: Update) -> Argument {
    let (beta1, beta2, t) = (optimizer.beta1, optimizer.beta2, at.t as i32);
    let numbers = [
        beta1,
        beta2,
        1.0 - beta1,
        1.0 - beta2,
        1.0 / (1.0 - beta1.powi(t)),
        1.0 / (1.0 - beta2.powi(t)),
        optimizer.eps,
        optimizer.weight_decay,
        at.lr,
        1.0 - at.lr * optimizer.weight_decay,
    ];
    Argument(numbers.iter().flat_map(|&number| (number as f32).to_le_bytes()).collect())
}

/// `struct Written` of optim.cu.
fn written(w: &Buffer<f32>, mirror: &Buffer<u16>, average: &Buffer<f32>, part: f32) -> Argument {
    let addresses = [w.address(), mirror.address(), average.address()];
    let mut bytes: Vec<u8> = addresses.iter().flat_map(|at| at.to_le_bytes()).collect();
    bytes.extend(part.to_le_bytes());
    bytes.extend([0; 4]);
    Argument(bytes)
}

/// The norm of the gradients and the clip's factor, both on the card.
fn clip(card: &mut Card, grads: &Buffer<f32>, n: usize, most: f64) -> (Buffer<f64>, Buffer<f32>) {
    let count = n.div_ceil(4096);
    let (squares, norm, factor) = (card.room::<f64>(count), card.room(1), card.room(1));
    card.launch("sums_of_squares", grid(count, 1, 256), arguments![n as u64, grads, &squares]);
    card.launch("clip_factor", grid(1, 1, 256), arguments![count, &squares, most, &norm, &factor]);
    (norm, factor)
}

#[test]
fn three_steps() {
    let layout = layout();
    let n = layout.len();
    let (pieces, firsts) = pieces(&layout);
    let decay: Vec<u32> = layout.tensors().iter().map(|tensor| u32::from(tensor.decay)).collect();
    for rule in [Rule::AdamW, Rule::Lamb] {
        let optimizer = Optimizer { rule, beta1: 0.9, beta2: 0.98, eps: 1e-6, weight_decay: 0.1 };
        let (mut w, mut m, mut v) = (random(1, n, 0.1), vec![0.0; n], vec![0.0; n]);
        w[0] = 0.0; // a tensor whose norm is 0
        let (start, mut ema) = (w.clone(), w.clone());
        let grads: Vec<Vec<f32>> = (0..3).map(|t| random(10 + t, n, 0.5)).collect();
        // The power of two is a clip's factor that both sides have alike, whatever the order of the norm's sum.
        let at = |t: usize| Update { t: t as u64 + 1, lr: 0.01 * (t + 1) as f64, grad_scale: 0.25 };
        for (t, g) in grads.iter().enumerate() {
            let of = State { params: &mut w, grads: g, m: &mut m, v: &mut v, average: Some((&mut ema, 0.9)) };
            optimizer.step(&layout, of, at(t)).unwrap();
        }
        let got = run(|card| {
            let (pieces, firsts, decay) = (card.put(&pieces), card.put(&firsts), card.put(&decay));
            let (w, m, v) = (card.put(&start), card.put(&vec![0.0f32; n]), card.put(&vec![0.0f32; n]));
            let (scale, mirror, ema) = (card.put(&[0.25f32]), card.room::<u16>(n), card.put(&start));
            let weights = written(&w, &mirror, &ema, (1.0 - 0.9) as f32);
            let (count, tensors) =
                (layout.tensors().iter().map(|t| t.len().div_ceil(PIECE)).sum(), layout.tensors().len());
            let (squares, rates) = (card.room::<f64>(2 * count), card.room::<f32>(tensors));
            for (t, g) in grads.iter().enumerate() {
                let (g, k) = (card.put(g), |at| coefficients(&optimizer, at));
                let all = grid(count, 1, 256);
                if rule == Rule::AdamW {
                    card.launch(
                        "adamw",
                        all,
                        arguments![k(at(t)), &pieces, &decay, &scale, weights.clone(), &g, &m, &v],
                    );
                    continue;
                }
                let operands = arguments![k(at(t)), &pieces, &decay, &scale, weights.clone(), &g, &m, &v, &squares];
                card.launch("lamb_moments", all, operands);
                card.launch("lamb_rates", grid(tensors, 1, 32), arguments![&firsts, &squares, at(t).lr, &rates]);
                card.launch("lamb_step", all, arguments![k(at(t)), &pieces, &decay, &rates, weights.clone(), &m, &v]);
            }
            let mirror = card.get(&mirror).into_iter().map(|x| f32::from_bits(u32::from(x) << 16)).collect();
            vec![card.get(&w), card.get(&m), card.get(&v), mirror, card.get(&ema)]
        });
        assert_bits("first moments", &got[1], &m);
        assert_bits("second moments", &got[2], &v);
        let rounded = |x: &f32| f32::from_bits((x.to_bits() + 0x7fff + (x.to_bits() >> 16 & 1)) & 0xffff_0000);
        assert_bits("mirror", &got[3], &got[0].iter().map(rounded).collect::<Vec<f32>>());
        match rule {
            Rule::AdamW => {
                assert_bits("weights", &got[0], &w);
                assert_bits("moving average", &got[4], &ema);
            }
            // The norms are sums in another order.
            Rule::Lamb => {
                assert_close("weights", &got[0], &w, 2e-7);
                assert_close("moving average", &got[4], &ema, 2e-7);
            }
        }
    }
}

#[test]
fn clips() {
    for (n, scale, most) in [(1, 1.0, 10.0), (4096, 1.0, 1.0), (10_001, 3.0, 2.0), (300_000, 1e-3, 1.0)] {
        let grads = random(1, n, scale);
        let norm = global_norm(&grads);
        let got = run(|card| {
            let there = card.put(&grads);
            let (norm, factor) = clip(card, &there, n, most);
            vec![vec![card.get(&norm)[0] as f32], card.get(&factor)]
        });
        // Sums of sixteen f32 on the card, of up to 256 on the CPU.
        assert_close("norm", &got[0], &[norm as f32], 1e-6);
        assert_close("factor", &got[1], &[clip_coefficient(norm, most)], 1e-6);
    }
    let mut grads = random(1, 5000, 1.0);
    grads[4711] = f32::NAN;
    let mut card = Card::start(super::Compiled::Plain, 1);
    let there = card.put(&grads);
    let (_, factor) = clip(&mut card, &there, 5000, 1.0);
    assert!(card.get(&factor)[0].is_nan());
}
