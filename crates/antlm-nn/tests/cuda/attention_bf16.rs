//! Attention on tensor cores. The CPU gets the operands as bf16 has them, so what differs is that weights and gradients of
//! scores are rounded once more before the second product; the bounds follow from that.

use antlm_nn::kernels::attention::{self, Operands, Spec};
use antlm_nn::kernels::dropout::{HEAD_COLUMNS, Rows};
use antlm_nn::kernels::matmul::Precision;
use antlm_nn::relative::{RELATIVE_ROWS, relative_row};

use super::attention::{Case, Operand, POSITIONS, by_position, cases, dot, part, tiles};
use super::card::{Argument, Card, Grid, grid};
use super::{Drops, assert_close, assert_close_to, random, run};
use crate::arguments;

/// Own rows of a block.
const SIDE: usize = 64;
/// A number of 8 bits is off by this part of itself at the most.
const UNIT: f64 = 1.0 / 256.0;

/// The nearest bf16 numbers, and what they are worth.
fn rounded(x: &[f32]) -> (Vec<u16>, Vec<f32>) {
    let round = |x: &f32| ((x.to_bits() + 0x7fff + (x.to_bits() >> 16 & 1)) >> 16) as u16;
    let narrow: Vec<u16> = x.iter().map(round).collect();
    let wide = narrow.iter().map(|&x| f32::from_bits(u32::from(x) << 16)).collect();
    (narrow, wide)
}

/// What goes in, and what the CPU's forward pass makes of it.
struct Problem {
    case: Case,
    bounds: Vec<u32>,
    scale: f32,
    drops: Drops,
    narrow: Vec<u16>,
    qkv: Vec<f32>,
    positions: Option<Vec<f32>>,
    o: Vec<f32>,
    stats: Vec<f32>,
}

/// The step's row of row 0.
const FIRST: u32 = 9;

fn problem(seed: u64, bounds: &[u32], case: Case) -> Problem {
    let Case { heads, width, causal, relative, p } = case;
    let (n, d) = (bounds[bounds.len() - 1] as usize, heads * width);
    let (narrow, qkv) = rounded(&random(seed, n * 3 * d, 2.0));
    let positions = relative.then(|| random(seed + 1, RELATIVE_ROWS * 2 * d, 1.0));
    let (scale, drops) = (1.0 / (width as f32).sqrt(), Drops::new(p, Rows::From(FIRST)));
    let spec = Spec { heads, d, scale, causal, drop: drops.site.map(|site| (site, FIRST)) };
    let (mut o, mut stats) = (vec![0.0; n * d], vec![0.0; n * heads * 2]);
    let operands = Operands { qkv: &qkv, positions: positions.as_deref(), bounds, precision: Precision::F32 };
    attention::attention(spec, operands, &mut o, &mut stats);
    Problem { case, bounds: bounds.to_vec(), scale, drops, narrow, qkv, positions, o, stats }
}

impl Problem {
    fn tables(&self) -> [Option<Vec<f32>>; 2] {
        let table = |of, with| self.positions.as_ref().map(|p| by_position(self.case, &self.qkv, p, of, with));
        [table(0, 1), table(1, 0)]
    }

    /// `struct Attention`, again and again, and the grid.
    fn attention(&self, card: &mut Card, shared: usize) -> (impl Fn() -> Argument + use<>, Grid) {
        let tiles = tiles(&self.bounds, SIDE);
        let places = card.put(&tiles);
        let [query, key] = self.tables().map(|table| table.map(|table| card.put(&table)));
        let (scale, drops) = (self.scale, &self.drops);
        let operands = Operand { query: query.as_ref(), key: key.as_ref(), tiles: &places, scale, drops };
        (operands.argument(card, self.case), Grid { shared, ..grid(tiles.len() / 3, self.case.heads, 128) })
    }
}

fn forward_agrees(seed: u64, bounds: &[u32], case: Case) {
    let problem = problem(seed, bounds, case);
    let (n, d) = (problem.o.len() / (case.heads * case.width), case.heads * case.width);
    let (kernel, wide) = if case.width <= 64 { ("attention_bf16_64", 64) } else { ("attention_bf16_128", 128) };
    let got = run(|card| {
        let (attention, blocks) = problem.attention(card, 256 * (wide + 8));
        let (qkv, o, stats) =
            (card.put(&problem.narrow), card.room::<f32>(n * d), card.room::<f32>(n * case.heads * 2));
        card.launch(kernel, blocks, arguments![attention(), &qkv, &o, &stats]);
        vec![card.get(&o), card.get(&stats)]
    });
    let what = format!("{case:?}, {bounds:?}");
    assert_close(&what, &got[1], &problem.stats, 2e-6);
    // Weights sum to 1, or to 1 / (1 - p) at the most where some are dropped.
    let values = problem.qkv.chunks_exact(3 * d).flat_map(|row| &row[2 * d..]);
    let largest = values.fold(0.0f32, |most, v| most.max(v.abs()));
    let bound = largest * (UNIT / (1.0 - case.p) + 1e-6) as f32;
    for (i, (got, want)) in got[0].iter().zip(&problem.o).enumerate() {
        assert!((got - want).abs() <= bound, "{what}, value {i}: {got}, want {want}, may be off by {bound:e}");
    }
}

/// Gradients of qkv without what comes by the positions, and for each the sum of its terms' sizes; gradients of the two
/// tables. In f64, pair by pair.
struct Slow {
    gqkv: Vec<f64>,
    sizes: Vec<f64>,
    tables: [Vec<f32>; 2],
}

fn slow_backward(problem: &Problem, go: &[f32]) -> Slow {
    let Case { heads, width, causal, .. } = problem.case;
    let (d, qkv, scale) = (heads * width, &problem.qkv, f64::from(problem.scale));
    let n = qkv.len() / (3 * d);
    let by = problem.tables();
    let (mut gqkv, mut sizes) = (vec![0.0; n * 3 * d], vec![0.0; n * 3 * d]);
    let mut tables = [(); 2].map(|()| vec![0.0; if by[0].is_some() { n * heads * POSITIONS } else { 0 }]);
    for segment in problem.bounds.windows(2).map(|b| b[0] as usize..b[1] as usize) {
        for (i, head) in segment.clone().flat_map(|i| (0..heads).map(move |head| (i, head))) {
            let columns = head * width..(head + 1) * width;
            let go = &go[i * d..][columns.clone()];
            let mean = f64::from(dot(&problem.o[i * d..][columns.clone()], go));
            let mut keep = vec![1.0; segment.len()];
            if let Some(site) = problem.drops.site {
                site.factors(FIRST + i as u32, head as u32 * HEAD_COLUMNS, &mut keep);
            }
            for j in segment.start..if causal { i + 1 } else { segment.end } {
                let [q, k, v] = [(i, 0), (j, 1), (j, 2)].map(|(row, of)| part(qkv, problem.case, 3, row, of, head));
                let places = [i, j].map(|row| (row * heads + head) * POSITIONS + relative_row(i as i32 - j as i32));
                let terms = [0, 1].map(|t| by[t].as_ref().map_or(0.0, |table| f64::from(table[places[t]])));
                let score = (f64::from(dot(q, k)) + terms[0] + terms[1]) * scale;
                let [top, inv] = [0, 1].map(|s| f64::from(problem.stats[(i * heads + head) * 2 + s]));
                let (weight, factor) = ((score - top).exp() * inv, f64::from(keep[j - segment.start]));
                let gradient = weight * scale * (factor * f64::from(dot(go, v)) - mean);
                for (row, of, by, x) in [(i, 0, gradient, k), (j, 1, gradient, q), (j, 2, weight * factor, go)] {
                    let at = (3 * row + of) * d + head * width;
                    for (c, x) in x.iter().enumerate() {
                        gqkv[at + c] += by * f64::from(*x);
                        sizes[at + c] += (by * f64::from(*x)).abs();
                    }
                }
                for (table, place) in tables.iter_mut().zip(places).filter(|(table, _)| !table.is_empty()) {
                    table[place] += gradient as f32;
                }
            }
        }
    }
    Slow { gqkv, sizes, tables }
}

fn backward_agrees(seed: u64, bounds: &[u32], case: Case) {
    let problem = problem(seed, bounds, case);
    let (n, d) = (problem.o.len() / (case.heads * case.width), case.heads * case.width);
    let (narrow, go) = rounded(&random(seed + 2, n * d, 1.0));
    let want = slow_backward(&problem, &go);
    let got = run(|card| {
        let (attention, blocks) = problem.attention(card, 43_008);
        let (qkv, o, go, stats) =
            (card.put(&problem.narrow), card.put(&problem.o), card.put(&narrow), card.put(&problem.stats));
        let addresses = [qkv.address(), o.address(), go.address(), stats.address()];
        let saved = || Argument(addresses.into_iter().flat_map(u64::to_le_bytes).collect());
        let (gqkv, means) = (card.room::<f32>(n * 3 * d), card.room::<f32>(n * case.heads));
        let tables = [(); 2].map(|()| case.relative.then(|| card.room::<f32>(n * case.heads * POSITIONS)));
        let operands = arguments![attention(), saved(), &gqkv, &means, tables[0].as_ref()];
        card.launch("attention_bf16_backward_queries", blocks, operands);
        let operands = arguments![attention(), saved(), &means, &gqkv, tables[1].as_ref()];
        card.launch("attention_bf16_backward_keys", blocks, operands);
        let mut results = vec![card.get(&gqkv)];
        results.extend(tables.iter().flatten().map(|table| card.get(table)));
        results
    });
    let what = format!("{case:?}, {bounds:?}");
    for (table, want) in got[1..].iter().zip(&want.tables) {
        assert_close_to(&what, table, want, 1e-5, 0.1);
    }
    for (i, (got, (want, size))) in got[0].iter().zip(want.gqkv.iter().zip(&want.sizes)).enumerate() {
        // Every term is off by its rounding; sums of f32 and the differences behind a gradient add a little.
        let (off, bound) = ((f64::from(*got) - want).abs(), UNIT * size + 1e-5);
        assert!(off <= bound, "{what}, value {i}: {got}, want {want}, may be off by {bound:e}");
    }
}

#[test]
fn forward() {
    for (i, case) in cases(2, 16).enumerate() {
        forward_agrees(i as u64, &[0, 1, 34, 100], case);
    }
    for (i, width) in [1, 7, 24, 64, 72, 128].into_iter().enumerate() {
        forward_agrees(i as u64, &[0, 65, 70], cases(1, width).nth(7 - i).unwrap());
    }
}

#[test]
fn backward() {
    for (i, case) in cases(2, 8).enumerate() {
        backward_agrees(i as u64, &[0, 1, 34, 101], case);
    }
    for (i, width) in [1, 7, 24, 64].into_iter().enumerate() {
        backward_agrees(i as u64, &[0, 69, 70], cases(1, width).nth(7 - i).unwrap());
    }
}
