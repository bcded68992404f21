//! The narrow waist of the engine: all that tape, optimisers and loop ask of the machine that computes. [`Operations`] has
//! one function for each fused operation and each of their backwards; [`Device`] says who carries them out.
//!
//! Above it nobody knows which device it is: values are [`Buffer`]s of its memory, operands [`Slice`]s of them. Shapes have
//! been checked before (by the tape), so these functions may rely on them.

use std::ops::Deref;
use std::sync::Arc;

use crate::Result;
use crate::kernels::attention::Spec;
use crate::kernels::bf16;
use crate::kernels::dropout::{Rows, Site};
use crate::kernels::past::Past;
use crate::kernels::rope::Table;
use crate::optim::{Optimizer, Update};
use crate::params::Layout;

mod choice;
mod cpu;
pub mod cuda;
mod memory;

pub use crate::kernels::matmul::Precision;
pub use choice::Choice;
pub use memory::{Buffer, Slice, SliceMut};

/// What carries out the operations.
#[derive(Clone, Debug, Default)]
pub enum Device {
    /// This machine's processor, by [`kernels`](crate::kernels).
    #[default]
    Cpu,
    /// An NVIDIA card.
    Cuda(Arc<cuda::Cuda>),
}

impl Device {
    /// `cpu` or `cuda`: what decides the last bits of results, whichever card it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
        }
    }

    /// Whether it multiplies bf16 numbers faster than f32 ones.
    pub fn multiplies_bf16(&self) -> bool {
        match self {
            Device::Cpu => bf16::quicker(),
            Device::Cuda(_) => true,
        }
    }

    /// The name of the arithmetic that products have on it: those of one name have the same bits on processors, or cards, of one
    /// kind; those of two names have others.
    pub fn arithmetic(&self, precision: Precision) -> &'static str {
        match (precision, self) {
            (Precision::F32, _) => "f32",
            (Precision::Bf16, Device::Cpu) => bf16::arithmetic(),
            (Precision::Bf16, Device::Cuda(_)) => "bf16-cuda",
        }
    }

    /// Bytes of a card's memory, free ones and all; of the CPU none.
    ///
    /// # Errors
    /// The card's.
    pub fn memory(&self) -> Result<Option<(u64, u64)>> {
        match self {
            Device::Cpu => Ok(None),
            Device::Cuda(cuda) => cuda.driver().room().map(Some),
        }
    }
}

impl Deref for Device {
    type Target = dyn Operations;

    fn deref(&self) -> &(dyn Operations + 'static) {
        match self {
            Device::Cpu => &cpu::Cpu,
            Device::Cuda(cuda) => &**cuda,
        }
    }
}

impl std::fmt::Display for Device {
    /// As on the command line: `cpu`, `cuda:0`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(cuda) => f.write_str(&cuda.driver().name()),
        }
    }
}

/// A dropout: where in the step, and of which of its rows.
pub type Dropping<'a> = Option<(Site, &'a Rows)>;

/// What a layer norm does besides: y = residual + drop(γ x̂ + β).
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// Added to the variance.
    pub eps: f32,
    /// γ and β, `[d]` each; without them y = x̂.
    pub affine: Option<(Slice<'a>, Slice<'a>)>,
    /// Dropout of the result, before the residual is added.
    pub drop: Dropping<'a>,
}

/// A product with a weight: `[n, inner]` times `[out, inner]` transposed.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// Rows.
    pub n: usize,
    /// Columns that come in.
    pub inner: usize,
    /// Columns that go out.
    pub out: usize,
    /// `[out, inner]`.
    pub weight: Slice<'a>,
    /// The numbers that are multiplied.
    pub precision: Precision,
}

/// The operands of attention.
#[derive(Clone, Copy, Debug)]
pub struct Attended<'a> {
    /// `[q|k|v]: [n, 3 d]`.
    pub qkv: Slice<'a>,
    /// Projected positions `[qᵖ|kᵖ]: [63, 2 d]`.
    pub positions: Option<Slice<'a>>,
    /// Starts of the segments, and `n` at the end.
    pub bounds: &'a Arc<[u32]>,
    /// The numbers that are multiplied.
    pub precision: Precision,
}

/// What attention's forward pass left, the gradient that comes in, and where those of its operands go.
#[derive(Debug)]
pub struct AttentionBackward<'a> {
    /// Its result, `[n, d]`.
    pub o: Slice<'a>,
    /// What it kept.
    pub stats: Slice<'a>,
    /// Gradient of `o`.
    pub go: Slice<'a>,
    /// Gradient of `qkv`, `[n, 3 d]`: written.
    pub gqkv: SliceMut<'a>,
    /// Gradient of `positions`, `[63, 2 d]`: written.
    pub gpositions: Option<SliceMut<'a>>,
}

/// The output layer.
#[derive(Clone, Copy, Debug)]
pub struct Classifier<'a> {
    /// Width of the rows.
    pub d: usize,
    /// `[V, d]`.
    pub table: Slice<'a>,
    /// `[V]`.
    pub bias: Option<Slice<'a>>,
    /// The numbers that are multiplied.
    pub precision: Precision,
}

/// Where the loss leaves its gradients.
#[derive(Debug)]
pub struct ClassifierGrads<'a> {
    /// Gradient of the rows, `[m, d]`: written.
    pub x: SliceMut<'a>,
    /// Gradient of the table, `[V, d]`.
    pub table: SliceMut<'a>,
    /// Whether the table's gradient is added to what is there, or written over it.
    pub add: bool,
    /// Gradient of the bias, `[V]`: added to.
    pub bias: Option<SliceMut<'a>>,
    /// Factor of every row's gradient.
    pub weight: f32,
    /// Coefficient of the z-loss.
    pub z: f32,
}

/// The parameters, their gradient and what an optimiser keeps of them, as [`optim::State`](crate::optim::State) has them.
#[derive(Debug)]
pub struct Trained<'a> {
    /// Parameters.
    pub params: SliceMut<'a>,
    /// Gradient.
    pub grads: Slice<'a>,
    /// First moments.
    pub m: SliceMut<'a>,
    /// Second moments.
    pub v: SliceMut<'a>,
    /// The moving average of the parameters, and its decay.
    pub average: Option<(SliceMut<'a>, f64)>,
}

/// The operations of a device. All operands are of its memory. Where gradients come in two ways, `add` says that they are
/// added to what is there; otherwise they are written.
///
/// # Errors
/// Those of a card: no memory left, or lost. The CPU has none.
pub trait Operations: Send + Sync + std::fmt::Debug {
    /// Whether these values are in its memory.
    fn has(&self, x: Slice<'_>) -> bool;
    /// Memory for at least `len` values, with none in it yet.
    fn room(&self, len: usize) -> Result<Buffer>;
    /// These values in the device's memory; they move there, or stay where they are.
    fn buffer(&self, values: Vec<f32>) -> Result<Buffer>;
    /// Sets everything to 0.
    fn clear(&self, x: SliceMut<'_>) -> Result<()>;
    /// `to` becomes `from`, which is as long.
    fn copy(&self, from: Slice<'_>, to: SliceMut<'_>) -> Result<()>;
    /// y += x.
    fn add_assign(&self, y: SliceMut<'_>, x: Slice<'_>) -> Result<()>;
    /// Adds the column sums of `x: [n, cols]` to `sums: [cols]`.
    fn add_column_sums(&self, x: Slice<'_>, sums: SliceMut<'_>) -> Result<()>;

    /// y = rows `ids` of `table: [_, d]`: `[ids, d]`.
    fn gather_rows(&self, d: usize, table: Slice<'_>, ids: &Arc<[u32]>, y: SliceMut<'_>) -> Result<()>;
    /// Adds the rows of `gy: [ids, d]` to the rows `ids` of `gtable: [_, d]`, in their order.
    fn scatter_rows(&self, d: usize, gy: Slice<'_>, ids: &Arc<[u32]>, gtable: SliceMut<'_>) -> Result<()>;

    /// y = x Wᵀ (+ bias) (+ residual): `x: [n, inner]`, `y: [n, out]`.
    fn linear(
        &self,
        of: Linear<'_>,
        x: Slice<'_>,
        bias: Option<Slice<'_>>,
        residual: Option<Slice<'_>>,
        y: SliceMut<'_>,
    ) -> Result<()>;
    /// From `gy: [n, out]` to `gw: [out, inner]` and `gx: [n, inner]`, each with its `add`.
    fn linear_backward(
        &self,
        of: Linear<'_>,
        x: Slice<'_>,
        gy: Slice<'_>,
        gw: (SliceMut<'_>, bool),
        gx: (SliceMut<'_>, bool),
    ) -> Result<()>;

    /// `x: [n, d]` -> `y: [n, d]`; keeps mean and 1/σ of each row in `stats: [n, 2]`.
    fn layer_norm(
        &self,
        of: LayerNorm<'_>,
        d: usize,
        x: Slice<'_>,
        residual: Option<Slice<'_>>,
        y: SliceMut<'_>,
        stats: SliceMut<'_>,
    ) -> Result<()>;
    /// From `gy: [n, d]` to `gx: [n, d]`; the gradients of γ and β, `[d]` each, are written.
    #[expect(clippy::too_many_arguments, reason = "the operands of one operation")]
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
    ) -> Result<()>;
    /// y = w x / √(mean(x²) + eps) over rows of `d`; keeps 1/rms of each in `stats: [n]`.
    fn rms_norm(
        &self,
        d: usize,
        eps: f32,
        x: Slice<'_>,
        w: Slice<'_>,
        y: SliceMut<'_>,
        stats: SliceMut<'_>,
    ) -> Result<()>;
    /// From `gy: [n, d]` to `gx: [n, d]`; `gw: [d]` is added to.
    #[expect(clippy::too_many_arguments, reason = "the operands of one operation")]
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
    ) -> Result<()>;

    /// Turns q and k of `qkv: [n, 3 d]` by their positions, in place, or back when `inverse`.
    fn rope(
        &self,
        table: &Arc<Table>,
        heads: usize,
        positions: &Arc<[u32]>,
        qkv: SliceMut<'_>,
        inverse: bool,
    ) -> Result<()>;
    /// Attention over packed segments: `o: [n, d]`; keeps two numbers of each row and head in `stats: [n, heads, 2]`.
    fn attention(&self, spec: Spec, of: Attended<'_>, o: SliceMut<'_>, stats: SliceMut<'_>) -> Result<()>;
    /// Its backward.
    fn attention_backward(&self, spec: Spec, of: Attended<'_>, backward: AttentionBackward<'_>) -> Result<()>;
    /// Attention of new rows `qkv: [m, 3 d]` over those kept in `past` and themselves: `o: [m, d]`. There is no backward.
    fn attention_over(&self, past: &mut Past, heads: usize, scale: f32, qkv: Slice<'_>, o: SliceMut<'_>) -> Result<()>;

    /// `[u|g]: [n, 2 width]` -> z = LN₀(u ⊙ gelu_tanh(g)): `[n, width]`; keeps 1/σ in `stats: [n]`.
    fn geglu_norm(&self, width: usize, eps: f32, ug: Slice<'_>, z: SliceMut<'_>, stats: SliceMut<'_>) -> Result<()>;
    /// Writes `gug: [n, 2 width]`.
    fn geglu_norm_backward(
        &self,
        width: usize,
        ug: Slice<'_>,
        z: Slice<'_>,
        stats: Slice<'_>,
        gz: Slice<'_>,
        gug: SliceMut<'_>,
    ) -> Result<()>;
    /// `[gate|up]: [n, 2 width]` -> silu(gate) ⊙ up: `[n, width]`.
    fn swiglu(&self, width: usize, gu: Slice<'_>, y: SliceMut<'_>) -> Result<()>;
    /// Writes `ggu: [n, 2 width]`.
    fn swiglu_backward(&self, width: usize, gu: Slice<'_>, gy: Slice<'_>, ggu: SliceMut<'_>) -> Result<()>;
    /// Exact GELU, element by element.
    fn gelu(&self, x: Slice<'_>, y: SliceMut<'_>) -> Result<()>;
    /// Writes `gx`.
    fn gelu_backward(&self, x: Slice<'_>, gy: Slice<'_>, gx: SliceMut<'_>) -> Result<()>;
    /// y = residual + drop(x) over rows of `d`. Backward: the same with `x = gy` and no residual.
    fn dropout_add(
        &self,
        d: usize,
        drop: Dropping<'_>,
        x: Slice<'_>,
        residual: Option<Slice<'_>>,
        y: SliceMut<'_>,
    ) -> Result<()>;

    /// -log p(target) of every row of `x: [m, d]` into `nll: [m]`, and the gradients if wanted. `logits` is made longer
    /// where it has to be, and kept by the caller to be used again.
    fn classifier_loss(
        &self,
        layer: Classifier<'_>,
        x: Slice<'_>,
        targets: &[u32],
        nll: &mut [f32],
        grads: Option<ClassifierGrads<'_>>,
        logits: &mut Buffer,
    ) -> Result<()>;

    /// One update of all parameters in place; see [`Optimizer::step`].
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the buffers do not have the layout's length, or the update is number 0.
    fn update(&self, optimizer: &Optimizer, layout: &Layout, of: Trained<'_>, at: Update) -> Result<()>;
    /// The Euclidean norm of all values.
    fn norm(&self, x: Slice<'_>) -> Result<f64>;
}
