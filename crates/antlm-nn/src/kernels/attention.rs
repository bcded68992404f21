//! Attention over packed segments, forward and backward, causal or not, with LTG-BERT's relative-position terms or
//! without, with dropout. Tiles of query rows; nothing of size batch x heads x T x T exists, the backward pass makes
//! the weights again from each row's maximum and sum.
//!
//! Scores: s_ij = (Q_i·K_j + Q_i·Kᵖ_b + K_j·Qᵖ_b) · scale with b = row(i - j) (models.md 2.3 of the specification).

use std::ops::Range;

use rayon::prelude::*;

use super::dispatch;
use super::dropout::{HEAD_COLUMNS, Site};
use super::lines::Lines;
use super::math::{dot, exp, fma, max, sum};
use super::matmul::{Into, Mat, MatMut, Precision, Threads, matmul};
use crate::relative::{RELATIVE_ROWS, relative_row};

/// Query rows of a tile.
const TILE: usize = 64;
/// Segments are handled in groups of at least so many rows; position gradients are partial sums of a group.
const GROUP: usize = 128;
/// Row length of the position scratch.
const BUCKETS: usize = 64;

/// What does not change from row to row.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Number of heads.
    pub heads: usize,
    /// Width of all heads together.
    pub d: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// A row sees nothing to its right.
    pub causal: bool,
    /// Dropout of the weights, and the step's row that local row 0 is.
    pub drop: Option<(Site, u32)>,
}

/// The operands of attention.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// `[q|k|v]: [n, 3 d]`.
    pub qkv: &'a [f32],
    /// Projected positions `[qᵖ|kᵖ]: [63, 2 d]`.
    pub positions: Option<&'a [f32]>,
    /// Starts of the segments, and `n` at the end.
    pub bounds: &'a [u32],
    /// The operands of its products.
    pub precision: Precision,
}

/// A run of distances i - j with the same position row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    row: usize,
    low: i64,
    high: i64,
}

/// The runs for distances -(t - 1) ..= t - 1, from the largest distance (leftmost key) down.
pub(super) fn runs(t: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for r in (1 - t as i64..t as i64).rev() {
        let row = relative_row(r as i32);
        match runs.last_mut() {
            Some(run) if run.row == row => run.low = r,
            _ => runs.push(Run { row, low: r, high: r }),
        }
    }
    runs
}

/// Consecutive segments with at least [`GROUP`] rows together (the last group may have fewer).
fn groups(bounds: &[u32]) -> Vec<Range<usize>> {
    let (mut groups, mut first) = (Vec::new(), 0);
    for end in 1..bounds.len() {
        if (bounds[end] - bounds[first]) as usize >= GROUP || end + 1 == bounds.len() {
            groups.push(first..end);
            first = end;
        }
    }
    groups
}

/// Cuts `data` (`width` values a row) into the groups' pieces.
fn split<'a>(mut data: &'a mut [f32], width: usize, bounds: &[u32], groups: &[Range<usize>]) -> Vec<&'a mut [f32]> {
    let mut pieces = Vec::with_capacity(groups.len());
    for group in groups {
        let (piece, rest) = data.split_at_mut((bounds[group.end] - bounds[group.start]) as usize * width);
        pieces.push(piece);
        data = rest;
    }
    pieces
}

/// How far the rows of a table `[63, t]` lie apart: so that the near keys of a query, one row and one column from each
/// other, lie an odd number of cache lines apart and meet in no set of the first-level cache.
fn row_stride(t: usize) -> usize {
    let lines = t.saturating_sub(1).div_ceil(16) | 1;
    16 * lines + 1
}

/// Buffers of one task, for segments of at most `t` rows.
struct Scratch {
    /// Weights, `[TILE, t]`.
    s: Lines,
    /// Gradients of the weights, `[TILE, t]`.
    ds: Lines,
    /// Dropout factors of a row, `[t]`.
    keep: Vec<f32>,
    /// Q·Kᵖ of a tile, `[TILE, BUCKETS]`, and its gradient.
    c: Lines,
    dc: Lines,
    /// Qᵖ·K of a segment, `[63, t]` with rows [`row_stride`] apart, and its gradient.
    p: Lines,
    dp: Lines,
}

impl Scratch {
    fn new(t: usize, backward: bool, relative: bool) -> Scratch {
        let room = |wanted: bool, len: usize| Lines::zeros(if wanted { len } else { 0 });
        Scratch {
            s: Lines::zeros(TILE * t),
            ds: room(backward, TILE * t),
            keep: vec![1.0; t],
            c: room(relative, TILE * BUCKETS),
            dc: room(relative && backward, TILE * BUCKETS),
            p: room(relative, RELATIVE_ROWS * row_stride(t)),
            dp: room(relative && backward, RELATIVE_ROWS * row_stride(t)),
        }
    }
}

/// One head of one segment.
#[derive(Clone, Copy)]
struct Head<'a> {
    spec: Spec,
    head: usize,
    /// First row in the batch.
    row0: usize,
    /// Rows of the segment.
    t: usize,
    /// The segment's rows of qkv.
    qkv: &'a [f32],
    positions: Option<&'a [f32]>,
    precision: Precision,
    runs: &'a [Run],
}

impl<'a> Head<'a> {
    fn width(&self) -> usize {
        self.spec.d / self.spec.heads
    }

    /// Part 0 = q, 1 = k, 2 = v of rows `rows`: `[rows, h]`.
    fn part(&self, part: usize, rows: Range<usize>) -> Mat<'a> {
        let (d, h) = (self.spec.d, self.width());
        Mat::strided(&self.qkv[rows.start * 3 * d + part * d + self.head * h..], rows.len(), h, 3 * d)
    }

    /// The position rows of all distances between a query and a key that it sees. Products are made of these alone.
    fn rows(&self) -> Range<usize> {
        let most = i32::try_from(self.t.saturating_sub(1)).unwrap_or(i32::MAX);
        let least = if self.spec.causal { 0 } else { -most };
        relative_row(least)..relative_row(most) + 1
    }

    /// Part 0 = qᵖ, 1 = kᵖ of the rows that are seen: `[rows, h]`.
    fn position_part(&self, positions: &'a [f32], part: usize) -> Mat<'a> {
        let (d, h, rows) = (self.spec.d, self.width(), self.rows());
        Mat::strided(&positions[rows.start * 2 * d + part * d + self.head * h..], rows.len(), h, 2 * d)
    }

    /// How many keys the rows below `end` can see.
    fn keys(&self, end: usize) -> usize {
        if self.spec.causal { end } else { self.t }
    }

    /// Qᵖ·K for the whole segment.
    fn prepare(&self, scratch: &mut Scratch) {
        if let Some(positions) = self.positions {
            let (rows, stride) = (self.rows(), row_stride(self.t));
            let p = MatMut::strided(&mut scratch.p[rows.start * stride..], rows.len(), self.t, stride);
            matmul(
                p,
                Into::Write,
                self.precision,
                self.position_part(positions, 0),
                self.part(1, 0..self.t).t(),
                Threads::One,
            );
        }
    }

    /// Raw scores (not scaled) of the query rows of a tile into `scratch.s`, rows of `keys` values.
    fn scores(&self, tile: Range<usize>, scratch: &mut Scratch) {
        let keys = self.keys(tile.end);
        let q = self.part(0, tile.clone());
        let s = &mut scratch.s[..tile.len() * keys];
        matmul(
            MatMut::new(s, tile.len(), keys),
            Into::Write,
            self.precision,
            q,
            self.part(1, 0..keys).t(),
            Threads::One,
        );
        let Some(positions) = self.positions else { return };
        let rows = self.rows();
        let c = MatMut::strided(&mut scratch.c[rows.start..], tile.len(), rows.len(), BUCKETS);
        matmul(c, Into::Write, self.precision, q, self.position_part(positions, 1).t(), Threads::One);
        let (c, p, stride) = (&scratch.c, &scratch.p, row_stride(self.t));
        dispatch(
            #[inline(always)]
            || {
                for (local, s) in s.chunks_exact_mut(keys).enumerate() {
                    let (i, c) = (tile.start + local, &c[local * BUCKETS..local * BUCKETS + RELATIVE_ROWS]);
                    let seen = self.seen(i);
                    let near = near(i, seen, stride);
                    let ps = p[near.first..].iter().step_by(near.step);
                    for ((s, cv), p) in s[near.keys].iter_mut().rev().zip(&c[near.rows]).zip(ps) {
                        *s += cv + p;
                    }
                    for_runs(
                        self.runs,
                        i,
                        seen,
                        #[inline(always)]
                        |row, j| {
                            let cv = c[row];
                            for (s, p) in s[j.clone()].iter_mut().zip(&p[row * stride..][j]) {
                                *s += cv + p;
                            }
                        },
                    );
                }
            },
        );
    }

    /// Keys that query row `i` sees: `0..seen`.
    #[inline(always)]
    fn seen(&self, i: usize) -> usize {
        if self.spec.causal { i + 1 } else { self.t }
    }

    /// Dropout factors of query row `i`.
    #[inline(always)]
    fn keep(&self, i: usize, keep: &mut [f32]) -> bool {
        let Some((site, first)) = self.spec.drop else { return false };
        site.factors(first.wrapping_add((self.row0 + i) as u32), self.head as u32 * HEAD_COLUMNS, keep);
        true
    }
}

/// Distances up to this have a position row each.
const NEAR: usize = 16;

/// Where the near keys of a query lie, from the last to the first: there, positions go up by one, and keys down by one.
struct Near {
    /// Position rows.
    rows: Range<usize>,
    /// Keys: the last of them belongs to the first position row.
    keys: Range<usize>,
    /// In a table `[63, t]` with such a stride, the place of the first position row and the last key, and the way to the next.
    first: usize,
    step: usize,
}

/// The near keys, of `0..seen`, of query row `i`; rows of the table `[63, t]` lie `stride` apart.
#[inline(always)]
fn near(i: usize, seen: usize, stride: usize) -> Near {
    let keys = i.saturating_sub(NEAR)..(i + NEAR + 1).min(seen);
    let middle = RELATIVE_ROWS / 2;
    let rows = middle + i + 1 - keys.end..middle + i + 1 - keys.start;
    Near { first: rows.start * stride + keys.end - 1, step: stride - 1, rows, keys }
}

/// The runs of keys that are not near.
fn far_runs(t: usize) -> Vec<Run> {
    let mut runs = runs(t);
    runs.retain(|run| run.low.unsigned_abs().min(run.high.unsigned_abs()) > NEAR as u64);
    runs
}

/// Calls `f(position row, keys)` for every run of keys in `0..seen` that query row `i` meets.
#[inline(always)]
pub(super) fn for_runs(runs: &[Run], i: usize, seen: usize, mut f: impl FnMut(usize, Range<usize>)) {
    let (i, last) = (i as i64, seen as i64 - 1);
    for run in runs {
        let (from, to) = ((i - run.high).max(0), (i - run.low).min(last));
        if from <= to {
            f(run.row, from as usize..to as usize + 1);
        }
    }
}

/// Attention: `o: [n, d]`; `stats: [n, heads, 2]` keeps each row's largest scaled score and 1 / sum.
pub fn attention(spec: Spec, operands: Operands<'_>, o: &mut [f32], stats: &mut [f32]) {
    let Operands { qkv, positions, bounds, precision } = operands;
    let (d, heads) = (spec.d, spec.heads);
    let groups = groups(bounds);
    let longest = bounds.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
    let runs = if positions.is_some() { far_runs(longest) } else { Vec::new() };
    let (os, stats) = (split(o, d, bounds, &groups), split(stats, 2 * heads, bounds, &groups));
    groups.par_iter().zip(os).zip(stats).for_each(|((group, o), stats)| {
        let mut scratch = Scratch::new(longest, false, positions.is_some());
        let first = bounds[group.start] as usize;
        for segment in group.clone() {
            let (row0, end) = (bounds[segment] as usize, bounds[segment + 1] as usize);
            let (rows, t) = (row0 - first..end - first, end - row0);
            for head in 0..heads {
                let qkv = &qkv[row0 * 3 * d..end * 3 * d];
                let part = Head { spec, head, row0, t, qkv, positions, precision, runs: &runs };
                let stats = &mut stats[rows.start * 2 * heads..rows.end * 2 * heads];
                head_forward(part, &mut o[rows.start * d..rows.end * d], stats, &mut scratch);
            }
        }
    });
}

fn head_forward(part: Head<'_>, o: &mut [f32], stats: &mut [f32], scratch: &mut Scratch) {
    let (d, h, heads) = (part.spec.d, part.width(), part.spec.heads);
    part.prepare(scratch);
    for start in (0..part.t).step_by(TILE) {
        let tile = start..(start + TILE).min(part.t);
        let keys = part.keys(tile.end);
        part.scores(tile.clone(), scratch);
        let (s, keep) = (&mut scratch.s[..tile.len() * keys], &mut scratch.keep[..]);
        dispatch(
            #[inline(always)]
            || {
                for (s, i) in s.chunks_exact_mut(keys).zip(tile.clone()) {
                    let (s, hidden) = s.split_at_mut(part.seen(i));
                    hidden.fill(0.0);
                    for s in s.iter_mut() {
                        *s *= part.spec.scale;
                    }
                    let top = max(s);
                    for s in s.iter_mut() {
                        *s = exp(*s - top);
                    }
                    let inv = 1.0 / sum(s);
                    let at = (i * heads + part.head) * 2;
                    (stats[at], stats[at + 1]) = (top, inv);
                    let keep = &mut keep[..s.len()];
                    if part.keep(i, keep) {
                        for (s, f) in s.iter_mut().zip(keep) {
                            *s *= inv * *f;
                        }
                    } else {
                        for s in s.iter_mut() {
                            *s *= inv;
                        }
                    }
                }
            },
        );
        let out = MatMut::strided(&mut o[tile.start * d + part.head * h..], tile.len(), h, d);
        matmul(out, Into::Write, part.precision, Mat::new(s, tile.len(), keys), part.part(2, 0..keys), Threads::One);
    }
}

/// Results of the forward pass and where its gradients go.
#[derive(Debug)]
pub struct Backward<'a> {
    /// What [`attention`] returned: `[n, d]`.
    pub o: &'a [f32],
    /// Its `stats`.
    pub stats: &'a [f32],
    /// Gradient of `o`.
    pub go: &'a [f32],
    /// Gradient of `qkv`, `[n, 3 d]`: written.
    pub gqkv: &'a mut [f32],
    /// Gradient of `positions`, `[63, 2 d]`: written.
    pub gpositions: Option<&'a mut [f32]>,
}

/// Backward of [`attention`].
pub fn attention_backward(spec: Spec, operands: Operands<'_>, backward: Backward<'_>) {
    let Operands { qkv, positions, bounds, precision } = operands;
    let Backward { o, stats, go, gqkv, gpositions } = backward;
    let (d, heads) = (spec.d, spec.heads);
    let groups = groups(bounds);
    let longest = bounds.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
    let runs = if positions.is_some() { far_runs(longest) } else { Vec::new() };
    let table = if positions.is_some() { RELATIVE_ROWS * 2 * d } else { 0 };
    let mut partials = vec![0.0; groups.len() * table];
    let mut tables: Vec<&mut [f32]> = partials.chunks_exact_mut(table.max(1)).collect();
    tables.resize_with(groups.len(), Default::default);
    let gqkvs = split(gqkv, 3 * d, bounds, &groups);
    groups.par_iter().zip(gqkvs).zip(tables).for_each(|((group, gqkv), gpositions)| {
        let mut scratch = Scratch::new(longest, true, positions.is_some());
        let first = bounds[group.start] as usize;
        for segment in group.clone() {
            let (row0, end) = (bounds[segment] as usize, bounds[segment + 1] as usize);
            let gqkv = &mut gqkv[(row0 - first) * 3 * d..(end - first) * 3 * d];
            gqkv.fill(0.0);
            for head in 0..heads {
                let part = Head {
                    spec,
                    head,
                    row0,
                    t: end - row0,
                    qkv: &qkv[row0 * 3 * d..end * 3 * d],
                    positions,
                    precision,
                    runs: &runs,
                };
                let saved = Saved {
                    o: &o[row0 * d..end * d],
                    go: &go[row0 * d..end * d],
                    stats: &stats[row0 * 2 * heads..end * 2 * heads],
                };
                head_backward(part, saved, gqkv, gpositions, &mut scratch);
            }
        }
    });
    if let Some(gpositions) = gpositions {
        gpositions.fill(0.0);
        super::add_partials(&partials, gpositions);
    }
}

/// The rows of one segment that the backward pass reads.
struct Saved<'a> {
    o: &'a [f32],
    go: &'a [f32],
    stats: &'a [f32],
}

fn head_backward(part: Head<'_>, saved: Saved<'_>, gqkv: &mut [f32], gpositions: &mut [f32], scratch: &mut Scratch) {
    let (d, h, heads, t, scale) = (part.spec.d, part.width(), part.spec.heads, part.t, part.spec.scale);
    let (stride, rows) = (row_stride(t), part.rows());
    let column = part.head * h;
    part.prepare(scratch);
    if part.positions.is_some() {
        scratch.dp[rows.start * stride..rows.end * stride].fill(0.0);
    }
    for start in (0..t).step_by(TILE) {
        let tile = start..(start + TILE).min(t);
        let keys = part.keys(tile.end);
        part.scores(tile.clone(), scratch);
        let go = Mat::strided(&saved.go[tile.start * d + column..], tile.len(), h, d);
        let Scratch { s, ds, keep, dc, dp, .. } = scratch;
        let (s, ds) = (&mut s[..tile.len() * keys], &mut ds[..tile.len() * keys]);
        matmul(
            MatMut::new(ds, tile.len(), keys),
            Into::Write,
            part.precision,
            go,
            part.part(2, 0..keys).t(),
            Threads::One,
        );
        // From here on s holds the dropped weights A, ds the gradient of the raw scores.
        dispatch(
            #[inline(always)]
            || {
                dc.fill(0.0);
                for (local, (s, ds)) in s.chunks_exact_mut(keys).zip(ds.chunks_exact_mut(keys)).enumerate() {
                    let i = tile.start + local;
                    let ((s, hidden), (ds, dhidden)) = (s.split_at_mut(part.seen(i)), ds.split_at_mut(part.seen(i)));
                    hidden.fill(0.0);
                    dhidden.fill(0.0);
                    let at = (i * heads + part.head) * 2;
                    let (top, inv) = (saved.stats[at], saved.stats[at + 1]);
                    let row = i * d + column..i * d + column + h;
                    let mean = dot(&saved.o[row.clone()], &saved.go[row]);
                    let keep = &mut keep[..s.len()];
                    if part.keep(i, keep) {
                        for ((s, ds), f) in s.iter_mut().zip(ds.iter_mut()).zip(keep) {
                            let weight = exp(*s * scale - top) * inv;
                            *ds = weight * scale * fma(*f, *ds, -mean);
                            *s = weight * *f;
                        }
                    } else {
                        for (s, ds) in s.iter_mut().zip(ds.iter_mut()) {
                            let weight = exp(*s * scale - top) * inv;
                            *ds = weight * scale * (*ds - mean);
                            *s = weight;
                        }
                    }
                    if part.positions.is_some() {
                        let dc = &mut dc[local * BUCKETS..local * BUCKETS + RELATIVE_ROWS];
                        let near = near(i, part.seen(i), stride);
                        let dps = dp[near.first..].iter_mut().step_by(near.step);
                        for ((ds, dc), dp) in ds[near.keys].iter().rev().zip(&mut dc[near.rows]).zip(dps) {
                            *dc = *ds;
                            *dp += ds;
                        }
                        for_runs(
                            part.runs,
                            i,
                            part.seen(i),
                            #[inline(always)]
                            |bucket, j| {
                                let ds = &ds[j.clone()];
                                dc[bucket] = sum(ds);
                                for (dp, ds) in dp[bucket * stride..][j].iter_mut().zip(ds) {
                                    *dp += ds;
                                }
                            },
                        );
                    }
                }
            },
        );
        let (a, ds) = (Mat::new(s, tile.len(), keys), Mat::new(ds, tile.len(), keys));
        let gv = MatMut::strided(&mut gqkv[2 * d + column..], keys, h, 3 * d);
        matmul(gv, Into::Add, part.precision, a.t(), go, Threads::One);
        let gk = MatMut::strided(&mut gqkv[d + column..], keys, h, 3 * d);
        matmul(gk, Into::Add, part.precision, ds.t(), part.part(0, tile.clone()), Threads::One);
        let gq = &mut gqkv[tile.start * 3 * d + column..];
        matmul(
            MatMut::strided(gq, tile.len(), h, 3 * d),
            Into::Add,
            part.precision,
            ds,
            part.part(1, 0..keys),
            Threads::One,
        );
        if let Some(positions) = part.positions {
            let dc = Mat::strided(&dc[rows.start..], tile.len(), rows.len(), BUCKETS);
            matmul(
                MatMut::strided(gq, tile.len(), h, 3 * d),
                Into::Add,
                part.precision,
                dc,
                part.position_part(positions, 1),
                Threads::One,
            );
            let gkp = &mut gpositions[rows.start * 2 * d + d + column..];
            let gkp = MatMut::strided(gkp, rows.len(), h, 2 * d);
            matmul(gkp, Into::Add, part.precision, dc.t(), part.part(0, tile.clone()), Threads::One);
        }
    }
    if let Some(positions) = part.positions {
        let dp = Mat::strided(&scratch.dp[rows.start * stride..], rows.len(), t, stride);
        let gk = MatMut::strided(&mut gqkv[d + column..], t, h, 3 * d);
        matmul(gk, Into::Add, part.precision, dp.t(), part.position_part(positions, 0), Threads::One);
        let gqp = MatMut::strided(&mut gpositions[rows.start * 2 * d + column..], rows.len(), h, 2 * d);
        matmul(gqp, Into::Add, part.precision, dp, part.part(1, 0..t), Threads::One);
    }
}
