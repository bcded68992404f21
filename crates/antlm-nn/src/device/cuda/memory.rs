//! Memory of a card that holds f32 values.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::{Driver, lock};
use crate::Result;

/// f32 values on a card; their memory goes back to it with them.
#[derive(Debug)]
pub struct Memory {
    driver: Arc<dyn Driver>,
    at: u64,
    len: usize,
    capacity: usize,
    mirror: Mutex<Mirror>,
}

/// The same values as bf16 numbers, for weights that products have asked for so.
#[derive(Debug, Default)]
struct Mirror {
    /// Where they are, once there has been a need.
    at: Option<u64>,
    /// They are those of now. Whoever writes values takes them by `SliceMut::card`, which says that they are not.
    fresh: bool,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.driver.free(self.at);
        if let Some(mirror) = lock(&self.mirror).at {
            self.driver.free(mirror);
        }
    }
}

impl Memory {
    /// Room for so many values, with none in it.
    pub(super) fn new(driver: &Arc<dyn Driver>, capacity: usize) -> Result<Memory> {
        let at = driver.allocate(4 * capacity.max(1))?;
        Ok(Memory { driver: driver.clone(), at, len: 0, capacity, mirror: Mutex::default() })
    }

    /// How many values it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without any value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many values there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes it `len` values long, at most its capacity.
    pub(crate) fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "more values than there is room for");
        self.len = len;
    }

    /// All of it.
    pub fn view(&self) -> View<'_> {
        View { of: self, at: self.at, len: self.len }
    }
}

/// Values on a card. Who may write them is said by the slice around it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    of: &'a Memory,
    at: u64,
    len: usize,
}

impl View<'_> {
    /// Where they are.
    pub fn at(self) -> u64 {
        self.at
    }

    /// How many.
    pub fn len(self) -> usize {
        self.len
    }

    /// True without any.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Some of them.
    ///
    /// # Panics
    /// For values that there are not.
    pub fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} values", self.len);
        View { at: self.at + 4 * range.start as u64, len: range.len(), ..self }
    }

    /// A copy of them.
    ///
    /// # Errors
    /// The card's.
    pub fn read(self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.len];
        self.of.driver.read(self.at, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// Whether they are on this card.
    pub(super) fn is_on(self, driver: &Arc<dyn Driver>) -> bool {
        Arc::ptr_eq(&self.of.driver, driver)
    }

    /// Where they are as bf16 numbers. `round` makes those of a whole memory, from its first value on and so many: when
    /// they are asked for first, and after anyone but an optimiser has written there.
    pub(super) fn mirror(self, round: impl FnOnce(u64, usize, u64) -> Result<()>) -> Result<u64> {
        let mut mirror = lock(&self.of.mirror);
        let at = match mirror.at {
            Some(at) => at,
            None => *mirror.at.insert(self.of.driver.allocate(2 * self.of.capacity.max(1))?),
        };
        if !mirror.fresh {
            round(self.of.at, self.of.len, at)?;
            mirror.fresh = true;
        }
        Ok(at + (self.at - self.of.at) / 2)
    }

    /// Where an optimiser that writes all of the memory has to write bf16 numbers, too; none has asked for them otherwise.
    pub(super) fn mirror_to_write(self) -> Option<u64> {
        let whole = self.at == self.of.at && self.len == self.of.len;
        lock(&self.of.mirror).at.filter(|_| whole)
    }

    /// The optimiser has written there.
    pub(super) fn mirror_is_fresh(self) {
        lock(&self.of.mirror).fresh = true;
    }

    /// The values are about to change.
    pub(crate) fn will_change(self) {
        lock(&self.of.mirror).fresh = false;
    }
}
