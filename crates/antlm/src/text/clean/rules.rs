//! The rules of the profile `babylm`: plain functions from a line to a line, or from a line to whether it is dropped,
//! and which corpus has which.

use std::borrow::Cow;

use super::{Corpus, Rule, Step};

const fn line(name: &'static str, says: &'static str, change: fn(&str) -> Cow<'_, str>) -> Rule {
    Rule { name, says, step: Step::Line(change) }
}

const fn dropping(name: &'static str, says: &'static str, dropped: fn(&str, Option<&str>) -> bool) -> Rule {
    Rule { name, says, step: Step::Drop(dropped) }
}

const ENCODING: Rule = line("encoding", "repair UTF-8 read as Latin-1; drop control characters", encoding);
const SPACES: Rule = line("spaces", "one space between words, none at the edges", spaces);
const PUNCTUATION: Rule = line("punctuation", "plain quotation marks, dashes and dots", punctuation);
const BRACKETS: Rule = line("brackets", "-LRB- and the like into brackets", brackets);
const CONTRACTIONS: Rule = line("contractions", "join what was split: do n't, we 'll", contractions);
const SPACING: Rule = line("spacing", "no space before .,;:!?) or after (", spacing);
const QUOTES: Rule = line("quotes", "quotation marks that stand alone join their words", quotes);
const CAPITAL: Rule = line("capital", "a capital letter first", capital);
const SPEAKERS: Rule = line("speakers", "drop the speaker's label: *CHI: or A:", speakers);
const COMMENTS: Rule = line("comments", "drop the transcriber's [comments]", comments);
const DASH: Rule = line("dash", "drop the dash that marks a speaker", dash);
const ENTITIES: Rule = line("entities", "&amp; and the like into characters", entities);
const SHOUTING: Rule = line("shouting", "lines in capitals as sentences", shouting);
const CITATIONS: Rule = line("citations", "drop [1] and the like", citations);
const LINKS: Rule = line("links", "[[page|text]] into text", links);
const HEADINGS: Rule = line("headings", "drop the = = = around headings", headings);

const BLANK: Rule = dropping("blank", "drop blank lines", |line, _| line.trim().is_empty());
const BARE: Rule =
    dropping("bare", "drop lines without a letter or digit", |line, _| !line.contains(char::is_alphanumeric));
const REPEATS: Rule =
    dropping("repeats", "drop a line that equals the one before", |line, before| Some(line) == before);
const CREDITS: Rule =
    dropping("credits", "drop lines about subtitles", |line, _| line.to_ascii_lowercase().contains("subtitle"));
const MARKUP: Rule = dropping("markup", "drop lines of mark-up", |line, _| markup(line));
const FILES: Rule = dropping("files", "drop lines with categories, files and images", |line, _| {
    ["[[Category:", "[[File:", "[[Image:"].iter().any(|mark| line.contains(mark))
});
const STUBS: Rule =
    Rule { name: "stubs", says: "drop one-line articles about places, with their title", step: Step::Document(stubs) };

/// A corpus's rules, in order.
pub(super) fn of(corpus: Corpus) -> &'static [Rule] {
    match corpus {
        Corpus::Childes => &[
            ENCODING,
            SPEAKERS,
            COMMENTS,
            PUNCTUATION,
            SPACES,
            CONTRACTIONS,
            SPACING,
            QUOTES,
            CAPITAL,
            BLANK,
            BARE,
            REPEATS,
        ],
        Corpus::BncSpoken => {
            &[ENCODING, PUNCTUATION, SPACES, CONTRACTIONS, SPACING, QUOTES, CAPITAL, BLANK, BARE, REPEATS]
        }
        Corpus::Cbt => &[ENCODING, BRACKETS, PUNCTUATION, SPACES, CONTRACTIONS, SPACING, QUOTES, BLANK],
        Corpus::ChildrenStories | Corpus::Gutenberg => &[ENCODING, SPACES, BLANK],
        Corpus::OpenSubtitles => &[ENCODING, CREDITS, SPACES, DASH, BLANK, REPEATS],
        Corpus::Qed => &[MARKUP, ENTITIES, ENCODING, SPACES, DASH, SHOUTING, BLANK, REPEATS],
        Corpus::SimpleWiki => &[ENTITIES, ENCODING, SPACES, FILES, LINKS, CITATIONS, STUBS, HEADINGS, BLANK],
        Corpus::Wikipedia => &[ENCODING, SPACES, FILES, LINKS, CITATIONS, HEADINGS, BLANK],
        Corpus::Switchboard => &[ENCODING, SPEAKERS, SPACES, DASH, BLANK, REPEATS],
    }
}

/// UTF-8 that was read as Windows-1252 (`donâ€™t`, `cafÃ©`), and characters that nobody sees.
fn encoding(line: &str) -> Cow<'_, str> {
    let unseen = |c: char| c.is_control() && c != '\t' || matches!(c, '\u{ad}' | '\u{200b}' | '\u{feff}');
    if !line.contains(|c: char| matches!(c, 'â' | 'Ã' | 'Â' | 'ï') || unseen(c)) {
        return line.into();
    }
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let (meant, len) = misread(rest).unwrap_or((c, c.len_utf8()));
        if !unseen(meant) {
            out.push(meant);
        }
        rest = &rest[len..];
    }
    out.into()
}

/// The character that a text begins with if it was misread, and the bytes that it takes up now. Only what can hardly
/// be meant is taken for misread: `É”` stands at the end of many a quotation.
fn misread(text: &str) -> Option<(char, usize)> {
    let mut chars = text.chars();
    let (first, second) = (chars.next()?, chars.next()?);
    let at = first.len_utf8() + second.len_utf8();
    match (first, second) {
        // U+0080..U+00FF: two bytes, the second one a character of Latin-1.
        ('Â', '\u{a0}'..='\u{bf}') => Some((second, at)),
        ('Ã', '\u{a0}'..='\u{bf}') => Some((char::from_u32(u32::from(second) + 0x40)?, at)),
        // U+2013..U+2026: three bytes.
        ('â', '€') => {
            let (meant, third) = match chars.next() {
                Some(c @ '“') => ('–', c.len_utf8()),
                Some(c @ '”') => ('—', c.len_utf8()),
                Some(c @ '˜') => ('‘', c.len_utf8()),
                Some(c @ '™') => ('’', c.len_utf8()),
                Some(c @ 'œ') => ('“', c.len_utf8()),
                Some(c @ '\u{9d}') => ('”', c.len_utf8()),
                Some(c @ '¢') => ('•', c.len_utf8()),
                Some(c @ '¦') => ('…', c.len_utf8()),
                // The third byte of a closing quotation mark has no character of its own and is often lost.
                _ => ('”', 0),
            };
            Some((meant, at + third))
        }
        // A byte-order mark.
        ('ï', '»') => chars.next().filter(|&c| c == '¿').map(|c| ('\u{feff}', at + c.len_utf8())),
        _ => None,
    }
}

fn spaces(line: &str) -> Cow<'_, str> {
    let mut before = ' ';
    let clean = line.chars().all(|c| {
        let good = !c.is_whitespace() || c == ' ' && before != ' ';
        before = c;
        good
    });
    if clean && !line.ends_with(' ') {
        return line.into();
    }
    let mut out = String::with_capacity(line.len());
    for word in line.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out.into()
}

/// As Moses's normaliser does for English.
fn punctuation(line: &str) -> Cow<'_, str> {
    let odd =
        |c: char| matches!(c, '‘' | '’' | '‚' | '‛' | '´' | '`' | '“' | '”' | '„' | '‟' | '«' | '»' | '–' | '—' | '…');
    if !line.contains(odd) && !line.contains("''") {
        return line.into();
    }
    let mut out = String::with_capacity(line.len());
    for c in line.replace("``", "\"").replace("''", "\"").chars() {
        match c {
            '‘' | '’' | '‚' | '‛' | '´' | '`' => out.push('\''),
            '“' | '”' | '„' | '‟' | '«' | '»' => out.push('"'),
            '–' => out.push('-'),
            '—' => out.push_str(" - "),
            '…' => out.push_str("..."),
            _ => out.push(c),
        }
    }
    out.into()
}

/// Replaces each of the pairs; borrows when none occurs.
fn replaced<'a>(line: &'a str, pairs: &[(&str, &str)]) -> Cow<'a, str> {
    let mut out = Cow::Borrowed(line);
    for (from, to) in pairs {
        if out.contains(from) {
            out = Cow::Owned(out.replace(from, to));
        }
    }
    out
}

fn brackets(line: &str) -> Cow<'_, str> {
    let pairs = [("-LRB-", "("), ("-RRB-", ")"), ("-LSB-", "["), ("-RSB-", "]"), ("-LCB-", "{"), ("-RCB-", "}")];
    replaced(line, &pairs)
}

fn contractions(line: &str) -> Cow<'_, str> {
    if !line.contains('\'') {
        return line.into();
    }
    let ending = |word: &str| {
        let word = word.trim_end_matches(['.', ',', ';', ':', '!', '?']).to_ascii_lowercase();
        ["n't", "'ll", "'re", "'ve", "'m", "'s", "'d"].contains(&word.as_str())
    };
    // A name that was taken out left its ending behind: `going to 's school`. These words have none of their own.
    let bare = |before: &str| {
        const BARE: [&str; 24] = [
            "a", "an", "the", "my", "your", "our", "their", "and", "or", "but", "if", "because", "than", "of", "to",
            "from", "with", "for", "at", "by", "in", "on", "into", "about",
        ];
        BARE.contains(&before.to_ascii_lowercase().as_str())
    };
    let mut out = String::with_capacity(line.len());
    let mut before = "";
    for (i, word) in line.split(' ').enumerate() {
        let joins = ending(word) && out.ends_with(char::is_alphabetic) && !bare(before);
        before = word;
        if i > 0 && !joins {
            out.push(' ');
        }
        out.push_str(word);
    }
    out.into()
}

fn spacing(line: &str) -> Cow<'_, str> {
    let mut out = String::with_capacity(line.len());
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ' ' {
            let mut ahead = rest.clone();
            let closes = ahead.next().is_some_and(|c| matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | ')' | ']' | '}'));
            // ` .5` and `:-)` are no ends of a sentence.
            let ends = ahead.next().is_none_or(|c| !c.is_alphanumeric() && c != '-');
            if closes && ends || out.ends_with(['(', '[', '{']) {
                continue;
            }
        }
        out.push(c);
    }
    out.into()
}

/// Only where it is plain which marks open and which close: an even number, all of them between spaces.
fn quotes(line: &str) -> Cow<'_, str> {
    let words: Vec<&str> = line.split(' ').collect();
    let marks = words.iter().filter(|&&word| word == "\"").count();
    if marks == 0 || marks % 2 == 1 || line.matches('"').count() != marks {
        return line.into();
    }
    let mut out = String::with_capacity(line.len());
    let (mut open, mut joined) = (false, true);
    for word in words {
        let mark = word == "\"";
        if !(joined || mark && open) {
            out.push(' ');
        }
        out.push_str(word);
        joined = mark && !open;
        open ^= mark;
    }
    out.into()
}

fn capital(line: &str) -> Cow<'_, str> {
    match line.chars().next().filter(|c| c.is_lowercase()) {
        Some(first) => first.to_uppercase().chain(line[first.len_utf8()..].chars()).collect::<String>().into(),
        None => line.into(),
    }
}

/// `*MOT:` of CHILDES, `A:` of Switchboard.
fn speakers(line: &str) -> Cow<'_, str> {
    let Some((label, speech)) = line.split_once(':') else { return line.into() };
    let code = |code: &str| code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let childes = label.strip_prefix('*').is_some_and(|name| (1..=7).contains(&name.len()) && code(name));
    let switchboard = matches!(label, "A" | "B");
    if (childes || switchboard) && (speech.is_empty() || speech.starts_with(char::is_whitespace)) {
        return speech.trim_start().into();
    }
    line.into()
}

/// What `change` makes of the insides of `open … close`, brackets included.
fn between<'a>(line: &'a str, open: &str, close: &str, change: impl Fn(&'a str) -> &'a str) -> Cow<'a, str> {
    if !line.contains(open) {
        return line.into();
    }
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(open) {
        let inside = &rest[at + open.len()..];
        let Some(len) = inside.find(close) else { break };
        out.push_str(&rest[..at]);
        out.push_str(change(&inside[..len]));
        rest = &inside[len + close.len()..];
    }
    out.push_str(rest);
    out.into()
}

fn comments(line: &str) -> Cow<'_, str> {
    between(line, "[", "]", |_| "")
}

fn citations(line: &str) -> Cow<'_, str> {
    if !line.contains('[') {
        return line.into();
    }
    let mut out = String::with_capacity(line.len());
    let mut parts = line.split('[');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        // Not `split_once(']')`: it would look for the end of every bracket in the rest of the line.
        let digits = part.bytes().take(4).take_while(u8::is_ascii_digit).count();
        match part[digits..].strip_prefix(']') {
            Some(rest) if (1..=3).contains(&digits) => out.push_str(rest),
            _ => {
                out.push('[');
                out.push_str(part);
            }
        }
    }
    out.into()
}

fn links(line: &str) -> Cow<'_, str> {
    between(line, "[[", "]]", |inside| inside.rsplit_once('|').map_or(inside, |(_, text)| text))
}

fn dash(line: &str) -> Cow<'_, str> {
    match line.strip_prefix('-') {
        Some(rest) if !rest.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => rest.trim_start().into(),
        _ => line.into(),
    }
}

fn entities(line: &str) -> Cow<'_, str> {
    let mut out = Cow::Borrowed(line);
    // Some were escaped again and again.
    for _ in 0..3 {
        if !out.contains('&') {
            break;
        }
        let pairs = [
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&quot;", "\""),
            ("&apos;", "'"),
            ("&#39;", "'"),
            ("&nbsp;", " "),
            ("&amp;", "&"),
        ];
        out = replaced(&out, &pairs).into_owned().into();
    }
    out
}

fn markup(line: &str) -> bool {
    line.contains("&lt") && line.contains("&gt")
        || line.contains("->")
        || line.trim_end().ends_with(':') && !line.contains(char::is_alphabetic)
}

/// Lines of which half the letters or more are capitals: an `l` among them is an I read wrongly, and the rest is
/// written as sentences are.
fn shouting(line: &str) -> Cow<'_, str> {
    let letters = line.chars().filter(|c| c.is_alphabetic()).count();
    let capitals = line.chars().filter(|c| c.is_uppercase()).count();
    if letters < 2 || 2 * capitals < letters {
        return line.into();
    }
    let lower = line.replace('l', "I").to_lowercase();
    let mut out = String::with_capacity(lower.len());
    let mut begins = true;
    for (i, word) in lower.split(' ').enumerate() {
        if i > 0 {
            out.push(' ');
        }
        let i_am = word.strip_prefix('i').is_some_and(|rest| !rest.starts_with(char::is_alphanumeric));
        match word.find(char::is_alphabetic).filter(|&at| begins || i_am && at == 0) {
            Some(at) => {
                out.push_str(&word[..at]);
                out.push_str(&capital(&word[at..]));
            }
            None => out.push_str(word),
        }
        begins = (begins && !word.contains(char::is_alphabetic))
            || word.trim_end_matches(['"', '\'', ')']).ends_with(['.', '!', '?']);
    }
    out.into()
}

fn headings(line: &str) -> Cow<'_, str> {
    let edge = |c: char| c == '=' || c.is_whitespace();
    let inner = line.trim_matches(edge);
    if line.trim().len() > inner.len()
        && line.trim().starts_with('=')
        && line.trim().ends_with('=')
        && !inner.is_empty()
    {
        return inner.into();
    }
    line.into()
}

/// Articles of fewer than 128 characters that a program wrote about places.
fn stubs(document: &str) -> String {
    const SHORT: usize = 128;
    const PHRASES: [&str; 6] = [
        "is a commune. It is",
        "is a commune found",
        "is a city in",
        "is a village in",
        "is a municipality in",
        "is a town in",
    ];
    let title = |line: &str| line.trim().starts_with("= = = ");
    let mut kept: Vec<&str> = Vec::new();
    let lines: Vec<&str> = document.split('\n').collect();
    let mut from = 0;
    while from < lines.len() {
        // An article: its title, if it has one, and the lines up to the next.
        let to = (from + 1..lines.len()).find(|&i| title(lines[i])).unwrap_or(lines.len());
        let (article, body) = (&lines[from..to], &lines[from + 1..to]);
        let length: usize = body.iter().map(|line| line.trim().chars().count()).sum();
        let stub = title(lines[from])
            && length < SHORT
            && body.iter().any(|line| PHRASES.iter().any(|phrase| line.contains(phrase)));
        if !stub {
            kept.extend(article);
        }
        from = to;
    }
    kept.join("\n")
}
