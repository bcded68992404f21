//! How a product in bf16 is cut into blocks, panels and tasks, whatever instructions then multiply them: the right operand is packed
//! in panels of [`COLS`] columns, the left one, by each task for itself, in tiles of rows.
//!
//! Every entry is made over blocks of [`Kernel::INNER`] in order, wherever it lies and whichever thread makes it: its
//! bits depend neither on the number of threads nor on the other rows and columns.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::super::matmul::{Into, Mat, MatMut, Threads};

/// 16 pairs of bf16 numbers: neighbours along the inner dimension, which one instruction multiplies and adds.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([u32; 16]);

/// Columns of a panel: two lines of a pair each.
pub(super) const COLS: usize = 32;

/// Packs the operands of a block of the inner dimension, and multiplies them.
pub(super) trait Kernel {
    /// Entries of the inner dimension in a block.
    const INNER: usize;
    /// Rows that are multiplied together: a task has a multiple of them, the last one what is left.
    const ROWS: usize;
    /// Most rows of a task: a multiple of [`Kernel::ROWS`] that stays in the second-level cache while it goes over the panels.
    const TASK: usize;

    /// How many lines a panel takes whose block has `len` entries.
    fn panel(len: usize) -> usize;

    /// Packs the rows `block` and the columns `cols`, which begin a panel, into panels.
    ///
    /// # Safety
    /// The processor must have the instructions, and there must be room for every panel.
    unsafe fn pack_panels(b: Mat<'_>, block: Range<usize>, cols: Range<usize>, panels: *mut Line);

    /// Makes a part of the destination; `tiles` is room for the packed left operand.
    ///
    /// # Safety
    /// The processor must have the instructions, and nobody else may touch the part.
    unsafe fn multiply(part: Part<'_>, tiles: &mut Vec<Line>);
}

/// Some rows and columns of the destination, and the operands of one block of the inner dimension.
pub(super) struct Part<'a> {
    pub(super) c: Destination,
    /// Whether the products are added to what is there.
    pub(super) add: bool,
    pub(super) rows: Range<usize>,
    pub(super) cols: Range<usize>,
    pub(super) a: Mat<'a>,
    pub(super) block: Range<usize>,
    /// Those of all columns.
    pub(super) panels: &'a [Line],
}

thread_local! {
    /// Packed operands, kept from one product to the next. They are taken out while they are used: a thread that waits
    /// for others may begin another product meanwhile.
    static PANELS: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static TILES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// The first `len` lines; what is in them is anybody's guess.
pub(super) fn room(lines: &mut Vec<Line>, len: usize) -> &mut [Line] {
    if lines.len() < len {
        lines.resize(len, Line([0; 16]));
    }
    &mut lines[..len]
}

/// The result of a product, of which every task writes another part.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    pub(super) start: *mut f32,
    /// Values from one row to the next.
    pub(super) stride: usize,
}

// SAFETY: the tasks of a product write to parts that do not overlap (`product`), and nobody reads it meanwhile.
unsafe impl Send for Destination {}
// SAFETY: as above.
unsafe impl Sync for Destination {}

/// `c = a b` or `c += a b`.
///
/// # Safety
/// The processor must have the kernel's instructions.
pub(super) unsafe fn product<K: Kernel>(c: MatMut<'_>, into: Into, a: Mat<'_>, b: Mat<'_>, threads: Threads) {
    let (rows, cols, inner) = (c.rows, c.cols, a.cols);
    assert!(rows == a.rows && cols == b.cols && inner == b.rows, "product of unfit matrices");
    if inner == 0 && into == Into::Write {
        (0..rows).for_each(|i| c.data[i * c.stride..][..cols].fill(0.0));
    }
    let destination = Destination { start: c.data.as_mut_ptr(), stride: c.stride };
    let workers = if threads == Threads::All { rayon::current_num_threads() } else { 1 };
    let (height, width) = cut::<K>(rows, cols, workers);
    let across = cols.div_ceil(width);
    let tasks = rows.div_ceil(height) * across;
    let mut kept = PANELS.take();
    for start in (0..inner).step_by(K::INNER) {
        let block = start..inner.min(start + K::INNER);
        let panel = K::panel(block.len());
        let panels = room(&mut kept, cols.div_ceil(COLS) * panel);
        // Several panels side by side, as their rows lie side by side, but some for each thread.
        let some = (cols.div_ceil(COLS) / (2 * workers)).clamp(1, 8);
        let pack = |(chunk, lines): (usize, &mut [Line])| {
            let first = chunk * some * COLS;
            // SAFETY: the processor has the instructions (the caller), and there is room for these panels.
            unsafe { K::pack_panels(b, block.clone(), first..cols.min(first + some * COLS), lines.as_mut_ptr()) }
        };
        if workers == 1 {
            panels.chunks_mut(some * panel).enumerate().for_each(pack);
        } else {
            panels.par_chunks_mut(some * panel).enumerate().for_each(pack);
        }
        let (panels, add) = (&*panels, into == Into::Add || start > 0);
        let task = |task: usize| {
            let (i, j) = (task / across * height, task % across * width);
            let (rows, cols) = (i..rows.min(i + height), j..cols.min(j + width));
            let part = Part { c: destination, add, rows, cols, a, block: block.clone(), panels };
            let mut tiles = TILES.take();
            // SAFETY: the processor has the instructions. The parts lie inside `c` and do not overlap.
            unsafe { K::multiply(part, &mut tiles) };
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

/// Rows and columns of a task: as many tasks as keep all workers busy to the end, none with more than [`Kernel::TASK`] rows.
fn cut<K: Kernel>(rows: usize, cols: usize, workers: usize) -> (usize, usize) {
    let down = workers * rows.div_ceil(workers * K::TASK);
    let height = rows.div_ceil(down).next_multiple_of(K::ROWS);
    let across = workers.div_ceil(rows.div_ceil(height));
    (height, cols.div_ceil(across).next_multiple_of(COLS))
}
