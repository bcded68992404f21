//! Products of operands rounded to bf16, summed in f32: by AVX512-BF16 where the processor has it, otherwise by rounding
//! the operands and multiplying in f32. The two differ in the order of their sums, so they have different names.

use std::cell::Cell;

use rayon::prelude::*;

use super::matmul::{Into, Mat, MatMut, Threads, multiply};

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
mod tests;

/// Whether this processor multiplies bf16 numbers itself.
pub fn native() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The name of the arithmetic that products in bf16 have on this processor: those of another name have other bits.
pub fn arithmetic() -> &'static str {
    if native() { "bf16-avx512" } else { "bf16-f32" }
}

/// The number of 8 significant bits next to `x`, of two the even one; NaN stays NaN.
#[inline(always)]
pub fn round(x: f32) -> f32 {
    let bits = x.to_bits();
    let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    f32::from_bits(if x.is_nan() { bits | 0x40_0000 } else { up })
}

/// `c = a b` or `c += a b`, with both operands rounded.
pub(super) fn product(c: MatMut<'_>, into: Into, a: Mat<'_>, b: Mat<'_>, threads: Threads) {
    #[cfg(target_arch = "x86_64")]
    if native() {
        return avx512::product(c, into, a, b, threads);
    }
    by_f32(c, into, a, b, threads);
}

thread_local! {
    /// The rounded operands, kept from one product to the next. They are taken out while they are used: a thread that
    /// waits for others may begin another product meanwhile.
    static ROUNDED: Cell<[Vec<f32>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

/// The same on a processor without bf16.
fn by_f32(c: MatMut<'_>, into: Into, a: Mat<'_>, b: Mat<'_>, threads: Threads) {
    let [mut first, mut second] = ROUNDED.take();
    multiply(c, into, rounded(&mut first, a, threads), rounded(&mut second, b, threads), threads);
    ROUNDED.set([first, second]);
}

/// A dense copy of a matrix in bf16, which lies transposed if that one does.
fn rounded<'a>(into: &'a mut Vec<f32>, from: Mat<'_>, threads: Threads) -> Mat<'a> {
    let transposed = from.row_stride == 1 && from.col_stride != 1;
    let lying = if transposed { from.t() } else { from };
    into.resize(lying.rows * lying.cols, 0.0);
    if lying.cols > 0 {
        let row = |(i, into): (usize, &mut [f32])| {
            let from = &lying.data[i * lying.row_stride..][..lying.cols];
            into.iter_mut().zip(from).for_each(|(y, &x)| *y = round(x));
        };
        match threads {
            Threads::One => into.chunks_exact_mut(lying.cols).enumerate().for_each(row),
            Threads::All => into.par_chunks_exact_mut(lying.cols).enumerate().for_each(row),
        }
    }
    let copy = Mat::new(into, lying.rows, lying.cols);
    if transposed { copy.t() } else { copy }
}
