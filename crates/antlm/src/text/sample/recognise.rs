//! A recogniser of the sample grammar, for tests: whether the rules can make a sentence, in any way.

use std::collections::{BTreeSet, HashMap};

use super::grammar::{self, Form, Item, Source};

/// Whether the grammar makes this sentence, as the first of a document or a later one.
pub(super) fn parses(sentence: &str) -> bool {
    let spaced = sentence.replace('.', " .").replace(',', " ,").to_lowercase();
    let words: Vec<&str> = spaced.split_whitespace().collect();
    [Form::Male, Form::Female].into_iter().any(|hero| {
        let mut parser = Parser { words: &words, hero, known: HashMap::new() };
        ["First", "Sentence"].iter().any(|symbol| parser.ends(symbol, hero, 0).contains(&words.len()))
    })
}

struct Parser<'a> {
    words: &'a [&'a str],
    hero: Form,
    known: HashMap<(&'static str, Form, usize), BTreeSet<usize>>,
}

impl Parser<'_> {
    /// Where an expansion of a symbol that begins at `start` can end.
    fn ends(&mut self, symbol: &'static str, form: Form, start: usize) -> BTreeSet<usize> {
        if let Some(ends) = self.known.get(&(symbol, form, start)) {
            return ends.clone();
        }
        let mut ends = BTreeSet::new();
        if let Some(alternatives) = grammar::alternatives(symbol, form) {
            for (_, text) in alternatives {
                let items: Vec<Item> = text.split(' ').map(grammar::item).collect();
                self.sequence(&items, form, start, [None; 26], &mut ends);
            }
        } else if grammar::lexemes(symbol).into_iter().any(|lexeme| self.is(start, grammar::inflect(lexeme, form))) {
            ends.insert(start + 1);
        }
        self.known.insert((symbol, form, start), ends.clone());
        ends
    }

    /// Where the items can end, with the forms that variables have got so far.
    fn sequence(
        &mut self,
        items: &[Item],
        inherited: Form,
        start: usize,
        forms: [Option<Form>; 26],
        ends: &mut BTreeSet<usize>,
    ) {
        let Some((first, rest)) = items.split_first() else {
            ends.insert(start);
            return;
        };
        match *first {
            Item::Word(word) if self.is(start, word) => self.sequence(rest, inherited, start + 1, forms, ends),
            Item::Word(_) => {}
            Item::Name => {
                for end in self.ends("Name", self.hero, start) {
                    self.sequence(rest, inherited, end, forms, ends);
                }
            }
            Item::Symbol(symbol, source) => {
                let (candidates, variable) = match source {
                    Source::Inherited => (vec![inherited], None),
                    Source::Hero => (vec![self.hero], None),
                    Source::Fixed(form) => (vec![form], None),
                    Source::Variable(v) => (forms[v].map_or(Source::domain(v).to_vec(), |form| vec![form]), Some(v)),
                };
                for form in candidates {
                    let mut forms = forms;
                    if let Some(v) = variable {
                        forms[v] = Some(form);
                    }
                    for end in self.ends(symbol, form, start) {
                        self.sequence(rest, inherited, end, forms, ends);
                    }
                }
            }
        }
    }

    fn is(&self, at: usize, word: &str) -> bool {
        self.words.get(at).is_some_and(|w| *w == word.to_lowercase())
    }
}

#[test]
fn sentences_by_hand() {
    for (sentence, good) in [
        ("The dog sleeps.", false), // no such word
        ("The man sleeps.", true),
        ("The man sleep.", false),
        ("Anna sleeps.", true),
        ("The men near the box sleep.", true),
        ("The men near the box sleeps.", false),
        ("The man who the girls like sleeps.", true),
        ("The man who the girls like sleep.", false),
        ("No man has ever found the box.", true),
        ("The man has ever found the box.", false),
        ("No man has already found the box.", false),
        ("The girls know what Tom carries.", true),
        ("The girls know that Tom carries.", false),
        ("The girls know what Tom carries the box.", false),
        ("The king near the queen blamed himself.", true),
        ("The king near the queen blamed herself.", false),
        ("The teacher near the queen blamed herself.", true),
        ("Then, these sad kings also always dance.", true),
        ("Then, these sad king also always dance.", false),
    ] {
        assert_eq!(parses(sentence), good, "{sentence}");
    }
}
