//! `cargo xtask dev-bf16`: how far dev losses of runs in bf16 are from those in f32, beside how far seeds are from each other.

use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;

use crate::dev_table::{self, BACKENDS, Log, Runs};

/// Trains recipes with several seeds, each in f32 and in bf16, and prints how far their last dev losses differ
#[derive(Args)]
#[command(after_help = "\
Example:
  cargo xtask dev-bf16 --text corpus/train --dev corpus/dev --words 100000 --recipes babyllama-tiny --out target/dev-bf16
Sample and runs are as of dev-table. The machine needs AVX512-BF16 to do this in minutes.")]
pub struct Options {
    #[command(flatten)]
    runs: Runs,
    /// Built-in recipes
    #[arg(long, value_delimiter = ',', default_value = "ltg-bert-tiny,babyllama-tiny")]
    recipes: Vec<String>,
    /// Seeds, two at least
    #[arg(long, value_delimiter = ',', default_value = "42,1,2,3,4")]
    seeds: Vec<u64>,
}

/// Does all of it.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    anyhow::ensure!(options.seeds.len() > 1, "--seeds: a spread needs two at least");
    let text = dev_table::text(&options.runs)?;
    let antlm = crate::build_antlm(root, &[])?;
    let mut rows = String::new();
    for recipe in &options.recipes {
        let logs = |precision| -> Result<Vec<Log>> {
            let of = |seed: &u64| dev_table::train(&antlm, recipe, &text, Some(*seed), Some(precision), &options.runs);
            options.seeds.iter().map(of).collect()
        };
        let (exact, rounded) = (logs("f32")?, logs("bf16")?);
        for (place, backend) in BACKENDS.iter().enumerate() {
            rows += &row(recipe, backend, &last(&exact, place)?, &last(&rounded, place)?);
        }
    }
    println!(
        "\nLast dev losses, bf16 against f32 of the same seed, seeds {:?}\n\n\
         | recipe | backend | f32, mean | spread of seeds | bf16 - f32, by seed | mean | its standard error |\n\
         |---|---|---|---|---|---|---|\n{rows}",
        options.seeds
    );
    Ok(())
}

/// The last losses of a backend.
fn last(logs: &[Log], backend: usize) -> Result<Vec<f64>> {
    logs.iter().map(|log| log.losses[backend].last().copied().context("a run without a dev loss")).collect()
}

/// Differences in per cent; spreads are standard deviations.
fn row(recipe: &str, backend: &str, exact: &[f64], rounded: &[f64]) -> String {
    let differences: Vec<f64> =
        exact.iter().zip(rounded).map(|(exact, rounded)| 100.0 * (rounded / exact - 1.0)).collect();
    let ((loss, spread), (mean, deviation)) = (moments(exact), moments(&differences));
    let by_seed: Vec<String> = differences.iter().map(|difference| format!("{difference:+.2}")).collect();
    format!(
        "| {recipe} | {backend} | {loss:.3} | {:.2} % | {} | {mean:+.2} % | {:.2} % |\n",
        100.0 * spread / loss,
        by_seed.join(", "),
        deviation / (differences.len() as f64).sqrt()
    )
}

/// Mean and standard deviation of two values at least.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (mean, (squares / (n - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_of_the_same_seed() {
        let text = row("r", "mlm", &[4.0, 5.0, 6.0], &[4.04, 4.95, 6.0]);
        assert_eq!(text, "| r | mlm | 5.000 | 20.00 % | +1.00, -1.00, +0.00 | +0.00 % | 0.58 % |\n");
    }
}
