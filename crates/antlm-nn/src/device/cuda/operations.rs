//! The operations that are a kernel or two, and the products of a layer.

use std::sync::Arc;

use super::driver::{Argument, Matrix, Plus, arguments};
use super::{Cuda, List, Memory, View, What, any, grid};
use crate::Result;
use crate::device::{
    Attended, AttentionBackward, Buffer, Classifier, ClassifierGrads, Dropping, LayerNorm, Linear, Operations, Slice,
    SliceMut, Trained,
};
use crate::kernels::attention::Spec;
use crate::kernels::dropout::{Rows, Site};
use crate::kernels::matmul::Precision;
use crate::kernels::past::{self, Past};
use crate::kernels::rope::Table;
use crate::optim::{Optimizer, Update};
use crate::params::Layout;

/// Rows of a block of column sums (columns.cuh).
const COLUMN_ROWS: usize = 64;

impl Cuda {
    /// `struct Dropout` of random.cuh.
    pub(super) fn dropping(&self, drop: Dropping<'_>) -> Result<Argument> {
        Ok(match drop {
            None => dropout([0; 5], 1.0, 0, 0),
            Some((site, rows)) => {
                let (first, list) = match rows {
                    Rows::Shared => (0, 0),
                    Rows::From(first) => (*first, 0),
                    Rows::Picked(first, list) => (*first, self.list(list, What::List)?.at),
                };
                self.dropping_from(site, first, list)
            }
        })
    }

    /// The same for rows from `first` on, by a list of places or one after another (0).
    pub(super) fn dropping_from(&self, site: Site, first: u32, list: u64) -> Argument {
        dropout(site.numbers(), site.scale(), first, list)
    }

    /// Adds the rows of `partials: [count, cols]` to `sums: [cols]`.
    fn add_partials(&self, count: usize, cols: usize, partials: u64, sums: u64) -> Result<()> {
        self.launch("add_partials", grid(cols.div_ceil(128), 1, 128), arguments![count, cols, partials, sums])
    }

    /// Adds the column sums of `x: [n, cols]` to `sums: [cols]`.
    pub(super) fn column_sums(&self, n: usize, cols: usize, x: u64, sums: u64) -> Result<()> {
        let blocks = n.div_ceil(COLUMN_ROWS);
        let partials = self.floats(blocks * cols)?;
        self.launch("column_sums", grid(cols.div_ceil(128), blocks, 128), arguments![n, cols, x, partials.at])?;
        self.add_partials(blocks, cols, partials.at, sums)
    }

    /// The numbers of `x` as operands of a product: as they are, or rounded into memory of their own.
    pub(super) fn operand(
        &self,
        x: Matrix,
        len: usize,
        precision: Precision,
    ) -> Result<(Matrix, Option<super::Scratch<'_>>)> {
        match precision {
            Precision::F32 => Ok((x, None)),
            Precision::Bf16 => {
                let rounded = self.rounded(x.at, len)?;
                Ok((x.bf16(rounded.at), Some(rounded)))
            }
        }
    }

    /// `len` numbers from `x` on, rounded to bf16.
    pub(super) fn rounded(&self, x: u64, len: usize) -> Result<super::Scratch<'_>> {
        let rounded = self.scratch(2 * len)?;
        self.round(x, len, rounded.at)?;
        Ok(rounded)
    }

    /// Writes `len` numbers from `x` on as bf16 to `y`.
    fn round(&self, x: u64, len: usize, y: u64) -> Result<()> {
        self.launch("to_bf16", any(len.div_ceil(2)), arguments![len as u64, x, y])
    }

    /// A weight as an operand of a product. In bf16 it is the mirror that the optimiser keeps.
    pub(super) fn weight(&self, w: View<'_>, rows: usize, cols: usize, precision: Precision) -> Result<Matrix> {
        let dense = Matrix::new(w.at(), rows, cols);
        Ok(match precision {
            Precision::F32 => dense,
            Precision::Bf16 => dense.bf16(w.mirror(|from, len, to| self.round(from, len, to))?),
        })
    }
}

fn dropout([low, high, stream, step, threshold]: [u32; 5], scale: f32, first: u32, list: u64) -> Argument {
    let words = [low, high, stream, step, threshold, scale.to_bits(), first, 0];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(list.to_le_bytes());
    Argument(bytes)
}

impl Operations for Cuda {
    fn has(&self, x: Slice<'_>) -> bool {
        match x {
            Slice::Host(_) => false,
            Slice::Card(view) => view.is_on(&self.driver),
        }
    }

    fn room(&self, len: usize) -> Result<Buffer> {
        Ok(Buffer::Card(Memory::new(&self.driver, len)?))
    }

    fn buffer(&self, values: Vec<f32>) -> Result<Buffer> {
        let mut memory = Memory::new(&self.driver, values.len())?;
        memory.set_len(values.len());
        self.driver.write(memory.view().at(), bytemuck::cast_slice(&values))?;
        Ok(Buffer::Card(memory))
    }

    fn clear(&self, x: SliceMut<'_>) -> Result<()> {
        let x = x.card();
        self.driver.clear(x.at(), 4 * x.len())
    }

    fn copy(&self, from: Slice<'_>, to: SliceMut<'_>) -> Result<()> {
        let (from, to) = (from.card(), to.card());
        assert_eq!(from.len(), to.len(), "a copy of another length");
        self.driver.copy(from.at(), to.at(), 4 * from.len())
    }

    fn add_assign(&self, y: SliceMut<'_>, x: Slice<'_>) -> Result<()> {
        let (y, x) = (y.card(), x.card());
        self.launch("add_assign", any(x.len()), arguments![x.len() as u64, x, y])
    }

    fn add_column_sums(&self, x: Slice<'_>, sums: SliceMut<'_>) -> Result<()> {
        let (x, sums) = (x.card(), sums.card());
        self.column_sums(x.len() / sums.len().max(1), sums.len(), x.at(), sums.at())
    }

    fn gather_rows(&self, d: usize, table: Slice<'_>, ids: &Arc<[u32]>, y: SliceMut<'_>) -> Result<()> {
        let (list, blocks) = (self.list(ids, What::List)?.at, grid(ids.len(), d.div_ceil(128), 128));
        self.launch("gather_rows", blocks, arguments![d, table.card(), list, y.card()])
    }

    fn scatter_rows(&self, d: usize, gy: Slice<'_>, ids: &Arc<[u32]>, gtable: SliceMut<'_>) -> Result<()> {
        let List { at: sorted, count: unique } = self.list(ids, What::Sorted)?;
        let starts = sorted + 4 * unique as u64;
        let order = starts + 4 * (unique as u64 + 1);
        let operands = arguments![d, sorted, starts, order, gy.card(), gtable.card()];
        self.launch("scatter_rows", grid(unique, d.div_ceil(128), 128), operands)
    }

    fn linear(
        &self,
        of: Linear<'_>,
        x: Slice<'_>,
        bias: Option<Slice<'_>>,
        residual: Option<Slice<'_>>,
        y: SliceMut<'_>,
    ) -> Result<()> {
        let Linear { n, inner, out, weight, precision } = of;
        let (a, _kept) = self.operand(Matrix::new(x.card().at(), n, inner), n * inner, precision)?;
        let w = self.weight(weight.card(), out, inner, precision)?;
        let at = |values: Option<Slice<'_>>| values.map(|values| values.card().at());
        let plus = Plus { matrix: at(residual), row: at(bias) };
        self.product(Matrix::new(y.card().at(), n, out), plus, a, w.t(), 1)
    }

    fn linear_backward(
        &self,
        of: Linear<'_>,
        x: Slice<'_>,
        gy: Slice<'_>,
        gw: (SliceMut<'_>, bool),
        gx: (SliceMut<'_>, bool),
    ) -> Result<()> {
        let Linear { n, inner, out, weight, precision } = of;
        if n == 0 {
            return if gw.1 { Ok(()) } else { self.clear(gw.0) };
        }
        let (g, _gradient) = self.operand(Matrix::new(gy.card().at(), n, out), n * out, precision)?;
        let (x, _kept) = self.operand(Matrix::new(x.card().at(), n, inner), n * inner, precision)?;
        let w = self.weight(weight.card(), out, inner, precision)?;
        self.product_onto(Matrix::new(gw.0.card().at(), out, inner), gw.1, g.t(), x, 1)?;
        self.product_onto(Matrix::new(gx.0.card().at(), n, inner), gx.1, g, w, 1)
    }

    fn layer_norm(
        &self,
        of: LayerNorm<'_>,
        d: usize,
        x: Slice<'_>,
        residual: Option<Slice<'_>>,
        y: SliceMut<'_>,
        stats: SliceMut<'_>,
    ) -> Result<()> {
        let (x, residual) = (x.card(), residual.map(Slice::card));
        let (n, drop) = (x.len() / d, self.dropping(of.drop)?);
        let [gamma, beta] = [of.affine.map(|affine| affine.0.card()), of.affine.map(|affine| affine.1.card())];
        let operands = arguments![n, d, x, gamma, beta, residual, drop, of.eps, y.card(), stats.card()];
        self.launch("layer_norm", grid(n.div_ceil(4), 1, 128), operands)
    }

    fn layer_norm_backward(
        &self,
        of: LayerNorm<'_>,
        d: usize,
        x: Slice<'_>,
        stats: Slice<'_>,
        gy: Slice<'_>,
        gx: SliceMut<'_>,
        add: bool,
        affine: Option<(SliceMut<'_>, SliceMut<'_>)>,
    ) -> Result<()> {
        let (x, stats, gy) = (x.card(), stats.card(), gy.card());
        let (n, drop) = (x.len() / d, self.dropping(of.drop)?);
        let gamma = of.affine.map(|affine| affine.0.card());
        let operands = arguments![n, d, x, stats, gamma, drop.clone(), gy, gx.card(), u32::from(add)];
        self.launch("layer_norm_backward", grid(n.div_ceil(4), 1, 128), operands)?;
        let Some((ggamma, gbeta)) = affine else { return Ok(()) };
        let blocks = n.div_ceil(COLUMN_ROWS);
        let [of_gamma, of_beta] = [self.floats(blocks * d)?, self.floats(blocks * d)?];
        let operands = arguments![n, d, x, stats, drop, gy, of_gamma.at, of_beta.at];
        self.launch("layer_norm_backward_affine", grid(d.div_ceil(128), blocks, 128), operands)?;
        for (partials, mut sums) in [(of_gamma, ggamma), (of_beta, gbeta)] {
            self.clear(sums.all())?;
            self.add_partials(blocks, d, partials.at, sums.card().at())?;
        }
        Ok(())
    }

    fn rms_norm(
        &self,
        d: usize,
        eps: f32,
        x: Slice<'_>,
        w: Slice<'_>,
        y: SliceMut<'_>,
        stats: SliceMut<'_>,
    ) -> Result<()> {
        let x = x.card();
        let n = x.len() / d;
        let operands = arguments![n, d, x, w.card(), eps, y.card(), stats.card()];
        self.launch("rms_norm", grid(n.div_ceil(4), 1, 128), operands)
    }

    fn rms_norm_backward(
        &self,
        d: usize,
        x: Slice<'_>,
        w: Slice<'_>,
        stats: Slice<'_>,
        gy: Slice<'_>,
        gx: SliceMut<'_>,
        add: bool,
        gw: SliceMut<'_>,
    ) -> Result<()> {
        let (x, stats, gy) = (x.card(), stats.card(), gy.card());
        let (n, blocks) = (x.len() / d, (x.len() / d).div_ceil(COLUMN_ROWS));
        let operands = arguments![n, d, x, w.card(), stats, gy, gx.card(), u32::from(add)];
        self.launch("rms_norm_backward", grid(n.div_ceil(4), 1, 128), operands)?;
        let partials = self.floats(blocks * d)?;
        let operands = arguments![n, d, x, stats, gy, partials.at];
        self.launch("rms_norm_backward_weight", grid(d.div_ceil(128), blocks, 128), operands)?;
        self.add_partials(blocks, d, partials.at, gw.card().at())
    }

    fn rope(
        &self,
        table: &Arc<Table>,
        heads: usize,
        positions: &Arc<[u32]>,
        qkv: SliceMut<'_>,
        inverse: bool,
    ) -> Result<()> {
        let (places, [cosines, sines]) = (self.list(positions, What::List)?.at, self.table(table)?);
        let (d, half) = (table.width() * heads, table.width() / 2);
        let operands = arguments![d, half, places, cosines, sines, u32::from(inverse), qkv.card()];
        self.launch("rope", grid(positions.len(), 1, 128), operands)
    }

    fn attention(&self, spec: Spec, of: Attended<'_>, o: SliceMut<'_>, stats: SliceMut<'_>) -> Result<()> {
        self.attend(spec, of, o.card(), stats.card())
    }

    fn attention_backward(&self, spec: Spec, of: Attended<'_>, backward: AttentionBackward<'_>) -> Result<()> {
        self.attend_backward(spec, of, backward)
    }

    /// On the host, with a copy: generating has a few rows at a time, and the kept ones are there.
    fn attention_over(&self, past: &mut Past, heads: usize, scale: f32, qkv: Slice<'_>, o: SliceMut<'_>) -> Result<()> {
        let (qkv, o) = (qkv.read()?, o.card());
        let mut values = vec![0.0; o.len()];
        past::attend(past, heads, scale, &qkv, &mut values);
        self.driver.write(o.at(), bytemuck::cast_slice(&values))
    }

    fn geglu_norm(&self, width: usize, eps: f32, ug: Slice<'_>, z: SliceMut<'_>, stats: SliceMut<'_>) -> Result<()> {
        let (ug, z) = (ug.card(), z.card());
        let n = z.len() / width;
        self.launch("geglu_norm", grid(n.div_ceil(4), 1, 128), arguments![n, width, ug, eps, z, stats.card()])
    }

    fn geglu_norm_backward(
        &self,
        width: usize,
        ug: Slice<'_>,
        z: Slice<'_>,
        stats: Slice<'_>,
        gz: Slice<'_>,
        gug: SliceMut<'_>,
    ) -> Result<()> {
        let gz = gz.card();
        let n = gz.len() / width;
        let operands = arguments![n, width, ug.card(), z.card(), stats.card(), gz, gug.card()];
        self.launch("geglu_norm_backward", grid(n.div_ceil(4), 1, 128), operands)
    }

    fn swiglu(&self, width: usize, gu: Slice<'_>, y: SliceMut<'_>) -> Result<()> {
        let y = y.card();
        self.launch("swiglu", grid(y.len() / width, 1, 256), arguments![width, gu.card(), y])
    }

    fn swiglu_backward(&self, width: usize, gu: Slice<'_>, gy: Slice<'_>, ggu: SliceMut<'_>) -> Result<()> {
        let gy = gy.card();
        self.launch("swiglu_backward", grid(gy.len() / width, 1, 256), arguments![width, gu.card(), gy, ggu.card()])
    }

    fn gelu(&self, x: Slice<'_>, y: SliceMut<'_>) -> Result<()> {
        let x = x.card();
        self.launch("gelu", any(x.len()), arguments![x.len() as u64, x, y.card()])
    }

    fn gelu_backward(&self, x: Slice<'_>, gy: Slice<'_>, gx: SliceMut<'_>) -> Result<()> {
        let x = x.card();
        self.launch("gelu_backward", any(x.len()), arguments![x.len() as u64, x, gy.card(), gx.card()])
    }

    fn dropout_add(
        &self,
        d: usize,
        drop: Dropping<'_>,
        x: Slice<'_>,
        residual: Option<Slice<'_>>,
        y: SliceMut<'_>,
    ) -> Result<()> {
        let x = x.card();
        let n = x.len() / d;
        let operands = arguments![n, d, self.dropping(drop)?, x, residual.map(Slice::card), y.card()];
        self.launch("dropout_add", any(n * d.div_ceil(8)), operands)
    }

    fn classifier_loss(
        &self,
        layer: Classifier<'_>,
        x: Slice<'_>,
        targets: &[u32],
        nll: &mut [f32],
        grads: Option<ClassifierGrads<'_>>,
        logits: &mut Buffer,
    ) -> Result<()> {
        self.classify(layer, x.card(), targets, nll, grads, logits)
    }

    fn update(&self, optimizer: &Optimizer, layout: &Layout, of: Trained<'_>, at: Update) -> Result<()> {
        self.optimize(optimizer, layout, of, at)
    }

    fn norm(&self, x: Slice<'_>) -> Result<f64> {
        self.norm_of(x.card())
    }
}
