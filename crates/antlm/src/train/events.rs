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
        use Event::{BlockEnd, Dev, End, Milestone, Start, Step, Switch};
        matches!(
            self,
            Start { .. } | Step { .. } | Dev { .. } | Switch { .. } | BlockEnd { .. } | Milestone { .. } | End { .. }
        )
    }

    /// Optimiser steps done when it happened.
    pub fn step(&self) -> u64 {
        match *self {
            Event::Start { .. } => 0,
            Event::Resume { step, .. }
            | Event::Switch { step, .. }
            | Event::Step { step, .. }
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
    /// What happened, when it was not a step: an event that is not in `log.jsonl`.
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
            Event::Step { rows, .. } => (Some(*rows as f64 / since.max(1e-9)), None),
            event if event.is_result() => return Ok(()),
            event => (None, Some(event.clone())),
        };
        let seconds = now.duration_since(self.start).as_secs_f64();
        let line = Timing { step: event.step(), seconds, tokens_per_second, event: other };
        write_line(&mut self.file, &line).map_err(Error::io(&self.path))?;
        Ok(())
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
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(Error::io(path))
}

/// Writes a line, at once, so that a run can be watched, and returns its length in bytes, the line's end included.
/// Writes a value as a line of JSON; the line.
fn write_line(file: &mut impl Write, value: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    file.write_all(&line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Event {
        Event::Step {
            step,
            block: 0,
            epoch: 0,
            objective: Objective::Clm,
            loss: 1.0 / 3.0,
            lr: 1e-3,
            grad_norm: 2.5,
            rows: 1024,
            targets: 1016,
            words_seen: 700 * step,
        }
    }

    fn saved(step: u64) -> Event {
        Event::Checkpoint { step, path: "checkpoints/step-000000002".into(), kept: false }
    }

    fn read(path: &Path) -> Vec<Event> {
        read_log(path, open(path).unwrap()).collect::<Result<_>>().unwrap()
    }

    #[test]
    fn a_resumed_log_has_the_bytes_of_an_uninterrupted_one() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
        let mut log = LogWriter::open(&whole, &LogEnd::default()).unwrap();
        for event in [step(1), step(2), saved(2), step(3), Event::End { step: 3, words_seen: 2100 }] {
            log.event(&event).unwrap();
        }
        log.sync().unwrap();

        let mut log = LogWriter::open(&cut, &LogEnd::default()).unwrap();
        log.event(&step(1)).unwrap();
        log.event(&step(2)).unwrap();
        let end = log.sync().unwrap();
        for event in [saved(2), step(3), Event::Stop { step: 3, signal: 2 }] {
            log.event(&event).unwrap();
        }
        drop(log);
        std::fs::OpenOptions::new().append(true).open(&cut).unwrap().write_all(b"{\"event\":\"st").unwrap();
        assert_eq!(read(&cut).len(), 3);

        let mut log = LogWriter::open(&cut, &end).unwrap();
        log.event(&step(3)).unwrap();
        log.event(&Event::End { step: 3, words_seen: 2100 }).unwrap();
        assert_eq!(log.sync().unwrap().bytes, std::fs::metadata(&cut).unwrap().len());
        drop(log);
        assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&cut).unwrap());
        assert_eq!(read(&whole)[1], step(2));
        assert_eq!(read(&whole).len(), 4);
    }

    #[test]
    fn a_log_that_does_not_fit_the_checkpoint_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, "{}\n{}\n").unwrap();
        for (bytes, expected) in [(7, "byte 6: the log ends here"), (6, "damaged or changed")] {
            let end = LogEnd { bytes, sha256: files::sha256(b"{}\n[]\n") };
            let error = LogWriter::open(&path, &end).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("log.jsonl"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), b"{}\n{}\n");
        }
    }

    #[test]
    fn foreign_lines_are_errors_with_their_number() {
        for (log, expected) in [
            ("{\"event\":\"end\",\"step\":1,\"words_seen\":1}\nhello\n", "log.jsonl: line 2, column 1"),
            ("{\"event\":\"party\",\"step\":1}\n", "party"),
            ("{\"event\":\"end\",\"step\":1,\"words_seen\":1,\"x\":2}\n", "x"),
            ("\n", "line 1"),
            (&"x".repeat(1 << 21), "line 1: too long"),
        ] {
            let results: Vec<Result<Event>> = read_log("log.jsonl", log.as_bytes()).collect();
            let error = results.last().unwrap().as_ref().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn timing_has_the_seconds_and_what_the_log_leaves_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("timing.jsonl");
        for part in [[step(1), saved(1)], [step(2), Event::Stop { step: 2, signal: 15 }]] {
            let mut timing = TimingWriter::open(&path).unwrap();
            part.iter().for_each(|event| timing.event(event).unwrap());
        }
        let lines: Vec<Timing> = read_timing(&path, open(&path).unwrap()).collect::<Result<_>>().unwrap();
        assert_eq!(lines.iter().map(|line| line.step).collect::<Vec<_>>(), [1, 1, 2, 2]);
        assert_eq!(lines[1].event, Some(saved(1)));
        assert!(lines[0].tokens_per_second.unwrap() > 0.0 && lines[0].seconds >= 0.0 && lines[0].event.is_none());
    }

    #[test]
    fn the_first_step_after_a_switch_is_as_slow_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("timing.jsonl");
        let mut timing = TimingWriter::open(&path).unwrap();
        let (from, to) = (Objective::Clm, Objective::Mlm);
        timing.event(&step(1)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        timing.event(&Event::Switch { step: 1, block: 1, from, to }).unwrap();
        timing.event(&step(2)).unwrap();
        let Event::Step { rows, .. } = step(2) else { unreachable!() };
        let lines: Vec<Timing> = read_timing(&path, open(&path).unwrap()).collect::<Result<_>>().unwrap();
        let speed = lines[1].tokens_per_second.unwrap();
        assert!(speed <= rows as f64 / 0.05, "{speed}");
    }

    #[test]
    fn listeners_in_a_row_all_hear_it() {
        let heard = std::cell::RefCell::new(Vec::new());
        let mut row: Vec<Box<dyn Listener + '_>> = Vec::new();
        for name in ["a", "b"] {
            let heard = &heard;
            row.push(Box::new(move |event: &Event| {
                heard.borrow_mut().push((name, event.step()));
                Ok(())
            }));
        }
        row.event(&step(5)).unwrap();
        assert_eq!(*heard.borrow(), [("a", 5), ("b", 5)]);
    }
}
