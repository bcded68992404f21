//! The floor of a training step: its products alone, each at the best rate that any library at hand reaches on this
//! machine now. What a step takes beyond that is what antlm could save at the most.

use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use antlm::bench::{Options, Steps};
use antlm::recipe::Recipe;
use antlm_nn::kernels::lines::Lines;
use antlm_nn::kernels::matmul::{Into, Mat, MatMut, Precision, Threads, matmul};
use antlm_nn::kernels::work::{Product, Products, products};
use anyhow::{Context, Result, bail};
use serde_json::json;

/// A large square product, whose rate stands for what the machine can do in these numbers.
pub fn large(precision: Precision) -> Product {
    let (left_transposed, right_transposed) = (false, false);
    Product { rows: 1536, cols: 1536, inner: 1536, left_transposed, right_transposed, spread: true, precision }
}

/// The products of one step.
pub fn of_step(recipe: &str, options: Options) -> Result<Products> {
    let mut steps = Steps::new(&Recipe::load(recipe, &[])?, options)?;
    steps.step()?;
    let (loss, found) = products(|| steps.step());
    loss?;
    Ok(found)
}

/// All multiplications and additions of products.
pub fn operations(products: &Products) -> u64 {
    products.iter().map(|(product, times)| product.operations() * times).sum()
}

/// Seconds of the products one after another, by the quickest of the libraries for each; and the rate of the [`large`]
/// one in operations a second.
pub fn seconds(products: &Products, precision: Precision, peer: Option<&Peer>) -> Result<(f64, f64)> {
    let threads = rayon::current_num_threads();
    let peak = large(precision);
    let shapes: Vec<Product> = products.keys().copied().chain([peak]).collect();
    let mut best: Vec<f64> = shapes.iter().map(ours).collect();
    if let Some(peer) = peer {
        let theirs = peer.seconds(&shapes, threads)?;
        best.iter_mut().zip(theirs).for_each(|(best, theirs)| *best = best.min(theirs));
    }
    let peak = peak.operations() as f64 / best[best.len() - 1];
    let side_by_side = |product: &Product| if product.spread { 1.0 } else { threads as f64 };
    let sum = products.iter().zip(&best).map(|((product, &n), best)| n as f64 * best / side_by_side(product)).sum();
    Ok((sum, peak))
}

/// The fastest of some products of this shape as antlm makes them.
fn ours(product: &Product) -> f64 {
    let Product { rows, cols, inner, left_transposed, right_transposed, spread, precision } = *product;
    let filled = |len, value| {
        let mut numbers = Lines::zeros(len);
        numbers.fill(value);
        numbers
    };
    let (a, b, mut c) = (filled(rows * inner, 0.5), filled(inner * cols, 0.25), filled(rows * cols, 0.0));
    let a = if left_transposed { Mat::new(&a, inner, rows).t() } else { Mat::new(&a, rows, inner) };
    let b = if right_transposed { Mat::new(&b, cols, inner).t() } else { Mat::new(&b, inner, cols) };
    let threads = if spread { Threads::All } else { Threads::One };
    let (mut fastest, mut times, began) = (f64::MAX, 0, Instant::now());
    while times < 5 || began.elapsed() < Duration::from_millis(20) {
        let start = Instant::now();
        matmul(MatMut::new(black_box(&mut c), rows, cols), Into::Write, precision, a, b, threads);
        fastest = fastest.min(start.elapsed().as_secs_f64());
        times += 1;
    }
    fastest
}

/// Another program that makes products: `bench/peers/torch_products.py`.
pub struct Peer {
    pub python: PathBuf,
    pub script: PathBuf,
}

impl Peer {
    fn seconds(&self, shapes: &[Product], threads: usize) -> Result<Vec<f64>> {
        let list = shapes.iter().map(|p| {
            json!([
                p.rows,
                p.cols,
                p.inner,
                p.left_transposed,
                p.right_transposed,
                p.spread,
                p.precision == Precision::Bf16
            ])
        });
        let text = serde_json::to_vec(&list.collect::<Vec<_>>())?;
        let mut command = Command::new(&self.python);
        command.arg(&self.script).arg(format!("--threads={threads}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| self.python.display().to_string())?;
        child.stdin.take().context("its input was asked for")?.write_all(&text)?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{}: {}", self.script.display(), output.status);
        }
        let found: Vec<f64> = serde_json::from_slice(&output.stdout).context("torch_products.py")?;
        if found.len() != shapes.len() {
            bail!("torch_products.py: {} times of {} products", found.len(), shapes.len());
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_the_sum_of_the_products() {
        let one = Product { spread: false, rows: 64, cols: 64, inner: 64, ..large(Precision::F32) };
        let (few, peak) = seconds(&[(one, 10)].into(), Precision::F32, None).unwrap();
        let (many, _) = seconds(&[(one, 10_000)].into(), Precision::F32, None).unwrap();
        assert!(few > 0.0 && many > 100.0 * few && peak > 1e8, "{few} {many} {peak}");
        assert_eq!(operations(&[(one, 10)].into()), 10 * 2 * 64 * 64 * 64);
    }
}
