//! Reading times: how much of what frequency, length and position leave unexplained a word's surprisal explains.
//!
//! The data has one word a row, with the words before it (`item`), times, and the word before (`prev_item`, `prev_word`).
//! As the official script does: causal surprisal is read behind the words before; masked, three masks stand there, and
//! the first is read. A word of several tokens is a chain: each part is written behind the text as a string, and the
//! next part, taken alone as a string too, is asked for by its first token.

use std::path::Path;

use serde::Deserialize;

use crate::eval::pack::Request;
use crate::eval::score::framed;
use crate::eval::stats::r_squared;
use crate::objective::Backend;
use crate::text::special::MASK;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result, files};

/// A file of reading times or of norms is smaller.
pub(super) const MOST_BYTES: u64 = 256 << 20;
/// Masks behind the text.
const MASKS: usize = 3;
/// Eye-tracking measures, whose mean is a score.
pub const EYE_TRACKING: [&str; 4] = ["RTfirstfix", "RTfirstpass", "RTgopast", "RTrightbound"];
/// The measure of self-paced reading.
pub const SELF_PACED: &str = "self_paced_reading_time";
/// What pandas reads as no value at all.
const NOTHING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// A word with what was measured on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// The words before it.
    pub before: String,
    /// The word.
    pub word: String,
    /// The same for the word before it, if there is one.
    pub previous: Option<(String, String)>,
    /// Logarithm of its frequency, length, place in the sentence, length of the word before; `None` for no value.
    pub predictors: [Option<f64>; 4],
    /// The four [`EYE_TRACKING`] measures and [`SELF_PACED`].
    pub measures: [Option<f64>; 5],
}

/// The columns that are needed, as they stand in the file.
#[derive(Deserialize)]
struct Row {
    item: String,
    word: String,
    prev_item: String,
    prev_word: String,
    #[serde(rename = "Subtlex_log10")]
    frequency: String,
    length: String,
    context_length: String,
    prev_length: String,
    #[serde(rename = "RTfirstfix")]
    first_fix: String,
    #[serde(rename = "RTfirstpass")]
    first_pass: String,
    #[serde(rename = "RTgopast")]
    go_past: String,
    #[serde(rename = "RTrightbound")]
    right_bound: String,
    self_paced_reading_time: String,
}

/// Reads the file of reading times.
///
/// # Errors
/// [`Error::Data`] with file and line for what is no such file, and for a number that is none.
pub fn read(path: &Path, limit: Option<u64>) -> Result<Vec<Word>> {
    let text = files::read_text(path, MOST_BYTES)?;
    let wrong = |e: &csv::Error| wrong(path, &text, e);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().map_err(|e| wrong(&e))?.clone();
    let mut words = Vec::new();
    let mut record = csv::StringRecord::new();
    while limit.is_none_or(|limit| (words.len() as u64) < limit) {
        if !reader.read_record(&mut record).map_err(|e| wrong(&e))? {
            break;
        }
        let row: Row = record.deserialize(Some(&headers)).map_err(|e| wrong(&e))?;
        let bad = |what: String| Error::data(path, format!("line {}", line(&text, record.position())), what);
        let number = |name: &str, text: &str| number(name, text).map_err(bad);
        // Of the predictors, the official file lacks some frequencies; what was measured is always there.
        let measured = |name: &str, text: &str| {
            number(name, text)?.ok_or_else(|| bad(format!("{name} is {text:?}, not a number"))).map(Some)
        };
        if row.word.trim().is_empty() {
            return Err(bad("no word".into()));
        }
        let given = |text: &String| !NOTHING.contains(&&text[..]);
        words.push(Word {
            // The official script writes "None" where nothing stands before.
            before: if given(&row.item) { row.item } else { "None".into() },
            word: row.word,
            previous: given(&row.prev_item).then_some((row.prev_item, row.prev_word)),
            predictors: [
                number("Subtlex_log10", &row.frequency)?,
                number("length", &row.length)?,
                number("context_length", &row.context_length)?,
                number("prev_length", &row.prev_length)?,
            ],
            measures: [
                measured(EYE_TRACKING[0], &row.first_fix)?,
                measured(EYE_TRACKING[1], &row.first_pass)?,
                measured(EYE_TRACKING[2], &row.go_past)?,
                measured(EYE_TRACKING[3], &row.right_bound)?,
                measured(SELF_PACED, &row.self_paced_reading_time)?,
            ],
        });
    }
    if words.is_empty() {
        return Err(Error::data(path, "line 2", "the file has no rows"));
    }
    Ok(words)
}

/// A cell of a csv file; nothing where pandas has no value. The error says what is wrong.
pub(super) fn number(name: &str, text: &str) -> std::result::Result<Option<f64>, String> {
    if NOTHING.contains(&text.trim()) {
        return Ok(None);
    }
    match text.trim().parse() {
        Ok(value) if f64::is_finite(value) => Ok(Some(value)),
        _ => Err(format!("{name} is {text:?}, not a number")),
    }
}

/// The line, from 1 on, that a position in a csv file is on. The crate's own count is one too low behind CRLF, for it
/// begins a record with the LF.
pub(super) fn line(text: &str, position: Option<&csv::Position>) -> usize {
    let text = text.as_bytes();
    let at = position.map_or(0, |position| usize::try_from(position.byte()).unwrap_or(text.len()).min(text.len()));
    let at = if text.get(at) == Some(&b'\n') { at + 1 } else { at };
    1 + text[..at].iter().filter(|byte| **byte == b'\n').count()
}

pub(super) fn wrong(path: &Path, text: &str, error: &csv::Error) -> Error {
    Error::data(path, format!("line {}", line(text, error.position())), error.to_string())
}

/// What is asked of the model for one word: its probability is the product over these.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn requests(before: &str, word: &str, backend: Backend, tokenizer: &Tokenizer) -> Result<Vec<Request>> {
    let mut text = before.to_owned();
    let mut requests = Vec::new();
    for (number, &id) in tokenizer.encode(word)?.iter().enumerate() {
        let part = tokenizer.decode(&[id]);
        // The first token as it is; a later one as the tokenizer reads its string when it stands alone.
        let asked = if number == 0 { Some(id) } else { tokenizer.encode(&part)?.first().copied() };
        if let Some(asked) = asked {
            let mut ids = framed(tokenizer, &text)?;
            let place = ids.len() as u32;
            ids.push(asked);
            if backend != Backend::Causal {
                ids.extend([MASK; MASKS - 1]);
            }
            requests.push(Request { ids, scored: vec![place] });
        }
        text += &part;
    }
    Ok(requests)
}

/// What surprisal explains of each measure: 100 · ΔR² / (1 - R² without it), in the order of [`EYE_TRACKING`], then
/// [`SELF_PACED`]. Eye tracking is explained besides by frequency, length, place and their products; self-paced
/// reading also by length and surprisal of the word before, with all products of two. Rows without a value are left out.
///
/// # Errors
/// [`Error::Usage`] when a measure cannot be explained at all (no rows, or no differences).
pub fn explained(words: &[Word], surprisal: &[f64], previous: &[Option<f64>]) -> Result<[f64; 5]> {
    let mut all = [0.0; 5];
    for (measure, value) in all.iter_mut().enumerate() {
        let self_paced = measure == 4;
        let (mut y, mut columns, mut s) = (Vec::new(), vec![Vec::new(); if self_paced { 5 } else { 3 }], Vec::new());
        for ((word, surprisal), previous) in words.iter().zip(surprisal).zip(previous) {
            let [frequency, length, place, before] = word.predictors;
            let predictors = if self_paced {
                vec![frequency, length, place, before, *previous]
            } else {
                vec![frequency, length, place]
            };
            let Some(predictors) = predictors.into_iter().collect::<Option<Vec<f64>>>() else { continue };
            let Some(time) = word.measures[measure] else { continue };
            y.push(time);
            s.push(*surprisal);
            columns.iter_mut().zip(predictors).for_each(|(column, x)| column.push(x));
        }
        let single = columns.len();
        for a in 0..single {
            for b in a + 1..single {
                columns.push(columns[a].iter().zip(&columns[b]).map(|(x, y)| x * y).collect());
            }
        }
        let without = r_squared(&y, &columns);
        columns.push(s);
        let with = r_squared(&y, &columns);
        let name = if self_paced { SELF_PACED } else { EYE_TRACKING[measure] };
        let (Some(without), Some(with)) = (without, with) else {
            return Err(Error::Usage(format!("reading: the {} values of {name} do not differ", y.len())));
        };
        if without >= 1.0 {
            let what = format!("reading: {} values of {name} are too few for {single} predictors", y.len());
            return Err(Error::Usage(what));
        }
        *value = 100.0 * (with - without) / (1.0 - without);
    }
    Ok(all)
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
