//! Memory of a device: buffers of f32 values that own it, and views of them.

use std::borrow::Cow;
use std::ops::Range;

use super::cuda::{Memory, View};
use crate::kernels::lines::Lines;
use crate::{Error, Result};

/// A mistake of the engine's: whoever begins a pass is checked (`Tape::new`), and everything else comes from its pool.
const ELSEWHERE: &str = "values of another device than the operation's";

/// f32 values in the memory of a device.
#[derive(Debug)]
pub enum Buffer {
    /// In the memory of this process.
    Host(Lines),
    /// On a card.
    Card(Memory),
}

impl Default for Buffer {
    /// No values, in the memory of this process.
    fn default() -> Buffer {
        Buffer::Host(Lines::default())
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(values: Vec<f32>) -> Buffer {
        Buffer::Host(Lines::from(&values[..]))
    }
}

impl Buffer {
    /// How many values it has.
    pub fn len(&self) -> usize {
        match self {
            Buffer::Host(values) => values.len(),
            Buffer::Card(memory) => memory.len(),
        }
    }

    /// True without any value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values there is room for.
    pub fn capacity(&self) -> usize {
        match self {
            Buffer::Host(values) => values.capacity(),
            Buffer::Card(memory) => memory.capacity(),
        }
    }

    /// Makes it `len` values long, at most its capacity; what new ones are is anybody's guess.
    pub(crate) fn set_len(&mut self, len: usize) {
        match self {
            Buffer::Host(values) => values.set_len(len),
            Buffer::Card(memory) => memory.set_len(len),
        }
    }

    /// The values in the memory of this process, which may become more; what new ones are is anybody's guess.
    ///
    /// # Panics
    /// For those of a card.
    pub(crate) fn lines(&mut self) -> &mut Lines {
        match self {
            Buffer::Host(values) => values,
            Buffer::Card(_) => panic!("{ELSEWHERE}"),
        }
    }

    /// All of it, to be read.
    pub fn slice(&self) -> Slice<'_> {
        match self {
            Buffer::Host(values) => Slice::Host(values),
            Buffer::Card(memory) => Slice::Card(memory.view()),
        }
    }

    /// All of it, to be written.
    pub fn slice_mut(&mut self) -> SliceMut<'_> {
        match self {
            Buffer::Host(values) => SliceMut::Host(values),
            Buffer::Card(memory) => SliceMut::Card(memory.view()),
        }
    }

    /// The values; a copy where they are on a card.
    ///
    /// # Errors
    /// The card's.
    pub fn read(&self) -> Result<Cow<'_, [f32]>> {
        self.slice().read()
    }
}

/// Values to be read.
#[derive(Clone, Copy, Debug)]
pub enum Slice<'a> {
    /// In the memory of this process.
    Host(&'a [f32]),
    /// On a card.
    Card(View<'a>),
}

impl<'a> From<&'a [f32]> for Slice<'a> {
    fn from(values: &'a [f32]) -> Slice<'a> {
        Slice::Host(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Slice<'a> {
    fn from(values: &'a Vec<f32>) -> Slice<'a> {
        Slice::Host(values)
    }
}

impl<'a> From<&'a Buffer> for Slice<'a> {
    fn from(buffer: &'a Buffer) -> Slice<'a> {
        buffer.slice()
    }
}

impl<'a> Slice<'a> {
    /// How many values.
    pub fn len(self) -> usize {
        match self {
            Slice::Host(values) => values.len(),
            Slice::Card(view) => view.len(),
        }
    }

    /// True without any value.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Some of them.
    ///
    /// # Panics
    /// For values that there are not.
    pub fn part(self, range: Range<usize>) -> Slice<'a> {
        match self {
            Slice::Host(values) => Slice::Host(&values[range]),
            Slice::Card(view) => Slice::Card(view.part(range)),
        }
    }

    /// The values in the memory of this process: for the CPU's operations, which are given no others.
    ///
    /// # Panics
    /// For values of a card.
    pub fn host(self) -> &'a [f32] {
        match self {
            Slice::Host(values) => values,
            Slice::Card(_) => panic!("{ELSEWHERE}"),
        }
    }

    /// The values on a card: for its operations, which are given no others.
    ///
    /// # Panics
    /// For values in the memory of this process.
    pub(crate) fn card(self) -> View<'a> {
        match self {
            Slice::Host(_) => panic!("{ELSEWHERE}"),
            Slice::Card(view) => view,
        }
    }

    /// The values; a copy where they are on a card.
    ///
    /// # Errors
    /// The card's.
    pub fn read(self) -> Result<Cow<'a, [f32]>> {
        match self {
            Slice::Host(values) => Ok(Cow::Borrowed(values)),
            Slice::Card(view) => Ok(Cow::Owned(view.read()?)),
        }
    }
}

/// Values to be written.
#[derive(Debug)]
pub enum SliceMut<'a> {
    /// In the memory of this process.
    Host(&'a mut [f32]),
    /// On a card.
    Card(View<'a>),
}

impl<'a> From<&'a mut [f32]> for SliceMut<'a> {
    fn from(values: &'a mut [f32]) -> SliceMut<'a> {
        SliceMut::Host(values)
    }
}

impl<'a> From<&'a mut Vec<f32>> for SliceMut<'a> {
    fn from(values: &'a mut Vec<f32>) -> SliceMut<'a> {
        SliceMut::Host(values)
    }
}

impl<'a> From<&'a mut Buffer> for SliceMut<'a> {
    fn from(buffer: &'a mut Buffer) -> SliceMut<'a> {
        buffer.slice_mut()
    }
}

impl<'a> SliceMut<'a> {
    /// How many values.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// True without any value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same values, to be read.
    pub fn as_slice(&self) -> Slice<'_> {
        match self {
            SliceMut::Host(values) => Slice::Host(values),
            SliceMut::Card(view) => Slice::Card(*view),
        }
    }

    /// Some of them.
    ///
    /// # Panics
    /// For values that there are not.
    pub fn part(&mut self, range: Range<usize>) -> SliceMut<'_> {
        match self {
            SliceMut::Host(values) => SliceMut::Host(&mut values[range]),
            SliceMut::Card(view) => SliceMut::Card(view.part(range)),
        }
    }

    /// All of them, for a while.
    pub fn all(&mut self) -> SliceMut<'_> {
        match self {
            SliceMut::Host(values) => SliceMut::Host(values),
            SliceMut::Card(view) => SliceMut::Card(*view),
        }
    }

    /// Two parts at once.
    ///
    /// # Errors
    /// [`Error::Shape`] when they overlap or reach past the end.
    pub(crate) fn parts(&mut self, ranges: [Range<usize>; 2]) -> Result<[SliceMut<'_>; 2]> {
        let [a, b] = &ranges;
        let apart = a.end <= b.start || b.end <= a.start;
        if !apart || a.end.max(b.end) > self.len() {
            let expected = format!("two parts of {} values, apart from each other", self.len());
            return Err(Error::Shape { op: "gradients", expected, got: format!("{a:?} and {b:?}") });
        }
        match self {
            SliceMut::Host(values) => match values.get_disjoint_mut(ranges) {
                Ok(parts) => Ok(parts.map(SliceMut::Host)),
                // Checked above.
                Err(error) => unreachable!("{error}"),
            },
            SliceMut::Card(view) => Ok(ranges.map(|range| SliceMut::Card(view.part(range)))),
        }
    }

    /// The values in the memory of this process: for the CPU's operations, which are given no others.
    ///
    /// # Panics
    /// For values of a card.
    pub fn host(self) -> &'a mut [f32] {
        match self {
            SliceMut::Host(values) => values,
            SliceMut::Card(_) => panic!("{ELSEWHERE}"),
        }
    }

    /// The values on a card: for its operations, which are given no others.
    ///
    /// # Panics
    /// For values in the memory of this process.
    pub(crate) fn card(self) -> View<'a> {
        match self {
            SliceMut::Host(_) => panic!("{ELSEWHERE}"),
            SliceMut::Card(view) => {
                view.will_change();
                view
            }
        }
    }
}
