//! From scores to results: who wins, accuracies by paradigm and group, correlations.

use std::collections::BTreeMap;

use super::Task;
use super::aoa;
use super::items::Item;
use super::reading::{self, Word};
use crate::eval::results::{Part, TaskResult};
use crate::eval::stats::spearman;
use crate::{Error, Result};

/// The candidate with the highest score; of several, the first.
pub(super) fn winner(scores: &[f64]) -> usize {
    (1..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })
}

/// Whether the right candidate shares the highest score with another.
pub(super) fn tied(scores: &[f64]) -> bool {
    winner(scores) == 0 && scores.iter().skip(1).any(|&score| score == scores[0])
}

#[derive(Clone, Copy, Default)]
struct Count {
    right: u64,
    ties: u64,
    n: u64,
}

impl Count {
    fn add(&mut self, right: bool, tie: bool) {
        self.right += u64::from(right);
        self.ties += u64::from(tie);
        self.n += 1;
    }

    fn part(self) -> Part {
        Part { score: 100.0 * self.right as f64 / self.n.max(1) as f64, n: self.n, ties: self.ties }
    }
}

/// Fills in what a task with candidates comes to; `scores` are `[items][candidates]`.
pub(super) fn candidates(result: &mut TaskResult, task: Task, items: &[Item], scores: &[Vec<f64>]) -> Result<()> {
    let mut counts: BTreeMap<&str, BTreeMap<&str, Count>> = BTreeMap::new();
    let several = items.iter().any(|item| item.candidates.len() > 2);
    let unit = if task == Task::Ewok { "domain" } else { "uid" };
    for (item, scores) in items.iter().zip(scores) {
        let (winner, tie) = (winner(scores), tied(scores));
        let own = std::iter::once((unit, &item.uid[..]));
        for (kind, name) in own.chain(item.groups.iter().map(|(kind, name)| (*kind, &name[..]))) {
            counts.entry(kind).or_default().entry(name).or_default().add(winner == 0, tie);
        }
        let outcome = if tie { '=' } else { char::from(b'0' + u8::from(winner == 0)) };
        result.outcomes.entry(item.uid.clone()).or_default().push(outcome);
        if several {
            // A file of predictions names the candidate, so a digit is enough for the ten that a task may have.
            let digit = char::from_digit(winner as u32, 36).unwrap_or('?');
            result.chosen.entry(item.uid.clone()).or_default().push(digit);
        }
    }
    result.n = items.len() as u64;
    let names = |count: BTreeMap<&str, Count>| count.into_iter().map(|(name, c)| (name.to_owned(), c.part())).collect();
    result.parts = counts.into_iter().map(|(kind, count)| (kind.to_owned(), names(count))).collect();
    let parts = result.parts.get_mut(unit);
    result.ties = parts.iter().flat_map(|parts| parts.values()).map(|part| part.ties).sum();
    let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    let all: Vec<f64> = parts.iter().flat_map(|parts| parts.values()).map(|part| part.score).collect();
    result.score = match task {
        Task::WugAdj | Task::WugPast => {
            let probability: Vec<f64> = scores.iter().map(|scores| first(scores)).collect();
            let human: Vec<f64> = items.iter().filter_map(|item| item.ratio).collect();
            let rho = spearman(&probability, &human).ok_or_else(|| {
                Error::Usage(format!("{task}: no correlation: {} probabilities or ratios do not differ", items.len()))
            })?;
            result.values.insert("probability".into(), probability);
            result.values.insert("human".into(), human);
            100.0 * rho
        }
        Task::EntityTracking => {
            // Of each split the mean of its subsets, then the mean of the splits.
            let mut splits: BTreeMap<String, Vec<f64>> = BTreeMap::new();
            for (uid, part) in result.parts.get(unit).into_iter().flatten() {
                let split = items.iter().find(|item| item.uid == *uid).and_then(|item| item.groups.first());
                splits.entry(split.map(|(_, name)| name.clone()).unwrap_or_default()).or_default().push(part.score);
            }
            let splits: BTreeMap<String, f64> = splits.into_iter().map(|(name, all)| (name, mean(&all))).collect();
            for (name, part) in result.parts.get_mut("split").into_iter().flatten() {
                part.score = splits.get(name).copied().unwrap_or(part.score);
            }
            mean(&splits.into_values().collect::<Vec<_>>())
        }
        _ => mean(&all),
    };
    Ok(())
}

/// The first candidate's share of the softmax of all.
fn first(scores: &[f64]) -> f64 {
    1.0 / scores.iter().map(|score| (score - scores[0]).exp()).sum::<f64>()
}

/// Fills in what reading times come to. Its score is the mean of the two that the official pipeline prints.
pub(super) fn reading(
    result: &mut TaskResult,
    words: &[Word],
    surprisal: Vec<f64>,
    previous: Vec<Option<f64>>,
) -> Result<()> {
    let explained = reading::explained(words, &surprisal, &previous)?;
    let [eyes @ .., self_paced] = explained;
    let eye_tracking = eyes.iter().sum::<f64>() / eyes.len() as f64;
    let names = reading::EYE_TRACKING.into_iter().chain([reading::SELF_PACED]).zip(explained);
    let measures = names.chain([("eye_tracking", eye_tracking), ("self_paced", self_paced)]);
    let n = words.len() as u64;
    let parts = measures.map(|(name, score)| (name.to_owned(), Part { score, n, ties: 0 })).collect();
    result.parts.insert("measure".into(), parts);
    result.n = n;
    result.score = (eye_tracking + self_paced) / 2.0;
    result.values.insert("surprisal".into(), surprisal);
    // JSON has no NaN; the surprisal of a word that is not there is given as -1, which no surprisal is.
    result.values.insert("previous".into(), previous.into_iter().map(|p| p.unwrap_or(-1.0)).collect());
    Ok(())
}

/// Fills in the surprisals of words behind contexts; the score is the mean of the words' means.
pub(super) fn acquired(result: &mut TaskResult, words: &[aoa::Word], surprisal: Vec<f64>) {
    let mut at = 0;
    let mut parts = BTreeMap::new();
    for word in words.iter().filter(|word| !word.contexts.is_empty()) {
        let own = &surprisal[at..at + word.contexts.len()];
        at += own.len();
        let score = own.iter().sum::<f64>() / own.len() as f64;
        parts.insert(word.word.clone(), Part { score, n: own.len() as u64, ties: 0 });
    }
    result.n = surprisal.len() as u64;
    result.score = parts.values().map(|part| part.score).sum::<f64>() / parts.len().max(1) as f64;
    result.parts.insert("word".into(), parts);
    result.values.insert("surprisal".into(), surprisal);
}

#[cfg(test)]
mod tests {
    use super::super::items::Candidate;
    use super::*;

    fn item(uid: &str, candidates: usize, groups: &[(&'static str, &str)]) -> Item {
        let candidate = Candidate { text: "x".into(), start: 0, name: "x".into() };
        let groups = groups.iter().map(|&(kind, name)| (kind, name.to_owned())).collect();
        Item { uid: uid.into(), number: 0, groups, candidates: vec![candidate; candidates], ratio: None }
    }

    fn result(task: Task, items: &[Item], scores: &[Vec<f64>]) -> TaskResult {
        let mut result = TaskResult::new(task.name(), "2026");
        candidates(&mut result, task, items, scores).unwrap();
        result
    }

    #[test]
    fn the_mean_is_over_paradigms_and_ties_are_right_and_counted() {
        let field = [("field", "syntax")];
        let items = [item("a", 2, &field), item("b", 2, &field), item("b", 2, &field), item("b", 2, &[])];
        let scores = [vec![-1.0, -2.0], vec![-3.0, -3.0], vec![-2.0, -1.0], vec![-2.0, -1.0]];
        let result = result(Task::Blimp, &items, &scores);
        assert!((result.score - (100.0 + 100.0 / 3.0) / 2.0).abs() < 1e-9, "{}", result.score);
        assert_eq!((result.n, result.ties), (4, 1));
        assert_eq!((&result.outcomes["a"][..], &result.outcomes["b"][..]), ("1", "=00"));
        assert_eq!(result.parts["field"]["syntax"], Part { score: 200.0 / 3.0, n: 3, ties: 1 });
        assert!(result.chosen.is_empty());
    }

    #[test]
    fn entity_tracking_is_the_mean_of_splits() {
        let split = |name| [("split", name)];
        let items = [
            item("regular_0_ops", 5, &split("regular")),
            item("regular_1_ops", 5, &split("regular")),
            item("ambiref_0_ops", 5, &split("ambiref")),
            item("ambiref_0_ops", 5, &split("ambiref")),
        ];
        let right = vec![0.0, -1.0, -1.0, -1.0, -1.0];
        let fourth = vec![-2.0, -1.0, -1.0, 0.0, 0.0];
        let result = result(Task::EntityTracking, &items, &[right.clone(), right.clone(), right, fourth]);
        assert_eq!(result.score, 75.0);
        assert_eq!((result.parts["split"]["ambiref"].score, &result.chosen["ambiref_0_ops"][..]), (50.0, "03"));
    }

    #[test]
    fn made_up_words_are_correlated() {
        let mut items = vec![item("wug_adj", 2, &[]); 3];
        (0..3).for_each(|i| items[i].ratio = Some([0.1, 0.9, 0.5][i]));
        let scores = [vec![-4.0, -3.0], vec![-1.0, -3.0], vec![-2.0, -2.0]];
        let result = result(Task::WugAdj, &items, &scores);
        assert!((result.score - 100.0).abs() < 1e-9);
        assert_eq!(result.values["probability"][2], 0.5);
        assert!((result.values["probability"][0] - 1.0 / (1.0 + 1f64.exp())).abs() < 1e-12);
        items.iter_mut().for_each(|item| item.ratio = Some(0.5));
        let error = candidates(&mut TaskResult::new("wug-adj", "2026"), Task::WugAdj, &items, &scores).unwrap_err();
        assert!(error.to_string().contains("do not differ"));
    }
}
