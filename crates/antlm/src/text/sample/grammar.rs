//! The grammar of the sample text, as data: rules, words, and how both are read.
//!
//! `$X.v` expands X with the form of variable v. `n` inherits the form, `d` is the document's person; `s`, `p` and `ed`
//! are singular, plural and past; any other letter is drawn anew for each expansion (v to z are people, the others
//! things) and means the same wherever it stands in one alternative. `@` is the person's name. A number before an
//! alternative is how often it is chosen, compared with the others; a guard `m|`, `f|`, `s|` or `p|` after it allows the
//! alternative in masculine, feminine, any singular, or plural form only.

/// Number and gender of a phrase, or the past tense of a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Male,
    Female,
    Neuter,
    Plural,
    Past,
}

/// What stands in an alternative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A word as it is.
    Word(&'static str),
    /// The name of the document's person.
    Name,
    /// A symbol, and where its form comes from.
    Symbol(&'static str, Source),
}

/// Where the form of a symbol comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Inherited,
    Hero,
    Fixed(Form),
    /// A variable of the alternative: `a` is 0.
    Variable(usize),
}

impl Source {
    /// The forms that a variable can have; people are v to z.
    pub(super) fn domain(variable: usize) -> &'static [Form] {
        if variable >= usize::from(b'v' - b'a') {
            &[Form::Male, Form::Female, Form::Plural, Form::Plural]
        } else {
            &[Form::Neuter, Form::Plural]
        }
    }
}

/// Reads one item of an alternative or a template.
pub(super) fn item(text: &'static str) -> Item {
    if text == "@" {
        return Item::Name;
    }
    let Some(symbol) = text.strip_prefix('$') else { return Item::Word(text) };
    let (symbol, variable) = symbol.split_once('.').unwrap_or((symbol, "n"));
    Item::Symbol(
        symbol,
        match variable {
            "n" => Source::Inherited,
            "d" => Source::Hero,
            "s" => Source::Fixed(Form::Neuter),
            "p" => Source::Fixed(Form::Plural),
            "ed" => Source::Fixed(Form::Past),
            letter => Source::Variable(usize::from(letter.as_bytes()[0] - b'a')),
        },
    )
}

/// The alternatives of a symbol that this form allows, with their weights; `None` for a symbol that is a list of words.
pub(super) fn alternatives(symbol: &str, form: Form) -> Option<impl Iterator<Item = (u32, &'static str)>> {
    let (_, texts) = RULES.iter().find(|(name, _)| *name == symbol)?;
    Some(texts.iter().filter_map(move |text| {
        let (weight, rest) = match text.split_once(' ') {
            Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit()) => (number.parse().ok()?, rest),
            _ => (1, *text),
        };
        let Some((guard, rest)) = rest.split_once('|') else { return Some((weight, rest)) };
        let fits = match guard {
            "m" => form == Form::Male,
            "f" => form == Form::Female,
            "p" => form == Form::Plural,
            _ => form != Form::Plural,
        };
        fits.then_some((weight, rest))
    }))
}

/// The lexemes of a list of words, the more frequent first; no symbol of the rules lacks one (a test proves it).
pub(super) fn lexemes(symbol: &str) -> Vec<&'static str> {
    let list = WORDS.iter().find(|(name, _)| *name == symbol).map_or("", |(_, list)| list);
    list.split_whitespace().collect()
}

/// One form of a lexeme: `dog/dogs`, `sees/see/saw`, `he/she/it/they`, or one word for all forms.
pub(super) fn inflect(lexeme: &'static str, form: Form) -> &'static str {
    let forms: Vec<&'static str> = lexeme.split('/').collect();
    match (forms.len(), form) {
        (3, Form::Past) => forms[2],
        (4, Form::Male) => forms[0],
        (4, Form::Female) => forms[1],
        (4, Form::Neuter) => forms[2],
        (4, _) => forms[3],
        (2 | 3, Form::Plural) => forms[1],
        _ => forms[0],
    }
}

#[rustfmt::skip]
pub(super) const RULES: &[(&str, &[&str])] = &[
    ("First", &["3 @ $Pred.d .", "2 $Sentence.d"]),
    ("Sentence", &[
        "10 $Person.x $Pred.x .",
        "3 $He.d $Pred.d .",
        "2 @ $Pred.d .",
        "5 $Thing.t $Event.t .",
        "4 $Nobody.x $Have.x ever $Trans.ed $Item.t .",
        "2 $Link , $Person.x $Pred.x .",
        "2 $Person.x $Act.x $Sub $Flat.y $Act.y .",
    ]),
    // What somebody does.
    ("Pred", &[
        "4 $Act.n",
        "1 $Still.n $Act.n",
        "4 $Still.n $Often.n $Act.n",
        "1 $Be.n $Mood.n",
        "4 $Blame.ed $Self.n", "1 $Blame.ed $Self.n $When.n",
        "2 $Give.n $Item.t to $Flat.y", "2 $Take.n $Item.t from $Flat.y", "2 $Make.n $Item.t for $Flat.y",
        "4 $Have.n already $Trans.ed $Item.t",
        "3 $Know.n that $Whoever.x $Trans.x $Item.t",
        "3 $Know.n what $Whoever.x $Trans.x",
    ]),
    ("Act", &["4 $Intr.n", "1 $Intr.n $Near.n $Item.t", "3 $Trans.n $Item.t", "2 $Like.n $Flat.y"]),
    ("Event", &["3 $Happen.n", "3 $Still.n $Often.n $Happen.n", "1 $Be.n $Look.n"]),
    // People: as subjects with others between them and their verb, else in short.
    ("Person", &[
        "5 $Flat.n",
        "4 the $Human.n $Near.n $Flat.y",
        "1 the $Human.n $Near.n $Item.t",
        "2 the $Human.n who $Like.n $Flat.y",
        "2 the $Human.n who $Flat.y $Like.y",
    ]),
    ("Whoever", &["3 $Flat.n", "1 the $Human.n $Near.n $Flat.y"]),
    ("Nobody", &["1 no $Human.n", "2 no $Human.n $Near.n $Flat.y", "1 no $Human.n who $Like.n $Flat.y"]),
    ("Flat", &["5 the $Human.n", "1 $Det.n $Mood.n $Human.n", "1 $Det.n $Human.n", "2 s|$Name.n"]),
    ("Name", &["m|$Tom.n", "f|$Anna.n"]),
    ("Human", &["3 $Anyone.n", "1 m|$Man.n", "1 f|$Woman.n", "1 p|$Man.p", "1 p|$Woman.p"]),
    ("Grown", &["m|$Man.n", "f|$Woman.n"]),
    // Things.
    ("Thing", &[
        "2 $Item.n",
        "3 the $Tool.n $Near.n $Item.t",
        "2 the $Tool.n that $Flat.y $Trans.y",
    ]),
    ("Item", &["4 the $Tool.n", "1 $Det.n $Tool.n", "1 $Det.n $Look.n $Tool.n", "3 $Det.n $Look.n $Colour.n $Tool.n"]),
];

/// Words, the more frequent first.
#[rustfmt::skip]
pub(super) const WORDS: &[(&str, &str)] = &[
    ("Tom", "Tom Ben Paul Oscar Max Hugo Felix Victor"), ("Anna", "Anna Mary Ella Rosa Clara Nina Lucy Martha"),
    ("He", "he/she/it/they"), ("Self", "himself/herself/itself/themselves"),
    ("Det", "this/these that/those every/all each/many one/two"),
    ("Be", "is/are"), ("Have", "has/have"),
    ("Man", "man/men boy/boys father/fathers brother/brothers uncle/uncles king/kings son/sons prince/princes"),
    ("Woman", "woman/women girl/girls mother/mothers sister/sisters aunt/aunts queen/queens daughter/daughters
        princess/princesses"),
    ("Anyone", "child/children teacher/teachers friend/friends doctor/doctors neighbour/neighbours farmer/farmers
        baker/bakers student/students singer/singers painter/painters soldier/soldiers driver/drivers"),
    ("Tool", "book/books box/boxes key/keys letter/letters apple/apples cup/cups chair/chairs coat/coats lamp/lamps
        knife/knives basket/baskets picture/pictures map/maps hat/hats ladder/ladders bottle/bottles wheel/wheels
        blanket/blankets drum/drums shelf/shelves candle/candles rope/ropes clock/clocks boat/boats"),
    ("Trans", "carries/carry/carried finds/find/found needs/need/needed wants/want/wanted cleans/clean/cleaned
        buys/buy/bought repairs/repair/repaired holds/hold/held watches/watch/watched loses/lose/lost
        opens/open/opened moves/move/moved washes/wash/washed keeps/keep/kept touches/touch/touched
        collects/collect/collected"),
    ("Like", "likes/like helps/help hears/hear visits/visit calls/call follows/follow loves/love meets/meet thanks/thank
        fears/fear admires/admire teaches/teach"),
    ("Blame", "blamed hurt saw praised hid warmed taught washed"),
    ("Give", "gave sent lent sold offered showed"),
    ("Take", "took stole borrowed received got removed"),
    ("Make", "made built painted cooked designed prepared"),
    ("Intr", "sleeps/sleep sings/sing laughs/laugh works/work waits/wait smiles/smile dances/dance cries/cry reads/read
        rests/rest whistles/whistle shouts/shout swims/swim runs/run walks/walk jumps/jump"),
    ("Happen", "falls/fall shines/shine breaks/break disappears/disappear moves/move stands/stand shakes/shake
        turns/turn"),
    ("Know", "knows/know remembers/remember forgets/forget says/say hears/hear understands/understand"),
    ("Mood", "happy tired young hungry sad kind angry clever quiet brave poor rich proud lonely busy famous"),
    ("Look", "old new small big heavy empty broken long short round clean dirty cheap useful beautiful strange"),
    ("Colour", "red green blue white black yellow brown grey"),
    ("Still", "still also now therefore again perhaps"),
    ("Often", "often always never sometimes usually rarely quickly slowly quietly gladly"),
    ("When", "yesterday today twice once"),
    ("Link", "then later however soon meanwhile suddenly"),
    ("Sub", "when because while although before after"),
    ("Near", "near behind beside under above opposite"),
];
