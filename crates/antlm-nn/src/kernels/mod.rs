//! CPU kernels: plain loops over slices, compiled for AVX-512, AVX2 and the baseline, chosen at run time; products
//! by the `gemm` crate or, in bf16, by tiles of our own. Work is cut into fixed blocks of rows, so results do not depend on the number of threads.

pub mod activation;
pub mod attention;
pub mod bf16;
pub mod classifier;
pub mod dropout;
pub mod lines;
pub mod math;
pub mod matmul;
pub mod norm;
pub mod past;
pub mod rope;
pub mod work;

use rayon::prelude::*;

/// Rows that one task handles. Fixed: sums over rows are made inside blocks first, then over blocks in order.
pub const BLOCK: usize = 64;

/// Runs `f` compiled for the best instruction set of this CPU. `f` itself and everything that it
/// calls must be `#[inline(always)]`, and loops must be `for` loops: what is not inlined is compiled for the baseline.
#[inline(always)]
pub fn dispatch<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Adds the rows of `partials` (`[blocks, cols]`) to `sums` (`[cols]`), in order.
pub fn add_partials(partials: &[f32], sums: &mut [f32]) {
    if sums.is_empty() {
        return;
    }
    for row in partials.chunks_exact(sums.len()) {
        for (s, x) in sums.iter_mut().zip(row) {
            *s += x;
        }
    }
}

/// Adds the column sums of `x` (`[n, cols]`) to `sums` (`[cols]`): the gradient of a bias.
pub fn add_column_sums(x: &[f32], sums: &mut [f32]) {
    let cols = sums.len();
    if cols == 0 || x.is_empty() {
        return;
    }
    let mut partials = vec![0.0; x.len().div_ceil(BLOCK * cols) * cols];
    partials.par_chunks_mut(cols).zip(x.par_chunks(BLOCK * cols)).for_each(|(partial, block)| {
        dispatch(
            #[inline(always)]
            || {
                for row in block.chunks_exact(cols) {
                    for (s, x) in partial.iter_mut().zip(row) {
                        *s += x;
                    }
                }
            },
        );
    });
    add_partials(&partials, sums);
}

/// What a product is added to: each row of `y` becomes `bias`, `residual`'s row, or their sum; without either it stays.
pub fn start_sums(y: &mut [f32], bias: Option<&[f32]>, residual: Option<&[f32]>) {
    const VALUES: usize = 1 << 15;
    let cols = bias.map_or(VALUES, <[f32]>::len).max(1);
    let size = VALUES.next_multiple_of(cols);
    let begin = |(block, y): (usize, &mut [f32])| {
        match (residual, bias) {
            (Some(residual), _) => y.copy_from_slice(&residual[block * size..][..y.len()]),
            (None, Some(bias)) => y.chunks_exact_mut(cols).for_each(|y| y.copy_from_slice(bias)),
            (None, None) => {}
        }
        if let (Some(_), Some(bias)) = (residual, bias) {
            y.chunks_exact_mut(cols).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
    };
    if bias.or(residual).is_some() {
        y.par_chunks_mut(size).enumerate().for_each(begin);
    }
}

/// Sets everything to 0.
pub fn clear(x: &mut [f32]) {
    x.par_chunks_mut(1 << 20).for_each(|x| x.fill(0.0));
}

/// Adds `x` to `y`, element by element.
pub fn add_assign(y: &mut [f32], x: &[f32]) {
    const CHUNK: usize = 1 << 15;
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        dispatch(
            #[inline(always)]
            || {
                for (y, x) in y.iter_mut().zip(x) {
                    *y += x;
                }
            },
        );
    });
}
