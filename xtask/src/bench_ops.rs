//! `cargo xtask bench-ops`: every fused operation of a training step by itself, against its own floor: its products at
//! the rate of a large product, and a sweep over as many bytes as it must read and write. Shows where a step's time goes.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use antlm_nn::kernels::attention::{self, Backward, Operands, attention, attention_backward};
use antlm_nn::kernels::classifier::{self, Classifier, classifier_loss};
use antlm_nn::kernels::dropout::{Rows, Site};
use antlm_nn::kernels::matmul::{Into, Mat, MatMut, Precision, Threads, matmul};
use antlm_nn::kernels::norm::{self, LayerNorm};
use antlm_nn::kernels::work::{Product, products};
use antlm_nn::kernels::{activation, add_assign, add_column_sums, rope};
use antlm_nn::optim::{Optimizer, Rule, State, Update, global_norm};
use antlm_nn::params::{Init, Layout};
use antlm_nn::relative::RELATIVE_ROWS;
use antlm_nn::rng::Rng;
use anyhow::Result;
use clap::Args;
use rayon::prelude::*;

use crate::bench::median;
use crate::bench_floor::large;

/// Every fused operation against its own floor
#[derive(Args)]
#[command(after_help = "\
Shapes are those of ltg-bert-small, and of babyllama-58m where only Llama has the operation: 8 x 128 tokens. The column
\"a step\" says how long all calls of one clm step of ltg-bert-small take. Let nothing else run meanwhile.")]
pub struct Options {
    /// How often each operation is timed
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Operands of products in bf16, of those that a run with `precision = "bf16"` has so
    #[arg(long)]
    bf16: bool,
}

/// Tokens of a step.
const N: usize = 1024;
/// LTG-BERT small: width, heads, feed-forward width, vocabulary, layers, numbers.
const D: usize = 384;
const HEADS: usize = 6;
const WIDE: usize = 1024;
const VOCAB: usize = 16_384;
const LAYERS: u32 = 12;
const PARAMETERS: usize = 27_741_952;

/// An operation, ready to be run.
struct Op {
    name: &'static str,
    /// Calls in a clm step of ltg-bert-small.
    calls: u32,
    /// Values that it must read or write, each once, its products' not included.
    values: usize,
    run: Box<dyn FnMut()>,
}

pub fn run(options: &Options) -> Result<()> {
    let precision = if options.bf16 { Precision::Bf16 } else { Precision::F32 };
    let rate = |precision| large(precision).operations() as f64 / fastest(options.rounds, &mut product(precision));
    let rates = [Precision::F32, precision].map(|precision| (precision, rate(precision)));
    let [f32, other] = rates.map(|(_, rate)| rate / 1e9);
    let bf16 = if options.bf16 { format!(", in bf16 {other:.0}") } else { String::new() };
    println!("a large product: {f32:.0} GFLOP/s{bf16}; {} threads\n", rayon::current_num_threads());
    let rates = BTreeMap::from(rates);
    println!(
        "| operation | median ms | floor ms | times the floor | calls a step | ms a step |\n|---|---|---|---|---|---|"
    );
    let mut sweeps = BTreeMap::new();
    let (mut all, mut floors) = (0.0, 0.0);
    for mut op in operations_of_a_step(precision) {
        (op.run)();
        let ((), found) = products(|| (op.run)());
        let seconds: Vec<f64> = (0..options.rounds).map(|_| time(&mut op.run)).collect();
        let seconds = median(&seconds);
        let swept = sweeps.entry(op.values).or_insert_with(|| sweep(op.values, options.rounds));
        let floor = found.iter().fold(*swept, |sum, (product, times)| {
            sum + (product.operations() * times) as f64 / rates[&product.precision]
        });
        let calls = f64::from(op.calls);
        println!(
            "| {} | {:.3} | {:.3} | {:.2} | {} | {:.1} |",
            op.name,
            seconds * 1e3,
            floor * 1e3,
            seconds / floor,
            op.calls,
            calls * seconds * 1e3
        );
        all += calls * seconds;
        floors += calls * floor;
    }
    println!("| all of a step | | | {:.2} | | {:.0} |", all / floors, all * 1e3);
    Ok(())
}

fn time(run: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

fn fastest(rounds: u32, run: &mut dyn FnMut()) -> f64 {
    (0..rounds).map(|_| time(run)).fold(f64::MAX, f64::min)
}

/// Seconds to change `values / 2` values where they are, which reads and writes `values`; on all threads.
fn sweep(values: usize, rounds: u32) -> f64 {
    let mut x = vec![1.0_f32; values / 2];
    let chunk = (values / 2).div_ceil(4 * rayon::current_num_threads()).max(1);
    let mut run = || {
        x.par_chunks_mut(chunk).for_each(|x| x.iter_mut().for_each(|x| *x += 1.0));
        black_box(&mut x);
    };
    fastest(rounds, &mut run)
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

/// The large product.
fn product(precision: Precision) -> impl FnMut() {
    let Product { rows, cols, inner, .. } = large(precision);
    let (a, b, mut c) = (numbers(rows * inner), numbers(cols * inner), vec![0.0; rows * cols]);
    move || {
        let (a, b) = (Mat::new(&a, rows, inner), Mat::new(&b, cols, inner).t());
        matmul(MatMut::new(&mut c, rows, cols), Into::Write, precision, a, b, Threads::All);
    }
}

/// Forward, gradient of the weight and gradient of the input of a linear layer.
fn linear(name: &'static str, calls: u32, rows: usize, out: usize, inner: usize, precision: Precision) -> Op {
    let (x, w, gy) = (numbers(rows * inner), numbers(out * inner), numbers(rows * out));
    let (mut y, mut gx, mut gw) = (vec![0.0; rows * out], vec![0.0; rows * inner], vec![0.0; out * inner]);
    let run = move || {
        let (x, w, g) = (Mat::new(&x, rows, inner), Mat::new(&w, out, inner), Mat::new(&gy, rows, out));
        matmul(MatMut::new(&mut y, rows, out), Into::Write, precision, x, w.t(), Threads::All);
        matmul(MatMut::new(&mut gw, out, inner), Into::Write, precision, g.t(), x, Threads::All);
        matmul(MatMut::new(&mut gx, rows, inner), Into::Write, precision, g, w, Threads::All);
    };
    Op { name, calls, values: 0, run: Box::new(run) }
}

fn op(name: &'static str, calls: u32, values: usize, run: impl FnMut() + 'static) -> Op {
    Op { name, calls, values, run: Box::new(run) }
}

fn operations_of_a_step(precision: Precision) -> Vec<Op> {
    let mut ops = vec![
        linear("linear q, k, v", LAYERS, N, 3 * D, D, precision),
        linear("linear out", LAYERS, N, D, D, precision),
        linear("linear up and gate", LAYERS, N, 2 * WIDE, D, precision),
        linear("linear down", LAYERS, N, D, WIDE, precision),
        linear("linear of positions", LAYERS, RELATIVE_ROWS, 2 * D, D, precision),
        linear("linear of the head", 1, N, D, D, precision),
    ];
    ops.extend(norms());
    ops.extend(activations());
    for (name, calls, causal, heads, d, relative, p) in [
        ("attention of LTG-BERT, causal", LAYERS, true, HEADS, D, true, 0.1),
        ("attention of LTG-BERT, both ways", 0, false, HEADS, D, true, 0.1),
        ("attention of Llama, causal", 0, true, 8, 512, false, 0.0),
        ("attention of Llama, both ways", 0, false, 8, 512, false, 0.0),
    ] {
        ops.extend(attentions(name, calls, causal, heads, d, relative, p, precision));
    }
    ops.push(classifier(precision));
    ops.extend(whole_model());
    ops
}

fn site() -> Site {
    Site::new(Rng::new(1), 0, 0, 0.1).expect("it drops")
}

fn norms() -> Vec<Op> {
    let (x, gy, gamma, beta) = (numbers(N * D), numbers(N * D), numbers(D), numbers(D));
    let plain = LayerNorm { eps: 1e-7, affine: None, drop: None };
    let mut stats = vec![0.0; 2 * N];
    let mut y = vec![0.0; N * D];
    norm::layer_norm(plain, D, &x, None, &mut y, &mut stats);
    let (saved, rows) = (stats.clone(), Rows::From(0));
    let mut ops = Vec::new();
    let (from, mut to, mut kept) = (x.clone(), y.clone(), stats.clone());
    ops.push(op("layer norm", 2 * LAYERS + 2, 2 * N * D, move || {
        norm::layer_norm(plain, D, &from, None, &mut to, &mut kept);
    }));
    let (from, gradient, kept, mut to) = (x.clone(), gy.clone(), saved.clone(), y.clone());
    ops.push(op("layer norm, backward", 2 * LAYERS + 2, 3 * N * D, move || {
        norm::layer_norm_backward(plain, D, &from, &kept, &gradient, &mut to, false, None);
    }));
    let (from, mut to, mut kept, more) = (x.clone(), y.clone(), stats.clone(), gy.clone());
    let (g, b, places) = (gamma.clone(), beta.clone(), rows.clone());
    ops.push(op("layer norm, scaled, dropped, added", LAYERS, 3 * N * D, move || {
        let spec = LayerNorm { affine: Some((&g, &b)), drop: Some((site(), &places)), ..plain_of() };
        norm::layer_norm(spec, D, &from, Some(&more), &mut to, &mut kept);
    }));
    let (mut to, mut gg, mut gb) = (y, vec![0.0; D], vec![0.0; D]);
    let (from, gradient) = (x, gy);
    ops.push(op("layer norm, scaled, dropped, added, backward", LAYERS, 3 * N * D, move || {
        let spec = LayerNorm { affine: Some((&gamma, &beta)), drop: Some((site(), &rows)), ..plain_of() };
        norm::layer_norm_backward(spec, D, &from, &saved, &gradient, &mut to, false, Some((&mut gg, &mut gb)));
    }));
    let (x, w, gy) = (numbers(N * 512), numbers(512), numbers(N * 512));
    let (mut y, mut stats) = (vec![0.0; N * 512], vec![0.0; N]);
    norm::rms_norm(512, 1e-5, &x, &w, &mut y, &mut stats);
    let (from, scale, mut kept, mut to) = (x.clone(), w.clone(), stats.clone(), y.clone());
    ops.push(op("RMS norm", 0, 2 * N * 512, move || norm::rms_norm(512, 1e-5, &from, &scale, &mut to, &mut kept)));
    let mut gw = vec![0.0; 512];
    ops.push(op("RMS norm, backward", 0, 3 * N * 512, move || {
        norm::rms_norm_backward(512, &x, &w, &stats, &gy, &mut y, false, &mut gw);
    }));
    ops
}

fn plain_of<'a>() -> LayerNorm<'a> {
    LayerNorm { eps: 1e-7, affine: None, drop: None }
}

fn activations() -> Vec<Op> {
    let wide = N * WIDE;
    let (ug, gz) = (numbers(2 * wide), numbers(wide));
    let (mut z, mut stats, mut gug) = (vec![0.0; wide], vec![0.0; N], vec![0.0; 2 * wide]);
    activation::geglu_norm(WIDE, 1e-7, &ug, &mut z, &mut stats);
    let (x, y, kept, gradient) = (ug.clone(), z.clone(), stats.clone(), gz.clone());
    let mut ops = vec![op("GEGLU and its norm, backward", LAYERS, 6 * wide, move || {
        activation::geglu_norm_backward(WIDE, &x, &y, &kept, &gradient, &mut gug);
    })];
    let x = ug.clone();
    ops.push(op("GEGLU and its norm", LAYERS, 3 * wide, move || {
        activation::geglu_norm(WIDE, 1e-7, &x, &mut z, &mut stats);
    }));
    let (x, mut y) = (ug.clone(), vec![0.0; wide]);
    ops.push(op("SwiGLU", 0, 3 * wide, move || activation::swiglu(WIDE, &x, &mut y)));
    let mut gug = vec![0.0; 2 * wide];
    ops.push(op("SwiGLU, backward", 0, 5 * wide, move || activation::swiglu_backward(WIDE, &ug, &gz, &mut gug)));
    let (x, gy, mut y) = (numbers(N * D), numbers(N * D), vec![0.0; N * D]);
    let from = x.clone();
    ops.push(op("GELU", 1, 2 * N * D, move || activation::gelu_forward(&from, &mut y)));
    let (from, gradient, mut gx) = (x.clone(), gy.clone(), vec![0.0; N * D]);
    ops.push(op("GELU, backward", 1, 3 * N * D, move || activation::gelu_backward(&from, &gradient, &mut gx)));
    let (from, rows, mut y) = (x.clone(), Rows::From(0), vec![0.0; N * D]);
    ops.push(op("dropout, added", LAYERS, 3 * N * D, move || {
        activation::dropout_add(D, Some((site(), &rows)), &from, Some(&gy), &mut y);
    }));
    let (rows, mut y) = (Rows::From(0), vec![0.0; N * D]);
    ops.push(op("dropout, backward", LAYERS, 2 * N * D, move || {
        activation::dropout_add(D, Some((site(), &rows)), &x, None, &mut y);
    }));
    let (gradient, mut sum) = (numbers(N * D), vec![0.0; N * D]);
    ops.push(op("adding gradients", 2 * LAYERS, 3 * N * D, move || add_assign(&mut sum, &gradient)));
    let (gradient, mut sums) = (numbers(N * 3 * D), vec![0.0; 3 * D]);
    ops.push(op("gradient of a bias", LAYERS, N * 3 * D, move || add_column_sums(&gradient, &mut sums)));
    let (table, positions): (_, Vec<u32>) =
        (rope::Table::new(128, 64, 10_000.0), (0..N as u32).map(|i| i % 128).collect());
    let mut qkv = numbers(N * 3 * 512);
    ops.push(op("rotary positions", 0, 4 * N * 512, move || rope::rope(&table, 512, 8, &positions, &mut qkv, false)));
    ops
}

#[expect(clippy::too_many_arguments, reason = "what an attention is")]
fn attentions(
    name: &'static str,
    calls: u32,
    causal: bool,
    heads: usize,
    d: usize,
    relative: bool,
    p: f64,
    precision: Precision,
) -> [Op; 2] {
    let drop = Site::new(Rng::new(1), 1, 0, p).map(|site| (site, 0));
    let spec = attention::Spec { heads, d, scale: 0.05, causal, drop };
    let bounds: Vec<u32> = (0..=8).map(|i| i * 128).collect();
    let (qkv, go) = (numbers(N * 3 * d), numbers(N * d));
    let positions = relative.then(|| numbers(RELATIVE_ROWS * 2 * d));
    let (mut o, mut stats) = (vec![0.0; N * d], vec![0.0; N * 2 * heads]);
    attention(
        spec,
        Operands { qkv: &qkv, positions: positions.as_deref(), bounds: &bounds, precision },
        &mut o,
        &mut stats,
    );
    let forward = {
        let (qkv, positions, bounds) = (qkv.clone(), positions.clone(), bounds.clone());
        let (mut o, mut stats) = (o.clone(), stats.clone());
        op(name, calls, 4 * N * d, move || {
            let operands = Operands { qkv: &qkv, positions: positions.as_deref(), bounds: &bounds, precision };
            attention(spec, operands, &mut o, &mut stats);
        })
    };
    let mut gqkv = vec![0.0; N * 3 * d];
    let mut gpositions = positions.clone();
    let backward = op("the same, backward", calls, 8 * N * d, move || {
        let operands = Operands { qkv: &qkv, positions: positions.as_deref(), bounds: &bounds, precision };
        let gpositions = gpositions.as_deref_mut();
        attention_backward(spec, operands, Backward { o: &o, stats: &stats, go: &go, gqkv: &mut gqkv, gpositions });
    });
    [forward, backward]
}

fn classifier(precision: Precision) -> Op {
    let (rows, bias, table) = (N - 8, numbers(VOCAB), numbers(VOCAB * D));
    let (x, targets) = (numbers(rows * D), (0..rows as u32).collect::<Vec<_>>());
    let (mut gx, mut gtable, mut gbias) = (vec![0.0; rows * D], vec![0.0; VOCAB * D], vec![0.0; VOCAB]);
    let (mut nll, mut scratch) = (vec![0.0; rows], Vec::new());
    op("output layer and loss, with gradients", 1, 0, move || {
        let layer = Classifier { d: D, table: &table, bias: Some(&bias), precision };
        let (gx, table, bias) = (&mut gx[..], &mut gtable[..], Some(&mut gbias[..]));
        let grads = classifier::Grads { x: gx, table, add: false, bias, weight: 1e-3, z: 0.0 };
        classifier_loss(layer, &x, &targets, &mut nll, Some(grads), &mut scratch);
    })
}

/// What touches every number of the model once.
fn whole_model() -> [Op; 2] {
    let mut layout = Layout::default();
    layout.add("all", &[PARAMETERS], Init::Zeros, true);
    let (mut params, grads) = (numbers(PARAMETERS), numbers(PARAMETERS));
    let (mut m, mut v) = (vec![0.0; PARAMETERS], vec![0.0; PARAMETERS]);
    let gradient = grads.clone();
    let adamw = Optimizer { rule: Rule::AdamW, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    [
        op("norm of the gradients", 1, PARAMETERS, move || {
            black_box(global_norm(&gradient));
        }),
        op("AdamW", 1, 7 * PARAMETERS, move || {
            let update = Update { t: 1, lr: 1e-4, grad_scale: 1.0 };
            let of = State { params: &mut params, grads: &grads, m: &mut m, v: &mut v, average: None };
            adamw.step(&layout, of, update).expect("shapes fit");
        }),
    ]
}
