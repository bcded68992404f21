//! `antlm compare`, `antlm submit` and `antlm sweep` from outside: the table in every format, what is refused, a small sweep
//! that is stopped and goes on.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::common::{Toy, antlm, command, refused, stderr, stdout, succeeds};

/// Two schedules with two seeds, some steps each.
fn sweep() -> Toy {
    let toy = Toy::new();
    succeeds(toy.path(), &["sample-pairs", "--per-phenomenon", "4", "--out", "pairs"]);
    toy.write(
        "sweep.toml",
        "version = 1\nbase = \"ltg.toml\"\nschedules = [\"1 clm\", \"1 clm + 1 mlm\"]\nseeds = [1, 2]\n\
         text = [\"text.txt\"]\nout = \"runs\"\n[eval]\ndata = \"pairs\"\ntasks = [\"pairs\"]\nbackends = [\"causal\"]\n",
    );
    toy
}

fn states(toy: &Toy) -> Vec<String> {
    let text = succeeds(toy.path(), &["sweep", "sweep.toml", "--list", "--json"]);
    let state = |line: &str| serde_json::from_str::<Value>(line).unwrap()["state"].as_str().unwrap().to_owned();
    text.lines().map(state).collect()
}

#[test]
fn a_sweep_is_trained_evaluated_and_compared() {
    let toy = sweep();
    assert_eq!(states(&toy), ["new"; 4]);
    let table = succeeds(toy.path(), &["sweep", "sweep.toml", "--list"]);
    assert!(table.contains("1 clm + 1 mlm") && table.contains("runs/1-clm_seed-2"), "{table}");

    // One job of a queue's array, then all that is left.
    succeeds(toy.path(), &["sweep", "sweep.toml", "--job", "2", "--quiet"]);
    assert_eq!(states(&toy), ["new", "done", "new", "new"]);
    let text = succeeds(toy.path(), &["sweep", "sweep.toml", "--quiet", "--json"]);
    assert_eq!(states(&toy), ["done"; 4]);
    let found: Value = serde_json::from_str(&text).unwrap();
    let rows = found["rows"].as_array().unwrap();
    assert_eq!(
        (rows.len(), &rows[0]["model"], &rows[1]["model"]),
        (2, &"runs/1-clm".into(), &"runs/1-clm-1-mlm".into())
    );
    assert_eq!(rows[0]["seeds"], serde_json::json!([1, 2]));
    let cell = &rows[0]["cells"]["pairs"];
    let values: Vec<f64> = cell["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let score = |run: &str| {
        let kept = toy.kept(&format!("runs/{run}"));
        toy.json(&format!("runs/{run}/results/{}/pairs.causal.2026.json", kept.last().unwrap()))["score"]
            .as_f64()
            .unwrap()
    };
    assert_eq!(values, [score("1-clm_seed-1"), score("1-clm_seed-2")]);
    assert!((cell["score"].as_f64().unwrap() - (values[0] + values[1]) / 2.0).abs() < 1e-9);
    assert_eq!(found["differences"][0]["over"], "items and seeds");

    // Again: nothing is trained, and the table is that of `compare`.
    let before = toy.read("runs/1-clm_seed-1/timing.jsonl");
    let again = succeeds(toy.path(), &["sweep", "sweep.toml", "--quiet"]);
    assert_eq!(toy.read("runs/1-clm_seed-1/timing.jsonl"), before);
    let runs = ["runs/1-clm_seed-1", "runs/1-clm_seed-2", "runs/1-clm-1-mlm_seed-1", "runs/1-clm-1-mlm_seed-2"];
    let compare =
        |more: &[&str]| succeeds(toy.path(), &[&["compare"], &runs[..], &["--tasks", "pairs"], more].concat());
    assert_eq!(compare(&[]), again);

    for (format, words) in [
        ("text", &["±", "2026", "fewer than three seeds", "95 % interval"][..]),
        ("markdown", &["| model | backend | seeds | pairs |", "| ---"]),
        ("latex", &["\\begin{tabular}{llrr}", "\\toprule", "$\\pm$", "runs/1-clm"]),
        ("csv", &["model,backend,protocol", "\nruns/1-clm,causal,2026,2026,"]),
    ] {
        let text = compare(&["--format", format]);
        assert!(words.iter().all(|word| text.contains(word)), "{format}: {text}");
    }
    let json: Value = serde_json::from_str(&compare(&["--json"])).unwrap();
    assert_eq!(json, found);
    // The paper's table of these runs is all gaps.
    let text = succeeds(toy.path(), &["compare", runs[0]]);
    assert!(text.contains("–") && text.contains("not there: blimp; ewok; supplement; glue: 0 of 7 tasks"), "{text}");
    refused(toy.path(), &["compare", runs[0], "--tasks", "pair"], &["no task \"pair\"", "did you mean `pairs`"]);
    refused(toy.path(), &["compare", runs[0], runs[0]], &["given twice"]);
    refused(toy.path(), &["compare", "prepared"], &["prepared"]);

    // A changed sweep does not take another recipe's runs for its own.
    let text = String::from_utf8(toy.read("sweep.toml")).unwrap();
    toy.write("sweep.toml", format!("set = [\"optimizer.lr=0.01\"]\n{text}"));
    refused(toy.path(), &["sweep", "sweep.toml", "--quiet"], &["runs/1-clm_seed-1", "optimizer.lr", "another recipe"]);
    toy.write("sweep.toml", text.replace("seeds", "seed"));
    refused(toy.path(), &["sweep", "sweep.toml"], &["sweep.toml", "line 4", "did you mean `seeds`?"]);

    // A submission of such a run lacks nearly all of it, and says so.
    let asked = ["submit", runs[0], "--track", "strict-small", "--backend", "causal", "--data", "pairs", "--quiet"];
    let output = antlm(toy.path(), &asked);
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&output).contains("19 of 19 milestones are not there") && stdout(&output).contains("osf.io/ryjfm"));
    assert!(stderr(&output).contains("nothing was written") && !toy.file("results").exists(), "{}", stderr(&output));
    let asked = [
        "submit",
        runs[0],
        "--track",
        "strict",
        "--backend",
        "causal",
        "--name",
        "toy-0.1",
        "--data",
        "pairs",
        "--quiet",
    ];
    refused(toy.path(), &asked, &["toy-0.1", "stem"]);
}

#[cfg(unix)]
#[test]
fn a_sweep_that_is_stopped_goes_on() {
    let toy = sweep();
    let child =
        command(toy.path(), &["sweep", "sweep.toml", "--quiet"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let (start, log) = (Instant::now(), toy.file("runs/1-clm_seed-1/log.jsonl"));
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 4) {
        assert!(start.elapsed() < Duration::from_secs(60), "no step in a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(stderr(&output).contains("the same command goes on"), "{}", stderr(&output));
    let stopped = states(&toy);
    assert!(["stopped", "trained", "done"].contains(&&stopped[0][..]) && stopped[3] == "new", "{stopped:?}");
    succeeds(toy.path(), &["sweep", "sweep.toml", "--quiet"]);
    assert_eq!(states(&toy), ["done"; 4]);
}
