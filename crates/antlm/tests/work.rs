//! How much work a training step is: the products that it makes, and what it allocates, held against `work.json`. Time
//! says little on machines that others use; these numbers say the same everywhere, and a change that makes steps dearer
//! has to say so.

use std::collections::BTreeMap;
use std::path::Path;

use allocation_counter::measure;
use antlm::bench::{Options, Steps};
use antlm::objective::Objective;
use antlm::recipe::{Precision, Recipe};
use antlm_nn::kernels::matmul::{Into, Mat, MatMut, Threads, matmul};
use antlm_nn::kernels::work::{Product, products};
use serde::{Deserialize, Serialize};

/// What one step costs.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Work {
    /// Multiplications and additions of all products.
    operations: u64,
    /// Bytes of their operands and results, each counted once a product.
    bytes: u64,
    /// Products.
    products: u64,
    /// Allocations, once the buffers of earlier steps are there. Those inside products are not counted: the library makes
    /// more or fewer on other processors.
    allocations: u64,
}

impl Work {
    fn numbers(&self) -> [(&'static str, u64); 4] {
        let Work { operations, bytes, products, allocations } = *self;
        [("operations", operations), ("bytes", bytes), ("products", products), ("allocations", allocations)]
    }
}

/// The third step: by then all buffers are there.
fn work(recipe: &str, objective: Objective) -> Work {
    let recipe = Recipe::load(recipe, &[]).unwrap();
    let mut steps =
        Steps::new(&recipe, Options { objective, batch: 4, seq: 64, steps: 0, precision: Precision::F32 }).unwrap();
    steps.step().unwrap();
    steps.step().unwrap();
    let (_, found) = products(|| steps.step().unwrap());
    let allocated = measure(|| {
        steps.step().unwrap();
    });
    let sum = |of: &dyn Fn(&Product) -> u64| found.iter().map(|(p, n)| of(p) * n).sum::<u64>();
    Work {
        operations: sum(&|p| p.operations()),
        bytes: sum(&|p| p.bytes()),
        products: sum(&|_| 1),
        allocations: allocated.count_total - sum(&inside),
    }
}

/// Allocations of one such product by itself.
fn inside(product: &Product) -> u64 {
    let &Product { rows, cols, inner, left_transposed, right_transposed, spread, precision } = product;
    let (left, right, mut result) = (vec![1.0; rows * inner], vec![1.0; inner * cols], vec![0.0; rows * cols]);
    let a = if left_transposed { Mat::new(&left, inner, rows).t() } else { Mat::new(&left, rows, inner) };
    let b = if right_transposed { Mat::new(&right, cols, inner).t() } else { Mat::new(&right, inner, cols) };
    let threads = if spread { Threads::All } else { Threads::One };
    let mut multiply = || matmul(MatMut::new(&mut result, rows, cols), Into::Write, precision, a, b, threads);
    multiply();
    measure(multiply).count_total
}

/// Growth or fall of over 5 % fails. `ANTLM_RECORD=1 cargo test -p antlm --test work` writes the numbers anew; the
/// commit that does so says why.
#[test]
fn a_step_is_as_much_work_as_recorded() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/work.json");
    // The counter sees the thread that asks.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let found: BTreeMap<String, Work> = pool.install(|| {
        let cells = ["ltg-bert-tiny", "babyllama-tiny"].into_iter().flat_map(|recipe| {
            [Objective::Clm, Objective::Mlm].map(|objective| (format!("{recipe} {objective}"), work(recipe, objective)))
        });
        cells.collect()
    });
    if std::env::var_os("ANTLM_RECORD").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
    }
    let recorded: BTreeMap<String, Work> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(found.keys().eq(recorded.keys()));
    for (cell, work) in &found {
        for ((what, now), (_, then)) in work.numbers().into_iter().zip(recorded[cell].numbers()) {
            let share = now as f64 / then as f64;
            assert!((0.95..=1.05).contains(&share), "{cell}: {now} {what} a step, {then} recorded");
        }
    }
}
