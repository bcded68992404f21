//! One stream of events: the loop tells what happens, listeners write, draw or print it. The loop prints nothing.
//!
//! Events that follow from recipe, text and seed alone go to `log.jsonl`, which is therefore the same for an
//! interrupted and an uninterrupted run; what depends on the day (seconds, saving, stopping) goes to `timing.jsonl`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::health::Why;
use crate::objective::{Backend, Objective};
use crate::{Error, Result, files};

/// The version of the events in `log.jsonl`, in its first line.
pub const VERSION: u32 = 1;

/// Why the dev loss was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Before the first step.
    Start,
    /// At the end of an epoch inside a block.
    Epoch,
    /// At the end of a block of the schedule.
    Block,
    /// Some steps after another objective took over.
    Switch,
}

/// Something that happened in a run. Losses are in nats per target; `words` are words of the raw text, repeats counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A run begins, at step 0.
    Start {
        /// [`VERSION`].
        version: u32,
        /// The recipe's name.
        recipe: String,
        /// The schedule as its language prints it.
        schedule: String,
        /// Seed of all random numbers.
        seed: u64,
        /// The model's parameters.
        parameters: u64,
        /// Blocks of the schedule.
        blocks: u64,
        /// Planned optimiser steps.
        steps: u64,
        /// Planned words.
        words: u64,
    },
    /// A run goes on from a checkpoint.
    Resume {
        /// Steps done.
        step: u64,
        /// Planned optimiser steps.
        steps: u64,
        /// Words seen.
        words_seen: u64,
        /// Planned words.
        words: u64,
        /// The checkpoint.
        path: PathBuf,
    },
    /// A block of the schedule begins with another objective than the one before it had.
    Switch {
        /// Steps done.
        step: u64,
        /// The block that begins, from 0 on.
        block: u64,
        /// What was taught before.
        from: Objective,
        /// What is taught now.
        to: Objective,
    },
    /// One optimiser step was done.
    Step {
        /// Steps done, this one included.
        step: u64,
        /// The block, from 0 on.
        block: u64,
        /// The epoch of the stream of segments, from 0 on.
        epoch: u64,
        /// What it taught.
        objective: Objective,
        /// Mean -log p over the step's targets, before the update; without the z-loss, if the recipe has one.
        loss: f64,
        /// Learning rate of this step.
        lr: f64,
        /// Norm of all gradients before clipping.
        grad_norm: f64,
        /// Tokens that went through the model, framing included.
        rows: u64,
        /// Tokens that were predicted.
        targets: u64,
        /// Words seen by the run, this step's included.
        words_seen: u64,
    },
    /// A step was done, and the weights were not changed by it (`[health]`). It stands in the place of the step.
    Skip {
        /// Steps done, this one included.
        step: u64,
        /// The block, from 0 on.
        block: u64,
        /// What it would have taught.
        objective: Objective,
        /// Why.
        why: Why,
        /// Its loss, where that is a finite number.
        loss: Option<f64>,
        /// Norm of its gradient, where that is a finite number.
        grad_norm: Option<f64>,
        /// Of a spike: how many standard deviations its loss lies above the mean of the recent ones.
        z: Option<f64>,
        /// Tokens that went through the model.
        rows: u64,
        /// Words seen by the run, this step's included.
        words_seen: u64,
    },
    /// The loss of the step before this event leapt; its update was made.
    Spike {
        /// Steps done, that one included.
        step: u64,
        /// What it taught.
        objective: Objective,
        /// Its loss.
        loss: f64,
        /// How many standard deviations it lies above the mean of the recent ones.
        z: f64,
    },
    /// The dev set was scored with one backend.
    Dev {
        /// Steps done.
        step: u64,
        /// The block, from 0 on.
        block: u64,
        /// Why now.
        at: Moment,
        /// How the model was read.
        backend: Backend,
        /// Mean over the dev set's targets.
        loss: f64,
        /// Number of them.
        targets: u64,
        /// The same of a model that knows only how frequent each token is in the training text; a model above it has
        /// forgotten, or never learnt, this way of reading.
        unigram: f64,
    },
    /// A block of the schedule is done.
    BlockEnd {
        /// Steps done.
        step: u64,
        /// The block, from 0 on.
        block: u64,
        /// What it taught; of a `mix`, what its last step taught.
        objective: Objective,
        /// Words seen by the run.
        words_seen: u64,
    },
    /// The weights at a mark of words seen are on disk, in `milestones/`.
    Milestone {
        /// Steps done.
        step: u64,
        /// Its name.
        name: String,
        /// Words seen by the run: at the mark or past it.
        words_seen: u64,
    },
    /// A checkpoint is on disk.
    Checkpoint {
        /// Steps done.
        step: u64,
        /// Its folder.
        path: PathBuf,
        /// It stays.
        kept: bool,
    },
    /// Something the user should know that does not stop the run (a damaged checkpoint that was passed over).
    Warning {
        /// Steps done.
        step: u64,
        /// One line.
        text: String,
    },
    /// A signal or the time limit ended the run early; everything was saved.
    Stop {
        /// Steps done.
        step: u64,
        /// The signal's number, or [`crate::error::TIME_UP`].
        signal: i32,
    },
    /// The schedule is done.
    End {
        /// Steps done.
        step: u64,
        /// Words seen by the run.
        words_seen: u64,
    },
}

impl Event {
    /// True when the event follows from recipe, text and seed alone and belongs to `log.jsonl`.
    pub fn is_result(&self) -> bool {
        use Event::{BlockEnd, Dev, End, Milestone, Skip, Spike, Start, Step, Switch};
        matches!(
            self,
            Start { .. }
                | Step { .. }
                | Skip { .. }
                | Spike { .. }
                | Dev { .. }
                | Switch { .. }
                | BlockEnd { .. }
                | Milestone { .. }
                | End { .. }
        )
    }

    /// Optimiser steps done when it happened.
    pub fn step(&self) -> u64 {
        match *self {
            Event::Start { .. } => 0,
            Event::Resume { step, .. }
            | Event::Switch { step, .. }
            | Event::Step { step, .. }
            | Event::Skip { step, .. }
            | Event::Spike { step, .. }
            | Event::Dev { step, .. }
            | Event::BlockEnd { step, .. }
            | Event::Milestone { step, .. }
            | Event::Checkpoint { step, .. }
            | Event::Warning { step, .. }
            | Event::Stop { step, .. }
            | Event::End { step, .. } => step,
        }
    }
}

/// Whoever wants to know what happens in a run.
pub trait Listener {
    /// Takes one event. An error ends the run.
    ///
    /// # Errors
    /// Whatever the listener meets, with its path.
    fn event(&mut self, event: &Event) -> Result<()>;
}

/// Listeners in a row: each gets every event, in order, until one fails.
impl Listener for Vec<Box<dyn Listener + '_>> {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.iter_mut().try_for_each(|listener| listener.event(event))
    }
}

/// A closure listens, too.
///
/// ```
/// use antlm::train::events::{Event, Listener};
/// let mut steps = 0;
/// let mut count = |event: &Event| {
///     steps += u32::from(matches!(event, Event::Step { .. }));
///     Ok(())
/// };
/// count.event(&Event::End { step: 3, words_seen: 9 })?;
/// assert_eq!(steps, 0);
/// # Ok::<(), antlm::Error>(())
/// ```
impl<F: FnMut(&Event) -> Result<()>> Listener for F {
    fn event(&mut self, event: &Event) -> Result<()> {
        self(event)
    }
}

/// Writes `log.jsonl`: one line an event, without any clock, equal bytes for equal runs.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
    end: LogEnd,
    hash: Sha256,
}

/// Where a log ended when a checkpoint was written: what is in front of it never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEnd {
    /// Bytes of the log until then.
    pub bytes: u64,
    /// Their SHA-256 in hexadecimal digits; empty for none.
    pub sha256: String,
}

impl LogEnd {
    /// Whether the log is still what it was there; its hash, which goes on behind.
    ///
    /// # Errors
    /// [`Error::Data`] when the log is shorter than that or has changed, [`Error::Io`] otherwise.
    pub fn check(&self, path: &Path) -> Result<Sha256> {
        let mut hash = Sha256::new();
        if self.bytes == 0 {
            return Ok(hash);
        }
        let mut file = File::open(path).map_err(Error::io(path))?.take(self.bytes);
        let (mut read, mut buffer) = (0, vec![0; 1 << 16]);
        loop {
            match file.read(&mut buffer).map_err(Error::io(path))? {
                0 => break,
                n => {
                    hash.update(&buffer[..n]);
                    read += n as u64;
                }
            }
        }
        if read < self.bytes {
            let what = format!("the log ends here, but the checkpoint was written after byte {}", self.bytes);
            return Err(Error::data(path, format!("byte {read}"), what));
        }
        let found = files::hex(&hash.clone().finalize());
        if found != self.sha256 {
            let what = format!(
                "the SHA-256 of the first {} bytes is {found}, but the checkpoint says {}: the log was damaged or changed, or is \
                 another run's",
                self.bytes, self.sha256
            );
            return Err(Error::data(path, "sha256", what));
        }
        Ok(hash)
    }
}

impl LogWriter {
    /// Opens (or makes) the log and cuts it back to a checkpoint's end; the default one for a new run.
    ///
    /// # Errors
    /// As [`LogEnd::check`].
    pub fn open(path: &Path, end: &LogEnd) -> Result<LogWriter> {
        let hash = end.check(path)?;
        let mut file = open_log(path)?;
        file.set_len(end.bytes).and_then(|()| file.seek(SeekFrom::End(0))).map_err(Error::io(path))?;
        Ok(LogWriter { path: path.to_owned(), file, end: end.clone(), hash })
    }

    /// Brings everything to the disk and returns where the log ends, for a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn sync(&mut self) -> Result<LogEnd> {
        self.file.sync_data().map_err(Error::io(&self.path))?;
        self.end.sha256 = files::hex(&self.hash.clone().finalize());
        Ok(self.end.clone())
    }
}

impl Listener for LogWriter {
    fn event(&mut self, event: &Event) -> Result<()> {
        if event.is_result() {
            let line = write_line(&mut self.file, event).map_err(Error::io(&self.path))?;
            self.end.bytes += line.len() as u64;
            self.hash.update(&line);
        }
        Ok(())
    }
}

/// One line of `timing.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Optimiser steps done.
    pub step: u64,
    /// Seconds since this process began to train.
    pub seconds: f64,
    /// Tokens of this step per second since the event before it; steps only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Seconds that training waited for it; checkpoints and milestones only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<f64>,
    /// What happened, when it was not a step: an event that is not in `log.jsonl`, or a milestone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
}

/// Writes `timing.jsonl`: seconds and tokens per second of every step, and what depends on the day (resuming, saving,
/// stopping). Appends; nothing is ever cut.
#[derive(Debug)]
pub struct TimingWriter {
    path: PathBuf,
    file: File,
    start: Instant,
    last: Instant,
}

impl TimingWriter {
    /// Opens (or makes) the file; the clock starts now.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn open(path: &Path) -> Result<TimingWriter> {
        let mut file = open_log(path)?;
        file.seek(SeekFrom::End(0)).map_err(Error::io(path))?;
        let now = Instant::now();
        Ok(TimingWriter { path: path.to_owned(), file, start: now, last: now })
    }

    /// Saving begins now: what went before, part of a step or of a dev evaluation, is not its time.
    pub fn saving(&mut self) {
        self.last = Instant::now();
    }
}

impl Listener for TimingWriter {
    fn event(&mut self, event: &Event) -> Result<()> {
        let now = Instant::now();
        let since = now.duration_since(self.last).as_secs_f64();
        // A switch is told after the step that begins a block, before the event of that step: its time belongs to the step.
        if !matches!(event, Event::Switch { .. }) {
            self.last = now;
        }
        let (tokens_per_second, other) = match event {
            Event::Step { rows, .. } | Event::Skip { rows, .. } => (Some(*rows as f64 / since.max(1e-9)), None),
            Event::Milestone { .. } => (None, Some(event.clone())),
            event if event.is_result() => return Ok(()),
            event => (None, Some(event.clone())),
        };
        let took = matches!(event, Event::Checkpoint { .. } | Event::Milestone { .. }).then_some(since);
        let seconds = now.duration_since(self.start).as_secs_f64();
        let line = Timing { step: event.step(), seconds, tokens_per_second, took, event: other };
        let end = self.file.stream_position().map_err(Error::io(&self.path))?;
        match write_line(&mut self.file, &line).map_err(Error::io(&self.path)) {
            // No result depends on this file: it has a line less.
            Err(error) if error.is_full() => {
                self.file
                    .set_len(end)
                    .and_then(|()| self.file.seek(SeekFrom::Start(end)))
                    .map_err(Error::io(&self.path))?;
                Ok(())
            }
            result => result.map(|_| ()),
        }
    }
}

/// Reads `log.jsonl`, line by line. A last line without an end is skipped: its run was killed while writing it.
///
/// ```
/// use antlm::train::events::{Event, read_log};
/// let log = "{\"event\":\"end\",\"step\":3,\"words_seen\":9}\n{\"event\":\"st";
/// let events: Vec<Event> = read_log("log.jsonl", log.as_bytes()).collect::<antlm::Result<_>>()?;
/// assert_eq!(events, [Event::End { step: 3, words_seen: 9 }]);
/// # Ok::<(), antlm::Error>(())
/// ```
pub fn read_log(path: impl AsRef<Path>, reader: impl BufRead) -> impl Iterator<Item = Result<Event>> {
    read_lines(path.as_ref().to_owned(), reader)
}

/// Reads `timing.jsonl`, line by line, as [`read_log`] does.
pub fn read_timing(path: impl AsRef<Path>, reader: impl BufRead) -> impl Iterator<Item = Result<Timing>> {
    read_lines(path.as_ref().to_owned(), reader)
}

/// Opens a file for a reader of lines.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn open(path: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).map_err(Error::io(path))?))
}

fn read_lines<T: serde::de::DeserializeOwned>(path: PathBuf, reader: impl BufRead) -> impl Iterator<Item = Result<T>> {
    /// No event is longer; a longer line is not ours.
    const MAX_LINE: u64 = 1 << 20;
    let mut reader = reader;
    let mut number = 0;
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed {
            return None;
        }
        number += 1;
        let mut line = Vec::new();
        let result = match std::io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut line) {
            Err(source) => Err(Error::Io { path: path.clone(), source }),
            Ok(size) if size as u64 == MAX_LINE => Err(Error::data(&path, format!("line {number}"), "too long")),
            Ok(_) if line.last() != Some(&b'\n') => return None,
            Ok(_) => serde_json::from_slice(&line)
                .map_err(|e| Error::data(&path, format!("line {number}, column {}", e.column()), e.to_string())),
        };
        failed = result.is_err();
        Some(result)
    })
}

fn open_log(path: &Path) -> Result<File> {
    let new = !path.exists();
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(Error::io(path))?;
    if new {
        files::sync_folder(files::parent(path))?;
    }
    Ok(file)
}

/// Writes a value as a line of JSON, at once, so that a run can be watched; the line.
fn write_line(file: &mut impl Write, value: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    file.write_all(&line)?;
    Ok(line)
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
