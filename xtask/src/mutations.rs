//! Flipped bits and cut files: every kind of file that a run leaves is damaged, and reading it has to say so.

use std::fs;
use std::path::{Path, PathBuf};

use antlm::model::Model;
use antlm::recipe::Recipe;
use antlm::text::prepare;
use antlm::train::{checkpoint, info, trained};
use anyhow::{Context, Result, bail};

use crate::torture::{Random, Toy};

/// Reads what a damaged file belongs to; the error that has to come.
type Check = Box<dyn Fn() -> antlm::Result<()>>;

/// A file, and what has to notice that it is damaged.
struct Target {
    path: PathBuf,
    checks: Vec<Check>,
    /// A cut from here on is no damage: a log without its last line is that of a run that was killed before it.
    open_from: Option<u64>,
}

/// Damages files `count` times, each in its turn.
pub fn run(toy: &Toy, count: u64, random: &mut Random) -> Result<()> {
    let targets = targets(toy)?;
    let (mut flips, mut cuts) = (0u64, 0u64);
    for number in 0..count {
        let target = &targets[(number % targets.len() as u64) as usize];
        let good = fs::read(&target.path).with_context(|| target.path.display().to_string())?;
        let mut bad = good.clone();
        let at = random.below(good.len() as u64) as usize;
        let cut = random.below(4) == 0;
        if cut && target.open_from.is_some_and(|from| at as u64 >= from) {
            continue;
        }
        let what = if cut {
            bad.truncate(at);
            cuts += 1;
            format!("cut at byte {at}")
        } else {
            let bit = random.below(8);
            bad[at] ^= 1 << bit;
            flips += 1;
            format!("bit {bit} of byte {at} flipped")
        };
        fs::write(&target.path, &bad)?;
        for check in &target.checks {
            let name = target.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match check() {
                Ok(()) => bail!("{}, {what}: nobody noticed", target.path.display()),
                Err(error) if !error.to_string().contains(&name) => {
                    bail!("{}, {what}: the error does not name it: {error}", target.path.display())
                }
                Err(_) => {}
            }
        }
        fs::write(&target.path, &good)?;
    }
    // As they were, all is well.
    for target in &targets {
        for check in &target.checks {
            check().with_context(|| target.path.display().to_string())?;
        }
    }
    println!("mutations: {flips} flipped bits and {cuts} cuts in {} files; all were noticed and named", targets.len());
    Ok(())
}

fn targets(toy: &Toy) -> Result<Vec<Target>> {
    let run = PathBuf::from(toy.path("mutated"));
    let (recipe, _) = Recipe::read(&run.join("recipe.toml"))?;
    let newest = checkpoint::newest(&run)?.context("no checkpoint")?.path;
    let milestone = run.join("milestones/chck_1k");
    let prepared = recipe.used.as_ref().context("not the recipe of a run")?.prepared.clone();

    let opened = |path: &Path, weights: trained::Weights| -> Check {
        let path = path.to_owned();
        Box::new(move || trained::open(&path, weights).map(drop))
    };
    let (last, average) = (trained::Weights::Last, trained::Weights::Average);
    let loaded = |path: &Path| -> Result<Check> {
        let (path, model) = (path.to_owned(), Model::new(&recipe.config())?);
        Ok(Box::new(move || checkpoint::load(&path, model.layout()).map(drop)))
    };
    let text = || -> Check {
        let (prepared, seq_len) = (prepared.clone(), recipe.seq_len);
        Box::new(move || prepare::open(&prepared, seq_len).map(drop))
    };
    let log: Check = {
        let run = run.clone();
        Box::new(move || info::read(&run).map(drop))
    };
    let end = checkpoint::read_state(&newest)?.0.log.bytes;
    let mut targets = vec![
        Target {
            path: newest.join("model.safetensors"),
            checks: vec![loaded(&newest)?, opened(&run, last)],
            open_from: None,
        },
        Target { path: newest.join("optimizer.safetensors"), checks: vec![loaded(&newest)?], open_from: None },
        Target {
            path: newest.join("ema.safetensors"),
            checks: vec![loaded(&newest)?, opened(&run, average)],
            open_from: None,
        },
        Target { path: newest.join("state.json"), checks: vec![loaded(&newest)?, opened(&run, last)], open_from: None },
        Target { path: milestone.join("model.safetensors"), checks: vec![opened(&milestone, last)], open_from: None },
        Target { path: milestone.join("ema.safetensors"), checks: vec![opened(&milestone, average)], open_from: None },
        Target { path: milestone.join("state.json"), checks: vec![opened(&milestone, last)], open_from: None },
        Target {
            path: run.join("recipe.toml"),
            checks: vec![opened(&run, last), opened(&milestone, last)],
            open_from: None,
        },
        Target { path: run.join("tokenizer.json"), checks: vec![opened(&run, last)], open_from: None },
        Target { path: run.join("log.jsonl"), checks: vec![log], open_from: Some(end) },
    ];
    for entry in fs::read_dir(&prepared)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_file() && !hidden {
            targets.push(Target { path, checks: vec![text()], open_from: None });
        }
    }
    Ok(targets)
}
