//! Learning-rate curves: warm-up, a shape, cool-down; a pure function of (step, number of steps).
//!
//! The cosine with a floor of 0.1 is that of LTG-BERT (`get_cosine_schedule_with_warmup` of its trainer), with a
//! cool-down that of GPT-BERT, with a floor of 0 that of BabyLlama (the Hugging Face one).

/// The shape between warm-up and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Half a cosine from 1 to the floor.
    Cosine,
    /// A straight line from 1 to the floor.
    Linear,
    /// 1 throughout; the floor is not used.
    Constant,
}

/// A length in steps, or as a share of all steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// So many steps, but at most a tenth of all: a warm-up made for a long run must not swallow a short one.
    Steps(u64),
    /// This share of all steps, rounded down.
    Fraction(f64),
}

impl Length {
    /// In steps, of `total`.
    pub fn steps(self, total: u64) -> u64 {
        match self {
            Length::Steps(steps) => steps.min(total / 10),
            Length::Fraction(fraction) => ((fraction * total as f64) as u64).min(total),
        }
    }
}

/// A learning-rate curve: the learning rate of a step is the peak times [`Curve::factor`].
///
/// ```
/// use antlm_nn::optim::curve::{Curve, Length, Shape};
/// let curve = Curve { shape: Shape::Cosine, warmup: Length::Steps(100), floor: 0.1, cooldown: 0.0 };
/// assert_eq!(curve.factor(50, 2000), 0.5);
/// assert_eq!(curve.factor(100, 2000), 1.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curve {
    /// The shape.
    pub shape: Shape,
    /// How long the factor rises from 0 (step s has s / warm-up, so the first step's is 0, as in LTG-BERT's trainer).
    pub warmup: Length,
    /// Where cosine and line end, as a share of the peak.
    pub floor: f64,
    /// Share of all steps at the end in which the factor falls in a straight line to 0: from the floor (GPT-BERT; a
    /// long cool-down begins with a drop to the floor), for a constant curve from 1.
    pub cooldown: f64,
}

impl Curve {
    /// The share of the peak at `step` (from 0) of `total`; past the end, that of the end.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        let warmup = self.warmup.steps(total);
        let cooldown = Length::Fraction(self.cooldown).steps(total);
        let step = step.min(total);
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        if cooldown > 0 && step >= total - cooldown {
            let from = if self.shape == Shape::Constant { 1.0 } else { self.floor };
            return from * (total - step) as f64 / cooldown as f64;
        }
        let progress = (step - warmup) as f64 / (total - warmup).max(1) as f64;
        match self.shape {
            Shape::Cosine => self.floor + 0.5 * (1.0 - self.floor) * (1.0 + cos_pi(progress)),
            Shape::Linear => self.floor + (1.0 - self.floor) * (1.0 - progress),
            Shape::Constant => 1.0,
        }
    }
}

/// cos(pi x) for x in [0, 1], to the last bits of f64. Our own series, so that it is the same on every machine.
fn cos_pi(x: f64) -> f64 {
    if x > 0.5 {
        return -cos_pi(1.0 - x);
    }
    let square = (std::f64::consts::PI * x) * (std::f64::consts::PI * x);
    // 1 - y/2! + y^2/4! - …: for y <= (pi/2)^2 the term after y^11 is below 1e-19.
    (1..=11).rev().fold(1.0, |sum, k| 1.0 - sum * square / f64::from((2 * k - 1) * (2 * k)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(got: f64, wanted: f64, tolerance: f64) {
        assert!((got - wanted).abs() <= tolerance, "{got}, expected {wanted}");
    }

    #[test]
    fn ltg_bert() {
        // Values of the reference trainer, 15,625 steps.
        let curve = Curve { shape: Shape::Cosine, warmup: Length::Fraction(0.016), floor: 0.1, cooldown: 0.0 };
        assert_eq!(curve.warmup.steps(15_625), 250);
        assert_eq!(curve.factor(0, 15_625), 0.0);
        assert_eq!(curve.factor(125, 15_625), 0.5);
        assert_eq!(curve.factor(250, 15_625), 1.0);
        close(curve.factor(14_062, 15_625), 0.122755, 5e-7);
        close(curve.factor(15_625, 15_625), 0.1, 1e-15);
    }

    #[test]
    fn gpt_bert() {
        // Values of the reference trainer, 7,812 steps; then the definition of its cool-down.
        let curve = Curve { shape: Shape::Cosine, warmup: Length::Fraction(0.016), floor: 0.1, cooldown: 0.016 };
        close(curve.factor(3906, 7812), 0.561400, 5e-7);
        close(curve.factor(7687, 7812), 0.100587, 5e-7);
        assert_eq!(curve.factor(7688, 7812), 0.1);
        close(curve.factor(7750, 7812), 0.05, 1e-15);
        assert_eq!(curve.factor(7812, 7812), 0.0);
    }

    #[test]
    fn line_and_constant() {
        let line = Curve { shape: Shape::Linear, warmup: Length::Steps(10), floor: 0.2, cooldown: 0.0 };
        close(line.factor(55, 100), 0.6, 1e-15);
        close(line.factor(100, 100), 0.2, 1e-15);
        let flat = Curve { shape: Shape::Constant, warmup: Length::Steps(0), floor: 0.0, cooldown: 0.25 };
        assert_eq!([0, 74, 75, 80, 100].map(|s| flat.factor(s, 100)), [1.0, 1.0, 1.0, 0.8, 0.0]);
    }

    #[test]
    fn a_short_run_is_not_all_warm_up() {
        let curve = Curve { shape: Shape::Cosine, warmup: Length::Steps(300), floor: 0.1, cooldown: 0.0 };
        assert_eq!(curve.warmup.steps(840), 84);
        assert_eq!(curve.factor(84, 840), 1.0);
        assert_eq!(curve.warmup.steps(20_000), 300);
        assert_eq!(curve.factor(0, 1), 1.0);
    }

    #[test]
    fn cosine() {
        for i in 0..=1000 {
            let x = f64::from(i) / 1000.0;
            close(cos_pi(x), (std::f64::consts::PI * x).cos(), 4e-16);
        }
        assert_eq!([cos_pi(0.0), cos_pi(1.0)], [1.0, -1.0]);
    }

    proptest! {
        #[test]
        fn never_outside_0_to_1(
            shape in prop::sample::select(vec![Shape::Cosine, Shape::Linear, Shape::Constant]),
            warmup in prop_oneof![(0u64..400).prop_map(Length::Steps), (0.0..1.0).prop_map(Length::Fraction)],
            floor in 0.0..=1.0, cooldown in 0.0..=1.0, total in 0u64..2000, step in 0u64..3000,
        ) {
            let factor = Curve { shape, warmup, floor, cooldown }.factor(step, total);
            prop_assert!((0.0..=1.0 + 1e-12).contains(&factor), "{}", factor);
        }
    }
}
