//! f32 values that begin at the beginning of a cache line. Vectors of 64 bytes that lie across two lines cost two accesses
//! each, and an allocator gives 16 bytes of alignment only.

use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Values in a line.
const LINE: usize = 16;

// SAFETY: all bits 0 are 16 times 0.0.
unsafe impl Zeroable for Line {}
// SAFETY: 16 values of 4 bytes are as long as the alignment, so there is no padding, and any bits are an f32.
unsafe impl Pod for Line {}

/// Values in memory of their own, the first of them at the beginning of a cache line.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    lines: Vec<Line>,
    len: usize,
}

impl Lines {
    /// None yet, with room for `len`.
    pub fn with_capacity(len: usize) -> Lines {
        Lines { lines: Vec::with_capacity(len.div_ceil(LINE)), len: 0 }
    }

    /// So many of 0.
    pub fn zeros(len: usize) -> Lines {
        Lines { lines: vec![Line::zeroed(); len.div_ceil(LINE)], len }
    }

    /// For how many there is room: at least as many as it was made for, in whole lines.
    pub fn capacity(&self) -> usize {
        self.lines.capacity() * LINE
    }

    /// Makes it `len` values long; what new ones are is anybody's guess.
    pub fn set_len(&mut self, len: usize) {
        let lines = len.div_ceil(LINE);
        if lines > self.lines.len() {
            self.lines.resize(lines, Line::zeroed());
        }
        self.len = len;
    }
}

impl From<&[f32]> for Lines {
    fn from(values: &[f32]) -> Lines {
        let (whole, rest) = values.as_chunks::<LINE>();
        let mut last = Line::zeroed();
        last.0[..rest.len()].copy_from_slice(rest);
        let mut lines = Vec::with_capacity(values.len().div_ceil(LINE));
        lines.extend(whole.iter().map(|values| Line(*values)).chain((!rest.is_empty()).then_some(last)));
        Lines { lines, len: values.len() }
    }
}

impl Deref for Lines {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_at_a_line_and_stay() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let mut lines = Lines::from(&values[..]);
            assert_eq!(lines[..], values[..]);
            assert_eq!(lines.as_ptr() as usize % 64, 0);
            assert!(lines.capacity() >= len);
            lines.set_len(len + 40);
            assert_eq!((lines.len(), &lines[..len]), (len + 40, &values[..]));
            lines.set_len(len / 2);
            assert_eq!(lines[..], values[..len / 2]);
        }
        assert_eq!(Lines::with_capacity(64).capacity(), 64);
    }
}
