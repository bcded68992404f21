//! Products in bf16 by AMX, whose registers are tiles of 16 rows of 16 pairs. The right operand is packed in panels of two
//! such columns, the left one in tiles of rows, and 2 x 2 tiles of sums are made together.
//!
//! An entry begins with what is there, or 0, and steps of 32 along the inner dimension are added in order; a step's own sum is
//! the processor's.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::ops::Range;
use std::sync::OnceLock;

use super::super::matmul::Mat;
use super::blocks::{COLS, Kernel, Line, Part, room};
use super::pack::{pack_pairs, pack_rows};

/// Rows of a tile.
const TILE: usize = 16;
/// Pairs of the inner dimension that one instruction multiplies.
const STEP: usize = 16;
/// Rows that are multiplied together: two tiles.
const ROWS: usize = 2 * TILE;

/// Whether this processor has the instructions, and this process may use their registers.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    // The manual's bits (Intel, Architecture Instruction Set Extensions, CPUID leaf 7): AMX-BF16 and AMX-TILE.
    *AVAILABLE.get_or_init(|| {
        super::avx512() && __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx >> 22 & 0b101 == 0b101 && permitted()
    })
}

/// Asks the kernel for the tile registers: 8 KiB more of state for each thread that uses them.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// As how many pairs a block of `len` entries is packed.
fn pairs(len: usize) -> usize {
    len.div_ceil(2).next_multiple_of(STEP)
}

/// The instructions.
pub(super) struct Amx;

impl Kernel for Amx {
    /// A panel of it is 64 KiB.
    const INNER: usize = 1024;
    const ROWS: usize = ROWS;
    /// Its tiles are 512 KiB.
    const TASK: usize = 256;

    fn panel(len: usize) -> usize {
        2 * pairs(len)
    }

    unsafe fn pack_panels(b: Mat<'_>, block: Range<usize>, cols: Range<usize>, panels: *mut Line) {
        let (pairs, packed, parts) = (pairs(block.len()), block.len().div_ceil(2), cols.len().div_ceil(16));
        let place = |part: usize| panels.cast::<i32>().wrapping_add(part * pairs * 16);
        // SAFETY: as the trait says: there is room for `pairs` lines of each part.
        unsafe {
            for part in 0..parts {
                place(part).add(packed * 16).write_bytes(0, (pairs - packed) * 16);
            }
            pack_pairs(b, block, cols, 16, place, 16);
        }
    }

    unsafe fn multiply(part: Part<'_>, tiles: &mut Vec<Line>) {
        let Part { c, add, rows, cols, a, block, panels } = part;
        let pairs = pairs(block.len());
        let tiles = room(tiles, rows.len().next_multiple_of(ROWS) * pairs / 16).as_mut_ptr();
        let mut edge = [0.0f32; ROWS * COLS];
        // SAFETY: the processor has the instructions (the caller), and there is room for all tiles.
        unsafe {
            pack_rows(a, rows.clone(), block, tiles.cast());
            configure();
        }
        for j in cols.clone().step_by(COLS) {
            let panel = panels[j / COLS * 2 * pairs..][..2 * pairs].as_ptr();
            for (two, i) in rows.clone().step_by(ROWS).enumerate() {
                let (height, width) = (ROWS.min(rows.end - i), COLS.min(cols.end - j));
                let place = c.start.wrapping_add(i * c.stride + j);
                // SAFETY: the tiles were packed above, the panel by the caller. Rows and columns lie inside the part.
                unsafe {
                    let tiles = tiles.add(two * ROWS * pairs / 16);
                    if (height, width) == (ROWS, COLS) {
                        // To wait for the destination at the end would take as long again.
                        for row in (0..ROWS).map(|row| place.add(row * c.stride)) {
                            asm!("prefetchw [{0}]", "prefetchw [{0} + 64]", in(reg) row, options(nostack, readonly));
                        }
                        tile_products(place, c.stride, add, tiles, panel, pairs / STEP);
                        continue;
                    }
                    for row in 0..if add { height } else { 0 } {
                        place.add(row * c.stride).copy_to_nonoverlapping(edge[row * COLS..].as_mut_ptr(), width);
                    }
                    tile_products(edge.as_mut_ptr(), COLS, add, tiles, panel, pairs / STEP);
                    for row in 0..height {
                        edge[row * COLS..].as_ptr().copy_to_nonoverlapping(place.add(row * c.stride), width);
                    }
                }
            }
        }
        // SAFETY: the processor has the instruction; no tile is used any more.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// All eight tile registers have 16 rows of 64 bytes.
///
/// # Safety
/// The processor must have the instructions.
unsafe fn configure() {
    #[repr(C, align(64))]
    struct Config {
        palette: [u8; 16],
        row_bytes: [[u16; 8]; 2],
        rows: [[u8; 8]; 2],
    }
    const PALETTE: [u8; 16] = 1u128.to_le_bytes();
    const ALL: Config = Config { palette: PALETTE, row_bytes: [[64; 8], [0; 8]], rows: [[TILE as u8; 8], [0; 8]] };
    // SAFETY: the caller says so; the configuration is the manual's 64 bytes for palette 1.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &ALL, options(nostack, readonly, preserves_flags)) };
}

/// `c = a b` or `c += a b` for 32 x 32 entries: two tiles of rows, one behind the other, of `steps` KiB each, and two of columns.
///
/// # Safety
/// The tile registers must be configured ([`configure`]), operands as long as that, and the destination one that the caller
/// may write.
#[inline]
unsafe fn tile_products(c: *mut f32, stride: usize, add: bool, a: *const Line, b: *const Line, steps: usize) {
    let next = steps * STEP;
    // SAFETY: the caller says so. Only the entries of the destination are written.
    unsafe {
        asm!(
            "test {add:e}, {add:e}",
            "jz 3f",
            "tileloadd tmm0, [{c} + {stride}]",
            "tileloadd tmm1, [{c} + {stride} + 64]",
            "tileloadd tmm2, [{below} + {stride}]",
            "tileloadd tmm3, [{below} + {stride} + 64]",
            "jmp 2f",
            "3:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {line}]",
            "tileloadd tmm6, [{b} + {line}]",
            "tileloadd tmm5, [{a_next} + {line}]",
            "tileloadd tmm7, [{b_next} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 1024",
            "add {a_next}, 1024",
            "add {b}, 1024",
            "add {b_next}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {stride}], tmm0",
            "tilestored [{c} + {stride} + 64], tmm1",
            "tilestored [{below} + {stride}], tmm2",
            "tilestored [{below} + {stride} + 64], tmm3",
            add = in(reg) u32::from(add),
            c = in(reg) c,
            below = in(reg) c.wrapping_add(TILE * stride),
            stride = in(reg) stride * size_of::<f32>(),
            line = in(reg) size_of::<Line>(),
            a = inout(reg) a => _,
            a_next = inout(reg) a.add(next) => _,
            b = inout(reg) b => _,
            b_next = inout(reg) b.add(next) => _,
            steps = inout(reg) steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
