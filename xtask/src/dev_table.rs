//! `cargo xtask dev-table`: trains the tiny recipes on a sample of a corpus and prints their dev losses side by side.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::texts;

/// Trains the tiny recipes on a sample of a corpus and prints a table of their dev losses
#[derive(Args)]
#[command(after_help = "\
Example:
  cargo xtask dev-table --text corpus/train --dev corpus/dev --out target/dev-table
The sample is the beginning of every text file, each with the same share of its words. A run in DIR that is finished
is used as it is, one that was stopped goes on; delete DIR after a change that changes results.")]
pub struct Options {
    #[command(flatten)]
    runs: Runs,
    /// ltg-bert, babyllama
    #[arg(long, value_delimiter = ',', default_value = "ltg-bert,babyllama")]
    families: Vec<String>,
    /// Seed of the runs (default: the recipes')
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// What runs on a sample of a corpus need.
#[derive(Args)]
pub struct Runs {
    /// Files and folders of plain text (.txt, .train)
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    text: Vec<PathBuf>,
    /// Text for the dev loss
    #[arg(long, value_name = "PATH")]
    dev: PathBuf,
    /// Words of the sample, about
    #[arg(long, value_name = "N", default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..))]
    words: u64,
    /// Where the sample and the runs go
    #[arg(long, value_name = "DIR", default_value = "target/dev-table")]
    out: PathBuf,
    /// Threads of each run (default: all)
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
}

/// The backends by which dev losses are measured.
pub const BACKENDS: [&str; 3] = ["causal", "mlm", "mntp"];

/// The four recipes of a family: AntLM, AntLM with mntp, clm only, mlm only.
fn recipes(family: &str) -> Result<[String; 4]> {
    let alone = match family {
        "ltg-bert" => ["ltg-bert-clm-tiny", "ltg-bert-tiny"],
        "babyllama" => ["babyllama-tiny", "babyllama-mlm-tiny"],
        _ => bail!("no family {family:?}: there are ltg-bert and babyllama"),
    };
    let [clm, mlm] = alone.map(str::to_owned);
    Ok([format!("antlm-{family}-tiny"), format!("antlm-mntp-{family}-tiny"), clm, mlm])
}

/// Does all of it.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let families: Vec<[String; 4]> = options.families.iter().map(|family| recipes(family)).collect::<Result<_>>()?;
    let text = text(&options.runs)?;
    let antlm = crate::build_antlm(root, &[])?;
    for (family, recipes) in options.families.iter().zip(families) {
        let logs: Vec<Log> = recipes
            .iter()
            .map(|recipe| train(&antlm, recipe, &text, options.seed, None, &options.runs))
            .collect::<Result<_>>()?;
        println!("\n{}", table(family, &logs)?);
    }
    Ok(())
}

/// The folder of the sample, made now unless it is there. What DIR was made for is in its `settings.json`.
pub fn text(options: &Runs) -> Result<PathBuf> {
    let (folder, settings) = (options.out.join("text"), options.out.join("settings.json"));
    let wanted = json!({ "text": options.text, "dev": options.dev, "words": options.words });
    if let Ok(found) = fs::read_to_string(&settings) {
        if serde_json::from_str::<Value>(&found).ok().as_ref() != Some(&wanted) {
            let place = options.out.display();
            bail!("{place}: made for another --text, --dev or --words (settings.json); give another --out");
        }
        return Ok(folder);
    }
    let words = texts::sample(&texts::files(&options.text)?, options.words, &folder)?;
    println!("{}: {words} words", folder.display());
    fs::write(&settings, format!("{wanted:#}\n")).with_context(|| settings.display().to_string())?;
    Ok(folder)
}

/// Trains a recipe, goes on with a run that was stopped, or takes one that is finished. Seed and precision are the recipe's
/// where none is given.
pub fn train(
    antlm: &Path,
    recipe: &str,
    text: &Path,
    seed: Option<u64>,
    precision: Option<&str>,
    options: &Runs,
) -> Result<Log> {
    let of_seed = seed.map_or(String::new(), |seed| format!("-seed-{seed}"));
    let of_precision = precision.map_or(String::new(), |precision| format!("-{precision}"));
    let run = options.out.join(format!("{recipe}{of_seed}{of_precision}"));
    let found = Log::read(&run)?;
    if found.finished {
        println!("{}: finished already", run.display());
        return Ok(found);
    }
    println!("{}", run.display());
    let mut command = Command::new(antlm);
    command.arg("train");
    if run.join("recipe.toml").exists() {
        command.arg("--resume").arg(&run);
    } else {
        command.arg(recipe).arg("--text").arg(text).arg("--dev").arg(&options.dev).arg("--out").arg(&run);
        if let Some(seed) = seed {
            command.arg(format!("--seed={seed}"));
        }
        if let Some(precision) = precision {
            command.arg(format!("--set=precision={precision}"));
        }
    }
    if let Some(threads) = options.threads {
        command.arg(format!("--threads={threads}"));
    }
    let status = command.status().with_context(|| antlm.display().to_string())?;
    if !status.success() {
        bail!("antlm train {recipe}: {status}");
    }
    Log::read(&run)
}

/// What the table needs of a `log.jsonl`.
#[derive(Debug, Default, PartialEq)]
pub struct Log {
    recipe: String,
    schedule: String,
    /// By backend: the loss at the end of every epoch.
    pub losses: [Vec<f64>; 3],
    /// By backend: the loss of a model that knows token frequencies only.
    unigram: [f64; 3],
    finished: bool,
}

impl Log {
    /// A log that is not there is empty.
    fn read(run: &Path) -> Result<Log> {
        let path = run.join("log.jsonl");
        if !path.exists() {
            return Ok(Log::default());
        }
        Log::parse(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Log> {
        let mut log = Log::default();
        for line in text.lines() {
            let event: Value = serde_json::from_str(line)?;
            match event["event"].as_str().unwrap_or_default() {
                "start" => {
                    log.recipe = event["recipe"].as_str().unwrap_or_default().into();
                    log.schedule = event["schedule"].as_str().unwrap_or_default().into();
                }
                "dev" if event["at"] == "epoch" || event["at"] == "block" => {
                    let backend = BACKENDS.iter().position(|name| event["backend"] == *name);
                    let backend = backend.context("a backend without a name")?;
                    log.losses[backend].push(event["loss"].as_f64().context("no loss")?);
                    log.unigram[backend] = event["unigram"].as_f64().context("no unigram loss")?;
                }
                "end" => log.finished = true,
                _ => {}
            }
        }
        Ok(log)
    }
}

/// A row a run: each backend's dev loss at the end of the first, the last but one and the last epoch. In the AntLM runs
/// these are the ends of the blocks.
fn table(family: &str, logs: &[Log]) -> Result<String> {
    let mut text = format!(
        "{family}, tiny: dev loss in nats per target after the first epoch, before the last epoch -> end\n\n\
         | run | schedule | causal | mlm | mntp |\n|---|---|---|---|---|\n"
    );
    for log in logs {
        let mut row = vec![log.recipe.clone(), log.schedule.clone()];
        for (losses, unigram) in log.losses.iter().zip(log.unigram) {
            let [first, .., before, last] = losses[..] else { bail!("{}: fewer than three epochs", log.recipe) };
            let [first, before, last] = [first, before, last].map(|loss| mark(loss, unigram));
            row.push(format!("{first}, {before} -> {last}"));
        }
        text += &format!("| {} |\n", row.join(" | "));
    }
    let unigram = logs.first().map_or([0.0; 3], |log| log.unigram);
    let [causal, mlm, mntp] = unigram.map(|loss| format!("{loss:.2}"));
    text += &format!("| token frequencies (unigram) | | {causal} | {mlm} | {mntp} |\n");
    Ok(text + "\n\\* worse than token frequencies\n")
}

fn mark(loss: f64, unigram: f64) -> String {
    format!("{loss:.2}{}", if loss > unigram { "\\*" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_and_block_ends_make_a_row() {
        let mut text = r#"{"event":"start","recipe":"r","schedule":"1 clm + 1 mlm + 1 clm"}"#.to_owned() + "\n";
        let dev = |at: &str, backend: &str, loss: f64| {
            format!(r#"{{"event":"dev","at":"{at}","backend":"{backend}","loss":{loss},"unigram":6.5}}"#) + "\n"
        };
        for (at, loss) in [("block", 5.0), ("switch", 9.0), ("epoch", 8.0), ("block", 4.5)] {
            for backend in BACKENDS {
                text += &dev(at, backend, loss);
            }
        }
        let unfinished = Log::parse(&text).unwrap();
        assert!(!unfinished.finished);
        let log = Log::parse(&(text + "{\"event\":\"end\"}\n")).unwrap();
        assert!(log.finished);
        let table = table("f", &[log]).unwrap();
        let cell = "5.00, 8.00\\* -> 4.50";
        assert!(table.contains(&format!("| r | 1 clm + 1 mlm + 1 clm | {cell} | {cell} | {cell} |\n")), "{table}");
        assert!(table.contains("| 6.50 | 6.50 | 6.50 |"));
    }

    #[test]
    fn families_are_known_by_name() {
        assert_eq!(recipes("babyllama").unwrap()[2], "babyllama-tiny");
        assert!(recipes("bert").is_err());
    }
}
