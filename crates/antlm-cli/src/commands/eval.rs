//! `antlm eval`: zero-shot tasks, for several checkpoints and backends in one call.

use std::io::Write;
use std::path::PathBuf;

use antlm::Error;
use antlm::eval::results::{CheckpointId, Set, TaskResult};
use antlm::eval::score::Scorer;
use antlm::eval::zeroshot::evaluate::{self, Data, Options, Outcome};
use antlm::eval::zeroshot::{Task, find};
use antlm::files::AtomicFile;
use antlm::objective::Backend;
use antlm::train::trained::{self, Weights};
use anyhow::Result;

use crate::args::Eval;
use crate::output::{grouped, table};
use crate::progress::Working;

pub fn run(args: &Eval, out: &mut impl Write) -> Result<()> {
    super::use_threads(args.threads)?;
    let signals = crate::signals::install()?;
    let cancel = || signals.stop();
    evaluate(args, &cancel, out)
}

/// Evaluates, in a process whose threads and signals are set up.
pub fn evaluate(args: &Eval, cancel: &dyn Fn() -> Option<i32>, out: &mut impl Write) -> Result<()> {
    let options = Options { set: args.set.into(), protocol: args.protocol, limit: args.limit, again: args.again };
    let device = args.device.open(args.quiet)?;
    let mut checkpoints = Vec::new();
    for run in &args.runs {
        checkpoints.extend(trained::choose(run, args.checkpoints.into())?);
    }
    let data = read(args, &options)?;
    let mut items = match &args.items {
        Some(path) => Some(AtomicFile::create(path)?),
        None => None,
    };
    let weights = if args.ema { Weights::Average } else { Weights::Last };
    let mut outcomes: Vec<(PathBuf, Outcome)> = Vec::new();
    let mut failures = Vec::new();
    for path in checkpoints {
        let model = trained::open(&path, weights)?;
        let (run, known) = (model.run.clone(), model.trained());
        let id = CheckpointId::of(&model, weights)?;
        let mut scorer = Scorer::new(model).on(&device)?;
        for backend in backends(args, &known, &path) {
            for data in &data {
                let label = format!("{}: {}, {backend}", path.display(), data.task);
                let mut working = Working::new(&label, args.quiet);
                let mut progress = |done, of| {
                    if let Some(signal) = cancel() {
                        let on = if args.again || args.items.is_some() { "begins again" } else { "goes on" };
                        let left = format!("finished tasks are in RUN/results/; the same command {on}");
                        return Err(Error::Stopped { signal, left });
                    }
                    working.show(done, of);
                    Ok(())
                };
                let items = items.as_mut().map(|items| items as &mut dyn Write);
                let outcome = evaluate::evaluate(&mut scorer, &id, data, backend, &options, items, &mut progress);
                let outcome = match outcome {
                    Ok(outcome) => outcome,
                    Err(error @ Error::Stopped { .. }) => return Err(error.into()),
                    // The other tasks may do.
                    Err(error) => {
                        working.done("failed");
                        failures.push((label, error));
                        continue;
                    }
                };
                working.done(if outcome.cached { "as it was in RUN/results/" } else { "done" });
                if args.json {
                    writeln!(out, "{}", serde_json::to_string(&line(&run, &outcome.result)?)?)?;
                    out.flush()?;
                }
                outcomes.push((run.clone(), outcome));
            }
        }
    }
    if let Some(items) = items {
        items.finish()?;
    }
    if !args.json {
        show(args, &outcomes, out)?;
    }
    acquisition(args, &data, &outcomes, out)?;
    let Some((label, error)) = failures.pop() else { return Ok(()) };
    failures.iter().for_each(|(label, error)| eprintln!("antlm: {label}: {error}"));
    Err(match error {
        Error::Usage(what) => Error::Usage(format!("{label}: {what}")),
        error => error,
    }
    .into())
}

/// When words were learnt, of each run and backend.
fn acquisition(args: &Eval, data: &[Data], outcomes: &[(PathBuf, Outcome)], out: &mut impl Write) -> Result<()> {
    let Some(data) = data.iter().find(|data| data.task == Task::Aoa) else { return Ok(()) };
    let mut groups: Vec<(&PathBuf, Backend, Vec<&TaskResult>)> = Vec::new();
    for (run, Outcome { result, .. }) in outcomes {
        let (Some(backend), true) = (result.backend, result.task == data.task.name()) else { continue };
        match groups.iter_mut().find(|(of, by, _)| *of == run && *by == backend) {
            Some((_, _, results)) => results.push(result),
            None => groups.push((run, backend, vec![result])),
        }
    }
    for (run, backend, results) in groups {
        let Some(found) = evaluate::acquisition(data, &results)? else {
            if !args.quiet {
                eprintln!(
                    "antlm: note: {}: when words were learnt needs three checkpoints (--checkpoints milestones) and \
                     cdi_human.csv beside the words",
                    run.display()
                );
            }
            continue;
        };
        let (score, n) = (100.0 * found.correlation, found.words.len());
        if args.json {
            let words: Vec<_> = found
                .words
                .iter()
                .map(|(word, age, learnt)| serde_json::json!({"word": word, "months": age, "log10_words": learnt}))
                .collect();
            let line = serde_json::json!({
                "run": run.display().to_string(), "task": data.task, "backend": backend, "protocol": args.protocol,
                "metric": "pearson", "score": score, "n": n, "checkpoints": results.len(), "words": words,
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(
                out,
                "{}: age of acquisition by {backend}: {score:.2} (100 r over {n} words that both learnt, {} checkpoints)",
                run.display(),
                results.len()
            )?;
        }
    }
    Ok(())
}

/// The data of the tasks; says what is missing.
fn read(args: &Eval, options: &Options) -> Result<Vec<Data>> {
    if !args.data.is_dir() {
        let what = if args.data.exists() { "not a folder" } else { "no such folder" };
        return Err(
            Error::Usage(format!("{}: {what}; --data is the folder of the tasks' data", args.data.display())).into()
        );
    }
    let asked: Vec<Task> = if args.tasks.is_empty() { Task::ALL.to_vec() } else { args.tasks.clone() };
    let (mut data, mut missing) = (Vec::new(), Vec::new());
    for task in asked {
        match find::find(&args.data, task, options.set)? {
            Some(found) => data.push(evaluate::read(&found, options.limit)?),
            None => missing.push(task),
        }
    }
    // What was asked for by name has to be there; of all tasks, what there is.
    if let (false, Some(task)) = (args.tasks.is_empty(), missing.first()) {
        let what = format!("no data of {task} in {}: {}", args.data.display(), find::source(*task));
        return Err(Error::Usage(what).into());
    }
    if data.is_empty() {
        let what = format!(
            "{}: no data of any task; `antlm eval --help` says what its folders are called",
            args.data.display()
        );
        return Err(Error::Usage(what).into());
    }
    if !args.quiet {
        for data in &data {
            data.notes.iter().for_each(|note| eprintln!("antlm: note: {}: {note}", data.task));
        }
        // Of other languages and of one's own pairs nobody misses anything.
        missing.retain(|task| !matches!(task, Task::BlimpNl | Task::Zhoblimp | Task::Multiblimp | Task::Pairs));
        missing.retain(|&task| find::exists(task, options.set));
        let official = data.iter().any(|data| data.task != Task::Pairs);
        for task in missing.iter().filter(|_| official) {
            eprintln!("antlm: note: no data of {task}: {}", find::source(*task));
        }
    }
    Ok(data)
}

fn backends(args: &Eval, trained: &[Backend], path: &std::path::Path) -> Vec<Backend> {
    let asked: Vec<Backend> = args.backend.iter().map(|&backend| backend.into()).collect();
    if asked.is_empty() {
        // A model without a step has learnt nothing, and may be looked at all the same.
        return if trained.is_empty() { vec![Backend::Causal, Backend::Mlm] } else { trained.to_vec() };
    }
    for backend in asked.iter().filter(|backend| !args.quiet && !trained.contains(backend)) {
        eprintln!("antlm: note: {} was not trained to be read by {backend}; its numbers mean little", path.display());
    }
    asked
}

/// A result as a JSON line: the run, and what its file says but for the outcome of every item.
fn line(run: &std::path::Path, result: &TaskResult) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(result)?;
    if let Some(object) = value.as_object_mut() {
        object.remove("outcomes");
        object.remove("chosen");
        object.remove("values");
        object.insert("run".into(), run.display().to_string().into());
    }
    Ok(value)
}

fn show(args: &Eval, outcomes: &[(PathBuf, Outcome)], out: &mut impl Write) -> Result<()> {
    let mut rows = Vec::new();
    for (run, Outcome { result, .. }) in outcomes {
        let backend = result.backend.map(|backend| backend.to_string()).unwrap_or_default();
        rows.push(vec![
            run.display().to_string(),
            result.checkpoint.name.clone(),
            result.task.clone(),
            backend,
            result.protocol.clone(),
            format!("{:.2}", result.score),
            result.metric.clone(),
            grouped(result.n),
            grouped(result.ties),
        ]);
    }
    let heading = ["run", "checkpoint", "task", "backend", "protocol", ">score", "metric", ">items", ">ties"];
    table(out, &heading, &rows)?;
    if let Some(limit) = args.limit {
        writeln!(out, "at most {limit} items of each file: not to be compared with full results")?;
    }
    if Set::from(args.set) == Set::Fast {
        writeln!(out, "the short sets (--set fast): not to be compared with full results")?;
    }
    if args.parts {
        for (run, Outcome { result, .. }) in outcomes {
            let backend = result.backend.map(|backend| backend.to_string()).unwrap_or_default();
            for (kind, parts) in &result.parts {
                writeln!(out, "\n{} {} {} {backend}", run.display(), result.checkpoint.name, result.task)?;
                let rows: Vec<Vec<String>> = parts
                    .iter()
                    .map(|(name, part)| {
                        vec![name.clone(), format!("{:.2}", part.score), grouped(part.n), grouped(part.ties)]
                    })
                    .collect();
                table(out, &[kind, ">score", ">items", ">ties"], &rows)?;
            }
        }
    }
    Ok(())
}
