//! The budget of words: what BabyLM's tracks allow (2025 and 2026), and whether a run stays within it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Milestones, Plan, Recipe};
use crate::text::words::{Rule, grouped};

const MILLION: u64 = 1_000_000;

/// The track that a run is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Track {
    /// That of BabyLM's milestones, if the recipe has them, and otherwise none.
    #[default]
    Auto,
    /// None: nothing is refused.
    None,
    /// 10 M words of text, 100 M words seen.
    StrictSmall,
    /// 100 M words of text, 1,000 M words seen.
    Strict,
    /// 100 M words of text, counted by bytes; as many passes as the strict track.
    Multilingual,
}

impl fmt::Display for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Track::Auto => "auto",
            Track::None => "none",
            Track::StrictSmall => "strict-small",
            Track::Strict => "strict",
            Track::Multilingual => "multilingual",
        })
    }
}

/// How many words a track allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// Of text, each document counted once.
    pub text: u64,
    /// Seen, repeats counted: ten passes.
    pub seen: u64,
}

impl Track {
    /// What it allows; nothing where nothing is refused.
    pub fn allowed(self) -> Option<Allowed> {
        match self {
            Track::Auto | Track::None => None,
            Track::StrictSmall => Some(Allowed { text: 10 * MILLION, seen: 100 * MILLION }),
            Track::Strict | Track::Multilingual => Some(Allowed { text: 100 * MILLION, seen: 1000 * MILLION }),
        }
    }

    /// What counts as a word.
    fn rule(self) -> Rule {
        if self == Track::Multilingual { Rule::Bytes } else { Rule::Whitespace }
    }
}

impl Recipe {
    /// The track that the recipe is for; never [`Track::Auto`].
    pub fn track(&self) -> Track {
        match (self.track, &self.checkpoints.milestones) {
            (Track::Auto, Milestones::StrictSmall) => Track::StrictSmall,
            (Track::Auto, Milestones::Strict) => Track::Strict,
            (Track::Auto, _) => Track::None,
            (track, _) => track,
        }
    }
}

/// What the model that a run starts from had seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// So many words; 0 for a model that starts anew.
    Words(u64),
    /// Nobody knows: it comes from elsewhere.
    Unknown,
}

/// Why a run goes beyond what its track allows, with the arithmetic; nothing when it does not.
pub fn refusal(plan: &Plan, before: Before) -> Option<String> {
    let track = plan.track;
    let allowed = track.allowed()?;
    let anyway = "--track none trains it all the same";
    if let Some(source) = plan.sources.iter().find(|source| source.words != track.rule()) {
        let (name, rule) = (&source.name, if track.rule() == Rule::Bytes { "bytes" } else { "whitespace" });
        return Some(format!(
            "track {track} counts words by {rule}, and the source {name} does not; say words = \"{rule}\" in its [[data]]"
        ));
    }
    if plan.dataset.text_words > allowed.text {
        let [text, most] = [plan.dataset.text_words, allowed.text].map(grouped);
        return Some(format!("track {track}: {text} words of text, but {most} are allowed; {anyway}"));
    }
    let Before::Words(before) = before else {
        return Some(format!(
            "track {track}: nobody knows how many words the model to start from has seen, and {} are allowed in all; \
             {anyway}",
            grouped(allowed.seen)
        ));
    };
    let seen = plan.words.saturating_add(before);
    if seen <= allowed.seen {
        return None;
    }
    let mut sum = arithmetic(plan);
    if before > 0 {
        sum += &format!(", and {} that the model to start from has seen: {}", grouped(before), grouped(seen));
    }
    let place = match plan.limits.iter().find(|limit| limit.what == "seen" && limit.words == allowed.seen) {
        Some(limit) if before == 0 => limit.place(),
        _ => None,
    };
    let place = place.map_or(String::new(), |place| format!(" (crossed in {place})"));
    Some(format!(
        "track {track}: {sum}, but {} are allowed{place}; give it fewer epochs (`antlm recipes` has some named …-2026-…); \
         {anyway}",
        grouped(allowed.seen)
    ))
}

/// What those should know who name no track: the run sees more than BabyLM allows for a text of this size.
pub fn note(plan: &Plan) -> Option<String> {
    let [small, strict] =
        [Track::StrictSmall, Track::Strict].map(|track| track.allowed().map(|allowed| (track, allowed)));
    let (track, allowed) =
        [small, strict].into_iter().flatten().find(|(_, most)| plan.dataset.text_words <= most.text)?;
    (plan.track == Track::None && plan.words > allowed.seen).then(|| {
        format!(
            "{}; BabyLM's track {track} allows {} since 2025. No track is named, so nothing is refused (--track {track} \
             would)",
            arithmetic(plan),
            grouped(allowed.seen)
        )
    })
}

/// `9,920,000 words an epoch x 24 epochs = 238,080,000 words seen`
fn arithmetic(plan: &Plan) -> String {
    let epochs = format!("{:.2}", plan.epochs);
    let epochs = epochs.strip_suffix(".00").unwrap_or(&epochs);
    format!("{} words an epoch x {epochs} epochs = {} words seen", grouped(plan.dataset.words), grouped(plan.words))
}

#[cfg(test)]
mod tests {
    use antlm_nn::rng::Rng;
    use proptest::prelude::*;

    use super::*;
    use crate::objective::stream::{Layout, Order};
    use crate::recipe::plan::Facts;
    use crate::text::prepare::SourceRecord;
    use crate::text::source::Source;

    fn plan(set: &[&str], words: u64) -> Plan {
        let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
        let recipe = Recipe::load("antlm-babyllama-small", &set).unwrap();
        let facts = Facts { segments: 100_000, words, tokens: 2 * words, text_words: words };
        Plan::new(&recipe, Some(facts)).unwrap()
    }

    #[test]
    fn milestones_name_the_track() {
        let track = |set: &[&str]| plan(set, 1_000_000).track;
        assert_eq!(track(&[]), Track::None);
        assert_eq!(track(&["checkpoints.milestones=[1000000]"]), Track::None);
        assert_eq!(track(&["checkpoints.milestones=babylm-strict-small"]), Track::StrictSmall);
        assert_eq!(track(&["checkpoints.milestones=babylm-strict"]), Track::Strict);
        assert_eq!(track(&["checkpoints.milestones=babylm-strict", "track=none"]), Track::None);
        assert_eq!(track(&["track=multilingual"]), Track::Multilingual);
        let error = Recipe::load("babyllama-tiny", &["track=strct".into()]).unwrap_err().to_string();
        assert!(error.contains("did you mean `strict`?"), "{error}");
    }

    /// The last word that is allowed is, and the next is not; with the numbers that decide it.
    #[test]
    fn the_arithmetic() {
        let none = Before::Words(0);
        for (track, most) in [("strict-small", 10_000_000), ("strict", 100_000_000), ("multilingual", 100_000_000)] {
            let track = format!("track={track}");
            let ten = ["schedule=10 clm", &track];
            assert_eq!(refusal(&plan(&ten, most), none), None, "{track}");
            let text = refusal(&plan(&ten, most + 1), none).unwrap();
            assert!(text.contains("words of text, but") && text.contains("--track none"), "{text}");
            let eleven = ["schedule=11 clm", &track];
            assert_eq!(refusal(&plan(&eleven, most / 11 * 10), none), None);
            assert!(refusal(&plan(&eleven, most / 11 * 10 + 10), none).unwrap().contains("x 11 epochs = "));
        }
        let paper = refusal(&plan(&["track=strict-small"], 9_920_000), none).unwrap();
        let words = [
            "9,920,000 words an epoch x 24 epochs = 238,080,000 words seen, but 100,000,000 are allowed",
            "block 2",
            "epoch 11",
        ];
        assert!(words.iter().all(|word| paper.contains(word)), "{paper}");
    }

    #[test]
    fn what_was_seen_before_counts() {
        let five = plan(&["schedule=5 clm", "track=strict-small"], 10_000_000);
        assert_eq!(refusal(&five, Before::Words(50_000_000)), None);
        let over = refusal(&five, Before::Words(50_000_001)).unwrap();
        assert!(over.contains("50,000,001 that the model to start from has seen: 100,000,001"), "{over}");
        assert!(refusal(&five, Before::Unknown).unwrap().contains("nobody knows"));
        let free = plan(&["schedule=5 clm"], 10_000_000);
        assert_eq!(refusal(&free, Before::Unknown), None);
    }

    #[test]
    fn words_are_counted_as_the_track_counts_them() {
        let with = |rule, track: &str| {
            let mut plan = plan(&["schedule=1 clm", track], 1_000_000);
            plan.sources = vec![SourceRecord::of(&Source { words: rule, ..Source::new("news", ["x"]) })];
            refusal(&plan, Before::Words(0))
        };
        assert_eq!(with(Rule::Bytes, "track=multilingual"), None);
        assert_eq!(with(Rule::Whitespace, "track=strict"), None);
        assert_eq!(with(Rule::Bytes, "track=none"), None);
        assert!(
            with(Rule::Bytes, "track=strict").unwrap().contains("source news does not; say words = \"whitespace\"")
        );
        assert!(with(Rule::Whitespace, "track=multilingual").unwrap().contains("words = \"bytes\""));
    }

    #[test]
    fn without_a_track_a_line_says_so() {
        let text = note(&plan(&[], 9_920_000)).unwrap();
        assert!(text.contains("238,080,000") && text.contains("strict-small allows 100,000,000"), "{text}");
        assert!(note(&plan(&[], 50_000_000)).unwrap().contains("track strict allows 1,000,000,000"));
        assert_eq!(note(&plan(&[], 4_000_000)), None, "24 epochs of little text are no ten million");
        assert_eq!(note(&plan(&[], 200_000_000)), None, "no track has so much text");
        assert_eq!(note(&plan(&["track=strict-small"], 9_920_000)), None);
    }

    proptest! {
        /// Whatever schedule, batch, text and model to start from: a plan has the words that its steps see, counted one by one,
        /// and a run is refused if and only if those go beyond its track; the step that crosses the limit is named.
        #[test]
        fn refused_if_and_only_if_a_step_goes_beyond(
            schedule in prop::sample::select(vec![
                "3 clm", "10 mlm", "2 clm + 8 mlm", "3 x (2 mlm + 1 clm)", "40Mw clm + 2 mlm", "6 mix(clm:1, mlm:3)",
                "2kw clm + 9 mntp",
            ]),
            words in prop::collection::vec(1u32..2_000_000, 1..20), batch in 1u32..9, seed in 0u64..50,
            track in prop::sample::select(vec![Track::None, Track::StrictSmall, Track::Strict]),
            before in prop::sample::select(vec![0, 1, 30_000_000, 950_000_000]), exact in any::<bool>(),
        ) {
            let set = [
                format!("schedule={schedule}"), format!("batch.segments={batch}"), format!("seed={seed}"),
                format!("track={track}"),
            ];
            let recipe = Recipe::load("antlm-babyllama-small", &set).unwrap();
            let segments = words.len() as u32;
            let all = words.iter().map(|&words| u64::from(words)).sum();
            let facts = Facts { segments, words: all, tokens: 2 * all, text_words: all };
            let of = |segment: u32| words[segment as usize];
            let plan = Plan::with_words(&recipe, facts, false, &of).unwrap();
            // By counting.
            let rng = Rng::new(seed);
            let layout = Layout::new(&recipe.schedule.blocks(), segments, of, batch, rng).unwrap();
            let (mut order, mut seen, mut crossed) = (Order::new(rng, segments), 0, None);
            let most = track.allowed();
            for step in layout.steps_from(0) {
                seen += step.positions.clone().map(|place| u64::from(of(order.segment(place)))).sum::<u64>();
                if crossed.is_none() && most.is_some_and(|most| seen > most.seen) {
                    crossed = Some(u64::from(step.index));
                }
            }
            prop_assert_eq!(plan.words, seen);
            // Now and then exactly what is left.
            let before = match most {
                Some(most) if exact => most.seen.saturating_sub(seen),
                _ => before,
            };
            let beyond = most.is_some_and(|most| all > most.text || seen + before > most.seen);
            prop_assert_eq!(refusal(&plan, Before::Words(before)).is_some(), beyond);
            if let Some(most) = most {
                let limit = plan.limits.iter().find(|limit| limit.what == "seen" && limit.words == most.seen).unwrap();
                prop_assert_eq!(limit.step, crossed);
            }
        }
    }
}
