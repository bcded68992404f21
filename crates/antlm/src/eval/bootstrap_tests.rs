//! Tests of the bootstrap: cases by hand, how often an interval holds the truth, what is refused.

use super::*;
use crate::eval::results::Part;

fn result(task: &str, metric: &str, score: f64, outcomes: &[(&str, &str)]) -> TaskResult {
    let mut result = TaskResult::new(task, "2026");
    (result.metric, result.score) = (metric.into(), score);
    result.outcomes = outcomes.iter().map(|&(uid, text)| (uid.to_owned(), text.to_owned())).collect();
    result.parts.entry("uid".into()).or_default().insert("x".into(), Part::default());
    result
}

fn paired(a: &TaskResult, b: &TaskResult) -> Vec<f64> {
    let scores = scores(&[a, b]).unwrap().unwrap();
    let group = |name, i: usize| Group { name, scores: vec![&scores[i][..]] };
    differences(&group("a", 0), &group("b", 1))
}

#[test]
fn two_items_by_hand() {
    // Item 1: right and wrong; item 2: both right. Of two draws none, one or both are item 1: 1/4, 1/2, 1/4.
    let (a, b) =
        (result("blimp", "accuracy", 100.0, &[("u", "1=")]), result("blimp", "accuracy", 50.0, &[("u", "01")]));
    let found = paired(&a, &b);
    let share = |value: f64| found.iter().filter(|&&x| x == value).count() as f64 / f64::from(RESAMPLES);
    assert_eq!(share(0.0) + share(50.0) + share(100.0), 1.0);
    // Three standard errors of a share of 1/2 and of 1/4.
    assert!((share(50.0) - 0.5).abs() < 0.034 && (share(0.0) - 0.25).abs() < 0.03, "{}", share(50.0));
    assert_eq!(interval(&found), [0.0, 100.0]);
    assert_eq!(found, paired(&a, &b));
}

#[test]
fn draws_stay_within_a_paradigm() {
    // Within each paradigm all items are alike, so whatever is drawn, the score is the mean over paradigms, not items.
    let a = result("blimp", "accuracy", 50.0, &[("long", "00000000"), ("short", "11")]);
    let b = result("blimp", "accuracy", 0.0, &[("long", "00000000"), ("short", "00")]);
    assert!(paired(&a, &b).iter().all(|&difference| difference == 50.0));
    // Entity tracking: the mean of splits, not of subsets.
    let subsets = |x| [("ambiref_0_ops", "11"), ("regular_0_ops", "00"), ("regular_1_ops", x)];
    let a = result("entity-tracking", "accuracy", 75.0, &subsets("11"));
    let b = result("entity-tracking", "accuracy", 50.0, &subsets("00"));
    assert!(paired(&a, &b).iter().all(|&difference| difference == 25.0));
}

#[test]
fn a_model_does_not_differ_from_itself() {
    let a = result("blimp", "accuracy", 60.0, &[("u", "10110")]);
    assert_eq!(interval(&paired(&a, &a.clone())), [0.0, 0.0]);
}

#[test]
fn intervals_hold_the_truth_about_as_often_as_they_say() {
    // 100 pairs of models that answer 4 x 100 items right with 70 and 60 per cent, on shared luck (correlated).
    let rng = Rng::new(5);
    let mut held = 0;
    for study in 0..100u32 {
        let mut outcomes = [BTreeMap::new(), BTreeMap::new()];
        let mut right = [0, 0];
        for unit in 0..4u32 {
            let mut draws = rng.draws(Stream::SAMPLE, study, unit);
            let mut texts = [String::new(), String::new()];
            for _ in 0..100 {
                let shared = draws.unit();
                for (model, p) in [0.7, 0.6].into_iter().enumerate() {
                    let luck = if draws.unit() < 0.5 { shared } else { draws.unit() };
                    right[model] += u32::from(luck < p);
                    texts[model].push(if luck < p { '1' } else { '0' });
                }
            }
            for (all, text) in outcomes.iter_mut().zip(texts) {
                all.insert(format!("u{unit}"), text);
            }
        }
        let [a, b] = outcomes;
        let of = |right: u32, outcomes| {
            let score = f64::from(right) / 4.0;
            TaskResult { outcomes, ..result("blimp", "accuracy", score, &[]) }
        };
        let [low, high] = interval(&paired(&of(right[0], a), &of(right[1], b)));
        assert!(low < high && high - low < 30.0);
        held += u32::from(low <= 10.0 && 10.0 <= high);
    }
    // 95 of 100 are expected; 88 is more than three standard errors below.
    assert!((88..=100).contains(&held), "{held} of 100");
}

#[test]
fn seeds_are_drawn_too() {
    // Three models that differ among each other in nothing but their level: all the spread is the seeds'.
    let all = [vec![10.0; 2000], vec![20.0; 2000], vec![30.0; 2000], vec![5.0; 2000]];
    let group =
        |name, range: std::ops::Range<usize>| Group { name, scores: all[range].iter().map(|x| &x[..]).collect() };
    let found = differences(&group("a", 0..3), &group("b", 3..4));
    // All three draws the same: 1 in 27 each, so both ends are within 95 %.
    assert_eq!(interval(&found), [5.0, 25.0]);
    // The same models read another way are drawn together.
    assert_eq!(interval(&differences(&group("a", 0..3), &group("a", 0..3))), [0.0, 0.0]);
}

#[test]
fn other_metrics_by_hand() {
    // tp 2, fp 1, missed 1, tn 2: F1 4/6, MCC (4 - 1) / 9.
    let pairs = [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]];
    assert!((of_pairs("f1", &pairs).unwrap() - 400.0 / 6.0).abs() < 1e-9);
    assert!((of_pairs("mcc", &pairs).unwrap() - 100.0 / 3.0).abs() < 1e-9);
    let mut cola = result("cola", "mcc", 100.0 / 3.0, &[]);
    cola.values.insert("prediction".into(), pairs.iter().map(|p| p[0]).collect());
    cola.values.insert("label".into(), pairs.iter().map(|p| p[1]).collect());
    let found = scores(&[&cola]).unwrap().unwrap();
    let [low, high] = interval(&found[0]);
    assert!(low < 0.0 && high > 80.0, "{low} {high}");
    let reading = result("reading", "delta-r2", 1.0, &[]);
    assert_eq!(scores(&[&reading]).unwrap(), None);
    assert_eq!(interval(&[3.0]), [3.0, 3.0]);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let a = result("blimp", "accuracy", 100.0, &[("u", "11")]);
    for (b, words) in [
        (result("blimp", "accuracy", 100.0, &[("u", "111")]), "not of the same items"),
        (result("blimp", "accuracy", 100.0, &[("u", "11"), ("v", "1")]), "not of the same items"),
        (result("blimp", "accuracy", 90.0, &[("u", "11")]), "do not give its score"),
        (result("cola", "mcc", 90.0, &[]), "different kinds"),
    ] {
        let error = scores(&[&a, &b]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
