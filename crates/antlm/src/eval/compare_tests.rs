//! Tests of the table: on results that the tests write themselves, nothing is trained.

use super::*;
use crate::recipe::Used;

struct Runs(tempfile::TempDir);

impl Runs {
    fn new() -> Runs {
        Runs(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A run's folder with a recipe, without checkpoints.
    fn run(&self, name: &str, set: &[&str], seed: u64) -> PathBuf {
        let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
        let mut recipe = Recipe::load("antlm-ltg-bert-tiny", &set).unwrap();
        recipe.seed = seed;
        recipe.used = Some(Used {
            antlm: "0.1.0".into(),
            prepared: self.path("prepared"),
            text: "text".into(),
            tokenizer: "tokenizer".into(),
            vocab_size: 300,
            init: None,
        });
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(run_folder::RECIPE), recipe.to_toml().unwrap()).unwrap();
        path
    }
}

fn write(run: &Path, task: &str, backend: Option<Backend>, outcomes: &str, change: &dyn Fn(&mut TaskResult)) {
    let mut result = TaskResult::new(task, "2026");
    result.backend = backend;
    result.seed = backend.is_none().then_some(42);
    result.checkpoint.name = "step-000000120".into();
    result.checkpoint.step = 120;
    result.data = format!("data of {task}");
    result.metric = "accuracy".into();
    result.n = outcomes.len() as u64;
    result.score = 100.0 * outcomes.bytes().filter(|&byte| byte != b'0').count() as f64 / outcomes.len() as f64;
    result.outcomes.insert("unit".into(), outcomes.into());
    change(&mut result);
    result.write(&result.path(run)).unwrap();
}

fn nothing(_: &mut TaskResult) {}

const CAUSAL: Option<Backend> = Some(Backend::Causal);

fn four(run: &Path, outcomes: &str) {
    for task in ["blimp", "supplement", "ewok"] {
        write(run, task, CAUSAL, outcomes, &nothing);
    }
    for task in Preset::Y2026.tasks() {
        write(run, task.name(), None, outcomes, &nothing);
    }
}

fn options(tasks: &[&str]) -> Options {
    let tasks = tasks.iter().map(|task| (*task).to_owned()).collect();
    Options { protocol: "2026".into(), preset: "2026".into(), tasks, ..Options::default() }
}

fn scores(row: &Row, columns: &[String]) -> Vec<Option<f64>> {
    columns.iter().map(|column| row.cells[column].as_ref().map(|cell| cell.score)).collect()
}

#[test]
fn the_papers_table_is_a_mean_of_four() {
    let runs = Runs::new();
    let run = runs.run("a", &[], 1);
    four(&run, "1100");
    write(&run, "ewok", CAUSAL, "1111", &nothing);
    write(&run, "rte", None, "1111", &nothing);
    let found = super::runs(&[run], &options(&[])).unwrap();
    assert_eq!(found.columns, ["blimp", "supplement", "ewok", "glue", "macro-average"]);
    let glue = (6.0 * 50.0 + 100.0) / 7.0;
    let all = scores(&found.rows[0], &found.columns);
    assert_eq!(all[..3], [Some(50.0), Some(50.0), Some(100.0)]);
    assert!((all[3].unwrap() - glue).abs() < 1e-9 && (all[4].unwrap() - (200.0 + glue) / 4.0).abs() < 1e-9);
    assert!(found.differences.is_empty());
}

#[test]
fn gaps_stay_and_are_named() {
    let runs = Runs::new();
    let run = runs.run("a", &[], 1);
    four(&run, "10");
    std::fs::remove_file(run.join("results/step-000000120/finetune/mnli.2026.seed-42.json")).unwrap();
    std::fs::remove_file(run.join("results/step-000000120/ewok.causal.2026.json")).unwrap();
    write(&run, "ewok", CAUSAL, "10", &|result| result.limit = Some(1));
    write(&run, "blimp", CAUSAL, "1", &|result| result.protocol = "2024".into());
    let found = super::runs(std::slice::from_ref(&run), &options(&[])).unwrap();
    assert_eq!(scores(&found.rows[0], &found.columns), [Some(50.0), Some(50.0), None, None, None]);
    let notes = found.notes.join("\n");
    for words in ["ewok; glue: 6 of 7 tasks (no mnli)", "left out ewok (--limited", "left out blimp (--protocol 2024"] {
        assert!(notes.contains(words), "{notes}");
    }
    let limited = super::runs(&[run], &Options { limited: true, ..options(&[]) }).unwrap();
    assert!(limited.rows[0].cells["ewok"].as_ref().unwrap().limited);
    assert!(!limited.rows[0].cells["blimp"].as_ref().unwrap().limited);
}

#[test]
fn limited_scores_are_compared_at_the_limit_that_all_have() {
    let runs = Runs::new();
    let paths = [runs.run("a", &[], 1), runs.run("b", &["schedule=6 clm"], 1)];
    let limit = |limit: u64| move |result: &mut TaskResult| result.limit = Some(limit);
    for path in &paths {
        write(path, "mrpc", None, "10", &limit(2));
        write(path, "rte", None, "1100", &limit(4));
        write(path, "blimp", CAUSAL, "11", &nothing);
    }
    write(&paths[0], "mrpc", None, "1110", &nothing);
    let shown = |tasks| super::runs(&paths, &Options { limited: true, ..options(tasks) }).unwrap();
    let found = shown(&["mrpc", "rte", "blimp"]);
    for row in &found.rows {
        assert_eq!(scores(row, &found.columns), [Some(50.0), Some(50.0), Some(100.0)]);
    }
    // Alone, a run shows its most.
    let found = super::runs(&paths[..1], &Options { limited: true, ..options(&["mrpc"]) }).unwrap();
    assert_eq!(scores(&found.rows[0], &found.columns), [Some(75.0)]);
    // `runs/*` names the prepared text, too.
    let prepared = runs.path("prepared");
    std::fs::create_dir(&prepared).unwrap();
    let all = [&paths[..], &[prepared]].concat();
    let found = super::runs(&all, &options(&["blimp"])).unwrap();
    assert_eq!(found.rows.len(), 2);
    assert!(found.notes.iter().any(|note| note.contains("prepared text, not a run")), "{:?}", found.notes);
}

#[test]
fn fine_tuned_scores_do_not_differ_by_backend() {
    let runs = Runs::new();
    let run = runs.run("a", &[], 1);
    four(&run, "1100");
    write(&run, "blimp", Some(Backend::Mlm), "1110", &nothing);
    let found = super::runs(&[run], &options(&["blimp", "rte", "glue"])).unwrap();
    let columns: Vec<&str> = found.differences.iter().map(|difference| &difference.column[..]).collect();
    assert_eq!((found.rows.len(), &columns[..]), (2, &["blimp"][..]));
}

#[test]
fn seeds_of_one_recipe_are_one_row() {
    let runs = Runs::new();
    let paths = [
        runs.run("a-seed-1", &[], 1),
        runs.run("b", &["schedule=6 clm"], 1),
        runs.run("a-seed-2", &[], 2),
        runs.run("a-seed-3", &[], 3),
        // The same seed once more is no further seed.
        runs.run("c", &[], 3),
    ];
    for (path, outcomes) in paths.iter().zip(["1111", "1000", "1110", "1100", "1100"]) {
        write(path, "blimp", CAUSAL, outcomes, &nothing);
    }
    let found = super::runs(&paths, &options(&["blimp"])).unwrap();
    let names: Vec<(&str, usize)> =
        found.rows.iter().map(|row| (row.model.rsplit('/').next().unwrap(), row.seeds.len())).collect();
    assert_eq!(names, [("a", 3), ("b", 1), ("c", 1)]);
    let cell = found.rows[0].cells["blimp"].as_ref().unwrap();
    assert_eq!((cell.score, cell.sd, &cell.values[..]), (75.0, Some(25.0), &[100.0, 75.0, 50.0][..]));
    assert_eq!(found.differences[0].difference, -50.0);
    assert_eq!(found.differences[0].over, "items and seeds");
    // A seed that lacks the task is no mean of the others.
    std::fs::remove_file(paths[2].join("results/step-000000120/blimp.causal.2026.json")).unwrap();
    write(&paths[2], "supplement", CAUSAL, "1", &nothing);
    let found = super::runs(&paths, &options(&["blimp"])).unwrap();
    assert_eq!(found.rows[0].cells["blimp"], None);
    assert!(found.notes.iter().any(|note| note.contains("a-seed-2, causal: not there: blimp")), "{:?}", found.notes);
}

#[test]
fn every_backend_is_a_row_and_is_compared_with_its_like() {
    let runs = Runs::new();
    let paths = [runs.run("a", &[], 1), runs.run("b", &["schedule=6 clm"], 1)];
    for (path, causal, mlm) in [(&paths[0], "1111", "1100"), (&paths[1], "1111", "1110")] {
        write(path, "blimp", CAUSAL, causal, &nothing);
        write(path, "blimp", Some(Backend::Mlm), mlm, &nothing);
    }
    let found = super::runs(&paths, &options(&["blimp", "macro"])).unwrap();
    let of: Vec<(f64, Option<Backend>, [f64; 2])> =
        found.differences.iter().map(|d| (d.difference, d.against_backend, d.interval.unwrap())).collect();
    // Equal outcomes have no difference and no spread.
    assert_eq!((of[1].0, of[1].1, of[1].2), (0.0, CAUSAL, [0.0, 0.0]));
    assert_eq!((of[2].0, of[2].1), (25.0, Some(Backend::Mlm)));
    assert_eq!(of.len(), 3);
    let turned = Options { against: Some(paths[1].clone()), backends: vec![Backend::Mlm], ..options(&["blimp"]) };
    let found = super::runs(&paths, &turned).unwrap();
    assert_eq!((found.rows.len(), found.differences[0].difference), (2, -25.0));
}

#[test]
fn means_have_intervals_too() {
    let runs = Runs::new();
    let paths = [runs.run("a", &[], 1), runs.run("b", &["schedule=6 clm"], 1)];
    four(&paths[0], "10101010");
    four(&paths[1], "11101110");
    let found = super::runs(&paths, &options(&[])).unwrap();
    assert_eq!(found.differences.len(), 5);
    let width = |column: &str| {
        let [low, high] = found.differences.iter().find(|d| d.column == column).unwrap().interval.unwrap();
        assert!(low <= 25.0 && 25.0 <= high, "{column}: {low} {high}");
        high - low
    };
    // A mean of seven or four tasks is surer than one of them.
    assert!(width("glue") < width("blimp") && width("macro-average") < width("blimp"));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let runs = Runs::new();
    let paths = [runs.run("a", &[], 1), runs.run("b", &["schedule=6 clm"], 1)];
    let refuse = |options: Options, words: &[&str]| {
        let error = super::runs(&paths, &options).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refuse(options(&[]), &["a: nothing was evaluated", "antlm eval"]);
    write(&paths[0], "blimp", CAUSAL, "1", &nothing);
    write(&paths[1], "blimp", CAUSAL, "1", &|result| result.data = "other".into());
    refuse(options(&[]), &["blimp", "different data", "data of blim", "other"]);
    // What is not shown may differ.
    assert!(super::runs(&paths, &options(&["supplement"])).is_ok());
    refuse(options(&["blimb"]), &["no task \"blimb\"", "did you mean `blimp`"]);
    refuse(
        Options { checkpoint: Some("chck_1M".into()), ..options(&[]) },
        &["nothing was evaluated of chck_1M", "step-000000120"],
    );
    refuse(Options { preset: "2025".into(), ..options(&[]) }, &["2024 and 2026"]);
    refuse(Options { against: Some("c".into()), ..options(&["supplement"]) }, &["--against c"]);
    write(&paths[0], "supplement", CAUSAL, "1", &|result| result.checkpoint.weights = "x".into());
    refuse(options(&["supplement"]), &["other weights"]);
}
