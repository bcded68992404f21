//! `cargo xtask bench-ops`: every fused operation of a training step by itself, against its own floor: its products at
//! the rate of a large product, and a sweep over as many bytes as it must read and write. Shows where a step's time goes.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use antlm::model::{Kind, Model};
use antlm::recipe::Recipe;
use antlm_nn::kernels::attention::{self, Backward, Operands, attention, attention_backward};
use antlm_nn::kernels::classifier::{self, Classifier, classifier_loss};
use antlm_nn::kernels::dropout::{Rows, Site};
use antlm_nn::kernels::lines::Lines;
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
Shapes are those of a step of 8 x 128 tokens of the recipe, clm or mlm; the last column says how long all calls of a step
take. What works on rows with a target alone behind the last attention is counted as if it worked on all, its products
excepted. Let nothing else run meanwhile.
Examples:
  cargo xtask bench-ops
  cargo xtask bench-ops --recipe babyllama-58m --objective mlm --bf16")]
pub struct Options {
    /// The model
    #[arg(long, value_name = "NAME", default_value = "ltg-bert-small")]
    recipe: String,
    /// clm or mlm
    #[arg(long, value_name = "NAME", default_value = "clm", value_parser = ["clm", "mlm"])]
    objective: String,
    /// How often each operation is timed
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Operands of products in bf16, of those that a run with `precision = "bf16"` has so
    #[arg(long)]
    bf16: bool,
}

/// Tokens of a step.
const N: usize = 1024;

/// What a step of a model is made of.
#[derive(Clone, Copy)]
struct Sizes {
    llama: bool,
    causal: bool,
    precision: Precision,
    /// Width, heads, feed-forward width, vocabulary, layers, numbers.
    d: usize,
    heads: usize,
    wide: usize,
    vocab: usize,
    layers: u32,
    parameters: usize,
    /// Rows with a target.
    targets: usize,
}

impl Sizes {
    fn new(options: &Options) -> Result<Sizes> {
        let config = Recipe::load(&options.recipe, &[])?.config();
        let (causal, bf16) = (options.objective == "clm", options.bf16);
        Ok(Sizes {
            llama: config.kind == Kind::Llama,
            causal,
            precision: if bf16 { Precision::Bf16 } else { Precision::F32 },
            d: config.hidden,
            heads: config.heads,
            wide: config.intermediate,
            vocab: config.vocab_size,
            layers: config.layers as u32,
            parameters: Model::new(&config)?.layout().len(),
            // The last token of each of 8 segments has none; 15 % are masked.
            targets: if causal { N - 8 } else { N * 15 / 100 },
        })
    }
}

/// An operation, ready to be run.
struct Op {
    name: &'static str,
    /// Calls in a step.
    calls: u32,
    /// Values that it must read or write, each once, its products' not included.
    values: usize,
    run: Box<dyn FnMut()>,
}

pub fn run(options: &Options) -> Result<()> {
    let sizes = Sizes::new(options)?;
    let precision = sizes.precision;
    let rate = |precision| large(precision).operations() as f64 / fastest(options.rounds, &mut product(precision));
    let rates = [Precision::F32, precision].map(|precision| (precision, rate(precision)));
    let [f32, other] = rates.map(|(_, rate)| rate / 1e9);
    let bf16 = if options.bf16 { format!(", in bf16 {other:.0}") } else { String::new() };
    println!("{} {}", options.recipe, options.objective);
    println!("a large product: {f32:.0} GFLOP/s{bf16}; {} threads\n", rayon::current_num_threads());
    let rates = BTreeMap::from(rates);
    println!(
        "| operation | median ms | floor ms | times the floor | calls a step | ms a step | floor, ms a step |\n|---|---|---|---|---|---|---|"
    );
    let mut sweeps = BTreeMap::new();
    let (mut all, mut floors) = (0.0, 0.0);
    for mut op in operations_of_a_step(sizes) {
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
            "| {} | {:.3} | {:.3} | {:.2} | {} | {:.1} | {:.1} |",
            op.name,
            seconds * 1e3,
            floor * 1e3,
            seconds / floor,
            op.calls,
            calls * seconds * 1e3,
            calls * floor * 1e3
        );
        all += calls * seconds;
        floors += calls * floor;
    }
    println!("| all of a step | | | {:.2} | | {:.0} | {:.0} |", all / floors, all * 1e3, floors * 1e3);
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
    let mut x = Lines::zeros(values / 2);
    let chunk = (values / 2).div_ceil(4 * rayon::current_num_threads()).max(1);
    let mut run = || {
        x.par_chunks_mut(chunk).for_each(|x| x.iter_mut().for_each(|x| *x += 1.0));
        black_box(&mut x);
    };
    fastest(rounds, &mut run)
}

fn numbers(len: usize) -> Lines {
    let mut numbers = Lines::zeros(len);
    for (i, x) in (0u32..).zip(numbers.iter_mut()) {
        *x = (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0;
    }
    numbers
}

/// The large product.
fn product(precision: Precision) -> impl FnMut() {
    let Product { rows, cols, inner, .. } = large(precision);
    let (a, b, mut c) = (numbers(rows * inner), numbers(cols * inner), Lines::zeros(rows * cols));
    move || {
        let (a, b) = (Mat::new(&a, rows, inner), Mat::new(&b, cols, inner).t());
        matmul(MatMut::new(&mut c, rows, cols), Into::Write, precision, a, b, Threads::All);
    }
}

/// Forward, gradient of the weight and gradient of the input of a linear layer.
fn linear(name: &'static str, calls: u32, rows: usize, out: usize, inner: usize, precision: Precision) -> Op {
    let (x, w, gy) = (numbers(rows * inner), numbers(out * inner), numbers(rows * out));
    let (mut y, mut gx, mut gw) = (Lines::zeros(rows * out), Lines::zeros(rows * inner), Lines::zeros(out * inner));
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

fn operations_of_a_step(sizes: Sizes) -> Vec<Op> {
    let Sizes { d, wide, layers, targets, precision, llama, .. } = sizes;
    let mut ops = vec![
        linear("linear q, k, v", layers, N, 3 * d, d, precision),
        linear("linear out", layers - 1, N, d, d, precision),
        linear("linear up and gate", layers - 1, N, 2 * wide, d, precision),
        linear("linear down", layers - 1, N, d, wide, precision),
        linear("linear out of the last layer", 1, targets, d, d, precision),
        linear("linear up and gate of the last layer", 1, targets, 2 * wide, d, precision),
        linear("linear down of the last layer", 1, targets, d, wide, precision),
    ];
    if llama {
        ops.extend(rms_norms(sizes));
        ops.extend(swiglu(sizes));
        ops.push(rotary(sizes));
    } else {
        ops.push(linear("linear of positions", layers, RELATIVE_ROWS, 2 * d, d, precision));
        ops.push(linear("linear of the head", 1, targets, d, d, precision));
        ops.extend(layer_norms(sizes));
        ops.extend(geglu(sizes));
    }
    ops.extend(attentions(sizes));
    ops.push(classifier(sizes));
    ops.extend(whole_model(sizes));
    ops
}

fn site() -> Site {
    Site::new(Rng::new(1), 0, 0, 0.1).expect("it drops")
}

fn layer_norms(Sizes { d, layers, .. }: Sizes) -> Vec<Op> {
    let (x, gy, gamma, beta) = (numbers(N * d), numbers(N * d), numbers(d), numbers(d));
    let plain = || LayerNorm { eps: 1e-7, affine: None, drop: None };
    let mut stats = Lines::zeros(2 * N);
    let mut y = Lines::zeros(N * d);
    norm::layer_norm(plain(), d, &x, None, &mut y, &mut stats);
    let (saved, rows) = (stats.clone(), Rows::From(0));
    let mut ops = Vec::new();
    let (from, mut to, mut kept) = (x.clone(), y.clone(), stats.clone());
    ops.push(op("layer norm", 2 * layers + 2, 2 * N * d, move || {
        norm::layer_norm(plain(), d, &from, None, &mut to, &mut kept);
    }));
    let (from, gradient, kept, mut to) = (x.clone(), gy.clone(), saved.clone(), y.clone());
    ops.push(op("layer norm, backward", 2 * layers + 2, 3 * N * d, move || {
        norm::layer_norm_backward(plain(), d, &from, &kept, &gradient, &mut to, false, None);
    }));
    let (from, mut to, mut kept, more) = (x.clone(), y.clone(), stats.clone(), gy.clone());
    let (g, b, places) = (gamma.clone(), beta.clone(), rows.clone());
    ops.push(op("layer norm, scaled, dropped, added", layers, 3 * N * d, move || {
        let spec = LayerNorm { affine: Some((&g, &b)), drop: Some((site(), &places)), ..plain() };
        norm::layer_norm(spec, d, &from, Some(&more), &mut to, &mut kept);
    }));
    let (mut to, mut gg, mut gb) = (y, Lines::zeros(d), Lines::zeros(d));
    let (from, gradient) = (x, gy);
    ops.push(op("layer norm, scaled, dropped, added, backward", layers, 3 * N * d, move || {
        let spec = LayerNorm { affine: Some((&gamma, &beta)), drop: Some((site(), &rows)), ..plain() };
        norm::layer_norm_backward(spec, d, &from, &saved, &gradient, &mut to, false, Some((&mut gg, &mut gb)));
    }));
    ops
}

fn rms_norms(Sizes { d, layers, .. }: Sizes) -> [Op; 2] {
    let (x, w, gy) = (numbers(N * d), numbers(d), numbers(N * d));
    let (mut y, mut stats) = (Lines::zeros(N * d), Lines::zeros(N));
    norm::rms_norm(d, 1e-5, &x, &w, &mut y, &mut stats);
    let (from, scale, mut kept, mut to) = (x.clone(), w.clone(), stats.clone(), y.clone());
    let mut gw = Lines::zeros(d);
    [
        op("RMS norm", 2 * layers + 1, 2 * N * d, move || norm::rms_norm(d, 1e-5, &from, &scale, &mut to, &mut kept)),
        op("RMS norm, backward", 2 * layers + 1, 3 * N * d, move || {
            norm::rms_norm_backward(d, &x, &w, &stats, &gy, &mut y, false, &mut gw);
        }),
    ]
}

fn swiglu(Sizes { wide, layers, .. }: Sizes) -> [Op; 2] {
    let (x, gz, mut z) = (numbers(2 * N * wide), numbers(N * wide), Lines::zeros(N * wide));
    let (from, mut to) = (x.clone(), Lines::zeros(2 * N * wide));
    [
        op("SwiGLU", layers, 3 * N * wide, move || activation::swiglu(wide, &from, &mut z)),
        op("SwiGLU, backward", layers, 5 * N * wide, move || activation::swiglu_backward(wide, &x, &gz, &mut to)),
    ]
}

fn rotary(Sizes { d, heads, layers, .. }: Sizes) -> Op {
    let table = rope::Table::new(128, d / heads, 10_000.0);
    let (positions, mut qkv): (Vec<u32>, _) = ((0..N as u32).map(|i| i % 128).collect(), numbers(N * 3 * d));
    op("rotary positions", 2 * layers, 4 * N * d, move || {
        rope::rope(&table, d, heads, &positions, &mut qkv, false);
    })
}

/// GEGLU, and what else only LTG-BERT has.
fn geglu(Sizes { d, wide, layers, .. }: Sizes) -> Vec<Op> {
    let many = N * wide;
    let (ug, gz) = (numbers(2 * many), numbers(many));
    let (mut z, mut stats, mut gug) = (Lines::zeros(many), Lines::zeros(N), Lines::zeros(2 * many));
    activation::geglu_norm(wide, 1e-7, &ug, &mut z, &mut stats);
    let (x, y, kept, gradient) = (ug.clone(), z.clone(), stats.clone(), gz);
    let mut ops = vec![op("GEGLU and its norm, backward", layers, 6 * many, move || {
        activation::geglu_norm_backward(wide, &x, &y, &kept, &gradient, &mut gug);
    })];
    ops.push(op("GEGLU and its norm", layers, 3 * many, move || {
        activation::geglu_norm(wide, 1e-7, &ug, &mut z, &mut stats);
    }));
    let (x, gy, mut y) = (numbers(N * d), numbers(N * d), Lines::zeros(N * d));
    let from = x.clone();
    ops.push(op("GELU", 1, 2 * N * d, move || activation::gelu_forward(&from, &mut y)));
    let (from, gradient, mut gx) = (x.clone(), gy.clone(), Lines::zeros(N * d));
    ops.push(op("GELU, backward", 1, 3 * N * d, move || activation::gelu_backward(&from, &gradient, &mut gx)));
    let (from, rows, mut y) = (x.clone(), Rows::From(0), Lines::zeros(N * d));
    ops.push(op("dropout, added", layers, 3 * N * d, move || {
        activation::dropout_add(d, Some((site(), &rows)), &from, Some(&gy), &mut y);
    }));
    let (rows, mut y) = (Rows::From(0), Lines::zeros(N * d));
    ops.push(op("dropout, backward", layers, 2 * N * d, move || {
        activation::dropout_add(d, Some((site(), &rows)), &x, None, &mut y);
    }));
    let (gradient, mut sum) = (numbers(N * d), Lines::zeros(N * d));
    ops.push(op("adding gradients", 2 * layers, 3 * N * d, move || add_assign(&mut sum, &gradient)));
    let (gradient, mut sums) = (numbers(N * 3 * d), Lines::zeros(3 * d));
    ops.push(op("gradient of a bias", layers, N * 3 * d, move || add_column_sums(&gradient, &mut sums)));
    ops
}

fn attentions(Sizes { d, heads, layers, causal, precision, llama, .. }: Sizes) -> [Op; 2] {
    let (relative, p) = if llama { (false, 0.0) } else { (true, 0.1) };
    let drop = Site::new(Rng::new(1), 1, 0, p).map(|site| (site, 0));
    let spec = attention::Spec { heads, d, scale: 0.05, causal, drop };
    let bounds: Vec<u32> = (0..=8).map(|i| i * 128).collect();
    let (qkv, go) = (numbers(N * 3 * d), numbers(N * d));
    let positions = relative.then(|| numbers(RELATIVE_ROWS * 2 * d));
    let (mut o, mut stats) = (Lines::zeros(N * d), Lines::zeros(N * 2 * heads));
    attention(
        spec,
        Operands { qkv: &qkv, positions: positions.as_deref(), bounds: &bounds, precision },
        &mut o,
        &mut stats,
    );
    let forward = {
        let (qkv, positions, bounds) = (qkv.clone(), positions.clone(), bounds.clone());
        let (mut o, mut stats) = (o.clone(), stats.clone());
        op("attention", layers, 4 * N * d, move || {
            let operands = Operands { qkv: &qkv, positions: positions.as_deref(), bounds: &bounds, precision };
            attention(spec, operands, &mut o, &mut stats);
        })
    };
    let mut gqkv = Lines::zeros(N * 3 * d);
    let mut gpositions = positions.clone();
    let backward = op("attention, backward", layers, 8 * N * d, move || {
        let operands = Operands { qkv: &qkv, positions: positions.as_deref(), bounds: &bounds, precision };
        let gpositions = gpositions.as_deref_mut();
        attention_backward(spec, operands, Backward { o: &o, stats: &stats, go: &go, gqkv: &mut gqkv, gpositions });
    });
    [forward, backward]
}

fn classifier(Sizes { d, vocab, targets: rows, precision, llama, .. }: Sizes) -> Op {
    let (bias, table) = (numbers(vocab), numbers(vocab * d));
    let (x, targets) = (numbers(rows * d), (0..rows as u32).collect::<Vec<_>>());
    let (mut gx, mut gtable, mut gbias) = (Lines::zeros(rows * d), Lines::zeros(vocab * d), Lines::zeros(vocab));
    let (mut nll, mut scratch) = (Lines::zeros(rows), Lines::default());
    op("output layer and loss, with gradients", 1, 0, move || {
        let layer = Classifier { d, table: &table, bias: (!llama).then_some(&bias[..]), precision };
        let (gx, table, bias) = (&mut gx[..], &mut gtable[..], (!llama).then_some(&mut gbias[..]));
        let grads = classifier::Grads { x: gx, table, add: false, bias, weight: 1e-3, z: 0.0 };
        classifier_loss(layer, &x, &targets, &mut nll, Some(grads), &mut scratch);
    })
}

/// What touches every number of the model once.
fn whole_model(Sizes { parameters, .. }: Sizes) -> [Op; 2] {
    let mut layout = Layout::default();
    layout.add("all", &[parameters], Init::Zeros, true);
    let (mut params, grads) = (numbers(parameters), numbers(parameters));
    let (mut m, mut v) = (Lines::zeros(parameters), Lines::zeros(parameters));
    let gradient = grads.clone();
    let adamw = Optimizer { rule: Rule::AdamW, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    [
        op("norm of the gradients", 1, parameters, move || {
            black_box(global_norm(&gradient));
        }),
        op("AdamW", 1, 7 * parameters, move || {
            let update = Update { t: 1, lr: 1e-4, grad_scale: 1.0 };
            let of = State { params: &mut params, grads: &grads, m: &mut m, v: &mut v, average: None };
            adamw.step(&layout, of, update).expect("shapes fit");
        }),
    ]
}
