//! The tape: runs fused operations forward, records them, and runs their hand-written backwards in reverse.
//!
//! A value is a matrix `[rows, cols]` in a buffer of its own; buffers come from a [`Pool`] that outlives the tape, so
//! that a step allocates nothing after the first. Gradients of values exist only between their last use and their
//! origin; gradients of parameters are added to one flat buffer with the layout of the parameters.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kernels::attention::{self, Backward, Operands};
use crate::kernels::classifier::{self, Classifier, classifier_loss};
use crate::kernels::dropout::{Rows, Site};
use crate::kernels::matmul::{Into, Mat, MatMut, Threads, matmul};
use crate::kernels::norm::{self, LayerNorm};
use crate::kernels::{activation, add_assign, add_column_sums, rope};
use crate::params::View;
use crate::relative::RELATIVE_ROWS;
use crate::rng::Rng;
use crate::{Error, Result};

/// Buffers that wait to be used again, by size.
#[derive(Debug, Default)]
pub struct Pool {
    free: BTreeMap<usize, Vec<Vec<f32>>>,
    logits: Vec<f32>,
}

impl Pool {
    /// A buffer of `len` values; what is in it is anybody's guess, so every operation writes all of its output.
    fn take(&mut self, len: usize) -> Vec<f32> {
        // A little larger is fine (packed batches differ in size), much larger would be waste.
        let fit = self.free.range(len..=len + len / 4 + 1024).next().map(|(&capacity, _)| capacity);
        let mut buffer = match fit.and_then(|capacity| self.free.get_mut(&capacity)).and_then(Vec::pop) {
            Some(buffer) => buffer,
            None => Vec::with_capacity(len),
        };
        buffer.resize(len, 0.0);
        buffer
    }

    fn give(&mut self, buffer: Vec<f32>) {
        if buffer.capacity() > 0 {
            self.free.entry(buffer.capacity()).or_default().push(buffer);
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
    params: &'a [f32],
    grads: Option<&'a mut [f32]>,
    pool: &'a mut Pool,
    dropout: Option<Dropout>,
    values: Vec<Vec<f32>>,
    ops: Vec<Op>,
}

impl std::ops::Drop for Tape<'_> {
    fn drop(&mut self) {
        for value in self.values.drain(..) {
            self.pool.give(value);
        }
    }
}

fn shape(op: &'static str, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Error {
    Error::Shape { op, expected: expected.to_string(), got: got.to_string() }
}

fn check(ok: bool, op: &'static str, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Result<()> {
    if ok { Ok(()) } else { Err(shape(op, expected, got)) }
}

fn check_below(op: &'static str, what: &'static str, list: &[u32], limit: usize) -> Result<()> {
    match list.iter().find(|&&x| x as usize >= limit) {
        Some(&index) => Err(Error::Range { op, what, index: index as usize, limit }),
        None => Ok(()),
    }
}

impl<'a> Tape<'a> {
    /// A pass over `params` (a flat buffer). With `grads` (as long) it can be run backward; with `dropout` it drops.
    ///
    /// # Errors
    /// [`Error::Shape`] when the two buffers differ in length.
    pub fn new(
        params: &'a [f32],
        grads: Option<&'a mut [f32]>,
        dropout: Option<Dropout>,
        pool: &'a mut Pool,
    ) -> Result<Tape<'a>> {
        if let Some(grads) = &grads {
            check(grads.len() == params.len(), "tape", format!("{} gradients", params.len()), grads.len())?;
        }
        Ok(Tape { params, grads, pool, dropout, values: Vec::new(), ops: Vec::new() })
    }

    /// The numbers of a value, row-major.
    pub fn value(&self, act: Act) -> &[f32] {
        &self.values[act.id]
    }

    fn parameter(&self, view: View) -> &'a [f32] {
        &self.params[view.range()]
    }

    fn push(&mut self, rows: usize, cols: usize, fill: impl FnOnce(&Self, &mut [f32])) -> Act {
        let mut buffer = self.pool.take(rows * cols);
        fill(self, &mut buffer);
        self.values.push(buffer);
        Act { id: self.values.len() - 1, rows, cols }
    }

    fn record(&mut self, op: Op) {
        if self.grads.is_some() {
            self.ops.push(op);
        }
    }

    fn site(&self, drop: Option<&Drop>) -> Dropped {
        let (dropout, drop) = (self.dropout?, drop?);
        Some((Site::new(dropout.rng, drop.site, dropout.step, drop.p)?, drop.rows.clone()))
    }

    /// Rows `ids` of the table: `[ids, d]`.
    ///
    /// # Errors
    /// [`Error::Range`] for an id that is not in the table.
    pub fn embedding(&mut self, ids: &Arc<[u32]>, table: View) -> Result<Act> {
        check_below("embedding", "id", ids, table.rows)?;
        let d = table.cols;
        let y = self.push(ids.len(), d, |tape, y| {
            let rows = tape.parameter(table);
            y.chunks_exact_mut(d).zip(ids.iter()).for_each(|(y, &id)| y.copy_from_slice(&rows[id as usize * d..][..d]));
        });
        self.record(Op::Embedding { ids: ids.clone(), table, y });
        Ok(y)
    }

    /// A parameter as a value, `[rows, cols]`.
    pub fn param(&mut self, view: View) -> Act {
        let y = self.push(view.rows, view.cols, |tape, y| y.copy_from_slice(tape.parameter(view)));
        self.record(Op::Param { view, y });
        y
    }

    /// y = x Wᵀ (+ bias) (+ residual): `[n, in]` -> `[n, out]` with `weight: [out, in]`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn linear(&mut self, x: Act, weight: View, bias: Option<View>, residual: Option<Act>) -> Result<Act> {
        let out = weight.rows;
        check(
            x.cols == weight.cols,
            "linear",
            format!("x with {} columns", weight.cols),
            format!("{:?}", (x.rows, x.cols)),
        )?;
        check(bias.is_none_or(|b| b.cols * b.rows == out), "linear", format!("a bias of {out}"), format!("{bias:?}"))?;
        let fits = residual.is_none_or(|r| (r.rows, r.cols) == (x.rows, out));
        check(fits, "linear", format!("a residual of {:?}", (x.rows, out)), format!("{residual:?}"))?;
        let y = self.push(x.rows, out, |tape, y| {
            let mut into = Into::Write;
            if let Some(residual) = residual {
                y.copy_from_slice(tape.value(residual));
                into = Into::Add;
            }
            if let Some(bias) = bias {
                let bias = tape.parameter(bias);
                match into {
                    Into::Write => y.chunks_exact_mut(out).for_each(|y| y.copy_from_slice(bias)),
                    Into::Add => {
                        y.chunks_exact_mut(out).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b))
                    }
                }
                into = Into::Add;
            }
            let (a, w) = (Mat::new(tape.value(x), x.rows, x.cols), Mat::new(tape.parameter(weight), out, x.cols));
            matmul(MatMut::new(y, x.rows, out), into, 1.0, a, w.t(), Threads::All);
        });
        self.record(Op::Linear { x, weight, bias, residual, y });
        Ok(y)
    }

    /// Layer norm over rows, with what [`Norm`] adds: `[n, d]` -> `[n, d]`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn layer_norm(&mut self, x: Act, norm: &Norm) -> Result<Act> {
        let d = x.cols;
        let fits = norm.affine.is_none_or(|(g, b)| g.rows * g.cols == d && b.rows * b.cols == d);
        check(fits, "layer_norm", format!("vectors of {d}"), format!("{:?}", norm.affine))?;
        let fits = norm.residual.is_none_or(|r| (r.rows, r.cols) == (x.rows, d));
        check(fits, "layer_norm", format!("a residual of {:?}", (x.rows, d)), format!("{:?}", norm.residual))?;
        let drop = self.site(norm.drop.as_ref());
        let mut stats = self.pool.take(2 * x.rows);
        let y = self.push(x.rows, d, |tape, y| {
            let spec = tape.layer_norm_spec(norm.eps, norm.affine, &drop);
            norm::layer_norm(spec, d, tape.value(x), norm.residual.map(|r| tape.value(r)), y, &mut stats);
        });
        let stats = self.keep(stats, x.rows, 2);
        self.record(Op::LayerNorm { x, eps: norm.eps, affine: norm.affine, drop, residual: norm.residual, stats, y });
        Ok(y)
    }

    fn layer_norm_spec<'s>(&'s self, eps: f32, affine: Option<(View, View)>, drop: &'s Dropped) -> LayerNorm<'s> {
        let affine = affine.map(|(gamma, beta)| (self.parameter(gamma), self.parameter(beta)));
        LayerNorm { eps, affine, drop: drop.as_ref().map(|(site, rows)| (*site, rows)) }
    }

    /// Stores a buffer that was filled beside a value.
    fn keep(&mut self, buffer: Vec<f32>, rows: usize, cols: usize) -> Act {
        self.values.push(buffer);
        Act { id: self.values.len() - 1, rows, cols }
    }

    /// y = w x / √(mean(x²) + eps) over rows.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn rms_norm(&mut self, x: Act, weight: View, eps: f32) -> Result<Act> {
        let d = x.cols;
        check(weight.rows * weight.cols == d, "rms_norm", format!("a vector of {d}"), format!("{weight:?}"))?;
        let mut stats = self.pool.take(x.rows);
        let y = self
            .push(x.rows, d, |tape, y| norm::rms_norm(d, eps, tape.value(x), tape.parameter(weight), y, &mut stats));
        let stats = self.keep(stats, x.rows, 1);
        self.record(Op::RmsNorm { x, weight, stats, y });
        Ok(y)
    }

    /// Turns q and k of `x = [q|k|v]: [n, 3 d]` by their positions, in place: `x` must not be used afterwards.
    ///
    /// # Errors
    /// [`Error::Shape`], and [`Error::Range`] for a position that the table lacks.
    pub fn rope(&mut self, x: Act, table: &Arc<rope::Table>, heads: usize, positions: &Arc<[u32]>) -> Result<Act> {
        let fits = positions.len() == x.rows && heads > 0 && x.cols.is_multiple_of(6 * heads);
        check(fits, "rope", "[n, 3 d] with n positions and heads of even width", format!("{x:?}, {heads} heads"))?;
        check_below("rope", "position", positions, table.positions())?;
        let mut buffer = std::mem::take(&mut self.values[x.id]);
        rope::rope(table, x.cols / 3, heads, positions, &mut buffer, false);
        let y = self.keep(buffer, x.rows, x.cols);
        self.record(Op::Rope { x, table: table.clone(), heads, positions: positions.clone(), y });
        Ok(y)
    }

    /// Attention over packed segments: `qkv: [n, 3 d]` (and positions `[63, 2 d]`) -> `[n, d]`.
    /// `bounds` are the segments' starts and `n` at the end, increasing from 0.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn attention(
        &mut self,
        qkv: Act,
        positions: Option<Act>,
        spec: &Attention,
        bounds: &Arc<[u32]>,
    ) -> Result<Act> {
        let (n, d) = (qkv.rows, qkv.cols / 3);
        let fits = spec.heads > 0 && qkv.cols == 3 * d && d.is_multiple_of(spec.heads);
        check(fits, "attention", format!("[n, 3 d] with d a multiple of {} heads", spec.heads), format!("{qkv:?}"))?;
        let fits =
            bounds.first() == Some(&0) && bounds.last() == Some(&(n as u32)) && bounds.windows(2).all(|w| w[0] < w[1]);
        check(
            fits || (n == 0 && bounds.len() <= 1),
            "attention",
            format!("bounds from 0 to {n}, increasing"),
            format!("{} bounds", bounds.len()),
        )?;
        let fits = positions.is_none_or(|p| (p.rows, p.cols) == (RELATIVE_ROWS, 2 * d));
        check(fits, "attention", format!("positions {:?}", (RELATIVE_ROWS, 2 * d)), format!("{positions:?}"))?;
        let drop = match self.site(spec.drop.as_ref()) {
            Some((site, Rows::From(first))) => Some((site, first)),
            Some(_) => return Err(shape("attention", "dropout over consecutive rows", "picked or shared rows")),
            None => None,
        };
        let spec = attention::Spec { heads: spec.heads, d, scale: spec.scale, causal: spec.causal, drop };
        let mut stats = self.pool.take(n * 2 * spec.heads);
        let y = self.push(n, d, |tape, y| {
            let operands = Operands { qkv: tape.value(qkv), positions: positions.map(|p| tape.value(p)), bounds };
            attention::attention(spec, operands, y, &mut stats);
        });
        let stats = self.keep(stats, n, 2 * spec.heads);
        self.record(Op::Attention { qkv, positions, spec, bounds: bounds.clone(), stats, y });
        Ok(y)
    }

    /// `[u|g]: [n, 2 w]` -> LN₀(u ⊙ gelu_tanh(g)): `[n, w]`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn geglu_norm(&mut self, x: Act, eps: f32) -> Result<Act> {
        check(x.cols.is_multiple_of(2), "geglu_norm", "an even number of columns", x.cols)?;
        let mut stats = self.pool.take(x.rows);
        let y = self
            .push(x.rows, x.cols / 2, |tape, y| activation::geglu_norm(x.cols / 2, eps, tape.value(x), y, &mut stats));
        let stats = self.keep(stats, x.rows, 1);
        self.record(Op::GegluNorm { x, stats, y });
        Ok(y)
    }

    /// `[gate|up]: [n, 2 w]` -> silu(gate) ⊙ up: `[n, w]`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn swiglu(&mut self, x: Act) -> Result<Act> {
        check(x.cols.is_multiple_of(2), "swiglu", "an even number of columns", x.cols)?;
        let y = self.push(x.rows, x.cols / 2, |tape, y| activation::swiglu(x.cols / 2, tape.value(x), y));
        self.record(Op::Swiglu { x, y });
        Ok(y)
    }

    /// Exact GELU, element by element.
    pub fn gelu(&mut self, x: Act) -> Act {
        let y = self.push(x.rows, x.cols, |tape, y| activation::gelu_forward(tape.value(x), y));
        self.record(Op::Gelu { x, y });
        y
    }

    /// y = drop(x) (+ residual). Without dropout in this pass the first is `x` itself.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn dropout(&mut self, x: Act, drop: &Drop, residual: Option<Act>) -> Result<Act> {
        let fits = residual.is_none_or(|r| (r.rows, r.cols) == (x.rows, x.cols));
        check(fits, "dropout", format!("a residual of {:?}", (x.rows, x.cols)), format!("{residual:?}"))?;
        let drop = self.site(Some(drop));
        if drop.is_none() && residual.is_none() {
            return Ok(x);
        }
        let y = self.push(x.rows, x.cols, |tape, y| {
            let drop = drop.as_ref().map(|(site, rows)| (*site, rows));
            activation::dropout_add(x.cols, drop, tape.value(x), residual.map(|r| tape.value(r)), y);
        });
        self.record(Op::Dropout { x, drop, residual, y });
        Ok(y)
    }

    /// The rows `rows` of `x`: `[m, d]`. A row may be asked for once.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn gather(&mut self, x: Act, rows: &Arc<[u32]>) -> Result<Act> {
        check_below("gather", "row", rows, x.rows)?;
        let d = x.cols;
        let y = self.push(rows.len(), d, |tape, y| {
            let x = tape.value(x);
            y.chunks_exact_mut(d).zip(rows.iter()).for_each(|(y, &row)| y.copy_from_slice(&x[row as usize * d..][..d]));
        });
        self.record(Op::Gather { x, rows: rows.clone(), y });
        Ok(y)
    }

    /// -log p(target) of every row of `x: [m, d]` under softmax(x Eᵀ + bias), `table: [V, d]`, in nats: `[m]`.
    /// In a pass with gradients, each row counts `weight` times in the loss that [`backward`](Tape::backward) derives.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Range`].
    pub fn classifier_loss(
        &mut self,
        x: Act,
        table: View,
        bias: Option<View>,
        targets: &[u32],
        weight: f32,
    ) -> Result<Vec<f32>> {
        check(x.cols == table.cols, "classifier_loss", format!("x with {} columns", table.cols), x.cols)?;
        check(targets.len() == x.rows, "classifier_loss", format!("{} targets", x.rows), targets.len())?;
        check(
            bias.is_none_or(|b| b.rows * b.cols == table.rows),
            "classifier_loss",
            format!("a bias of {}", table.rows),
            format!("{bias:?}"),
        )?;
        check_below("classifier_loss", "target", targets, table.rows)?;
        let layer = Classifier { d: x.cols, table: self.parameter(table), bias: bias.map(|b| self.parameter(b)) };
        let mut nll = vec![0.0; x.rows];
        let mut gx = self.grads.is_some().then(|| self.pool.take(x.rows * x.cols));
        let mut logits = std::mem::take(&mut self.pool.logits);
        let grads = match (&mut self.grads, &mut gx) {
            (Some(flat), Some(gx)) => {
                let (table, bias) = disjoint(flat, table, bias)?;
                Some(classifier::Grads { x: gx, table, bias, weight })
            }
            _ => None,
        };
        classifier_loss(layer, &self.values[x.id], targets, &mut nll, grads, &mut logits);
        self.pool.logits = logits;
        if let Some(gx) = gx {
            let gx = self.keep(gx, x.rows, x.cols);
            self.record(Op::Loss { x, gx });
        }
        Ok(nll)
    }

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

/// Two views of the flat gradients at once.
fn disjoint(flat: &mut [f32], first: View, second: Option<View>) -> Result<(&mut [f32], Option<&mut [f32]>)> {
    let Some(second) = second else { return Ok((&mut flat[first.range()], None)) };
    let [first, second] = flat.get_disjoint_mut([first.range(), second.range()]).map_err(|_| {
        shape("classifier_loss", "table and bias apart from each other", format!("{first:?} and {second:?}"))
    })?;
    Ok((first, Some(second)))
}
