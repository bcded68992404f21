//! The age of acquisition: when a model learns a word, over its checkpoints, against the age at which children say it.
//!
//! `cdi_childes.json` has words with contexts, `{"ball": [{"context": "throw me the"}, …], …}`. Of every checkpoint the
//! surprisal of the word behind each context is taken, in nats, over the tokens that end behind the context. As the
//! official script does (after Chang and Bergen, 2022): a sigmoid is fitted to a word's negative surprisals over
//! log10(words seen + 1); the model has learnt the word where the curve is halfway from log2(300000) to the least
//! surprisal. (The one is in bits and the other in nats; it is kept, so that the numbers are comparable.) Children have
//! where a sigmoid over the shares of `cdi_human.csv` reaches one half. The score is the correlation of the two.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::items::Candidate;
use super::protocol::Protocol;
use super::reading::{self, MOST_BYTES, number};
use crate::eval::pack::Request;
use crate::eval::sigmoid::Sigmoid;
use crate::eval::stats::pearson;
use crate::objective::Backend;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result, files};

/// Where a model begins: a vocabulary of which nothing is known.
const START: f64 = 300_000.0;
/// The ages that the norms have, in months.
const AGES: std::ops::RangeInclusive<u32> = 16..=30;
/// Fewer points make no curve, and fewer words no correlation.
pub(super) const LEAST: usize = 3;

/// A word in its contexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The word.
    pub word: String,
    /// What stands before it.
    pub contexts: Vec<String>,
}

/// Words and shares of children who say them.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms {
    /// Ages in months, increasing: `[a]`.
    ages: Vec<f64>,
    /// Of each word the share at each age, where there is one: `[a]`.
    shares: BTreeMap<String, Vec<Option<f64>>>,
}

/// What the curves of a model come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Acquisition {
    /// Pearson's correlation, or 0 for fewer than three words, as the official script has it.
    pub correlation: f64,
    /// The words that both have learnt: word, the children's age in months, log10 of the words the model had seen.
    pub words: Vec<(String, f64, f64)>,
}

/// A JSON object in the order of the file.
struct Ordered(Vec<(String, Vec<Context>)>);

#[derive(Deserialize)]
struct Context {
    context: String,
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Ordered, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Ordered;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of words, each with a list of {\"context\": …}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Ordered, A::Error> {
                let mut words = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    words.push(entry);
                }
                Ok(Ordered(words))
            }
        }
        from.deserialize_map(Words)
    }
}

/// Reads words and contexts; of each word at most `limit` contexts. Words of one character are left out, as the official
/// script does.
///
/// # Errors
/// [`Error::Data`] with line and column for what is no such file, or a word that stands there twice; [`Error::Io`].
pub fn read(path: &Path, limit: Option<u64>) -> Result<Vec<Word>> {
    let text = files::read_text(path, MOST_BYTES)?;
    let Ordered(all) = serde_json::from_str(&text)
        .map_err(|e| Error::data(path, format!("line {}, column {}", e.line(), e.column()), e.to_string()))?;
    let mut words: Vec<Word> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for (word, contexts) in all {
        if !known.insert(word.clone()) {
            return Err(Error::data(path, format!("{word:?}"), "stands there twice"));
        }
        if word.trim().is_empty() {
            return Err(Error::data(path, format!("{word:?}"), "is no word"));
        }
        let most = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        if word.chars().count() > 1 {
            words.push(Word { word, contexts: contexts.into_iter().take(most).map(|c| c.context).collect() });
        }
    }
    if words.iter().all(|word| word.contexts.is_empty()) {
        return Err(Error::data(path, "line 1", "no word has a context"));
    }
    Ok(words)
}

/// What is asked of the model for a word behind a context.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn request(context: &str, word: &str, backend: Backend, tokenizer: &Tokenizer) -> Result<Request> {
    let (before, word) = (format!("{} ", context.trim()), word.trim());
    let candidate = Candidate { text: format!("{before}{word}"), start: before.chars().count(), name: String::new() };
    Protocol::Y2026.request(backend, tokenizer, &candidate)
}

/// The file of norms that belongs to a file of contexts: beside it, or in the official tree's folder `aoa`.
pub fn norms_of(contexts: &Path) -> Option<PathBuf> {
    let folder = files::parent(contexts);
    let places = [folder.join("cdi_human.csv"), files::parent(folder).join("aoa").join("cdi_human.csv")];
    places.into_iter().find(|path| path.is_file())
}

impl Norms {
    /// Reads a csv file with the column `word` and one for each month of age from 16 to 30.
    ///
    /// # Errors
    /// [`Error::Data`] with file and line; [`Error::Io`].
    pub fn read(path: &Path) -> Result<Norms> {
        let text = files::read_text(path, MOST_BYTES)?;
        let wrong = |e: &csv::Error| reading::wrong(path, &text, e);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let headers = reader.headers().map_err(|e| wrong(&e))?.clone();
        let column = |name: &str| headers.iter().position(|header| header == name);
        let place = column("word").ok_or_else(|| Error::data(path, "line 1", "no column \"word\""))?;
        let columns: Vec<(u32, usize)> = AGES.filter_map(|age| Some((age, column(&age.to_string())?))).collect();
        if columns.is_empty() {
            return Err(Error::data(path, "line 1", "no column for any age from 16 to 30 months"));
        }
        let mut shares = BTreeMap::new();
        for record in reader.records() {
            let record = record.map_err(|e| wrong(&e))?;
            let bad = |what| Error::data(path, format!("line {}", reading::line(&text, record.position())), what);
            let cell = |at: usize| record.get(at).unwrap_or_default();
            let mut row = Vec::new();
            for (age, at) in &columns {
                let (name, share) = (format!("the share at {age} months"), cell(*at).trim());
                // An empty cell, or R's name of it, is a gap; a NaN comes of a mistake.
                let gap = share.is_empty() || share == "NA";
                let value = if gap { None } else { Some(number(&name, share).map_err(bad)?) };
                if value == Some(None) {
                    return Err(bad(format!("{name} is {share:?}, not a number")));
                }
                row.push(value.flatten());
            }
            // Of a word that stands there twice, the first counts.
            shares.entry(cell(place).to_owned()).or_insert(row);
        }
        Ok(Norms { ages: columns.iter().map(|(age, _)| f64::from(*age)).collect(), shares })
    }

    /// The age in months at which half of the children say a word; nothing where the norms do not tell.
    pub fn age(&self, word: &str) -> Option<f64> {
        let shares = self.shares.get(word)?;
        let points: Vec<(f64, f64)> = self.ages.iter().zip(shares).filter_map(|(x, y)| Some((*x, (*y)?))).collect();
        let (first, last) = (points.first()?.0, points.last()?.0);
        if points.len() < LEAST {
            return None;
        }
        let mean = points.iter().map(|(x, _)| x).sum::<f64>() / points.len() as f64;
        let start = Sigmoid { a: 1.0, b: 0.1, c: mean, d: 0.0 };
        let low = Sigmoid { a: 0.0, b: 0.0, c: first, d: -0.5 };
        let high = Sigmoid { a: 2.0, b: 1.0, c: last, d: 0.5 };
        let age = Sigmoid::fit(&points, start, low, high)?.inverse(0.5)?;
        (first..=last).contains(&age).then_some(age)
    }
}

/// log10 of the words that a model had seen when it had learnt a word, from its surprisals in nats after so many words
/// (one point for each context and checkpoint): `[(words, surprisal)]`. Nothing where the curve does not tell.
pub fn learnt(points: &[(u64, f64)]) -> Option<f64> {
    if points.len() < LEAST {
        return None;
    }
    let curve: Vec<(f64, f64)> = points.iter().map(|&(words, s)| ((words as f64 + 1.0).log10(), -s)).collect();
    let range = |of: fn(&(f64, f64)) -> f64| {
        let all = curve.iter().map(of);
        (all.clone().fold(f64::INFINITY, f64::min), all.fold(f64::NEG_INFINITY, f64::max))
    };
    let ((first, last), (least, most)) = (range(|p| p.0), range(|p| p.1));
    let mean = curve.iter().map(|(x, _)| x).sum::<f64>() / curve.len() as f64;
    let free = f64::INFINITY;
    let start = Sigmoid { a: most - least, b: 1.0, c: mean, d: least };
    let low = Sigmoid { a: -free, b: -free, c: -free, d: -free };
    let high = Sigmoid { a: free, b: free, c: free, d: free };
    // The least surprisal is -most.
    let threshold = START.log2() - 0.5 * (START.log2() + most);
    let x = Sigmoid::fit(&curve, start, low, high)?.inverse(-threshold)?;
    (first..=last).contains(&x).then_some(x)
}

/// Compares a model's learning with children's. `surprisals` are those of the checkpoints: words seen, and the surprisal
/// of each word behind each context, in the order of `words`.
pub fn acquisition(words: &[Word], norms: &Norms, surprisals: &[(u64, &[f64])]) -> Acquisition {
    let mut at = 0;
    let mut both = Vec::new();
    for word in words {
        let own = at..at + word.contexts.len();
        at = own.end;
        let points: Vec<(u64, f64)> = surprisals
            .iter()
            .flat_map(|(seen, all)| all.get(own.clone()).unwrap_or_default().iter().map(|s| (*seen, *s)))
            .collect();
        if let Some(age) = norms.age(&word.word)
            && let Some(learnt) = learnt(&points)
        {
            both.push((word.word.clone(), age, learnt));
        }
    }
    let (ages, learnt): (Vec<f64>, Vec<f64>) = both.iter().map(|(_, age, learnt)| (*age, *learnt)).unzip();
    let correlation = if both.len() < LEAST { None } else { pearson(&learnt, &ages) };
    Acquisition { correlation: correlation.unwrap_or(0.0), words: both }
}

#[cfg(test)]
#[path = "aoa_tests.rs"]
mod tests;
