//! `cargo xtask bench-scaling`: step times as threads, depth, width, length and vocabulary grow, against the operations that
//! the engine counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use antlm::bench::Steps;
use antlm::objective::Objective;
use antlm::recipe::{Precision, Recipe};
use antlm_nn::kernels::work::products;
use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use crate::bench::{median, spread};
use crate::bench_floor;

/// Step times as threads and each of a model's sizes grow, against the operations counted
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench-scaling
  cargo xtask bench-scaling --recipe babyllama-58m --bf16 --json target/scaling.json
A step has 1024 tokens whatever its length (8 x 128, 4 x 256 ...). One size is changed at a time; with the width go heads and
intermediate layer. Operations are the multiplications and additions of all products of a step, as the engine counts
them. The last column is what matters: over 1.00, a token costs more than its operations say, compared with the recipe's
own sizes, a step of which runs beside every other. Let nothing else run meanwhile.")]
pub struct Options {
    /// The model to start from
    #[arg(long, value_name = "NAME", default_value = "ltg-bert-small")]
    recipe: String,
    /// Operands of products in bf16
    #[arg(long)]
    bf16: bool,
    /// How often everything is run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Steps timed in one run, after one to warm up; the fastest counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Also write every measurement here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Tokens of a step.
const TOKENS: u32 = 1024;

/// A model's sizes and how it is run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    layers: usize,
    hidden: usize,
    seq: u32,
    vocab: usize,
    threads: usize,
}

/// Every change of one size: its name and value, and the shape.
fn shapes(base: &Shape, processors: usize) -> Vec<(String, Shape)> {
    let mut shapes = Vec::new();
    let mut add = |name: String, shape: Shape| shapes.push((name, shape));
    for threads in 1..=processors {
        add(format!("threads {threads}"), Shape { threads, ..base.clone() });
    }
    for layers in [base.layers / 4, base.layers / 2, base.layers, base.layers * 2] {
        add(format!("layers {layers}"), Shape { layers, ..base.clone() });
    }
    for hidden in [base.hidden / 2, base.hidden, base.hidden * 3 / 2, base.hidden * 2] {
        add(format!("width {hidden}"), Shape { hidden, ..base.clone() });
    }
    for seq in [64, 128, 256, 512, 1024] {
        add(format!("length {seq}"), Shape { seq, ..base.clone() });
    }
    for vocab in [base.vocab / 4, base.vocab / 2, base.vocab, base.vocab * 2] {
        add(format!("vocabulary {vocab}"), Shape { vocab, ..base.clone() });
    }
    shapes
}

/// A model in its own threads, ready for steps.
struct Running {
    pool: rayon::ThreadPool,
    steps: Steps,
    /// Of a step.
    operations: u64,
}

impl Running {
    fn start(options: &Options, recipe: &Recipe, shape: &Shape) -> Result<Running> {
        let mut recipe = recipe.clone();
        let model = &mut recipe.model;
        model.heads = (model.heads * shape.hidden / model.hidden).max(1);
        model.intermediate = model.intermediate * shape.hidden / model.hidden;
        (model.layers, model.hidden, model.vocab_size) = (shape.layers, shape.hidden, shape.vocab);
        let precision = if options.bf16 { Precision::Bf16 } else { Precision::F32 };
        let (objective, seq, batch) = (Objective::Clm, shape.seq, TOKENS / shape.seq);
        let options = antlm::bench::Options { objective, batch, seq, steps: 0, precision };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(shape.threads).build()?;
        let mut steps = pool.install(|| Steps::new(&recipe, options))?;
        // The first step asks for memory, so it is not timed and may be counted.
        let (loss, found) = products(|| pool.install(|| steps.step()));
        loss?;
        Ok(Running { pool, steps, operations: bench_floor::operations(&found) })
    }

    /// Seconds of a step.
    fn step(&mut self) -> Result<f64> {
        let start = Instant::now();
        self.pool.install(|| self.steps.step())?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// What was found of a shape.
#[derive(Clone, Debug, Default)]
struct Found {
    operations: u64,
    /// Of every round: seconds of its fastest step, and of the recipe's own fastest beside it.
    seconds: Vec<(f64, f64)>,
}

impl Found {
    /// Of every round: the time, as a multiple of the recipe's own.
    fn times(&self) -> impl Iterator<Item = f64> {
        self.seconds.iter().map(|(these, own)| these / own)
    }

    fn median(&self) -> f64 {
        median(&self.seconds.iter().map(|seconds| seconds.0).collect::<Vec<_>>())
    }

    /// Thousands of millions of operations a second.
    fn rate(&self) -> f64 {
        self.operations as f64 / self.median() / 1e9
    }
}

/// Measures everything and prints both tables.
pub fn run(options: &Options) -> Result<()> {
    let recipe = Recipe::load(&options.recipe, &[])?;
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    let model = &recipe.model;
    let base =
        Shape { layers: model.layers, hidden: model.hidden, seq: 128, vocab: model.vocab_size, threads: processors };
    let shapes = shapes(&base, processors);
    // What is the same under several names is run once a round.
    let mut all: BTreeMap<&Shape, Found> = shapes.iter().map(|(_, shape)| (shape, Found::default())).collect();
    // A step of it beside each step of another: a machine that grows slower does so for both.
    let mut own = Running::start(options, &recipe, &base)?;
    for round in 0..options.rounds {
        for (shape, found) in &mut all {
            let mut other = Running::start(options, &recipe, shape)?;
            let mut fastest = (f64::MAX, f64::MAX);
            for _ in 0..options.steps {
                fastest = (fastest.0.min(other.step()?), fastest.1.min(own.step()?));
            }
            eprintln!("round {}: {shape:?}: {:.3} s a step, beside {:.3}", round + 1, fastest.0, fastest.1);
            found.operations = other.operations;
            found.seconds.push(fastest);
        }
    }
    print!("{}", tables(&shapes, &base, &all));
    println!("\n{}, clm, {}, {processors} processors", options.recipe, if options.bf16 { "bf16" } else { "f32" });
    if let Some(path) = &options.json {
        let lines = shapes.iter().map(|(name, shape)| {
            let Found { operations, seconds } = &all[shape];
            json!({ "what": name, "threads": shape.threads, "operations": operations, "seconds": seconds })
        });
        let text = serde_json::to_string_pretty(&lines.collect::<Vec<_>>())?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Threads, then sizes: medians over the rounds; ratios are of the same round.
fn tables(shapes: &[(String, Shape)], base: &Shape, all: &BTreeMap<&Shape, Found>) -> String {
    let one = &all[&Shape { threads: 1, ..base.clone() }];
    let mut text = "| threads | s a step | times as fast as one (min-max) | GFLOP/s |\n|---|---|---|---|\n".to_owned();
    let (threads, sizes): (Vec<_>, Vec<_>) = shapes.iter().partition(|(name, _)| name.starts_with("threads"));
    for (_, shape) in threads {
        let found = &all[shape];
        let faster = spread(one.times().zip(found.times()).map(|(one, these)| one / these));
        text += &format!("| {} | {:.3} | {faster} | {:.0} |\n", shape.threads, found.median(), found.rate());
    }
    text += "\n| changed | MFLOP a token | operations | time | GFLOP/s | time/operations (min-max) |\n";
    text += "|---|---|---|---|---|---|\n";
    for (name, shape) in sizes {
        let found = &all[shape];
        let (operations, per_token) = (found.operations as f64, found.operations as f64 / f64::from(TOKENS) / 1e6);
        let predicted = operations / all[base].operations as f64;
        let time = median(&found.times().collect::<Vec<_>>());
        let beyond = spread(found.times().map(|time| time / predicted));
        text += &format!("| {name} | {per_token:.0} | {predicted:.2} | {time:.2} | {:.0} | {beyond} |\n", found.rate());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_held_against_operations() {
        let base = Shape { layers: 12, hidden: 384, seq: 128, vocab: 16384, threads: 2 };
        let (one, deep) = (Shape { threads: 1, ..base.clone() }, Shape { layers: 24, ..base.clone() });
        let shapes = [
            ("threads 1".to_owned(), one.clone()),
            ("threads 2".to_owned(), base.clone()),
            ("layers 24".to_owned(), deep.clone()),
        ];
        let found = |operations, seconds: &[(f64, f64)]| Found { operations, seconds: seconds.to_vec() };
        // The machine was twice as slow in the second round.
        let all = [
            (&one, found(1_000_000_000, &[(1.8, 1.0), (3.6, 2.0)])),
            (&base, found(1_000_000_000, &[(1.0, 1.0), (2.0, 2.0)])),
            (&deep, found(2_000_000_000, &[(2.0, 1.0), (4.4, 2.0)])),
        ];
        let text = tables(&shapes, &base, &all.into());
        assert!(text.contains("| 2 | 1.500 | 1.80 (1.80-1.80) | 1 |"), "{text}");
        assert!(text.contains("| layers 24 | 2 | 2.00 | 2.10 | 1 | 1.05 (1.00-1.10) |"), "{text}");
    }

    #[test]
    fn every_size_is_changed_alone() {
        let base = Shape { layers: 12, hidden: 384, seq: 128, vocab: 16384, threads: 4 };
        let shapes = shapes(&base, 4);
        let changes = |shape: &Shape| {
            [shape.layers != 12, shape.hidden != 384, shape.seq != 128, shape.vocab != 16384, shape.threads != 4]
                .into_iter()
                .filter(|&changed| changed)
                .count()
        };
        assert!(shapes.iter().all(|(_, shape)| changes(shape) <= 1));
        assert!(shapes.iter().all(|(_, shape)| TOKENS.is_multiple_of(shape.seq) && shape.hidden % 64 == 0));
        // All processors, and the recipe's own four sizes, are the same shape.
        assert_eq!(shapes.iter().filter(|(_, shape)| *shape == base).count(), 5);
    }
}
