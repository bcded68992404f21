//! Learning curves: a sigmoid is fitted to points by least squares, with or without bounds (Levenberg-Marquardt).

/// f(x) = a / (1 + exp(-b (x - c))) + d.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sigmoid {
    /// Height.
    pub a: f64,
    /// Steepness.
    pub b: f64,
    /// Where it has half its height.
    pub c: f64,
    /// Lower end.
    pub d: f64,
}

/// Fits are given up behind so many steps.
const MOST_STEPS: usize = 1000;
/// A fit is done when a step makes the sum of squares smaller by less than this share.
const ENOUGH: f64 = 1e-12;
/// Damping beyond which no step helps.
const STUCK: f64 = 1e16;

impl Sigmoid {
    /// f(x).
    pub fn at(self, x: f64) -> f64 {
        self.a / (1.0 + (-self.b * (x - self.c)).exp()) + self.d
    }

    /// The x with f(x) = y; nothing unless the curve rises and crosses y.
    ///
    /// ```
    /// let curve = antlm::eval::sigmoid::Sigmoid { a: 2.0, b: 1.5, c: 20.0, d: -0.5 };
    /// assert!((curve.inverse(0.5).unwrap() - 20.0).abs() < 1e-12);
    /// assert_eq!(curve.inverse(1.5), None);
    /// ```
    pub fn inverse(self, y: f64) -> Option<f64> {
        let Sigmoid { a, b, c, d } = self;
        (a > 0.0 && b > 0.0 && y > d && y < a + d).then(|| c - (a / (y - d) - 1.0).ln() / b)
    }

    /// The sigmoid next to `points: [(x, y)]` in the sense of least squares, sought from `start` on, its parameters within
    /// `low` and `high`. Nothing when the search does not end, or the numbers are none.
    pub fn fit(points: &[(f64, f64)], start: Sigmoid, low: Sigmoid, high: Sigmoid) -> Option<Sigmoid> {
        let (low, high) = (low.list(), high.list());
        let mut at = start.list();
        for (p, (low, high)) in at.iter_mut().zip(low.iter().zip(&high)) {
            *p = p.clamp(*low, *high);
        }
        let mut cost = squares(points, at);
        let mut damping = 1e-3;
        for _ in 0..MOST_STEPS {
            let (normal, gradient) = normal_equations(points, at);
            // A parameter at its bound that wants to go beyond stays there.
            let free: Vec<usize> =
                (0..4).filter(|&i| if gradient[i] > 0.0 { at[i] > low[i] } else { at[i] < high[i] }).collect();
            loop {
                let step = solve(&normal, &gradient, &free, damping);
                let mut next = at;
                for (&i, step) in free.iter().zip(&step) {
                    next[i] = (at[i] - step).clamp(low[i], high[i]);
                }
                let new = squares(points, next);
                if new.is_finite() && new <= cost {
                    let done = cost - new <= ENOUGH * cost;
                    (at, cost, damping) = (next, new, (damping * 0.3).max(1e-12));
                    if done {
                        let [a, b, c, d] = at;
                        return Some(Sigmoid { a, b, c, d });
                    }
                    break;
                }
                damping *= 4.0;
                if damping > STUCK || !damping.is_finite() {
                    let [a, b, c, d] = at;
                    return cost.is_finite().then_some(Sigmoid { a, b, c, d });
                }
            }
        }
        None
    }

    fn list(self) -> [f64; 4] {
        [self.a, self.b, self.c, self.d]
    }
}

/// Half the sum of the squared distances.
fn squares(points: &[(f64, f64)], [a, b, c, d]: [f64; 4]) -> f64 {
    let curve = Sigmoid { a, b, c, d };
    points.iter().map(|&(x, y)| (curve.at(x) - y).powi(2)).sum::<f64>() / 2.0
}

/// JᵀJ and Jᵀr of the distances r.
fn normal_equations(points: &[(f64, f64)], [a, b, c, d]: [f64; 4]) -> ([[f64; 4]; 4], [f64; 4]) {
    let (mut normal, mut gradient) = ([[0.0; 4]; 4], [0.0; 4]);
    for &(x, y) in points {
        let s = 1.0 / (1.0 + (-b * (x - c)).exp());
        let slope = a * s * (1.0 - s);
        let row = [s, slope * (x - c), -slope * b, 1.0];
        let r = a * s + d - y;
        for i in 0..4 {
            gradient[i] += row[i] * r;
            for j in 0..4 {
                normal[i][j] += row[i] * row[j];
            }
        }
    }
    (normal, gradient)
}

/// Solves (JᵀJ + damping · diag) step = Jᵀr for the free parameters, by elimination with pivots.
fn solve(normal: &[[f64; 4]; 4], gradient: &[f64; 4], free: &[usize], damping: f64) -> Vec<f64> {
    let n = free.len();
    let mut rows: Vec<Vec<f64>> = free
        .iter()
        .map(|&i| {
            let mut row: Vec<f64> = free.iter().map(|&j| normal[i][j]).collect();
            row.push(gradient[i]);
            row
        })
        .collect();
    for (k, row) in rows.iter_mut().enumerate() {
        // The least term keeps a parameter that changes nothing where it is.
        row[k] += damping * row[k].max(1e-12);
    }
    for k in 0..n {
        let pivot = (k..n).max_by(|&i, &j| rows[i][k].abs().total_cmp(&rows[j][k].abs())).unwrap_or(k);
        rows.swap(k, pivot);
        let (done, rest) = rows.split_at_mut(k + 1);
        for row in rest {
            let times = row[k] / done[k][k];
            for j in k..=n {
                row[j] -= times * done[k][j];
            }
        }
    }
    let mut step = vec![0.0; n];
    for k in (0..n).rev() {
        let known: f64 = (k + 1..n).map(|j| rows[k][j] * step[j]).sum();
        step[k] = (rows[k][n] - known) / rows[k][k];
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: (Sigmoid, Sigmoid) = (
        Sigmoid { a: f64::NEG_INFINITY, b: f64::NEG_INFINITY, c: f64::NEG_INFINITY, d: f64::NEG_INFINITY },
        Sigmoid { a: f64::INFINITY, b: f64::INFINITY, c: f64::INFINITY, d: f64::INFINITY },
    );

    #[test]
    fn a_curve_is_found_again() {
        let curve = Sigmoid { a: 0.9, b: 0.45, c: 21.3, d: 0.04 };
        let points: Vec<(f64, f64)> = (16..=30).map(|x| (f64::from(x), curve.at(f64::from(x)))).collect();
        let start = Sigmoid { a: 1.0, b: 0.1, c: 23.0, d: 0.0 };
        let found = Sigmoid::fit(&points, start, FREE.0, FREE.1).unwrap();
        for (found, wanted) in found.list().iter().zip(curve.list()) {
            assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
        }
    }

    #[test]
    fn no_neighbour_is_better_and_bounds_hold() {
        // Noisy points; the best height is above 1, which is not allowed here.
        let points: Vec<(f64, f64)> =
            (16..=30).map(|x| (f64::from(x), f64::from(x - 16) * 0.09 + 0.03 * f64::from(x % 3))).collect();
        let start = Sigmoid { a: 1.0, b: 0.1, c: 23.0, d: 0.0 };
        let low = Sigmoid { a: 0.0, b: 0.0, c: 16.0, d: -0.5 };
        let high = Sigmoid { a: 1.0, b: 1.0, c: 30.0, d: 0.5 };
        let found = Sigmoid::fit(&points, start, low, high).unwrap();
        assert_eq!(found.a, 1.0);
        let best = squares(&points, found.list());
        for i in 0..4 {
            for change in [-1e-3, 1e-3] {
                let mut near = found.list();
                near[i] = (near[i] + change).clamp(low.list()[i], high.list()[i]);
                assert!(squares(&points, near) >= best, "{i} {change}");
            }
        }
    }

    #[test]
    fn hopeless_points_end_too() {
        let start = Sigmoid { a: 0.0, b: 1.0, c: 6.0, d: -8.0 };
        let flat: Vec<(f64, f64)> = (0..5).map(|x| (f64::from(x), -8.0)).collect();
        assert!(Sigmoid::fit(&flat, start, FREE.0, FREE.1).is_none_or(|found| (found.at(2.0) + 8.0).abs() < 1e-6));
        let broken = [(0.0, f64::NAN), (1.0, 1.0), (2.0, 3.0)];
        assert_eq!(Sigmoid::fit(&broken, start, FREE.0, FREE.1), None);
    }
}
