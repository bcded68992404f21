//! The part of `cargo xtask gpu` that trains and reads small models with the program itself, on the card and on the CPU.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::gpu::{Check, Clock};
use crate::torture::left;

/// Sizes that fill no warp; every objective, dropout where the family has it, averaged weights, several micro-batches a step.
const RECIPES: [(&str, &str); 2] = [
    ("ltg-bert", "base = \"ltg-bert-tiny\"\nschedule = \"1 clm + 1 mlm\"\noptimizer.ema_decay = 0.9\n"),
    ("llama", "base = \"babyllama-tiny\"\nschedule = \"1 mntp + 1 clm\"\n"),
];
const SIZES: &str = "version = 1\nmodel.hidden = 36\nmodel.heads = 3\nmodel.intermediate = 40\n\
                     model.vocab_size = 300\n";
const ON_A_CARD: &str = "seq_len = 32\nmodel.layers = 2\nbatch.segments = 8\nbatch.micro_tokens = 130\n\
                         dev.max_segments = 8\n[checkpoints]\nevery = 5\n";
/// An emulated card computes some hundred tokens a second.
const EMULATED: &str = "seq_len = 16\nmodel.layers = 1\nbatch.segments = 8\nbatch.micro_tokens = 50\n\
                        dev.max_segments = 8\n[checkpoints]\nevery = 5\n";
/// The card that all of it is about.
pub const CARD: &str = "cuda:0";

/// The program, and a folder with text, recipes and runs.
struct Toy {
    antlm: PathBuf,
    folder: PathBuf,
    clock: Clock,
}

impl Toy {
    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = self.clock.command(&self.antlm)?;
        command.args(args).current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    /// What it prints.
    fn succeeds(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args)?.output().with_context(|| self.antlm.display().to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "antlm {}: {}: {said}", args.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn train<'a>(recipe: &'a str, run: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["train", recipe, "--text", "text.txt", "--dev", "dev.txt", "--quiet", "--out", run], more].concat()
    }

    /// Starts a training and kills it when it has done so many steps. It must not have ended by then.
    fn killed(&self, args: &[&str], run: &str, steps: usize) -> Result<()> {
        let words = self.folder.join(format!("{run}.txt"));
        // Not by `command`: what is killed must be the program itself.
        let mut child = Command::new(&self.antlm);
        child.args(args).current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = child.stderr(fs::File::create(&words)?).spawn()?;
        let (log, began) = (self.folder.join(run).join("log.jsonl"), Instant::now());
        loop {
            let done = fs::read_to_string(&log).unwrap_or_default().matches("\"event\":\"step\"").count();
            if done >= steps {
                break;
            }
            if let Some(status) = child.try_wait()? {
                let said = fs::read_to_string(&words)?;
                bail!("antlm {} ended ({status}) before step {steps}: {}", args.join(" "), said.trim());
            }
            if began.elapsed() > Duration::from_secs(60) {
                child.kill()?;
                child.wait()?;
                bail!("antlm {} does not get to step {steps} in a minute", args.join(" "));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill()?;
        child.wait()?;
        let ended = fs::read_to_string(&log)?.contains("\"event\":\"end\"");
        ensure!(!ended, "antlm {} had ended before it was killed", args.join(" "));
        Ok(())
    }

    fn same(&self, a: &str, b: &str) -> Result<()> {
        let [of_a, of_b] = [a, b].map(|run| left(&self.folder.join(run)));
        let (of_a, of_b) = (of_a?, of_b?);
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        ensure!(names(&of_a) == names(&of_b), "{a} has {:?}, and {b} {:?}", names(&of_a), names(&of_b));
        match of_a.iter().find(|(path, bytes)| of_b[*path] != **bytes) {
            Some((path, _)) => bail!("{} differs between {a} and {b}", path.display()),
            None => Ok(()),
        }
    }

    /// The last dev loss by each backend, and how many steps there were.
    fn losses(&self, run: &str) -> Result<Value> {
        let mut losses = serde_json::Map::new();
        for line in fs::read_to_string(self.folder.join(run).join("log.jsonl"))?.lines() {
            let event: Value = serde_json::from_str(line)?;
            match event["event"].as_str() {
                Some("dev") => drop(losses.insert(event["backend"].to_string(), event["loss"].clone())),
                Some("end") => drop(losses.insert("steps".into(), event["step"].clone())),
                _ => {}
            }
        }
        ensure!(losses.len() == 4, "{run} did not end with dev losses");
        Ok(losses.into())
    }
}

/// Does all of it.
pub fn run(antlm: &Path, folder: &Path, emulated: bool, clock: Clock, note: &mut dyn FnMut(Check)) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let antlm = antlm.canonicalize().with_context(|| antlm.display().to_string())?;
    let toy = Toy { antlm, folder: folder.to_owned(), clock };
    let (words, sizes) = if emulated { ("200", EMULATED) } else { ("4000", ON_A_CARD) };
    toy.succeeds(&["sample-text", "--words", words, "--seed", "3", "--out", "text.txt"])?;
    toy.succeeds(&["sample-text", "--words", "100", "--seed", "4", "--out", "dev.txt"])?;
    for (name, recipe) in RECIPES {
        fs::write(folder.join(format!("{name}.toml")), format!("{recipe}{SIZES}{sizes}"))?;
    }
    let mut check = |name: String, work: &dyn Fn() -> Result<String>| {
        let began = Instant::now();
        note(Check::of("runs", name, began, work()));
    };
    for (family, _) in RECIPES {
        for precision in ["f32", "bf16"] {
            let what = format!("{family} in {precision}");
            check(format!("{what}: the same bits twice, and after SIGKILL"), &|| again(&toy, family, precision));
        }
        check(format!("{family}: as on the CPU, and moving between them"), &|| moves(&toy, family));
    }
    check("score, eval, generate: as on the CPU".into(), &|| reads(&toy));
    check("finetune: as on the CPU".into(), &|| tunes(&toy));
    Ok(())
}

/// Two runs, and one that is killed and goes on, have the same bytes.
fn again(toy: &Toy, family: &str, precision: &str) -> Result<String> {
    let recipe = format!("{family}.toml");
    let [first, second, killed] = ["first", "second", "killed"].map(|name| format!("{family}-{precision}-{name}"));
    let set = format!("--set=precision={precision}");
    let args = |run| Toy::train(&recipe, run, &[&set, "--device", CARD]);
    toy.succeeds(&args(&first))?;
    toy.succeeds(&args(&second))?;
    toy.same(&first, &second)?;
    toy.killed(&args(&killed), &killed, 7)?;
    toy.succeeds(&["train", "--resume", &killed, "--quiet", "--device", CARD])?;
    toy.same(&first, &killed)?;
    let arithmetic = format!("\"precision\":{:?}", if precision == "bf16" { "bf16-cuda" } else { "f32" });
    let files = left(&toy.folder.join(&first))?;
    let state = files.iter().find(|(path, _)| path.ends_with("state.json")).context("no checkpoint")?;
    let state: String = String::from_utf8_lossy(state.1).split_whitespace().collect();
    ensure!(state.contains(&arithmetic), "the checkpoint does not say {arithmetic}");
    Ok(format!("{} files of each", files.len()))
}

/// Losses on the card, on the CPU, and of a run that goes from the one to the other are near each other. The other way
/// round, and back, goes a test of the part `steps`: the CPU is too quick to be stopped from outside.
fn moves(toy: &Toy, family: &str) -> Result<String> {
    let recipe = format!("{family}.toml");
    let [card, cpu, moved] = ["f32-first", "cpu", "moved"].map(|name| format!("{family}-{name}"));
    toy.succeeds(&Toy::train(&recipe, &cpu, &["--set=precision=f32", "--device", "cpu"]))?;
    toy.killed(&Toy::train(&recipe, &moved, &["--set=precision=f32", "--device", CARD]), &moved, 6)?;
    toy.succeeds(&["train", "--resume", &moved, "--quiet", "--device", "cpu"])?;
    let (losses, mut most) = (toy.losses(&cpu)?, 0.0f64);
    for other in [&card, &moved] {
        let found = near(&losses, &toy.losses(other)?, LOSSES).with_context(|| format!("{other} against {cpu}"))?;
        most = most.max(found);
    }
    Ok(format!("dev losses differ by {most:.1e} at the most"))
}

/// What reads a model on the card says what it says on the CPU.
fn reads(toy: &Toy) -> Result<String> {
    toy.succeeds(&["sample-pairs", "--per-phenomenon", "2", "--out", "pairs"])?;
    fs::write(toy.folder.join("sentences.txt"), "The dogs sleep.\nA girl who sings knows the old men.\n")?;
    let mut most = 0.0f64;
    for (family, _) in RECIPES {
        let run = format!("{family}-cpu");
        let on = |device: &str| -> Result<[Value; 3]> {
            let mut score = toy.command(&["score", &run, "--json", "--quiet", "--device", device])?;
            let output = score.stdin(fs::File::open(toy.folder.join("sentences.txt"))?).output()?;
            ensure!(output.status.success(), "antlm score: {}", String::from_utf8_lossy(&output.stderr));
            let scores = String::from_utf8_lossy(&output.stdout).into_owned();
            let items = format!("{run}-{}.jsonl", device.replace(':', "-"));
            let eval = ["eval", &run, "--data", "pairs", "--items", &items, "--again", "--quiet", "--json"];
            toy.succeeds(&[&eval[..], &["--device", device]].concat())?;
            let items = fs::read_to_string(toy.folder.join(items))?;
            let write = ["generate", &run, "--prompt", "The dogs", "--temperature", "0", "--max-tokens", "8"];
            let text = toy.succeeds(&[&write[..], &["--json", "--quiet", "--device", device]].concat())?;
            Ok([lines(&scores)?, lines(&items)?, lines(&text)?])
        };
        let (cpu, card) = (on("cpu")?, on(CARD)?);
        for (what, (cpu, card)) in ["score", "eval", "generate"].iter().zip(cpu.iter().zip(&card)) {
            most = most.max(near(cpu, card, SCORES).with_context(|| format!("{what} of {run}"))?);
        }
    }
    Ok(format!("numbers differ by {most:.1e} at the most"))
}

/// A fine-tuning that learns a task has the same scores and choices.
fn tunes(toy: &Toy) -> Result<String> {
    fs::create_dir_all(toy.folder.join("glue"))?;
    let line = |i: usize| {
        let (word, label) = if i.is_multiple_of(2) { ("dogs", 0) } else { ("girls", 1) };
        format!("{{\"sentence1\": \"The {word} sleep.\", \"sentence2\": \"They sleep.\", \"label\": {label}}}\n")
    };
    for (name, rows) in [("train", 48), ("valid", 10)] {
        fs::write(toy.folder.join(format!("glue/rte.{name}.jsonl")), (0..rows).map(line).collect::<String>())?;
    }
    for (family, _) in RECIPES {
        let run = format!("{family}-cpu");
        let on = |device: &str| -> Result<Value> {
            let tune = ["finetune", &run, "--task", "rte", "--data", "glue", "--again", "--quiet", "--json"];
            let set = ["--set", "epochs=6", "--set", "batch=8", "--set", "lr=0.003"];
            lines(&toy.succeeds(&[&tune[..], &set, &["--device", device]].concat())?)
        };
        let (cpu, card) = (on("cpu")?, on(CARD)?);
        near(&cpu, &card, SCORES).with_context(|| format!("{run}, fine-tuned"))?;
        let score = cpu[0]["tasks"][0]["mean"].as_f64().context("no score")?;
        ensure!(score == 100.0, "{run}: nothing was learnt, {score} of 100, so nothing is compared");
    }
    Ok("the same scores".into())
}

/// By how much of itself a dev loss may be off after a whole run: rounding grows from step to step.
const LOSSES: f64 = 1e-3;
/// By how much a log-probability may be off, of itself or of 1.
const SCORES: f64 = 1e-4;

/// The largest difference of numbers, relative to them or to 1. All else has to be the same.
fn near(a: &Value, b: &Value, bound: f64) -> Result<f64> {
    let all = |pairs: Vec<(String, &Value, &Value)>| {
        let most = pairs.into_iter().try_fold(0.0f64, |most, (at, a, b)| Ok(most.max(near(a, b, bound).context(at)?)));
        most as Result<f64>
    };
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            let (x, y) = (x.as_f64().unwrap_or(f64::NAN), y.as_f64().unwrap_or(f64::NAN));
            let off = (x - y).abs() / x.abs().max(1.0);
            // Not `off > bound`: NaN must fail.
            if off <= bound { Ok(off) } else { bail!("{x} and {y}") }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            all(x.iter().zip(y).enumerate().map(|(i, (x, y))| (i.to_string(), x, y)).collect())
        }
        (Value::Object(x), Value::Object(y)) if x.keys().eq(y.keys()) => {
            all(x.iter().zip(y).map(|((key, x), (_, y))| (key.clone(), x, y)).collect())
        }
        _ if a == b => Ok(0.0),
        _ => bail!("{a} and {b}"),
    }
}

fn lines(text: &str) -> Result<Value> {
    ensure!(!text.trim().is_empty(), "nothing was printed");
    text.lines().map(|line| serde_json::from_str::<Value>(line).with_context(|| line.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn near_is_near_in_every_number() {
        let a = json!({ "x": [1.0, 200.0], "name": "n" });
        assert_eq!(near(&a, &a, 0.0).unwrap(), 0.0);
        assert!((near(&a, &json!({ "x": [1.0, 200.1], "name": "n" }), 1e-3).unwrap() - 5e-4).abs() < 1e-9);
        for other in [
            json!({ "x": [1.0, 201.0], "name": "n" }),
            json!({ "x": [1.0], "name": "n" }),
            json!({ "x": [1.0, 200.0], "name": "m" }),
            json!({ "x": [1.0, null], "name": "n" }),
            json!({ "x": [1.0, 200.0] }),
        ] {
            assert!(near(&a, &other, 1e-3).is_err(), "{other}");
        }
        assert!(
            format!("{:#}", near(&a, &json!({ "x": [1.0, 201.0], "name": "n" }), 1e-3).unwrap_err())
                .contains("x: 1: 200")
        );
    }
}
