//! "Did you mean": the known name that is nearest to a misspelt one.

/// The candidate with the smallest edit distance, the first of equally near ones; nothing, if even that shares too
/// little with `name` to be meant.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let best = candidates.into_iter().map(|candidate| (distance(name, candidate), candidate)).min_by_key(|near| near.0);
    best.filter(|&(changes, candidate)| 2 * changes <= candidate.chars().count()).map(|(_, candidate)| candidate)
}

/// How many characters must be changed, added or left out to make `b` of `a` (Levenshtein).
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_and_nonsense() {
        let names = ["none", "babylm", "babylm:childes"];
        for (given, expect) in [
            ("babyml", Some("babylm")),
            ("babylm:child", Some("babylm:childes")),
            ("nome", Some("none")),
            ("zebra", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, names), expect, "{given}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
