//! Tests of submissions: a whole one from data of the official sizes that the test writes, and everything that can lack.

use std::fs;

use super::*;
use crate::eval::results::Part;

struct Toy {
    folder: tempfile::TempDir,
}

impl Toy {
    /// A run with a last checkpoint and some milestones; of checkpoints nothing is read here but their states' words and
    /// the hash of their weights.
    fn new(milestones: &[String]) -> Toy {
        let toy = Toy { folder: tempfile::tempdir().unwrap() };
        toy.put("run/recipe.toml", "");
        let state = |words| format!("{{\"step\": 1, \"seen\": {{\"clm\": {{\"words\": {words}, \"targets\": 1}}}}}}");
        toy.put("run/checkpoints/step-000000001/state.json", &state(1));
        toy.put("run/checkpoints/step-000000001/model.safetensors", "last");
        for name in milestones {
            toy.put(&format!("run/milestones/{name}/model.safetensors"), name);
        }
        toy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn options(&self) -> Options {
        Options {
            run: self.path("run"),
            data: self.path("data"),
            backend: Backend::Mlm,
            track: Track::StrictSmall,
            name: "antlm-tiny".into(),
            out: self.path("out"),
            partial: false,
        }
    }

    fn submit(&self, options: &Options) -> Report {
        submit(options, &mut |_| Ok(())).unwrap()
    }

    /// Data of a task with these parts, and a result of a checkpoint that finds every third item wrong.
    fn task(&self, task: Task, set: Set, parts: &[(&str, usize)], checkpoints: &[(&str, &str)]) {
        let (_, (_, full, fast)) = official(task);
        let (tree, folder) = if set == Set::Full { ("full_eval", full) } else { ("fast_eval", fast) };
        let folder = if task == Task::Reading { "reading" } else { folder };
        for (name, n) in parts {
            // The files of these tasks are not called as their parts are.
            let stem = match task {
                Task::EntityTracking => name.rsplitn(3, '_').nth(2).unwrap().to_owned(),
                Task::Comps => format!(
                    "comps_{}",
                    name.replace("dist_before", "dist-before").replace("dist_in_between", "dist-in-between")
                ),
                Task::WugAdj | Task::WugPast => folder.to_owned(),
                _ => (*name).to_owned(),
            };
            let file = self.path(&format!("data/{tree}/{folder}/{stem}.jsonl"));
            let mut text = fs::read_to_string(&file).unwrap_or_default();
            for i in 0..*n {
                text += &match task {
                    Task::Ewok => format!("{{\"Domain\": \"{name}\", \"Context1\": \"c\", \"Context2\": \"d\", \"Target1\": \"good {i}\", \"Target2\": \"bad {i}\"}}\n{{\"Domain\": \"{name}\", \"Context1\": \"d\", \"Context2\": \"c\", \"Target1\": \"bad {i}\", \"Target2\": \"good {i}\"}}\n"),
                    Task::EntityTracking => format!(
                        "{{\"input_prefix\": \"p\", \"options\": [\" a\", \" b\", \" c\"], \"numops\": {}}}\n",
                        name.rsplit('_').nth(1).unwrap()
                    ),
                    Task::Comps => "{\"property_phrase\": \"is red .\", \"prefix_acceptable\": \"an apple\", \"prefix_unacceptable\": \"a pea\"}\n".into(),
                    Task::WugAdj | Task::WugPast => format!("{{\"sentences\": \"a {i}\\tb {i}\", \"ratio\": 0.{i}}}\n"),
                    Task::Blimp => format!("{{\"UID\": \"{name}\", \"sentence_good\": \"good {i}\", \"sentence_bad\": \"bad {i}\"}}\n"),
                    _ => format!("{{\"sentence_good\": \"good {i}\", \"sentence_bad\": \"bad\\n{i}\"}}\n"),
                };
            }
            if task == Task::Reading {
                text = "x\n".into();
            }
            let file = if task == Task::Reading { file.with_file_name("reading_data.csv") } else { file };
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let found = find::find(&self.path("data"), task, set).unwrap().unwrap();
        let hash = items::hash(&found.files).unwrap();
        for (checkpoint, weights) in checkpoints {
            let mut result = TaskResult::new(task.name(), PRESET);
            (result.backend, result.set, result.data) = (Some(Backend::Mlm), set, hash.clone());
            result.checkpoint.name = (*checkpoint).to_owned();
            result.checkpoint.weights = files::sha256(weights.as_bytes());
            for (name, n) in parts {
                let n = if task == Task::Ewok { 2 * n } else { *n };
                let wrong = |i: usize| i % 3 == 2;
                let text: String = (0..n)
                    .map(|i| {
                        if wrong(i) {
                            '0'
                        } else if i == 1 {
                            '='
                        } else {
                            '1'
                        }
                    })
                    .collect();
                result.outcomes.insert((*name).to_owned(), text);
                if task == Task::EntityTracking {
                    result
                        .chosen
                        .insert((*name).to_owned(), (0..n).map(|i| if wrong(i) { '2' } else { '0' }).collect());
                }
                let kind = if task == Task::Ewok { "domain" } else { "uid" };
                result
                    .parts
                    .entry(kind.into())
                    .or_default()
                    .insert((*name).to_owned(), Part { score: 75.0, n: n as u64, ties: 1 });
                if task == Task::Reading {
                    result.values.insert("surprisal".into(), vec![1.5; n]);
                    result.values.insert("previous".into(), (0..n).map(|i| if i == 0 { -1.0 } else { 2.5 }).collect());
                    let measures = result.parts.entry("measure".into()).or_default();
                    measures.insert("self_paced".into(), Part { score: 1.0, n: 1, ties: 0 });
                    measures.insert("eye_tracking".into(), Part { score: 2.0, n: 1, ties: 0 });
                }
                if matches!(task, Task::WugAdj | Task::WugPast) {
                    result.values.insert("probability".into(), (0..n).map(|i| i as f64 / 256.0).collect());
                    result.score = 12.5;
                }
            }
            result.write(&result.path(&self.path("run"))).unwrap();
        }
    }

    /// Words with so many contexts in all, and the surprisals of these checkpoints.
    fn aoa(&self, contexts: usize, checkpoints: &[(&str, &str)]) {
        let all: Vec<String> = (0..contexts).map(|i| format!("{{\"context\": \"see the \\\"{i}\"}}")).collect();
        let file = "data/full_eval/cdi_childes/cdi_childes.json";
        self.put(file, &format!("{{\"ball\": [{}], \"dog\": [{}]}}\n", all[..2].join(", "), all[2..].join(", ")));
        for (checkpoint, weights) in checkpoints {
            let mut result = TaskResult::new(Task::Aoa.name(), PRESET);
            (result.backend, result.data) = (Some(Backend::Mlm), items::hash(&[self.path(file)]).unwrap());
            result.checkpoint.name = (*checkpoint).to_owned();
            result.checkpoint.weights = files::sha256(weights.as_bytes());
            result.values.insert("surprisal".into(), vec![1.25; contexts]);
            result.write(&result.path(&self.path("run"))).unwrap();
        }
    }

    fn glue(&self, task: &str, n: usize) {
        let mut result = TaskResult::new(task, PRESET);
        result.checkpoint.name = LAST.0.into();
        result.checkpoint.weights = files::sha256(LAST.1.as_bytes());
        result.seed = Some(SEED);
        result.values.insert("prediction".into(), (0..n).map(|i| (i % 2) as f64).collect());
        result.write(&result.path(&self.path("run"))).unwrap();
    }
}

/// The last checkpoint and its weights.
const LAST: (&str, &str) = ("step-000000001", "last");

fn parts(task: Task, set: Set) -> Vec<(&'static str, usize)> {
    match (task, submit_sizes::of(task, set).unwrap()) {
        // In our data each item of EWoK is two lines.
        (Task::Ewok, Sizes::Parts(parts)) => parts.into_iter().map(|(name, n)| (name, n / 2)).collect(),
        (_, Sizes::Parts(parts)) => parts,
        (Task::Ewok, Sizes::Each(n)) => vec![("agent-properties", n / 2)],
        (Task::Blimp, Sizes::Each(n)) => vec![("adjunct_island", n), ("npi_present_1", n)],
        (Task::Supplement, Sizes::Each(n)) => vec![("hypernym", n)],
        (task, Sizes::Each(n)) => vec![(official(task).0, n)],
    }
}

fn whole() -> (Toy, Options) {
    let milestones = Track::StrictSmall.milestones().names();
    let toy = Toy::new(&milestones);
    let each: Vec<(&str, &str)> = milestones.iter().map(|name| (&name[..], &name[..])).collect();
    for task in TASKS {
        toy.task(task, Set::Full, &parts(task, Set::Full), &[LAST]);
        if task != Task::Comps {
            toy.task(task, Set::Fast, &parts(task, Set::Fast), &each);
        }
    }
    submit_sizes::GLUE.into_iter().for_each(|(task, n)| toy.glue(task, n));
    toy.aoa(submit_sizes::AOA, &each);
    let options = toy.options();
    (toy, options)
}

#[test]
fn a_whole_submission() {
    let (toy, options) = whole();
    let report = toy.submit(&options);
    assert_eq!(report.problems, []);
    // 8 full tasks, AoA, 7 fine-tuned, 7 x 19 short ones, the collated file.
    assert_eq!(report.written.len(), 8 + 1 + 7 + 7 * 19 + 1);
    let read = |name: &str| fs::read_to_string(toy.path("out/antlm-tiny").join(name)).unwrap();
    // Python writes NaN; what else is there is JSON.
    let json = |text: &str| serde_json::from_str::<Value>(&text.replace("NaN", "null")).unwrap();
    let collated = json(&read("all_full_preds_and_fast_scores_mlm.json"));
    let keys = [
        "blimp",
        "blimp_supplement",
        "ewok",
        "entity_tracking",
        "wug_adj",
        "wug_past",
        "comps",
        "reading",
        "aoa",
        "glue",
        "fast_eval_results",
    ];
    assert_eq!(collated.as_object().unwrap().len(), keys.len());
    assert!(keys.iter().all(|key| collated.get(key).is_some()));
    let part = |task: &str, name: &str, i: usize| collated[task][name]["predictions"][i].clone();
    assert_eq!(part("blimp", "wh_island", 1).to_string(), r#"{"id":"wh_island_1","pred":"good 1"}"#);
    assert_eq!(part("blimp_supplement", "hypernym", 2)["pred"], "bad\n2");
    assert_eq!(part("ewok", "agent-properties", 2).to_string(), r#"{"id":"agent-properties_2","pred":" bad 1"}"#);
    assert_eq!(part("ewok", "agent-properties", 5)["pred"], " good 2");
    assert_eq!(part("entity_tracking", "ambiref_3_ops", 2)["pred"], " c");
    assert_eq!(part("comps", "wugs_dist_in_between", 0)["pred"], "an apple is red .");
    assert_eq!(part("wug_past", "wug_past", 2).to_string(), r#"{"id":"wug_past_2","pred":"b 2","prob":0.0078125}"#);
    assert_eq!(part("glue", "rte", 1).to_string(), r#"{"id":"rte_1","pred":1}"#);
    assert_eq!(part("reading", "reading", 1).to_string(), r#"{"id":1,"pred":1.5,"prev_pred":2.5}"#);
    assert!(
        read("main/zero_shot/mlm/reading/predictions.json").contains(r#"{"id": 0, "pred": 1.5, "prev_pred": NaN}"#)
    );
    let fast = &collated["fast_eval_results"];
    assert!(keys[..6].iter().chain(["reading"].iter()).all(|key| fast[key].as_array().unwrap().len() == 19));
    assert_eq!(fast["blimp"][18].to_string(), r#"{"adjunct_island":0.75,"npi_present_1":0.75}"#);
    assert_eq!(
        (fast["wug_adj"][0].to_string(), fast["reading"][0]["rt"].clone()),
        (r#"{"wug_adj":0.125}"#.into(), 0.02.into())
    );
    let tree = json(&read("chck_100M/zero_shot/mlm/blimp/supplement_fast/predictions.json"));
    assert_eq!(tree["hypernym"]["predictions"].as_array().unwrap().len(), 50);
    assert_eq!(json(&read("main/finetune/mnli/predictions.json"))["mnli"], collated["glue"]["mnli"]);

    // Of acquisition every context of every milestone.
    let rows = collated["aoa"]["results"].as_array().unwrap();
    assert_eq!(rows.len(), 19 * submit_sizes::AOA);
    let row = r#"{"context":"see the \"1","context_id":1,"step":"chck_2M","surprisal":1.25,"target_word":"ball","word_count":2000000}"#;
    assert_eq!(rows[submit_sizes::AOA + 1].to_string(), row);
    assert_eq!(json(&read("main/zero_shot/mlm/AoA_word/surprisal.json")), collated["aoa"]);

    // One milestone evaluated with other weights, a task fine-tuned on too little, acquisition of one context too many.
    toy.put("run/milestones/chck_7M/model.safetensors", "other");
    toy.glue("rte", 138);
    toy.aoa(submit_sizes::AOA + 1, &[("chck_5M", "chck_5M")]);
    let report = toy.submit(&options);
    assert!(report.written.is_empty() && report.collated.is_none());
    let text: String = report.problems.iter().map(|p| format!("{} -> {}\n", p.what, p.to_do)).collect();
    for words in [
        "blimp (short set): evaluated with other weights of chck_7M -> antlm eval",
        "--set fast --checkpoints milestones",
        "rte: 138 predictions, and must have 139 -> antlm finetune",
        "aoa: 8006 contexts, and must have 8005",
        "aoa: evaluated on other data of chck_1M, chck_2M",
        "--tasks aoa --backend mlm --checkpoints milestones",
    ] {
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(report.problems.len(), 7 + 1 + 3, "{text}");
}

#[test]
fn all_that_is_missing_is_listed_and_nothing_is_written() {
    let toy = Toy::new(&["chck_1M".to_owned()]);
    toy.task(Task::Supplement, Set::Full, &[("hypernym", 842), ("extra", 2)], &[LAST]);
    toy.task(Task::Blimp, Set::Fast, &[("adjunct_island", 199)], &[("chck_1M", "chck_1M")]);
    let report = toy.submit(&toy.options());
    let text: String = report.problems.iter().map(|p| format!("{} -> {}\n", p.what, p.to_do)).collect();
    for words in [
        "blimp: no data in",
        "supplement, main: qa_congruence_easy has 0 items, and must have 64",
        "extra has 2 items, and must have 0",
        "blimp, chck_1M: adjunct_island has 199 items, and must have 200",
        "18 of 19 milestones are not there: chck_2M, chck_3M",
        "checkpoints.milestones=babylm-strict-small",
        "ewok-core",
        "mnli: not fine-tuned with seed 42",
        "aoa: no data in",
    ] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    assert!(!toy.path("out").exists());
    let report = toy.submit(&Options { partial: true, ..toy.options() });
    assert_eq!((report.written.len(), report.collated), (2, None));
    assert!(toy.path("out/antlm-tiny/main/zero_shot/mlm/blimp/supplement_filtered/predictions.json").is_file());
    // Other data than was evaluated.
    toy.put(
        "data/full_eval/supplement_filtered/hypernym.jsonl",
        "{\"sentence_good\": \"a\", \"sentence_bad\": \"b\"}\n",
    );
    let report = toy.submit(&toy.options());
    assert!(
        report
            .problems
            .iter()
            .any(|p| p.what == "supplement: evaluated on other data" && p.to_do.contains("--tasks supplement"))
    );
}

#[test]
fn names_that_would_be_cut_are_refused() {
    let toy = Toy::new(&[]);
    for (name, words) in [("antlm-0.5", "stem"), ("me/antlm", "without its owner"), ("", "not a name")] {
        let error = submit(&Options { name: name.into(), ..toy.options() }, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
