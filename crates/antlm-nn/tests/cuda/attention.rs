//! Attention, forward and backward, with the products around it made by the CPU.

use antlm_nn::kernels::attention::{self, Backward, Operands, Spec};
use antlm_nn::kernels::dropout::Rows;
use antlm_nn::kernels::matmul::Precision;
use antlm_nn::relative::RELATIVE_ROWS;

use super::card::{Argument, Buffer, Card, Grid, grid};
use super::{Drops, assert_close, assert_close_to, random, run};
use crate::arguments;

/// Own rows of a block.
const SIDE: usize = 32;
/// Row length of tables by position.
pub const POSITIONS: usize = 64;

/// A score's gradient is a difference (go · v minus the row's mean of that), 0 where a row sees one key: its terms are of
/// about this size at the least.
const TERMS: f32 = 0.1;

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub heads: usize,
    pub width: usize,
    pub causal: bool,
    pub relative: bool,
    pub p: f64,
}

/// What `struct Attention` of attention.cuh holds.
pub struct Operand<'a> {
    pub query: Option<&'a Buffer<f32>>,
    pub key: Option<&'a Buffer<f32>>,
    pub tiles: &'a Buffer<u32>,
    pub scale: f32,
    pub drops: &'a Drops,
}

impl Operand<'_> {
    /// Gives the structure as often as it is wanted.
    pub fn argument(&self, card: &mut Card, case: Case) -> impl Fn() -> Argument + use<> {
        let addresses = [self.query, self.key].map(|table| table.map_or(0, Buffer::address));
        let mut bytes: Vec<u8> =
            addresses.into_iter().chain([self.tiles.address()]).flat_map(u64::to_le_bytes).collect();
        let d = (case.heads * case.width) as u32;
        let words = [d, case.heads as u32, self.scale.to_bits(), u32::from(case.causal)];
        bytes.extend(words.into_iter().flat_map(u32::to_le_bytes));
        bytes.extend(&self.drops.argument(card).0);
        move || Argument(bytes.clone())
    }
}

/// One head's columns of row `i`: part `part` of rows of `parts` parts.
pub fn part(x: &[f32], case: Case, parts: usize, i: usize, part: usize, head: usize) -> &[f32] {
    let d = case.heads * case.width;
    &x[(i * parts + part) * d + head * case.width..][..case.width]
}

pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>() as f32
}

/// `[n, heads, 64]`: part `of` of qkv times part `with` of the positions.
pub fn by_position(case: Case, qkv: &[f32], positions: &[f32], of: usize, with: usize) -> Vec<f32> {
    let n = qkv.len() / (3 * case.heads * case.width);
    // NaN in the column that nobody may use.
    let mut table = vec![f32::NAN; n * case.heads * POSITIONS];
    for (place, row) in table.chunks_exact_mut(POSITIONS).enumerate() {
        let (i, head) = (place / case.heads, place % case.heads);
        for (r, value) in row[..RELATIVE_ROWS].iter_mut().enumerate() {
            *value = dot(part(qkv, case, 3, i, of, head), part(positions, case, 2, r, with, head));
        }
    }
    table
}

/// Backward of [`by_position`]: adds to the gradients of qkv and of the positions.
fn by_position_backward(case: Case, operands: [&[f32]; 2], gtable: &[f32], parts: [usize; 2], grads: [&mut [f32]; 2]) {
    let ([qkv, positions], [of, with], [gqkv, gpositions]) = (operands, parts, grads);
    let d = case.heads * case.width;
    for (place, row) in gtable.chunks_exact(POSITIONS).enumerate() {
        let (i, head) = (place / case.heads, place % case.heads);
        assert_eq!(row[RELATIVE_ROWS], 0.0);
        for (r, g) in row[..RELATIVE_ROWS].iter().enumerate() {
            let (x, y) = (part(qkv, case, 3, i, of, head), part(positions, case, 2, r, with, head));
            for c in 0..case.width {
                gqkv[(3 * i + of) * d + head * case.width + c] += g * y[c];
                gpositions[(2 * r + with) * d + head * case.width + c] += g * x[c];
            }
        }
    }
}

/// Segments' tiles: first row, end, the tile's first row.
pub fn tiles(bounds: &[u32], side: usize) -> Vec<u32> {
    let mut tiles = Vec::new();
    for segment in bounds.windows(2) {
        tiles.extend((segment[0]..segment[1]).step_by(side).flat_map(|first| [segment[0], segment[1], first]));
    }
    tiles
}

fn shared(case: Case, widths: [usize; 2], more: usize) -> usize {
    let padded = case.width.next_multiple_of(4);
    let stride = if (padded / 4).is_multiple_of(2) { padded + 4 } else { padded };
    4 * (widths[0] * padded + widths[1] * stride + more)
}

fn agrees(seed: u64, bounds: &[u32], case: Case) {
    let Case { heads, width, causal, relative, p } = case;
    let (n, d) = (bounds[bounds.len() - 1] as usize, heads * width);
    let (qkv, table, go) =
        (random(seed, n * 3 * d, 2.0), random(seed + 1, RELATIVE_ROWS * 2 * d, 1.0), random(seed + 2, n * d, 1.0));
    let positions = relative.then_some(&table[..]);
    let scale = 1.0 / ((if relative { 3 } else { 1 } * width) as f32).sqrt();
    let first = 70_000;
    let drops = Drops::new(p, Rows::From(first));

    let spec = Spec { heads, d, scale, causal, drop: drops.site.map(|site| (site, first)) };
    // The CPU has no empty segments (the tape refuses them); the card's tiles pass over them.
    let mut dense = bounds.to_vec();
    dense.dedup();
    let operands = Operands { qkv: &qkv, positions, bounds: &dense, precision: Precision::F32 };
    let (mut o, mut stats, mut gqkv) = (vec![0.0; n * d], vec![0.0; n * heads * 2], vec![0.0; n * 3 * d]);
    let mut gpositions = positions.map(|table| vec![0.0; table.len()]);
    attention::attention(spec, operands, &mut o, &mut stats);
    let backward = Backward { o: &o, stats: &stats, go: &go, gqkv: &mut gqkv, gpositions: gpositions.as_deref_mut() };
    attention::attention_backward(spec, operands, backward);

    let by_query = positions.map(|positions| by_position(case, &qkv, positions, 0, 1));
    let by_key = positions.map(|positions| by_position(case, &qkv, positions, 1, 0));
    let (tiles, blocks) = (tiles(bounds, SIDE), tiles(bounds, SIDE).len() / 3);
    let kernels = match width {
        ..=64 => ["attention_64", "attention_backward_queries_64", "attention_backward_keys_64"],
        _ => ["attention_128", "attention_backward_queries_128", "attention_backward_keys_128"],
    };
    let mut got = run(|card| {
        let (there, go, tiles) = (card.put(&qkv), card.put(&go), card.put(&tiles));
        let (query, key) = (by_query.as_ref().map(|t| card.put(t)), by_key.as_ref().map(|t| card.put(t)));
        let operands = Operand { query: query.as_ref(), key: key.as_ref(), tiles: &tiles, scale, drops: &drops };
        let attention = operands.argument(card, case);

        let (o, stats) = (card.room::<f32>(n * d), card.room::<f32>(n * heads * 2));
        let blocks = |shared| Grid { shared, ..grid(blocks, heads, 128) };
        let forward = blocks(shared(case, [32, 64], 1024));
        card.launch(kernels[0], forward, arguments![attention(), &there, &o, &stats]);

        let saved = || {
            Argument(
                [there.address(), o.address(), go.address(), stats.address()]
                    .into_iter()
                    .flat_map(u64::to_le_bytes)
                    .collect(),
            )
        };
        let (gqkv, means) = (card.room::<f32>(n * 3 * d), card.room::<f32>(n * heads));
        let room = |card: &mut Card| relative.then(|| card.room::<f32>(n * heads * POSITIONS));
        let (gquery, gkey) = (room(card), room(card));
        let backward = blocks(shared(case, [64, 64], 3072));
        let operands = arguments![attention(), saved(), &gqkv, &means, gquery.as_ref()];
        card.launch(kernels[1], backward, operands);
        let operands = arguments![attention(), saved(), &means, &gqkv, gkey.as_ref()];
        card.launch(kernels[2], backward, operands);
        let mut results = vec![card.get(&o), card.get(&stats), card.get(&gqkv)];
        results.extend([gquery, gkey].iter().flatten().map(|table| card.get(table)));
        results
    });

    let what = |name: &str| format!("{name}, {case:?}, {bounds:?}");
    assert_close(&what("o"), &got[0], &o, 2e-6);
    assert_close(&what("stats"), &got[1], &stats, 2e-6);
    if let (Some(positions), Some(want)) = (positions, gpositions) {
        let (gkey, gquery) = (got.pop().unwrap(), got.pop().unwrap());
        let mut have = vec![0.0; want.len()];
        by_position_backward(case, [&qkv, positions], &gquery, [0, 1], [&mut got[2], &mut have]);
        by_position_backward(case, [&qkv, positions], &gkey, [1, 0], [&mut got[2], &mut have]);
        assert_close_to(&what("gradient of positions"), &have, &want, 1e-5, TERMS);
    }
    // q, k and v differ in size.
    for part in 0..3 {
        let pick = |x: &[f32]| -> Vec<f32> {
            x.chunks_exact(3 * d).flat_map(|row| row[part * d..(part + 1) * d].to_vec()).collect()
        };
        assert_close_to(&what(&format!("gradient of part {part}")), &pick(&got[2]), &pick(&gqkv), 1e-5, TERMS);
    }
}

/// With and without positions, causal or not, dropping or not.
pub fn cases(heads: usize, width: usize) -> impl Iterator<Item = Case> {
    (0..8).map(move |bits: u32| Case {
        heads,
        width,
        causal: bits & 1 != 0,
        relative: bits & 2 != 0,
        p: if bits & 4 != 0 { 0.25 } else { 0.0 },
    })
}

#[test]
fn short_segments() {
    for (seed, bounds) in [&[0u32, 1][..], &[0, 3, 4, 12], &[0, 31, 63, 96, 97]].into_iter().enumerate() {
        for (i, case) in cases(3, 6).enumerate() {
            agrees(seed as u64 * 100 + i as u64 * 3, bounds, case);
        }
    }
}

#[test]
fn heads_of_any_width() {
    for (i, width) in [1, 4, 7, 33, 64, 66, 128].into_iter().enumerate() {
        let case = cases(1, width).nth(7 - i).unwrap();
        agrees(i as u64, &[0, 35, 50], case);
        let case = cases(2, width).nth(i).unwrap();
        agrees(i as u64, &[0, 5, 41], case);
    }
}

/// Past the distance from which on all positions share a bucket (406), with a short segment on each side and an empty one.
#[test]
fn long_segments() {
    for (i, case) in [2, 7, 6].into_iter().map(|i| cases(1, 8).nth(i).unwrap()).enumerate() {
        agrees(i as u64, &[0, 3, 3, 430, 431], case);
    }
}
