//! Real signals to real processes: save and go on, stop in the midst of a dev evaluation, stop at once, the time limit,
//! an evaluation and an export that end early. The rest is in `resume` (training), `command_line` (preparing),
//! `finetune`, `compare` (sweeps) and `reading` (generating).
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::common::{Toy, command, stderr, succeeds, tree, wait_for_lines, wait_until};

fn kill(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// A toy whose dev evaluations take some seconds: `train` with `--dev dev.txt` and all of its segments.
fn toy_with_dev() -> Toy {
    let toy = Toy::new();
    succeeds(toy.path(), &["sample-text", "--words", "60000", "--seed", "4", "--out", "dev.txt"]);
    toy
}

/// Only the ends of blocks, and what a signal asks for, are saved.
const DEV: [&str; 8] = [
    "--dev",
    "dev.txt",
    "--set",
    "dev.max_segments=0",
    "--set",
    "schedule=1 clm + 1 mntp",
    "--set",
    "checkpoints.every=100000",
];

fn start(run: &str) -> Vec<&str> {
    [&["train", "ltg.toml", "--text", "text.txt", "--out", run, "--quiet"][..], &DEV].concat()
}

fn lines(toy: &Toy, file: &str, what: &str) -> usize {
    let text = std::fs::read_to_string(toy.file(file)).unwrap_or_default();
    text.lines().filter(|line| line.contains(what)).count()
}

/// Logs and kept checkpoints of two runs.
fn assert_same(toy: &Toy, whole: &str, run: &str) {
    assert!(toy.read(&format!("{whole}/log.jsonl")) == toy.read(&format!("{run}/log.jsonl")), "{run}: logs differ");
    assert_eq!(toy.kept(whole), toy.kept(run));
    for step in toy.kept(whole) {
        for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
            let name = format!("checkpoints/{step}/{file}");
            assert!(toy.read(&format!("{whole}/{name}")) == toy.read(&format!("{run}/{name}")), "{run}: {name}");
        }
    }
}

/// SIGUSR1 saves within a dev evaluation and between steps, and changes nothing else; SIGTERM does not wait for the dev
/// evaluation's end, and what comes after is as if it had.
#[test]
fn saved_and_stopped_in_a_dev_evaluation() {
    let toy = toy_with_dev();
    succeeds(toy.path(), &start("whole"));

    let mut child = command(toy.path(), &start("run")).stderr(Stdio::piped()).spawn().unwrap();
    assert!(wait_for_lines(&mut child, &toy.file("run/log.jsonl"), 1));
    kill(&child, "-USR1");
    let saved = |step: usize| toy.file(&format!("run/checkpoints/step-{step:09}/state.json"));
    assert!(wait_until(&mut child, || saved(0).exists()), "the run ended");
    assert_eq!(lines(&toy, "run/log.jsonl", "\"dev\""), 0, "it waited for the dev evaluation's end");
    kill(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    assert_eq!(lines(&toy, "run/log.jsonl", "\"dev\""), 0, "it waited for the dev evaluation's end");

    let resume = ["train", "--resume", "run", "--quiet"];
    let mut child = command(toy.path(), &resume).stderr(Stdio::piped()).spawn().unwrap();
    let steps = || lines(&toy, "run/log.jsonl", "\"step\",");
    assert!(wait_until(&mut child, || steps() >= 2), "the run ended");
    kill(&child, "-USR1");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let timing = String::from_utf8(toy.read("run/timing.jsonl")).unwrap();
    let asked = timing.lines().filter(|line| line.contains("\"checkpoint\"") && line.contains("\"kept\":false"));
    let asked = asked.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap());
    assert!(asked.filter(|step| *step > 0).count() == 1, "{timing}");
    assert_same(&toy, "whole", "run");
}

/// The second Ctrl-C ends a step that the first would have waited for, and saves nothing.
#[test]
fn a_second_signal_ends_at_once() {
    let toy = Toy::new();
    // One document: no dev text, so that the first step comes first; all of it is one batch of some seconds.
    let text = String::from_utf8(toy.read("text.txt")).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    toy.write("text.txt", [&text[..]; 8].join(" "));
    let sizes = ["model.hidden=64", "batch.segments=10000", "batch.micro_tokens=1000000", "seq_len=128"];
    let sizes: Vec<&str> = sizes.iter().flat_map(|set| ["--set", set]).collect();
    let args = [&["train", "ltg.toml", "--text", "text.txt", "--out", "run", "--quiet"][..], &sizes].concat();
    let mut child = command(toy.path(), &args).stderr(Stdio::piped()).spawn().unwrap();
    assert!(wait_for_lines(&mut child, &toy.file("run/log.jsonl"), 1));
    std::thread::sleep(Duration::from_millis(300));
    kill(&child, "-INT");
    std::thread::sleep(Duration::from_millis(50));
    kill(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(130), ""));
    assert!(!toy.file("run/checkpoints").exists() && lines(&toy, "run/log.jsonl", "") == 1);
}

/// Stopped by the time limit again and again, as in a queue, a run ends as in one go; the code says when to go on.
#[test]
fn the_time_limit_stops_and_saves() {
    let toy = toy_with_dev();
    succeeds(toy.path(), &start("whole"));
    let (mut args, mut stops) = (start("run"), 0);
    loop {
        args.extend(["--stop-after", "1s"]);
        let output = command(toy.path(), &args).output().unwrap();
        if output.status.code() == Some(0) {
            break;
        }
        assert_eq!(output.status.code(), Some(142), "{}", stderr(&output));
        let message = stderr(&output);
        assert!(message.contains("stopped by the time limit") && message.contains("--resume run"), "{message}");
        stops += 1;
        // A dev evaluation that does not fit into the time would be begun again for ever.
        args = vec!["train", "--resume", "run", "--quiet"];
        if stops > 2 {
            succeeds(toy.path(), &args);
            break;
        }
    }
    assert!(stops > 0, "the run took less than a second");
    assert_eq!(lines(&toy, "run/timing.jsonl", "\"stop\""), stops);
    assert_same(&toy, "whole", "run");
}

/// What is done is kept, what is not leaves nothing; the file of items is whole or absent.
#[test]
fn an_evaluation_that_is_stopped_keeps_what_is_done() {
    let toy = Toy::new();
    toy.train("ltg.toml", "run", &["--set", "schedule=1 clm + 1 mntp"]);
    succeeds(toy.path(), &["sample-pairs", "--per-phenomenon", "100", "--out", "pairs"]);
    for name in toy.names("pairs") {
        let pairs = toy.read(&format!("pairs/{name}"));
        toy.write(&format!("pairs/{name}"), pairs.repeat(3));
    }
    let folder = format!("run/results/{}", toy.names("run/checkpoints").last().unwrap());
    let args = ["eval", "run", "--data", "pairs", "--items", "items.jsonl", "--quiet"];
    let mut child = command(toy.path(), &args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let first = toy.file(&format!("{folder}/pairs.causal.2026.json"));
    assert!(wait_until(&mut child, || first.exists()), "it ended before");
    // Not what an evaluation does not stop for.
    kill(&child, "-USR1");
    kill(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    assert!(stderr(&output).contains("finished tasks are in RUN/results/"), "{}", stderr(&output));
    assert_eq!(toy.names(&folder), ["pairs.causal.2026.json"]);
    assert!(toy.names(".").iter().all(|name| !name.contains("items")), "{:?}", toy.names("."));
    let json = succeeds(toy.path(), &["eval", "run", "--data", "pairs", "--quiet", "--json"]);
    assert_eq!(json.lines().count(), 2);
    assert_eq!(toy.names(&folder), ["pairs.causal.2026.json", "pairs.mntp.2026.json"]);
}

/// An export of many milestones stops between two files and leaves nothing; SIGUSR1 does not matter to it.
#[test]
fn an_export_that_is_stopped_leaves_nothing() {
    let toy = Toy::new();
    let marks: Vec<String> = (1..=40).map(|i| (200 * i).to_string()).collect();
    toy.train("ltg.toml", "run", &["--set", &format!("checkpoints.milestones=[{}]", marks.join(","))]);
    let before = tree(toy.path());
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut child = command(toy.path(), &["export", "run", "--milestones", "--out", "hub"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The handlers are in place before the first word about progress.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().starts_with("1 of 41: "));
        kill(&child, "-USR1");
        kill(&child, signal);
        let said: Vec<String> = lines.map(Result::unwrap).collect();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{said:?}");
        let last = said.last().unwrap();
        assert!(last.starts_with("antlm: stopped by SIG") && last.contains("nothing was written"), "{said:?}");
        assert!(tree(toy.path()) == before, "{:?}", toy.names("."));
    }
    succeeds(toy.path(), &["export", "run", "--milestones", "--out", "hub", "--quiet"]);
    assert_eq!(toy.names("hub").len(), 41);
}
