//! The file read back with a reader of its own, against known checksums, and after every kind of interruption.

use std::path::Path;

use super::*;
use crate::objective::{Backend, Objective};
use crate::train::events::{LogEnd, LogWriter, Moment};

#[test]
fn known_checksums() {
    // RFC 3720, appendix B.4, and the catalogue's check value.
    let rising: Vec<u8> = (0..32).collect();
    let falling: Vec<u8> = (0..32).rev().collect();
    for (bytes, crc) in [
        (&b"123456789"[..], 0xe306_9283),
        (&[0; 32], 0x8a91_36aa),
        (&[0xff; 32], 0x62a8_ab43),
        (&rising, 0x46dd_794e),
        (&falling, 0x113f_db5c),
        (&[], 0),
    ] {
        assert_eq!(crc32c(bytes), crc, "{bytes:?}");
    }
}

fn step(step: u64) -> Event {
    let (objective, loss) = (Objective::Clm, 7.0 - step as f64 / 8.0);
    let (block, epoch, lr, grad_norm, rows, targets) = (0, 0, 0.25, 1.5, 64, 60);
    Event::Step { step, block, epoch, objective, loss, lr, grad_norm, rows, targets, words_seen: 100 * step }
}

fn dev(step: u64) -> Event {
    let (block, at, backend) = (0, Moment::Epoch, Backend::Mlm);
    Event::Dev { step, block, at, backend, loss: 2.5, targets: 10, unigram: 6.25 }
}

/// What TensorBoard's own writer makes of the same values.
#[test]
fn records_as_tensorboard_writes_them() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(
        hex(record(None, 1.5).unwrap()),
        "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c"
    );
    assert_eq!(
        hex(record(Some(&dev(300)), 1.5).unwrap()),
        "4500000000000000ebe668b009000000000000f83f10ac022a370a130a0c6465765f6c6f73732f6d6c6d15000020400a200a\
             196465765f746f6b656e5f6672657175656e636965732f6d6c6d150000c840b75535e7"
    );
    assert_eq!(record(Some(&Event::End { step: 3, words_seen: 4 }), 1.5), None);
}

/// A step and its values by name.
type Found = (u64, Vec<(String, f32)>);

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    bytes.split_off(..n).unwrap()
}

fn number(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// The fields of a message: number, and the bytes (of a varint, its value as 8 bytes).
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    while !message.is_empty() {
        let key = number(&mut message);
        let value = match key & 7 {
            0 => number(&mut message).to_le_bytes().to_vec(),
            1 => take(&mut message, 8).to_vec(),
            2 => {
                let n = number(&mut message) as usize;
                take(&mut message, n).to_vec()
            }
            5 => take(&mut message, 4).to_vec(),
            other => panic!("wire type {other}"),
        };
        all.push((key >> 3, value));
    }
    all
}

/// Reads an event file and checks both checksums of every record, and that it says its version once, first.
fn read(run: &Path) -> Vec<Found> {
    let bytes = fs::read(run.join(FOLDER).join(FILE)).unwrap();
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    let mut first = true;
    while !rest.is_empty() {
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        let length = take(&mut rest, 8);
        assert_eq!(word(take(&mut rest, 4)), masked(crc32c(length)));
        let message = take(&mut rest, u64::from_le_bytes(length.try_into().unwrap()) as usize);
        assert_eq!(word(take(&mut rest, 4)), masked(crc32c(message)));
        let all = fields(message);
        let get = |n| all.iter().find(|(number, _)| *number == n).map(|(_, bytes)| &bytes[..]);
        assert!(f64::from_le_bytes(get(1).unwrap().try_into().unwrap()) > 1.6e9, "seconds since 1970");
        assert_eq!(get(3), first.then_some(&b"brain.Event:2"[..]));
        if !first {
            let value = |(number, value): (u64, Vec<u8>)| {
                assert_eq!(number, 1);
                let [(1, tag), (2, simple)] = &fields(&value)[..] else { panic!("{value:?}") };
                (String::from_utf8(tag.clone()).unwrap(), f32::from_le_bytes(simple[..].try_into().unwrap()))
            };
            let values = fields(get(5).unwrap()).into_iter().map(value).collect();
            found.push((u64::from_le_bytes(get(2).unwrap().try_into().unwrap()), values));
        }
        first = false;
    }
    found
}

fn expected(events: &[Event]) -> Vec<Found> {
    let narrow = |values: Vec<(String, f64)>| values.into_iter().map(|(tag, x)| (tag, x as f32)).collect();
    events.iter().filter_map(|event| Some((event.step(), narrow(values(event)?)))).collect()
}

/// A run's log with these events, and what its event file holds once opened.
fn opened(run: &Path, events: &[Event]) -> Vec<Found> {
    let mut log = LogWriter::open(&run.join(run_folder::LOG), &LogEnd::default()).unwrap();
    events.iter().for_each(|event| log.event(event).unwrap());
    TensorBoard::open(run).unwrap();
    read(run)
}

#[test]
fn steps_and_dev_losses_are_read_back() {
    let run = tempfile::tempdir().unwrap();
    assert!(!TensorBoard::is_there(run.path()));
    LogWriter::open(&run.path().join(run_folder::LOG), &LogEnd::default()).unwrap();
    let mut board = TensorBoard::open(run.path()).unwrap();
    let all = [dev(0), step(1), step(2), dev(2), Event::End { step: 2, words_seen: 200 }];
    all.iter().for_each(|event| board.event(event).unwrap());
    assert!(TensorBoard::is_there(run.path()));
    let found = read(run.path());
    assert_eq!(found, expected(&all));
    assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1, 2, 2]);
    assert_eq!(found[1].1[0], ("train_loss/clm".to_owned(), 6.875));
    assert_eq!(found[3].1[0], ("dev_loss/mlm".to_owned(), 2.5));
}

#[test]
fn opening_makes_it_agree_with_the_log() {
    let run = tempfile::tempdir().unwrap();
    let run = run.path();
    let all = [dev(0), step(1), step(2), dev(2), step(3), step(4)];
    assert_eq!(opened(run, &all), expected(&all), "asked for late: filled in");
    let file = run.join(FOLDER).join(FILE);
    let whole = fs::read(&file).unwrap();
    assert_eq!(opened(run, &all), expected(&all));
    assert!(fs::read(&file).unwrap() == whole, "what agrees stays, its times too");
    assert_eq!(opened(run, &all[..3]), expected(&all[..3]), "a resumed log is shorter");
    assert!(whole.starts_with(&fs::read(&file).unwrap()));
    let other = [dev(0), step(1), dev(1), step(2)];
    assert_eq!(opened(run, &other), expected(&other), "another log from step 1 on");
    // Cut anywhere, or with a flipped bit anywhere but in a time, which has a checksum, too.
    for at in (0..whole.len()).step_by(7) {
        fs::write(&file, &whole[..at]).unwrap();
        assert_eq!(opened(run, &all), expected(&all), "cut at {at}");
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&file, &flipped).unwrap();
        assert_eq!(opened(run, &all), expected(&all), "flipped at {at}");
    }
    fs::write(&file, [&whole[..], b"more"].concat()).unwrap();
    assert_eq!(opened(run, &all), expected(&all));
}
