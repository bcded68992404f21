//! Fine-tuning as a whole, on small models that were not trained: what is learnt is in the toy task alone.

use std::path::Path;

use antlm_nn::tape::{Pool, Tape};

use super::data::{self, Missing, Row, Task};
use super::frame::{self, Example};
use super::head::{Classifier, Reading, Vector};
use super::metrics::Metric;
use super::presets::{Preset, Settings};
use super::train::{Job, Tuned, labels, predict};
use super::tune::{self, Event, Options, Select};
use crate::Error;
use crate::eval::results::CheckpointId;
use crate::eval::test_models;
use crate::model::Kind;
use crate::text::sample;
use crate::train::trained::Trained;

const FAMILIES: [Kind; 2] = [Kind::LtgBert, Kind::Llama];
const BOTH: Reading = Reading { causal: false, vector: Vector::First };

/// Beginnings of sample documents with one of two words in the middle, which is the label; of another part for others.
fn toy(n: u32, from: u32) -> Vec<Row> {
    let words = |index: u32| {
        let document = sample::document(8, from + index, sample::Part::Train);
        document.split_whitespace().take(6).map(str::to_owned).collect::<Vec<String>>()
    };
    let rows = (0..n).map(|index| {
        let label = index % 2;
        let mut words = words(index);
        words.insert(3, if label == 1 { "girls" } else { "box" }.into());
        Row { first: words.join(" "), second: None, label }
    });
    rows.collect()
}

fn examples(trained: &Trained, rows: &[Row]) -> Vec<Example> {
    frame::examples(&trained.tokenizer, rows, 64).unwrap().0
}

/// Settings with which a model that knows nothing learns a toy task.
fn quick(preset: Preset) -> Settings {
    Settings { lr: 2e-3, epochs: 20, batch: 8, patience: 0, ..preset.settings(Task::Sst2) }
}

fn learn(
    trained: &Trained,
    preset: Preset,
    reading: Reading,
    train: &[Example],
    choose: &[Example],
) -> (Classifier, Tuned) {
    let classifier = Classifier::new(&trained.model, preset, 2, reading);
    let job = Job {
        classifier: &classifier,
        trained: &trained.params,
        train,
        choose,
        metric: Metric::Accuracy,
        settings: &quick(preset),
        seed: 1,
    };
    let tuned = job.run(&mut Pool::default(), &mut |_| Ok(())).unwrap();
    (classifier, tuned)
}

fn accuracy(classifier: &Classifier, params: &[f32], rows: &[Example]) -> f64 {
    let predicted = predict(classifier, params, rows, &mut Pool::default(), &mut |_| Ok(())).unwrap();
    Metric::Accuracy.score(&predicted, &labels(rows))
}

#[test]
fn a_separable_task_is_learnt_and_shuffled_labels_are_not() {
    for (kind, preset, reading) in [
        (Kind::LtgBert, Preset::Y2026, BOTH),
        (Kind::LtgBert, Preset::Y2024, Reading { causal: true, vector: Vector::Last }),
        (Kind::Llama, Preset::Y2024, BOTH),
        (Kind::Llama, Preset::Y2026, Reading { causal: true, vector: Vector::SecondLast }),
    ] {
        let mut trained = test_models::trained(kind, "1 mlm");
        trained.params = trained.model.init(9);
        let (train, valid) = (examples(&trained, &toy(240, 0)), examples(&trained, &toy(100, 5000)));
        let (classifier, tuned) = learn(&trained, preset, reading, &train, &train);
        assert_eq!(accuracy(&classifier, &tuned.params, &train), 1.0, "{kind:?} {preset:?} {:?}", tuned.by_epoch);
        // Rows that it has never seen: nearly all, for a model that knew nothing before.
        let unseen = accuracy(&classifier, &tuned.params, &valid);
        assert!(unseen >= 0.9, "{kind:?} {preset:?}: {unseen}");
        // Labels that have nothing to do with the texts: 100 rows stay within 3.5 standard deviations of one half.
        let order = antlm_nn::rng::Rng::new(5).permutation(antlm_nn::rng::Stream::ORDER, 0, 240);
        let shuffled: Vec<Example> =
            train.iter().zip(&order).map(|(row, &to)| Example { label: to % 2, ..row.clone() }).collect();
        let (classifier, tuned) = learn(&trained, preset, reading, &shuffled, &shuffled[..20]);
        let chance = accuracy(&classifier, &tuned.params, &valid);
        assert!((chance - 0.5).abs() < 0.175, "{kind:?} {preset:?}: {chance}");
    }
}

/// From the left the first token sees only itself, so nothing can be learnt from it: what the note of `antlm finetune`
/// warns of.
#[test]
fn the_first_token_read_from_the_left_knows_nothing() {
    let trained = test_models::trained(Kind::Llama, "1 clm");
    let rows = examples(&trained, &toy(80, 0));
    let (classifier, tuned) =
        learn(&trained, Preset::Y2026, Reading { causal: true, vector: Vector::First }, &rows, &rows);
    assert_eq!(accuracy(&classifier, &tuned.params, &rows), 0.5);
    let read = |preset| tune::reading(&trained, preset, None, None);
    assert_eq!(read(Preset::Y2024), Reading { causal: true, vector: Vector::Last });
    assert_eq!(read(Preset::Y2026), Reading { causal: true, vector: Vector::SecondLast });
    let both = test_models::trained(Kind::Llama, "1 clm + 1 mntp + 1 clm");
    assert_eq!(tune::reading(&both, Preset::Y2026, None, None), BOTH);
}

#[test]
fn gradients_agree_with_finite_differences() {
    for (kind, preset) in FAMILIES.into_iter().flat_map(|kind| [(kind, Preset::Y2024), (kind, Preset::Y2026)]) {
        let trained = test_models::trained(kind, "1 mlm");
        let classifier = Classifier::new(&trained.model, preset, 3, BOTH);
        let params = classifier.init(&trained.params, 4);
        let mut rows = examples(&trained, &toy(6, 0));
        (0..).zip(&mut rows).for_each(|(i, row)| row.label = i % 3);
        let packed = classifier.rows(rows.iter().map(|row| &row.ids[..]), 0);
        let mut pool = Pool::default();
        let mut grads = vec![0.0; params.len()];
        let mut tape = Tape::new(&params, Some((&mut grads).into()), None, &mut pool).unwrap();
        classifier.loss(&mut tape, &packed, &labels(&rows), 1.0).unwrap();
        tape.backward().unwrap();
        let mut loss = |params: &[f32]| -> f64 {
            let mut tape = Tape::new(params, None, None, &mut pool).unwrap();
            let nll = classifier.loss(&mut tape, &packed, &labels(&rows), 1.0).unwrap();
            nll.iter().map(|&x| f64::from(x)).sum()
        };
        // Every tensor of the head, and one of the model's that lies deep below it.
        let deep = trained.model.layout().tensors().iter().find(|t| t.name.contains("layers.0.")).unwrap();
        let head = classifier.layout().tensors().iter().filter(|t| t.name.starts_with("head."));
        let tensors: Vec<_> = head.chain([deep]).collect();
        assert_eq!(tensors.len(), 5);
        for tensor in tensors {
            let largest = grads[tensor.range()].iter().fold(0f32, |a, g| a.max(g.abs()));
            assert!(largest > 1e-4, "{kind:?} {preset:?} {}: no gradient", tensor.name);
            for place in tensor.range().step_by((tensor.len() / 7).max(1)) {
                let moved = |by: f32| {
                    let mut params = params.clone();
                    params[place] += by;
                    params
                };
                let h = 4e-3;
                let slope = (loss(&moved(h)) - loss(&moved(-h))) / f64::from(2.0 * h);
                let off = (slope - f64::from(grads[place])).abs();
                assert!(
                    off < 0.01 * f64::from(largest) + 4e-4,
                    "{kind:?} {preset:?} {}: {slope} {}",
                    tensor.name,
                    grads[place]
                );
            }
        }
    }
}

#[test]
fn equal_bits_for_any_number_of_threads() {
    for kind in FAMILIES {
        let trained = test_models::trained(kind, "1 mlm");
        let rows = examples(&trained, &toy(40, 0));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (_, tuned) = pool.install(|| learn(&trained, Preset::Y2026, BOTH, &rows, &rows));
            tuned.params.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
        };
        assert_eq!(on(1), on(3));
    }
}

/// A text's logits do not depend on its neighbours, which is what padding with an attention mask gives; and the head's
/// layout begins with the model's.
#[test]
fn packed_texts_are_read_as_alone() {
    for kind in FAMILIES {
        let trained = test_models::trained(kind, "1 mlm");
        let rows = examples(&trained, &toy(5, 0));
        let classifier = Classifier::new(&trained.model, Preset::Y2026, 2, BOTH);
        let params = classifier.init(&trained.params, 1);
        assert_eq!(params[..trained.params.len()], trained.params);
        let mut pool = Pool::default();
        let mut logits = |rows: &[Example]| {
            let mut tape = Tape::new(&params, None, None, &mut pool).unwrap();
            let y = classifier.logits(&mut tape, &classifier.rows(rows.iter().map(|row| &row.ids[..]), 0)).unwrap();
            tape.read(y).unwrap().into_owned()
        };
        let together = logits(&rows);
        let alone: Vec<f32> = rows.chunks(1).flat_map(&mut logits).collect();
        assert!(together.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-4), "{together:?} {alone:?}");
        assert!((together[0] - together[2]).abs() > 1e-3, "all texts look alike");
    }
}

/// The epoch that is kept is the first of the best, and patience ends the training.
#[test]
fn patience_ends_it() {
    let trained = test_models::trained(Kind::LtgBert, "1 mlm");
    let rows = examples(&trained, &toy(16, 0));
    let classifier = Classifier::new(&trained.model, Preset::Y2024, 2, BOTH);
    // Nothing is learnt with this rate, so no epoch is better than the first.
    let settings = Settings { lr: 0.0, patience: 3, ..quick(Preset::Y2024) };
    let job = Job {
        classifier: &classifier,
        trained: &trained.params,
        train: &rows,
        choose: &rows,
        metric: Metric::F1,
        settings: &settings,
        seed: 1,
    };
    let tuned = job.run(&mut Pool::default(), &mut |_| Ok(())).unwrap();
    assert_eq!((tuned.by_epoch.len(), tuned.params), (4, classifier.init(&trained.params, 1)));
    // A batch that is never full.
    let settings = Settings { batch: 17, drop_last: true, ..settings };
    let error = Job { settings: &settings, ..job }.run(&mut Pool::default(), &mut |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("16 rows") && error.contains("--set batch=16"), "{error}");
}

fn write(folder: &Path, name: &str, lines: &[&str]) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(name), lines.join("\n") + "\n").unwrap();
}

#[test]
fn wrong_files_are_named_with_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let good = r#"{"sentence1": "a", "sentence2": "b", "label": 1, "idx": 0}"#;
    let seventh = |line| [good, good, "", good, good, good, line, good].join("\n");
    for (content, words) in [
        (String::new(), "empty"),
        ("\n\n".into(), "empty"),
        (seventh(r#"{"sentence1": "a", "sentence2": "b", "label": 1"#), "line 7, column"),
        (seventh(r#"["a", "b", 1]"#), "line 7"),
        (
            seventh(r#"{"sentence1": "a", "label": 1}"#),
            "line 7: lacks the key `sentence2` (there are: label, sentence1)",
        ),
        (
            seventh(r#"{"sentence1": 3, "sentence2": "b", "label": 1}"#),
            "line 7: `sentence1` is a number; expected a text",
        ),
        (seventh(r#"{"sentence1": "a", "sentence2": "b"}"#), "line 7: lacks the key `label`"),
        (seventh(r#"{"sentence1": "a", "sentence2": "b", "label": "1"}"#), "line 7: `label` is a text"),
        (seventh(r#"{"sentence1": "a", "sentence2": "b", "label": 0.5}"#), "line 7: `label` is a number"),
        (
            seventh(r#"{"sentence1": "a", "sentence2": "b", "label": 2}"#),
            "line 7: `label` is 2; the classes are 0 to 1",
        ),
        (
            seventh(r#"{"sentence1": "a", "sentence2": "b", "label": -1}"#),
            "line 7: `label` is -1; the classes are 0 to 1 (-1",
        ),
        (seventh("\u{0}"), "line 7"),
    ] {
        let path = folder.path().join("rte.train.jsonl");
        std::fs::write(&path, content).unwrap();
        let error = data::read(&path, Task::Rte, None).unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error}");
        let error = error.to_string();
        assert!(
            error.contains("rte.train.jsonl") && error.contains(words) && !error.contains('\n'),
            "{words}: {error}"
        );
    }
    let path = folder.path().join("rte.train.jsonl");
    std::fs::write(&path, seventh("not JSON")).unwrap();
    assert_eq!(data::read(&path, Task::Rte, Some(3)).unwrap().len(), 3, "what lies behind the limit is not read");
    std::fs::write(&path, b"\xff\n").unwrap();
    assert!(data::read(&path, Task::Rte, None).unwrap_err().to_string().contains("byte 0"));
}

#[test]
fn every_task_has_its_texts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.jsonl");
    for (task, line, first, second) in [
        (Task::Boolq, r#"{"question": "q", "passage": "p", "label": 0}"#, "q", Some("p")),
        (Task::Cola, r#"{"sentence": "s", "label": 0}"#, "s", None),
        (Task::Mnli, r#"{"premise": "p", "hypothesis": "h", "label": 2}"#, "p", Some("h")),
        (Task::Mrpc, r#"{"sentence1": "a", "sentence2": "b", "label": 0}"#, "a", Some("b")),
        (
            Task::Multirc,
            r#"{"paragraph": "p", "question": "q?", "answer": "a", "label": 0}"#,
            "Question: q? Answer: a",
            Some("p"),
        ),
        (Task::Qnli, r#"{"question": "q", "sentence": "s", "label": 0}"#, "q", Some("s")),
        (Task::Qqp, r#"{"question1": "a", "question2": "b", "label": 0}"#, "a", Some("b")),
        (
            Task::Wsc,
            r#"{"text": "Al ran. He fell.", "span1_text": "Al", "span2_text": "He", "label": 0}"#,
            "Does \"He\" refer to \"Al\" in this passage?",
            Some("Al ran. He fell."),
        ),
    ] {
        std::fs::write(&path, line).unwrap();
        let row = data::read(&path, task, None).unwrap().remove(0);
        assert_eq!((row.first.as_str(), row.second.as_deref()), (first, second), "{task:?}");
    }
}

#[test]
fn files_are_found_loose_and_in_the_official_tree() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let missing = |task: Task, file: &str| Err(Missing { task, file: file.into() });
    assert_eq!(data::find(dir, Task::Rte).unwrap(), missing(Task::Rte, "rte.train.jsonl"));
    write(dir, "cola.train.jsonl", &["x"]);
    assert_eq!(data::find(dir, Task::Cola).unwrap(), missing(Task::Cola, "cola.valid.jsonl"));
    write(dir, "cola.valid_out_domain.jsonl", &["x"]);
    write(dir, "cola.valid_in_domain.jsonl", &["x"]);
    write(dir, "mnli-mm.valid.jsonl", &["x"]);
    let files = data::find(dir, Task::Cola).unwrap().unwrap();
    let names: Vec<_> = files.valid.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["cola.valid_in_domain.jsonl", "cola.valid_out_domain.jsonl"]);
    let before = files.hash().unwrap();
    write(dir, "cola.valid_in_domain.jsonl", &["y"]);
    assert_ne!(before, files.hash().unwrap());
    // The official name alone, if it is there.
    write(dir, "cola.valid.jsonl", &["x"]);
    assert_eq!(data::find(dir, Task::Cola).unwrap().unwrap().valid, [dir.join("cola.valid.jsonl")]);
    assert_eq!(data::find(dir, Task::MnliMm).unwrap(), missing(Task::MnliMm, "mnli.train.jsonl"));
    let official = dir.join("evaluation_data/full_eval/glue_filtered");
    write(&official, "rte.train.jsonl", &["x"]);
    write(&official, "rte.valid.jsonl", &["x"]);
    assert_eq!(data::find(dir, Task::Rte).unwrap().unwrap().train, official.join("rte.train.jsonl"));
}

/// From files to results on disk: MNLI's model scores both of its files, a second call finds what is there, another
/// setting does not, and a holdout never looks at the validation rows before the end.
#[test]
fn results_are_written_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let line = |row: &Row, n: u32| {
        serde_json::json!({"premise": row.first, "hypothesis": "The girls sleep.", "label": row.label % n}).to_string()
    };
    for (name, n, from) in [("mnli.train", 40, 0), ("mnli.valid", 12, 900), ("mnli-mm.valid", 10, 1900)] {
        let lines: Vec<String> = toy(n, from).iter().map(|row| line(row, 3)).collect();
        write(&dir, &format!("{name}.jsonl"), &lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let mut trained = test_models::trained(Kind::LtgBert, "1 mlm");
    trained.run = folder.path().join("run");
    let id = CheckpointId { name: "step-000000001".into(), weights: "w".into(), ..CheckpointId::default() };
    let options = Options {
        preset: Preset::Y2024,
        tasks: vec![Task::Mnli, Task::MnliMm, Task::Rte],
        data: dir.clone(),
        select: Select::Official,
        seeds: vec![1, 2],
        set: ["lr=2e-3", "mnli.epochs=2", "batch=8"].map(String::from).to_vec(),
        limit: None,
        reading: BOTH,
        again: false,
    };
    let tune = |options: &Options, id: &CheckpointId| {
        let prepared = tune::prepare(&trained, options, &mut || Ok(())).unwrap();
        assert_eq!(prepared.missing, [Missing { task: Task::Rte, file: "rte.train.jsonl".into() }]);
        let mut begun = Vec::new();
        let found = tune::run(&trained, id, options, &prepared.groups, &mut Pool::default(), &mut |event| {
            if let Event::Begin { seed, work, .. } = event {
                begun.push((seed, work));
            }
            Ok(())
        });
        (found.unwrap(), begun)
    };
    let (found, begun) = tune(&options, &id);
    assert_eq!(begun.iter().map(|b| b.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(begun[0].1, 2 * begun[1].1, "the work left halves");
    let names: Vec<&str> = found.iter().map(|f| f.path.file_name().unwrap().to_str().unwrap()).collect();
    let expected = ["mnli", "mnli-mm"].map(|task| [1, 2].map(|seed| format!("{task}.2024.seed-{seed}.json")));
    assert_eq!(names, [&expected[0][0], &expected[1][0], &expected[0][1], &expected[1][1]]);
    let (mnli, mm) = (&found[0].result, &found[1].result);
    assert_eq!((mnli.n, mm.n, mnli.metric.as_str(), mnli.seed), (12, 10, "accuracy", Some(1)));
    assert_eq!((mnli.values["prediction"].len(), mnli.values["by_epoch"].len()), (12, 2));
    assert_eq!(mnli.values["by_epoch"].iter().copied().fold(0.0, f64::max), mnli.score, "the best epoch is scored");
    assert_ne!(mnli.data, mm.data);

    let (again, begun) = tune(&options, &id);
    assert!(begun.is_empty() && again.iter().all(|f| f.cached));
    assert_eq!(again[3].result, found[3].result);
    let anew = |options: &Options, id: &CheckpointId| tune(options, id).1.len();
    assert_eq!(anew(&Options { again: true, ..options.clone() }, &id), 2);
    assert_eq!(anew(&options, &CheckpointId { weights: "other".into(), ..id.clone() }), 2);
    // Holdout: another result, and the same whatever the validation labels are while the epoch is chosen.
    let holdout = Options { select: Select::Holdout, seeds: vec![1], ..options.clone() };
    let (held, begun) = tune(&holdout, &id);
    assert!(begun.len() == 1 && held[0].replaced && held[0].result.settings["select"] == "holdout");
    let valid = std::fs::read_to_string(dir.join("mnli.valid.jsonl")).unwrap();
    std::fs::write(dir.join("mnli.valid.jsonl"), valid.replace("\"label\":0", "\"label\":2")).unwrap();
    let (changed, _) = tune(&holdout, &id);
    assert_eq!(changed[0].result.values["by_epoch"], held[0].result.values["by_epoch"]);
    assert_eq!(changed[0].result.values["prediction"], held[0].result.values["prediction"]);
    assert_ne!(changed[0].result.values["label"], held[0].result.values["label"]);
    // A signal: the error comes through, nothing is written.
    let prepared = tune::prepare(&trained, &holdout, &mut || Ok(())).unwrap();
    let stop = |event: Event<'_>| match event {
        Event::Moment(_) => Err(Error::Stopped { signal: 2, left: "x".into() }),
        _ => Ok(()),
    };
    let other = Options { seeds: vec![9], ..holdout };
    let error = tune::run(&trained, &id, &other, &prepared.groups, &mut Pool::default(), &mut { stop }).unwrap_err();
    assert!(matches!(error, Error::Stopped { signal: 2, .. }));
    assert!(!trained.run.join("results/step-000000001/finetune/mnli.2024.seed-9.json").exists());
}
