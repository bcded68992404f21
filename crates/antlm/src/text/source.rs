//! A part of a corpus that is read in one way: where it is, how its documents lie, how it is cleaned, how much it counts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::clean::Cleaning;
use super::corpus::DocumentRule;
use super::words::{self, Unit, byte_premium};

/// `[[data]]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What to call it in plans and reports.
    pub name: String,
    /// Files and folders; in a recipe file relative to the file's folder.
    pub paths: Vec<PathBuf>,
    /// The field that holds the text, in `.jsonl` files, where each line is one document, and the column in `.parquet`
    /// files, where each row is one.
    #[serde(default = "default_field")]
    pub field: String,
    /// The rule for the other files.
    #[serde(default)]
    pub documents: DocumentRule,
    /// How it is cleaned.
    #[serde(default)]
    pub cleaning: Cleaning,
    /// How often an epoch has its documents.
    #[serde(default)]
    pub weight: Weight,
    /// What is counted as a word.
    #[serde(default)]
    pub words: words::Rule,
    /// Its language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
}

pub(crate) fn default_field() -> String {
    "text".into()
}

impl Source {
    /// A source of text as it is: default field and document rule, not cleaned, once an epoch, words by whitespace.
    pub fn new(name: impl Into<String>, paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Source {
        Source {
            name: name.into(),
            paths: paths.into_iter().map(Into::into).collect(),
            field: default_field(),
            documents: DocumentRule::default(),
            cleaning: Cleaning::None,
            weight: Weight::default(),
            words: words::Rule::Whitespace,
            language: None,
        }
    }

    /// How its words are counted.
    ///
    /// # Errors
    /// What is wrong: by bytes without a language whose [`byte_premium`] is known, Chinese by whitespace.
    pub fn unit(&self) -> Result<Unit, String> {
        let premium = self.language.as_ref().map(|language| (language, byte_premium(language.primary())));
        match (self.words, premium) {
            (words::Rule::Bytes, Some((_, Some(premium)))) => Ok(Unit::bytes(premium)),
            (words::Rule::Bytes, Some((language, None))) => Err(format!(
                "words by bytes need the language's byte premium, which BabyLM gives for eng, nld and zho, not for {:?}",
                language.0
            )),
            (words::Rule::Bytes, None) => Err("words by bytes need `language`: eng, nld or zho".into()),
            (words::Rule::Whitespace, Some((language, _))) if ["zho", "zh", "cmn"].contains(&language.primary()) => {
                Err("Chinese has no spaces to count words by: write `words = \"bytes\"`".into())
            }
            (words::Rule::Whitespace, _) => Ok(Unit::Whitespace),
        }
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    /// The key of `[[data]]`, and what is wrong.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.name.trim().is_empty() {
            return Err(("data.name", "empty".into()));
        }
        let wrong = |key, what: String| Err((key, format!("the source {:?}: {what}", self.name)));
        if self.paths.is_empty() {
            return wrong("data.paths", "names no file".into());
        }
        if self.field.is_empty() {
            return wrong("data.field", "empty".into());
        }
        self.unit().map(drop).or_else(|what| wrong("data.words", what))
    }
}

/// How often an epoch has the documents of a source: `n + f`, n whole and 0 <= f < 1, is each document n times, and the
/// share f of them, chosen by their content, once more. So 2 is all of them twice, 0.5 half of them, 1.5 all of them
/// and half of them again; every repeat counts as words seen. The same documents are chosen in every run, and a larger
/// f chooses those of a smaller one and more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Weight(f64);

impl Weight {
    /// The largest weight: more is a typing error.
    pub const MAX: f64 = 1000.0;

    /// How often a document with this hash (of its content, all values equally likely) stands in an epoch.
    ///
    /// ```
    /// use antlm::text::source::Weight;
    /// let weight: Weight = 1.25.try_into()?;
    /// assert_eq!([0, 1 << 61, 1 << 62, u64::MAX].map(|hash| weight.copies(hash)), [2, 2, 1, 1]);
    /// # Ok::<(), String>(())
    /// ```
    pub fn copies(self, hash: u64) -> u32 {
        // The first 53 bits of the hash as a number from 0 to below 1, exactly.
        let place = (hash >> 11) as f64 / (1u64 << 53) as f64;
        self.0.trunc() as u32 + u32::from(place < self.0.fract())
    }

    /// Every document once.
    pub fn is_one(self) -> bool {
        self.0 == 1.0
    }
}

impl Default for Weight {
    fn default() -> Weight {
        Weight(1.0)
    }
}

impl TryFrom<f64> for Weight {
    type Error = String;
    fn try_from(weight: f64) -> Result<Weight, String> {
        if weight > 0.0 && weight <= Weight::MAX {
            Ok(Weight(weight))
        } else {
            Err(format!("expected a weight above 0 and up to {}, got {weight}", Weight::MAX))
        }
    }
}

impl From<Weight> for f64 {
    fn from(weight: Weight) -> f64 {
        weight.0
    }
}

/// A language as BCP 47 writes it: ISO 639's two or three letters, then any subtags: `eng`, `nl`, `zh-Hans`, `pt-BR`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Language(String);

impl Language {
    /// The part that names the language itself.
    pub fn primary(&self) -> &str {
        self.0.split('-').next().unwrap_or_default()
    }
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Language {
    type Error = String;
    fn try_from(text: String) -> Result<Language, String> {
        let mut parts = text.split('-');
        let primary = parts.next().unwrap_or_default();
        let good = (2..=3).contains(&primary.len())
            && primary.bytes().all(|b| b.is_ascii_lowercase())
            && parts.all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()));
        if good {
            Ok(Language(text))
        } else {
            Err(format!(
                "expected a language code of two or three small letters (ISO 639), perhaps with subtags, such as eng, nl or zh-Hans; got {text:?}"
            ))
        }
    }
}

impl From<Language> for String {
    fn from(language: Language) -> String {
        language.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_choose_by_content() {
        let copies = |weight: f64, hash| Weight::try_from(weight).unwrap().copies(hash);
        let hashes = || (0..1000u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for (weight, expect) in [(1.0, 1000), (2.0, 2000), (0.5, 500), (1.5, 1500), (0.1, 100), (1000.0, 1_000_000)] {
            let sum: u32 = hashes().map(|hash| copies(weight, hash)).sum();
            assert!(sum.abs_diff(expect) <= 2, "{weight}: {sum}");
        }
        assert!(hashes().all(|hash| copies(0.3, hash) <= copies(0.7, hash)));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1000.5] {
            assert!(Weight::try_from(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn languages_have_a_shape() {
        for good in ["eng", "nl", "zh-Hans", "pt-BR", "sl-rozaj-biske-1994", "en-x-child"] {
            assert!(Language::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for wrong in ["", "e", "English", "EN", "en_GB", "en-", "-en", "e1", "zh-toolongtag1"] {
            assert!(Language::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_go_with_the_language() {
        let source = |words, language: Option<&str>| Source {
            words,
            language: language.map(|l| l.to_owned().try_into().unwrap()),
            ..Source::new("s", ["x"])
        };
        use words::Rule::*;
        for (words, language, expect) in [
            (Whitespace, None, Ok(Unit::Whitespace)),
            (Whitespace, Some("jpn"), Ok(Unit::Whitespace)),
            (Whitespace, Some("zh-Hans"), Err("Chinese has no spaces")),
            (Bytes, Some("en-GB"), Ok(Unit::Bytes(5.43))),
            (Bytes, Some("fra"), Err("not for \"fra\"")),
            (Bytes, None, Err("need `language`")),
        ] {
            match (source(words, language).unit(), expect) {
                (Ok(unit), Ok(expect)) => assert_eq!(unit, expect),
                (Err(error), Err(expect)) => assert!(error.contains(expect), "{error}"),
                (got, _) => panic!("{words:?} {language:?}: {got:?}"),
            }
        }
        assert_eq!(source(Bytes, None).check().unwrap_err().0, "data.words");
    }
}
