//! `cargo xtask check-export`: what transformers makes of our exports, against what antlm computes. Needs Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use antlm::eval::score::Scorer;
use antlm::eval::zeroshot::items::Candidate;
use antlm::eval::zeroshot::protocol::Protocol;
use antlm::hub;
use antlm::model::{Model, Rows};
use antlm::objective::{Backend, Batch};
use antlm::recipe::Recipe;
use antlm::text::special::{CLS, MASK};
use antlm::text::tokenizer::Tokenizer;
use antlm::text::{prepare, sample};
use antlm::train::trained::{self, Trained, Weights};
use antlm::train::{checkpoint, input, run};
use antlm_nn::rng::{Rng, Stream};
use antlm_nn::tape::{Pool, Tape};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

/// Loads exports of tiny models with transformers 4.51.3 and the newest 5.x, and compares
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask check-export                                       makes two virtual environments in target/check-export
  cargo xtask check-export --python venv4/bin/python --python venv5/bin/python
  cargo xtask check-export --python … --run runs/first --pairs blimp_filtered/   also 1,000 pairs scored on both sides
For each version: every Auto class loads twice without a tensor that is new or unused, logits and losses are ours
to 1e-4 (causal, bidirectional, padded left and right, several texts in a row), generation, save_pretrained and the
pipelines work, and the tokenizer gives our ids and offsets for 1,000 odd strings.")]
pub struct Options {
    /// A Python that has transformers, torch and safetensors; can be given several times
    #[arg(long, value_name = "PATH")]
    python: Vec<PathBuf>,
    /// A run whose export is checked, too, and scored on --pairs
    #[arg(long, value_name = "RUN")]
    run: Vec<PathBuf>,
    /// A .jsonl file with sentence_good and sentence_bad, or a folder of such files
    #[arg(long, value_name = "PATH")]
    pairs: Option<PathBuf>,
    /// How many pairs, spread over all files
    #[arg(long, value_name = "N", default_value_t = 1000)]
    count: usize,
}

/// The versions that exports are made for.
const VERSIONS: [(&str, &str); 2] = [("4.51.3", "transformers==4.51.3"), ("5", "transformers>=5.2,<6")];

/// Does all of it in `target/check-export`.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let work = root.join("target/check-export");
    let _ = fs::remove_dir_all(work.join("exports"));
    fs::create_dir_all(work.join("exports"))?;
    let mut exports = Vec::new();
    for (name, recipe, set) in [
        ("ltg-bert-mntp", "ltg-bert-tiny", "schedule=1 clm + 1 mntp"),
        ("ltg-bert-mlm", "ltg-bert-tiny", "schedule=1 clm + 1 mlm"),
        ("llama-untied", "babyllama-tiny", "schedule=1 clm + 1 mlm"),
        ("llama-tied-mntp", "babyllama-tiny", "schedule=1 clm + 1 mntp"),
        ("ltg-bert-clm", "ltg-bert-tiny", "schedule=1 clm"),
        ("llama-clm", "babyllama-tiny", "schedule=1 clm"),
    ] {
        let tied = if name.contains("tied-mntp") { "model.tied=true" } else { "seed=5" };
        exports.push(tiny(&work, name, recipe, &[set, tied])?);
    }
    for (number, given) in options.run.iter().enumerate() {
        exports.push(export(&work, &format!("run-{number}"), given)?);
    }
    let pythons = match options.python.is_empty() {
        true => VERSIONS.iter().map(|(name, package)| environment(&work, name, package)).collect::<Result<_>>()?,
        false => options.python.clone(),
    };
    let pairs = options.pairs.as_ref().map(|path| pairs(path, options.count, &work)).transpose()?;
    let mut failed = Vec::new();
    for python in &pythons {
        let scratch = std::path::absolute(work.join("scratch"))?;
        for export in &exports {
            let script = root.join("xtask/check_export/check.py");
            let mut command = Command::new(python);
            let status = command.arg(script).args([&export.folder, &export.expected, &scratch]).status();
            if !status.with_context(|| python.display().to_string())?.success() {
                failed.push(format!("{} with {}", export.folder.display(), python.display()));
            }
        }
        let Some((file, list)) = &pairs else { continue };
        // The given runs, or else the tiny models.
        let chosen = if options.run.is_empty() { &exports[..] } else { &exports[exports.len() - options.run.len()..] };
        for export in chosen {
            if let Err(error) = score(root, python, export, file, list) {
                println!("  FAILED {error:#}");
                failed.push(format!("scores of {} with {}", export.folder.display(), python.display()));
            }
        }
    }
    if !failed.is_empty() {
        bail!("{} of {} checks failed: {}", failed.len(), pythons.len() * exports.len(), failed.join("; "));
    }
    println!("check-export: {} exports with {} Pythons, all fine", exports.len(), pythons.len());
    Ok(())
}

/// One export and what is expected of it.
struct Export {
    run: PathBuf,
    folder: PathBuf,
    expected: PathBuf,
}

/// A fresh virtual environment with this transformers.
fn environment(work: &Path, name: &str, package: &str) -> Result<PathBuf> {
    let folder = work.join(format!("venv-{name}"));
    let _ = fs::remove_dir_all(&folder);
    println!("making {} with {package} (torch is large: minutes)", folder.display());
    let run = |command: &mut Command| -> Result<()> {
        let status = command.status().with_context(|| format!("{command:?}"))?;
        if status.success() { Ok(()) } else { bail!("{command:?} failed") }
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let python = folder.join("bin/python");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "torch", package, "safetensors", "numpy"]))?;
    Ok(python)
}

/// Trains a tiny model on text of our own for a moment, then moves every number a little, so that no bias is 0 and no
/// norm is 1, and exports it.
fn tiny(work: &Path, name: &str, recipe: &str, set: &[&str]) -> Result<Export> {
    let folder = work.join("runs").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let text = folder.join("text.txt");
    sample::write(4000, 3, antlm::text::sample::Part::Train, &mut fs::File::create(&text)?)?;
    let mut all: Vec<String> = [
        "seq_len=32",
        "model.layers=3",
        "model.hidden=48",
        "model.heads=3",
        "model.intermediate=40",
        "model.vocab_size=500",
    ]
    .map(String::from)
    .to_vec();
    all.extend(set.iter().map(ToString::to_string));
    let recipe = Recipe::load(recipe, &all)?;
    let prepared =
        prepare::prepare(&input::options(&recipe, &[text], &[])?, folder.join("prepared"), &mut |_| {}, &|| false)?;
    let out = folder.join("run");
    run::create(&recipe, prepared, &out)?.train(&mut Vec::new(), &|| None)?;
    let mut model = trained::open(&out, Weights::Last)?;
    let rng = Rng::new(11);
    for (i, value) in model.params.iter_mut().enumerate() {
        *value += 0.1 * (rng.unit(Stream::SAMPLE, 0, i as u32 / 1024, i as u32 % 1024) as f32 - 0.5);
    }
    // In the newest one's place, which the log knows.
    fs::remove_dir_all(&model.checkpoint)?;
    checkpoint::save_weights(&out, &model.state, model.model.layout(), &model.params)?;
    export(work, name, &out)
}

/// Exports a run's newest checkpoint, and writes what is expected of it.
fn export(work: &Path, name: &str, run: &Path) -> Result<Export> {
    let folder = std::path::absolute(work.join("exports").join(name))?;
    let options = hub::Options {
        run: run.to_owned(),
        which: hub::Which::Last,
        weights: Weights::Last,
        license: Some("mit".into()),
        out: folder.clone(),
    };
    hub::export(&options, &mut |_, _, _| Ok(()))?;
    let expected = folder.with_extension("json");
    fs::write(&expected, serde_json::to_vec(&expectations(&trained::open(run, Weights::Last)?)?)?)?;
    Ok(Export { run: run.to_owned(), folder, expected })
}

/// What antlm says of some texts, and how it cuts odd strings.
fn expectations(trained: &Trained) -> Result<Value> {
    let Trained { model, params, tokenizer, .. } = trained;
    let texts = ["The dogs sleep.", "A very old cat that the children see every day runs to the small house.", "No!"];
    let ids: Vec<Vec<u32>> =
        texts.iter().map(|text| Ok([vec![CLS], tokenizer.encode(text)?].concat())).collect::<Result<_>>()?;
    let all =
        |causal| -> Result<Vec<Vec<Vec<f32>>>> { ids.iter().map(|ids| logits(model, params, ids, causal)).collect() };
    let reading = hub::config::Reading::of(trained);
    let next = reading.alignment() == hub::config::NEXT_TOKEN;

    // Every third token is masked.
    let masked: Vec<Vec<u32>> = ids
        .iter()
        .map(|ids| ids.iter().enumerate().map(|(k, &id)| if k % 3 == 1 { MASK } else { id }).collect())
        .collect();
    let labels: Vec<Vec<i64>> = ids
        .iter()
        .map(|ids| ids.iter().enumerate().map(|(k, &id)| if k % 3 == 1 { i64::from(id) } else { -100 }).collect())
        .collect();
    let shift = usize::from(next);
    let (mut causal_loss, mut masked_loss) = (Vec::new(), Vec::new());
    for (ids, masked) in ids.iter().zip(&masked) {
        let n = ids.len();
        causal_loss.extend(nll(model, params, ids, (0..n - 1).map(|k| (k, ids[k + 1])).collect(), true)?);
        let targets = (1..n).filter(|k| k % 3 == 1).map(|k| (k - shift, ids[k])).collect();
        masked_loss.extend(nll(model, params, masked, targets, false)?);
    }
    let mean = |all: &[f32]| all.iter().map(|&x| f64::from(x)).sum::<f64>() / all.len() as f64;
    let config = model.config();
    let heads = model
        .layout()
        .tensors()
        .iter()
        .filter(|tensor| tensor.name.starts_with("classifier.") || tensor.name.starts_with("lm_head."));
    let strings = odd_strings(1000, tokenizer);
    Ok(json!({
        "family": config.kind,
        "tied": config.tied,
        "hidden": config.hidden,
        "layers": config.layers,
        "vocab_size": config.vocab_size,
        "alignment": reading.alignment(),
        "special_tokens": config.kind.special_names(),
        "stack_tensors": model.layout().tensors().len() - heads.count(),
        "ids": ids,
        "causal": all(true)?,
        "bidirectional": all(false)?,
        "causal_loss": mean(&causal_loss),
        "masked": {"ids": masked, "labels": labels, "loss": mean(&masked_loss)},
        "strings": strings.iter().map(|text| {
            let (ids, offsets) = tokenizer.encode_with_offsets(text)?;
            Ok(json!({"text": text, "ids": ids, "offsets": offsets}))
        }).collect::<Result<Vec<_>>>()?,
    }))
}

/// Logits at every row of one text: `[n][V]`.
fn logits(model: &Model, params: &[f32], ids: &[u32], causal: bool) -> Result<Vec<Vec<f32>>> {
    let n = ids.len() as u32;
    let batch = Batch { ids: ids.to_vec(), bounds: vec![0, n], rows: (0..n).collect(), causal, ..Batch::default() };
    let mut pool = Pool::default();
    let mut tape = Tape::new(params, None, None, &mut pool)?;
    let hidden = model.hidden(&mut tape, &Rows::from(&batch))?;
    let (table, bias) = model.output();
    let logits = tape.linear(hidden, table, bias, None)?;
    Ok(tape.read(logits)?.chunks(model.config().vocab_size).map(<[f32]>::to_vec).collect())
}

/// -log p of (row, token) pairs, rows increasing.
fn nll(model: &Model, params: &[f32], ids: &[u32], targets: Vec<(usize, u32)>, causal: bool) -> Result<Vec<f32>> {
    let batch = Batch {
        ids: ids.to_vec(),
        bounds: vec![0, ids.len() as u32],
        rows: targets.iter().map(|(row, _)| *row as u32).collect(),
        targets: targets.iter().map(|(_, token)| *token).collect(),
        causal,
        first_row: 0,
    };
    let mut pool = Pool::default();
    let mut tape = Tape::new(params, None, None, &mut pool)?;
    Ok(model.loss(&mut tape, &batch, 0.0)?)
}

/// Strings that tokenizers stumble over: emoji with joiners, NUL and other controls, combining marks, mixed scripts,
/// spaces of all kinds, names of special tokens, very long words and texts.
fn odd_strings(count: usize, tokenizer: &Tokenizer) -> Vec<String> {
    const PARTS: [&str; 40] = [
        "the",
        "dog",
        "Dogs",
        "don't",
        "we'll",
        "'s",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "\r\n",
        "\u{0}",
        "\u{1}",
        "\u{7f}",
        "\u{85}",
        "\u{a0}",
        "\u{3000}",
        "\u{feff}",
        "\u{200b}",
        "\u{200d}",
        "\u{1f469}\u{200d}\u{1f4bb}",
        "\u{1f600}",
        "\u{1f1eb}\u{1f1f7}",
        "e\u{301}",
        "caf\u{e9}",
        "\u{301}\u{302}",
        "\u{4e2d}\u{6587}",
        "\u{928}\u{92e}\u{938}\u{94d}",
        "\u{645}\u{631}\u{62d}\u{628}\u{627}",
        "\u{5e9}\u{5c1}",
        "\u{1100}\u{1161}\u{11a8}",
        "12 345",
        "\u{661}\u{662}",
        "\u{2167}\u{bd}",
        "--",
        "\"\u{201c}",
        "\u{1d54f}",
        "...",
        "A.B",
    ];
    let rng = Rng::new(5);
    let mut strings = vec!["The dogs sleep.".into(), "A cat!".into(), String::new()];
    for i in strings.len()..count {
        let mut draws = rng.draws(Stream::SAMPLE, 1, i as u32);
        let length = match i % 100 {
            0 => 5000,
            _ => 1 + draws.below(12) as usize,
        };
        let mut text = String::new();
        for _ in 0..length {
            match draws.below(10) {
                0 => text.push_str(tokenizer.family().special_names()[draws.below(5) as usize]),
                // Any character at all: surrogates are none.
                1 => text.push(char::from_u32(draws.below(0x11_0000)).unwrap_or('\u{fffd}')),
                _ => text.push_str(PARTS[draws.below(PARTS.len() as u32) as usize]),
            }
            if draws.below(2) == 0 {
                text.push(' ');
            }
        }
        if i % 100 == 50 {
            text.push_str(&"x".repeat(20_000));
        }
        strings.push(text);
    }
    strings
}

/// A file of `count` pairs spread evenly over all of these files, and the pairs themselves.
pub fn pairs(path: &Path, count: usize, work: &Path) -> Result<(PathBuf, Vec<[String; 2]>)> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|ending| ending == "jsonl"));
        files.sort();
    }
    let mut all = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        for (number, line) in text.lines().enumerate() {
            let json: Value =
                serde_json::from_str(line).with_context(|| format!("{}:{}", file.display(), number + 1))?;
            let sentence = |key: &str| {
                json[key].as_str().map(str::to_owned).with_context(|| format!("{}: no {key}", file.display()))
            };
            all.push([sentence("sentence_good")?, sentence("sentence_bad")?]);
        }
    }
    if all.is_empty() {
        bail!("{}: no pairs", path.display());
    }
    let count = count.min(all.len());
    let chosen: Vec<[String; 2]> = (0..count).map(|i| all[i * all.len() / count].clone()).collect();
    let file = std::path::absolute(work.join("pairs.jsonl"))?;
    let lines = chosen.iter().map(|[good, bad]| format!("{}\n", json!({"sentence_good": good, "sentence_bad": bad})));
    fs::write(&file, lines.collect::<String>())?;
    Ok((file, chosen))
}

/// Nats below which two sentences are too close to say which one wins.
const CLOSE: f64 = 1e-3;

/// The independent scorer's winners against ours, for every backend that was trained.
fn score(root: &Path, python: &Path, export: &Export, file: &Path, pairs: &[[String; 2]]) -> Result<()> {
    let mut scorer = Scorer::open(&export.run)?;
    let backends = scorer.trained();
    let names = backends.iter().map(ToString::to_string).collect::<Vec<_>>();
    let out = export.expected.with_extension("scores.json");
    let mut command = Command::new(python);
    command
        .arg(root.join("xtask/check_export/score_pairs.py"))
        .arg(&export.folder)
        .arg(file)
        .arg(&out)
        .arg(names.join(","));
    if !command.status()?.success() {
        bail!("{command:?} failed");
    }
    let theirs: Value = serde_json::from_slice(&fs::read(&out)?)?;
    for backend in backends {
        let (mut worst, mut close, mut other, mut right) = (0.0f64, 0, 0, 0);
        // As `antlm eval` does: by the protocol, all packed together.
        let candidates =
            pairs.iter().flatten().map(|text| Candidate { text: text.clone(), start: 0, name: text.clone() });
        let tokenizer = &scorer.model().tokenizer;
        let requests = candidates
            .map(|candidate| Protocol::Y2026.request(backend, tokenizer, &candidate))
            .collect::<antlm::Result<Vec<_>>>()?;
        let logprobs = scorer.log_probabilities(&requests, backend, &mut |_, _| Ok(()))?;
        let totals: Vec<f64> = logprobs.iter().map(|tokens| Protocol::Y2026.total(backend).of(tokens)).collect();
        for (number, ours) in totals.chunks_exact(2).enumerate() {
            let found = &theirs[backend.to_string()][number];
            let found = [0, 1].map(|i| found[i].as_f64().unwrap_or(f64::NAN));
            for (a, b) in ours.iter().zip(found) {
                let off = (a - b).abs();
                worst = if off.is_nan() { f64::INFINITY } else { worst.max(off) };
            }
            right += usize::from(ours[0] >= ours[1]);
            if (found[0] - found[1]).abs() < CLOSE {
                close += 1;
            } else if (found[0] > found[1]) != (ours[0] > ours[1]) {
                other += 1;
            }
        }
        let (n, name) = (pairs.len(), label(export, backend));
        println!(
            "  {name}: {n} pairs, totals within {worst:.1e} nats, {other} other winners, {close} too close, {right} right"
        );
        if other > 0 || worst > CLOSE {
            bail!("{name}: {other} winners differ, totals by up to {worst} nats");
        }
    }
    Ok(())
}

fn label(export: &Export, backend: Backend) -> String {
    format!("{} {backend}", export.folder.file_name().unwrap_or_default().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use antlm::text::special::Family;

    #[test]
    fn the_odd_strings_are_odd_and_always_the_same() {
        let tokenizer = Tokenizer::train(["the cat"; 3], 300, 2, Family::LtgBert).unwrap();
        let strings = odd_strings(1000, &tokenizer);
        assert_eq!(strings, odd_strings(1000, &tokenizer));
        let some = |what: &str| strings.iter().filter(|text| text.contains(what)).count();
        for what in ["\0", "\u{1f469}\u{200d}\u{1f4bb}", "[MASK]", "\u{4e2d}", "\n", "x".repeat(20_000).as_str()] {
            assert!(some(what) >= 10, "{what:.20}");
        }
    }
}
