//! The tape: runs fused operations forward, records them, and runs their hand-written backwards in reverse.
//!
//! A value is a matrix `[rows, cols]` in a buffer of its own; buffers come from a [`Pool`] that outlives the tape, so
//! that a step allocates nothing after the first. Gradients of values exist only between their last use and their
//! origin; gradients of parameters are added to one flat buffer with the layout of the parameters, or replace
//! what is in it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Result;
use crate::device::{Buffer, Device, Slice, SliceMut};
use crate::kernels::attention;
use crate::kernels::dropout::{Rows, Site};
use crate::kernels::matmul::Precision;
use crate::kernels::rope;
use crate::params::View;
use crate::rng::Rng;

mod backward;
mod flat;
mod forward;
mod past;

use flat::Flat;
use forward::check;

/// A device's buffers that wait to be used again. With those in use they are never more than 9/8 of what was in use at one time.
#[derive(Debug, Default)]
pub struct Pool {
    device: Device,
    /// By capacity, which is always a [`Pool::class`].
    free: BTreeMap<usize, Vec<Buffer>>,
    /// Values in `free`, in use now, and most ever in use.
    waiting: usize,
    live: usize,
    peak: usize,
    logits: Buffer,
}

impl Pool {
    /// An empty pool of this device, which is where passes with it run; [`Pool::default`] is the CPU's.
    pub fn of(device: Device) -> Pool {
        Pool { device, ..Pool::default() }
    }

    /// Whose buffers these are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Sizes are rounded up to eighths of a power of two, so that packed batches of nearly the same size share buffers.
    fn class(len: usize) -> usize {
        let step = (len.next_power_of_two() / 16).max(64);
        len.next_multiple_of(step)
    }

    /// A buffer of `len` values; what is in it is anybody's guess, so every operation writes all of its output.
    fn take(&mut self, len: usize) -> Result<Buffer> {
        let class = Pool::class(len);
        // The smallest that is large enough, if it is not much too large.
        let fit =
            self.free.range(class..=class + class / 4).find(|(_, buffers)| !buffers.is_empty()).map(|(&fit, _)| fit);
        let mut buffer = match fit.and_then(|fit| self.free.get_mut(&fit)?.pop()) {
            Some(buffer) => {
                self.waiting -= buffer.capacity();
                buffer
            }
            None => self.device.room(class)?,
        };
        self.live += buffer.capacity();
        self.peak = self.peak.max(self.live);
        while self.waiting + self.live > self.peak + self.peak / 8 {
            let Some(mut largest) = self.free.last_entry() else { break };
            match largest.get_mut().pop() {
                Some(buffer) => self.waiting -= buffer.capacity(),
                None => drop(largest.remove()),
            }
        }
        buffer.set_len(len);
        Ok(buffer)
    }

    fn give(&mut self, buffer: Buffer) {
        let class = buffer.capacity();
        if class > 0 {
            self.live = self.live.saturating_sub(class);
            self.waiting += class;
            self.free.entry(class).or_default().push(buffer);
        }
    }
}

/// A value on the tape: a matrix `[rows, cols]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    id: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
}

/// Where dropout's random numbers come from in this pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The run's generator.
    pub rng: Rng,
    /// The optimiser step.
    pub step: u32,
}

/// A dropout with its place in the model and the rows of the step it applies to.
#[derive(Clone, Debug)]
pub struct Drop {
    /// Number of the place, unique in the model.
    pub site: u32,
    /// Probability.
    pub p: f64,
    /// Which rows of the step these are.
    pub rows: Rows,
}

/// What [`Tape::layer_norm`] does besides the norm: y = residual + drop(γ x̂ + β).
#[derive(Clone, Debug, Default)]
pub struct Norm {
    /// Added to the variance.
    pub eps: f32,
    /// γ and β.
    pub affine: Option<(View, View)>,
    /// Dropout of the normed value.
    pub drop: Option<Drop>,
    /// Added at the end.
    pub residual: Option<Act>,
}

/// What [`Tape::attention`] needs besides its operands.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Number of heads.
    pub heads: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Nothing to the right is seen.
    pub causal: bool,
    /// Dropout of the weights; its rows must be [`Rows::From`].
    pub drop: Option<Drop>,
}

type Dropped = Option<(Site, Rows)>;

/// One recorded operation: its operands, its result and what its backward needs.
enum Op {
    Embedding {
        ids: Arc<[u32]>,
        table: View,
        y: Act,
    },
    Param {
        view: View,
        y: Act,
    },
    Linear {
        x: Act,
        weight: View,
        bias: Option<View>,
        residual: Option<Act>,
        y: Act,
    },
    LayerNorm {
        x: Act,
        eps: f32,
        affine: Option<(View, View)>,
        drop: Dropped,
        residual: Option<Act>,
        stats: Act,
        y: Act,
    },
    RmsNorm {
        x: Act,
        weight: View,
        stats: Act,
        y: Act,
    },
    Rope {
        x: Act,
        table: Arc<rope::Table>,
        heads: usize,
        positions: Arc<[u32]>,
        y: Act,
    },
    Attention {
        qkv: Act,
        positions: Option<Act>,
        spec: attention::Spec,
        bounds: Arc<[u32]>,
        stats: Act,
        y: Act,
    },
    GegluNorm {
        x: Act,
        stats: Act,
        y: Act,
    },
    Swiglu {
        x: Act,
        y: Act,
    },
    Gelu {
        x: Act,
        y: Act,
    },
    Dropout {
        x: Act,
        drop: Dropped,
        residual: Option<Act>,
        y: Act,
    },
    Gather {
        x: Act,
        rows: Arc<[u32]>,
        y: Act,
    },
    /// The gradient of `x` was made in the forward pass.
    Loss {
        x: Act,
        gx: Act,
    },
}

impl Op {
    /// The value that the operation made.
    fn result(&self) -> Act {
        match *self {
            Op::Embedding { y, .. }
            | Op::Param { y, .. }
            | Op::Linear { y, .. }
            | Op::LayerNorm { y, .. }
            | Op::RmsNorm { y, .. }
            | Op::Rope { y, .. }
            | Op::Attention { y, .. }
            | Op::GegluNorm { y, .. }
            | Op::Swiglu { y, .. }
            | Op::Gelu { y, .. }
            | Op::Dropout { y, .. }
            | Op::Gather { y, .. } => y,
            Op::Loss { gx, .. } => gx,
        }
    }
}

/// One forward pass (and its backward) over one micro-batch.
pub struct Tape<'a> {
    params: Slice<'a>,
    grads: Option<Flat<'a>>,
    device: Device,
    pool: &'a mut Pool,
    dropout: Option<Dropout>,
    precision: Precision,
    values: Vec<Buffer>,
    ops: Vec<Op>,
}

impl std::ops::Drop for Tape<'_> {
    fn drop(&mut self) {
        for value in self.values.drain(..) {
            self.pool.give(value);
        }
    }
}

impl<'a> Tape<'a> {
    /// A pass over `params` (a flat buffer) on the device of `pool`, whose memory they are in. With `grads` (as long) it can be run backward; with `dropout` it drops.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the two buffers differ in length, or are on another device.
    pub fn new(
        params: impl Into<Slice<'a>>,
        grads: Option<SliceMut<'a>>,
        dropout: Option<Dropout>,
        pool: &'a mut Pool,
    ) -> Result<Tape<'a>> {
        let (params, device) = (params.into(), pool.device.clone());
        if let Some(grads) = &grads {
            check(grads.len() == params.len(), "tape", format!("{} gradients", params.len()), grads.len())?;
        }
        let there = device.has(params) && grads.as_ref().is_none_or(|grads| device.has(grads.as_slice()));
        check(there, "tape", format!("values on {device}, where the pool's buffers are"), "values elsewhere")?;
        let (grads, precision) = (grads.map(|grads| Flat::new(grads, false)), Precision::F32);
        Ok(Tape { params, grads, device, pool, dropout, precision, values: Vec::new(), ops: Vec::new() })
    }

    /// The same pass with the products of [`linear`](Tape::linear), [`attention`](Tape::attention) and
    /// [`classifier_loss`](Tape::classifier_loss), and of their gradients, in these numbers. Everything else is f32.
    pub fn with_precision(mut self, precision: Precision) -> Tape<'a> {
        self.precision = precision;
        self
    }

    /// The same pass, whose gradients take the place of what is in their buffer instead of being added to it.
    pub fn with_fresh_gradients(mut self) -> Tape<'a> {
        self.grads = self.grads.take().map(|grads| Flat::new(grads.all, true));
        self
    }

    /// The numbers of a value, row-major; a copy where they are on a card.
    ///
    /// # Errors
    /// The device's.
    pub fn read(&self, act: Act) -> Result<Cow<'_, [f32]>> {
        self.values[act.id].read()
    }

    fn value(&self, act: Act) -> Slice<'_> {
        self.values[act.id].slice()
    }

    /// How many values there are; see [`Tape::release`].
    pub fn mark(&self) -> usize {
        self.values.len()
    }

    /// Gives back the buffers of all values made since `mark` but `kept`, which must not be used any more. In a pass with
    /// gradients nothing happens, for its backward needs them all.
    pub fn release(&mut self, mark: usize, kept: Act) {
        if self.grads.is_some() {
            return;
        }
        for id in (mark..self.values.len()).filter(|&id| id != kept.id) {
            let buffer = std::mem::take(&mut self.values[id]);
            self.pool.give(buffer);
        }
    }

    fn parameter(&self, view: View) -> Slice<'a> {
        self.params.part(view.range())
    }

    /// A new value, which `fill` writes.
    fn push(&mut self, rows: usize, cols: usize, fill: impl FnOnce(&Self, SliceMut<'_>) -> Result<()>) -> Result<Act> {
        let mut buffer = self.pool.take(rows * cols)?;
        let filled = fill(self, buffer.slice_mut());
        let act = self.keep(buffer, rows, cols);
        filled.map(|()| act)
    }

    fn record(&mut self, op: Op) {
        if self.grads.is_some() {
            self.ops.push(op);
        }
    }

    /// Stores a buffer that was filled beside a value.
    fn keep(&mut self, buffer: Buffer, rows: usize, cols: usize) -> Act {
        self.values.push(buffer);
        Act { id: self.values.len() - 1, rows, cols }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_stays_small_whatever_sizes_come() {
        let mut pool = Pool::default();
        for size in (1..2000).map(|i| (i * 7919) % 5000 + 1) {
            let buffers: Vec<Buffer> = (0..4).map(|k| pool.take(size + 10 * k).unwrap()).collect();
            assert!(buffers.iter().enumerate().all(|(k, buffer)| buffer.len() == size + 10 * k));
            buffers.into_iter().for_each(|buffer| pool.give(buffer));
            assert_eq!(pool.live, 0);
            assert!(pool.waiting <= pool.peak + pool.peak / 8 && pool.peak <= 5 * Pool::class(5030));
        }
        // Nearly the same size: the same buffer.
        let mut buffer = pool.take(1000).unwrap();
        let place = buffer.lines().as_ptr();
        pool.give(buffer);
        assert_eq!(pool.take(990).unwrap().lines().as_ptr(), place);
    }

    #[test]
    fn sizes_are_rounded_up_a_little() {
        for len in 1..10_000 {
            let class = Pool::class(len);
            assert!(class >= len && class <= len + len / 8 + 64, "{len} {class}");
            assert_eq!(Pool::class(class), class);
        }
    }
}
