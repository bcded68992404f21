//! Cleaning: the first byte says by the rules of which corpus, the rest is a text.

use antlm::text::clean::{Corpus, clean};

pub fn run(data: &[u8]) -> bool {
    let Some((way, bytes)) = crate::choice(data, Corpus::ALL.len()) else { return false };
    let text = String::from_utf8_lossy(bytes);
    let corpus = Corpus::ALL[way];
    for rule in corpus.rules() {
        bounded(&text, &rule.apply(&text));
    }
    let Some(cleaned) = clean(&text, corpus) else { return false };
    assert!(!cleaned.trim().is_empty());
    bounded(&text, &cleaned);
    // No line is added.
    assert!(cleaned.lines().count() <= text.lines().count());
    if let Some(again) = clean(&cleaned, corpus) {
        bounded(&cleaned, &again);
    }
    true
}

/// A capital letter may take up to three times the bytes of the small one (U+0390), and there is one for each word.
fn bounded(before: &str, after: &str) {
    assert!(after.len() <= 3 * before.len(), "{} bytes became {}: {after:?}", before.len(), after.len());
}

pub fn seeds() -> Vec<Vec<u8>> {
    let text = "*MOT:\t`` do n't \" , she \u{2014} said ( so ) [x] &amp; [[a|b]]\u{2026}\n- A\n= = = T = = =\n\nTHE lAST ONE\n\
                don\u{e2}\u{20ac}\u{2122}t caf\u{c3}\u{a9} -LRB- x -RRB- &#39;tis [1]\nT is a village in B.\nsubtitles by\n<i>x</i>\nA: we 'll";
    (0u8..).zip(Corpus::ALL).map(|(way, _)| [&[way], text.as_bytes()].concat()).collect()
}
