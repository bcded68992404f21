//! Rounding f32 operands to bf16 and laying them out for the instructions that multiply: as pairs of neighbours along the
//! inner dimension, by pair ([`pack_pairs`]) or by row ([`pack_rows`]).

use std::arch::x86_64::*;
use std::mem::transmute;
use std::ops::Range;

use super::super::matmul::Mat;

/// How many rows, or pieces of columns, ahead of those that are packed the processor is told to fetch.
const AHEAD: usize = 4;

/// The lowest `count` of 16 lanes.
pub(super) fn lanes(count: usize) -> __mmask16 {
    ((1u32 << count.min(16)) - 1) as __mmask16
}

/// Rounds the rows `block` and the columns `cols` of `from` and writes them as pairs of rows, in parts of `width` (at most
/// 16) columns: pair `p` of a part's column to `place(part)[stride * p + column]`, with columns of 0 up to `width`, and a
/// row of 0 after an odd number of them.
///
/// # Safety
/// The processor must have the instructions, and every place, in numbers of 32 bits, must have room for that.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack_pairs(
    from: Mat<'_>,
    block: Range<usize>,
    cols: Range<usize>,
    width: usize,
    place: impl Fn(usize) -> *mut i32,
    stride: usize,
) {
    assert!(cols.end <= from.cols && width <= 16 && block.end <= from.rows);
    let all = lanes(width);
    if from.col_stride == 1 {
        for (pair, k) in block.clone().step_by(2).enumerate() {
            for (part, j) in cols.clone().step_by(width).enumerate() {
                let inside = lanes(width.min(cols.end - j));
                // SAFETY: `Mat` holds every entry of these rows and columns; there is room for these pairs (the caller).
                unsafe {
                    let pairs = pair_of_rows(from, k, block.end, j, inside);
                    _mm512_mask_storeu_epi32(place(part).add(stride * pair), all, pairs);
                }
            }
        }
        return;
    }
    assert!(from.row_stride == 1, "a matrix whose rows and columns both lie apart");
    for (part, j) in cols.clone().step_by(width).enumerate() {
        let (columns, out) = (j..cols.end.min(j + width), place(part));
        for (group, k) in block.clone().step_by(32).enumerate() {
            let (first, second) = (lanes(block.end - k), lanes((block.end - k).saturating_sub(16)));
            let mut lines = [_mm512_setzero_si512(); 16]; // of each column 16 pairs
            for (line, j) in lines.iter_mut().zip(columns.clone()) {
                // SAFETY: `Mat` holds every entry of these rows and columns; the other lanes are not read.
                *line = unsafe {
                    let start = from.data.as_ptr().wrapping_add(j * from.col_stride + k);
                    _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(32 * AHEAD).cast());
                    _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(32 * AHEAD + 16).cast());
                    let low = _mm512_maskz_loadu_ps(first, start);
                    let high = _mm512_maskz_loadu_ps(second, start.wrapping_add(16));
                    transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
                };
            }
            let pairs = (block.end - k).div_ceil(2).min(16);
            for (pair, line) in transpose(lines).into_iter().enumerate().take(pairs) {
                // SAFETY: there is room for these pairs (the caller).
                unsafe { _mm512_mask_storeu_epi32(out.add(stride * (16 * group + pair)), all, line) };
            }
        }
    }
}

/// Rounds the rows `rows` of `from` at the columns `block` and writes them in tiles of 16 rows: row `i` of a tile's step `s`,
/// which is 32 columns, to `tiles[16 * (16 * (steps * tile + s) + i)..]` as 16 numbers of 32 bits. Columns are 0 up to whole
/// steps; rows of a last, shorter tile stay what they are or become 0.
///
/// # Safety
/// The processor must have the instructions, and there must be room for whole tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack_rows(from: Mat<'_>, rows: Range<usize>, block: Range<usize>, tiles: *mut i32) {
    assert!(rows.end <= from.rows && block.end <= from.cols);
    let steps = block.len().div_ceil(32);
    let place = |tile: usize, step: usize, row: usize| tiles.wrapping_add(16 * (16 * (steps * tile + step) + row));
    if from.col_stride == 1 {
        for (row, i) in rows.enumerate() {
            for (step, k) in block.clone().step_by(32).enumerate() {
                let (first, second) = (lanes(block.end - k), lanes((block.end - k).saturating_sub(16)));
                // SAFETY: `Mat` holds every entry of these rows and columns; the other lanes are not read.
                unsafe {
                    let start = from.data.as_ptr().wrapping_add(i * from.row_stride + k);
                    let low = _mm512_maskz_loadu_ps(first, start);
                    let high = _mm512_maskz_loadu_ps(second, start.wrapping_add(16));
                    let line = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                    _mm512_storeu_si512(place(row / 16, step, row % 16).cast(), line);
                }
            }
        }
        return;
    }
    assert!(from.row_stride == 1, "a matrix whose rows and columns both lie apart");
    for (step, k) in block.clone().step_by(32).enumerate() {
        for (tile, i) in rows.clone().step_by(16).enumerate() {
            let inside = lanes(rows.end - i);
            let mut pairs = [_mm512_setzero_si512(); 16]; // of each pair 16 rows
            for (pair, line) in pairs.iter_mut().enumerate() {
                // SAFETY: `Mat` holds every entry of these rows and columns; the other lanes are not read.
                *line = unsafe { pair_of_rows(from.t(), k + 2 * pair, block.end, i, inside) };
            }
            for (row, line) in transpose(pairs).into_iter().enumerate() {
                // SAFETY: there is room for whole tiles (the caller).
                unsafe { _mm512_storeu_si512(place(tile, step, row).cast(), line) };
            }
        }
    }
}

/// 16 columns from `j` of the rows `k` and `k + 1`, as pairs; rows from `end` on are 0.
///
/// # Safety
/// `from` must have the rows below `end` at the columns that are `inside`, and columns must lie side by side.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
unsafe fn pair_of_rows(from: Mat<'_>, k: usize, end: usize, j: usize, inside: __mmask16) -> __m512i {
    let row = |k: usize| {
        let mask = if k < end { inside } else { 0 };
        // SAFETY: as the caller says; the lanes that are masked out are not read.
        unsafe {
            let row = from.data.as_ptr().wrapping_add(k * from.row_stride + j);
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(AHEAD * from.row_stride).cast());
            let rounded: __m256i = transmute(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, row)));
            _mm512_cvtepu16_epi32(rounded)
        }
    };
    _mm512_or_si512(row(k), _mm512_slli_epi32::<16>(row(k + 1)))
}

/// Rows become columns.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut two = rows;
    for i in (0..16).step_by(2) {
        two[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        two[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    let mut four = two; // [4 i + j]: in its quarter q, rows 4 i.. of column 4 q + j
    for i in (0..16).step_by(4) {
        four[i] = _mm512_unpacklo_epi64(two[i], two[i + 2]);
        four[i + 1] = _mm512_unpackhi_epi64(two[i], two[i + 2]);
        four[i + 2] = _mm512_unpacklo_epi64(two[i + 1], two[i + 3]);
        four[i + 3] = _mm512_unpackhi_epi64(two[i + 1], two[i + 3]);
    }
    let mut columns = four;
    for j in 0..4 {
        let even = |i: usize| _mm512_shuffle_i32x4::<0x88>(four[i + j], four[i + 4 + j]);
        let odd = |i: usize| _mm512_shuffle_i32x4::<0xdd>(four[i + j], four[i + 4 + j]);
        columns[j] = _mm512_shuffle_i32x4::<0x88>(even(0), even(8));
        columns[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd(0), odd(8));
        columns[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even(0), even(8));
        columns[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd(0), odd(8));
    }
    columns
}
