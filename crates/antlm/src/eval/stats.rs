//! The statistics that evaluations need: ranks, correlations, the explained variance of linear models. All in f64.

/// Ranks from 1 on; equal values share the mean of their ranks. `[n]` -> `[n]`.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let equal = order[start..].iter().take_while(|&&i| values[i] == values[order[start]]).count().max(1);
        // The mean of start + 1, …, start + equal.
        let rank = start as f64 + (equal as f64 + 1.0) / 2.0;
        order[start..start + equal].iter().for_each(|&i| ranks[i] = rank);
        start += equal;
    }
    ranks
}

/// Pearson's correlation; nothing when one side does not vary or there are fewer than two values.
pub fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (centred(a), centred(b));
    let (aa, bb, ab) = (dot(&a, &a), dot(&b, &b), dot(&a, &b));
    (aa > 0.0 && bb > 0.0).then(|| (ab / (aa.sqrt() * bb.sqrt())).clamp(-1.0, 1.0))
}

/// Spearman's correlation: Pearson's of the ranks.
///
/// ```
/// use antlm::eval::stats::spearman;
/// assert!((spearman(&[1.0, 5.0, 9.0], &[-3.0, 0.0, 100.0]).unwrap() - 1.0).abs() < 1e-12);
/// assert_eq!(spearman(&[1.0, 1.0], &[0.0, 1.0]), None);
/// ```
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    pearson(&ranks(a), &ranks(b))
}

/// R² of the least-squares fit of `y` by an intercept and `columns`, each as long as `y`. A column that the ones before it
/// explain adds nothing. Nothing when `y` does not vary.
pub fn r_squared(y: &[f64], columns: &[Vec<f64>]) -> Option<f64> {
    let mut rest = centred(y);
    let total = dot(&rest, &rest);
    if total <= 0.0 || columns.iter().any(|column| column.len() != y.len()) {
        return None;
    }
    // Gram-Schmidt, each column twice, which is as good as reflections.
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for column in columns {
        let mut column = centred(column);
        let length = dot(&column, &column).sqrt();
        for _ in 0..2 {
            for b in &basis {
                let times = dot(&column, b);
                subtract(&mut column, times, b);
            }
        }
        let left = dot(&column, &column).sqrt();
        if left > 1e-9 * length {
            column.iter_mut().for_each(|x| *x /= left);
            let times = dot(&rest, &column);
            subtract(&mut rest, times, &column);
            basis.push(column);
        }
    }
    Some(1.0 - dot(&rest, &rest) / total)
}

fn centred(values: &[f64]) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    values.iter().map(|x| x - mean).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn subtract(a: &mut [f64], times: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a -= times * b);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
        assert!(ranks(&[]).is_empty());
    }

    #[test]
    fn correlations_by_hand() {
        // Centred: (-1.5, -0.5, 0.5, 1.5) and (-0.5, 0.5, -1.5, 1.5): 2 / (√5 · √5).
        assert!((pearson(&[1.0, 2.0, 3.0, 4.0], &[2.0, 3.0, 1.0, 4.0]).unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(pearson(&[1.0], &[2.0]), None);
        // Ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): 4.5 / √(4.5 · 5).
        let found = spearman(&[0.0, 7.0, 7.0, 8.0], &[1.0, 2.0, 3.0, 40.0]).unwrap();
        assert!((found - 4.5 / (4.5f64 * 5.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn explained_variance_by_hand() {
        let y = [1.0, 2.0, 4.0, 5.0];
        // One predictor: R² is the square of the correlation.
        let x = vec![0.0, 1.0, 2.0, 3.0];
        let r = pearson(&y, &x).unwrap();
        assert!((r_squared(&y, std::slice::from_ref(&x)).unwrap() - r * r).abs() < 1e-12);
        // A multiple of it and a constant explain nothing more; enough columns explain all.
        let more = [x.clone(), x.iter().map(|x| 3.0 * x - 7.0).collect(), vec![5.0; 4]];
        assert!((r_squared(&y, &more).unwrap() - r * r).abs() < 1e-12);
        let all = [x, vec![1.0, 0.0, 0.0, 0.0], vec![0.0, 1.0, 0.0, 0.0]];
        assert!((r_squared(&y, &all).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(r_squared(&[2.0, 2.0], &[]), None);
        // y = 2 a - b + noise that neither explains: the normal equations give 1 - 4 / 84.
        let a = vec![1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0];
        let b = vec![1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0];
        let noise = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0];
        let y: Vec<f64> = (0..8).map(|i| 2.0 * a[i] - b[i] + noise[i]).collect();
        assert!((r_squared(&y, &[a, b]).unwrap() - 40.0 / 48.0).abs() < 1e-12);
    }
}
