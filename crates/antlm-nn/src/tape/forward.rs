//! The operations a tape can record: each checks its operands, runs its kernel and notes what its backward needs.

use std::sync::Arc;

use super::{Act, Attention, Drop, Dropped, Norm, Op, Tape};
use crate::device::{Attended, Classifier, ClassifierGrads, LayerNorm, Linear, Slice};
use crate::kernels::attention::Spec;
use crate::kernels::dropout::{HEAD_COLUMNS, Rows, Site};
use crate::kernels::matmul::Precision;
use crate::kernels::rope;
use crate::params::View;
use crate::relative::RELATIVE_ROWS;
use crate::{Error, Result};

fn shape(op: &'static str, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Error {
    Error::Shape { op, expected: expected.to_string(), got: got.to_string() }
}

pub(super) fn check(
    ok: bool,
    op: &'static str,
    expected: impl std::fmt::Display,
    got: impl std::fmt::Display,
) -> Result<()> {
    if ok { Ok(()) } else { Err(shape(op, expected, got)) }
}

fn check_below(op: &'static str, what: &'static str, list: &[u32], limit: usize) -> Result<()> {
    match list.iter().find(|&&x| x as usize >= limit) {
        Some(&index) => Err(Error::Range { op, what, index: index as usize, limit }),
        None => Ok(()),
    }
}

impl Tape<'_> {
    /// Values must be this tape's and still there (`rope` takes one away), views must lie in the flat buffer, and
    /// neither may have width 0: rows without columns cannot be counted.
    pub(super) fn operands(&self, op: &'static str, acts: &[Option<Act>], views: &[Option<View>]) -> Result<()> {
        for act in acts.iter().flatten() {
            let there = self.values.get(act.id).is_some_and(|value| value.len() == act.rows * act.cols);
            check(there && act.cols > 0, op, "values of this tape that no rope has taken", format!("{act:?}"))?;
        }
        for view in views.iter().flatten() {
            let end = view.rows.checked_mul(view.cols).and_then(|len| len.checked_add(view.offset));
            let inside = end.is_some_and(|end| end <= self.params.len()) && view.rows > 0 && view.cols > 0;
            check(inside, op, format!("views inside {} parameters", self.params.len()), format!("{view:?}"))?;
        }
        Ok(())
    }

    /// Rows `ids` of the table: `[ids, d]`.
    ///
    /// # Errors
    /// [`Error::Shape`], and [`Error::Range`] for an id that is not in the table.
    pub fn embedding(&mut self, ids: &Arc<[u32]>, table: View) -> Result<Act> {
        self.operands("embedding", &[], &[Some(table)])?;
        check_below("embedding", "id", ids, table.rows)?;
        let d = table.cols;
        let y = self.push(ids.len(), d, |tape, y| tape.device.gather_rows(d, tape.parameter(table), ids, y))?;
        self.record(Op::Embedding { ids: ids.clone(), table, y });
        Ok(y)
    }

    /// A parameter as a value, `[rows, cols]`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn param(&mut self, view: View) -> Result<Act> {
        self.operands("param", &[], &[Some(view)])?;
        let y = self.push(view.rows, view.cols, |tape, y| tape.device.copy(tape.parameter(view), y))?;
        self.record(Op::Param { view, y });
        Ok(y)
    }

    /// y = x Wᵀ (+ bias) (+ residual): `[n, in]` -> `[n, out]` with `weight: [out, in]`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn linear(&mut self, x: Act, weight: View, bias: Option<View>, residual: Option<Act>) -> Result<Act> {
        self.operands("linear", &[Some(x), residual], &[Some(weight), bias])?;
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
            let of = linear_of(tape.params, x, weight, tape.precision);
            let (bias, residual) = (bias.map(|b| tape.parameter(b)), residual.map(|r| tape.value(r)));
            tape.device.linear(of, tape.value(x), bias, residual, y)
        })?;
        self.record(Op::Linear { x, weight, bias, residual, y });
        Ok(y)
    }

    /// Layer norm over rows, with what [`Norm`] adds: `[n, d]` -> `[n, d]`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn layer_norm(&mut self, x: Act, norm: &Norm) -> Result<Act> {
        self.operands("layer_norm", &[Some(x), norm.residual], &[norm.affine.map(|a| a.0), norm.affine.map(|a| a.1)])?;
        let d = x.cols;
        let fits = norm.affine.is_none_or(|(g, b)| g.rows * g.cols == d && b.rows * b.cols == d);
        check(fits, "layer_norm", format!("vectors of {d}"), format!("{:?}", norm.affine))?;
        let fits = norm.residual.is_none_or(|r| (r.rows, r.cols) == (x.rows, d));
        check(fits, "layer_norm", format!("a residual of {:?}", (x.rows, d)), format!("{:?}", norm.residual))?;
        let drop = self.site("layer_norm", norm.drop.as_ref(), x.rows)?;
        let mut stats = self.pool.take(2 * x.rows)?;
        let y = self.push(x.rows, d, |tape, y| {
            let (of, residual) =
                (norm_of(tape.params, norm.eps, norm.affine, &drop), norm.residual.map(|r| tape.value(r)));
            tape.device.layer_norm(of, d, tape.value(x), residual, y, stats.slice_mut())
        })?;
        let stats = self.keep(stats, x.rows, 2);
        self.record(Op::LayerNorm { x, eps: norm.eps, affine: norm.affine, drop, residual: norm.residual, stats, y });
        Ok(y)
    }

    /// The dropout of an operation with `rows` rows in this pass.
    fn site(&self, op: &'static str, drop: Option<&Drop>, rows: usize) -> Result<Dropped> {
        let (Some(dropout), Some(drop)) = (self.dropout, drop) else { return Ok(None) };
        if let Rows::Picked(_, list) = &drop.rows {
            check(list.len() == rows, op, format!("dropout over {rows} rows"), format!("{} picked rows", list.len()))?;
        }
        let site = Site::new(dropout.rng, drop.site, dropout.step, drop.p);
        Ok(site.map(|site| (site, drop.rows.clone())))
    }

    /// y = w x / √(mean(x²) + eps) over rows.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn rms_norm(&mut self, x: Act, weight: View, eps: f32) -> Result<Act> {
        self.operands("rms_norm", &[Some(x)], &[Some(weight)])?;
        let d = x.cols;
        check(weight.rows * weight.cols == d, "rms_norm", format!("a vector of {d}"), format!("{weight:?}"))?;
        let mut stats = self.pool.take(x.rows)?;
        let y = self.push(x.rows, d, |tape, y| {
            tape.device.rms_norm(d, eps, tape.value(x), tape.parameter(weight), y, stats.slice_mut())
        })?;
        let stats = self.keep(stats, x.rows, 1);
        self.record(Op::RmsNorm { x, weight, stats, y });
        Ok(y)
    }

    /// Turns q and k of `x = [q|k|v]: [n, 3 d]` by their positions, in place: `x` must be the newest value of the tape
    /// (so that nothing else needs it) and is gone afterwards.
    ///
    /// # Errors
    /// [`Error::Shape`], and [`Error::Range`] for a position that the table lacks.
    pub fn rope(&mut self, x: Act, table: &Arc<rope::Table>, heads: usize, positions: &Arc<[u32]>) -> Result<Act> {
        self.operands("rope", &[Some(x)], &[])?;
        check(x.id + 1 == self.values.len(), "rope", "the newest value", format!("{x:?}"))?;
        let fits = positions.len() == x.rows && heads > 0 && x.cols.is_multiple_of(6 * heads);
        check(fits, "rope", "[n, 3 d] with n positions and heads of even width", format!("{x:?}, {heads} heads"))?;
        let width = x.cols / 3 / heads;
        check(table.width() == width, "rope", format!("a table for heads of width {width}"), table.width())?;
        check_below("rope", "position", positions, table.positions())?;
        let mut buffer = std::mem::take(&mut self.values[x.id]);
        let turned = self.device.rope(table, heads, positions, buffer.slice_mut(), false);
        let y = self.keep(buffer, x.rows, x.cols);
        turned?;
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
        self.operands("attention", &[Some(qkv), positions], &[])?;
        let (n, d) = (qkv.rows, qkv.cols / 3);
        let fits = spec.heads > 0 && d > 0 && qkv.cols == 3 * d && d.is_multiple_of(spec.heads);
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
        let drop = match self.site("attention", spec.drop.as_ref(), n)? {
            Some((site, Rows::From(first))) => {
                // Every head has a range of columns of its own for its random numbers.
                let (room, longest) = (HEAD_COLUMNS, bounds.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0));
                let fits = longest <= room && spec.heads <= room as usize;
                check(fits, "attention", format!("at most {room} heads and rows a segment"), longest)?;
                Some((site, first))
            }
            Some(_) => return Err(shape("attention", "dropout over consecutive rows", "picked or shared rows")),
            None => None,
        };
        let spec = Spec { heads: spec.heads, d, scale: spec.scale, causal: spec.causal, drop };
        let mut stats = self.pool.take(n * 2 * spec.heads)?;
        let precision = self.precision;
        let y = self.push(n, d, |tape, y| {
            let of = Attended { qkv: tape.value(qkv), positions: positions.map(|p| tape.value(p)), bounds, precision };
            tape.device.attention(spec, of, y, stats.slice_mut())
        })?;
        let stats = self.keep(stats, n, 2 * spec.heads);
        self.record(Op::Attention { qkv, positions, spec, bounds: bounds.clone(), stats, y });
        Ok(y)
    }

    /// `[u|g]: [n, 2 w]` -> LN₀(u ⊙ gelu_tanh(g)): `[n, w]`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn geglu_norm(&mut self, x: Act, eps: f32) -> Result<Act> {
        self.operands("geglu_norm", &[Some(x)], &[])?;
        check(x.cols.is_multiple_of(2), "geglu_norm", "an even number of columns", x.cols)?;
        let mut stats = self.pool.take(x.rows)?;
        let width = x.cols / 2;
        let y = self
            .push(x.rows, width, |tape, y| tape.device.geglu_norm(width, eps, tape.value(x), y, stats.slice_mut()))?;
        let stats = self.keep(stats, x.rows, 1);
        self.record(Op::GegluNorm { x, stats, y });
        Ok(y)
    }

    /// `[gate|up]: [n, 2 w]` -> silu(gate) ⊙ up: `[n, w]`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn swiglu(&mut self, x: Act) -> Result<Act> {
        self.operands("swiglu", &[Some(x)], &[])?;
        check(x.cols.is_multiple_of(2), "swiglu", "an even number of columns", x.cols)?;
        let y = self.push(x.rows, x.cols / 2, |tape, y| tape.device.swiglu(x.cols / 2, tape.value(x), y))?;
        self.record(Op::Swiglu { x, y });
        Ok(y)
    }

    /// Exact GELU, element by element.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn gelu(&mut self, x: Act) -> Result<Act> {
        self.operands("gelu", &[Some(x)], &[])?;
        let y = self.push(x.rows, x.cols, |tape, y| tape.device.gelu(tape.value(x), y))?;
        self.record(Op::Gelu { x, y });
        Ok(y)
    }

    /// y = drop(x) (+ residual). Without dropout in this pass the first is `x` itself.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn dropout(&mut self, x: Act, drop: &Drop, residual: Option<Act>) -> Result<Act> {
        self.operands("dropout", &[Some(x), residual], &[])?;
        let fits = residual.is_none_or(|r| (r.rows, r.cols) == (x.rows, x.cols));
        check(fits, "dropout", format!("a residual of {:?}", (x.rows, x.cols)), format!("{residual:?}"))?;
        let drop = self.site("dropout", Some(drop), x.rows)?;
        if drop.is_none() && residual.is_none() {
            return Ok(x);
        }
        let y = self.push(x.rows, x.cols, |tape, y| {
            let drop = drop.as_ref().map(|(site, rows)| (*site, rows));
            tape.device.dropout_add(x.cols, drop, tape.value(x), residual.map(|r| tape.value(r)), y)
        })?;
        self.record(Op::Dropout { x, drop, residual, y });
        Ok(y)
    }

    /// The rows `rows` of `x`: `[m, d]`, in any order, also one row several times.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Range`].
    pub fn gather(&mut self, x: Act, rows: &Arc<[u32]>) -> Result<Act> {
        self.operands("gather", &[Some(x)], &[])?;
        check_below("gather", "row", rows, x.rows)?;
        let d = x.cols;
        let y = self.push(rows.len(), d, |tape, y| tape.device.gather_rows(d, tape.value(x), rows, y))?;
        self.record(Op::Gather { x, rows: rows.clone(), y });
        Ok(y)
    }

    /// -log p(target) of every row of `x: [m, d]` under softmax(x Eᵀ + bias), `table: [V, d]`, in nats: `[m]`.
    /// In a pass with gradients, each row counts `weight` times in the loss that [`backward`](Tape::backward) derives, and
    /// that loss has z · lse² added to -log p, where lse is the logarithm of the sum of the row's exponentials (the
    /// z-loss of PaLM; 0 for none). The result is without it.
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
        z: f32,
    ) -> Result<Vec<f32>> {
        self.operands("classifier_loss", &[Some(x)], &[Some(table), bias])?;
        check(x.cols == table.cols, "classifier_loss", format!("x with {} columns", table.cols), x.cols)?;
        check(targets.len() == x.rows, "classifier_loss", format!("{} targets", x.rows), targets.len())?;
        check(
            bias.is_none_or(|b| b.rows * b.cols == table.rows),
            "classifier_loss",
            format!("a bias of {}", table.rows),
            format!("{bias:?}"),
        )?;
        check_below("classifier_loss", "target", targets, table.rows)?;
        let (values, of_bias, precision) = (self.parameter(table), bias.map(|b| self.parameter(b)), self.precision);
        let layer = Classifier { d: x.cols, table: values, bias: of_bias, precision };
        let mut nll = vec![0.0; x.rows];
        let mut gx = self.grads.is_some().then(|| self.pool.take(x.rows * x.cols)).transpose()?;
        let grads = match (&mut self.grads, &mut gx) {
            (Some(flat), Some(gx)) => {
                let add = flat.adds(&self.device, table.range())?;
                if let Some(bias) = bias {
                    flat.sum(&self.device, bias.range())?;
                }
                let (table, bias) = match bias {
                    Some(bias) => {
                        let [table, bias] = flat.all.parts([table.range(), bias.range()])?;
                        (table, Some(bias))
                    }
                    None => (flat.all.part(table.range()), None),
                };
                Some(ClassifierGrads { x: gx.slice_mut(), table, add, bias, weight, z })
            }
            _ => None,
        };
        let x_values = self.values[x.id].slice();
        self.device.classifier_loss(layer, x_values, targets, &mut nll, grads, &mut self.pool.logits)?;
        if let Some(gx) = gx {
            let gx = self.keep(gx, x.rows, x.cols);
            self.record(Op::Loss { x, gx });
        }
        Ok(nll)
    }
}

/// The product of [`Tape::linear`].
pub(super) fn linear_of(params: Slice<'_>, x: Act, weight: View, precision: Precision) -> Linear<'_> {
    let View { rows: out, cols: inner, .. } = weight;
    Linear { n: x.rows, inner, out, weight: params.part(weight.range()), precision }
}

/// The norm of [`Tape::layer_norm`].
pub(super) fn norm_of<'a>(
    params: Slice<'a>,
    eps: f32,
    affine: Option<(View, View)>,
    drop: &'a Dropped,
) -> LayerNorm<'a> {
    let affine = affine.map(|(gamma, beta)| (params.part(gamma.range()), params.part(beta.range())));
    LayerNorm { eps, affine, drop: drop.as_ref().map(|(site, rows)| (*site, rows)) }
}
