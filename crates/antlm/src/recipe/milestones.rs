//! Milestones: checkpoints under names of their own at marks of words seen, as BabyLM asks for.

use serde::{Deserialize, Serialize};

use crate::objective::stream::Layout;
use crate::text::words::grouped;
use crate::{Error, Result};

/// At which numbers of words seen a run keeps its weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub enum Milestones {
    /// At none.
    #[default]
    None,
    /// The 19 of BabyLM's strict-small track: every 1 M words to 10 M, every 10 M to 100 M.
    StrictSmall,
    /// The 28 of the strict track: those, and every 100 M to 1,000 M.
    Strict,
    /// At these, increasing.
    Words(Vec<u64>),
}

const NONE: &str = "none";
const STRICT_SMALL: &str = "babylm-strict-small";
const STRICT: &str = "babylm-strict";
const MILLION: u64 = 1_000_000;

#[derive(Clone, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"none\", \"babylm-strict-small\", \"babylm-strict\" or a list of numbers of words ([100000, 1000000])"
)]
enum Raw {
    Name(String),
    Words(Vec<u64>),
}

impl From<Milestones> for Raw {
    fn from(milestones: Milestones) -> Raw {
        match milestones {
            Milestones::None => Raw::Name(NONE.into()),
            Milestones::StrictSmall => Raw::Name(STRICT_SMALL.into()),
            Milestones::Strict => Raw::Name(STRICT.into()),
            Milestones::Words(words) => Raw::Words(words),
        }
    }
}

impl TryFrom<Raw> for Milestones {
    type Error = String;

    fn try_from(raw: Raw) -> std::result::Result<Milestones, String> {
        match raw {
            Raw::Name(name) => match &name[..] {
                NONE => Ok(Milestones::None),
                STRICT_SMALL => Ok(Milestones::StrictSmall),
                STRICT => Ok(Milestones::Strict),
                _ => Err(format!(
                    "no milestones {name:?}; there are {NONE}, {STRICT_SMALL}, {STRICT}, or a list of words"
                )),
            },
            Raw::Words(words) if words.first() == Some(&0) || words.windows(2).any(|pair| pair[0] >= pair[1]) => {
                Err("milestones increase, from 1 word on".into())
            }
            Raw::Words(words) => Ok(Milestones::Words(words)),
        }
    }
}

/// A milestone that a run reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Milestone {
    /// Its folder's name: `chck_10M`.
    pub name: String,
    /// Words seen, at least.
    pub words: u64,
    /// Optimiser steps done then: the first number after which so many words were seen.
    pub step: u64,
}

impl Milestones {
    /// The marks, in words seen. Before them comes the untrained model, at 0.
    pub fn marks(&self) -> Vec<u64> {
        let up_to = |power: u32| (0..=power).flat_map(|p| (1..=9).map(move |i| i * 10u64.pow(p) * MILLION));
        match self {
            Milestones::None => Vec::new(),
            Milestones::StrictSmall => up_to(1).chain([100 * MILLION]).collect(),
            Milestones::Strict => up_to(2).chain([1000 * MILLION]).collect(),
            Milestones::Words(words) => words.clone(),
        }
    }

    /// Their names, those that the official scripts look for; without the untrained model's.
    pub fn names(&self) -> Vec<String> {
        self.marks().into_iter().map(name).collect()
    }

    /// Where a run reaches them, the untrained model at step 0 first; `position(w)` is the place in the stream of segments
    /// that holds the run's w-th word, from 0. Marks beyond the run's end are left out.
    ///
    /// # Errors
    /// [`Error::Usage`] when two marks fall into one step.
    pub fn reached(&self, layout: &Layout, position: impl Fn(u64) -> Option<u64>) -> Result<Vec<Milestone>> {
        let marks = self.marks();
        if marks.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = vec![Milestone { name: name(0), words: 0, step: 0 }];
        for words in marks {
            let Some(place) = position(words - 1) else { break };
            let Some(block) = layout.blocks.iter().find(|block| block.positions.contains(&place)) else { break };
            let step = block.steps.start + (place - block.positions.start) / u64::from(layout.batch) + 1;
            if let Some(before) = found.last().filter(|before| before.step == step) {
                return Err(Error::Usage(format!(
                    "milestones {} and {} fall into one step (step {}): steps take too many words; fewer batch.segments \
                     or fewer checkpoints.milestones help",
                    before.name,
                    name(words),
                    grouped(step)
                )));
            }
            found.push(Milestone { name: name(words), words, step });
        }
        Ok(found)
    }
}

/// The name that BabyLM's scripts look for: millions as `chck_10M`; other numbers of ours as `chck_500k`, `chck_1234`.
fn name(words: u64) -> String {
    match words {
        w if w.is_multiple_of(MILLION) => format!("chck_{}M", w / MILLION),
        w if w.is_multiple_of(1000) => format!("chck_{}k", w / 1000),
        w => format!("chck_{w}"),
    }
}

/// The mark that a milestone's name stands for; nothing for another name.
///
/// ```
/// assert_eq!(antlm::recipe::mark("chck_10M"), Some(10_000_000));
/// assert_eq!(antlm::recipe::mark("step-000000010"), None);
/// ```
pub fn mark(name: &str) -> Option<u64> {
    let number = name.strip_prefix("chck_")?;
    let (digits, unit) = match number.strip_suffix('M') {
        Some(digits) => (digits, MILLION),
        None => number.strip_suffix('k').map_or((number, 1), |digits| (digits, 1000)),
    };
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()?.checked_mul(unit))?
}

#[cfg(test)]
mod tests {
    use antlm_nn::rng::Rng;
    use proptest::prelude::*;

    use super::*;
    use crate::objective::schedule::Schedule;
    use crate::objective::stream::{Order, position_of_word};

    #[test]
    fn the_official_names() {
        let names = |milestones: Milestones| milestones.names();
        let small = names(Milestones::StrictSmall);
        let listed: Vec<String> =
            (1..=9).map(|i| format!("chck_{i}M")).chain((1..=10).map(|i| format!("chck_{i}0M"))).collect();
        assert_eq!((small.len(), &small), (19, &listed));
        let strict = names(Milestones::Strict);
        assert_eq!((strict.len(), &strict[..18], &strict[27][..]), (28, &small[..18], "chck_1000M"));
        assert_eq!(strict[18], "chck_100M");
        assert_eq!([0, 500_000, 1_234].map(name), ["chck_0M", "chck_500k", "chck_1234"]);
    }

    #[test]
    fn they_are_read_and_written() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Table {
            m: Milestones,
        }
        for (text, m) in [
            ("m = \"none\"\n", Milestones::None),
            ("m = \"babylm-strict-small\"\n", Milestones::StrictSmall),
            ("m = \"babylm-strict\"\n", Milestones::Strict),
            ("m = [1000, 2000]\n", Milestones::Words(vec![1000, 2000])),
        ] {
            let table: Table = toml::from_str(text).unwrap();
            assert_eq!((&table.m, toml::to_string(&table).unwrap()), (&m, text.to_owned()));
        }
        for (text, what) in
            [("\"strict\"", "babylm-strict-small"), ("[0, 5]", "from 1"), ("[5, 5]", "increase"), ("7", "")]
        {
            let error = toml::from_str::<Table>(&format!("m = {text}")).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    proptest! {
        /// Whatever schedule, batch and text: every mark is met by the first step at or past it, counted step by step.
        #[test]
        fn marks_are_met_by_the_first_step_at_or_past_them(
            segments in 1u32..40, batch in 1u32..9, schedule in prop::sample::select(vec![
                "1 clm", "2 clm + 3 mlm", "3 x (1 mlm + 1 clm)", "1kw clm + 1 mlm", "2 mix(clm:1, mlm:3)", "3 mntp + 1kw clm",
            ]),
            gaps in prop::collection::vec(1u64..400, 1..12), seed in 0u64..50,
        ) {
            let rng = Rng::new(seed);
            let words = |i: u32| (i * 7919 + seed as u32) % 23;
            let schedule = Schedule::parse(schedule).unwrap();
            let Ok(layout) = Layout::new(&schedule.blocks(), segments, words, batch, rng) else { return Ok(()) };
            let marks: Vec<u64> = gaps.iter().scan(0, |sum, gap| { *sum += gap; Some(*sum) }).collect();
            let milestones = Milestones::Words(marks.clone());
            let found = milestones.reached(&layout, |word| position_of_word(word, segments, words, rng));
            // By counting.
            let mut order = Order::new(rng, segments);
            let (mut seen, mut expected, mut twice) = (0u64, vec![(0, 0)], false);
            let mut left = marks.iter().copied().peekable();
            for step in layout.steps_from(0) {
                seen += step.positions.clone().map(|place| u64::from(words(order.segment(place)))).sum::<u64>();
                let mut here = 0;
                while let Some(mark) = left.next_if(|&mark| mark <= seen) {
                    expected.push((mark, u64::from(step.index) + 1));
                    here += 1;
                }
                twice |= here > 1;
            }
            match found {
                Err(error) => prop_assert!(twice, "{error}"),
                Ok(found) => {
                    prop_assert!(!twice);
                    prop_assert_eq!(found.iter().map(|m| (m.words, m.step)).collect::<Vec<_>>(), expected);
                }
            }
        }
    }
}
