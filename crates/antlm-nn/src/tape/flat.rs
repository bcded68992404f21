//! The flat buffer that the gradients of parameters are added to, and which parts of it hold any yet.

use std::ops::Range;

use crate::Result;
use crate::device::{Device, SliceMut};

/// The gradients of all parameters. A pass that begins with none writes what comes first to a part, and clears what no
/// operation has written: the buffer need not be cleared before, and products need not read it.
pub(super) struct Flat<'a> {
    pub(super) all: SliceMut<'a>,
    /// The parts that hold gradients, apart from each other.
    written: Vec<Range<usize>>,
}

impl<'a> Flat<'a> {
    /// A buffer that holds gradients, or whatever it holds counts for nothing (`fresh`).
    pub(super) fn new(all: SliceMut<'a>, fresh: bool) -> Flat<'a> {
        let whole = 0..all.len();
        Flat { all, written: if fresh { Vec::new() } else { vec![whole] } }
    }

    /// What of a range holds no gradients yet, in order.
    fn gaps(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut gaps = vec![range];
        for written in &self.written {
            let cut = |gap: Range<usize>| {
                let before = gap.start..gap.end.min(written.start);
                let after = gap.start.max(written.end)..gap.end;
                [before, after].into_iter().filter(|part| !part.is_empty())
            };
            gaps = gaps.into_iter().flat_map(cut).collect();
        }
        gaps
    }

    /// Whether an operation that can do either has to add to this part, rather than write it whole. From now on it holds
    /// gradients.
    pub(super) fn adds(&mut self, device: &Device, range: Range<usize>) -> Result<bool> {
        let gaps = self.gaps(range.clone());
        let whole = gaps == [range];
        if !whole {
            self.clear(device, &gaps)?;
        }
        self.written.extend(gaps);
        Ok(!whole)
    }

    /// A part for an operation that can only add to it.
    pub(super) fn sum(&mut self, device: &Device, range: Range<usize>) -> Result<SliceMut<'_>> {
        let gaps = self.gaps(range.clone());
        self.clear(device, &gaps)?;
        self.written.extend(gaps);
        Ok(self.all.part(range))
    }

    /// The end of the pass: what no operation has written is 0.
    pub(super) fn finish(mut self, device: &Device) -> Result<()> {
        let gaps = self.gaps(0..self.all.len());
        self.clear(device, &gaps)
    }

    fn clear(&mut self, device: &Device, gaps: &[Range<usize>]) -> Result<()> {
        gaps.iter().try_for_each(|gap| device.clear(self.all.part(gap.clone())))
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
