//! `antlm sweep`: the jobs of a sweep one after another, each by the commands that a user would give, then the table.

use std::io::Write;

use antlm::Error;
use antlm::eval::compare::{self, FOUR, GLUE, MACRO, Options};
use antlm::eval::finetune::presets::Preset;
use antlm::sweep::{Job, State, Sweep};
use anyhow::Result;

use super::compare::show;
use super::{eval, finetune, train};
use crate::args::{self, CheckpointsArg, DeviceArg, Eval, Finetune, Format, PresetArg, SelectArg, SetArg, Train};
use crate::output::{grouped, table};
use crate::signals::Signals;

pub fn run(args: &args::Sweep, out: &mut impl Write) -> Result<()> {
    let sweep = Sweep::load(&args.sweep)?;
    let jobs = sweep.jobs();
    if args.list {
        return list(&sweep, &jobs, args.json, out);
    }
    let chosen: Vec<&Job> = match args.job {
        Some(number) => jobs.iter().filter(|job| job.number == number).collect(),
        None => jobs.iter().collect(),
    };
    if chosen.is_empty() {
        let what = format!("{}: there are jobs 1 to {}; --list shows them", args.sweep.display(), jobs.len());
        return Err(Error::Usage(what).into());
    }
    super::use_threads(args.threads)?;
    let signals = crate::signals::install()?;
    for job in &chosen {
        if !args.quiet {
            eprintln!("\njob {} of {}: {}", job.number, jobs.len(), job.run.display());
        }
        one(&sweep, job, args, &signals)?;
    }
    if args.job.is_some() || sweep.eval.is_none() && sweep.finetune.is_none() {
        return if args.json { Ok(()) } else { list(&sweep, &jobs, false, out) };
    }
    let preset = sweep.preset().map_or("2026", Preset::name);
    let (protocol, backends) = match &sweep.eval {
        Some(eval) => (eval.protocol, eval.backends.clone()),
        None => Default::default(),
    };
    let options = Options {
        backends,
        protocol: protocol.to_string(),
        preset: preset.to_owned(),
        tasks: columns(&sweep)?,
        ..Options::default()
    };
    let runs: Vec<_> = jobs.iter().map(|job| job.run.clone()).collect();
    let comparison = compare::runs(&runs, &options)?;
    show(&comparison, if args.json { Format::Json } else { args.format }, out)
}

/// Trains, evaluates and fine-tunes what is still to be done of a job.
fn one(sweep: &Sweep, job: &Job, args: &args::Sweep, signals: &Signals) -> Result<()> {
    let cancel: &dyn Fn() -> Option<i32> = &|| signals.stop();
    let nothing = &mut std::io::sink();
    let new = Train {
        recipe: Some(sweep.base.clone()),
        text: sweep.text.clone(),
        cleaning: None,
        out: Some(job.run.clone()),
        resume: None,
        dev: sweep.dev.clone(),
        init: None,
        other_data: true,
        seed: Some(job.seed),
        track: None,
        set: job.set.clone(),
        tensorboard: false,
        stop_after: None,
        device: DeviceArg::default(),
        threads: None,
        quiet: args.quiet,
        json: false,
    };
    match sweep.state(job)? {
        State::New => train::train(&new, signals, nothing).map_err(|error| same_command(error, job))?,
        State::Stopped { .. } => {
            let on = Train {
                recipe: None,
                out: None,
                text: Vec::new(),
                dev: None,
                seed: None,
                set: Vec::new(),
                resume: Some(job.run.clone()),
                ..new
            };
            train::train(&on, signals, nothing).map_err(|error| same_command(error, job))?;
        }
        State::Trained | State::Done => {}
    }
    if let Some(signal) = cancel() {
        let left = "the jobs before are done; the same command goes on".into();
        return Err(Error::Stopped { signal, left }.into());
    }
    if let Some(wanted) = &sweep.eval {
        let asked = Eval {
            runs: vec![job.run.clone()],
            data: wanted.data.clone(),
            tasks: wanted.tasks.clone(),
            backend: wanted.backends.iter().map(|&backend| backend.into()).collect(),
            protocol: wanted.protocol,
            set: SetArg::Full,
            checkpoints: CheckpointsArg::Last,
            limit: None,
            items: None,
            parts: false,
            again: false,
            ema: false,
            device: DeviceArg::default(),
            threads: None,
            quiet: args.quiet,
            json: false,
        };
        eval::evaluate(&asked, cancel, nothing)?;
    }
    if let (Some(wanted), Some(preset)) = (&sweep.finetune, sweep.preset()) {
        let asked = Finetune {
            run: job.run.clone(),
            // Of all, what is missing is said and left out; what was asked for by name has to be there.
            task: if wanted.tasks.is_empty() { vec!["all".into()] } else { wanted.tasks.clone() },
            data: wanted.data.clone(),
            preset: match preset {
                Preset::Y2024 => PresetArg::Y2024,
                Preset::Y2026 => PresetArg::Y2026,
            },
            select: SelectArg::Official,
            seed: wanted.seeds.clone(),
            set: Vec::new(),
            read: None,
            take: None,
            limit: None,
            ema: false,
            again: false,
            device: DeviceArg::default(),
            threads: None,
            quiet: args.quiet,
            json: false,
        };
        finetune::tune(&asked, cancel, nothing)?;
    }
    Ok(())
}

/// What a user should do about a training that was stopped is not what `antlm train` would say.
fn same_command(error: anyhow::Error, job: &Job) -> anyhow::Error {
    match error.downcast_ref::<Error>() {
        Some(&Error::Stopped { signal, .. }) => {
            let left = format!("{} is saved; the same command goes on", job.run.display());
            Error::Stopped { signal, left }.into()
        }
        _ => error,
    }
}

/// The tasks of the sweep, and the means whose tasks are all among them.
fn columns(sweep: &Sweep) -> Result<Vec<String>> {
    let mut columns: Vec<String> = sweep.tasks()?.iter().map(|task| task.name().to_owned()).collect();
    let tuned = sweep.tuned();
    let whole =
        sweep.preset().is_some_and(|p| p.tasks().iter().all(|task| tuned.iter().any(|name| name == task.name())));
    columns.extend(if whole { vec![GLUE.to_owned()] } else { tuned });
    if FOUR.iter().all(|column| columns.iter().any(|own| own == column)) {
        columns.push(MACRO.to_owned());
    }
    Ok(columns)
}

fn list(sweep: &Sweep, jobs: &[Job], json: bool, out: &mut impl Write) -> Result<()> {
    let mut rows = Vec::new();
    for job in jobs {
        let state = sweep.state(job)?;
        if json {
            let mut line = serde_json::to_value(job)?;
            if let (Some(line), Some(state)) = (line.as_object_mut(), serde_json::to_value(state)?.as_object()) {
                line.extend(state.clone());
            }
            writeln!(out, "{line}")?;
            continue;
        }
        let said = match state {
            State::New => "new".into(),
            State::Stopped { step, steps } => format!("stopped at step {} of {}", grouped(step), grouped(steps)),
            State::Trained => "trained".into(),
            State::Done => "done".to_owned(),
        };
        let variant = job.variant.clone().unwrap_or_else(|| "-".into());
        rows.push(vec![
            job.number.to_string(),
            variant,
            job.schedule.clone(),
            job.seed.to_string(),
            said,
            job.run.display().to_string(),
        ]);
    }
    if !json {
        table(out, &[">job", "variant", "schedule", ">seed", "state", "run"], &rows)?;
    }
    Ok(())
}
