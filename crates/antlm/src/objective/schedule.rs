//! The schedule language: which objective is trained for how long, in which order (`4 clm + 16 mlm + 4 clm`).
//!
//! ```text
//! sched  = item ("+" item)*
//! item   = N "x" "(" sched ")"
//!        | amount (objective | "mix(" objective ":" int ("," objective ":" int)* ")")
//! amount = N                      epochs
//!        | N ("k" | "M") "w"      thousands or millions of words
//! ```
//!
//! Letters may be of either case, spaces may stand anywhere between words and numbers, and `_` is a space, so that the
//! paper's own spelling `4_CLM + 16_MLM + 4_CLM` parses too.

use super::Objective;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Brackets may nest this deep.
const MAX_DEPTH: usize = 16;
/// A schedule may expand to at most this many blocks.
const MAX_BLOCKS: u64 = 10_000;
/// Largest number of epochs of a whole schedule.
const MAX_EPOCHS: u64 = 1_000_000;
/// Largest number of words of the blocks of words of a whole schedule.
const MAX_WORDS: u64 = 1_000_000_000_000;
/// Largest sum of the weights of a mix; its round-robin pattern is at most this long.
const MAX_WEIGHT: u64 = 10_000;

/// A parsed schedule. Its `Display` is the canonical spelling, which parses to the same schedule.
///
/// ```
/// use antlm::objective::schedule::Schedule;
/// let schedule = Schedule::parse("4_CLM + 2x(8 mlm)+4 clm")?;
/// assert_eq!(schedule.to_string(), "4 clm + 2x(8 mlm) + 4 clm");
/// assert_eq!(schedule.blocks().len(), 4);
/// # Ok::<(), antlm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule {
    items: Vec<Item>,
}

/// One item of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    /// `times` x (`items`).
    Repeat { times: u64, items: Vec<Item> },
    /// One block.
    Block(Block),
}

/// A stretch of training with one objective, or one mix of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// How long it lasts.
    pub amount: Amount,
    /// What is trained in it.
    pub what: What,
}

/// The length of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Passes over all segments.
    Epochs(u64),
    /// Words seen; the block ends with the first step at or past the mark. A multiple of 1000.
    Words(u64),
}

/// What a block trains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// One objective in every step.
    One(Objective),
    /// Objectives by turns, step by step, in the proportion of these weights (each at least 1, objectives distinct).
    Mix(Vec<(Objective, u32)>),
}

impl What {
    /// The objectives of the steps of a block, as a pattern that repeats: a smooth weighted round-robin. At each step
    /// every objective gains its weight; the one that has most (the first of equals) is taken and pays the sum of all.
    ///
    /// ```
    /// use antlm::objective::{Objective::*, schedule::What};
    /// assert_eq!(What::Mix(vec![(Clm, 1), (Mlm, 3)]).pattern(), [Mlm, Clm, Mlm, Mlm]);
    /// ```
    pub fn pattern(&self) -> Vec<Objective> {
        let weights = match self {
            What::One(objective) => return vec![*objective],
            What::Mix(weights) => weights,
        };
        let total: i64 = weights.iter().map(|&(_, weight)| i64::from(weight)).sum();
        let mut credits = vec![0; weights.len()];
        let mut pattern = Vec::new();
        for _ in 0..total {
            let mut best = 0;
            for (i, &(_, weight)) in weights.iter().enumerate() {
                credits[i] += i64::from(weight);
                if credits[i] > credits[best] {
                    best = i;
                }
            }
            credits[best] -= total;
            pattern.push(weights[best].0);
        }
        pattern
    }

    /// The objectives that occur, in the order given.
    pub fn objectives(&self) -> Vec<Objective> {
        match self {
            What::One(objective) => vec![*objective],
            What::Mix(weights) => weights.iter().map(|&(objective, _)| objective).collect(),
        }
    }
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// [`Error::Schedule`] with the position of the character where it goes wrong.
    pub fn parse(text: &str) -> Result<Schedule> {
        let mut parser = Parser { text, chars: text.chars().collect(), at: 0 };
        let (items, _) = parser.sched(0)?;
        match parser.peek() {
            None => Ok(Schedule { items }),
            Some(')') => Err(parser.error("this bracket closes nothing")),
            Some(_) => Err(parser.error("expected `+` or the end")),
        }
    }

    /// The schedule without brackets: its blocks in the order in which they are trained.
    pub fn blocks(&self) -> Vec<Block> {
        fn collect(items: &[Item], blocks: &mut Vec<Block>) {
            for item in items {
                match item {
                    Item::Block(block) => blocks.push(block.clone()),
                    // Depth and number of blocks were bounded when the schedule was parsed.
                    Item::Repeat { times, items } => (0..*times).for_each(|_| collect(items, blocks)),
                }
            }
        }
        let mut blocks = Vec::new();
        collect(&self.items, &mut blocks);
        blocks
    }

    /// The objectives that occur anywhere in it, sorted.
    pub fn objectives(&self) -> Vec<Objective> {
        let mut all: Vec<Objective> = self.blocks().iter().flat_map(|block| block.what.objectives()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl TryFrom<String> for Schedule {
    type Error = Error;
    fn try_from(text: String) -> Result<Schedule> {
        Schedule::parse(&text)
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> String {
        schedule.to_string()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write_items(&self.items, f)
    }
}

fn write_items(items: &[Item], f: &mut fmt::Formatter) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(" + ")?;
        }
        match item {
            Item::Block(block) => write!(f, "{block}")?,
            Item::Repeat { times, items } => {
                write!(f, "{times}x(")?;
                write_items(items, f)?;
                f.write_str(")")?;
            }
        }
    }
    Ok(())
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.amount, self.what)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Amount::Epochs(n) => write!(f, "{n}"),
            Amount::Words(n) if n % 1_000_000 == 0 => write!(f, "{}Mw", n / 1_000_000),
            Amount::Words(n) => write!(f, "{}kw", n / 1000),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            What::One(objective) => write!(f, "{objective}"),
            What::Mix(weights) => {
                f.write_str("mix(")?;
                for (i, (objective, weight)) in weights.iter().enumerate() {
                    write!(f, "{}{objective}:{weight}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
        }
    }
}

/// What a piece of a schedule expands to; bounded at every bracket, so that it can never overflow.
#[derive(Clone, Copy, Default)]
struct Size {
    blocks: u64,
    epochs: u64,
    words: u64,
}

impl Size {
    /// `self + times * other`, or what it has too much of.
    fn add(self, times: u64, other: Size) -> std::result::Result<Size, String> {
        let sum = |a: u64, b: u64, limit: u64, what: &str| {
            let n = times.checked_mul(b).and_then(|n| n.checked_add(a)).filter(|&n| n <= limit);
            n.ok_or_else(|| format!("too many {what}: a schedule has at most {limit}"))
        };
        Ok(Size {
            blocks: sum(self.blocks, other.blocks, MAX_BLOCKS, "blocks")?,
            epochs: sum(self.epochs, other.epochs, MAX_EPOCHS, "epochs")?,
            words: sum(self.words, other.words, MAX_WORDS, "words")?,
        })
    }
}

struct Parser<'a> {
    text: &'a str,
    chars: Vec<char>,
    /// Index of the next character.
    at: usize,
}

impl Parser<'_> {
    fn error_at(&self, index: usize, what: impl Into<String>) -> Error {
        Error::Schedule { text: self.text.to_owned(), at: index + 1, what: what.into() }
    }

    fn error(&self, what: impl Into<String>) -> Error {
        self.error_at(self.at, what)
    }

    /// Skips spaces; the next character, if there is one.
    fn peek(&mut self) -> Option<char> {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace() || *c == '_') {
            self.at += 1;
        }
        self.chars.get(self.at).copied()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: char) -> Result<()> {
        if self.eat(wanted) { Ok(()) } else { Err(self.error(format!("expected `{wanted}`"))) }
    }

    /// A whole number of at least 1.
    fn number(&mut self, what: &str) -> Result<u64> {
        self.peek();
        let start = self.at;
        let mut value = Some(0u64);
        while let Some(digit) = self.chars.get(self.at).and_then(|c| c.to_digit(10)) {
            value = value.and_then(|v| v.checked_mul(10)?.checked_add(u64::from(digit)));
            self.at += 1;
        }
        match value {
            _ if self.at == start => Err(self.error(format!("expected {what}"))),
            None => Err(self.error_at(start, "this number is too large")),
            Some(0) => Err(self.error_at(start, "must be at least 1")),
            Some(value) => Ok(value),
        }
    }

    /// The letters from here on, in lower case, and the index of the first.
    fn word(&mut self) -> (String, usize) {
        self.peek();
        let start = self.at;
        while self.chars.get(self.at).is_some_and(|c| c.is_alphabetic()) {
            self.at += 1;
        }
        (self.chars[start..self.at].iter().flat_map(|c| c.to_lowercase()).collect(), start)
    }

    fn objective(&self, (word, at): &(String, usize), or: &str) -> Result<Objective> {
        match word.as_str() {
            "clm" => Ok(Objective::Clm),
            "mlm" => Ok(Objective::Mlm),
            "mntp" => Ok(Objective::Mntp),
            "" => Err(self.error_at(*at, format!("expected an objective: clm, mlm or mntp{or}"))),
            _ => {
                let near = crate::suggest::did_you_mean(word, ["clm", "mlm", "mntp"]);
                Err(self.error_at(*at, format!("unknown objective `{word}`: clm, mlm or mntp{or}{near}")))
            }
        }
    }

    fn sched(&mut self, depth: usize) -> Result<(Vec<Item>, Size)> {
        let mut items = Vec::new();
        let mut size = Size::default();
        loop {
            if self.peek().is_none() {
                let what = if depth == 0 && items.is_empty() { "empty schedule: " } else { "" };
                return Err(self.error(format!("{what}expected a number")));
            }
            let start = self.at;
            let (item, times, part) = self.item(depth)?;
            size = size.add(times, part).map_err(|what| self.error_at(start, what))?;
            items.push(item);
            if !self.eat('+') {
                return Ok((items, size));
            }
        }
    }

    /// An item, and how often what size is to be added for it.
    fn item(&mut self, depth: usize) -> Result<(Item, u64, Size)> {
        let n = self.number("a number")?;
        let mut word = self.word();
        if word.0 == "x" {
            if depth == MAX_DEPTH {
                return Err(self.error_at(word.1, format!("brackets nest deeper than {MAX_DEPTH}")));
            }
            self.expect('(')?;
            let (items, size) = self.sched(depth + 1)?;
            self.expect(')')?;
            return Ok((Item::Repeat { times: n, items }, n, size));
        }
        let unit = match word.0.as_str() {
            "kw" => Some(1000),
            "mw" => Some(1_000_000),
            "w" => return Err(self.error_at(word.1, "words come in thousands (kw) or millions (Mw)")),
            _ => None,
        };
        let (amount, size) = match unit {
            None => (Amount::Epochs(n), Size { blocks: 1, epochs: n, words: 0 }),
            Some(unit) => {
                // A product that overflows is above every bound.
                let words = n.saturating_mul(unit);
                word = self.word();
                (Amount::Words(words), Size { blocks: 1, epochs: 0, words })
            }
        };
        let what = if word.0 == "mix" {
            What::Mix(self.mix()?)
        } else {
            What::One(self.objective(&word, if unit.is_some() { ", or mix(…)" } else { ", mix(…), kw, Mw or x(…)" })?)
        };
        Ok((Item::Block(Block { amount, what }), 1, size))
    }

    fn mix(&mut self) -> Result<Vec<(Objective, u32)>> {
        self.expect('(')?;
        let (mut weights, mut total) = (Vec::new(), 0u64);
        loop {
            let word = self.word();
            let objective = self.objective(&word, "")?;
            if weights.iter().any(|&(other, _)| other == objective) {
                return Err(self.error_at(word.1, format!("`{objective}` stands in this mix already")));
            }
            self.expect(':')?;
            self.peek();
            let start = self.at;
            let weight = self.number("a weight")?;
            total = total.saturating_add(weight);
            if total > MAX_WEIGHT {
                return Err(self.error_at(start, format!("the weights of a mix add up to at most {MAX_WEIGHT}")));
            }
            // At most MAX_WEIGHT, so it fits.
            weights.push((objective, weight as u32));
            if !self.eat(',') {
                self.expect(')')?;
                return Ok(weights);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn failure(text: &str) -> (usize, String) {
        match Schedule::parse(text) {
            Err(Error::Schedule { at, what, text: quoted }) if quoted == text => (at, what),
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn spellings() {
        for (text, canonical) in [
            ("4_CLM + 16_MLM + 4_CLM", "4 clm + 16 mlm + 4 clm"),
            ("1clm+4  Mntp", "1 clm + 4 mntp"),
            ("3x(1 mlm + 1 clm)", "3x(1 mlm + 1 clm)"),
            ("2 X (2 x (1 mlm))", "2x(2x(1 mlm))"),
            ("500kW clm + 10_Mw mlm", "500kw clm + 10Mw mlm"),
            ("2000kw clm", "2Mw clm"),
            ("5 mix( clm :1,MLM: 7 )", "5 mix(clm:1, mlm:7)"),
            ("007 clm", "7 clm"),
        ] {
            assert_eq!(Schedule::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn expansion() {
        let blocks = Schedule::parse("2x(1 mlm + 2x(300kw clm))").unwrap().blocks();
        let text: Vec<String> = blocks.iter().map(Block::to_string).collect();
        assert_eq!(text, ["1 mlm", "300kw clm", "300kw clm", "1 mlm", "300kw clm", "300kw clm"]);
    }

    #[test]
    fn errors_point_at_the_character() {
        for (text, at, part) in [
            ("", 1, "empty schedule"),
            ("  ", 3, "empty schedule"),
            ("0 clm", 1, "at least 1"),
            ("4 clm + 0 mlm", 9, "at least 1"),
            ("4 nsp", 3, "unknown objective `nsp`"),
            ("4", 2, "expected an objective"),
            ("clm", 1, "expected a number"),
            ("4 clm +", 8, "expected a number"),
            ("4 clm 4 mlm", 7, "expected `+`"),
            ("4 clm)", 6, "closes nothing"),
            ("2x(4 clm", 9, "expected `)`"),
            ("2x()", 4, "expected a number"),
            ("2x 4 clm", 4, "expected `(`"),
            ("1.5 clm", 2, "expected an objective"),
            ("5w clm", 2, "kw"),
            ("5kw", 4, "expected an objective"),
            ("1 mix()", 7, "expected an objective"),
            ("1 mix(clm)", 10, "expected `:`"),
            ("1 mix(clm:0)", 11, "at least 1"),
            ("1 mix(clm:1, clm:2)", 14, "already"),
            ("1 mix(clm:1, mlm:99999)", 18, "weights"),
            ("1 mix(clm:1", 12, "expected `)`"),
            ("99999999999999999999 clm", 1, "too large"),
            ("1 clm + 2000000 clm", 9, "too many epochs"),
            ("1x(1 clm + 18446744073709551615Mw clm)", 12, "too many words"),
            ("1000x(1000x(1000x(1 clm)))", 7, "too many blocks"),
            ("4 ⅏lm é", 3, "expected an objective"),
            ("日本", 1, "expected a number"),
            ("4 日本", 3, "unknown objective"),
        ] {
            let (found, what) = failure(text);
            assert!(found == at && what.contains(part), "{text:?}: character {found}: {what}");
        }
    }

    #[test]
    fn hostile_nesting_is_refused_cheaply() {
        assert!(failure(&"1x(".repeat(1_000_000)).1.contains("deeper"));
        assert!(failure(&format!("{}1 clm", "1 clm+".repeat(20_000))).1.contains("too many blocks"));
        let deep = format!("{}1 clm{}", "1x(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH));
        assert_eq!(Schedule::parse(&deep).unwrap().blocks().len(), 1);
    }

    #[test]
    fn mixes_are_smooth() {
        use Objective::{Clm, Mlm, Mntp};
        let pattern = What::Mix(vec![(Clm, 1), (Mlm, 7)]).pattern();
        assert_eq!(pattern.iter().filter(|&&o| o == Clm).count(), 1);
        assert_eq!(What::Mix(vec![(Clm, 1), (Mlm, 1), (Mntp, 2)]).pattern(), [Mntp, Clm, Mlm, Mntp]);
    }

    fn objective() -> impl Strategy<Value = Objective> {
        prop_oneof![Just(Objective::Clm), Just(Objective::Mlm), Just(Objective::Mntp)]
    }

    fn item() -> impl Strategy<Value = Item> {
        let amount =
            prop_oneof![(1u64..50).prop_map(Amount::Epochs), (1u64..5000).prop_map(|n| Amount::Words(n * 1000))];
        let mix = (1u32..9, 1u32..9, 1u32..9, 2usize..4).prop_map(|(a, b, c, n)| {
            What::Mix(vec![(Objective::Mlm, a), (Objective::Clm, b), (Objective::Mntp, c)][..n].to_vec())
        });
        let what = prop_oneof![objective().prop_map(What::One), mix];
        let block = (amount, what).prop_map(|(amount, what)| Item::Block(Block { amount, what }));
        block.prop_recursive(3, 12, 3, |inner| {
            (1u64..4, prop::collection::vec(inner, 1..4)).prop_map(|(times, items)| Item::Repeat { times, items })
        })
    }

    proptest! {
        #[test]
        fn round_trip(items in prop::collection::vec(item(), 1..5)) {
            let schedule = Schedule { items };
            let text = schedule.to_string();
            prop_assert_eq!(&Schedule::parse(&text).unwrap(), &schedule);
            prop_assert_eq!(&Schedule::parse(&text.to_uppercase().replace(' ', "_")).unwrap(), &schedule);
        }

        #[test]
        fn any_text_is_answered(text in "[0-9xclmntpkKMwi(): ,+_é]{0,40}") {
            match Schedule::parse(&text) {
                Ok(schedule) => prop_assert!(!schedule.blocks().is_empty()),
                Err(Error::Schedule { at, .. }) => prop_assert!(at >= 1 && at <= text.chars().count() + 1),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
