//! Products in bf16 by AVX512-BF16. The right operand is packed in panels of 32 columns, the left one in tiles of 12 rows,
//! both pair by pair; inside a block of the inner dimension an entry is the sum over pairs in order.

use std::arch::x86_64::*;
use std::mem::transmute;
use std::ops::Range;

use super::super::matmul::Mat;
use super::blocks::{COLS, Kernel, Line, Part, room};
use super::pack::{lanes, pack_pairs};

/// Rows of a tile: its 12 x 32 sums fill 24 of the 32 registers.
const ROWS: usize = 12;

/// The instructions.
pub(super) struct Avx512;

impl Kernel for Avx512 {
    /// A panel of it is 32 KiB, the first-level cache.
    const INNER: usize = 512;
    const ROWS: usize = ROWS;
    /// Its tiles are 240 KiB.
    const TASK: usize = 20 * ROWS;

    fn panel(len: usize) -> usize {
        2 * len.div_ceil(2)
    }

    unsafe fn pack_panels(b: Mat<'_>, block: Range<usize>, cols: Range<usize>, panels: *mut Line) {
        let (pairs, out) = (block.len().div_ceil(2), panels.cast::<i32>());
        let place = |part: usize| out.wrapping_add(part / 2 * pairs * COLS + part % 2 * 16);
        // SAFETY: as the trait says; pair by pair there is room for 32 pairs in each panel.
        unsafe { pack_pairs(b, block, cols, 16, place, COLS) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn multiply(part: Part<'_>, tiles: &mut Vec<Line>) {
        let Part { c, add, rows, cols, a, block, panels } = part;
        let pairs = block.len().div_ceil(2);
        let tile_len = pairs * ROWS; // numbers of 32 bits
        let tiles = room(tiles, (rows.len().div_ceil(ROWS) * tile_len).div_ceil(16)).as_mut_ptr().cast::<u32>();
        let place = |tile: usize| tiles.wrapping_add(tile * tile_len).cast::<i32>();
        // SAFETY: there is room for all tiles.
        unsafe { pack_pairs(a.t(), block.clone(), rows.clone(), ROWS, place, ROWS) };
        for j in cols.clone().step_by(COLS) {
            let panel = panels[j / COLS * 2 * pairs..][..2 * pairs].as_ptr();
            let width = COLS.min(cols.end - j);
            let masks = [0, 16].map(|first| lanes(width.saturating_sub(first)));
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
