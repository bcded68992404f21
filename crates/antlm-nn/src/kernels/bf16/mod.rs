//! Products of operands rounded to bf16, summed in f32: by AMX or AVX512-BF16 where the processor has them, otherwise by
//! rounding the operands and multiplying in f32. They differ in the order of their sums, so they have different names.

use std::cell::Cell;

use rayon::prelude::*;

use super::matmul::{Into, Mat, MatMut, Threads, multiply};

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(test)]
mod tests;

/// What multiplies bf16 numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Tiles of 16 x 16 sums.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// Vectors of 16 sums.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// f32 arithmetic, with rounded operands.
    F32,
}

impl Way {
    /// All of them, the quickest first.
    #[cfg(target_arch = "x86_64")]
    const ALL: &[Way] = &[Way::Amx, Way::Avx512, Way::F32];
    #[cfg(not(target_arch = "x86_64"))]
    const ALL: &[Way] = &[Way::F32];

    /// Those of this processor.
    fn here() -> impl Iterator<Item = Way> {
        Way::ALL.iter().copied().filter(|way| way.works())
    }

    /// Whether this processor has it.
    fn works(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Way::Amx => amx::available(),
            #[cfg(target_arch = "x86_64")]
            Way::Avx512 => avx512(),
            Way::F32 => true,
        }
    }
}

/// The quickest way of this processor.
fn way() -> Way {
    Way::here().next().unwrap_or(Way::F32)
}

/// Whether this processor has AVX512-BF16.
#[cfg(target_arch = "x86_64")]
fn avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// Whether bf16 is the quicker number here. By AVX512-BF16 it is not on Intel's processors (docs/performance.md).
pub fn quicker() -> bool {
    match way() {
        #[cfg(target_arch = "x86_64")]
        Way::Amx => true,
        // "Genu", the first four letters of Intel's name.
        #[cfg(target_arch = "x86_64")]
        Way::Avx512 => std::arch::x86_64::__cpuid(0).ebx != u32::from_le_bytes(*b"Genu"),
        Way::F32 => false,
    }
}

/// The name of the arithmetic that products in bf16 have on this processor: those of another name have other bits.
pub fn arithmetic() -> &'static str {
    match way() {
        #[cfg(target_arch = "x86_64")]
        Way::Amx => "bf16-amx",
        #[cfg(target_arch = "x86_64")]
        Way::Avx512 => "bf16-avx512",
        Way::F32 => "bf16-f32",
    }
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
    product_by(way(), c, into, a, b, threads);
}

/// The same in one way.
///
/// # Panics
/// When this processor lacks it.
fn product_by(way: Way, c: MatMut<'_>, into: Into, a: Mat<'_>, b: Mat<'_>, threads: Threads) {
    assert!(way.works(), "a processor without {way:?}");
    match way {
        // SAFETY: the processor has the instructions (above).
        #[cfg(target_arch = "x86_64")]
        Way::Amx => unsafe { blocks::product::<amx::Amx>(c, into, a, b, threads) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Way::Avx512 => unsafe { blocks::product::<avx512::Avx512>(c, into, a, b, threads) },
        Way::F32 => by_f32(c, into, a, b, threads),
    }
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
