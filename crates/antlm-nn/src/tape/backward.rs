//! The way back: every recorded operation's gradient, in reverse order, into the flat buffer.

use super::flat::Flat;
use super::forward::{linear_of, norm_of};
use super::{Act, Op, Pool, Tape};
use crate::Result;
use crate::device::{Attended, AttentionBackward, Buffer, SliceMut};

impl Tape<'_> {
    /// Adds the gradients of everything recorded to the flat buffer that the tape was made with; after
    /// [`with_fresh_gradients`](Tape::with_fresh_gradients) the buffer holds them and nothing else.
    ///
    /// # Errors
    /// The device's.
    pub fn backward(mut self) -> Result<()> {
        let Some(mut flat) = self.grads.take() else { return Ok(()) };
        let mut grads = Gradients { of: (0..self.values.len()).map(|_| None).collect() };
        let ops = std::mem::take(&mut self.ops);
        for op in ops.into_iter().rev() {
            let y = op.result();
            self.backward_op(op, &mut flat, &mut grads)?;
            // Everything that used this value has been run backward: its buffer can serve gradients.
            let value = std::mem::take(&mut self.values[y.id]);
            self.pool.give(value);
        }
        for gradient in grads.of.into_iter().flatten() {
            self.pool.give(gradient);
        }
        flat.finish(&self.device)
    }

    fn backward_op(&mut self, op: Op, flat: &mut Flat<'_>, grads: &mut Gradients) -> Result<()> {
        match op {
            Op::Embedding { ids, table, y } => {
                let Some(gy) = grads.take(y) else { return Ok(()) };
                let gtable = flat.sum(&self.device, table.range())?;
                self.device.scatter_rows(table.cols, gy.slice(), &ids, gtable)?;
                self.pool.give(gy);
            }
            Op::Param { view, y } => {
                let Some(gy) = grads.take(y) else { return Ok(()) };
                self.device.add_assign(flat.sum(&self.device, view.range())?, gy.slice())?;
                self.pool.give(gy);
            }
            Op::Linear { x, weight, bias, residual, y } => {
                let Some(gy) = grads.take(y) else { return Ok(()) };
                let of = linear_of(self.params, x, weight, self.precision);
                let adds = flat.adds(&self.device, weight.range())?;
                grads.update(self.pool, x, |gx, add| {
                    let gw = (flat.all.part(weight.range()), adds);
                    self.device.linear_backward(of, self.values[x.id].slice(), gy.slice(), gw, (gx, add))
                })?;
                if let Some(bias) = bias {
                    self.device.add_column_sums(gy.slice(), flat.sum(&self.device, bias.range())?)?;
                }
                grads.pass(self.pool, residual, gy)?;
            }
            Op::LayerNorm { x, eps, affine, drop, residual, stats, y } => {
                let Some(gy) = grads.take(y) else { return Ok(()) };
                // γ and β are neighbours in no layout that we rely on: their gradients are made apart, then added.
                let mut made = match affine {
                    Some(_) => Some([self.pool.take(x.cols)?, self.pool.take(x.cols)?]),
                    None => None,
                };
                let of = norm_of(self.params, eps, affine, &drop);
                let (values, stats) = (self.values[x.id].slice(), self.values[stats.id].slice());
                grads.update(self.pool, x, |gx, add| {
                    let made = made.as_mut().map(|[gamma, beta]| (gamma.slice_mut(), beta.slice_mut()));
                    self.device.layer_norm_backward(of, x.cols, values, stats, gy.slice(), gx, add, made)
                })?;
                if let (Some((gamma, beta)), Some(made)) = (affine, made) {
                    for (view, made) in [gamma, beta].into_iter().zip(made) {
                        self.device.add_assign(flat.sum(&self.device, view.range())?, made.slice())?;
                        self.pool.give(made);
                    }
                }
                grads.pass(self.pool, residual, gy)?;
            }
            Op::RmsNorm { x, weight, stats, y } => {
                let Some(gy) = grads.take(y) else { return Ok(()) };
                let (values, stats) = (self.values[x.id].slice(), self.values[stats.id].slice());
                let (w, gw) = (self.params.part(weight.range()), flat.sum(&self.device, weight.range())?);
                grads.update(self.pool, x, |gx, add| {
                    self.device.rms_norm_backward(x.cols, values, w, stats, gy.slice(), gx, add, gw)
                })?;
                self.pool.give(gy);
            }
            Op::Rope { x, table, heads, positions, y } => {
                let Some(mut gy) = grads.take(y) else { return Ok(()) };
                self.device.rope(&table, heads, &positions, gy.slice_mut(), true)?;
                grads.pass(self.pool, Some(x), gy)?;
            }
            Op::Attention { qkv, positions, spec, bounds, stats, y } => {
                let Some(gy) = grads.take(y) else { return Ok(()) };
                let mut gqkv = self.pool.take(qkv.rows * qkv.cols)?;
                let mut gpositions = positions.map(|p| self.pool.take(p.rows * p.cols)).transpose()?;
                let of = Attended {
                    qkv: self.value(qkv),
                    positions: positions.map(|p| self.value(p)),
                    bounds: &bounds,
                    precision: self.precision,
                };
                let backward = AttentionBackward {
                    o: self.value(y),
                    stats: self.value(stats),
                    go: gy.slice(),
                    gqkv: gqkv.slice_mut(),
                    gpositions: gpositions.as_mut().map(Buffer::slice_mut),
                };
                self.device.attention_backward(spec, of, backward)?;
                grads.pass(self.pool, Some(qkv), gqkv)?;
                if let Some(gpositions) = gpositions {
                    grads.pass(self.pool, positions, gpositions)?;
                }
                self.pool.give(gy);
            }
            Op::GegluNorm { x, stats, y } => self.unary(grads, x, y, |tape, gy, gx| {
                let (values, z, stats) = (tape.value(x), tape.value(y), tape.value(stats));
                tape.device.geglu_norm_backward(y.cols, values, z, stats, gy.slice(), gx)
            })?,
            Op::Swiglu { x, y } => self.unary(grads, x, y, |tape, gy, gx| {
                tape.device.swiglu_backward(y.cols, tape.value(x), gy.slice(), gx)
            })?,
            Op::Gelu { x, y } => {
                self.unary(grads, x, y, |tape, gy, gx| tape.device.gelu_backward(tape.value(x), gy.slice(), gx))?
            }
            Op::Dropout { x, drop, residual, y } => {
                let Some(gy) = grads.take(y) else { return Ok(()) };
                let mut gx = self.pool.take(gy.len())?;
                let drop = drop.as_ref().map(|(site, rows)| (*site, rows));
                self.device.dropout_add(x.cols, drop, gy.slice(), None, gx.slice_mut())?;
                grads.pass(self.pool, Some(x), gx)?;
                grads.pass(self.pool, residual, gy)?;
            }
            Op::Gather { x, rows, y } => {
                let Some(gy) = grads.take(y) else { return Ok(()) };
                grads.update(self.pool, x, |mut gx, add| {
                    if !add {
                        self.device.clear(gx.all())?;
                    }
                    self.device.scatter_rows(x.cols, gy.slice(), &rows, gx)
                })?;
                self.pool.give(gy);
            }
            Op::Loss { x, gx } => {
                let gx = std::mem::take(&mut self.values[gx.id]);
                grads.pass(self.pool, Some(x), gx)?;
            }
        }
        Ok(())
    }

    /// Backward of an operation with one operand, whose kernel writes the whole gradient.
    fn unary(
        &mut self,
        grads: &mut Gradients,
        x: Act,
        y: Act,
        kernel: impl FnOnce(&Self, &Buffer, SliceMut<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(gy) = grads.take(y) else { return Ok(()) };
        let mut gx = self.pool.take(x.rows * x.cols)?;
        kernel(self, &gy, gx.slice_mut())?;
        grads.pass(self.pool, Some(x), gx)?;
        self.pool.give(gy);
        Ok(())
    }
}

/// The gradients of the values that are known so far.
struct Gradients {
    of: Vec<Option<Buffer>>,
}

impl Gradients {
    fn take(&mut self, act: Act) -> Option<Buffer> {
        self.of[act.id].take()
    }

    /// Lets `kernel` write the gradient of `act`, or add to it when there is one already.
    fn update(
        &mut self,
        pool: &mut Pool,
        act: Act,
        kernel: impl FnOnce(SliceMut<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        match &mut self.of[act.id] {
            Some(gradient) => kernel(gradient.slice_mut(), true),
            slot => {
                let gradient = slot.insert(pool.take(act.rows * act.cols)?);
                kernel(gradient.slice_mut(), false)
            }
        }
    }

    /// Adds a whole gradient to that of `act`, or moves it there; without `act` the buffer goes back to the pool.
    fn pass(&mut self, pool: &mut Pool, act: Option<Act>, gradient: Buffer) -> Result<()> {
        match act.map(|act| &mut self.of[act.id]) {
            Some(Some(sum)) => {
                pool.device().add_assign(sum.slice_mut(), gradient.slice())?;
                pool.give(gradient);
            }
            Some(slot) => *slot = Some(gradient),
            None => pool.give(gradient),
        }
        Ok(())
    }
}
