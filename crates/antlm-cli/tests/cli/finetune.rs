//! `antlm finetune` from outside: its table, JSON and results, what is missing, wrong input, Ctrl-C.

use std::process::Command;

use serde_json::Value;

use super::common::{Toy, antlm, command, is_refusal, refused, stderr, stdout, succeeds, wait_until};

/// A run `run` (LTG-BERT, masks and all) and `glue/` with rows of RTE, whose label is a word, and of MRPC.
fn toy() -> Toy {
    let toy = Toy::new();
    toy.train("ltg.toml", "run", &["--set", "schedule=1 mlm"]);
    std::fs::create_dir(toy.file("glue")).unwrap();
    for (task, rows) in [("rte.train", 40), ("rte.valid", 10), ("mrpc.train", 20), ("mrpc.valid", 6)] {
        toy.write(&format!("glue/{task}.jsonl"), lines(rows));
    }
    toy
}

fn lines(rows: usize) -> String {
    let line = |i: usize| {
        let (word, label) = if i.is_multiple_of(2) { ("dogs", 0) } else { ("girls", 1) };
        format!(
            "{{\"sentence1\": \"The {word} sleep {i} times.\", \"sentence2\": \"They sleep.\", \"label\": {label}}}\n"
        )
    };
    (0..rows).map(line).collect()
}

const FEW: [&str; 6] = ["--data", "glue", "--set", "epochs=2", "--set", "batch=8"];

#[test]
fn a_table_and_results() {
    let toy = toy();
    let args = [&["finetune", "run", "--task", "rte,mrpc", "--seed", "1", "2"][..], &FEW].concat();
    let output = antlm(toy.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (table, notes) = (stdout(&output), stderr(&output));
    for word in ["task", "rte", "mrpc", "accuracy", "F1", "±", "no mean", "preset 2026"] {
        assert!(table.contains(word), "{table} lacks {word}");
    }
    for word in
        ["rte.train.jsonl: 40 rows", "first token, [CLS], from both sides", "packed without padding", "epoch 2 of 2"]
    {
        assert!(notes.contains(word), "{notes} lacks {word}");
    }
    let checkpoint = toy.names("run/results").remove(0);
    let folder = format!("run/results/{checkpoint}/finetune");
    let names = ["mrpc.2026.seed-1.json", "mrpc.2026.seed-2.json", "rte.2026.seed-1.json", "rte.2026.seed-2.json"];
    assert_eq!(toy.names(&folder), names);
    let result = toy.json(&format!("{folder}/mrpc.2026.seed-1.json"));
    assert_eq!((&result["metric"], &result["n"]), (&"accuracy".into(), &6.into()));
    assert!(result["parts"]["metric"]["f1"]["score"].is_number());
    assert_eq!(result["settings"]["batch"], "8");

    // What is there is not computed again, and the bits are the same if it is, on another number of threads.
    let before = toy.read(&format!("{folder}/rte.2026.seed-1.json"));
    let json = |more: &[&str]| -> Value {
        serde_json::from_str(&succeeds(toy.path(), &[&args[..], &["--json"], more].concat())).unwrap()
    };
    let cached = json(&[]);
    assert_eq!(cached["tasks"][0]["seeds"][0]["cached"], true);
    let again = json(&["--again", "--threads", "1"]);
    assert_eq!(again["tasks"][0]["seeds"][0]["cached"], false);
    assert_eq!(toy.read(&format!("{folder}/rte.2026.seed-1.json")), before);
    let keys: Vec<&String> = again.as_object().unwrap().keys().collect();
    let expected = ["checkpoint", "limit", "mean", "mean_with_f1", "missing", "preset", "reading", "select", "tasks"];
    assert_eq!(keys, expected);
    let seed = &again["tasks"][1]["seeds"][1];
    assert_eq!((&again["tasks"][1]["task"], &seed["seed"]), (&"mrpc".into(), &2.into()));
    assert!(seed["metrics"]["f1"].is_number() && seed["epoch"].is_number() && again["tasks"][1]["sd"].is_number());
    assert!(again["mean"].is_null(), "two tasks are not all");
}

#[test]
fn what_is_missing_is_said() {
    let toy = toy();
    // With `all`: a note, and no failure.
    let all = [&["finetune", "run", "--task", "all", "--limit", "16"][..], &FEW].concat();
    let output = antlm(toy.path(), &all);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("boolq has no boolq.train.jsonl, multirc has no multirc.train.jsonl"));
    assert!(stdout(&output).contains("no mean") && !stdout(&output).contains("boolq"));
    // By name: the others are done, and then it is a failure.
    let output =
        antlm(toy.path(), &[&["finetune", "run", "--task", "wsc,mrpc", "--preset", "2024"][..], &FEW].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&output).contains("mrpc") && stderr(&output).contains("wsc has no wsc.train.jsonl"));
    std::fs::remove_file(toy.file("glue/rte.valid.jsonl")).unwrap();
    refused(
        toy.path(),
        &[&["finetune", "run", "--task", "rte"][..], &FEW].concat(),
        &["glue", "rte has no rte.valid.jsonl"],
    );
}

#[test]
fn wrong_input() {
    let toy = toy();
    let finetune =
        |task: &'static str, more: &[&'static str]| [&["finetune", "run", "--task", task][..], &FEW, more].concat();
    refused(toy.path(), &finetune("rtf", &[]), &["`rtf`", "did you mean `rte`"]);
    refused(toy.path(), &finetune("rte", &["--set", "epoch=3"]), &["--set epoch=3", "did you mean `epochs`"]);
    refused(toy.path(), &finetune("rte", &["--set", "batch=64"]), &["40 rows", "--set batch=40"]);
    refused(toy.path(), &finetune("rte", &["--ema"]), &["no averaged weights"]);
    refused(toy.path(), &["finetune", "run", "--task", "rte", "--data", "nowhere"], &["nowhere", "no such folder"]);
    refused(toy.path(), &["finetune", "glue", "--task", "rte", "--data", "glue"], &["glue"]);
    for args in [finetune("rte", &["--preset", "2023"]), finetune("rte", &["--limit", "0"]), finetune("", &[])] {
        assert_eq!(antlm(toy.path(), &args).status.code(), Some(2), "{args:?}");
    }
    let mut broken: Vec<String> = lines(10).lines().map(str::to_owned).collect();
    broken[6] = "{\"sentence1\": \"a".into();
    toy.write("glue/rte.valid.jsonl", broken.join("\n"));
    refused(toy.path(), &finetune("mrpc,rte", &[]), &["glue/rte.valid.jsonl: line 7"]);
    toy.write("glue/rte.valid.jsonl", "");
    refused(toy.path(), &finetune("rte", &[]), &["rte.valid.jsonl", "empty"]);
    // A result that somebody damaged is not written over.
    succeeds(toy.path(), &finetune("mrpc", &["--quiet"]));
    let checkpoint = toy.names("run/results").remove(0);
    let path = format!("run/results/{checkpoint}/finetune/mrpc.2026.seed-42.json");
    toy.write(&path, "{");
    let args = finetune("mrpc", &[]);
    let output = antlm(toy.path(), &[&args[..], &["--quiet"]].concat());
    is_refusal(&args, &output, &["mrpc.2026.seed-42.json", "line 1"]);
}

/// A model that was trained from the left only: the final token, unless it is told otherwise, and then a note.
#[test]
fn what_is_read_is_said() {
    let toy = toy();
    toy.train("llama.toml", "clm", &["--set", "schedule=1 clm"]);
    let notes = |more: &[&str]| {
        let output = antlm(toy.path(), &[&["finetune", "clm", "--task", "mrpc", "--again"][..], &FEW, more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output)
    };
    assert!(notes(&[]).contains("the last token but one, from the left (causal)"));
    assert!(notes(&["--preset", "2024"]).contains("the last token, from the left (causal)"));
    let first = notes(&["--take", "first"]);
    assert!(first.contains("the first token, <s>, from the left") && first.contains("sees only itself"), "{first}");
    assert!(notes(&["--read", "both"]).contains("the first token, <s>, from both sides"));
}

#[cfg(unix)]
#[test]
fn a_signal_leaves_what_is_done() {
    let toy = toy();
    let args = [
        "finetune",
        "run",
        "--task",
        "mrpc,rte",
        "--data",
        "glue",
        "--quiet",
        "--set",
        "batch=8",
        "--set",
        "mrpc.epochs=1",
        "--set",
        "rte.epochs=10000",
    ];
    let checkpoint = toy.names("run/checkpoints").pop().unwrap();
    let folder = format!("run/results/{checkpoint}/finetune");
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut child = command(toy.path(), &args).stderr(std::process::Stdio::piped()).spawn().unwrap();
        assert!(wait_until(&mut child, || toy.file(&folder).join("mrpc.2026.seed-42.json").is_file()));
        // Not what a fine-tuning stops for.
        for signal in ["-USR1", signal] {
            assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains("finished tasks"), "{}", stderr(&output));
        assert_eq!(toy.names(&folder), ["mrpc.2026.seed-42.json"]);
        // The next one begins anew.
        std::fs::remove_dir_all(toy.file(&folder)).unwrap();
    }
}
