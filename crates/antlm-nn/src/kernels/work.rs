//! Which products a piece of work consists of: what it must cost at the least, whatever machine it runs on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::matmul::Precision;

/// The shape of a product `[rows, inner] x [inner, cols]`, and how it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Product {
    /// Rows of the result.
    pub rows: usize,
    /// Columns of the result.
    pub cols: usize,
    /// What is summed over.
    pub inner: usize,
    /// The left matrix lies transposed in memory.
    pub left_transposed: bool,
    /// The right matrix lies transposed in memory.
    pub right_transposed: bool,
    /// It runs on all threads; otherwise several run side by side.
    pub spread: bool,
    /// In which numbers.
    pub precision: Precision,
}

impl Product {
    /// Multiplications and additions.
    pub fn operations(&self) -> u64 {
        2 * self.rows as u64 * self.cols as u64 * self.inner as u64
    }

    /// Bytes of the two operands and of the result, each once.
    pub fn bytes(&self) -> u64 {
        4 * (self.rows * self.inner + self.inner * self.cols + self.rows * self.cols) as u64
    }
}

/// Products, and how often each was made.
pub type Products = BTreeMap<Product, u64>;

static ON: AtomicBool = AtomicBool::new(false);
static FOUND: Mutex<Products> = Mutex::new(Products::new());

/// Notes a product, if anybody asked.
pub(super) fn note(product: Product) {
    if ON.load(Ordering::Relaxed) {
        *FOUND.lock().unwrap_or_else(PoisonError::into_inner).entry(product).or_default() += 1;
    }
}

/// Runs `work` and says which products the process made meanwhile, those of other threads included: nothing else may
/// run.
///
/// ```
/// use antlm_nn::kernels::{matmul::*, work::products};
/// let (a, b, mut c) = ([1.0; 6], [2.0; 12], [0.0; 8]);
/// let multiply = || matmul(MatMut::new(&mut c, 2, 4), Into::Write, Precision::F32, Mat::new(&a, 2, 3), Mat::new(&b, 3, 4), Threads::One);
/// let ((), found) = products(multiply);
/// let (product, times) = found.first_key_value().unwrap();
/// assert_eq!((product.operations(), product.bytes(), *times), (48, 4 * (6 + 12 + 8), 1));
/// ```
pub fn products<R>(work: impl FnOnce() -> R) -> (R, Products) {
    let take = || std::mem::take(&mut *FOUND.lock().unwrap_or_else(PoisonError::into_inner));
    take();
    ON.store(true, Ordering::Relaxed);
    let result = work();
    ON.store(false, Ordering::Relaxed);
    (result, take())
}
