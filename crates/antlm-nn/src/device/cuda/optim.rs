//! The optimisers' updates and the norm of a gradient on the card.

use super::driver::{Argument, arguments};
use super::{Cuda, View, grid, lock};
use crate::Result;
use crate::device::Trained;
use crate::optim::{Optimizer, Rule, Update};
use crate::params::Layout;

/// Values of a piece of a tensor, and of a stretch of squares (optim.cu).
const PIECE: usize = 4096;

/// A layout as the kernels read it, one part behind the other: pieces, the first piece of each tensor (and their number),
/// which tensors decay.
fn pieces(layout: &Layout) -> Vec<u32> {
    let (mut words, mut firsts) = (Vec::new(), vec![0]);
    for (number, tensor) in layout.tensors().iter().enumerate() {
        for start in (0..tensor.len()).step_by(PIECE) {
            let at = (tensor.offset + start) as u64;
            words.extend([at as u32, (at >> 32) as u32, PIECE.min(tensor.len() - start) as u32, number as u32]);
        }
        firsts.push(words.len() as u32 / 4);
    }
    words.extend(firsts);
    words.extend(layout.tensors().iter().map(|tensor| u32::from(tensor.decay)));
    words
}

/// `struct Coefficients` of optim.cu: the CPU's, which are worked out in f64.
fn coefficients(optimizer: &Optimizer, at: Update) -> Argument {
    let (beta1, beta2, t) = (optimizer.beta1, optimizer.beta2, at.t.min(i32::MAX as u64) as i32);
    let numbers = [
        beta1,
        beta2,
        1.0 - beta1,
        1.0 - beta2,
        1.0 / (1.0 - beta1.powi(t)),
        1.0 / (1.0 - beta2.powi(t)),
        optimizer.eps,
        optimizer.weight_decay,
        at.lr,
        1.0 - at.lr * optimizer.weight_decay,
    ];
    Argument(numbers.iter().flat_map(|&number| (number as f32).to_le_bytes()).collect())
}

/// `struct Written` of optim.cu: addresses, 0 for what there is not, and the average's part.
fn written(w: View<'_>, mirror: Option<u64>, average: Option<View<'_>>, part: f32) -> Argument {
    let addresses = [w.at(), mirror.unwrap_or(0), average.map_or(0, |average| average.at())];
    let mut bytes: Vec<u8> = addresses.iter().flat_map(|at| at.to_le_bytes()).collect();
    bytes.extend(part.to_le_bytes());
    bytes.extend([0; 4]);
    Argument(bytes)
}

impl Cuda {
    /// Where the layout's pieces are, and how many.
    fn pieces(&self, layout: &Layout) -> Result<(u64, usize)> {
        let count = layout.tensors().iter().map(|tensor| tensor.len().div_ceil(PIECE)).sum();
        let mut kept = lock(&self.kept);
        if let Some((of, at)) = &kept.pieces
            && of == layout
        {
            return Ok((*at, count));
        }
        let at = self.put(&pieces(layout))?;
        if let Some((_, old)) = kept.pieces.replace((layout.clone(), at)) {
            self.driver.free(old);
        }
        Ok((at, count))
    }

    /// See [`Operations::update`](crate::device::Operations::update). LAMB's norms and rates stay on the card.
    pub(super) fn optimize(&self, optimizer: &Optimizer, layout: &Layout, of: Trained<'_>, at: Update) -> Result<()> {
        let (w, g, m, v) = (of.params.card(), of.grads.card(), of.m.card(), of.v.card());
        Optimizer::check(layout, &[w.len(), g.len(), m.len(), v.len()], at)?;
        let (average, part) = match of.average {
            Some((average, decay)) => (Some(average.card()), (1.0 - decay) as f32),
            None => (None, 0.0),
        };
        Optimizer::check(layout, average.map(|average| average.len()).as_slice(), at)?;
        let (pieces, count) = self.pieces(layout)?;
        let tensors = layout.tensors().len();
        let firsts = pieces + 16 * count as u64;
        let decay = firsts + 4 * (tensors as u64 + 1);
        let scale = self.numbers(&[at.grad_scale])?;
        let (k, all) = (coefficients(optimizer, at), grid(count, 1, 256));
        let mirror = w.mirror_to_write();
        let weights = written(w, mirror, average, part);
        match optimizer.rule {
            Rule::AdamW => self.launch("adamw", all, arguments![k, pieces, decay, scale.at, weights, g, m, v])?,
            Rule::Lamb => {
                let (squares, rates) = (self.scratch(16 * count)?, self.floats(tensors)?);
                let operands = arguments![k.clone(), pieces, decay, scale.at, weights.clone(), g, m, v, squares.at];
                self.launch("lamb_moments", all, operands)?;
                let operands = arguments![firsts, squares.at, at.lr, rates.at];
                self.launch("lamb_rates", grid(tensors, 1, 32), operands)?;
                self.launch("lamb_step", all, arguments![k, pieces, decay, rates.at, weights, m, v])?;
            }
        }
        if mirror.is_some() {
            w.mirror_is_fresh();
        }
        Ok(())
    }

    /// The Euclidean norm. It comes to the host, where a step is judged by it before anything changes; so the clip's factor
    /// is the host's, too, and what the kernel makes of it is not used.
    pub(super) fn norm_of(&self, x: View<'_>) -> Result<f64> {
        let count = x.len().div_ceil(PIECE);
        let (squares, norm, factor) = (self.scratch(8 * count)?, self.scratch(8)?, self.floats(1)?);
        self.launch("sums_of_squares", grid(count, 1, 256), arguments![x.len() as u64, x, squares.at])?;
        self.launch("clip_factor", grid(1, 1, 256), arguments![count, squares.at, 1.0f64, norm.at, factor.at])?;
        let mut bytes = [0; 8];
        self.driver.read(norm.at, &mut bytes)?;
        Ok(f64::from_le_bytes(bytes))
    }
}
