//! Metrics of classification: accuracy, F1 of class 1, Matthews' correlation. As scikit-learn defines them; 0 where a
//! quotient has no denominator.

use serde::{Deserialize, Serialize};

/// What a number of a classification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Share of items that are right.
    Accuracy,
    /// Harmonic mean of precision and recall of class 1; of two classes only.
    F1,
    /// Matthews' correlation of predictions and labels, in -1..1; of two classes only.
    Mcc,
}

impl Metric {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::F1 => "f1",
            Metric::Mcc => "mcc",
        }
    }

    /// Those that mean something for so many classes, the accuracy first.
    pub fn of(classes: u32) -> &'static [Metric] {
        if classes == 2 { &[Metric::Accuracy, Metric::F1, Metric::Mcc] } else { &[Metric::Accuracy] }
    }

    /// The metric of predicted classes against labels, both `[n]`; 0 for n = 0.
    ///
    /// ```
    /// use antlm::eval::finetune::metrics::Metric;
    /// // One of two ones is found, and one zero is taken for a one.
    /// let (predicted, labels) = ([1, 0, 1, 0], [1, 1, 0, 0]);
    /// assert_eq!(Metric::Accuracy.score(&predicted, &labels), 0.5);
    /// assert_eq!(Metric::F1.score(&predicted, &labels), 0.5);
    /// assert_eq!(Metric::Mcc.score(&predicted, &labels), 0.0);
    /// ```
    pub fn score(self, predicted: &[u32], labels: &[u32]) -> f64 {
        let count = |p: &dyn Fn(bool, bool) -> bool| {
            predicted.iter().zip(labels).filter(|(x, y)| p(**x == 1, **y == 1)).count() as f64
        };
        let quotient = |a: f64, b: f64| if b == 0.0 { 0.0 } else { a / b };
        if self == Metric::Accuracy {
            let right = predicted.iter().zip(labels).filter(|(x, y)| x == y).count();
            return quotient(right as f64, labels.len() as f64);
        }
        let (hit, false_alarm, miss, rejection) =
            (count(&|x, y| x && y), count(&|x, y| x && !y), count(&|x, y| !x && y), count(&|x, y| !x && !y));
        if self == Metric::F1 {
            return quotient(2.0 * hit, 2.0 * hit + false_alarm + miss);
        }
        let sides = [hit + false_alarm, hit + miss, rejection + false_alarm, rejection + miss];
        quotient(hit * rejection - false_alarm * miss, sides.iter().map(|x| x.sqrt()).product())
    }
}

/// Mean and sample standard deviation (of one number: none).
///
/// ```
/// use antlm::eval::finetune::metrics::mean_and_sd;
/// assert_eq!(mean_and_sd(&[1.0, 3.0]), (2.0, Some(2f64.sqrt())));
/// assert_eq!(mean_and_sd(&[7.0]), (7.0, None));
/// ```
pub fn mean_and_sd(x: &[f64]) -> (f64, Option<f64>) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let sd = (x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0)).sqrt();
    (mean, (x.len() > 1).then_some(sd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_by_hand() {
        // Three hits, one false alarm, two misses, four rejections.
        let predicted = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0];
        let labels = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0];
        let close = |metric: Metric, want: f64| {
            let got = metric.score(&predicted, &labels);
            assert!((got - want).abs() < 1e-12, "{metric:?}: {got}, expected {want}");
        };
        close(Metric::Accuracy, 0.7);
        // Precision 3/4, recall 3/5: 2 · 0.45 / 1.35.
        close(Metric::F1, 2.0 / 3.0);
        // (3 · 4 - 1 · 2) / √(4 · 5 · 5 · 6)
        close(Metric::Mcc, 10.0 / 600f64.sqrt());
        let inverse: Vec<u32> = labels.iter().map(|y| 1 - y).collect();
        assert!((Metric::Mcc.score(&labels, &labels) - 1.0).abs() < 1e-12);
        assert!((Metric::Mcc.score(&inverse, &labels) + 1.0).abs() < 1e-12);
    }

    #[test]
    fn one_class_alone_has_no_denominator() {
        assert_eq!(Metric::F1.score(&[0, 0], &[1, 0]), 0.0);
        assert_eq!(Metric::F1.score(&[0, 0], &[0, 0]), 0.0);
        assert_eq!(Metric::Mcc.score(&[1, 1], &[1, 0]), 0.0);
        assert_eq!(Metric::Accuracy.score(&[], &[]), 0.0);
        assert_eq!(Metric::of(3), [Metric::Accuracy]);
        assert_eq!(Metric::Accuracy.score(&[2, 1, 0], &[2, 1, 1]), 2.0 / 3.0);
    }
}
