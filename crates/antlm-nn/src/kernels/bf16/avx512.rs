//! Products in bf16 by AVX512-BF16. The right operand is packed in panels of 32 columns, the left one in tiles of 12 rows,
//! both as pairs of neighbours along the inner dimension, which one instruction multiplies and adds.
//!
//! Every entry is the sum over blocks of [`INNER`] in order, and inside a block over pairs in order, wherever it lies and
//! whichever thread makes it: its bits depend neither on the number of threads nor on the other rows and columns.

use std::arch::x86_64::*;
use std::cell::Cell;
use std::mem::transmute;
use std::ops::Range;

use rayon::prelude::*;

use super::super::matmul::{Into, Mat, MatMut, Threads};

/// Rows of a tile: its 12 x 32 sums fill 24 of the 32 registers.
const ROWS: usize = 12;
/// Columns of a panel.
const COLS: usize = 32;
/// Entries of the inner dimension in a block: a panel of it is 32 KiB, the first-level cache.
const INNER: usize = 512;
/// Most rows of a task: its tiles are 240 KiB, which stay in the second-level cache while it goes over the panels.
const TASK: usize = 20 * ROWS;

/// How many rows, or pieces of columns, ahead of those that are packed the processor is told to fetch.
const AHEAD: usize = 4;

/// 16 pairs of bf16 numbers.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; 16]);

thread_local! {
    /// Packed operands, kept from one product to the next. They are taken out while they are used: a thread that waits
    /// for others may begin another product meanwhile.
    static PANELS: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static TILES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// The first `len` lines; what is in them is anybody's guess.
fn room(lines: &mut Vec<Line>, len: usize) -> &mut [Line] {
    if lines.len() < len {
        lines.resize(len, Line([0; 16]));
    }
    &mut lines[..len]
}

/// The result of a product, of which every task writes another part.
#[derive(Clone, Copy)]
struct Destination {
    start: *mut f32,
    stride: usize,
}

// SAFETY: the tasks of a product write to parts that do not overlap (`product`), and nobody reads it meanwhile.
unsafe impl Send for Destination {}
// SAFETY: as above.
unsafe impl Sync for Destination {}

/// `c = a b` or `c += a b`.
///
/// # Panics
/// On a processor that lacks the instructions ([`super::native`]).
pub(super) fn product(c: MatMut<'_>, into: Into, a: Mat<'_>, b: Mat<'_>, threads: Threads) {
    assert!(super::native(), "a processor without bf16");
    let (rows, cols, inner) = (c.rows, c.cols, a.cols);
    assert!(rows == a.rows && cols == b.cols && inner == b.rows, "product of unfit matrices");
    if inner == 0 && into == Into::Write {
        (0..rows).for_each(|i| c.data[i * c.stride..][..cols].fill(0.0));
    }
    let destination = Destination { start: c.data.as_mut_ptr(), stride: c.stride };
    let workers = if threads == Threads::All { rayon::current_num_threads() } else { 1 };
    let (height, width) = cut(rows, cols, workers);
    let across = cols.div_ceil(width);
    let tasks = rows.div_ceil(height) * across;
    let mut kept = PANELS.take();
    for start in (0..inner).step_by(INNER) {
        let block = start..inner.min(start + INNER);
        let pairs = block.len().div_ceil(2);
        let panels = room(&mut kept, cols.div_ceil(COLS) * 2 * pairs);
        // Several panels side by side, as their rows lie side by side, but some for each thread.
        let some = (cols.div_ceil(COLS) / (2 * workers)).clamp(1, 8);
        let pack = |(chunk, lines): (usize, &mut [Line])| {
            let first = chunk * some * COLS;
            let out = lines.as_mut_ptr().cast::<i32>();
            let place = |part: usize| out.wrapping_add(part / 2 * pairs * COLS + part % 2 * 16);
            // SAFETY: the processor has the instructions, and pair by pair there is room for 32 pairs in each panel.
            unsafe { pack(b, block.clone(), first..cols.min(first + some * COLS), 16, place, COLS) }
        };
        if workers == 1 {
            panels.chunks_mut(some * 2 * pairs).enumerate().for_each(pack);
        } else {
            panels.par_chunks_mut(some * 2 * pairs).enumerate().for_each(pack);
        }
        let (panels, add) = (&*panels, into == Into::Add || start > 0);
        let task = |task: usize| {
            let (i, j) = (task / across * height, task % across * width);
            let part = (i..rows.min(i + height), j..cols.min(j + width));
            let mut tiles = TILES.take();
            // SAFETY: the processor has the instructions. The parts lie inside `c` and do not overlap.
            unsafe { multiply(destination, add, part, a, block.clone(), panels, &mut tiles) };
            TILES.set(tiles);
        };
        if workers == 1 {
            (0..tasks).for_each(task);
        } else {
            (0..tasks).into_par_iter().with_max_len(1).for_each(task);
        }
    }
    PANELS.set(kept);
}

/// Rows and columns of a task: as many tasks as keep all workers busy to the end, none with more than [`TASK`] rows.
fn cut(rows: usize, cols: usize, workers: usize) -> (usize, usize) {
    let down = workers * rows.div_ceil(workers * TASK);
    let height = rows.div_ceil(down).next_multiple_of(ROWS);
    let across = workers.div_ceil(rows.div_ceil(height));
    (height, cols.div_ceil(across).next_multiple_of(COLS))
}

/// One part (rows, columns) of the destination, for one block of the inner dimension.
///
/// # Safety
/// The processor must have the instructions, and nobody else may touch the part.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn multiply(
    c: Destination,
    add: bool,
    (rows, cols): (Range<usize>, Range<usize>),
    a: Mat<'_>,
    block: Range<usize>,
    panels: &[Line],
    tiles: &mut Vec<Line>,
) {
    let pairs = block.len().div_ceil(2);
    let tile_len = pairs * ROWS; // numbers of 32 bits
    let tiles = room(tiles, (rows.len().div_ceil(ROWS) * tile_len).div_ceil(16)).as_mut_ptr().cast::<u32>();
    let place = |tile: usize| tiles.wrapping_add(tile * tile_len).cast::<i32>();
    // SAFETY: there is room for all tiles.
    unsafe { pack(a.t(), block.clone(), rows.clone(), ROWS, place, ROWS) };
    for j in cols.clone().step_by(COLS) {
        let panel = panels[j / COLS * 2 * pairs..][..2 * pairs].as_ptr();
        let width = COLS.min(cols.end - j);
        let masks = [0, 16].map(|first| ((1u32 << width.saturating_sub(first).min(16)) - 1) as __mmask16);
        for (tile, i) in rows.clone().step_by(ROWS).enumerate() {
            // SAFETY: the tile was packed above, the panel by the caller.
            let sums = unsafe { tile_product(tiles.add(tile * tile_len), panel, pairs) };
            for (row, sums) in sums.iter().enumerate().take(rows.end - i) {
                for (half, (&sum, &mask)) in sums.iter().zip(&masks).enumerate() {
                    // SAFETY: row and masked columns lie inside the part; what is masked out is not touched, and its
                    // address is not dereferenced (hence `wrapping_add`).
                    unsafe {
                        let place = c.start.wrapping_add((i + row) * c.stride + j + 16 * half);
                        let sum = if add { _mm512_add_ps(_mm512_maskz_loadu_ps(mask, place), sum) } else { sum };
                        _mm512_mask_storeu_ps(place, mask, sum);
                    }
                }
            }
        }
    }
}

/// The product of a packed tile `[pairs, 12]` and a packed panel `[pairs, 32]`.
///
/// # Safety
/// The processor must have the instructions, and both must be as long as that.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
unsafe fn tile_product(tile: *const u32, panel: *const Line, pairs: usize) -> [[__m512; 2]; ROWS] {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for pair in 0..pairs {
        // SAFETY: both are long enough.
        let (left, right): (_, [__m512bh; 2]) = unsafe {
            let line = |half| transmute::<__m512i, __m512bh>(_mm512_load_si512(panel.add(2 * pair + half).cast()));
            (tile.add(pair * ROWS), [line(0), line(1)])
        };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above; any 64 bytes are 32 bf16 numbers.
            let left: __m512bh = unsafe { transmute(_mm512_set1_epi32(left.add(row).read() as i32)) };
            sums[0] = _mm512_dpbf16_ps(sums[0], left, right[0]);
            sums[1] = _mm512_dpbf16_ps(sums[1], left, right[1]);
        }
    }
    sums
}

/// Rounds the rows `block` and the columns `cols` of `from` and writes them as pairs of rows, in parts of `width` (at most
/// 16) columns: pair `p` of a part's column to `place(part)[stride * p + column]`, with columns of 0 up to `width`, and a
/// row of 0 after an odd number of them.
///
/// # Safety
/// The processor must have the instructions, and every place, in numbers of 32 bits, must have room for that.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack(
    from: Mat<'_>,
    block: Range<usize>,
    cols: Range<usize>,
    width: usize,
    place: impl Fn(usize) -> *mut i32,
    stride: usize,
) {
    assert!(cols.end <= from.cols && width <= 16 && block.end <= from.rows);
    let lanes = |count: usize| ((1u32 << count.min(16)) - 1) as __mmask16;
    let all = lanes(width);
    if from.col_stride == 1 {
        for (pair, k) in block.clone().step_by(2).enumerate() {
            for (part, j) in cols.clone().step_by(width).enumerate() {
                let inside = lanes(width.min(cols.end - j));
                // SAFETY: `Mat` holds every entry of these rows and columns; the other lanes are not read.
                unsafe {
                    let row = |k: usize| {
                        let mask = if k < block.end { inside } else { 0 };
                        let row = from.data.as_ptr().wrapping_add(k * from.row_stride + j);
                        _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(AHEAD * from.row_stride).cast());
                        let rounded: __m256i = transmute(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, row)));
                        _mm512_cvtepu16_epi32(rounded)
                    };
                    let pairs = _mm512_or_si512(row(k), _mm512_slli_epi32::<16>(row(k + 1)));
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

/// Rows become columns.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
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
