//! Log and timings: what is written, cut back and read again.

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
    assert!(lines.iter().map(|line| line.took.is_some()).eq([false, true, false, false]));
}

/// What training waited for while it was saved, and nothing else.
#[test]
fn saving_is_timed_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("timing.jsonl");
    let wait = || std::thread::sleep(std::time::Duration::from_millis(50));
    let mut timing = TimingWriter::open(&path).unwrap();
    timing.event(&step(1)).unwrap();
    wait(); // half a step, say, before a signal
    timing.saving();
    wait();
    timing.event(&saved(1)).unwrap();
    wait();
    timing.saving();
    timing.event(&Event::Milestone { step: 1, name: "chck_1".into(), words_seen: 1 }).unwrap();
    let lines: Vec<Timing> = read_timing(&path, open(&path).unwrap()).collect::<Result<_>>().unwrap();
    let [first, second] = [1, 2].map(|i| lines[i].took.unwrap());
    let from_first = lines[1].seconds - lines[0].seconds;
    assert!(first >= 0.05 && first <= from_first - 0.05 && second <= lines[2].seconds - lines[1].seconds - 0.05);
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
