//! The operations on the CPU: `kernels` and `optim`, given slices of this process's memory.

use std::sync::Arc;

use super::{
    Attended, AttentionBackward, Buffer, Classifier, ClassifierGrads, Dropping, LayerNorm, Linear, Operations, Slice,
    SliceMut, Trained,
};
use crate::Result;
use crate::kernels::attention::{self, Backward, Operands, Spec};
use crate::kernels::classifier;
use crate::kernels::lines::Lines;
use crate::kernels::matmul::{Into, Mat, MatMut, Threads, matmul};
use crate::kernels::past::{self, Past};
use crate::kernels::rope::{self, Table};
use crate::kernels::{self, activation, norm};
use crate::optim::{self, Optimizer, Update};
use crate::params::Layout;

/// The CPU.
#[derive(Debug)]
pub struct Cpu;

impl Operations for Cpu {
    fn has(&self, x: Slice<'_>) -> bool {
        matches!(x, Slice::Host(_))
    }

    fn room(&self, len: usize) -> Result<Buffer> {
        Ok(Buffer::Host(Lines::with_capacity(len)))
    }

    fn buffer(&self, values: Vec<f32>) -> Result<Buffer> {
        Ok(values.into())
    }

    fn clear(&self, x: SliceMut<'_>) -> Result<()> {
        kernels::clear(x.host());
        Ok(())
    }

    fn copy(&self, from: Slice<'_>, to: SliceMut<'_>) -> Result<()> {
        to.host().copy_from_slice(from.host());
        Ok(())
    }

    fn add_assign(&self, y: SliceMut<'_>, x: Slice<'_>) -> Result<()> {
        kernels::add_assign(y.host(), x.host());
        Ok(())
    }

    fn add_column_sums(&self, x: Slice<'_>, sums: SliceMut<'_>) -> Result<()> {
        kernels::add_column_sums(x.host(), sums.host());
        Ok(())
    }

    fn gather_rows(&self, d: usize, table: Slice<'_>, ids: &Arc<[u32]>, y: SliceMut<'_>) -> Result<()> {
        let (table, y) = (table.host(), y.host());
        y.chunks_exact_mut(d).zip(ids.iter()).for_each(|(y, &id)| y.copy_from_slice(&table[id as usize * d..][..d]));
        Ok(())
    }

    fn scatter_rows(&self, d: usize, gy: Slice<'_>, ids: &Arc<[u32]>, gtable: SliceMut<'_>) -> Result<()> {
        let gtable = gtable.host();
        for (gy, &id) in gy.host().chunks_exact(d).zip(ids.iter()) {
            gtable[id as usize * d..][..d].iter_mut().zip(gy).for_each(|(g, x)| *g += x);
        }
        Ok(())
    }

    fn linear(
        &self,
        of: Linear<'_>,
        x: Slice<'_>,
        bias: Option<Slice<'_>>,
        residual: Option<Slice<'_>>,
        y: SliceMut<'_>,
    ) -> Result<()> {
        let (Linear { n, inner, out, weight, precision }, y) = (of, y.host());
        let (bias, residual) = (bias.map(Slice::host), residual.map(Slice::host));
        let into = if bias.or(residual).is_some() { Into::Add } else { Into::Write };
        kernels::start_sums(y, bias, residual);
        let (a, w) = (Mat::new(x.host(), n, inner), Mat::new(weight.host(), out, inner));
        matmul(MatMut::new(y, n, out), into, precision, a, w.t(), Threads::All);
        Ok(())
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
        let (g, into) = (Mat::new(gy.host(), n, out), |add| if add { Into::Add } else { Into::Write });
        let (x, w) = (Mat::new(x.host(), n, inner), Mat::new(weight.host(), out, inner));
        matmul(MatMut::new(gw.0.host(), out, inner), into(gw.1), precision, g.t(), x, Threads::All);
        matmul(MatMut::new(gx.0.host(), n, inner), into(gx.1), precision, g, w, Threads::All);
        Ok(())
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
        norm::layer_norm(of.host(), d, x.host(), residual.map(Slice::host), y.host(), stats.host());
        Ok(())
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
        let affine = affine.map(|(gamma, beta)| {
            let (gamma, beta) = (gamma.host(), beta.host());
            gamma.fill(0.0);
            beta.fill(0.0);
            (gamma, beta)
        });
        norm::layer_norm_backward(of.host(), d, x.host(), stats.host(), gy.host(), gx.host(), add, affine);
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
        norm::rms_norm(d, eps, x.host(), w.host(), y.host(), stats.host());
        Ok(())
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
        norm::rms_norm_backward(d, x.host(), w.host(), stats.host(), gy.host(), gx.host(), add, gw.host());
        Ok(())
    }

    fn rope(
        &self,
        table: &Arc<Table>,
        heads: usize,
        positions: &Arc<[u32]>,
        qkv: SliceMut<'_>,
        inverse: bool,
    ) -> Result<()> {
        rope::rope(table, table.width() * heads, heads, positions, qkv.host(), inverse);
        Ok(())
    }

    fn attention(&self, spec: Spec, of: Attended<'_>, o: SliceMut<'_>, stats: SliceMut<'_>) -> Result<()> {
        attention::attention(spec, of.host(), o.host(), stats.host());
        Ok(())
    }

    fn attention_backward(&self, spec: Spec, of: Attended<'_>, backward: AttentionBackward<'_>) -> Result<()> {
        let AttentionBackward { o, stats, go, gqkv, gpositions } = backward;
        let (o, stats, go) = (o.host(), stats.host(), go.host());
        let backward = Backward { o, stats, go, gqkv: gqkv.host(), gpositions: gpositions.map(SliceMut::host) };
        attention::attention_backward(spec, of.host(), backward);
        Ok(())
    }

    fn attention_over(&self, past: &mut Past, heads: usize, scale: f32, qkv: Slice<'_>, o: SliceMut<'_>) -> Result<()> {
        past::attend(past, heads, scale, qkv.host(), o.host());
        Ok(())
    }

    fn geglu_norm(&self, width: usize, eps: f32, ug: Slice<'_>, z: SliceMut<'_>, stats: SliceMut<'_>) -> Result<()> {
        activation::geglu_norm(width, eps, ug.host(), z.host(), stats.host());
        Ok(())
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
        activation::geglu_norm_backward(width, ug.host(), z.host(), stats.host(), gz.host(), gug.host());
        Ok(())
    }

    fn swiglu(&self, width: usize, gu: Slice<'_>, y: SliceMut<'_>) -> Result<()> {
        activation::swiglu(width, gu.host(), y.host());
        Ok(())
    }

    fn swiglu_backward(&self, width: usize, gu: Slice<'_>, gy: Slice<'_>, ggu: SliceMut<'_>) -> Result<()> {
        activation::swiglu_backward(width, gu.host(), gy.host(), ggu.host());
        Ok(())
    }

    fn gelu(&self, x: Slice<'_>, y: SliceMut<'_>) -> Result<()> {
        activation::gelu_forward(x.host(), y.host());
        Ok(())
    }

    fn gelu_backward(&self, x: Slice<'_>, gy: Slice<'_>, gx: SliceMut<'_>) -> Result<()> {
        activation::gelu_backward(x.host(), gy.host(), gx.host());
        Ok(())
    }

    fn dropout_add(
        &self,
        d: usize,
        drop: Dropping<'_>,
        x: Slice<'_>,
        residual: Option<Slice<'_>>,
        y: SliceMut<'_>,
    ) -> Result<()> {
        activation::dropout_add(d, drop, x.host(), residual.map(Slice::host), y.host());
        Ok(())
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
        let Classifier { d, table, bias, precision } = layer;
        let layer = classifier::Classifier { d, table: table.host(), bias: bias.map(Slice::host), precision };
        let grads = grads.map(|of| {
            let ClassifierGrads { x, table, add, bias, weight, z } = of;
            classifier::Grads { x: x.host(), table: table.host(), add, bias: bias.map(SliceMut::host), weight, z }
        });
        classifier::classifier_loss(layer, x.host(), targets, nll, grads, logits.lines());
        Ok(())
    }

    fn update(&self, optimizer: &Optimizer, layout: &Layout, of: Trained<'_>, at: Update) -> Result<()> {
        let Trained { params, grads, m, v, average } = of;
        let average = average.map(|(values, decay)| (values.host(), decay));
        let of = optim::State { params: params.host(), grads: grads.host(), m: m.host(), v: v.host(), average };
        optimizer.step(layout, of, at)
    }

    fn norm(&self, x: Slice<'_>) -> Result<f64> {
        Ok(optim::global_norm(x.host()))
    }
}

impl<'a> LayerNorm<'a> {
    fn host(self) -> norm::LayerNorm<'a> {
        let affine = self.affine.map(|(gamma, beta)| (gamma.host(), beta.host()));
        norm::LayerNorm { eps: self.eps, affine, drop: self.drop }
    }
}

impl<'a> Attended<'a> {
    fn host(self) -> Operands<'a> {
        Operands {
            qkv: self.qkv.host(),
            positions: self.positions.map(Slice::host),
            bounds: self.bounds,
            precision: self.precision,
        }
    }
}
