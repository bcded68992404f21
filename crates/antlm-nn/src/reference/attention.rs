//! Attention over packed segments, with relative-position terms or none, and rotary positions.

use super::dense::dot;
use crate::relative::{RELATIVE_ROWS, relative_row};

/// Whether the weight of (query's row, head, key's row) is kept; rows are counted over the whole batch.
pub type Keep<'a> = dyn Fn(usize, usize, usize) -> bool + 'a;

/// The settings of one attention. Heads are blocks of d / heads columns in each d-wide part.
pub struct Attention<'a> {
    /// Width of the residual stream.
    pub d: usize,
    /// Number of heads, divides `d`.
    pub heads: usize,
    /// Where each segment starts, and at the end the number of rows: `[segments + 1]`.
    pub bounds: &'a [u32],
    /// Row i sees rows j <= i of its segment, otherwise all of its segment.
    pub causal: bool,
    /// Factor of the scores: 1 / √(3 h) with relative positions, 1 / √h without.
    pub scale: f64,
    /// Dropout of the attention weights: what is kept, and the probability of not being kept.
    pub dropout: Option<(&'a Keep<'a>, f64)>,
}

/// One row of one head: its keys' rows, and their weights before and after dropout.
struct Row {
    i: usize,
    head: usize,
    keys: std::ops::Range<usize>,
    weights: Vec<f64>,
    factors: Vec<f64>,
}

impl Attention<'_> {
    /// `qkv [n, 3 d]` = [q | k | v], `relative [63, 2 d]` = [qp | kp] -> `[n, d]`. The score of query i and key j is
    /// (Q_i·K_j + Q_i·Kp_r + K_j·Qp_r) * scale with r = [`relative_row`]`(i - j)`.
    pub fn forward(&self, qkv: &[f64], relative: Option<&[f64]>) -> Vec<f64> {
        let mut out = vec![0.0; qkv.len() / 3];
        for row in self.rows(qkv, relative) {
            for (t, j) in row.keys.clone().enumerate() {
                let v = &qkv[self.place(2, j, row.head)];
                let out = &mut out[row.i * self.d + row.head * self.width()..][..self.width()];
                out.iter_mut().zip(v).for_each(|(out, v)| *out += row.weights[t] * row.factors[t] * v);
            }
        }
        out
    }

    /// Backward of [`Attention::forward`]: (dqkv `[n, 3 d]`, drelative `[63, 2 d]`, empty without relative positions).
    pub fn backward(&self, qkv: &[f64], relative: Option<&[f64]>, dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut dqkv, mut drelative) = (vec![0.0; qkv.len()], vec![0.0; relative.map_or(0, <[f64]>::len)]);
        for row in self.rows(qkv, relative) {
            let (i, head) = (row.i, row.head);
            let dy = &dy[i * self.d + head * self.width()..][..self.width()];
            // Gradient of each weight before dropout, then of each score (the softmax's backward).
            let of_weight = |(t, j)| dot(dy, &qkv[self.place(2, j, head)]) * row.factors[t];
            let dweights: Vec<f64> = row.keys.clone().enumerate().map(of_weight).collect();
            let mean = dot(&row.weights, &dweights);
            for (t, j) in row.keys.clone().enumerate() {
                let dscore = row.weights[t] * (dweights[t] - mean) * self.scale;
                let [q, k, v] = [(0, i), (1, j), (2, j)].map(|(part, r)| self.place(part, r, head));
                add(&mut dqkv[v], row.weights[t] * row.factors[t], dy);
                add(&mut dqkv[q.clone()], dscore, &qkv[k.clone()]);
                add(&mut dqkv[k.clone()], dscore, &qkv[q.clone()]);
                if let Some(relative) = relative {
                    let [qp, kp] = self.relative_places(i, j, head);
                    add(&mut dqkv[q.clone()], dscore, &relative[kp.clone()]);
                    add(&mut dqkv[k.clone()], dscore, &relative[qp.clone()]);
                    add(&mut drelative[kp], dscore, &qkv[q]);
                    add(&mut drelative[qp], dscore, &qkv[k]);
                }
            }
        }
        (dqkv, drelative)
    }

    fn width(&self) -> usize {
        self.d / self.heads
    }

    /// Where the head's q (part 0), k (1) or v (2) of a row is in qkv.
    fn place(&self, part: usize, row: usize, head: usize) -> std::ops::Range<usize> {
        let start = (3 * row + part) * self.d + head * self.width();
        start..start + self.width()
    }

    /// Where the head's qp and kp for query i and key j are in relative.
    fn relative_places(&self, i: usize, j: usize, head: usize) -> [std::ops::Range<usize>; 2] {
        let row = relative_row(i as i32 - j as i32);
        [0, 1].map(|part| {
            let start = (2 * row + part) * self.d + head * self.width();
            start..start + self.width()
        })
    }

    /// Every row of every head, with its weights.
    fn rows(&self, qkv: &[f64], relative: Option<&[f64]>) -> Vec<Row> {
        assert!(relative.is_none_or(|r| r.len() == RELATIVE_ROWS * 2 * self.d));
        let mut rows = Vec::new();
        for segment in self.bounds.windows(2).map(|b| b[0] as usize..b[1] as usize) {
            for (i, head) in segment.clone().flat_map(|i| (0..self.heads).map(move |head| (i, head))) {
                let keys = segment.start..if self.causal { i + 1 } else { segment.end };
                let (q, k) = (&qkv[self.place(0, i, head)], |j| &qkv[self.place(1, j, head)]);
                let position = |j| {
                    let [qp, kp] = self.relative_places(i, j, head);
                    relative.map_or(0.0, |r| dot(q, &r[kp]) + dot(k(j), &r[qp]))
                };
                let scores: Vec<f64> = keys.clone().map(|j| (dot(q, k(j)) + position(j)) * self.scale).collect();
                let most = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let sum: f64 = scores.iter().map(|s| (s - most).exp()).sum();
                let weights = scores.iter().map(|s| (s - most).exp() / sum).collect();
                let factor = |j| match self.dropout {
                    Some((keep, p)) => f64::from(u8::from(keep(i, head, j))) / (1.0 - p),
                    None => 1.0,
                };
                rows.push(Row { i, head, keys: keys.clone(), weights, factors: keys.map(factor).collect() });
            }
        }
        rows
    }
}

fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

/// Rotary positions on the first `rotated` columns of `x [n, cols]`, in heads of `width` columns: column c and
/// c + width / 2 of a head turn by the angle position * theta^(-2 c / width); positions start at 0 in each segment.
pub fn rope(x: &[f64], cols: usize, rotated: usize, width: usize, bounds: &[u32], theta: f64) -> Vec<f64> {
    turn(x, cols, rotated, width, bounds, theta, 1.0)
}

/// Backward of [`rope`]: the same turn the other way round.
pub fn rope_backward(dy: &[f64], cols: usize, rotated: usize, width: usize, bounds: &[u32], theta: f64) -> Vec<f64> {
    turn(dy, cols, rotated, width, bounds, theta, -1.0)
}

fn turn(x: &[f64], cols: usize, rotated: usize, width: usize, bounds: &[u32], theta: f64, sign: f64) -> Vec<f64> {
    let mut y = x.to_vec();
    for segment in bounds.windows(2).map(|b| b[0] as usize..b[1] as usize) {
        for (position, row) in segment.enumerate() {
            for head in y[row * cols..][..rotated].chunks_mut(width) {
                for c in 0..width / 2 {
                    let angle = sign * position as f64 * theta.powf(-2.0 * c as f64 / width as f64);
                    let (a, b) = (head[c], head[c + width / 2]);
                    head[c] = a * angle.cos() - b * angle.sin();
                    head[c + width / 2] = b * angle.cos() + a * angle.sin();
                }
            }
        }
    }
    y
}
