//! The files of words and norms, what is asked of the model, and curves whose answers are known.

use super::*;
use crate::text::special::{CLS, Family};

fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn words_are_read_in_the_order_of_the_file() {
    let text =
        r#"{"zoo": [{"context": "in the "}, {"context": "", "source": "x"}], "a": [{"context": "see"}], "ape": []}"#;
    let (_folder, path) = file("cdi_childes.json", text);
    let words = read(&path, None).unwrap();
    // A word of one character is left out.
    assert_eq!(words.iter().map(|word| &word.word[..]).collect::<Vec<_>>(), ["zoo", "ape"]);
    assert_eq!((words[0].contexts.clone(), words[1].contexts.len()), (vec!["in the ".to_owned(), String::new()], 0));
    assert_eq!(read(&path, Some(1)).unwrap()[0].contexts, ["in the "]);
    for (text, what) in [
        ("", "line 1"),
        ("[]", "an object of words"),
        ("{\"a\": []}", "no word has a context"),
        ("{\"ab\": [{\"context\": 3}]}", "column 21"),
        ("{\n\"ab\": [{\"contexts\": \"x\"}]}", "line 2"),
        ("{\"ab\": [{\"context\": \"x\"}], \"ab\": []}", "twice"),
        ("{\" \": [{\"context\": \"x\"}]}", "is no word"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = read(&path, None).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("cdi_childes.json"), "{error}");
    }
}

#[test]
fn the_word_is_asked_for_behind_its_context() {
    let tokenizer = Tokenizer::train(["the cat sat on the mat and the hat"; 9], 300, 2, Family::LtgBert).unwrap();
    let asked = |context: &str, word: &str| {
        let request = request(context, word, Backend::Mlm, &tokenizer).unwrap();
        assert_eq!(request.ids[0], CLS);
        let name = |&place: &u32| tokenizer.token(request.ids[place as usize]).unwrap().to_owned();
        (request.ids.len(), request.scored.iter().map(name).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(asked(" the cat  ", "sat "), (4, "Ġsat".into()));
    assert_eq!(asked("", "cat").1, "Ġcat");
    // Several tokens add up.
    assert!(asked("the", "tac").1.split(' ').count() > 1);
}

const HEADER: &str = "word,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30";

fn row(word: &str, share: impl Fn(f64) -> f64) -> String {
    let shares: Vec<String> = AGES.map(|age| format!("{:.6}", share(f64::from(age)))).collect();
    format!("{word},{}\n", shares.join(","))
}

#[test]
fn children_say_a_word_where_half_of_them_do() {
    let curve = |c: f64| move |age: f64| 0.95 / (1.0 + (-0.4 * (age - c)).exp()) + 0.01;
    let rows = [
        row("ball", curve(20.0)),
        row("dog", curve(24.5)),
        row("never", |_| 0.1),
        row("always", |_| 0.9),
        row("dog", curve(17.0)),
    ];
    let (_folder, path) = file("cdi_human.csv", &format!("{HEADER}\n{}gap{}\n", rows.concat(), ",".repeat(15)));
    let norms = Norms::read(&path).unwrap();
    let expected = |c: f64| c - (0.95f64 / (0.5 - 0.01) - 1.0).ln() / 0.4;
    assert!((norms.age("ball").unwrap() - expected(20.0)).abs() < 1e-3);
    assert!((norms.age("dog").unwrap() - expected(24.5)).abs() < 1e-3, "the first of two rows counts");
    for word in ["never", "always", "gap", "cat"] {
        assert_eq!(norms.age(word), None, "{word}");
    }
    for (text, what) in [
        ("", "no column \"word\""),
        ("word,age\n", "no column for any age"),
        (&format!("{HEADER}\n{}", row("x", |_| 0.5).replacen("0.5", "half", 1))[..], "line 2"),
        (
            &format!("{HEADER}\n{}", row("x", |_| 0.5).replacen("0.500000", "NaN", 1))[..],
            "line 2: the share at 16 months is \"NaN\"",
        ),
        (&format!("{HEADER}\n{}", row("x", |_| 0.5).replacen("0.5", "half", 1)).replace('\n', "\r\n")[..], "line 2"),
        (&format!("{HEADER}\nx,1\n")[..], "line"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Norms::read(&path).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("cdi_human.csv"), "{error}");
    }
}

/// Surprisal falls from `high` to `low`, half of it at 10^c words.
fn surprisal(high: f64, low: f64, c: f64) -> Vec<(u64, f64)> {
    let curve = Sigmoid { a: high - low, b: 3.0, c, d: -high };
    (1..=19)
        .map(|i| if i < 10 { i * 1_000_000 } else { (i - 9) * 10_000_000 })
        .map(|words| (words, -curve.at((words as f64 + 1.0).log10())))
        .collect()
}

#[test]
fn a_model_has_learnt_a_word_where_its_curve_is_half_way() {
    let points = surprisal(20.0, 3.0, 6.9);
    let least = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let threshold = (300_000f64.log2() + least) / 2.0;
    let learnt = learnt(&points).unwrap();
    // There the curve has the threshold.
    let curve = Sigmoid { a: 17.0, b: 3.0, c: 6.9, d: -20.0 };
    assert!((curve.at(learnt) + threshold).abs() < 1e-3, "{learnt}");
    // Never as sure as that, sure from the start, and too few points.
    assert_eq!(super::learnt(&surprisal(19.0, 15.0, 6.9).iter().map(|p| (p.0, p.1 + 20.0)).collect::<Vec<_>>()), None);
    assert_eq!(super::learnt(&surprisal(5.0, 1.0, 6.9)), None);
    assert_eq!(super::learnt(&points[..2]), None);
}

/// Noisy points; the answers are those of scipy 1.17's `curve_fit` with the official script's starts and bounds.
#[test]
fn noisy_curves_as_scipy_fits_them() {
    let noise = |i: usize| ((i * 7919 + 13) % 101) as f64 / 101.0 - 0.5;
    for (c, size, answer) in
        [(21.0, 0.1, 21.225675924588508), (27.0, 0.2, 27.59304120868109), (17.5, 0.1, 17.81173233313656)]
    {
        let share = |age: f64| 0.9 / (1.0 + (-0.35 * (age - c)).exp()) + 0.02 + size * noise(age as usize - 16);
        let shares = AGES.map(|age| Some(share(f64::from(age)))).collect();
        let norms = Norms { ages: AGES.map(f64::from).collect(), shares: BTreeMap::from([("x".into(), shares)]) };
        let age = norms.age("x").unwrap();
        assert!((age - answer).abs() < 1e-4, "{age} {answer}");
    }
    for (high, low, c, size, answer) in [
        (14.0, 5.0, 6.8, 1.0, Some(6.405906973279199)),
        (12.0, 7.0, 7.2, 2.0, None),
        (16.0, 3.0, 6.3, 1.5, Some(6.179289703883646)),
    ] {
        let marks = (1..=19u64).map(|i| if i < 10 { i * 1_000_000 } else { (i - 9) * 10_000_000 });
        let points: Vec<(u64, f64)> = marks
            .enumerate()
            .map(|(i, words)| {
                let x = (words as f64 + 1.0).log10();
                (words, high - (high - low) / (1.0 + (-2.5 * (x - c)).exp()) + size * noise(i))
            })
            .collect();
        match (learnt(&points), answer) {
            (Some(found), Some(answer)) => assert!((found - answer).abs() < 1e-4, "{found} {answer}"),
            (found, answer) => assert_eq!(found, answer),
        }
    }
}

#[test]
fn words_that_children_learn_first_are_learnt_first() {
    let names = ["ball", "dog", "shoe", "idea"];
    let rows: String =
        (0..4).map(|i| row(names[i], move |age| 1.0 / (1.0 + (-0.5 * (age - 18.0 - 2.0 * i as f64)).exp()))).collect();
    let (_folder, path) = file("cdi_human.csv", &format!("{HEADER}\n{rows}"));
    let norms = Norms::read(&path).unwrap();
    // Two contexts each, and a word without norms between them.
    let mut words: Vec<Word> =
        names.iter().map(|name| Word { word: (*name).into(), contexts: vec!["x".into(); 2] }).collect();
    words.insert(1, Word { word: "unknown".into(), contexts: vec!["y".into()] });
    let correlation = |order: [f64; 4]| {
        let curves: Vec<_> = order.iter().map(|c| surprisal(20.0, 3.0, *c)).collect();
        let steps: Vec<(u64, Vec<f64>)> = (0..19)
            .map(|step| {
                let mut all: Vec<f64> =
                    curves.iter().flat_map(|curve| [curve[step].1 - 0.1, curve[step].1 + 0.1]).collect();
                all.insert(2, 7.0);
                (curves[0][step].0, all)
            })
            .collect();
        let steps: Vec<(u64, &[f64])> = steps.iter().map(|(words, all)| (*words, &all[..])).collect();
        acquisition(&words, &norms, &steps)
    };
    let same = correlation([6.6, 6.8, 7.0, 7.2]);
    assert_eq!(same.words.iter().map(|(word, ..)| &word[..]).collect::<Vec<_>>(), names);
    assert!(same.correlation > 0.999, "{}", same.correlation);
    assert!(correlation([7.2, 7.0, 6.8, 6.6]).correlation < -0.999);
    // One word has no order.
    let few = acquisition(&words[..1], &norms, &[(1, &[1.0, 1.0]), (2, &[1.0, 1.0]), (3, &[1.0, 1.0])]);
    assert_eq!((few.correlation, few.words.len()), (0.0, 0));
}
