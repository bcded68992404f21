//! Embedding, linear map, dropout, and the classifier with its loss.

/// The rows `ids` of `table [v, cols]`: `[n, cols]`.
pub fn embedding(table: &[f64], ids: &[u32], cols: usize) -> Vec<f64> {
    ids.iter().flat_map(|&id| &table[id as usize * cols..][..cols]).copied().collect()
}

/// Backward of [`embedding`]: dtable `[v, cols]`.
pub fn embedding_backward(ids: &[u32], v: usize, cols: usize, dy: &[f64]) -> Vec<f64> {
    let mut dtable = vec![0.0; v * cols];
    for (&id, dy) in ids.iter().zip(dy.chunks(cols)) {
        dtable[id as usize * cols..][..cols].iter_mut().zip(dy).for_each(|(d, dy)| *d += dy);
    }
    dtable
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// y = x Wᵀ + b: `x [n, inputs]`, `w [outputs, inputs]`, `bias [outputs]`, y `[n, outputs]`.
pub fn linear(x: &[f64], inputs: usize, w: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let mut y = Vec::new();
    for x in x.chunks(inputs) {
        for (o, w) in w.chunks(inputs).enumerate() {
            y.push(dot(x, w) + bias.map_or(0.0, |b| b[o]));
        }
    }
    y
}

/// Backward of [`linear`]: (dx `[n, inputs]`, dw `[outputs, inputs]`, dbias `[outputs]`).
pub fn linear_backward(x: &[f64], inputs: usize, w: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let outputs = w.len() / inputs;
    let (mut dx, mut dw, mut dbias) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; outputs]);
    for (r, dy) in dy.chunks(outputs).enumerate() {
        for (o, dy) in dy.iter().enumerate() {
            dbias[o] += dy;
            for i in 0..inputs {
                dx[r * inputs + i] += dy * w[o * inputs + i];
                dw[o * inputs + i] += dy * x[r * inputs + i];
            }
        }
    }
    (dx, dw, dbias)
}

/// x / (1 - p) where kept, and 0 elsewhere.
pub fn dropout(x: &[f64], keep: &[bool], p: f64) -> Vec<f64> {
    x.iter().zip(keep).map(|(x, keep)| if *keep { x / (1.0 - p) } else { 0.0 }).collect()
}

/// Backward of [`dropout`]: dx.
pub fn dropout_backward(keep: &[bool], p: f64, dy: &[f64]) -> Vec<f64> {
    dropout(dy, keep, p)
}

/// What [`classifier_loss`] gives.
pub struct ClassifierLoss {
    /// weight * Σ over rows of -log p(target) + z * lse²
    pub loss: f64,
    /// -log p(target) of each row, without the weight: `[m]`
    pub rows: Vec<f64>,
    /// `[m, d]`
    pub dx: Vec<f64>,
    /// `[v, d]`
    pub dtable: Vec<f64>,
    /// `[v]`
    pub dbias: Vec<f64>,
}

/// Cross-entropy of softmax(x Eᵀ + bias) with the targets plus z-loss, summed and multiplied by `weight`, and the
/// gradients of that. lse is the logarithm of the sum of the exponentials of a row's logits.
/// `x [m, d]`, `table [v, d]`, `bias [v]`, `targets [m]`.
pub fn classifier_loss(
    x: &[f64],
    d: usize,
    table: &[f64],
    bias: Option<&[f64]>,
    targets: &[u32],
    weight: f64,
    z: f64,
) -> ClassifierLoss {
    let v = table.len() / d;
    let mut dlogits = Vec::new(); // [m, v]
    let (mut rows, mut z_loss) = (Vec::new(), 0.0);
    for (logits, &target) in linear(x, d, table, bias).chunks(v).zip(targets) {
        let most = logits.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let log_sum = most + logits.iter().map(|z| (z - most).exp()).sum::<f64>().ln();
        rows.push(log_sum - logits[target as usize]);
        z_loss += z * log_sum * log_sum;
        let more = 1.0 + 2.0 * z * log_sum;
        let hit = |c: usize| if c == target as usize { 1.0 } else { 0.0 };
        dlogits.extend(logits.iter().enumerate().map(|(c, l)| weight * (more * (l - log_sum).exp() - hit(c))));
    }
    let (dx, dtable, dbias) = linear_backward(x, d, table, &dlogits);
    ClassifierLoss { loss: weight * (rows.iter().sum::<f64>() + z_loss), rows, dx, dtable, dbias }
}
