//! The output layer on the card: tiles of rows, as on the CPU.

use super::driver::{Matrix, arguments};
use super::{Cuda, View, grid};
use crate::Result;
use crate::device::{Buffer, Classifier, ClassifierGrads, Operations, Slice, SliceMut};
use crate::kernels::classifier::TILE;

impl Cuda {
    /// See [`Operations::classifier_loss`].
    pub(super) fn classify(
        &self,
        layer: Classifier<'_>,
        x: View<'_>,
        targets: &[u32],
        nll: &mut [f32],
        grads: Option<ClassifierGrads<'_>>,
        logits: &mut Buffer,
    ) -> Result<()> {
        let Classifier { d, precision, .. } = layer;
        let (table, bias) = (layer.table.card(), layer.bias.map(Slice::card));
        let (m, vocab) = (targets.len(), table.len() / d);
        if m == 0 {
            return match grads {
                Some(of) if !of.add => self.clear(of.table),
                _ => Ok(()),
            };
        }
        let tile = TILE.min(m) * vocab;
        if !matches!(logits, Buffer::Card(_)) || logits.capacity() < tile {
            *logits = self.room(tile)?;
        }
        logits.set_len(tile);
        let z = logits.slice().card().at();
        let (losses, targets) = (self.floats(m)?, self.numbers(targets)?);
        let (rows, _rows) = self.operand(Matrix::new(x.at(), m, d), m * d, precision)?;
        let table = self.weight(table, vocab, d, precision)?;
        let bytes = if rows.bf16 { 2 } else { 4 };
        let (weight, c) = grads.as_ref().map_or((0.0, 0.0), |grads| (grads.weight, grads.z));
        let with_grads = u32::from(grads.is_some());
        let to = grads.map(|of| (of.x.card(), of.table.card(), of.add, of.bias.map(SliceMut::card)));
        for start in (0..m).step_by(TILE) {
            let n = TILE.min(m - start);
            let x = Matrix { at: rows.at + (bytes * start * d) as u64, rows: n, ..rows };
            self.product_onto(Matrix::new(z, n, vocab), false, x, table.t(), 1)?;
            let at = |list: u64| list + 4 * start as u64;
            let operands = arguments![vocab, bias, at(targets.at), with_grads, weight, c, z, at(losses.at)];
            self.launch("cross_entropy", grid(n, 1, 512), operands)?;
            let Some((gx, gtable, add, gbias)) = to else { continue };
            let (gz, _gz) = self.operand(Matrix::new(z, n, vocab), n * vocab, precision)?;
            self.product_onto(Matrix::new(gx.at() + (4 * start * d) as u64, n, d), false, gz, table, 1)?;
            self.product_onto(Matrix::new(gtable.at(), vocab, d), add || start > 0, gz.t(), x, 1)?;
            if let Some(gbias) = gbias {
                self.column_sums(n, vocab, z, gbias.at())?;
            }
        }
        self.driver.read(losses.at, bytemuck::cast_slice_mut(nll))
    }
}
