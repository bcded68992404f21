//! What cleaning changes: for every source, corpus and rule how many lines, documents and characters, with examples.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use super::clean::{Cleaning, Corpus, Rule, Step};
use super::corpus::{self, Purpose, Source};
use super::prepare::passes::{Work, total_bytes};
use super::prepare::{Phase, Progress};
use crate::{Error, Result};

/// Examples kept of a rule.
const EXAMPLES: usize = 3;
/// Characters of an example, at most.
const LENGTH: usize = 160;

/// What cleaning does to a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceDiff {
    /// Its name.
    pub name: String,
    /// Its profile.
    pub cleaning: Cleaning,
    /// Documents.
    pub documents: u64,
    /// Documents of which nothing is left.
    pub documents_dropped: u64,
    /// Words before, as the source counts them.
    pub words_before: u64,
    /// Words after.
    pub words_after: u64,
    /// UTF-8 bytes of the documents before.
    pub bytes_before: u64,
    /// UTF-8 bytes after.
    pub bytes_after: u64,
    /// What each rule did, by corpus and in the rules' order.
    pub rules: Vec<RuleDiff>,
}

/// What a rule does to the files of a corpus, after the rules before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleDiff {
    /// The corpus.
    pub corpus: Corpus,
    /// The rule's name.
    pub rule: &'static str,
    /// What it does.
    pub says: &'static str,
    /// Lines that are others now.
    pub lines_changed: u64,
    /// Lines that are not there any more.
    pub lines_dropped: u64,
    /// Characters that are gone: for every changed line and dropped text those that it has no more, wherever they stood.
    pub characters_removed: u64,
    /// Characters that are new.
    pub characters_added: u64,
    /// The first few places, in the order of the text.
    pub examples: Vec<Example>,
}

/// A line before and after a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// Before, cut to 160 characters.
    pub before: String,
    /// After; nothing, if it was dropped.
    pub after: Option<String>,
}

impl RuleDiff {
    fn new(corpus: Corpus, rule: &Rule) -> RuleDiff {
        RuleDiff {
            corpus,
            rule: rule.name,
            says: rule.says,
            lines_changed: 0,
            lines_dropped: 0,
            characters_removed: 0,
            characters_added: 0,
            examples: Vec::new(),
        }
    }

    /// Adds what the rule made of a document.
    fn compare(&mut self, rule: &Rule, before: &str, after: &str) {
        if before == after {
            return;
        }
        match rule.step {
            Step::Line(_) => {
                for (old, new) in before.split('\n').zip(after.split('\n')).filter(|(old, new)| old != new) {
                    self.lines_changed += 1;
                    let (removed, added) = characters(old, new);
                    self.characters_removed += removed;
                    self.characters_added += added;
                    self.example(old, Some(new));
                }
            }
            // What is left are lines as they were, in their order.
            Step::Drop(_) | Step::Document(_) => {
                let mut kept = after.split('\n').filter(|_| !after.is_empty()).peekable();
                for line in before.split('\n') {
                    if kept.next_if_eq(&line).is_some() {
                        continue;
                    }
                    self.lines_dropped += 1;
                    self.characters_removed += line.chars().count() as u64;
                    self.example(line, None);
                }
            }
        }
    }

    fn example(&mut self, before: &str, after: Option<&str>) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(Example { before: cut(before), after: after.map(cut) });
        }
    }

    fn add(&mut self, other: RuleDiff) {
        self.lines_changed += other.lines_changed;
        self.lines_dropped += other.lines_dropped;
        self.characters_removed += other.characters_removed;
        self.characters_added += other.characters_added;
        let room = EXAMPLES - self.examples.len();
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LENGTH) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

/// How many characters one line has that the other does not, each as often as it occurs: (gone, new).
fn characters(before: &str, after: &str) -> (u64, u64) {
    let mut counts: BTreeMap<char, i64> = BTreeMap::new();
    before.chars().for_each(|c| *counts.entry(c).or_default() += 1);
    after.chars().for_each(|c| *counts.entry(c).or_default() -= 1);
    let gone: i64 = counts.values().filter(|&&n| n > 0).sum();
    let new: i64 = counts.values().filter(|&&n| n < 0).sum();
    (gone.unsigned_abs(), new.unsigned_abs())
}

/// What cleaning changes in the training text of these sources; weights and dev sets play no part.
///
/// `progress` is called now and then; when `cancelled` says so, everything stops.
///
/// # Errors
/// Text that is missing or wrong (path and place), [`Error::Stopped`] if cancelled.
pub fn diff(
    sources: &[Source],
    progress: &mut dyn FnMut(Progress),
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<SourceDiff>> {
    let files = corpus::files(sources, Purpose::Train)?;
    let units = sources.iter().map(|s| s.unit().map_err(Error::Usage)).collect::<Result<Vec<_>>>()?;
    let mut found: Vec<(SourceDiff, BTreeMap<Corpus, Vec<RuleDiff>>)> =
        sources.iter().map(|source| (SourceDiff::new(source), BTreeMap::new())).collect();
    // Measured as the units do, which gives whole words only at the end.
    let mut measured = vec![[0; 2]; sources.len()];
    let mut work = Work { progress, cancelled };
    work.raw_windows(&files, Phase::Scan, 0, total_bytes(&files), |window| {
        let cleaned: Vec<(String, Vec<RuleDiff>)> = window
            .par_iter()
            .map(|raw| {
                let (mut text, mut diffs) = (raw.text.clone(), Vec::new());
                for (corpus, rule) in raw.file.cleaning.iter().flat_map(|c| c.rules().iter().map(move |r| (*c, r))) {
                    let after = rule.apply(&text);
                    let mut diff = RuleDiff::new(corpus, rule);
                    diff.compare(rule, &text, &after);
                    diffs.push(diff);
                    text = after;
                }
                (text, diffs)
            })
            .collect();
        for (raw, (after, diffs)) in window.iter().zip(cleaned) {
            let (all, rules) = &mut found[raw.file.source];
            let after = if after.trim().is_empty() { "" } else { &after[..] };
            all.documents += 1;
            all.documents_dropped += u64::from(after.is_empty());
            all.bytes_before += raw.text.len() as u64;
            all.bytes_after += after.len() as u64;
            let unit = units[raw.file.source];
            measured[raw.file.source][0] += unit.measure(&raw.text);
            measured[raw.file.source][1] += unit.measure(after);
            let Some(corpus) = raw.file.cleaning else { continue };
            match rules.get_mut(&corpus) {
                Some(sums) => sums.iter_mut().zip(diffs).for_each(|(sum, diff)| sum.add(diff)),
                None => drop(rules.insert(corpus, diffs)),
            }
        }
        Ok(())
    })?;
    let all = found.into_iter().zip(units).zip(measured).map(|(((mut all, rules), unit), [before, after])| {
        (all.words_before, all.words_after) = (unit.words(before), unit.words(after));
        all.rules = rules.into_values().flatten().collect();
        all
    });
    Ok(all.collect())
}

impl SourceDiff {
    fn new(source: &Source) -> SourceDiff {
        SourceDiff {
            name: source.name.clone(),
            cleaning: source.cleaning,
            documents: 0,
            documents_dropped: 0,
            words_before: 0,
            words_after: 0,
            bytes_before: 0,
            bytes_after: 0,
            rules: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_counted_and_the_sums_are_those_of_the_text() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let qed = write("qed.txt", "- so\n- so\n\n&lt;i&gt;\n\nnothing here");
        let books = write("gutenberg.txt", "It  was\n\nall right");
        let plain = write("other.txt", "- so  it is");
        let mut sources = vec![Source::new("clean", [qed, books]), Source::new("plain", [plain])];
        sources[0].cleaning = Cleaning::Babylm;
        let diffs = diff(&sources, &mut |_| {}, &|| false).unwrap();

        let clean = &diffs[0];
        assert_eq!((clean.documents, clean.documents_dropped), (5, 1));
        // - so - so, mark-up, nothing here; It was, all right.
        assert_eq!((clean.words_before, clean.words_after), (4 + 1 + 2 + 4, 1 + 2 + 4));
        let rule = |corpus, name| clean.rules.iter().find(|r| r.corpus == corpus && r.rule == name).unwrap();
        let numbers = |r: &RuleDiff| [r.lines_changed, r.lines_dropped, r.characters_removed, r.characters_added];
        let dash = rule(Corpus::Qed, "dash");
        assert_eq!(numbers(dash), [2, 0, 4, 0]);
        assert_eq!(dash.examples.len(), 2);
        assert_eq!((dash.examples[0].before.as_str(), dash.examples[0].after.as_deref()), ("- so", Some("so")));
        assert_eq!(numbers(rule(Corpus::Qed, "markup")), [0, 1, 9, 0]);
        assert_eq!(rule(Corpus::Qed, "markup").examples[0].after, None);
        assert_eq!(numbers(rule(Corpus::Qed, "repeats")), [0, 1, 2, 0]);
        assert_eq!(numbers(rule(Corpus::Gutenberg, "spaces")), [1, 0, 1, 0]);
        assert_eq!(numbers(rule(Corpus::Qed, "shouting")), [0; 4]);
        assert!(clean.bytes_after < clean.bytes_before);

        let plain = &diffs[1];
        assert!(plain.rules.is_empty() && plain.words_before == plain.words_after);
        assert_eq!(plain.bytes_before, plain.bytes_after);
        assert!(matches!(diff(&sources, &mut |_| {}, &|| true), Err(Error::Stopped { .. })));
    }

    #[test]
    fn examples_are_few_and_short() {
        assert_eq!(cut("abc"), "abc");
        assert_eq!(cut(&"é".repeat(161)), "é".repeat(160) + "…");
        assert_eq!(characters("HELLO", "Hello"), (4, 4));
        assert_eq!(characters("a b", "ab"), (1, 0));
        let rule = Corpus::Gutenberg.rules().iter().find(|r| r.name == "spaces").unwrap();
        let mut sum = RuleDiff::new(Corpus::Gutenberg, rule);
        for _ in 0..2 {
            let mut one = RuleDiff::new(Corpus::Gutenberg, rule);
            let before = "a  b\n".repeat(EXAMPLES - 1);
            one.compare(rule, &before, &rule.apply(&before));
            sum.add(one);
        }
        assert_eq!((sum.lines_changed, sum.examples.len()), (2 * (EXAMPLES as u64 - 1), EXAMPLES));
    }
}
