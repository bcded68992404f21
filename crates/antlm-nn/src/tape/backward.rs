//! The way back: every recorded operation's gradient, in reverse order, added to the flat buffer.

use super::{Act, Op, Pool, Tape};
use crate::kernels::attention::{self, Backward, Operands};
use crate::kernels::matmul::{Into, Mat, MatMut, Threads, matmul};
use crate::kernels::norm::{self, LayerNorm};
use crate::kernels::{activation, add_assign, add_column_sums, rope};

impl Tape<'_> {
    /// Adds the gradients of everything recorded to the flat buffer that the tape was made with.
    pub fn backward(mut self) {
        let Some(flat) = self.grads.take() else { return };
        let mut grads = Gradients { of: (0..self.values.len()).map(|_| None).collect() };
        let ops = std::mem::take(&mut self.ops);
        for op in ops.into_iter().rev() {
            let y = op.result();
            self.backward_op(op, flat, &mut grads);
            // Everything that used this value has been run backward: its buffer can serve gradients.
            let value = std::mem::take(&mut self.values[y.id]);
            self.pool.give(value);
        }
        for gradient in grads.of.into_iter().flatten() {
            self.pool.give(gradient);
        }
    }

    fn backward_op(&mut self, op: Op, flat: &mut [f32], grads: &mut Gradients) {
        match op {
            Op::Embedding { ids, table, y } => {
                let Some(gy) = grads.take(y) else { return };
                let d = table.cols;
                let gtable = &mut flat[table.range()];
                for (gy, &id) in gy.chunks_exact(d).zip(ids.iter()) {
                    gtable[id as usize * d..][..d].iter_mut().zip(gy).for_each(|(g, x)| *g += x);
                }
                self.pool.give(gy);
            }
            Op::Param { view, y } => {
                let Some(gy) = grads.take(y) else { return };
                add_assign(&mut flat[view.range()], &gy);
                self.pool.give(gy);
            }
            Op::Linear { x, weight, bias, residual, y } => {
                let Some(gy) = grads.take(y) else { return };
                let (n, out, inner) = (x.rows, weight.rows, weight.cols);
                let g = Mat::new(&gy, n, out);
                let gw = MatMut::new(&mut flat[weight.range()], out, inner);
                matmul(gw, Into::Add, 1.0, g.t(), Mat::new(self.value(x), n, inner), Threads::All);
                if let Some(bias) = bias {
                    add_column_sums(&gy, &mut flat[bias.range()]);
                }
                grads.update(self.pool, x, |gx, add| {
                    let into = if add { Into::Add } else { Into::Write };
                    let w = Mat::new(&self.params[weight.range()], out, inner);
                    matmul(MatMut::new(gx, n, inner), into, 1.0, g, w, Threads::All);
                });
                grads.pass(self.pool, residual, gy);
            }
            Op::LayerNorm { x, eps, affine, drop, residual, stats, y } => {
                let Some(gy) = grads.take(y) else { return };
                let spec = {
                    let affine = affine.map(|(g, b)| (&self.params[g.range()], &self.params[b.range()]));
                    LayerNorm { eps, affine, drop: drop.as_ref().map(|(site, rows)| (*site, rows)) }
                };
                // γ and β are neighbours in no layout that we rely on: their gradients are made apart, then added.
                let (mut ggamma, mut gbeta) = (vec![0.0; x.cols], vec![0.0; x.cols]);
                let (values, stats) = (&self.values[x.id], &self.values[stats.id]);
                grads.update(self.pool, x, |gx, add| {
                    let affine = affine.is_some().then_some((&mut ggamma[..], &mut gbeta[..]));
                    norm::layer_norm_backward(spec, x.cols, values, stats, &gy, gx, add, affine);
                });
                if let Some((gamma, beta)) = affine {
                    add_assign(&mut flat[gamma.range()], &ggamma);
                    add_assign(&mut flat[beta.range()], &gbeta);
                }
                grads.pass(self.pool, residual, gy);
            }
            Op::RmsNorm { x, weight, stats, y } => {
                let Some(gy) = grads.take(y) else { return };
                let (values, stats, w) = (&self.values[x.id], &self.values[stats.id], &self.params[weight.range()]);
                grads.update(self.pool, x, |gx, add| {
                    norm::rms_norm_backward(x.cols, values, w, stats, &gy, gx, add, &mut flat[weight.range()]);
                });
                self.pool.give(gy);
            }
            Op::Rope { x, table, heads, positions, y } => {
                let Some(mut gy) = grads.take(y) else { return };
                rope::rope(&table, x.cols / 3, heads, &positions, &mut gy, true);
                grads.pass(self.pool, Some(x), gy);
            }
            Op::Attention { qkv, positions, spec, bounds, stats, y } => {
                let Some(gy) = grads.take(y) else { return };
                let mut gqkv = self.pool.take(qkv.rows * qkv.cols);
                let mut gpositions = positions.map(|p| self.pool.take(p.rows * p.cols));
                let operands =
                    Operands { qkv: self.value(qkv), positions: positions.map(|p| self.value(p)), bounds: &bounds };
                let (o, stats) = (self.value(y), self.value(stats));
                let backward = Backward { o, stats, go: &gy, gqkv: &mut gqkv, gpositions: gpositions.as_deref_mut() };
                attention::attention_backward(spec, operands, backward);
                grads.pass(self.pool, Some(qkv), gqkv);
                if let Some(gpositions) = gpositions {
                    grads.pass(self.pool, positions, gpositions);
                }
                self.pool.give(gy);
            }
            Op::GegluNorm { x, stats, y } => self.unary(grads, x, y, |tape, gy, gx| {
                activation::geglu_norm_backward(y.cols, tape.value(x), tape.value(y), tape.value(stats), gy, gx);
            }),
            Op::Swiglu { x, y } => self.unary(grads, x, y, |tape, gy, gx| {
                activation::swiglu_backward(y.cols, tape.value(x), gy, gx);
            }),
            Op::Gelu { x, y } => {
                self.unary(grads, x, y, |tape, gy, gx| activation::gelu_backward(tape.value(x), gy, gx))
            }
            Op::Dropout { x, drop, residual, y } => {
                let Some(gy) = grads.take(y) else { return };
                let mut gx = self.pool.take(gy.len());
                let drop = drop.as_ref().map(|(site, rows)| (*site, rows));
                activation::dropout_add(x.cols, drop, &gy, None, &mut gx);
                grads.pass(self.pool, Some(x), gx);
                grads.pass(self.pool, residual, gy);
            }
            Op::Gather { x, rows, y } => {
                let Some(gy) = grads.take(y) else { return };
                grads.update(self.pool, x, |gx, add| {
                    if !add {
                        gx.fill(0.0);
                    }
                    for (gy, &row) in gy.chunks_exact(x.cols).zip(rows.iter()) {
                        gx[row as usize * x.cols..][..x.cols].iter_mut().zip(gy).for_each(|(g, y)| *g += y);
                    }
                });
                self.pool.give(gy);
            }
            Op::Loss { x, gx } => {
                let gx = std::mem::take(&mut self.values[gx.id]);
                grads.pass(self.pool, Some(x), gx);
            }
        }
    }

    /// Backward of an operation with one operand, whose kernel writes the whole gradient.
    fn unary(&mut self, grads: &mut Gradients, x: Act, y: Act, kernel: impl FnOnce(&Self, &[f32], &mut [f32])) {
        let Some(gy) = grads.take(y) else { return };
        let mut gx = self.pool.take(x.rows * x.cols);
        kernel(self, &gy, &mut gx);
        grads.pass(self.pool, Some(x), gx);
        self.pool.give(gy);
    }
}

/// The gradients of the values that are known so far.
struct Gradients {
    of: Vec<Option<Vec<f32>>>,
}

impl Gradients {
    fn take(&mut self, act: Act) -> Option<Vec<f32>> {
        self.of[act.id].take()
    }

    /// Lets `kernel` write the gradient of `act`, or add to it when there is one already.
    fn update(&mut self, pool: &mut Pool, act: Act, kernel: impl FnOnce(&mut [f32], bool)) {
        match &mut self.of[act.id] {
            Some(gradient) => kernel(gradient, true),
            slot => {
                let mut gradient = pool.take(act.rows * act.cols);
                kernel(&mut gradient, false);
                *slot = Some(gradient);
            }
        }
    }

    /// Adds a whole gradient to that of `act`, or moves it there; without `act` the buffer goes back to the pool.
    fn pass(&mut self, pool: &mut Pool, act: Option<Act>, gradient: Vec<f32>) {
        match act.map(|act| &mut self.of[act.id]) {
            Some(Some(sum)) => {
                add_assign(sum, &gradient);
                pool.give(gradient);
            }
            Some(slot) => *slot = Some(gradient),
            None => pool.give(gradient),
        }
    }
}
