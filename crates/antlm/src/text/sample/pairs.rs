//! Minimal pairs of the sample grammar: a sentence that it makes beside one that differs in one word and that it cannot
//! make. A bag of words cannot tell them apart: for every pair with `a` right and `b` wrong there is one in which `b`
//! is right and `a` wrong, so that every word of the difference is as often on one side as on the other.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use antlm_nn::rng::{Draws, Rng, Stream};
use serde::Serialize;

use super::grammar::{self, Form, Item};
use super::{Part, Writer, lexeme, spell};
use crate::{Error, Result, files};

/// A minimal pair, with BLiMP's keys (Warstadt et al., 2020).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The sentence that the grammar makes.
    pub sentence_good: String,
    /// The one that it cannot make.
    pub sentence_bad: String,
    /// The part of linguistics.
    pub field: &'static str,
    /// The phenomenon in the field's words.
    pub linguistics_term: &'static str,
    /// The phenomenon's name here, see [`phenomena`].
    #[serde(rename = "UID")]
    pub uid: &'static str,
    /// Whole sentences are to be compared.
    #[serde(rename = "simple_LM_method")]
    pub simple_lm_method: bool,
    /// Both sentences are the same up to the word of the difference, and that word decides.
    pub one_prefix_method: bool,
    /// They are not the same before the word that decides.
    pub two_prefix_method: bool,
    /// Both have the same words.
    pub lexically_identical: bool,
    /// The pair's number.
    pub pair_id: u32,
}

/// A phenomenon with its templates: pairs are made of two texts, each the other's mirror image.
struct Phenomenon {
    name: &'static str,
    heading: &'static str,
    field: &'static str,
    term: &'static str,
    /// The words after the difference decide, not the difference itself.
    late: bool,
    templates: &'static [Template],
}

/// Two texts in the grammar's language with one difference `{good|bad}`. `x` and `y` contrast as the first entry says.
type Template = (Contrast, &'static str, &'static str);

/// How the forms of x and y differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contrast {
    /// One person against several.
    People,
    /// A man against a woman.
    Gender,
    /// One thing against several.
    Things,
    /// They do not; the two texts are different.
    Words,
}

/// A number contrast is its own mirror image: x and y change places.
const fn people(text: &'static str) -> Template {
    (Contrast::People, text, text)
}

const fn gender(text: &'static str) -> Template {
    (Contrast::Gender, text, text)
}

const fn things(text: &'static str) -> Template {
    (Contrast::Things, text, text)
}

#[rustfmt::skip]
const ALL: &[Phenomenon] = &[
    Phenomenon {
        name: "agreement_distance", heading: "distance", field: "morphology", term: "subject_verb_agreement", late: false,
        templates: &[
            people("the $Human.x $Still $Often {$Intr.x|$Intr.y} ."),
            people("the $Human.x $Still $Often {$Trans.x|$Trans.y} $Item.t ."),
            things("the $Tool.x $Still $Often {$Happen.x|$Happen.y} ."),
        ],
    },
    Phenomenon {
        name: "agreement_attractor", heading: "attractor", field: "morphology", term: "subject_verb_agreement", late: false,
        templates: &[
            people("the $Human.x $Near the $Human.y {$Intr.x|$Intr.y} ."),
            people("the $Human.x who the $Human.y $Like.y {$Intr.x|$Intr.y} ."),
            things("the $Tool.x $Near the $Tool.y {$Happen.x|$Happen.y} ."),
        ],
    },
    Phenomenon {
        name: "anaphora", heading: "anaphora", field: "syntax_semantics", term: "anaphor_agreement", late: false,
        templates: &[
            people("the $Human.x $Near the $Human.y $Blame {$Self.x|$Self.y} ."),
            people("the $Human.x who $Like.x the $Human.y $Blame {$Self.x|$Self.y} ."),
            gender("the $Grown.x $Near the $Grown.y $Blame {$Self.x|$Self.y} ."),
        ],
    },
    Phenomenon {
        name: "determiner_noun", heading: "det-noun", field: "morphology", term: "determiner_noun_agreement", late: false,
        templates: &[things("$Flat.z $Trans.z $Det.x $Look $Colour {$Tool.x|$Tool.y} .")],
    },
    Phenomenon {
        name: "argument_structure", heading: "arguments", field: "syntax_semantics", term: "argument_structure", late: false,
        templates: &[
            (Contrast::Words, "$Flat.z $Give $Det.t $Look $Tool.t {to|from} $Flat.w .",
                              "$Flat.z $Take $Det.t $Look $Tool.t {from|to} $Flat.w ."),
            (Contrast::Words, "$Flat.z $Take $Det.t $Look $Tool.t {from|for} $Flat.w .",
                              "$Flat.z $Make $Det.t $Look $Tool.t {for|from} $Flat.w ."),
            (Contrast::Words, "$Flat.z $Make $Det.t $Look $Tool.t {for|to} $Flat.w .",
                              "$Flat.z $Give $Det.t $Look $Tool.t {to|for} $Flat.w ."),
        ],
    },
    Phenomenon {
        name: "npi", heading: "npi", field: "semantics", term: "npi_licensing", late: false,
        templates: &[
            (Contrast::Words, "no $Human.z $Near $Flat.w $Have.z {ever|already} $Trans.ed $Item.t .",
                              "the $Human.z $Near $Flat.w $Have.z {already|ever} $Trans.ed $Item.t ."),
            (Contrast::Words, "no $Human.z who $Like.z $Flat.w $Have.z {ever|already} $Trans.ed $Item.t .",
                              "the $Human.z who $Like.z $Flat.w $Have.z {already|ever} $Trans.ed $Item.t ."),
        ],
    },
    Phenomenon {
        name: "filler_gap", heading: "gap", field: "syntax", term: "filler_gap_dependency", late: true,
        templates: &[
            (Contrast::Words, "$Flat.z $Know.z {what|that} the $Human.w $Trans.w .",
                              "$Flat.z $Know.z {that|what} the $Human.w $Trans.w $Item.t ."),
            (Contrast::Words, "$Flat.z $Know.z {what|that} the $Human.w $Near $Flat.v $Trans.w .",
                              "$Flat.z $Know.z {that|what} the $Human.w $Near $Flat.v $Trans.w $Item.t ."),
        ],
    },
];

/// The names of the phenomena, in the order of tables.
pub fn phenomena() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|phenomenon| phenomenon.name)
}

/// The same in a word each, for the headings of tables.
pub fn headings() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|phenomenon| phenomenon.heading)
}

/// `count` pairs of each phenomenon, one list a phenomenon; an odd count is made even. Right sentences are of
/// [`Part::Test`], and no pair occurs twice.
///
/// ```
/// let pairs = antlm::text::sample::pairs::make(2, 1);
/// assert_eq!(pairs[1][0].uid, "agreement_attractor");
/// assert_ne!(pairs[1][0].sentence_good, pairs[1][0].sentence_bad);
/// ```
pub fn make(count: u32, seed: u64) -> Vec<Vec<Pair>> {
    (0..ALL.len()).map(|phenomenon| of_phenomenon(phenomenon, count.next_multiple_of(2), seed)).collect()
}

/// Writes one file a phenomenon, `DIR/UID.jsonl`, and makes the folder if it is not there.
///
/// # Errors
/// [`Error::Usage`] when one of the files exists already, [`Error::Io`] when one cannot be written.
pub fn save(pairs: &[Vec<Pair>], dir: &Path) -> Result<()> {
    if dir.is_file() {
        return Err(Error::Usage(format!("{}: is a file; name a folder", dir.display())));
    }
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let path = |uid: &str| dir.join(format!("{uid}.jsonl"));
    if let Some(path) = phenomena().map(path).find(|path| path.exists()) {
        return Err(Error::Usage(format!("{}: exists; name another folder, or remove it", path.display())));
    }
    for (uid, pairs) in phenomena().zip(pairs) {
        let path = path(uid);
        let lines = pairs.iter().map(|pair| serde_json::to_string(pair).map(|line| line + "\n"));
        let text = lines.collect::<serde_json::Result<String>>();
        files::write_atomic(&path, text.map_err(|e| Error::data(&path, "pair", e.to_string()))?.as_bytes())?;
    }
    Ok(())
}

fn of_phenomenon(number: usize, count: u32, seed: u64) -> Vec<Pair> {
    let phenomenon = &ALL[number];
    let mut seen = HashSet::new();
    let pair = |index: u32| {
        // Documents draw from row 0. The word of the difference is drawn once for a pair and its mirror image.
        let rows = ALL.len() as u32;
        for attempt in 1.. {
            let twins = Rng::new(seed).draws(Stream::SAMPLE, index / 2, 1 + number as u32);
            let draws = Rng::new(seed).draws(Stream::SAMPLE, index, 1 + number as u32 + attempt * rows);
            let (good, bad) = mirror(phenomenon.templates, index, twins, draws);
            if Part::of(&good) == Part::Test && seen.insert(good.clone()) {
                return (good, bad);
            }
        }
        unreachable!("the attempts do not end")
    };
    let pairs: Vec<(String, String)> = (0..count).map(pair).collect();
    let pair = |(index, (sentence_good, sentence_bad)): (usize, (String, String))| Pair {
        sentence_good,
        sentence_bad,
        field: phenomenon.field,
        linguistics_term: phenomenon.term,
        uid: phenomenon.name,
        simple_lm_method: true,
        one_prefix_method: !phenomenon.late,
        two_prefix_method: phenomenon.late,
        lexically_identical: false,
        pair_id: index as u32,
    };
    pairs.into_iter().enumerate().map(pair).collect()
}

/// Pair `index`: templates take turns, and of each the two texts.
fn mirror(templates: &[Template], index: u32, mut twins: Draws, draws: Draws) -> (String, String) {
    let (contrast, first, second) = templates[(index / 2) as usize % templates.len()];
    let text = if index.is_multiple_of(2) { first } else { second };
    let one = if twins.below(2) == 0 { Form::Male } else { Form::Female };
    let (x, y) = match contrast {
        Contrast::People => (Some(one), Some(Form::Plural)),
        Contrast::Gender => (Some(Form::Male), Some(Form::Female)),
        Contrast::Things => (Some(Form::Neuter), Some(Form::Plural)),
        Contrast::Words => (None, None),
    };
    let (x, y) = if index.is_multiple_of(2) { (x, y) } else { (y, x) };
    let mut forms = [None; 26];
    (forms[usize::from(b'x' - b'a')], forms[usize::from(b'y' - b'a')]) = (x, y);
    let mut writer = Writer::new(draws);
    let hero = writer.hero;
    let mut wrong = Vec::new();
    for text in text.split(' ') {
        let Some((good, bad)) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')?.split_once('|')) else {
            writer.item(grammar::item(text), hero, &mut forms);
            continue;
        };
        let mut word = |text| match grammar::item(text) {
            Item::Word(word) => word,
            Item::Name => writer.name,
            Item::Symbol(symbol, source) => {
                let form = writer.form(source, hero, &mut forms);
                let lexemes = grammar::lexemes(symbol);
                grammar::inflect(lexemes[lexeme(&mut twins.clone(), lexemes.len())], form)
            }
        };
        let (good, bad) = (word(good), word(bad));
        writer.tokens.push(good);
        wrong = writer.tokens.clone();
        wrong.pop();
        wrong.push(bad);
    }
    let rest = &writer.tokens[wrong.len()..];
    wrong.extend(rest);
    (spell(&writer.tokens), spell(&wrong))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::recognise::parses;
    use super::*;

    #[test]
    fn the_good_sentence_parses_and_the_bad_one_does_not() {
        for pair in make(400, 5).iter().flatten() {
            assert!(parses(&pair.sentence_good), "{}: {}", pair.uid, pair.sentence_good);
            assert!(!parses(&pair.sentence_bad), "{}: {}", pair.uid, pair.sentence_bad);
        }
    }

    #[test]
    fn pairs_differ_in_one_word_which_is_as_often_right_as_wrong() {
        for pairs in make(300, 6) {
            let mut counts: BTreeMap<String, [u32; 2]> = BTreeMap::new();
            let mut both: Vec<String> = Vec::new();
            for pair in &pairs {
                let [good, bad] = [&pair.sentence_good, &pair.sentence_bad].map(|s| s.split(' ').collect::<Vec<_>>());
                assert_eq!(good.len(), bad.len(), "{pair:?}");
                let differ: Vec<_> = good.iter().zip(&bad).filter(|(g, b)| g != b).collect();
                assert_eq!(differ.len(), 1, "{pair:?}");
                for (side, word) in [differ[0].0, differ[0].1].into_iter().enumerate() {
                    counts.entry(word.trim_end_matches('.').to_owned()).or_default()[side] += 1;
                }
                assert_eq!(Part::of(&pair.sentence_good), Part::Test);
                both.push(pair.sentence_good.clone());
            }
            assert!(counts.values().all(|[good, bad]| good == bad), "{counts:?}");
            both.sort();
            both.dedup();
            assert_eq!(both.len(), pairs.len(), "a pair occurs twice");
        }
    }

    #[test]
    fn pairs_depend_on_the_seed_alone() {
        assert_eq!(make(10, 1), make(10, 1));
        assert_ne!(make(10, 1), make(10, 2));
        assert_eq!(make(10, 1)[3], make(20, 1)[3][..10]);
        assert_eq!(make(3, 1)[0].len(), 4);
        let json = serde_json::to_value(&make(2, 1)[0][0]).unwrap();
        for key in ["sentence_good", "UID", "field", "linguistics_term", "simple_LM_method", "pair_id"] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }
}
