//! The flat buffer that the gradients of parameters are added to, and which parts of it hold any yet.

use std::ops::Range;

use crate::Result;
use crate::device::{Device, SliceMut};

/// The gradients of all parameters. A pass that begins with none writes what comes first to a part, and clears what no
/// operation has written: the buffer need not be cleared before, and products need not read it.
pub(super) struct Flat<'a> {
    pub(super) all: SliceMut<'a>,
    /// The parts that hold gradients, in order; between any two is a gap.
    written: Vec<Range<usize>>,
}

impl<'a> Flat<'a> {
    /// A buffer that holds gradients, or whatever it holds counts for nothing (`fresh`).
    pub(super) fn new(all: SliceMut<'a>, fresh: bool) -> Flat<'a> {
        let whole = 0..all.len();
        Flat { all, written: if fresh { Vec::new() } else { vec![whole] } }
    }

    /// Whether an operation that can do either has to add to this part, rather than write it whole. From now on it holds
    /// gradients.
    pub(super) fn adds(&mut self, device: &Device, range: Range<usize>) -> Result<bool> {
        let first = self.written.partition_point(|part| part.end <= range.start);
        let adds = self.written.get(first).is_some_and(|part| part.start < range.end);
        if adds {
            self.clear_gaps(device, &range)?;
        }
        self.note(range);
        Ok(adds)
    }

    /// A part for an operation that can only add to it.
    pub(super) fn sum(&mut self, device: &Device, range: Range<usize>) -> Result<SliceMut<'_>> {
        self.clear_gaps(device, &range)?;
        self.note(range.clone());
        Ok(self.all.part(range))
    }

    /// The end of the pass: what no operation has written is 0.
    pub(super) fn finish(mut self, device: &Device) -> Result<()> {
        let whole = 0..self.all.len();
        self.clear_gaps(device, &whole)
    }

    /// Sets to 0 what of a range holds no gradients.
    fn clear_gaps(&mut self, device: &Device, range: &Range<usize>) -> Result<()> {
        let mut from = range.start;
        let end = range.end..range.end;
        for part in self.written.iter().filter(|part| part.end > range.start && part.start < range.end).chain([&end]) {
            if from < part.start {
                device.clear(self.all.part(from..part.start))?;
            }
            from = part.end;
        }
        Ok(())
    }

    /// A range holds gradients from now on: it becomes one part with those that it meets or touches.
    fn note(&mut self, range: Range<usize>) {
        let first = self.written.partition_point(|part| part.end < range.start);
        let behind = self.written.partition_point(|part| part.start <= range.end);
        let met = &self.written[first..behind];
        let start = met.first().map_or(range.start, |part| part.start.min(range.start));
        let end = met.last().map_or(range.end, |part| part.end.max(range.end));
        self.written.splice(first..behind, std::iter::once(start..end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written first stays, what is added to is cleared first, the rest is 0.
    #[test]
    fn every_value_is_cleared_or_written_once() {
        let device = Device::Cpu;
        let mut values = vec![9.0; 10];
        let mut flat = Flat::new((&mut values).into(), true);
        assert!(!flat.adds(&device, 2..4).unwrap());
        assert!(flat.adds(&device, 2..4).unwrap());
        assert!(flat.adds(&device, 3..6).unwrap()); // its new half is cleared
        flat.sum(&device, 1..3).unwrap().host()[0] += 5.0;
        flat.sum(&device, 7..8).unwrap();
        flat.finish(&device).unwrap();
        assert_eq!(values, [0.0, 5.0, 9.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    /// Parts in any order, which touch or overlap.
    #[test]
    fn parts_are_joined() {
        let device = Device::Cpu;
        let mut values = vec![9.0; 20];
        let mut flat = Flat::new((&mut values).into(), true);
        let steps: [(_, bool, &[_]); 6] = [
            (8..10, false, &[(8, 10)]),
            (2..4, false, &[(2, 4), (8, 10)]),
            (4..6, false, &[(2, 6), (8, 10)]),
            (5..9, true, &[(2, 10)]),
            (11..13, false, &[(2, 10), (11, 13)]),
            (0..20, true, &[(0, 20)]),
        ];
        for (range, adds, written) in steps {
            assert_eq!(flat.adds(&device, range.clone()).unwrap(), adds, "{range:?}");
            assert!(flat.written.iter().map(|part| (part.start, part.end)).eq(written.iter().copied()), "{range:?}");
        }
        flat.finish(&device).unwrap();
        // 9 is what an operation would have written.
        let zeros: Vec<usize> = (0..20).filter(|&i| values[i] == 0.0).collect();
        assert_eq!(zeros, [0, 1, 6, 7, 10, 13, 14, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn what_is_there_is_added_to() {
        let device = Device::Cpu;
        let mut values = vec![9.0; 4];
        let mut flat = Flat::new((&mut values).into(), false);
        assert!(flat.adds(&device, 0..2).unwrap());
        flat.sum(&device, 1..4).unwrap();
        flat.finish(&device).unwrap();
        assert_eq!(values, [9.0; 4]);
    }
}
