//! TensorBoard's event files, written from the stream of events: `tensorboard --logdir RUN/tensorboard` draws them.
//!
//! The file mirrors `log.jsonl`: one record for each step and each dev loss, in the log's order. Whatever a stop, a crash
//! or a run without TensorBoard left behind, opening it keeps the records that agree with the log, cuts off the rest and
//! adds what is missing. A record's `wall_time` says when it was written; everything else follows from the log.
//!
//! The format: records framed as TFRecords (length, its checksum, bytes, their checksum; CRC-32C, masked) of protobuf
//! messages `Event` with a `Summary` of simple values, as in TensorFlow's `event.proto` and `summary.proto`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::events::{self, Event, Listener};
use super::run_folder;
use crate::{Error, Result};

/// The folder in the run's folder.
pub const FOLDER: &str = "tensorboard";
/// The one file in it. TensorBoard reads what has `tfevents` in its name.
pub const FILE: &str = "events.out.tfevents.antlm";

/// Writes the event file of a run.
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Opens (or makes) the event file of a run, and makes it agree with the run's log as it is now. On resume the log
    /// has to be cut first, as [`super::run::resume`] does.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, or a log that cannot be read.
    pub fn open(run: &Path) -> Result<TensorBoard> {
        let folder = run.join(FOLDER);
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let path = folder.join(FILE);
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(Error::io(&path))?;
        let log = run.join(run_folder::LOG);
        let events = events::read_log(&log, events::open(&log)?);
        let mut reader = BufReader::new(&file);
        let (mut agrees, mut good, mut rest) = (true, 0, Vec::new());
        for event in std::iter::once(Ok(None)).chain(events.map(|event| event.map(Some))) {
            let event = event?;
            let Some(new) = record(event.as_ref(), now()) else { continue };
            if agrees {
                // Equal but for the time, which is fixed in size and place.
                let mut found = vec![0; new.len()];
                agrees = match reader.read_exact(&mut found) {
                    Ok(()) => record(event.as_ref(), wall_time(&found)).as_ref() == Some(&found),
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => false,
                    Err(source) => return Err(Error::Io { path, source }),
                };
            }
            if agrees {
                good += new.len() as u64;
            } else {
                rest.extend(new);
            }
        }
        file.set_len(good).and_then(|()| file.seek(SeekFrom::Start(good))).map_err(Error::io(&path))?;
        file.write_all(&rest).map_err(Error::io(&path))?;
        Ok(TensorBoard { path, file })
    }

    /// True when a run has an event file already, so that it should be gone on with.
    pub fn is_there(run: &Path) -> bool {
        run.join(FOLDER).join(FILE).is_file()
    }
}

impl Listener for TensorBoard {
    fn event(&mut self, event: &Event) -> Result<()> {
        match record(Some(event), now()) {
            // In one piece, so that TensorBoard can read along.
            Some(record) => self.file.write_all(&record).map_err(Error::io(&self.path)),
            None => Ok(()),
        }
    }
}

/// Seconds since 1970: the only thing here that depends on the clock.
fn now() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |time| time.as_secs_f64())
}

/// The framed record of an event, or the first one of a file, which says the format's version; `None` for events that are
/// not drawn.
fn record(event: Option<&Event>, wall_time: f64) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    key(&mut message, 1, FIXED64);
    message.extend(wall_time.to_le_bytes());
    match event {
        None => field(&mut message, 3, b"brain.Event:2"),
        Some(event) => {
            let values = values(event)?;
            key(&mut message, 2, VARINT);
            varint(&mut message, event.step());
            let mut summary = Vec::new();
            for (tag, value) in values {
                let mut one = Vec::new();
                field(&mut one, 1, tag.as_bytes());
                key(&mut one, 2, FIXED32);
                one.extend((value as f32).to_le_bytes());
                field(&mut summary, 1, &one);
            }
            field(&mut message, 5, &summary);
        }
    }
    Some(frame(&message))
}

/// What is drawn of an event: names and values of curves.
fn values(event: &Event) -> Option<Vec<(String, f64)>> {
    match event {
        Event::Step { objective, loss, lr, grad_norm, words_seen, .. } => Some(vec![
            (format!("train_loss/{objective}"), *loss),
            ("optimizer/lr".into(), *lr),
            ("optimizer/grad_norm".into(), *grad_norm),
            ("progress/words_seen".into(), *words_seen as f64),
        ]),
        Event::Dev { backend, loss, unigram, .. } => {
            Some(vec![(format!("dev_loss/{backend}"), *loss), (format!("dev_token_frequencies/{backend}"), *unigram)])
        }
        _ => None,
    }
}

/// Where `wall_time` stands in a framed record: behind the length (8 bytes), its checksum (4) and the field's key (1).
const WALL_TIME: std::ops::Range<usize> = 13..21;

fn wall_time(record: &[u8]) -> f64 {
    record.get(WALL_TIME).and_then(|bytes| bytes.try_into().ok()).map_or(0.0, f64::from_le_bytes)
}

/// Protobuf's wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

fn key(out: &mut Vec<u8>, number: u64, wire: u64) {
    varint(out, number << 3 | wire);
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of bytes, text or a message.
fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    key(out, number, LENGTH);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// A TFRecord.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend(length);
    record.extend(masked(crc32c(&length)).to_le_bytes());
    record.extend(bytes);
    record.extend(masked(crc32c(bytes)).to_le_bytes());
    record
}

/// TensorFlow stores checksums so that a checksum of data that holds checksums is a good one, too.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: records are small.
fn crc32c(bytes: &[u8]) -> u32 {
    /// The polynomial, its bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 })
    })
}

#[cfg(test)]
#[path = "tensorboard_tests.rs"]
mod tests;
