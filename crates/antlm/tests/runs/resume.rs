//! A run that ends anywhere and is resumed, once or often, equals the run that was never interrupted: weights,
//! moments, states and log, bit for bit. Here a run ends by a signal before a chosen step, or by an error after a
//! chosen event (then nothing more is saved); the binary's own tests kill processes.

use std::cell::Cell;

use antlm::recipe::{Milestones, Recipe};
use antlm::text::prepare::prepare;
use antlm::train::events::Event;
use antlm::train::trained::Trained;
use antlm::train::{checkpoint, input, run};
use antlm::{Error, Result};

use super::toy::{Toy, read};

/// A listener that fails at its n-th event: the run ends there as if its process had been killed.
fn fails_at(n: u64) -> impl FnMut(&Event) -> Result<()> {
    let mut seen = 0;
    move |_| {
        seen += 1;
        if seen == n { Err(Error::Usage("killed".into())) } else { Ok(()) }
    }
}

#[test]
fn stopped_by_a_signal_before_any_micro_batch() {
    let toy = Toy::new();
    let mut stopped_at = Vec::new();
    for asked_before in 0u64.. {
        let name = format!("stopped-{asked_before}");
        let asked = Cell::new(0);
        let cancel = || {
            asked.set(asked.get() + 1);
            (asked.get() > asked_before).then_some(15)
        };
        let Err(error) = toy.start(&name).unwrap().train(&mut |_: &Event| Ok(()), &cancel) else { break };
        assert!(matches!(error, Error::Stopped { signal: 15, .. }), "{error}");
        assert!(error.to_string().contains("--resume"), "{error}");
        stopped_at.push(checkpoint::newest(&toy.run(&name)).unwrap().unwrap().step);
        toy.resume(&name).unwrap();
        toy.is_whole(&name);
    }
    // In the middle of steps, too, and then as before the step.
    assert!(stopped_at.is_sorted() && stopped_at.len() as u64 > toy.steps, "{stopped_at:?}");
    // Also while the dev losses are measured: before the first step, and after the last one.
    stopped_at.dedup();
    assert!(stopped_at.into_iter().eq(0..=toy.steps));
}

#[test]
fn killed_after_any_event() {
    let toy = Toy::new();
    for event in 1..=toy.events {
        let name = format!("killed-{event}");
        assert!(toy.start(&name).unwrap().train(&mut fails_at(event), &|| None).is_err());
        toy.resume(&name).unwrap();
        toy.is_whole(&name);
    }
}

/// Killed again and again, a few events after each start, with leftovers of a checkpoint that was being written.
#[test]
fn killed_often() {
    let toy = Toy::new();
    let name = "often";
    let mut kills = 0;
    assert!(toy.start(name).unwrap().train(&mut fails_at(10), &|| None).is_err());
    loop {
        let half = toy.run(name).join("checkpoints").join(".tmp-step-000000009");
        std::fs::create_dir_all(&half).unwrap();
        std::fs::write(half.join("model.safetensors"), "half a fi").unwrap();
        match run::resume(&toy.run(name)).unwrap().train(&mut fails_at(10), &|| None) {
            Ok(()) => break,
            Err(_) => kills += 1,
        }
        assert!(kills < 100, "no progress");
    }
    assert!(kills > 2, "{kills}");
    toy.is_whole(name);
}

/// Each at the first step at or past its mark, with the true number of words, complete and readable; two in one step are
/// refused before anything is written.
#[test]
fn milestones_are_kept_at_their_marks() {
    let toy = Toy::new();
    let mut seen = std::collections::BTreeMap::new();
    let mut count = |event: &Event| {
        match event {
            Event::Start { .. } => drop(seen.insert(0, 0)),
            Event::Step { step, words_seen, .. } => drop(seen.insert(*step, *words_seen)),
            _ => {}
        }
        Ok(())
    };
    toy.start("again").unwrap().train(&mut count, &|| None).unwrap();
    for (name, mark) in [("chck_0M", 0), ("chck_200", 200), ("chck_700", 700), ("chck_1600", 1600)] {
        let opened = Trained::open(&toy.run("again").join(checkpoint::MILESTONES).join(name)).unwrap();
        let words: u64 = opened.state.seen.values().map(|seen| seen.words).sum();
        let (&step, &first) = seen.iter().find(|(_, words)| **words >= mark).unwrap();
        assert_eq!((opened.state.step, words), (step, first), "{name}");
    }
    let mut dense = toy.recipe.clone();
    dense.checkpoints.milestones = Milestones::Words(vec![700, 701]);
    let prepared = antlm::text::prepare::open(toy.path().join("prepared"), dense.seq_len).unwrap();
    let error = run::create(&dense, prepared, &toy.run("dense")).err().unwrap().to_string();
    assert!(error.contains("chck_700 and chck_701 fall into one step"), "{error}");
    assert!(!toy.run("dense").exists());
}

#[test]
fn a_finished_run_stays_as_it_is() {
    let toy = Toy::new();
    toy.start("done").unwrap().train(&mut |_: &Event| Ok(()), &|| None).unwrap();
    toy.resume("done").unwrap();
    toy.is_whole("done");
    // Cut off by a crash right before its last line, and when a signal comes while there is nothing left to do.
    let log = toy.run("done").join("log.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, &text[..text.trim_end().rfind('\n').unwrap() + 5]).unwrap();
    run::resume(&toy.run("done")).unwrap().train(&mut |_: &Event| Ok(()), &|| Some(2)).unwrap();
    toy.is_whole("done");
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_warning() {
    let toy = Toy::new();
    let run = toy.run("whole");
    let newest = checkpoint::newest(&run).unwrap().unwrap();
    let model = newest.path.join("model.safetensors");
    let mut bytes = read(&model);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&model, &bytes).unwrap();
    let mut said = Vec::new();
    let mut listen = |event: &Event| {
        match event {
            Event::Warning { text, .. } => said.push(text.clone()),
            Event::Resume { step, .. } => said.push(format!("from {step}")),
            _ => {}
        }
        Ok(())
    };
    // Another run with the same checkpoints, so that the whole one stays to compare with.
    run::resume(&run).unwrap().train(&mut listen, &|| None).unwrap();
    assert!(said.len() == 2 && said[0].contains("model.safetensors") && said[0].contains("sha256"), "{said:?}");
    assert!(said[1] != format!("from {}", newest.step), "{said:?}");
    toy.start("anew").unwrap().train(&mut |_: &Event| Ok(()), &|| None).unwrap();
    toy.is_whole("anew");

    // None is whole: the error names the newest one, and nothing is trained from the start over it.
    for entry in checkpoint::list(&run).unwrap() {
        std::fs::write(entry.path.join("optimizer.safetensors"), "").unwrap();
    }
    let log = read(&run.join("log.jsonl"));
    let error = toy.resume("whole").unwrap_err().to_string();
    assert!(error.contains(&format!("step-{:09}", newest.step)) && error.contains("optimizer"), "{error}");
    assert!(read(&run.join("log.jsonl")) == log);
}

#[test]
fn another_text_or_recipe_is_refused() {
    let toy = Toy::new();
    let run = toy.run("whole");
    let recipe = std::fs::read_to_string(run.join("recipe.toml")).unwrap();
    let message = || toy.resume("whole").unwrap_err().to_string();
    std::fs::write(run.join("recipe.toml"), recipe.replace("lr = 0.003", "lr = 0.004")).unwrap();
    assert!(message().contains("recipe"), "{}", message());
    std::fs::write(run.join("recipe.toml"), recipe.replace("vocab_size = 280", "vocab_size = 281")).unwrap();
    assert!(message().contains("vocab_size"), "{}", message());
    std::fs::write(run.join("recipe.toml"), &recipe[..recipe.find("[used]").unwrap()]).unwrap();
    assert!(message().contains("used"), "{}", message());
    std::fs::write(run.join("recipe.toml"), &recipe).unwrap();

    let prepared = toy.path().join("prepared");
    std::fs::rename(&prepared, toy.path().join("away")).unwrap();
    for word in ["prepared", "not there any more", "antlm prepare", "--out"] {
        assert!(message().contains(word), "{}", message());
    }
    let other = toy.path().join("other.txt");
    std::fs::write(&other, "The dogs sleep.\n\nA cat runs.\n").unwrap();
    let options = input::options(&toy.recipe, &[other], &[]).unwrap();
    prepare(&options, &prepared, &mut |_| {}, &|| false).unwrap();
    assert!(message().contains("not the text that this run was trained on"), "{}", message());
    std::fs::remove_dir_all(&prepared).unwrap();

    // As the message says: the run's own recipe and the same text bring it back.
    let recipe = Recipe::load(run.join("recipe.toml").to_str().unwrap(), &[]).unwrap();
    let options = input::options(&recipe, &[toy.path().join("text.txt")], &[]).unwrap();
    prepare(&options, &prepared, &mut |_| {}, &|| false).unwrap();
    toy.resume("whole").unwrap();
}
