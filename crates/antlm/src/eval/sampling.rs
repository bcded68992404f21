//! Which token comes next: a distribution from logits, cut by temperature, top-k, top-p and min-p, and a draw from it.

use antlm_nn::kernels::math::exp;

use crate::{Error, Result};

/// How a token is drawn. Each rule looks at what the one before has left, with probabilities that sum to 1 again:
/// temperature, then top-k, then top-p, then min-p. The most probable token is never cut, and of equally probable ones
/// the smaller id comes first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The logits are divided by it. 0: always the most probable token.
    pub temperature: f64,
    /// Only so many of the most probable tokens stay; `None` for all.
    pub top_k: Option<usize>,
    /// The fewest of the most probable tokens stay whose probabilities sum to at least this; 1 for all.
    pub top_p: f64,
    /// Tokens stay that are at least this times as probable as the most probable one; 0 for all.
    pub min_p: f64,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Sampling {
        Sampling { temperature: 1.0, top_k: None, top_p: 1.0, min_p: 0.0 }
    }
}

impl Sampling {
    /// Checks that every number is in its range.
    ///
    /// # Errors
    /// [`Error::Usage`] with the option, its value and its range.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, value: f64, range: &str| Err(Error::Usage(format!("{name} is {value}; {range}")));
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return wrong(
                "temperature",
                self.temperature,
                "it must be a number of at least 0 (0: the likeliest token)",
            );
        }
        if self.top_k == Some(0) {
            return wrong("top-k", 0.0, "at least one token must stay");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top-p", self.top_p, "it must be above 0 and at most 1 (1: off)");
        }
        if !(self.min_p >= 0.0 && self.min_p <= 1.0) {
            return wrong("min-p", self.min_p, "it must be between 0 (off) and 1");
        }
        Ok(())
    }

    /// The tokens that can be drawn with their probabilities, the most probable first. Tokens with a logit of -∞ are
    /// never among them; without any other, or with NaN among the logits, the list is empty.
    ///
    /// ```
    /// use antlm::eval::sampling::Sampling;
    /// let logits = [0.0, 3.0f32.ln(), f32::NEG_INFINITY, 0.0];
    /// let kept = Sampling { top_k: Some(2), ..Sampling::default() }.kept(&logits);
    /// assert_eq!(kept.iter().map(|&(token, _)| token).collect::<Vec<_>>(), [1, 0]);
    /// assert!((kept[0].1 - 0.75).abs() < 1e-6);
    /// ```
    pub fn kept(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        if logits.iter().any(|z| z.is_nan()) {
            return Vec::new();
        }
        let mut kept: Vec<(u32, f64)> =
            (0..).zip(logits).filter(|(_, z)| **z > f32::NEG_INFINITY).map(|(id, &z)| (id, f64::from(z))).collect();
        let most = |n: usize, kept: &mut Vec<(u32, f64)>| {
            // What is cut need not be sorted.
            if n < kept.len() {
                kept.select_nth_unstable_by(n, before);
                kept.truncate(n);
            }
            kept.sort_unstable_by(before);
        };
        let count = if self.temperature == 0.0 { 1 } else { self.top_k.unwrap_or(usize::MAX) };
        most(count, &mut kept);
        let Some(&(_, top)) = kept.first() else { return kept };
        for (_, z) in &mut kept {
            // The difference first: the largest is 0 whatever the temperature.
            let scaled = if *z == top { 0.0 } else { (*z - top) / self.temperature };
            *z = f64::from(exp(scaled as f32));
        }
        normalise(&mut kept);
        if self.top_p < 1.0 {
            let mut sum = 0.0;
            let enough = kept.iter().position(|&(_, p)| {
                sum += p;
                sum >= self.top_p
            });
            kept.truncate(enough.map_or(kept.len(), |last| last + 1));
            normalise(&mut kept);
        }
        let least = self.min_p * kept[0].1;
        kept.retain(|&(_, p)| p >= least && p > 0.0);
        normalise(&mut kept);
        kept
    }

    /// The token that `unit`, a number in `[0, 1)`, falls on. `None` where [`kept`](Self::kept) is empty.
    pub fn draw(&self, logits: &[f32], unit: f64) -> Option<u32> {
        let kept = self.kept(logits);
        let mut sum = 0.0;
        let found = kept.iter().find(|&&(_, p)| {
            sum += p;
            unit < sum
        });
        // Rounding may leave the sum a little below 1.
        found.or(kept.last()).map(|&(token, _)| token)
    }
}

/// The more probable first, of equals the smaller id.
pub(super) fn before(a: &(u32, f64), b: &(u32, f64)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn normalise(kept: &mut [(u32, f64)]) {
    let sum: f64 = kept.iter().map(|&(_, p)| p).sum();
    kept.iter_mut().for_each(|(_, p)| *p /= sum);
}

/// Logarithm of each token's probability, from logits: `[V]` -> `[V]`, in nats. NaN where the logits are not numbers.
pub(super) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let top = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f64 = logits.iter().map(|&z| f64::from(exp(z - top))).sum();
    // `ln` is for ordinary numbers only.
    let lse = if sum.is_finite() && sum > 0.0 { antlm_nn::kernels::math::ln(sum) + f64::from(top) } else { f64::NAN };
    logits.iter().map(|&z| f64::from(z) - lse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use antlm_nn::rng::{Rng, Stream};

    /// Probabilities as logits, up to a constant.
    fn logits(p: &[f64]) -> Vec<f32> {
        p.iter().map(|p| (p.ln() + 3.0) as f32).collect()
    }

    fn ids(sampling: Sampling, p: &[f64]) -> Vec<u32> {
        sampling.kept(&logits(p)).into_iter().map(|(id, _)| id).collect()
    }

    const P: [f64; 6] = [0.1, 0.4, 0.05, 0.25, 0.15, 0.05];

    #[test]
    fn exact_sets_are_kept() {
        let plain = Sampling::default();
        let cases: [(Sampling, &[u32]); 13] = [
            (plain, &[1, 3, 4, 0, 2, 5]),
            (Sampling { top_k: Some(1), ..plain }, &[1]),
            (Sampling { top_k: Some(3), ..plain }, &[1, 3, 4]),
            // 2 and 5 are equally probable: the smaller id stays.
            (Sampling { top_k: Some(5), ..plain }, &[1, 3, 4, 0, 2]),
            (Sampling { top_k: Some(99), ..plain }, &[1, 3, 4, 0, 2, 5]),
            // Sums: 0.4, 0.65, 0.8, 0.9, 0.95, 1.
            (Sampling { top_p: 0.01, ..plain }, &[1]),
            (Sampling { top_p: 0.39, ..plain }, &[1]),
            (Sampling { top_p: 0.41, ..plain }, &[1, 3]),
            (Sampling { top_p: 0.79, ..plain }, &[1, 3, 4]),
            // At least 0.3 x 0.4 = 0.12.
            (Sampling { min_p: 0.3, ..plain }, &[1, 3, 4]),
            (Sampling { min_p: 1.0, ..plain }, &[1]),
            // top-k first: of 0.4, 0.25, 0.15 (sum 0.8) the first two have 0.8125.
            (Sampling { top_k: Some(3), top_p: 0.8, ..plain }, &[1, 3]),
            (Sampling { temperature: 0.0, ..plain }, &[1]),
        ];
        for (sampling, want) in cases {
            assert_eq!(ids(sampling, &P), want, "{sampling:?}");
        }
        // At temperature 1/2 probabilities are squared: 0.16 of 0.26 is 0.615, with the next 0.856.
        assert_eq!(ids(Sampling { temperature: 0.5, top_p: 0.61, ..plain }, &P), [1]);
        assert_eq!(ids(Sampling { temperature: 0.5, top_p: 0.62, ..plain }, &P), [1, 3]);
        // All of a size: any of the first k, and greedy takes the first.
        assert_eq!(ids(Sampling { top_k: Some(2), ..plain }, &[0.25; 4]), [0, 1]);
        assert_eq!(Sampling { temperature: 0.0, ..plain }.draw(&[1.0; 9], 0.99), Some(0));
    }

    #[test]
    fn probabilities_are_those_of_what_is_left() {
        let close = |sampling: Sampling, want: &[f64]| {
            let kept = sampling.kept(&logits(&P));
            assert_eq!(kept.len(), want.len());
            assert!(kept.iter().zip(want).all(|((_, p), want)| (p - want).abs() < 1e-6), "{sampling:?}: {kept:?}");
        };
        let plain = Sampling::default();
        close(plain, &[0.4, 0.25, 0.15, 0.1, 0.05, 0.05]);
        close(Sampling { top_k: Some(3), ..plain }, &[0.5, 0.3125, 0.1875]);
        close(Sampling { top_p: 0.65, min_p: 0.6, ..plain }, &[0.4 / 0.65, 0.25 / 0.65]);
        let roots: Vec<f64> = [0.4f64, 0.25, 0.15, 0.1, 0.05, 0.05].iter().map(|p| p.sqrt()).collect();
        let sum: f64 = roots.iter().sum();
        close(Sampling { temperature: 2.0, ..plain }, &roots.iter().map(|p| p / sum).collect::<Vec<_>>());
    }

    /// Of 20,000 draws each token gets its share, within four standard deviations of the binomial distribution.
    #[test]
    fn frequencies_are_the_probabilities() {
        const N: u32 = 20_000;
        let plain = Sampling::default();
        for sampling in [
            plain,
            Sampling { temperature: 0.7, ..plain },
            Sampling { top_k: Some(4), ..plain },
            Sampling { top_p: 0.7, ..plain },
            Sampling { min_p: 0.3, temperature: 1.5, ..plain },
        ] {
            let z = logits(&P);
            let mut counts = [0.0; 6];
            for position in 0..N {
                let unit = Rng::new(11).unit(Stream::GENERATE, position, 0, 0);
                counts[sampling.draw(&z, unit).unwrap() as usize] += 1.0;
            }
            let mut want = [0.0; 6];
            sampling.kept(&z).iter().for_each(|&(id, p)| want[id as usize] = p);
            for (count, p) in counts.iter().zip(want) {
                let (mean, deviation) = (f64::from(N) * p, (f64::from(N) * p * (1.0 - p)).sqrt());
                assert!((count - mean).abs() <= 4.0 * deviation, "{sampling:?}: {counts:?}, wanted {want:?}");
            }
        }
    }

    #[test]
    fn what_has_no_probability_is_never_drawn() {
        let none = f32::NEG_INFINITY;
        let plain = Sampling::default();
        for unit in [0.0, 0.3, 0.999_999_999_9] {
            assert_eq!(plain.draw(&[none, 0.0, none, -1e30], unit), Some(1));
        }
        assert_eq!(plain.draw(&[none; 3], 0.5), None);
        assert_eq!(plain.draw(&[0.0, f32::NAN], 0.5), None);
        // Temperatures at the ends of their range.
        assert_eq!(Sampling { temperature: 1e-300, ..plain }.draw(&[0.0, 0.1, 0.0], 0.999), Some(1));
        let flat = Sampling { temperature: 1e300, ..plain }.kept(&[0.0, 50.0]);
        assert!((flat[1].1 - 0.5).abs() < 1e-6);
    }

    #[test]
    fn numbers_out_of_their_range_are_named() {
        let plain = Sampling::default();
        plain.check().unwrap();
        for (sampling, name) in [
            (Sampling { temperature: f64::NAN, ..plain }, "temperature is NaN"),
            (Sampling { temperature: -1.0, ..plain }, "temperature is -1"),
            (Sampling { temperature: f64::INFINITY, ..plain }, "temperature is inf"),
            (Sampling { top_k: Some(0), ..plain }, "top-k is 0"),
            (Sampling { top_p: 0.0, ..plain }, "top-p is 0"),
            (Sampling { top_p: 1.01, ..plain }, "top-p is 1.01"),
            (Sampling { top_p: f64::NAN, ..plain }, "top-p is NaN"),
            (Sampling { min_p: -0.1, ..plain }, "min-p is -0.1"),
            (Sampling { min_p: f64::NAN, ..plain }, "min-p is NaN"),
        ] {
            let error = sampling.check().unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }

    #[test]
    fn log_probabilities_sum_to_one() {
        let z = log_softmax(&logits(&P));
        assert!(z.iter().zip(P).all(|(z, p)| (z - p.ln()).abs() < 1e-6), "{z:?}");
        assert!(log_softmax(&[0.0, f32::NAN]).iter().all(|z| z.is_nan()));
    }
}
