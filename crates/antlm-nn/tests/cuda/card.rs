//! The card of a test: an emulated one, or with ANTLM_CARD in the environment (and feature `cuda`) the first of this
//! machine. Both are spoken to by the driver that the operations use.

use std::marker::PhantomData;
use std::sync::Arc;

pub use antlm_nn::device::cuda::{Argument, Compiled, Grid};
use antlm_nn::device::cuda::{Cuda, Driver, Emulated, open};

/// Whether tests run on a card of this machine.
pub fn real() -> bool {
    std::env::var_os("ANTLM_CARD").is_some()
}

/// Memory of the card, `len` values.
pub struct Buffer<T> {
    address: u64,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Buffer<T> {
    pub fn address(&self) -> u64 {
        self.address
    }
}

/// What an argument of a kernel can be.
pub trait Operand {
    fn argument(self) -> Argument;
}

impl<T> Operand for &Buffer<T> {
    fn argument(self) -> Argument {
        self.address.into()
    }
}

/// Null for none.
impl<T> Operand for Option<&Buffer<T>> {
    fn argument(self) -> Argument {
        self.map_or(0, Buffer::address).into()
    }
}

macro_rules! numbers {
    ($($number:ty),*) => { $(
        impl Operand for $number {
            fn argument(self) -> Argument {
                self.into()
            }
        }
    )* };
}
numbers!(u32, u64, f32, f64, usize, Argument);

/// The arguments of a launch: anything that is one.
#[macro_export]
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { [$($crate::card::Operand::argument($argument)),*] };
}

/// `x` times `y` blocks of `threads`.
pub fn grid(x: usize, y: usize, threads: usize) -> Grid {
    Grid { x, y, threads, shared: 0 }
}

/// A card, and the memory that a test has of it.
pub struct Card {
    driver: Arc<dyn Driver>,
    of_test: Vec<u64>,
}

impl Card {
    /// The machine's card, or an emulated one: compiled so, its threads in an order of this seed.
    pub fn start(compiled: Compiled, seed: u64) -> Card {
        if real() { Card { driver: machine(), of_test: Vec::new() } } else { Card::emulated(compiled, seed) }
    }

    /// An emulated card, whatever the environment says.
    pub fn emulated(compiled: Compiled, seed: u64) -> Card {
        Card { driver: Arc::new(Emulated::compiled(compiled, seed, 1 << 40).unwrap()), of_test: Vec::new() }
    }

    /// Memory for `len` values, full of NaN.
    pub fn room<T>(&mut self, len: usize) -> Buffer<T> {
        let bytes = len * size_of::<T>();
        let address = self.driver.allocate(bytes).unwrap();
        self.driver.write(address, &vec![0xff; bytes]).unwrap();
        self.of_test.push(address);
        Buffer { address, len, of: PhantomData }
    }

    /// Memory with these values.
    pub fn put<T: bytemuck::Pod>(&mut self, values: &[T]) -> Buffer<T> {
        let buffer = self.room(values.len());
        self.driver.write(buffer.address, bytemuck::cast_slice(values)).unwrap();
        buffer
    }

    /// What is in it now.
    pub fn get<T: bytemuck::Pod>(&mut self, buffer: &Buffer<T>) -> Vec<T> {
        let mut values = vec![T::zeroed(); buffer.len];
        self.driver.read(buffer.address, bytemuck::cast_slice_mut(&mut values)).unwrap();
        values
    }

    /// Runs a kernel, on an emulated card each time with threads in another order; an error says what went wrong.
    pub fn try_launch(&mut self, name: &'static str, grid: Grid, arguments: &[Argument]) -> Result<(), String> {
        self.driver.launch(name, grid, arguments).map_err(|error| error.to_string())
    }

    /// Runs a kernel that has to go well.
    pub fn launch(&mut self, name: &'static str, grid: Grid, arguments: impl AsRef<[Argument]>) {
        self.try_launch(name, grid, arguments.as_ref()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.of_test.drain(..).for_each(|address| self.driver.free(address));
    }
}

/// The machine's card, opened once.
fn machine() -> Arc<dyn Driver> {
    static CARD: std::sync::OnceLock<Cuda> = std::sync::OnceLock::new();
    CARD.get_or_init(|| open(0).unwrap()).shared_driver()
}
