//! "Did you mean": the nearest of some known words to one that is not known.

/// Longer words are compared up to here, so that hostile input costs nothing.
const MOST: usize = 100;

/// The candidate that `word` was probably meant to be: at most one letter in three differs (two letters next to each
/// other may be swapped), capitals and `-` for `_` do not count. The first of equally near ones; `None` when none is
/// near.
///
/// ```
/// use antlm::suggest::suggest;
/// assert_eq!(suggest("layer", ["heads", "layers"]), Some("layers"));
/// assert_eq!(suggest("Hidden-Dropout", ["hidden", "hidden_dropout"]), Some("hidden_dropout"));
/// assert_eq!(suggest("colour", ["heads", "layers"]), None);
/// ```
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = letters(word);
    let near = candidates.into_iter().map(|candidate| (distance(&word, &letters(candidate)), candidate));
    let near = near.filter(|(distance, candidate)| *distance <= candidate.chars().count().max(word.len()).div_ceil(3));
    // A word of which no letter is left is not near, however short.
    near.filter(|(distance, _)| *distance < word.len()).min_by_key(|(distance, _)| *distance).map(|(_, near)| near)
}

/// `; did you mean …?`, or nothing.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    suggest(word, candidates).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

fn letters(word: &str) -> Vec<char> {
    word.chars().take(MOST).flat_map(char::to_lowercase).map(|c| if c == '-' { '_' } else { c }).collect()
}

/// How many letters must be changed, added, left out or swapped with their neighbour to make `b` of `a` (optimal string
/// alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            next[j] = change.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                next[j] = next[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expect) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("clm", "cml", 1),
            ("mntp", "mlm", 3),
            ("é", "e", 1),
        ] {
            assert_eq!(distance(&letters(a), &letters(b)), expect, "{a} {b}");
            assert_eq!(distance(&letters(b), &letters(a)), expect, "{b} {a}");
        }
    }

    #[test]
    fn near_words_only() {
        let objectives = ["clm", "mlm", "mntp"];
        assert_eq!(suggest("cml", objectives), Some("clm"));
        assert_eq!(suggest("MLM", objectives), Some("mlm"));
        assert_eq!(suggest("mtnp", objectives), Some("mntp"));
        assert_eq!(suggest("nonsense", objectives), None);
        assert_eq!(suggest("", objectives), None);
        assert_eq!(suggest("x", ["y"]), None);
        assert_eq!(suggest("layer", []), None);
        assert_eq!(suggest(&"x".repeat(1_000_000), objectives), None);
        assert_eq!(did_you_mean("lr", ["lr"]), "; did you mean `lr`?");
    }
}
