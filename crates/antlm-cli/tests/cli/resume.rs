//! Processes that are killed or asked to stop, and resumed with another number of threads, leave what an uninterrupted
//! run leaves: log, weights, moments and states, byte for byte. The library's tests stop runs at every single point;
//! here it is real signals.
#![cfg(unix)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::common::{Toy, antlm, command, is_refusal, stderr, succeeds, tree, wait_for_lines, wait_until};

/// Starts (or resumes) a run, kills it with SIGKILL when its log has so many lines; false when it ended before.
fn kill_at(toy: &Toy, args: &[&str], run: &str, lines: usize) -> bool {
    let mut child = command(toy.path(), args).spawn().unwrap();
    let there = wait_for_lines(&mut child, &toy.file(&format!("{run}/log.jsonl")), lines);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.signal() == Some(9) || status.success(), "{status}");
    there && status.signal() == Some(9)
}

fn start<'a>(recipe: &'a str, run: &'a str, threads: &'a str) -> [&'a str; 9] {
    ["train", recipe, "--text", "text.txt", "--out", run, "--quiet", "--threads", threads]
}

fn resume<'a>(run: &'a str, threads: &'a str) -> [&'a str; 6] {
    ["train", "--resume", run, "--quiet", "--threads", threads]
}

/// The log, and the checkpoints that stay, of two runs.
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

/// In the first epoch, in the second, after the switch, in the last block; both families.
#[test]
fn killed_several_times() {
    let toy = Toy::new();
    for recipe in ["ltg.toml", "llama.toml"] {
        let (whole, run) = (format!("whole-{recipe}"), format!("run-{recipe}"));
        toy.train(recipe, &whole, &["--threads", "2"]);
        let lines = toy.read(&format!("{whole}/log.jsonl")).iter().filter(|&&byte| byte == b'\n').count();
        let mut kills = 0;
        kills += u32::from(kill_at(&toy, &start(recipe, &run, "1"), &run, lines / 8));
        for (eighth, threads) in [(3, "3"), (5, "2"), (7, "1")] {
            kills += u32::from(kill_at(&toy, &resume(&run, threads), &run, lines * eighth / 8));
        }
        assert!(kills >= 2, "the run was too fast to be killed");
        succeeds(toy.path(), &resume(&run, "2"));
        assert_same(&toy, &whole, &run);
    }
}

/// Killed while a checkpoint is being written, as far as that can be seen from outside; and before there is any.
#[test]
fn killed_at_checkpoints_and_before_the_first() {
    let toy = Toy::new();
    toy.train("ltg.toml", "whole", &["--set", "checkpoints.every=1"]);
    let checkpoints = toy.file("run/checkpoints");
    let being_written = || {
        let Ok(entries) = std::fs::read_dir(&checkpoints) else { return false };
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-"))
    };
    let first = [&start("ltg.toml", "run", "2")[..], &["--set", "checkpoints.every=1"]].concat();
    for attempt in 0..8 {
        let args = if attempt == 0 { first.clone() } else { resume("run", "2").to_vec() };
        let before = std::fs::read(toy.file("run/log.jsonl")).unwrap_or_default().len();
        let mut child = command(toy.path(), &args).spawn().unwrap();
        // Some steps on, so that every attempt gets somewhere.
        let log = toy.file("run/log.jsonl");
        wait_until(&mut child, || {
            std::fs::metadata(&log).is_ok_and(|meta| meta.len() as usize > before + 1000) && being_written()
        });
        child.kill().unwrap();
        child.wait().unwrap();
    }
    succeeds(toy.path(), &resume("run", "1"));
    assert_same(&toy, "whole", "run");

    let early = [&start("ltg.toml", "early", "2")[..], &["--set", "checkpoints.every=0"]].concat();
    let all = [&start("ltg.toml", "all", "2")[..], &["--set", "checkpoints.every=0"]].concat();
    assert!(kill_at(&toy, &early, "early", 5));
    assert!(!toy.file("early/checkpoints").exists(), "killed within the first block");
    is_refusal(&["score"], &antlm(toy.path(), &["score", "early"]), &["early", "no checkpoint"]);
    assert!(succeeds(toy.path(), &["info", "early"]).contains("no checkpoint yet"));
    succeeds(toy.path(), &resume("early", "1"));
    succeeds(toy.path(), &all);
    assert_same(&toy, "all", "early");
}

/// Ctrl-C ends with 130 and SIGTERM with 143, after saving the very step; the message says how to go on.
#[test]
fn asked_to_stop() {
    let toy = Toy::new();
    toy.train("ltg.toml", "whole", &[]);
    let mut args = start("ltg.toml", "run", "2").to_vec();
    for (signal, code, lines) in [("-INT", 130, 1), ("-INT", 130, 30), ("-TERM", 143, 60)] {
        let mut child = command(toy.path(), &args).stderr(Stdio::piped()).spawn().unwrap();
        assert!(wait_for_lines(&mut child, &toy.file("run/log.jsonl"), lines), "it ended before the signal");
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let message = stderr(&output);
        assert!(message.contains("--resume run") && message.lines().count() == 1, "{message}");
        let log = String::from_utf8(toy.read("run/log.jsonl")).unwrap();
        let steps = log.lines().filter(|line| line.contains(r#""event":"step""#)).count();
        assert!(toy.file(&format!("run/checkpoints/step-{steps:09}")).exists(), "not saved: {steps} steps");
        args = resume("run", "3").to_vec();
    }
    succeeds(toy.path(), &resume("run", "1"));
    assert_same(&toy, "whole", "run");

    // A finished run stays as it is, but for the note in timing.jsonl that someone tried.
    let before = tree(&toy.file("run"));
    succeeds(toy.path(), &resume("run", "2"));
    for (path, content) in tree(&toy.file("run")) {
        assert!(path.ends_with("timing.jsonl") || before[&path] == content, "{path:?} changed");
    }
}

/// What a resumed run needs and does not find, through the binary.
#[test]
fn what_cannot_be_resumed() {
    let toy = Toy::new();
    // More tokens are asked for than this text gives, which the advice has to survive.
    toy.train("llama.toml", "run", &["--set", "model.vocab_size=4000", "--set", "schedule=1 clm"]);
    let newest = format!("run/checkpoints/{}", toy.names("run/checkpoints").last().unwrap());
    let kept = toy.read(&format!("{newest}/model.safetensors"));
    toy.write(&format!("{newest}/model.safetensors"), &kept[..100]);
    let output = antlm(toy.path(), &["train", "--resume", "run"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stderr(&output).contains("warning: ") && stderr(&output).contains("model.safetensors"),
        "{}",
        stderr(&output)
    );
    assert!(toy.read(&format!("{newest}/model.safetensors")) == kept, "trained again to the same end");

    std::fs::remove_dir_all(toy.file("prepared")).unwrap();
    let args = ["train", "--resume", "run"];
    let output = antlm(toy.path(), &args);
    is_refusal(&args, &output, &["prepared", "not there any more", "antlm prepare run/recipe.toml"]);
    let message = stderr(&output);
    let place = message.trim().rsplit_once("--out ").unwrap().1;
    succeeds(toy.path(), &["prepare", "run/recipe.toml", "--text", "text.txt", "--out", place, "--quiet"]);
    succeeds(toy.path(), &args);

    toy.write("text.txt", "Another text.\n");
    // What the run needs is not replaced by mistake.
    let again = ["prepare", "run/recipe.toml", "--text", "text.txt", "--out", place, "--quiet"];
    is_refusal(&again, &antlm(toy.path(), &again), &["prepared", "holds other prepared text"]);
    std::fs::remove_dir_all(place).unwrap();
    succeeds(toy.path(), &["prepare", "run/recipe.toml", "--text", "text.txt", "--out", place, "--quiet"]);
    is_refusal(&args, &antlm(toy.path(), &args), &["prepared", "not the text that this run was trained on"]);
}

/// From a run's own recipe comes the same run again, and nothing else unless it is asked for.
#[test]
fn trained_again_from_its_recipe() {
    let toy = Toy::new();
    std::fs::create_dir(toy.file("texts")).unwrap();
    std::fs::rename(toy.file("text.txt"), toy.file("texts/a.txt")).unwrap();
    toy.write("texts/b.txt", "The dogs near the boy sleep.\n");
    let first = ["train", "ltg.toml", "--text", "texts", "--out", "run", "--quiet", "--set", "schedule=1 clm + 1 mntp"];
    succeeds(toy.path(), &first);
    let again = |out: &'static str, more: &[&'static str]| {
        [&["train", "run/recipe.toml", "--out", out, "--quiet"][..], more].concat()
    };
    succeeds(toy.path(), &again("again", &["--threads", "1"]));
    assert_same(&toy, "run", "again");
    assert!(toy.read("run/recipe.toml") == toy.read("again/recipe.toml"));
    // Another seed or rate is another run on the same text.
    succeeds(toy.path(), &again("seed", &["--seed", "5", "--set", "schedule=1 clm"]));

    let refused = |more: &[&'static str], words: &[&str]| {
        let args = again("other", more);
        is_refusal(&args, &antlm(toy.path(), &args), &[&["run/recipe.toml", "--other-data"], words].concat());
        assert!(!toy.file("other").exists());
    };
    refused(&["--set", "model.vocab_size=290"], &["prepared in another way"]);
    let text = toy.read("texts/b.txt");
    toy.write("texts/b.txt", "The dogs near the girl sleep.\n");
    refused(&[], &["other text (b.txt has changed)"]);
    std::fs::remove_file(toy.file("texts/b.txt")).unwrap();
    toy.write("texts/c.txt", "The cats near the girl sleep.\n");
    refused(&[], &["b.txt is not there, c.txt is new"]);
    succeeds(toy.path(), &again("changed", &["--other-data", "--set", "schedule=1 clm"]));
    std::fs::remove_file(toy.file("texts/c.txt")).unwrap();
    toy.write("texts/b.txt", text);

    let recipe = String::from_utf8(toy.read("run/recipe.toml")).unwrap();
    let version = format!("antlm = \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(recipe.contains(&version));
    toy.write("run/recipe.toml", recipe.replace(&version, "antlm = \"0.0.1\""));
    refused(&[], &["antlm 0.0.1"]);
    toy.write("run/recipe.toml", recipe);

    // A run that started from a model does not come again without it.
    let on = ["train", "run/recipe.toml", "--init", "again", "--out", "on", "--quiet", "--set", "schedule=1 clm"];
    succeeds(toy.path(), &on);
    let from =
        |init: &'static str, out: &'static str| ["train", "on/recipe.toml", "--out", out, "--quiet", "--init", init];
    is_refusal(&on, &antlm(toy.path(), &from("seed", "other")), &["another model to start from", "--init"]);
    is_refusal(&on, &antlm(toy.path(), &from("run", "other")[..5]), &["another model to start from"]);
    succeeds(toy.path(), &from("again", "on-again"));
    assert_same(&toy, "on", "on-again");
}
