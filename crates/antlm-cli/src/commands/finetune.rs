//! `antlm finetune`: GLUE and SuperGLUE scores of a trained model.

use std::io::Write;

use antlm::Error;
use antlm::eval::finetune::data::{Missing, Task};
use antlm::eval::finetune::head::{Reading, Vector};
use antlm::eval::finetune::metrics::{Metric, mean_and_sd};
use antlm::eval::finetune::presets::Preset;
use antlm::eval::finetune::tune::{self, Found, Options, Select};
use antlm::eval::results::CheckpointId;
use antlm::model::Kind;
use antlm::train::trained::{self, Weights};
use antlm_nn::tape::Pool;
use anyhow::Result;
use serde_json::{Value, json};

use crate::args::{Finetune, PresetArg, ReadArg, SelectArg, TakeArg};
use crate::output::table;
use crate::progress::Tuning;

pub fn run(args: &Finetune, out: &mut impl Write) -> Result<()> {
    super::use_threads(args.threads)?;
    let signals = crate::signals::install()?;
    let cancel = || signals.stop();
    tune(args, &cancel, out)
}

/// Fine-tunes, in a process whose threads and signals are set up.
pub fn tune(args: &Finetune, cancel: &dyn Fn() -> Option<i32>, out: &mut impl Write) -> Result<()> {
    let preset = match args.preset {
        PresetArg::Y2024 => Preset::Y2024,
        PresetArg::Y2026 => Preset::Y2026,
    };
    let (tasks, named) = tasks(args, preset)?;
    let weights = if args.ema { Weights::Average } else { Weights::Last };
    let trained = trained::open(&args.run, weights)?;
    let causal = args.read.map(|read| matches!(read, ReadArg::Causal));
    let take_final = args.take.map(|take| matches!(take, TakeArg::Final));
    let mut seeds = if args.seed.is_empty() { vec![preset.seed()] } else { args.seed.clone() };
    let mut seen = std::collections::BTreeSet::new();
    seeds.retain(|&seed| seen.insert(seed));
    let options = Options {
        preset,
        tasks,
        data: args.data.clone(),
        select: match args.select {
            SelectArg::Official => Select::Official,
            SelectArg::Holdout => Select::Holdout,
        },
        seeds,
        set: args.set.clone(),
        limit: args.limit,
        reading: tune::reading(&trained, preset, causal, take_final),
        again: args.again,
    };
    let ask = || match cancel() {
        None => Ok(()),
        Some(signal) => {
            let left = "results of finished tasks are there, and the same command goes on with the others";
            Err(Error::Stopped { signal, left: left.into() })
        }
    };
    let prepared = tune::prepare(&trained, &options, &mut { ask })?;
    if prepared.groups.is_empty() {
        return Err(Error::Usage(lacking(&prepared.missing, args)).into());
    }
    let how = describe(options.reading, trained.model.config().kind, preset);
    let quiet = args.quiet || args.json;
    if !quiet {
        prepared.notes.iter().for_each(|note| eprintln!("{note}"));
        eprintln!("preset {}, epoch chosen by the {} rows; {how}", preset.name(), chosen_by(options.select));
    }
    if options.reading.causal && options.reading.vector == Vector::First {
        eprintln!(
            "antlm: note: read from the left, the first token sees only itself: every text has the same vector, and \
             nothing can be learnt; say --take final or --read both"
        );
    }
    let id = CheckpointId::of(&trained, weights)?;
    let mut tuning = Tuning::new(quiet);
    let mut pool = Pool::of(args.device.open(quiet)?);
    let found = tune::run(&trained, &id, &options, &prepared.groups, &mut pool, &mut |event| {
        tuning.event(&event);
        ask()
    })?;
    drop(tuning);
    let rows: Vec<Row> = options.tasks.iter().filter_map(|&task| Row::of(task, &found)).collect();
    let means = Means::of(preset, &rows);
    if args.json {
        let missing: Vec<Value> =
            prepared.missing.iter().map(|m| json!({"task": m.task.name(), "file": m.file})).collect();
        let tasks: Vec<Value> = rows.iter().map(Row::json).collect();
        let line = json!({
            "checkpoint": id, "preset": preset.name(), "select": options.select.name(), "reading": how, "limit": args.limit,
            "tasks": tasks, "missing": missing, "mean": means.plain, "mean_with_f1": means.with_f1,
        });
        writeln!(out, "{line}")?;
    } else {
        show(out, &rows, preset)?;
        means.show(out, preset, args.limit.is_some())?;
    }
    if !prepared.missing.is_empty() {
        let text = lacking(&prepared.missing, args);
        if named {
            return Err(Error::Usage(text).into());
        }
        if !quiet {
            eprintln!("antlm: note: {text}");
        }
    }
    Ok(())
}

/// The tasks that were asked for, each once; and whether any was by its name.
fn tasks(args: &Finetune, preset: Preset) -> Result<(Vec<Task>, bool)> {
    let mut tasks = Vec::new();
    let mut named = false;
    for name in &args.task {
        let add = match name.as_str() {
            "all" => preset.tasks().to_vec(),
            name => {
                named = true;
                vec![Task::parse(name)?]
            }
        };
        tasks.extend(add);
    }
    let mut seen = std::collections::BTreeSet::new();
    tasks.retain(|&task| seen.insert(task));
    Ok((tasks, named))
}

fn lacking(missing: &[Missing], args: &Finetune) -> String {
    let list: Vec<String> = missing.iter().map(|m| format!("{} has no {}", m.task.name(), m.file)).collect();
    let (list, dir) = (list.join(", "), args.data.display());
    format!("{dir}: {list}; the BabyLM pipelines' glue_filtered folder has these files")
}

fn chosen_by(select: Select) -> &'static str {
    match select {
        Select::Official => "scored",
        Select::Holdout => "held-out training",
    }
}

/// Which vector is read, and what that is in the official pipelines' terms.
fn describe(reading: Reading, kind: Kind, preset: Preset) -> String {
    let open = kind.special_names()[antlm::text::special::CLS as usize];
    let token = match reading.vector {
        Vector::First => format!("the first token, {open}"),
        Vector::Last => "the last token".into(),
        Vector::SecondLast => "the last token but one".into(),
    };
    let sides = if reading.causal { "from the left (causal)" } else { "from both sides" };
    let padding = match (reading.vector, preset) {
        (Vector::First, _) | (_, Preset::Y2024) => {
            "texts are packed without padding, which equals padding on the right"
        }
        (_, Preset::Y2026) => "texts are packed without padding, which equals padding on the left",
    };
    format!("the head reads {token}, {sides}; {padding}")
}

/// The results of one task, one a seed.
struct Row<'a> {
    task: Task,
    found: Vec<&'a Found>,
}

impl<'a> Row<'a> {
    fn of(task: Task, found: &'a [Found]) -> Option<Row<'a>> {
        let found: Vec<&Found> = found.iter().filter(|found| found.result.task == task.name()).collect();
        (!found.is_empty()).then_some(Row { task, found })
    }

    /// A metric of every seed.
    fn scores(&self, metric: Metric) -> Vec<f64> {
        self.found.iter().filter_map(|found| tune::metric_of(&found.result, metric)).collect()
    }

    fn json(&self) -> Value {
        let metric = &self.found[0].result.metric; // a row has a result
        let scores: Vec<f64> = self.found.iter().map(|found| found.result.score).collect();
        let (mean, sd) = mean_and_sd(&scores);
        let seeds = self.found.iter().map(|found| {
            let result = &found.result;
            let all = [Metric::Accuracy, Metric::F1, Metric::Mcc];
            let metrics: serde_json::Map<String, Value> = all
                .into_iter()
                .filter_map(|metric| Some((metric.name().to_owned(), tune::metric_of(result, metric)?.into())))
                .collect();
            json!({
                "seed": result.seed, "score": result.score, "metrics": metrics, "n": result.n, "epoch": best_epoch(found),
                "cached": found.cached, "path": found.path,
            })
        });
        let seeds: Vec<Value> = seeds.collect();
        json!({"task": self.task.name(), "metric": metric, "mean": mean, "sd": sd, "seeds": seeds})
    }
}

/// The epoch that was chosen, from 1 on.
fn best_epoch(found: &Found) -> Option<usize> {
    let scores = found.result.values.get("by_epoch")?;
    let best = scores.iter().copied().reduce(f64::max)?;
    scores.iter().position(|&score| score == best).map(|index| index + 1)
}

/// Means over the tasks of `all`, over seeds; none where a task or a seed of one is missing.
struct Means {
    plain: Option<Value>,
    /// With F1 for MRPC and QQP, as a comment of the pipeline of 2026 has it.
    with_f1: Option<Value>,
}

impl Means {
    fn of(preset: Preset, rows: &[Row<'_>]) -> Means {
        let mean = |f1: bool| {
            let mut by_seed: Vec<Vec<f64>> = Vec::new();
            for &task in preset.tasks() {
                let row = rows.iter().find(|row| row.task == task)?;
                let metric =
                    if f1 && matches!(task, Task::Mrpc | Task::Qqp) { Metric::F1 } else { preset.metric(task) };
                by_seed.push(row.scores(metric));
            }
            let seeds = by_seed.iter().map(Vec::len).min()?;
            let means: Vec<f64> = (0..seeds)
                .map(|seed| by_seed.iter().map(|row| row[seed]).sum::<f64>() / by_seed.len() as f64)
                .collect();
            let (mean, sd) = mean_and_sd(&means);
            Some(json!({"mean": mean, "sd": sd}))
        };
        Means { plain: mean(false), with_f1: if preset == Preset::Y2026 { mean(true) } else { None } }
    }

    fn show(&self, out: &mut impl Write, preset: Preset, limit: bool) -> Result<()> {
        let tasks = preset.tasks().len();
        let note = if limit { "; with --limit, no score to report" } else { "" };
        for (mean, what) in [(&self.plain, ""), (&self.with_f1, ", F1 for mrpc and qqp")] {
            if let Some(mean) = mean {
                let cell = cell(mean["mean"].as_f64().unwrap_or(f64::NAN), mean["sd"].as_f64());
                writeln!(out, "mean of {tasks} tasks{what}: {cell}{note}")?;
            }
        }
        if self.plain.is_none() {
            writeln!(out, "no mean: it is that of all {tasks} tasks of the preset")?;
        }
        Ok(())
    }
}

fn cell(mean: f64, sd: Option<f64>) -> String {
    sd.map_or(format!("{mean:.1}"), |sd| format!("{mean:.1} ± {sd:.1}"))
}

/// A row a task: the score, and the other metrics.
fn show(out: &mut impl Write, rows: &[Row<'_>], preset: Preset) -> Result<()> {
    let cells = rows.iter().map(|row| {
        let of = |metric| {
            let scores = row.scores(metric);
            if scores.is_empty() {
                return "-".into();
            }
            let (mean, sd) = mean_and_sd(&scores);
            let mark = if metric == preset.metric(row.task) { "*" } else { " " };
            cell(mean, sd) + mark
        };
        let epochs: Vec<String> =
            row.found.iter().map(|found| best_epoch(found).map_or("-".into(), |epoch| epoch.to_string())).collect();
        let notes = if row.found.iter().all(|found| found.cached) { "cached" } else { "" };
        vec![
            row.task.name().to_owned(),
            row.found[0].result.n.to_string(),
            of(Metric::Accuracy),
            of(Metric::F1),
            of(Metric::Mcc),
            epochs.join(","),
            notes.to_owned(),
        ]
    });
    let cells: Vec<Vec<String>> = cells.collect();
    table(out, &["task", ">n", ">accuracy ", ">F1 ", ">MCC ", ">epoch", ""], &cells)?;
    writeln!(out, "* the task's score with preset {}; all times 100", preset.name())?;
    Ok(())
}
