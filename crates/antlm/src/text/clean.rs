//! Cleaning: named profiles, each a list of named rules that change lines, drop lines or change a whole document.
//!
//! `none` keeps the text as it is. `babylm` is for the files of the BabyLM corpora: which rules a file gets depends on
//! which corpus it is, told by its name (`bnc_spoken.train`) or by the recipe (`babylm:bnc_spoken`). The rules follow
//! in spirit what LTG-BERT (Samuel 2023) and BabyLlama (Timiryasov and Tastet 2023) did to these files. Left out on
//! purpose: quotation marks around every line of speech, and deleting the blank lines between articles, which glues
//! them together.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::suggest::suggest;

mod rules;
#[cfg(test)]
mod tests;

/// Changes whenever a rule does something else or a corpus has other rules: text cleaned before is prepared again.
pub(crate) const VERSION: u32 = 1;

/// How a source is cleaned; written `none`, `babylm` or `babylm:CORPUS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Cleaning {
    /// Not at all.
    #[default]
    None,
    /// By the rules of the corpus that the file's name says.
    Babylm,
    /// By the rules of this corpus, whatever the files are called.
    Corpus(Corpus),
}

/// The corpora that BabyLM's text comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Corpus {
    /// Conversations of the British National Corpus.
    BncSpoken,
    /// Children's Book Test: tokenised stories.
    Cbt,
    /// Speech to and of children, with or without speakers' labels.
    Childes,
    /// Children's stories.
    ChildrenStories,
    /// Books of Project Gutenberg.
    Gutenberg,
    /// Subtitles of films.
    OpenSubtitles,
    /// Subtitles of lectures.
    Qed,
    /// Simple English Wikipedia.
    SimpleWiki,
    /// Telephone calls.
    Switchboard,
    /// Wikipedia.
    Wikipedia,
}

impl Corpus {
    /// All of them, by name.
    pub const ALL: [Corpus; 10] = [
        Corpus::BncSpoken,
        Corpus::Cbt,
        Corpus::Childes,
        Corpus::ChildrenStories,
        Corpus::Gutenberg,
        Corpus::OpenSubtitles,
        Corpus::Qed,
        Corpus::SimpleWiki,
        Corpus::Switchboard,
        Corpus::Wikipedia,
    ];

    /// Its name, as in the files' names.
    pub fn name(self) -> &'static str {
        match self {
            Corpus::BncSpoken => "bnc_spoken",
            Corpus::Cbt => "cbt",
            Corpus::Childes => "childes",
            Corpus::ChildrenStories => "children_stories",
            Corpus::Gutenberg => "gutenberg",
            Corpus::OpenSubtitles => "open_subtitles",
            Corpus::Qed => "qed",
            Corpus::SimpleWiki => "simple_wiki",
            Corpus::Switchboard => "switchboard",
            Corpus::Wikipedia => "wikipedia",
        }
    }

    /// The corpus of this name; `aochildes` and `simple_wikipedia`, as files were called in 2023, are known too.
    pub fn named(name: &str) -> Option<Corpus> {
        match name {
            "aochildes" => Some(Corpus::Childes),
            "simple_wikipedia" => Some(Corpus::SimpleWiki),
            _ => Corpus::ALL.into_iter().find(|corpus| corpus.name() == name),
        }
    }

    /// The corpus that a file's name says, up to its first dot and whatever its case.
    ///
    /// ```
    /// use antlm::text::clean::Corpus;
    /// assert_eq!(Corpus::of_file("10M/aochildes.train.gz".as_ref()), Some(Corpus::Childes));
    /// assert_eq!(Corpus::of_file("notes.txt".as_ref()), None);
    /// ```
    pub fn of_file(path: &Path) -> Option<Corpus> {
        let name = path.file_name()?.to_str()?.to_lowercase();
        Corpus::named(name.split('.').next()?)
    }

    /// Its rules, in the order in which they are applied.
    pub fn rules(self) -> &'static [Rule] {
        rules::of(self)
    }
}

impl Cleaning {
    /// Whose rules a file gets: nobody's, or a corpus's.
    ///
    /// # Errors
    /// What is wrong, for `babylm` and a file whose name says no corpus.
    pub fn for_file(self, path: &Path) -> Result<Option<Corpus>, String> {
        match self {
            Cleaning::None => Ok(None),
            Cleaning::Corpus(corpus) => Ok(Some(corpus)),
            Cleaning::Babylm => Corpus::of_file(path).map(Some).ok_or_else(|| {
                format!(
                    "cleaning \"babylm\" goes by file names, and this is none that it knows; write \"babylm:CORPUS\" \
                     with CORPUS one of {}, or \"none\"",
                    Corpus::ALL.map(Corpus::name).join(", ")
                )
            }),
        }
    }
}

impl fmt::Display for Cleaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cleaning::None => f.write_str("none"),
            Cleaning::Babylm => f.write_str("babylm"),
            Cleaning::Corpus(corpus) => write!(f, "babylm:{}", corpus.name()),
        }
    }
}

impl From<Cleaning> for String {
    fn from(cleaning: Cleaning) -> String {
        cleaning.to_string()
    }
}

impl TryFrom<String> for Cleaning {
    type Error = String;
    fn try_from(text: String) -> Result<Cleaning, String> {
        text.parse()
    }
}

impl std::str::FromStr for Cleaning {
    type Err = String;
    fn from_str(text: &str) -> Result<Cleaning, String> {
        match text {
            "none" => return Ok(Cleaning::None),
            "babylm" => return Ok(Cleaning::Babylm),
            _ => {}
        }
        if let Some(corpus) = text.strip_prefix("babylm:").and_then(Corpus::named) {
            return Ok(Cleaning::Corpus(corpus));
        }
        let known: Vec<String> = Corpus::ALL.map(|corpus| format!("babylm:{}", corpus.name())).into();
        let near = suggest(text, ["none", "babylm"].into_iter().chain(known.iter().map(String::as_str)));
        let near = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        Err(format!(
            "no cleaning profile is named {text:?}{near} (there are none, babylm, and babylm:CORPUS with CORPUS one of {})",
            Corpus::ALL.map(Corpus::name).join(", ")
        ))
    }
}

/// A step of a profile.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What reports call it.
    pub name: &'static str,
    /// What it does, in a few words.
    pub says: &'static str,
    /// How.
    pub step: Step,
}

/// What a rule looks at, and may change.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A line becomes another line.
    Line(fn(&str) -> Cow<'_, str>),
    /// Whether a line is dropped, given the line kept before it.
    Drop(fn(&str, Option<&str>) -> bool),
    /// The whole document; the lines that are left are as they were.
    Document(fn(&str) -> String),
}

impl Rule {
    /// The document after this rule.
    pub fn apply(&self, document: &str) -> String {
        let mut out = String::with_capacity(document.len());
        match self.step {
            Step::Document(change) => return change(document),
            Step::Line(change) => {
                for (i, line) in document.split('\n').enumerate() {
                    if i > 0 {
                        out.push('\n');
                    }
                    out.push_str(&change(line));
                }
            }
            Step::Drop(dropped) => {
                let mut before = None;
                for line in document.split('\n') {
                    if !dropped(line, before) {
                        if before.is_some() {
                            out.push('\n');
                        }
                        out.push_str(line);
                        before = Some(line);
                    }
                }
            }
        }
        out
    }
}

/// A document by the rules of a corpus; nothing, if nothing is left of it.
///
/// ```
/// use antlm::text::clean::{Corpus, clean};
/// let document = "*MOT:\tdo you  see it ?\n*CHI:\txxx . [points]";
/// assert_eq!(clean(document, Corpus::Childes).as_deref(), Some("Do you see it?\nXxx."));
/// assert_eq!(clean("*CHI:\t[laughs]", Corpus::Childes), None);
/// ```
pub fn clean(document: &str, corpus: Corpus) -> Option<String> {
    let mut text = Cow::Borrowed(document);
    for rule in corpus.rules() {
        text = Cow::Owned(rule.apply(&text));
    }
    (!text.trim().is_empty()).then(|| text.into_owned())
}
