//! English-like text of a small grammar, so that a first run needs no download: the same text for the same seed
//! everywhere. Written for this project; it is for trying things out, not a source of claims about English.
//!
//! The grammar has what small models are usually asked about: a verb agrees with its subject over distance and over
//! nouns in between, determiners agree with nouns, reflexives and pronouns with what they refer to (also over
//! sentences), and there are relative, conditional, passive, negated and question clauses.

use std::io::{self, Write};

use antlm_nn::rng::{Draws, Rng, Stream};

/// Writes whole documents, separated by a blank line, until there are at least `words` words (tokens between white
/// space); returns how many there are.
///
/// ```
/// let mut text = Vec::new();
/// let words = antlm::text::sample::write(1000, 42, &mut text)?;
/// let text = String::from_utf8(text).unwrap();
/// assert_eq!(text.split_whitespace().count() as u64, words);
/// assert!((1000..1200).contains(&words));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// When `out` cannot be written.
pub fn write(words: u64, seed: u64, out: &mut impl Write) -> io::Result<u64> {
    let mut written = 0;
    let mut index = 0;
    while written < words {
        let text = document(seed, index);
        written += text.split_whitespace().count() as u64;
        writeln!(out, "{}{text}", if index == 0 { "" } else { "\n" })?;
        index += 1;
    }
    Ok(written)
}

/// Document `index` of a seed: 3 to 10 sentences about one named person, one sentence a line.
pub fn document(seed: u64, index: u32) -> String {
    let mut draws = Rng::new(seed).draws(Stream::SAMPLE, index, 0);
    let hero = if draws.below(2) == 0 { Form::Male } else { Form::Female };
    let mut writer = Writer { draws, hero, name: "", tokens: Vec::new() };
    writer.name = writer.word("Name", hero);
    let sentences = 3 + writer.draws.below(8);
    let mut lines = Vec::new();
    for number in 0..sentences {
        writer.tokens.clear();
        writer.expand(if number == 0 { "First" } else { "Sentence" }, hero, 0);
        lines.push(spell(&writer.tokens));
    }
    lines.join("\n")
}

/// Number and gender of a phrase, or the past tense of a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Male,
    Female,
    Neuter,
    Plural,
    Past,
}

struct Writer {
    draws: Draws,
    /// Gender of the person the document is about, and the name.
    hero: Form,
    name: &'static str,
    tokens: Vec<&'static str>,
}

impl Writer {
    /// Appends one expansion of a symbol of [`RULES`] or [`WORDS`], read with this form.
    fn expand(&mut self, symbol: &str, form: Form, depth: u32) {
        let Some((_, alternatives)) = RULES.iter().find(|(name, _)| *name == symbol) else {
            let word = self.word(symbol, form);
            self.tokens.push(word);
            return;
        };
        let fitting: Vec<&'static str> = alternatives.iter().filter_map(|text| guarded(text, form)).collect();
        // The first alternative of a symbol does not contain the symbol; so deep phrases end.
        let choice = if depth > 5 { 0 } else { self.draws.below(fitting.len() as u32) };
        let mut fresh = [None; 26];
        for item in fitting[choice as usize].split(' ') {
            let Some(item) = item.strip_prefix('$') else {
                self.tokens.push(if item == "@" { self.name } else { item });
                continue;
            };
            let (symbol, variable) = item.split_once('.').unwrap_or((item, ""));
            let form = match variable {
                "" | "n" => form, // inherited
                "d" => self.hero,
                "s" => Form::Neuter,
                "p" => Form::Plural,
                "ed" => Form::Past,
                // A variable: drawn once for this expansion. v to z are people, the others things.
                letter => {
                    let letter = letter.as_bytes()[0];
                    let slot = &mut fresh[usize::from(letter - b'a')];
                    *slot.get_or_insert_with(|| match (letter >= b'v', self.draws.below(4)) {
                        (true, 0) => Form::Male,
                        (true, 1) => Form::Female,
                        (false, 0 | 1) => Form::Neuter,
                        _ => Form::Plural,
                    })
                }
            };
            self.expand(symbol, form, depth + 1);
        }
    }

    /// One word of a list in this form; the front of a list is more frequent than its end.
    fn word(&mut self, symbol: &str, form: Form) -> &'static str {
        let Some((_, list)) = WORDS.iter().find(|(name, _)| *name == symbol) else {
            return ""; // the test `grammar_is_complete` proves that every symbol has a list
        };
        let entries: Vec<&'static str> = list.split_whitespace().collect();
        let n = entries.len() as u32;
        let index = self.draws.below(n).min(self.draws.below(n));
        let forms: Vec<&'static str> = entries[index as usize].split('/').collect();
        match (forms.len(), form) {
            (1, _) => forms[0],
            (3, Form::Past) => forms[2],
            (4, Form::Male) => forms[0],
            (4, Form::Female) => forms[1],
            (4, Form::Neuter) => forms[2],
            (4, _) => forms[3],
            (_, Form::Plural) => forms[1],
            _ => forms[0],
        }
    }
}

/// An alternative without its guard `m|`, `f|`, `n|`, `s|` (singular) or `p|`, or nothing if the guard forbids it.
fn guarded(text: &'static str, form: Form) -> Option<&'static str> {
    let Some((guard, rest)) = text.split_once('|') else { return Some(text) };
    let fits = match guard {
        "m" => form == Form::Male,
        "f" => form == Form::Female,
        "n" => form == Form::Neuter,
        "p" => form == Form::Plural,
        _ => form != Form::Plural,
    };
    fits.then_some(rest)
}

/// Joins tokens to a line: capital first, `a` before a vowel becomes `an`, no space before punctuation, `_` is a space.
fn spell(tokens: &[&str]) -> String {
    let mut line = String::new();
    for (i, &token) in tokens.iter().enumerate() {
        let token = match (token, tokens.get(i + 1)) {
            ("a", Some(next)) if next.starts_with(['a', 'e', 'i', 'o', 'u']) => "an",
            _ => token,
        };
        if !line.is_empty() && !matches!(token, "." | "," | "?") {
            line.push(' ');
        }
        if line.is_empty() {
            line.push(token.chars().next().map_or(' ', |c| c.to_ascii_uppercase()));
            line.push_str(token.get(1..).unwrap_or(""));
        } else {
            line.push_str(token);
        }
    }
    line.replace('_', " ")
}

/// `$X.v`: expand X with the form of variable v. `n` inherits, `d` is the document's person, `s`, `p` and `ed` are
/// singular, plural and past; other letters are drawn anew for each expansion. `@` is the person's name.
#[rustfmt::skip]
const RULES: &[(&str, &[&str])] = &[
    ("First", &[
        "$OnceAdv @ and $Person.x $Meet.ed $Person.y .",
        "$OnceAdv @ $Travel.ed $PlaceTo .",
        "@ is a $Job who $Trans.s $Thing.t .",
        "this is the story of @ and $Poss.d $Animal.t .",
    ]),
    ("Sentence", &[
        "$Clause.d .", "$Clause.d .", "$Clause.d .",
        "$Link , $Clause.d .",
        "$Sub $Clause.d , $Clause.d .",
        "$Clause.d $Sub $Clause.d .",
        "if $Person.x $Trans.x $Thing.t , $Person.y $Modal $Intr.p .",
        "$Thing.t $Be.t $Adj , but $Thing.u $Be.u $Adj .",
        "$Thing.t $Be.t $Trans.ed by $Person.x .",
        "there $Be.t $Few.t $Place $Near .",
        "$Do.x $Person.x $Trans.p $Thing.t ?",
        "what $Do.x $Person.x $Trans.p ?",
        "which $Tool.t $Do.x $Person.x $Trans.p ?",
        "who $Trans.s $Thing.t ?",
        "no $Human.x $Have.x ever $Trans.ed $Thing.t .",
        "$Person.x $Trans.x $Thing.t , and so $Do.y $Person.y .",
    ]),
    // One clause; about the document's person as often as not.
    ("Clause", &[
        "$Pred0.d",
        "$Pred0.d", "$Pred0.d",
        "$Person.x $Pred.x", "$Person.x $Pred.x",
        "$Person.x and $Person.y $Pred.p",
        "$Beast.t $Move.t $PlaceTo",
    ]),
    ("Pred0", &["$He.d $Pred.d", "$He.d $Pred.d", "@ $Pred.d", "$Poss.d $Human.x $Pred.x"]),
    ("Pred", &[
        "$Trans.n $Thing.t", "$Trans.n $Thing.t $Place",
        "$Trans.ed $Thing.t", "$Adv $Trans.n $Thing.t",
        "$Intr.n", "$Intr.n $Place", "$Intr.n $Adv", "$Intr.ed $When",
        "$See.n $Person.x", "$See.ed $Person.x",
        "$Be.n $Mood", "$Be.n $Place", "$Be.n very $Mood",
        "$Hurt.n $Self.n", "$Hurt.ed $Self.n $When",
        "$Do.n not $Trans.p any $Tool.p",
        "$Do.n not $Intr.p",
        "$Modal $Trans.p $Thing.t", "$Modal not $See.p $Person.x",
        "$Have.n $Trans.ed $Thing.t",
        "$Think.n that $Person.x $Pred.x",
        "$Think.ed that $Person.x $Was.x $Mood",
        "$Want.n to $Trans.p $Thing.t",
        "$Give.n $Person.x $Thing.t", "$Give.ed $Thing.t to $Person.x",
        "$Intr.n and $Trans.n $Thing.t",
        "$Be.n more $Mood than $Person.x",
    ]),
    ("Person", &[
        "$Det.n $Human.n", "$Det.n $Human.n", "$Det.n $Mood $Human.n",
        "$Det.n $Human.n $With $Thing.t",                   // a noun between subject and verb
        "$Det.n $Human.n $Near $Person.x",
        "$Det.n $Human.n who $Trans.n $Thing.t",             // subject relative
        "$Det.n $Human.n who $Person.x $See.x",              // object relative
        "$Det.n $Human.n of the $Group.s",
        "$Poss.d $Human.n",
    ]),
    ("Human", &["$Anyone.n", "$Anyone.n", "m|$Man.n", "f|$Woman.n", "p|$Man.p", "p|$Woman.p"]),
    ("Thing", &[
        "$Det.n $Tool.n", "$Det.n $Adj $Tool.n", "$Det.n $Animal.n",
        "$Det.n $Tool.n $Near $Thing.t",
        "$Det.n $Tool.n that $Person.x $Trans.x",
        "$Poss.d $Tool.n",
    ]),
    ("Beast", &["$Det.n $Animal.n", "$Det.n $Adj $Animal.n", "$Det.n $Animal.n $Near $Thing.t"]),
    ("Few", &["s|a $Tool.n", "s|an_old $Animal.n", "p|$Many $Tool.n", "p|$Many $Animal.n"]),
    ("Place", &["$Near the $Site"]),
    ("PlaceTo", &["$To the $Site", "$To the $Site $Near the $Site"]),
];

/// Words, the more frequent first. Forms: one for all, singular/plural, singular/plural/past, or he/she/it/they.
#[rustfmt::skip]
const WORDS: &[(&str, &str)] = &[
    ("Name", "Tom/Anna Ben/Mary Paul/Ella Oscar/Rosa Max/Clara Hugo/Nina Felix/Lucy Victor/Martha Simon/Judith Walter/Ida
        Jonas/Greta Arthur/Olive Henry/Vera Emil/Flora"),
    ("He", "he/she/it/they"), ("Poss", "his/her/its/their"), ("Self", "himself/herself/itself/themselves"),
    ("Det", "the/the the/the the/the this/these that/those a/some every/all each/many another/several one/two"),
    ("Many", "many three some few four several five ten"),
    ("Be", "is/are"), ("Was", "was/were"), ("Do", "does/do"), ("Have", "has/have"),
    ("Modal", "can will must may should could would might"),
    ("Man", "man/men boy/boys father/fathers brother/brothers uncle/uncles king/kings grandfather/grandfathers son/sons
        waiter/waiters prince/princes"),
    ("Woman", "woman/women girl/girls mother/mothers sister/sisters aunt/aunts queen/queens grandmother/grandmothers
        daughter/daughters waitress/waitresses princess/princesses"),
    ("Anyone", "child/children teacher/teachers friend/friends doctor/doctors neighbour/neighbours farmer/farmers
        baker/bakers student/students singer/singers painter/painters soldier/soldiers driver/drivers writer/writers
        sailor/sailors guest/guests visitor/visitors captain/captains stranger/strangers nurse/nurses judge/judges
        thief/thieves tailor/tailors pilot/pilots"),
    ("Job", "teacher baker doctor farmer painter sailor nurse driver tailor pilot writer judge"),
    ("Animal", "dog/dogs cat/cats horse/horses bird/birds cow/cows mouse/mice sheep/sheep goose/geese fox/foxes
        rabbit/rabbits wolf/wolves duck/ducks owl/owls goat/goats bee/bees hen/hens donkey/donkeys frog/frogs"),
    ("Tool", "book/books box/boxes key/keys letter/letters apple/apples cup/cups chair/chairs coat/coats lamp/lamps
        knife/knives basket/baskets picture/pictures loaf/loaves map/maps hat/hats ladder/ladders bottle/bottles
        egg/eggs orange/oranges wheel/wheels blanket/blankets drum/drums umbrella/umbrellas shelf/shelves
        candle/candles bucket/buckets coin/coins rope/ropes clock/clocks boat/boats"),
    ("Group", "village family school choir team army club town"),
    ("Site", "house garden river kitchen school market forest church bridge station field harbour tower mill library
        park hill shop road lake barn window wall cellar island"),
    ("Trans", "likes/like/liked carries/carry/carried finds/find/found needs/need/needed wants/want/wanted
        cleans/clean/cleaned brings/bring/brought sells/sell/sold buys/buy/bought paints/paint/painted
        repairs/repair/repaired mends/mend/mended holds/hold/held watches/watch/watched loses/lose/lost
        opens/open/opened moves/move/moved fetches/fetch/fetched counts/count/counted washes/wash/washed
        borrows/borrow/borrowed keeps/keep/kept touches/touch/touched collects/collect/collected"),
    ("See", "sees/see/saw knows/know/knew helps/help/helped hears/hear/heard visits/visit/visited calls/call/called
        follows/follow/followed loves/love/loved meets/meet/met thanks/thank/thanked fears/fear/feared
        admires/admire/admired teaches/teach/taught praises/praise/praised"),
    ("Hurt", "hurts/hurt/hurt sees/see/saw blames/blame/blamed washes/wash/washed praises/praise/praised
        hides/hide/hid warms/warm/warmed teaches/teach/taught"),
    ("Intr", "sleeps/sleep/slept sings/sing/sang laughs/laugh/laughed works/work/worked waits/wait/waited
        smiles/smile/smiled dances/dance/danced cries/cry/cried reads/read/read rests/rest/rested
        whistles/whistle/whistled eats/eat/ate prays/pray/prayed shouts/shout/shouted swims/swim/swam"),
    ("Move", "runs/run/ran walks/walk/walked comes/come/came goes/go/went jumps/jump/jumped hurries/hurry/hurried"),
    ("Travel", "went/went/went walked/walked/walked rode/rode/rode travelled/travelled/travelled"),
    ("Meet", "met/met/met visited/visited/visited found/found/found heard/heard/heard"),
    ("Think", "thinks/think/thought says/say/said knows/know/knew believes/believe/believed hopes/hope/hoped
        hears/hear/heard"),
    ("Want", "wants/want/wanted tries/try/tried hopes/hope/hoped plans/plan/planned begins/begin/began"),
    ("Give", "gives/give/gave shows/show/showed sends/send/sent offers/offer/offered sells/sell/sold
        brings/bring/brought"),
    ("Adj", "old new small big red green heavy empty broken blue white long short black round clean dirty cheap
        expensive useful wooden beautiful strange yellow"),
    ("Mood", "happy tired young hungry sad kind angry clever quiet brave poor rich proud careful lonely busy famous
        honest lazy ill friendly polite shy"),
    ("Adv", "often always never quickly slowly sometimes happily quietly usually rarely gladly carefully"),
    ("When", "yesterday today last_night in_the_morning last_week at_noon in_the_evening on_Sunday a_year_ago"),
    ("OnceAdv", "once one_day last_summer long_ago in_spring on_a_cold_day"),
    ("Link", "then later after_that in_the_end however at_first soon"),
    ("Sub", "when because while although before after until"),
    ("Near", "near behind in_front_of beside under next_to above opposite"),
    ("With", "with without beside behind"),
    ("To", "to towards into past through around"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn text(words: u64, seed: u64) -> String {
        let mut out = Vec::new();
        write(words, seed, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn grammar_is_complete() {
        for (name, alternatives) in RULES {
            assert!(!alternatives[0].contains(&format!("${name}.")), "{name}: the first must end the recursion");
            for item in alternatives.iter().flat_map(|text| text.split([' ', '|'])) {
                let Some(item) = item.strip_prefix('$') else { continue };
                let symbol = item.split('.').next().unwrap();
                let known = RULES.iter().any(|r| r.0 == symbol) || WORDS.iter().any(|w| w.0 == symbol);
                assert!(known, "{name} uses {symbol}");
            }
        }
        for (name, list) in WORDS {
            let forms: BTreeSet<usize> = list.split_whitespace().map(|w| w.split('/').count()).collect();
            assert_eq!(forms.len(), 1, "{name} mixes numbers of forms");
        }
    }

    #[test]
    fn same_seed_same_text() {
        assert_eq!(text(2000, 1), text(2000, 1));
        assert_ne!(text(2000, 1), text(2000, 2));
        // A longer text begins with the shorter one, and nothing here depends on the machine.
        assert!(text(4000, 1).starts_with(text(2000, 1).trim_end()));
        insta::assert_snapshot!(document(42, 0));
    }

    #[test]
    fn documents_are_what_they_should_be() {
        let text = text(60_000, 3);
        let mut lengths = BTreeSet::new();
        for document in text.split("\n\n") {
            let lines: Vec<&str> = document.trim_end().lines().collect();
            lengths.insert(lines.len());
            for line in lines {
                assert!(line.starts_with(|c: char| c.is_ascii_uppercase()) && line.ends_with(['.', '?']), "{line}");
                assert!(!line.contains("  ") && !line.contains(['$', '@', '_', '|']), "{line}");
                assert!(line.split(' ').count() < 120, "{line}");
            }
        }
        assert_eq!(lengths, (3..=10).collect());
        let types: BTreeSet<String> =
            text.split_whitespace().map(|w| w.trim_end_matches(['.', ',', '?']).to_lowercase()).collect();
        assert!(types.len() > 300, "{} types", types.len());
    }

    #[test]
    fn agreement_holds() {
        let text = text(60_000, 4);
        let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
        let bad = [
            ["he", "are"],
            ["he", "have"],
            ["she", "do"],
            ["these", "dog"],
            ["this", "dogs"],
            ["every", "children"],
            ["they", "is"],
            ["all", "child"],
            ["a", "apple"],
            ["an", "book"],
            ["many", "man"],
        ];
        for pair in words.windows(2) {
            assert!(!bad.iter().any(|b| pair[0] == b[0] && pair[1] == b[1]), "{pair:?}");
        }
    }
}
