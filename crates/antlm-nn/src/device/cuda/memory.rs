//! Memory of a card that holds f32 values.

use std::ops::Range;
use std::sync::Arc;

use super::Driver;
use crate::Result;

/// f32 values on a card; their memory goes back to it with them.
#[derive(Debug)]
pub struct Memory {
    driver: Arc<dyn Driver>,
    at: u64,
    len: usize,
    capacity: usize,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.driver.free(self.at);
    }
}

impl Memory {
    /// Room for so many values, with none in it.
    pub(super) fn new(driver: &Arc<dyn Driver>, capacity: usize) -> Result<Memory> {
        let at = driver.allocate(4 * capacity.max(1))?;
        Ok(Memory { driver: driver.clone(), at, len: 0, capacity })
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
        View { driver: &self.driver, at: self.at, len: self.len }
    }
}

/// Values on a card. Who may write them is said by the slice around it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    driver: &'a Arc<dyn Driver>,
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
        self.driver.read(self.at, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// Whether they are on this card.
    pub(super) fn is_on(self, driver: &Arc<dyn Driver>) -> bool {
        Arc::ptr_eq(self.driver, driver)
    }
}
