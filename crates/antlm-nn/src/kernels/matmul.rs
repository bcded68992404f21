//! Products of matrices inside flat slices: in f32 by the `gemm` crate, in bf16 by [`super::bf16`]. Both cut work over
//! rows and columns only, never over the inner dimension, so that the bits do not depend on the number of threads.

use super::bf16;
use super::work::{self, Product};

/// A matrix inside a slice: entry (i, j) lies at `offset + i * row_stride + j * col_stride`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A row-major matrix of `rows` x `cols` whose rows lie `stride` apart.
    ///
    /// # Panics
    /// When the slice is too short: callers have checked shapes before.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Mat<'a> {
        assert!(fits(data.len(), rows, cols, stride), "matrix outside its slice");
        Mat { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// A dense row-major matrix.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Mat<'a> {
        Mat::strided(data, rows, cols, cols)
    }

    /// The transposed matrix; nothing moves.
    pub fn t(self) -> Mat<'a> {
        Mat { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// Where a product goes: rows of `cols` values, `stride` apart.
#[derive(Debug)]
pub struct MatMut<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
}

impl<'a> MatMut<'a> {
    /// A row-major matrix of `rows` x `cols` whose rows lie `stride` apart.
    ///
    /// # Panics
    /// When the slice is too short: callers have checked shapes before.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> MatMut<'a> {
        assert!(fits(data.len(), rows, cols, stride), "matrix outside its slice");
        assert!(stride >= cols, "overlapping rows");
        MatMut { data, rows, cols, stride }
    }

    /// A dense row-major matrix.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> MatMut<'a> {
        MatMut::strided(data, rows, cols, cols)
    }
}

/// Whether all entries of such a matrix lie in a slice of this length, also where a product is too large for a `usize`.
fn fits(len: usize, rows: usize, cols: usize, stride: usize) -> bool {
    let end = || (rows - 1).checked_mul(stride)?.checked_add(cols);
    rows == 0 || cols == 0 || end().is_some_and(|end| end <= len)
}

/// What happens to the values that are in the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// They are overwritten.
    Write,
    /// The product is added to them.
    Add,
}

/// On how many threads a product runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// On the calling one: inside tasks that already run side by side.
    One,
    /// On all of the current rayon pool.
    All,
}

/// The numbers that are multiplied; sums are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// The operands as they are.
    #[default]
    F32,
    /// The operands rounded to bf16, to nearest even.
    Bf16,
}

/// `c = a b` or `c += a b`.
///
/// # Panics
/// When shapes do not fit: callers have checked them before.
pub fn matmul(c: MatMut<'_>, into: Into, precision: Precision, a: Mat<'_>, b: Mat<'_>, threads: Threads) {
    assert!(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows, "product of unfit matrices");
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    work::note(Product {
        rows: c.rows,
        cols: c.cols,
        inner: a.cols,
        left_transposed: a.col_stride != 1,
        right_transposed: b.col_stride != 1,
        spread: threads == Threads::All,
        precision,
    });
    match precision {
        Precision::F32 => multiply(c, into, a, b, threads),
        Precision::Bf16 => bf16::product(c, into, a, b, threads),
    }
}

/// The product in f32 of matrices that fit each other.
pub(super) fn multiply(c: MatMut<'_>, into: Into, a: Mat<'_>, b: Mat<'_>, threads: Threads) {
    assert!(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows, "product of unfit matrices");
    let parallelism = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::All if rayon::current_num_threads() == 1 => gemm::Parallelism::None,
        Threads::All => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: the three matrices lie inside their slices (`fits`, where they were made; `t` exchanges rows and columns
    // together with their strides, and so means the same entries), and their shapes fit each other (above). Strides are
    // at most the slices' lengths where there is more than one row, so they are far from overflowing an isize; with one
    // row they are multiplied by 0. The destination's rows do not overlap each other (`stride >= cols`), and as it is
    // borrowed mutably it is apart from the sources. All of it is initialised, and any bits are an f32.
    unsafe {
        gemm::gemm(
            c.rows,
            c.cols,
            a.cols,
            c.data.as_mut_ptr(),
            1,
            c.stride as isize,
            into == Into::Add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(len: usize, seed: u32) -> Vec<f32> {
        (0..len)
            .map(|i| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 8_388_608.0 - 1.0)
            .collect()
    }

    fn on<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
    }

    #[test]
    fn no_matrix_reaches_outside_its_slice() {
        for (rows, cols, stride, inside) in [
            (2, 3, 4, true),
            (2, 3, 5, false),
            (0, usize::MAX, usize::MAX, true),
            (1, 7, usize::MAX, true),
            (3, 1, 1 << 63, false), // twice that is 0 for a usize
            (usize::MAX, 1, 1, false),
            (2, usize::MAX, 1, false),
        ] {
            assert_eq!(fits(7, rows, cols, stride), inside, "{rows} {cols} {stride}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn equals_the_slow_product_for_any_number_of_threads(
            (m, n, k) in (1usize..130, 1usize..200, 0usize..150), ta: bool, tb: bool, add: bool
        ) {
            let (a, b, start) = (values(m * k, 1), values(k * n, 2), values(m * n, 3));
            let run = |threads| on(threads, || {
                let mut c = start.clone();
                let am = if ta { Mat::new(&a, k, m).t() } else { Mat::new(&a, m, k) };
                let bm = if tb { Mat::new(&b, n, k).t() } else { Mat::new(&b, k, n) };
                let into = if add { Into::Add } else { Into::Write };
                matmul(MatMut::new(&mut c, m, n), into, Precision::F32, am, bm, Threads::All);
                c
            });
            let one = run(1);
            prop_assert_eq!(&one, &run(2));
            prop_assert_eq!(&one, &run(3));
            for i in 0..m {
                for j in 0..n {
                    let entry = |l: usize| {
                        f64::from(if ta { a[l * m + i] } else { a[i * k + l] }) * f64::from(if tb { b[j * k + l] } else { b[l * n + j] })
                    };
                    let before = if add { f64::from(start[i * n + j]) } else { 0.0 };
                    let want = before + (0..k).map(entry).sum::<f64>();
                    // Each of k + 1 additions is off by at most 2^-24 of a sum that is at most this large.
                    let largest = before.abs() + (0..k).map(|l| entry(l).abs()).sum::<f64>();
                    let off = (f64::from(one[i * n + j]) - want).abs();
                    prop_assert!(off <= (k + 2) as f64 * 2f64.powi(-24) * largest, "{} {}", one[i * n + j], want);
                }
            }
        }
    }

    #[test]
    fn large_products_have_equal_bits_on_any_number_of_threads() {
        let (m, n, k) = (515, 387, 700);
        let (a, b) = (values(m * k, 1), values(k * n, 2));
        let run = |threads| {
            on(threads, || {
                let mut c = vec![0.0; m * n];
                matmul(
                    MatMut::new(&mut c, m, n),
                    Into::Write,
                    Precision::F32,
                    Mat::new(&a, m, k),
                    Mat::new(&b, n, k).t(),
                    Threads::All,
                );
                c
            })
        };
        let one = run(1);
        assert!((2..=5).all(|threads| run(threads) == one));
    }
}
