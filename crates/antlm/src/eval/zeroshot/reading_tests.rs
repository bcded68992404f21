//! The file of reading times, the chain of a word's parts, and what surprisal explains of times that depend on it.

use super::*;
use crate::text::special::{CLS, Family};

const HEADER: &str = ",item,word,Subtlex_log10,length,context_length,RTfirstfix,RTfirstpass,RTgopast,RTrightbound,\
                      self_paced_reading_time,prev_word,prev_item,prev_length,N400";

fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reading_data.csv");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn rows_are_read_by_the_names_of_their_columns() {
    let rows = "0,\"Good God, if\",you,4.5,3,3,1,2,3,4,5,if,\"Good God,\",2,0.1\n1,,Good,,4,0,1,2,3,4,5,,,,x\n";
    let (_folder, path) = file(&format!("{HEADER}\n{rows}"));
    let words = read(&path, None).unwrap();
    assert_eq!((&words[0].before[..], &words[0].word[..]), ("Good God, if", "you"));
    assert_eq!(words[0].previous, Some(("Good God,".into(), "if".into())));
    assert_eq!(words[0].predictors, [Some(4.5), Some(3.0), Some(3.0), Some(2.0)]);
    assert_eq!((&words[1].before[..], &words[1].previous), ("None", &None));
    assert_eq!(words[1].predictors, [None, Some(4.0), Some(0.0), None]);
    assert_eq!(words[1].measures, [1.0, 2.0, 3.0, 4.0, 5.0].map(Some));
    assert_eq!(read(&path, Some(1)).unwrap().len(), 1);
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let row = "0,a,b,1,2,3,4,5,6,7,8,c,d,9,0\n";
    let says = |text: &str, what: &[&str]| {
        let (_folder, path) = file(text);
        let error = read(&path, None).unwrap_err().to_string();
        assert!(what.iter().all(|what| error.contains(what)) && error.contains("reading_data.csv"), "{error}");
    };
    says("", &["line"]);
    says(&format!("{HEADER}\n"), &["no rows"]);
    says(&format!("{}\n{row}", HEADER.replace("prev_length", "length_prev")), &["line 2", "prev_length"]);
    says(&format!("{HEADER}\n{row}{}", row.replace(",4,", ",four,")), &["line 3", "RTfirstfix", "four"]);
    says(&format!("{HEADER}\n{row}{}", row.replace(",4,", ",inf,")), &["line 3", "RTfirstfix"]);
    says(&format!("{HEADER}\n{row}{}", row.replace(",4,", ",NaN,")), &["line 3", "RTfirstfix", "NaN"]);
    says(&format!("{HEADER}\n{row}{}", row.replace(",8,", ",,")), &["line 3", "self_paced"]);
    says(&format!("{HEADER}\n{row}1,2\n"), &["line 3"]);
    // As Excel and Python's csv end their lines.
    for text in
        [format!("{HEADER}\n{row}{row}{}{row}", row.replace(",4,", ",four,")), format!("{HEADER}\n{row}{row}1,2\n")]
    {
        says(&text, &["line 4"]);
        says(&text.replace('\n', "\r\n"), &["line 4"]);
    }
    says(&format!("{HEADER}\n{row}{}", row.replace(",b,", ",,")), &["line 3", "no word"]);
    let (_folder, path) = file("");
    std::fs::write(&path, [HEADER.as_bytes(), b"\n0,a\xff,b,1,2,3,4,5,6,7,8,c,d,9,0\n"].concat()).unwrap();
    assert!(read(&path, None).unwrap_err().to_string().contains("UTF-8"));
    assert!(read(Path::new("not/there.csv"), None).unwrap_err().to_string().contains("not/there.csv"));
}

#[test]
fn a_word_of_several_tokens_is_a_chain_of_strings() {
    let tokenizer = Tokenizer::train(["the cat sat"; 9], 300, 2, Family::LtgBert).unwrap();
    let id = |name: &str| (0..300).find(|&id| tokenizer.token(id) == Some(name)).unwrap();
    let (the, cat, sat) = (id("Ġthe"), id("Ġcat"), id("Ġsat"));
    let one = requests("the cat", "sat", Backend::Causal, &tokenizer).unwrap();
    assert_eq!(one, [Request { ids: vec![CLS, the, cat, sat], scored: vec![3] }]);
    let one = requests("the", "cat", Backend::Mlm, &tokenizer).unwrap();
    assert_eq!(one, [Request { ids: vec![CLS, the, cat, MASK, MASK], scored: vec![2] }]);
    // "cat" and ",": the second part is read as " ," whose first token is a space's.
    let two = requests("the", "cat,", Backend::Causal, &tokenizer).unwrap();
    assert_eq!(two[0], Request { ids: vec![CLS, the, cat], scored: vec![2] });
    let space = tokenizer.encode(",").unwrap()[0];
    assert_eq!(two[1..], [Request { ids: vec![CLS, the, cat, space], scored: vec![3] }]);
}

#[test]
fn surprisal_explains_times_that_depend_on_it() {
    // Times from the predictors, their products and half of them from surprisal.
    let mut words = Vec::new();
    let (mut surprisal, mut previous) = (Vec::new(), Vec::new());
    let noise = |i: usize, k: usize| ((i as f64 * 12.9898 + k as f64 * 78.233).sin() * 43_758.545_3).fract().abs();
    for i in 0..400 {
        let [frequency, length, place, before, s, p] = [0, 1, 2, 3, 4, 5].map(|k| noise(i, k));
        let time = 3.0 * frequency + length * place - 2.0 * length;
        let with = time + 2.0 * s;
        words.push(Word {
            before: String::new(),
            word: "w".into(),
            previous: None,
            predictors: [Some(frequency), Some(length), Some(place), Some(before)],
            measures: [Some(with), Some(with + noise(i, 6)), Some(time + noise(i, 7)), None, Some(with + p * before)],
        });
        surprisal.push(s);
        previous.push((i > 0).then_some(p));
    }
    let error = explained(&words, &surprisal, &previous).unwrap_err().to_string();
    assert!(error.contains("RTrightbound"), "{error}");
    words.iter_mut().enumerate().for_each(|(i, word)| word.measures[3] = Some(noise(i, 8)));
    let found = explained(&words, &surprisal, &previous).unwrap();
    // All that was left; most of it; nothing; nothing; all.
    assert!((found[0] - 100.0).abs() < 1e-6 && (found[4] - 100.0).abs() < 1e-6, "{found:?}");
    assert!((60.0..95.0).contains(&found[1]) && found[2] < 2.0 && found[3] < 2.0, "{found:?}");
    let few = explained(&words[..4], &surprisal[..4], &previous[..4]).unwrap_err().to_string();
    assert!(few.contains("too few"), "{few}");
}
