//! Layer norm (with or without parameters) and root-mean-square norm, row by row.

/// (x - mean) / √(variance + eps), and, where given, times gamma plus beta. `x [n, cols]`, population variance.
pub fn layer_norm(x: &[f64], cols: usize, eps: f64, affine: Option<(&[f64], &[f64])>) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks(cols) {
        let (normal, _) = normalise(row, eps);
        match affine {
            Some((gamma, beta)) => y.extend((0..cols).map(|c| gamma[c] * normal[c] + beta[c])),
            None => y.extend(normal),
        }
    }
    y
}

/// One row with mean 0 and variance 1, and the factor 1 / √(variance + eps).
fn normalise(row: &[f64], eps: f64) -> (Vec<f64>, f64) {
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let factor = 1.0 / (variance + eps).sqrt();
    (row.iter().map(|x| (x - mean) * factor).collect(), factor)
}

/// Backward of [`layer_norm`]: (dx `[n, cols]`, dgamma `[cols]`, dbeta `[cols]`), the last two also without parameters.
pub fn layer_norm_backward(
    x: &[f64],
    cols: usize,
    eps: f64,
    affine: Option<(&[f64], &[f64])>,
    dy: &[f64],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut dx, mut dgamma, mut dbeta) = (Vec::with_capacity(x.len()), vec![0.0; cols], vec![0.0; cols]);
    for (row, dy) in x.chunks(cols).zip(dy.chunks(cols)) {
        let (normal, factor) = normalise(row, eps);
        let mut inner = dy.to_vec(); // gradient of the normalised row
        for c in 0..cols {
            dgamma[c] += dy[c] * normal[c];
            dbeta[c] += dy[c];
            inner[c] *= affine.map_or(1.0, |(gamma, _)| gamma[c]);
        }
        let mean = inner.iter().sum::<f64>() / cols as f64;
        let along = inner.iter().zip(&normal).map(|(a, b)| a * b).sum::<f64>() / cols as f64;
        dx.extend((0..cols).map(|c| factor * (inner[c] - mean - normal[c] * along)));
    }
    (dx, dgamma, dbeta)
}

/// gamma * x / √(mean of x² + eps). `x [n, cols]`.
pub fn rms_norm(x: &[f64], cols: usize, eps: f64, gamma: &[f64]) -> Vec<f64> {
    let row = |row: &[f64]| {
        let factor = rms_factor(row, eps);
        (0..cols).map(|c| gamma[c] * row[c] * factor).collect::<Vec<f64>>()
    };
    x.chunks(cols).flat_map(row).collect()
}

fn rms_factor(row: &[f64], eps: f64) -> f64 {
    1.0 / (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + eps).sqrt()
}

/// Backward of [`rms_norm`]: (dx `[n, cols]`, dgamma `[cols]`).
pub fn rms_norm_backward(x: &[f64], cols: usize, eps: f64, gamma: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut dgamma) = (Vec::with_capacity(x.len()), vec![0.0; cols]);
    for (row, dy) in x.chunks(cols).zip(dy.chunks(cols)) {
        let factor = rms_factor(row, eps);
        let along = (0..cols).map(|c| dy[c] * gamma[c] * row[c] * factor).sum::<f64>() / cols as f64;
        for c in 0..cols {
            dgamma[c] += dy[c] * row[c] * factor;
            dx.push(factor * (dy[c] * gamma[c] - row[c] * factor * along));
        }
    }
    (dx, dgamma)
}
