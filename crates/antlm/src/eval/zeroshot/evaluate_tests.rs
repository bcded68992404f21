//! Whole evaluations on pairs of the sample grammar and on small files of other tasks.

use std::fs;

use super::super::find;
use super::*;
use crate::eval::test_models::trained;
use crate::model::Kind;
use crate::text::sample::{self, pairs};

const OPTIONS: Options = Options { set: Set::Full, protocol: Protocol::Y2026, limit: None, again: false };

fn id() -> CheckpointId {
    CheckpointId { name: "step-000000001".into(), step: 1, words: 10, weights: "w".into(), tokenizer: "t".into() }
}

/// A model of random weights in a run's folder of its own.
fn scorer(kind: Kind, run: &Path) -> Scorer {
    let mut trained = trained(kind, "1 clm + 1 mlm");
    trained.run = run.to_owned();
    Scorer::new(trained)
}

fn evaluated(scorer: &mut Scorer, data: &Data, backend: Backend, options: &Options) -> Outcome {
    evaluate(scorer, &id(), data, backend, options, None, &mut |done, of| {
        assert!(done <= of);
        Ok(())
    })
    .unwrap()
}

fn sample_pairs(folder: &Path, each: u32) -> Data {
    pairs::save(&pairs::make(each, 1), folder).unwrap();
    read(&find::find(folder, Task::Pairs, Set::Full).unwrap().unwrap(), None).unwrap()
}

#[test]
fn scores_are_those_of_sentences_alone_and_results_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample_pairs(&folder.path().join("pairs"), 6);
    for kind in [Kind::LtgBert, Kind::Llama] {
        let run = folder.path().join(format!("{kind:?}"));
        let mut scorer = scorer(kind, &run);
        for backend in [Backend::Causal, Backend::Mlm, Backend::Mntp] {
            let first = evaluated(&mut scorer, &data, backend, &OPTIONS);
            assert!(!first.cached && first.path.is_file());
            let mut lines = Vec::new();
            let again =
                evaluate(&mut scorer, &id(), &data, backend, &OPTIONS, Some(&mut lines), &mut |_, _| Ok(())).unwrap();
            assert_eq!((&first.result, again.cached), (&again.result, false));
            assert!(evaluated(&mut scorer, &data, backend, &OPTIONS).cached);
            let mut right = 0;
            let lines = String::from_utf8(lines).unwrap();
            assert_eq!(lines.lines().count() as u64, first.result.n);
            for line in lines.lines() {
                let item: serde_json::Value = serde_json::from_str(line).unwrap();
                let logprobs: Vec<f64> = serde_json::from_value(item["logprobs"].clone()).unwrap();
                for (number, &logprob) in logprobs.iter().enumerate() {
                    let candidate = &item["candidates"][number];
                    let alone = scorer.score(candidate["text"].as_str().unwrap(), backend).unwrap();
                    assert!((alone.total - logprob).abs() < 1e-4, "{kind:?} {backend}: {line}");
                    let tokens = candidate["tokens"].as_array().unwrap().len();
                    assert_eq!(tokens, candidate["logprobs"].as_array().unwrap().len());
                    assert_eq!(tokens, alone.ids.len() - 1);
                }
                right += u64::from(item["winner"] == 0);
            }
            let found: usize = first.result.outcomes.values().map(|o| o.matches(['1', '=']).count()).sum();
            assert_eq!(found as u64, right);
        }
    }
}

/// Other data, weights, protocol or limit is another result; `again` makes it anew; a damaged one is made anew.
#[test]
fn only_the_very_same_is_taken_from_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample_pairs(&folder.path().join("pairs"), 4);
    let mut scorer = scorer(Kind::Llama, &folder.path().join("run"));
    let first = evaluated(&mut scorer, &data, Backend::Causal, &OPTIONS);
    let other = Data { hash: "other".into(), ..data.clone() };
    assert!(!evaluated(&mut scorer, &other, Backend::Causal, &OPTIONS).cached);
    assert!(!evaluated(&mut scorer, &data, Backend::Causal, &OPTIONS).cached);
    let lm_eval = Options { protocol: Protocol::LmEval, ..OPTIONS };
    let second = evaluated(&mut scorer, &data, Backend::Causal, &lm_eval);
    assert!(!second.cached && second.path != first.path);
    assert!(!evaluated(&mut scorer, &data, Backend::Causal, &Options { again: true, ..OPTIONS }).cached);
    assert!(evaluated(&mut scorer, &data, Backend::Causal, &OPTIONS).cached);
    let mut ask = |id: &CheckpointId| {
        evaluate(&mut scorer, id, &data, Backend::Causal, &OPTIONS, None, &mut |_, _| Ok(())).unwrap().cached
    };
    assert!(!ask(&CheckpointId { weights: "others".into(), ..id() }));
    assert!(!ask(&id()) && ask(&id()));
    let text = fs::read_to_string(&first.path).unwrap();
    fs::write(&first.path, &text[..text.len() / 2]).unwrap();
    assert!(!ask(&id()) && ask(&id()));
}

/// Weights that know nothing are right half of the time, for every word of a difference is as often right as wrong.
#[test]
fn random_weights_are_right_half_of_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample_pairs(&folder.path().join("pairs"), 40);
    for kind in [Kind::LtgBert, Kind::Llama] {
        let mut scorer = scorer(kind, &folder.path().join(format!("{kind:?}")));
        for backend in [Backend::Causal, Backend::Mlm] {
            let result = evaluated(&mut scorer, &data, backend, &OPTIONS).result;
            // Two mirrored pairs share their words, so this is no wider than for independent ones: 2.6 deviations.
            let bound = 2.6 * 50.0 / (result.n as f64).sqrt();
            assert!((result.score - 50.0).abs() < bound, "{kind:?} {backend}: {} of {}", result.score, result.n);
        }
    }
}

#[test]
fn every_kind_of_task_comes_to_a_score() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, lines: &[String]| {
        let path = folder.path().join("data").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, lines.join("\n")).unwrap();
    };
    let words: Vec<String> =
        sample::document(7, 0, sample::Part::Test).split_whitespace().take(40).map(str::to_owned).collect();
    let four = |i: usize| [0, 1, 2, 3].map(|k| words[(i + k) % words.len()].clone());
    let lines = |f: &dyn Fn([String; 4], usize) -> String| (0..20).map(|i| f(four(i), i)).collect::<Vec<_>>();
    put(
        "ewok_filtered/water.jsonl",
        &lines(&|[a, b, c, d], _| {
            json!({"Context1": a, "Context2": b, "Target1": c, "Target2": d, "Domain": "water"}).to_string()
        }),
    );
    put(
        "entity_tracking/regular.jsonl",
        &lines(&|[a, b, c, d], i| {
            json!({"input_prefix": format!("{a} "), "options": [b, c, d], "numops": i % 2}).to_string()
        }),
    );
    put(
        "comps/comps_base.jsonl",
        &lines(&|[a, b, c, _], _| {
            json!({"prefix_acceptable": a, "prefix_unacceptable": b, "property_phrase": c}).to_string()
        }),
    );
    put(
        "wug_past_tense/wug_past_tense.jsonl",
        &lines(&|[a, b, ..], i| json!({"sentences": format!("{a}\t{b}"), "ratio": i}).to_string()),
    );
    let header = ",item,word,Subtlex_log10,length,context_length,RTfirstfix,RTfirstpass,RTgopast,RTrightbound,\
                  self_paced_reading_time,prev_word,prev_item,prev_length";
    let mut rows = vec![header.to_owned()];
    rows.extend(lines(&|[a, b, ..], i| {
        let n = |k: usize| (i * 31 + k * 17) % 23;
        let numbers: Vec<String> = (0..8).map(|k| n(k).to_string()).collect();
        format!("{i},\"{a}\",\"{b}\",{},\"{a}\",\"{b} {a}\",{}", numbers.join(","), n(9))
    }));
    put("reading/reading_data.csv", &rows);
    let words = r#"{"cat": [{"context": "see the"}, {"context": "a"}], "cow": [{"context": "the big "}], "I": []}"#;
    put("cdi_childes/cdi_childes.json", &[words.to_owned()]);
    let shares = (16..31).map(|age| format!("{}", f64::from(age - 15) / 16.0)).collect::<Vec<_>>().join(",");
    let ages = (16..31).map(|age| age.to_string()).collect::<Vec<_>>().join(",");
    put("cdi_childes/cdi_human.csv", &[format!("word,{ages}"), format!("cat,{shares}"), format!("cow,{shares}")]);

    let root = folder.path().join("data");
    let mut scorer = scorer(Kind::LtgBert, &folder.path().join("run"));
    let mut tasks = Vec::new();
    for task in Task::ALL {
        let Some(found) = find::find(&root, task, Set::Full).unwrap() else { continue };
        let data = read(&found, None).unwrap();
        for backend in [Backend::Causal, Backend::Mlm, Backend::Mntp] {
            let Outcome { result, path, .. } = evaluated(&mut scorer, &data, backend, &OPTIONS);
            assert!((-100.0..=100.0).contains(&result.score) && result.n >= 3, "{task}: {result:?}");
            assert_eq!(TaskResult::read(&path).unwrap(), result);
        }
        tasks.push(task);
    }
    assert_eq!(tasks, [Task::Ewok, Task::EntityTracking, Task::Comps, Task::WugPast, Task::Reading, Task::Aoa]);

    // The surprisal of a word is that of its tokens in the whole text; its mean is a part, and their mean the score.
    let data = read(&find::find(&root, Task::Aoa, Set::Full).unwrap().unwrap(), None).unwrap();
    let mut lines = Vec::new();
    let again = Options { again: true, ..OPTIONS };
    let result = evaluate(&mut scorer, &id(), &data, Backend::Causal, &again, Some(&mut lines), &mut |_, _| Ok(()));
    let mut result = result.unwrap().result;
    let alone = |scorer: &mut Scorer, context: &str, text: &str| {
        let score = |scorer: &mut Scorer, text: &str| scorer.score(text, Backend::Causal).unwrap().total;
        score(scorer, context) - score(scorer, text)
    };
    for (number, (context, text)) in
        [("see the", "see the cat"), ("a", "a cat"), ("the big", "the big cow")].iter().enumerate()
    {
        let surprisal = result.values["surprisal"][number];
        assert!((surprisal - alone(&mut scorer, context, text)).abs() < 1e-4);
        let line = String::from_utf8_lossy(&lines).lines().nth(number).unwrap().to_owned();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["surprisal"].as_f64().unwrap(), surprisal);
    }
    let [a, b, c] = result.values["surprisal"][..] else { panic!("{result:?}") };
    assert_eq!(result.parts["word"]["cat"].score, (a + b) / 2.0);
    assert!((result.score - ((a + b) / 2.0 + c) / 2.0).abs() < 1e-12);
    // Curves need three checkpoints; these are flat, so nothing was learnt.
    let one = result.clone();
    assert_eq!(acquisition(&data, &[&one, &one]).unwrap(), None);
    result.checkpoint.name = "chck_0M".into();
    assert_eq!(acquisition(&data, &[&one, &one, &result]).unwrap(), None, "the untrained model is left out");
    assert_eq!(acquisition(&data, &[&one, &one, &one]).unwrap().unwrap().words, []);
}

#[test]
fn broken_weights_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample_pairs(&folder.path().join("pairs"), 2);
    let mut trained = trained(Kind::Llama, "1 clm");
    trained.run = folder.path().join("run");
    trained.params.fill(f32::NAN);
    let error = evaluate(&mut Scorer::new(trained), &id(), &data, Backend::Causal, &OPTIONS, None, &mut |_, _| Ok(()));
    assert!(error.unwrap_err().to_string().contains("NaN"));
    assert!(!folder.path().join("run").exists());
}
