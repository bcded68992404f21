//! The operations on an NVIDIA card: the kernels of `crates/antlm-nn/cuda` and products of a library, given addresses of
//! its memory. All of it runs in one stream, one after another; no sum depends on which thread comes first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::kernels::rope::Table;
use crate::params::Layout;
use crate::{Error, Result};

mod attention;
#[cfg(any(feature = "cuda", test))]
mod cache;
mod classifier;
mod driver;
#[cfg(feature = "cuda-emulation")]
mod emulated;
mod memory;
#[cfg(feature = "cuda")]
mod nvidia;
mod operations;
mod optim;

pub use driver::{Argument, Driver, Grid, Matrix, Plus};
#[cfg(feature = "cuda-emulation")]
pub use emulated::{Compiled, Emulated};
pub use memory::{Memory, View};

/// Whether this build can use cards that are found by themselves.
pub const BUILT: bool = cfg!(feature = "cuda");

/// The card of this number.
///
/// # Errors
/// [`Error::Card`]: this build has no cards, or there is none of this number.
#[cfg(feature = "cuda")]
pub fn open(number: usize) -> Result<Cuda> {
    Ok(Cuda::new(Arc::new(nvidia::Nvidia::open(number)?)))
}

/// The card of this number.
///
/// # Errors
/// [`Error::Card`]: there is none of this number.
#[cfg(all(feature = "cuda-emulation", not(feature = "cuda")))]
pub fn open(number: usize) -> Result<Cuda> {
    if number > 0 {
        return Err(error(format!("cuda:{number} is not there: one card is emulated, cuda:0")));
    }
    Ok(Cuda::new(Arc::new(Emulated::start(1, 1 << 30)?)))
}

/// The card of this number.
///
/// # Errors
/// [`Error::Card`]: this build has no cards.
#[cfg(not(any(feature = "cuda", feature = "cuda-emulation")))]
pub fn open(number: usize) -> Result<Cuda> {
    Err(error(format!("cuda:{number} cannot be used: this build of antlm knows no NVIDIA cards; say --device cpu")))
}

/// A card, and what is kept on it between operations.
#[derive(Debug)]
pub struct Cuda {
    driver: Arc<dyn Driver>,
    /// Memory of operations that are done, by its bytes.
    free: Mutex<BTreeMap<usize, Vec<u64>>>,
    kept: Mutex<Kept>,
}

/// Lists that came from the host and are likely to be asked for again: a batch's are, in every layer. Each stands beside
/// what it was made of, which therefore lives as long, so that its place in memory means it alone.
#[derive(Debug, Default)]
struct Kept {
    /// Used last at the end.
    lists: Vec<(Arc<[u32]>, What, List)>,
    tables: Vec<(Arc<Table>, u64)>,
    pieces: Option<(Layout, u64)>,
}

/// What of a list of numbers is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Itself.
    List,
    /// Its numbers sorted: see `by_id`.
    Sorted,
    /// As bounds of segments, these in tiles of so many rows: first row, end, the tile's first row.
    Tiles(usize),
}

/// A list on the card, and how many numbers, different numbers or tiles it holds.
#[derive(Clone, Copy, Debug)]
struct List {
    at: u64,
    count: usize,
}

/// How many lists are kept at the most: some batches' worth.
const LISTS: usize = 32;

/// Memory for one operation, given back for the next when it is dropped: what was launched before uses it before.
struct Scratch<'a> {
    of: &'a Cuda,
    bytes: usize,
    at: u64,
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        lock(&self.of.free).entry(self.bytes).or_default().push(self.at);
    }
}

impl Cuda {
    /// The card behind a driver.
    pub fn new(driver: Arc<dyn Driver>) -> Cuda {
        Cuda { driver, free: Mutex::default(), kept: Mutex::default() }
    }

    /// Its name on the command line, such as `cuda:0`, and the card's own.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// The same, to be kept.
    pub fn shared_driver(&self) -> Arc<dyn Driver> {
        self.driver.clone()
    }

    /// Memory for so many bytes, for as long as the result lives.
    fn scratch(&self, bytes: usize) -> Result<Scratch<'_>> {
        // Sizes in eighths of a power of two, as the tape's pool has them.
        let bytes = bytes.next_multiple_of((bytes.next_power_of_two() / 16).max(256));
        let found = lock(&self.free).get_mut(&bytes).and_then(Vec::pop);
        let at = match found {
            Some(at) => at,
            None => self.driver.allocate(bytes)?,
        };
        Ok(Scratch { of: self, bytes, at })
    }

    /// Memory for so many f32 numbers.
    fn floats(&self, len: usize) -> Result<Scratch<'_>> {
        self.scratch(4 * len)
    }

    /// Memory with these numbers.
    fn numbers<T: bytemuck::Pod>(&self, values: &[T]) -> Result<Scratch<'_>> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let scratch = self.scratch(bytes.len())?;
        self.driver.write(scratch.at, bytes)?;
        Ok(scratch)
    }

    /// Memory with these numbers, until `forget`.
    fn put(&self, values: &[u32]) -> Result<u64> {
        let at = self.driver.allocate(4 * values.len().max(1))?;
        self.driver.write(at, bytemuck::cast_slice(values))?;
        Ok(at)
    }

    /// Where a list is, or what is made of it.
    fn list(&self, list: &Arc<[u32]>, what: What) -> Result<List> {
        let mut kept = lock(&self.kept);
        let found = kept.lists.iter().position(|(of, kind, _)| Arc::ptr_eq(of, list) && *kind == what);
        let entry = match found {
            Some(place) => kept.lists.remove(place),
            None => {
                let (numbers, count) = match what {
                    What::List => (list.to_vec(), list.len()),
                    What::Sorted => by_id(list),
                    What::Tiles(side) => {
                        let tiles = tiles(list, side);
                        let count = tiles.len() / 3;
                        (tiles, count)
                    }
                };
                if kept.lists.len() >= LISTS {
                    let (_, _, oldest) = kept.lists.remove(0);
                    self.driver.free(oldest.at);
                }
                (list.clone(), what, List { at: self.put(&numbers)?, count })
            }
        };
        let there = entry.2;
        kept.lists.push(entry);
        Ok(there)
    }

    /// Where a table of rotary positions is: cosines, behind them sines.
    fn table(&self, table: &Arc<Table>) -> Result<[u64; 2]> {
        let mut kept = lock(&self.kept);
        let (cosines, sines) = table.parts();
        let found = kept.tables.iter().find(|(of, _)| Arc::ptr_eq(of, table)).map(|(_, at)| *at);
        let at = match found {
            Some(at) => at,
            None => {
                let both: Vec<u32> = cosines.iter().chain(sines).map(|x| x.to_bits()).collect();
                let at = self.put(&both)?;
                kept.tables.push((table.clone(), at));
                at
            }
        };
        Ok([at, at + 4 * cosines.len() as u64])
    }

    /// Runs a kernel of blocks of `threads` threads. A grid without blocks does nothing.
    fn launch(&self, name: &'static str, grid: Grid, arguments: &[Argument]) -> Result<()> {
        if grid.x == 0 || grid.y == 0 {
            return Ok(());
        }
        self.driver.launch(name, grid, arguments)
    }

    /// c = a b plus what is said, `batch` times.
    fn product(&self, c: Matrix, plus: Plus, a: Matrix, b: Matrix, batch: usize) -> Result<()> {
        if c.rows == 0 || c.cols == 0 || a.cols == 0 || batch == 0 {
            return Ok(());
        }
        self.driver.product(c, plus, a, b, batch)
    }

    /// c = a b, or c += a b, `batch` times.
    fn product_onto(&self, c: Matrix, add: bool, a: Matrix, b: Matrix, batch: usize) -> Result<()> {
        self.product(c, Plus { matrix: add.then_some(c.at), row: None }, a, b, batch)
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        let (free, kept) = (std::mem::take(&mut *lock(&self.free)), std::mem::take(&mut *lock(&self.kept)));
        free.into_values().flatten().for_each(|at| self.driver.free(at));
        kept.lists.iter().for_each(|(_, _, list)| self.driver.free(list.at));
        kept.tables.iter().for_each(|(_, at)| self.driver.free(*at));
        kept.pieces.iter().for_each(|(_, at)| self.driver.free(*at));
    }
}

/// What it guards is whole between any two statements that can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks that go over n values, 256 at a time.
fn any(n: usize) -> Grid {
    Grid { x: n.div_ceil(256).min(4096), y: 1, threads: 256, shared: 0 }
}

fn grid(x: usize, y: usize, threads: usize) -> Grid {
    Grid { x, y, threads, shared: 0 }
}

/// The places of `ids` sorted by id, and for equal ids in their order: the k different ids, then where each one's places
/// begin and the last ones end (k + 1 numbers), then the places; and k.
fn by_id(ids: &[u32]) -> (Vec<u32>, usize) {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&place| ids[place as usize]);
    let (mut unique, mut starts) = (Vec::new(), Vec::new());
    for (i, &place) in order.iter().enumerate() {
        let id = ids[place as usize];
        if unique.last() != Some(&id) {
            unique.push(id);
            starts.push(i as u32);
        }
    }
    starts.push(ids.len() as u32);
    let count = unique.len();
    ([unique, starts, order].concat(), count)
}

/// Segments' tiles of `side` rows: first row of the segment, its end, the tile's first row.
fn tiles(bounds: &[u32], side: usize) -> Vec<u32> {
    let of = |segment: &[u32]| {
        let (first, end) = (segment[0], segment[1]);
        (first..end).step_by(side).flat_map(move |tile| [first, end, tile])
    };
    bounds.windows(2).flat_map(of).collect()
}

/// The error of a card.
pub(crate) fn error(what: impl Into<String>) -> Error {
    Error::Card { what: what.into() }
}

/// What to say when a card has no memory left.
pub fn out_of_memory(card: &str, wanted: u64, all: u64) -> String {
    let gb = |bytes: u64| bytes as f64 / 1e9;
    format!(
        "{card} has no memory left: {:.3} GB more are wanted of its {:.1} GB; take a smaller batch (for a training, \
         --set batch.micro_tokens=…), a smaller model, or --device cpu",
        gb(wanted),
        gb(all)
    )
}
