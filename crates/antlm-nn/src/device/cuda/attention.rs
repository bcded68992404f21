//! Attention on the card: its kernels, and the products of queries and keys with the projected positions around them.

use super::driver::{Argument, Matrix, arguments};
use super::{Cuda, Grid, Scratch, View, What, error};
use crate::Result;
use crate::device::{Attended, AttentionBackward, Slice, SliceMut};
use crate::kernels::attention::Spec;
use crate::kernels::matmul::Precision;
use crate::relative::RELATIVE_ROWS;

/// Row length of tables with a column for each row of positions (relative.cuh).
const POSITIONS: usize = 64;

/// One pass: its operands on the card.
struct Pass<'a> {
    card: &'a Cuda,
    spec: Spec,
    /// Rows, and width of a head.
    n: usize,
    width: usize,
    qkv: View<'a>,
    positions: Option<View<'a>>,
    bounds: &'a std::sync::Arc<[u32]>,
    /// Queries' products with kᵖ and keys' with qᵖ, `[n, heads, 64]`.
    tables: Option<[Scratch<'a>; 2]>,
    /// Tensor cores do the products; then qkv in bf16.
    rounded: Option<Scratch<'a>>,
}

impl<'a> Pass<'a> {
    fn new(card: &'a Cuda, spec: Spec, of: Attended<'a>) -> Result<Pass<'a>> {
        let (qkv, positions) = (of.qkv.card(), of.positions.map(Slice::card));
        let (n, width) = (qkv.len() / (3 * spec.d), spec.d / spec.heads);
        if width > 128 {
            let what = format!("attention on a card has heads of at most 128 columns, and these have {width}");
            return Err(error(format!("{what}; train with more heads, or with --device cpu")));
        }
        // The backward pass has tensor cores for heads up to 64, and forward pass and backward pass go together.
        let rounded = match of.precision {
            Precision::Bf16 if width <= 64 => Some(card.rounded(qkv.at(), qkv.len())?),
            _ => None,
        };
        let mut pass = Pass { card, spec, n, width, qkv, positions, bounds: of.bounds, tables: None, rounded };
        if let Some(positions) = positions {
            let tables = [pass.room()?, pass.room()?];
            for (part, table) in tables.iter().enumerate() {
                // Queries with kᵖ, keys with qᵖ.
                let (rows, by) = (pass.part(pass.qkv.at(), part), pass.position_part(positions.at(), 1 - part));
                card.product_onto(pass.table(table), false, rows, by.t(), spec.heads)?;
            }
            pass.tables = Some(tables);
        }
        Ok(pass)
    }

    /// Room for a table by position.
    fn room(&self) -> Result<Scratch<'a>> {
        self.card.floats(self.n * self.spec.heads * POSITIONS)
    }

    /// A table, of each head: `[n, 63]`.
    fn table(&self, of: &Scratch<'_>) -> Matrix {
        Matrix::new(of.at, self.n, RELATIVE_ROWS).strided(self.spec.heads * POSITIONS, POSITIONS)
    }

    /// Part 0 = q, 1 = k, 2 = v of each head: `[n, width]`.
    fn part(&self, qkv: u64, part: usize) -> Matrix {
        let at = qkv + 4 * (part * self.spec.d) as u64;
        Matrix::new(at, self.n, self.width).strided(3 * self.spec.d, self.width)
    }

    /// Part 0 = qᵖ, 1 = kᵖ of each head: `[63, width]`.
    fn position_part(&self, positions: u64, part: usize) -> Matrix {
        let at = positions + 4 * (part * self.spec.d) as u64;
        Matrix::new(at, RELATIVE_ROWS, self.width).strided(2 * self.spec.d, self.width)
    }

    /// `struct Attention` of attention.cuh.
    fn argument(&self) -> Result<Argument> {
        let tables = self.tables.as_ref().map_or([0, 0], |tables| [tables[0].at, tables[1].at]);
        let tiles = self.card.list(self.bounds, What::Tiles(self.side()))?.at;
        let mut bytes: Vec<u8> = [tables[0], tables[1], tiles].into_iter().flat_map(u64::to_le_bytes).collect();
        let Spec { heads, d, scale, causal, drop } = self.spec;
        let words = [d as u32, heads as u32, scale.to_bits(), u32::from(causal)];
        bytes.extend(words.into_iter().flat_map(u32::to_le_bytes));
        let drop = match drop {
            Some((site, first)) => self.card.dropping_from(site, first, 0),
            None => self.card.dropping(None)?,
        };
        bytes.extend(drop.0);
        Ok(Argument(bytes))
    }

    /// Own rows of a block.
    fn side(&self) -> usize {
        if self.rounded.is_some() { 64 } else { 32 }
    }

    fn grid(&self, shared: usize) -> Result<Grid> {
        let tiles = self.card.list(self.bounds, What::Tiles(self.side()))?.count;
        Ok(Grid { x: tiles, y: self.spec.heads, threads: 128, shared })
    }

    /// Shared memory of the kernels in f32 (attention.cu, attention_backward.cu).
    fn shared(&self, own: usize, more: usize) -> usize {
        let padded = self.width.next_multiple_of(4);
        let stride = if (padded / 4).is_multiple_of(2) { padded + 4 } else { padded };
        4 * (own * padded + 64 * stride + more)
    }
}

impl Cuda {
    /// See [`Operations::attention`](crate::device::Operations::attention).
    pub(super) fn attend(&self, spec: Spec, of: Attended<'_>, o: View<'_>, stats: View<'_>) -> Result<()> {
        let pass = Pass::new(self, spec, of)?;
        let (kernel, shared, qkv) = match &pass.rounded {
            Some(qkv) => ("attention_bf16_64", 256 * (64 + 8), qkv.at),
            None if pass.width <= 64 => ("attention_64", pass.shared(32, 1024), pass.qkv.at()),
            None => ("attention_128", pass.shared(32, 1024), pass.qkv.at()),
        };
        self.launch(kernel, pass.grid(shared)?, arguments![pass.argument()?, qkv, o, stats])
    }

    /// See [`Operations::attention_backward`](crate::device::Operations::attention_backward).
    pub(super) fn attend_backward(&self, spec: Spec, of: Attended<'_>, backward: AttentionBackward<'_>) -> Result<()> {
        let AttentionBackward { o, stats, go, gqkv, gpositions } = backward;
        let (o, stats, go, gqkv) = (o.card(), stats.card(), go.card(), gqkv.card());
        let pass = Pass::new(self, spec, of)?;
        let rounded_go = pass.rounded.as_ref().map(|_| self.rounded(go.at(), go.len())).transpose()?;
        let ([queries, keys], shared, qkv, go) = match (&pass.rounded, &rounded_go) {
            (Some(qkv), Some(go)) => {
                let kernels = ["attention_bf16_backward_queries", "attention_bf16_backward_keys"];
                (kernels, 43_008, qkv.at, go.at)
            }
            _ if pass.width <= 64 => {
                let kernels = ["attention_backward_queries_64", "attention_backward_keys_64"];
                (kernels, pass.shared(64, 3072), pass.qkv.at(), go.at())
            }
            _ => {
                let kernels = ["attention_backward_queries_128", "attention_backward_keys_128"];
                (kernels, pass.shared(64, 3072), pass.qkv.at(), go.at())
            }
        };
        // `struct Saved` of attention_backward.cu.
        let saved = Argument([qkv, o.at(), go, stats.at()].into_iter().flat_map(u64::to_le_bytes).collect());
        let (means, blocks) = (self.floats(pass.n * spec.heads)?, pass.grid(shared)?);
        let tables = pass.positions.map(|_| Ok::<_, crate::Error>([pass.room()?, pass.room()?])).transpose()?;
        let at = |which: usize| tables.as_ref().map_or(0, |tables| tables[which].at);
        let operands = arguments![pass.argument()?, saved.clone(), gqkv, means.at, at(0)];
        self.launch(queries, blocks, operands)?;
        self.launch(keys, blocks, arguments![pass.argument()?, saved, means.at, gqkv, at(1)])?;
        let (Some(positions), Some(tables), Some(gpositions)) = (pass.positions, &tables, gpositions) else {
            return Ok(());
        };
        let gpositions: View<'_> = SliceMut::card(gpositions);
        for (part, table) in tables.iter().enumerate() {
            let (table, rows) = (pass.table(table), pass.part(pass.qkv.at(), part));
            let by = pass.position_part(positions.at(), 1 - part);
            self.product_onto(pass.part(gqkv.at(), part), true, table, by, spec.heads)?;
            let gby = pass.position_part(gpositions.at(), 1 - part);
            self.product_onto(gby, false, table.t(), rows, spec.heads)?;
        }
        Ok(())
    }
}
