//! English-like text of a small grammar, so that a first run needs no download: the same text for the same seed
//! everywhere. Written for this project; it is for trying things out, not a source of claims about English.
//!
//! The grammar has what small models are usually asked about: a verb agrees with its subject over distance and over
//! nouns in between, determiners agree with nouns, reflexives with their subjects, verbs choose their prepositions,
//! `ever` needs a `no`, and `what` needs a gap. [`pairs`] asks about each.

use std::io::{self, Write};

use antlm_nn::rng::{Draws, Rng, Stream};
use sha2::{Digest, Sha256};

mod grammar;
pub mod pairs;
#[cfg(test)]
mod recognise;

use grammar::{Form, Item, Source};

/// What a sentence may be used for. Every sentence that the grammar can make belongs to one of the three, by its own
/// characters alone, so none of one part can occur in another, whatever the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Training: nine of ten sentences.
    Train,
    /// Dev losses.
    Dev,
    /// Minimal pairs.
    Test,
}

impl Part {
    /// The part that a sentence belongs to, by its SHA-256.
    ///
    /// ```
    /// use antlm::text::sample::Part;
    /// let text: Vec<String> = (0..9).map(|i| antlm::text::sample::document(1, i, Part::Dev)).collect();
    /// assert!(text.iter().flat_map(|document| document.lines()).all(|line| Part::of(line) == Part::Dev));
    /// ```
    pub fn of(sentence: &str) -> Part {
        match Sha256::digest(sentence)[0] {
            0..13 => Part::Dev,
            13..26 => Part::Test,
            _ => Part::Train,
        }
    }
}

/// Writes whole documents, separated by a blank line, until there are at least `words` words (tokens between white
/// space); returns how many there are. `antlm sample-text` writes [`Part::Train`].
///
/// ```
/// use antlm::text::sample::{self, Part};
/// let mut text = Vec::new();
/// let words = sample::write(1000, 42, Part::Train, &mut text)?;
/// let text = String::from_utf8(text).unwrap();
/// assert_eq!(text.split_whitespace().count() as u64, words);
/// assert!((1000..1200).contains(&words));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// When `out` cannot be written.
pub fn write(words: u64, seed: u64, part: Part, out: &mut impl Write) -> io::Result<u64> {
    let mut written = 0;
    let mut index = 0;
    while written < words {
        let text = document(seed, index, part);
        written += text.split_whitespace().count() as u64;
        writeln!(out, "{}{text}", if index == 0 { "" } else { "\n" })?;
        index += 1;
    }
    Ok(written)
}

/// Document `index` of a seed: 3 to 10 sentences, some of them about one named person, one sentence a line.
pub fn document(seed: u64, index: u32, part: Part) -> String {
    let mut writer = Writer::new(Rng::new(seed).draws(Stream::SAMPLE, index, 0));
    let sentences = 3 + writer.draws.below(8);
    let line = |number| loop {
        let line = writer.sentence(if number == 0 { "First" } else { "Sentence" });
        if Part::of(&line) == part {
            break line;
        }
    };
    (0..sentences).map(line).collect::<Vec<_>>().join("\n")
}

/// Expands symbols of the grammar by random numbers.
struct Writer {
    draws: Draws,
    /// Gender of the person the document is about, and the name.
    hero: Form,
    name: &'static str,
    tokens: Vec<&'static str>,
}

impl Writer {
    fn new(mut draws: Draws) -> Writer {
        let hero = if draws.below(2) == 0 { Form::Male } else { Form::Female };
        let mut writer = Writer { draws, hero, name: "", tokens: Vec::new() };
        writer.name = writer.word(if hero == Form::Male { "Tom" } else { "Anna" }, hero);
        writer
    }

    fn sentence(&mut self, symbol: &'static str) -> String {
        self.tokens.clear();
        self.expand(symbol, self.hero);
        spell(&self.tokens)
    }

    /// Appends one expansion of a symbol, read with this form.
    fn expand(&mut self, symbol: &'static str, form: Form) {
        let Some(alternatives) = grammar::alternatives(symbol, form) else {
            let word = self.word(symbol, form);
            self.tokens.push(word);
            return;
        };
        let alternatives: Vec<(u32, &'static str)> = alternatives.collect();
        let mut left = self.draws.below(alternatives.iter().map(|(weight, _)| weight).sum());
        let chosen = alternatives.iter().find(|(weight, _)| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        });
        let mut forms = [None; 26];
        for text in chosen.map_or("", |(_, text)| text).split(' ') {
            self.item(grammar::item(text), form, &mut forms);
        }
    }

    /// Appends one item; variables without a form in `forms` are drawn.
    fn item(&mut self, item: Item, inherited: Form, forms: &mut [Option<Form>; 26]) {
        match item {
            Item::Word(word) => self.tokens.push(word),
            Item::Name => self.tokens.push(self.name),
            Item::Symbol(symbol, source) => {
                let form = self.form(source, inherited, forms);
                self.expand(symbol, form);
            }
        }
    }

    fn form(&mut self, source: Source, inherited: Form, forms: &mut [Option<Form>; 26]) -> Form {
        match source {
            Source::Inherited => inherited,
            Source::Hero => self.hero,
            Source::Fixed(form) => form,
            Source::Variable(variable) => *forms[variable].get_or_insert_with(|| {
                let domain = Source::domain(variable);
                domain[self.draws.below(domain.len() as u32) as usize]
            }),
        }
    }

    /// One word of a list in this form.
    fn word(&mut self, symbol: &str, form: Form) -> &'static str {
        let lexemes = grammar::lexemes(symbol);
        grammar::inflect(lexemes[lexeme(&mut self.draws, lexemes.len())], form)
    }
}

/// The number of a lexeme: the front of a list is more frequent than its end.
fn lexeme(draws: &mut Draws, len: usize) -> usize {
    let n = len as u32;
    draws.below(n).min(draws.below(n)) as usize
}

/// Joins tokens to a line: a capital first, no space before punctuation.
fn spell(tokens: &[&str]) -> String {
    let mut line = String::new();
    for &token in tokens {
        if line.is_empty() {
            let mut chars = token.chars();
            line.extend(chars.next().map(|c| c.to_ascii_uppercase()));
            line.push_str(chars.as_str());
        } else {
            if !matches!(token, "." | ",") {
                line.push(' ');
            }
            line.push_str(token);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::grammar::{RULES, WORDS};
    use super::*;

    fn text(words: u64, seed: u64, part: Part) -> String {
        let mut out = Vec::new();
        write(words, seed, part, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn grammar_is_complete() {
        for (name, alternatives) in RULES {
            for text in *alternatives {
                for text in text.split([' ', '|']) {
                    let Item::Symbol(symbol, _) = grammar::item(text) else { continue };
                    let known = RULES.iter().any(|r| r.0 == symbol) || WORDS.iter().any(|w| w.0 == symbol);
                    assert!(known, "{name} uses {symbol}");
                }
            }
        }
        for (name, list) in WORDS {
            let forms: BTreeSet<usize> = list.split_whitespace().map(|w| w.split('/').count()).collect();
            assert_eq!(forms.len(), 1, "{name} mixes numbers of forms");
        }
    }

    #[test]
    fn same_seed_same_text() {
        assert_eq!(text(2000, 1, Part::Train), text(2000, 1, Part::Train));
        assert_ne!(text(2000, 1, Part::Train), text(2000, 2, Part::Train));
        // A longer text begins with the shorter one, and nothing here depends on the machine.
        assert!(text(4000, 1, Part::Train).starts_with(text(2000, 1, Part::Train).trim_end()));
        insta::assert_snapshot!(document(42, 0, Part::Train));
    }

    #[test]
    fn documents_are_what_they_should_be() {
        let text = text(60_000, 3, Part::Train);
        let mut lengths = BTreeSet::new();
        for document in text.split("\n\n") {
            let lines: Vec<&str> = document.trim_end().lines().collect();
            lengths.insert(lines.len());
            for line in lines {
                assert!(line.starts_with(|c: char| c.is_ascii_uppercase()) && line.ends_with('.'), "{line}");
                assert!(!line.contains("  ") && !line.contains(['$', '@', '|', '{']), "{line}");
                assert!(line.split(' ').count() < 60, "{line}");
            }
        }
        assert_eq!(lengths, (3..=10).collect());
        let types: BTreeSet<String> =
            text.split_whitespace().map(|w| w.trim_end_matches(['.', ',']).to_lowercase()).collect();
        assert!((300..=500).contains(&types.len()), "{} types", types.len());
    }

    #[test]
    fn every_sentence_parses_and_no_sentence_is_in_two_parts() {
        let parts = [Part::Train, Part::Dev].map(|part| text(20_000, 4, part));
        let [train, dev] = parts.each_ref().map(|text| text.lines().filter(|l| !l.is_empty()).collect::<BTreeSet<_>>());
        assert!(train.is_disjoint(&dev));
        let pairs = pairs::make(100, 4);
        for pair in pairs.iter().flatten() {
            let (good, bad) = (&*pair.sentence_good, &*pair.sentence_bad);
            assert!(![&train, &dev].iter().any(|set| set.contains(good) || set.contains(bad)), "{pair:?}");
        }
        for line in train.iter().take(500).chain(dev.iter().take(500)) {
            assert!(recognise::parses(line), "{line}");
        }
    }
}
