//! What a run's folder says about the run: read from its log and its checkpoints' names, nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::events::{self, Event, Moment};
use super::{checkpoint, run_folder};
use crate::objective::{Backend, Objective};
use crate::recipe::{Recipe, size};
use crate::{Error, Result};

/// The state of a run, finished or not.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Info {
    /// The recipe's name.
    pub recipe: String,
    /// The schedule.
    pub schedule: String,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The model's parameters.
    pub parameters: u64,
    /// Optimiser steps in the log.
    pub step: u64,
    /// Planned optimiser steps.
    pub steps: u64,
    /// Words seen, repeats counted.
    pub words_seen: u64,
    /// Planned words.
    pub words: u64,
    /// The schedule is done.
    pub finished: bool,
    /// Steps that were skipped (`[health]`).
    pub skipped: u64,
    /// Steps whose losses leapt, and which were not skipped.
    pub spikes: u64,
    /// How long it took, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Each objective's last training loss, in nats per target.
    pub training_loss: BTreeMap<Objective, f64>,
    /// All dev losses, oldest first.
    pub dev: Vec<DevLoss>,
    /// Checkpoints on disk, oldest first.
    pub checkpoints: Vec<Saved>,
    /// Of an imported model: where it comes from. It has no log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imported: Option<String>,
}

/// How long a run took, stops left out: from `timing.jsonl`, which the results do not depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Time {
    /// Seconds of all its processes, from the run's opening to their last line.
    pub seconds: f64,
    /// Seconds of those in which training waited for checkpoints and milestones to be written.
    pub saving: f64,
}

impl Time {
    /// Reads `timing.jsonl`; nothing where that is not there, is empty or cannot be read: no result depends on it.
    fn read(timing: &Path) -> Option<Time> {
        let (mut time, mut last) = (Time::default(), None);
        for line in events::read_timing(timing, events::open(timing).ok()?) {
            let line = line.ok()?;
            // Each process begins again at 0.
            let resumed = matches!(line.event, Some(Event::Resume { .. }));
            let before = last.filter(|&before| !resumed && before <= line.seconds).unwrap_or(0.0);
            time.seconds += line.seconds - before;
            time.saving += line.took.unwrap_or(0.0);
            last = Some(line.seconds);
        }
        last.map(|_| time)
    }
}

/// A dev loss of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DevLoss {
    /// Optimiser steps done.
    pub step: u64,
    /// The block, from 0 on.
    pub block: u64,
    /// Why it was measured then.
    pub at: Moment,
    /// How the model was read.
    pub backend: Backend,
    /// Nats per target.
    pub loss: f64,
    /// The loss is above that of a model which knows token frequencies only.
    pub worse_than_unigram: bool,
}

/// A checkpoint on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Saved {
    /// Optimiser steps done.
    pub step: u64,
    /// Retention leaves it alone; nothing when its `state.json` cannot be read.
    pub kept: Option<bool>,
    /// Its folder, inside the run's.
    pub folder: String,
}

/// Reads what is known of a run. Does not need its lock: a run that goes on can be looked at.
///
/// # Errors
/// [`Error::Usage`] when the folder is no run's, [`Error::Data`] with the place of a log that is damaged.
pub fn read(run: &Path) -> Result<Info> {
    run_folder::check_run(run)?;
    let log = run.join(run_folder::LOG);
    let mut info = Info::default();
    match imported(run) {
        Some(found) if !log.is_file() => info = found,
        _ => {
            for event in events::read_log(&log, events::open(&log)?) {
                info.add(event?);
            }
            info.check(run, &log)?;
            info.time = Time::read(&run.join(run_folder::TIMING));
        }
    }
    for entry in checkpoint::list(run)? {
        info.checkpoints.push(Saved {
            step: entry.step,
            kept: checkpoint::read_state(&entry.path).ok().map(|(_, kept)| kept),
            folder: entry.path.strip_prefix(run).unwrap_or(&entry.path).display().to_string(),
        });
    }
    Ok(info)
}

/// What is known of an imported model; nothing for a run. A recipe that cannot be read is the log's affair, not ours.
fn imported(run: &Path) -> Option<Info> {
    let Ok((recipe, _)) = Recipe::read(&run.join(run_folder::RECIPE)) else { return None };
    let imported = recipe.imported.as_ref()?;
    Some(Info {
        recipe: recipe.name.clone(),
        schedule: recipe.schedule.to_string(),
        seed: recipe.seed,
        parameters: size::parameters(&recipe.config()),
        finished: true,
        imported: Some(imported.from.clone()),
        ..Info::default()
    })
}

impl Info {
    /// Whether the log is the one that the newest checkpoint was written with. One that cannot be read is for others to
    /// say, as is a run without any.
    fn check(&self, run: &Path, log: &Path) -> Result<()> {
        let Some(newest) = checkpoint::newest(run)? else { return Ok(()) };
        let Ok((state, _)) = checkpoint::read_state(&newest.path) else { return Ok(()) };
        state.log.check(log)?;
        // Behind the last checkpoint stands the end alone.
        let words: u64 = state.seen.values().map(|seen| seen.words).sum();
        if self.finished && (self.step, self.words_seen) != (state.step, words) {
            let what = format!(
                "the run ends at step {} with {} words, but the newest checkpoint says {} and {words}: the log was damaged",
                self.step, self.words_seen, state.step
            );
            return Err(Error::data(log, "end", what));
        }
        Ok(())
    }

    fn add(&mut self, event: Event) {
        self.step = self.step.max(event.step());
        match event {
            Event::Start { recipe, schedule, seed, parameters, steps, words, .. } => {
                (self.recipe, self.schedule, self.seed, self.parameters) = (recipe, schedule, seed, parameters);
                (self.steps, self.words) = (steps, words);
            }
            Event::Step { objective, loss, words_seen, .. } => {
                self.training_loss.insert(objective, loss);
                self.words_seen = words_seen;
            }
            Event::Skip { words_seen, .. } => {
                self.skipped += 1;
                self.words_seen = words_seen;
            }
            Event::Spike { .. } => self.spikes += 1,
            Event::Dev { step, block, at, backend, loss, unigram, .. } => {
                let worse_than_unigram = loss > unigram;
                self.dev.push(DevLoss { step, block, at, backend, loss, worse_than_unigram });
            }
            Event::End { step, words_seen } => (self.finished, self.step, self.words_seen) = (true, step, words_seen),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::{Listener, LogEnd, LogWriter};
    use super::*;
    use crate::train::step::Weights;

    #[test]
    fn reads_what_the_log_says() {
        let run = tempfile::tempdir().unwrap();
        assert!(read(run.path()).unwrap_err().to_string().contains("recipe.toml"));
        std::fs::write(run.path().join(run_folder::RECIPE), "").unwrap();
        assert!(read(run.path()).unwrap_err().to_string().contains("log.jsonl"));

        let mut log = LogWriter::open(&run.path().join(run_folder::LOG), &LogEnd::default()).unwrap();
        let start = Event::Start {
            version: events::VERSION,
            recipe: "r".into(),
            schedule: "1 clm".into(),
            seed: 7,
            parameters: 99,
            blocks: 1,
            steps: 20,
            words: 4000,
        };
        log.event(&start).unwrap();
        for step in 1..=3 {
            let loss = 5.0 / step as f64;
            let (objective, words_seen) = (Objective::Clm, step * 200);
            log.event(&Event::Step {
                step,
                block: 0,
                epoch: 0,
                objective,
                loss,
                lr: 0.1,
                grad_norm: 1.0,
                rows: 9,
                targets: 8,
                words_seen,
            })
            .unwrap();
        }
        let (at, backend) = (Moment::Block, Backend::Mlm);
        log.event(&Event::Dev { step: 3, block: 0, at, backend, loss: 7.0, targets: 5, unigram: 6.5 }).unwrap();
        log.sync().unwrap();
        let layout = antlm_nn::params::Layout::default();
        let state = checkpoint::State { step: 3, ..Default::default() };
        checkpoint::save(run.path(), &state, &layout, &Weights::new(Vec::new(), false), true).unwrap();

        let info = read(run.path()).unwrap();
        assert_eq!((info.step, info.steps, info.words_seen, info.finished), (3, 20, 600, false));
        assert_eq!(info.training_loss[&Objective::Clm], 5.0 / 3.0);
        assert!(info.dev[0].worse_than_unigram);
        let saved = Saved { step: 3, kept: Some(true), folder: "checkpoints/step-000000003".into() };
        assert_eq!(info.checkpoints, [saved]);
    }

    #[test]
    fn the_time_of_all_processes_is_added_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(run_folder::TIMING);
        assert_eq!(Time::read(&path), None);
        let resume = r#""event":{"event":"resume","step":1,"steps":9,"words_seen":9,"words":9,"path":"x"}"#;
        let saved = r#""event":{"event":"checkpoint","step":1,"path":"x","kept":false}"#;
        let lines = [
            r#"{"step":1,"seconds":2.0,"tokens_per_second":9.0}"#.to_owned(),
            format!(r#"{{"step":1,"seconds":2.5,"took":0.5,{saved}}}"#),
            // Killed; the next one took longer to begin than the first one in all.
            format!(r#"{{"step":1,"seconds":3.0,{resume}}}"#),
            format!(r#"{{"step":1,"seconds":4.0,"took":0.25,{saved}}}"#),
            // Begun anew, without a checkpoint.
            r#"{"step":1,"seconds":1.0}"#.to_owned(),
        ];
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        assert_eq!(Time::read(&path), Some(Time { seconds: 7.5, saving: 0.75 }));
        std::fs::write(&path, "{}\n").unwrap();
        assert_eq!(Time::read(&path), None);
    }
}
