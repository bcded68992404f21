//! What is asked of a card: memory, copies, launches of kernels by their names, products. A card in a machine answers, or
//! an emulated one.

use super::memory::View;
use crate::Result;

/// How a kernel is launched.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Blocks side by side.
    pub x: usize,
    /// Rows of blocks.
    pub y: usize,
    /// Threads of a block; the kernel's own number.
    pub threads: usize,
    /// Bytes of shared memory given at the launch.
    pub shared: usize,
}

/// A row-major matrix of f32 or bf16 numbers on the card. Of several side by side, each begins `step` numbers after the one
/// before.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// Where it begins.
    pub at: u64,
    /// Its rows as they take part in the product.
    pub rows: usize,
    /// Its columns, likewise.
    pub cols: usize,
    /// From one row in memory to the next, in numbers.
    pub stride: usize,
    /// From one matrix to the next, in numbers.
    pub step: usize,
    /// It lies transposed in memory: [cols, rows].
    pub transposed: bool,
    /// Its numbers are bf16 and not f32.
    pub bf16: bool,
}

impl Matrix {
    /// A dense matrix of f32 numbers.
    pub fn new(at: u64, rows: usize, cols: usize) -> Matrix {
        Matrix { at, rows, cols, stride: cols, step: 0, transposed: false, bf16: false }
    }

    /// With rows `stride` numbers apart, and matrices `step`.
    pub fn strided(self, stride: usize, step: usize) -> Matrix {
        Matrix { stride, step, ..self }
    }

    /// The same numbers as bf16, which are somewhere else.
    pub fn bf16(self, at: u64) -> Matrix {
        Matrix { at, bf16: true, ..self }
    }

    /// The transposed matrix; nothing moves.
    pub fn t(self) -> Matrix {
        Matrix { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
    }
}

/// What is added to a product on its way to its place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plus {
    /// f32 numbers that lie as the result does: what stands there already, or others.
    pub matrix: Option<u64>,
    /// f32 numbers that are added to every row.
    pub row: Option<u64>,
}

/// A card, spoken to from one thread at a time. What it is asked for is done in this order.
pub trait Driver: Send + Sync + std::fmt::Debug {
    /// As on the command line: `cuda:0`.
    fn name(&self) -> String;
    /// Bytes of memory: free ones, and all.
    ///
    /// # Errors
    /// [`Error::Card`](crate::Error::Card), as of all these functions: the card is lost.
    fn room(&self) -> Result<(u64, u64)>;
    /// Memory of so many bytes, aligned to 256; its address.
    ///
    /// # Errors
    /// No memory left.
    fn allocate(&self, bytes: usize) -> Result<u64>;
    /// Gives memory back.
    fn free(&self, at: u64);
    /// Writes bytes there.
    ///
    /// # Errors
    /// The card is lost.
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()>;
    /// Reads bytes from there, after all that was asked for before.
    ///
    /// # Errors
    /// The card is lost, or something that was asked for before has failed.
    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()>;
    /// Sets bytes to 0.
    ///
    /// # Errors
    /// The card is lost.
    fn clear(&self, at: u64, bytes: usize) -> Result<()>;
    /// Copies bytes on the card.
    ///
    /// # Errors
    /// The card is lost.
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;
    /// Runs a kernel.
    ///
    /// # Errors
    /// The card refuses it.
    fn launch(&self, name: &'static str, grid: Grid, arguments: &[Argument]) -> Result<()>;
    /// c = a b plus what is said, `batch` times; c is f32 and not transposed, a and b are both f32 or both bf16, sums are f32.
    ///
    /// # Errors
    /// The library refuses it.
    fn product(&self, c: Matrix, plus: Plus, a: Matrix, b: Matrix, batch: usize) -> Result<()>;
}

/// An argument of a kernel: its bytes.
#[derive(Clone, Debug)]
pub struct Argument(pub Vec<u8>);

impl From<View<'_>> for Argument {
    fn from(view: View<'_>) -> Argument {
        view.at().into()
    }
}

/// Null for none.
impl From<Option<View<'_>>> for Argument {
    fn from(view: Option<View<'_>>) -> Argument {
        view.map_or(0, View::at).into()
    }
}

macro_rules! numbers {
    ($($number:ty),*) => { $(
        impl From<$number> for Argument {
            fn from(number: $number) -> Argument {
                Argument(number.to_le_bytes().to_vec())
            }
        }
    )* };
}
numbers!(u32, u64, f32, f64);

/// Sizes are u32 in the kernels.
impl From<usize> for Argument {
    fn from(size: usize) -> Argument {
        (size as u32).into()
    }
}

/// The arguments of a launch: anything that is one.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { &[$($crate::device::cuda::Argument::from($argument)),*] };
}
pub(super) use arguments;
