//! A run that ends anywhere and is resumed, once or often, equals the run that was never interrupted: weights,
//! moments, states and log, bit for bit. Here a run ends by a signal before a chosen step, or by an error after a
//! chosen event (then nothing more is saved); the binary's own tests kill processes.

use std::cell::Cell;

use antlm::model::Model;
use antlm::objective::schedule::Schedule;
use antlm::recipe::{Milestones, Recipe};
use antlm::text::prepare::prepare;
use antlm::train::events::{Event, read_log};
use antlm::train::trained::Trained;
use antlm::train::{checkpoint, input, run};
use antlm::{Error, Result};
use antlm_nn::device::Device;
use antlm_nn::device::Precision;
use antlm_nn::rng::{Rng, Stream};

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
            Event::Step { step, words_seen, .. } | Event::Skip { step, words_seen, .. } => {
                seen.insert(*step, *words_seen);
            }
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

/// Random schedules, batches and marks, killed at random events until they are done: the milestones are the same as
/// without a kill, none missing, none twice in the log, each with the words that the steps until it saw.
#[test]
fn milestones_of_random_runs_with_random_kills() {
    let toy = Toy::new();
    let (mut kills, mut reached) = (0, 0);
    for case in 0..12 {
        let mut random = Rng::new(20).draws(Stream::ORDER, case, 0);
        let mut recipe = toy.recipe.clone();
        let schedules = ["1 clm + 2 mlm", "2 mix(clm:1, mlm:2)", "1kw mntp + 1 clm", "2 x (1 mlm + 1 clm)"];
        recipe.schedule = Schedule::parse(schedules[random.below(4) as usize]).unwrap();
        recipe.batch.segments = 8 + random.below(40);
        recipe.checkpoints.every = 1 + random.below(4);
        // A step of 47 segments has fewer words than lie between two marks.
        let mut marks = vec![1 + u64::from(random.below(300))];
        for _ in 0..5 {
            marks.push(marks[marks.len() - 1] + 260 + u64::from(random.below(200)));
        }
        recipe.checkpoints.milestones = Milestones::Words(marks.clone());
        let name = format!("random-{case}");
        let prepared = antlm::text::prepare::open(toy.path().join("prepared"), recipe.seq_len).unwrap();
        let mut run = run::create(&recipe, prepared, &toy.run(&name)).unwrap();
        for life in 0.. {
            assert!(life < 200, "no progress");
            if run.train(&mut fails_at(6 + u64::from(random.below(12))), &|| None).is_ok() {
                break;
            }
            kills += 1;
            run = run::resume(&toy.run(&name)).unwrap();
        }
        // By counting, from the log.
        let log = toy.run(&name).join("log.jsonl");
        let log: Vec<Event> = read_log(&log, &read(&log)[..]).collect::<Result<_>>().unwrap();
        let (mut expected, mut left) = (vec![("chck_0M".to_owned(), 0, 0)], marks.iter().peekable());
        let (mut found, mut blocks) = (Vec::new(), std::collections::BTreeMap::new());
        for event in log {
            match event {
                Event::Step { step, block, words_seen, .. } | Event::Skip { step, block, words_seen, .. } => {
                    blocks.insert(step, block);
                    if let Some(mark) = left.next_if(|&&mark| mark <= words_seen) {
                        expected.push((format!("chck_{mark}"), step, words_seen));
                    }
                }
                Event::Milestone { step, name, words_seen } => found.push((name, step, words_seen)),
                _ => {}
            }
        }
        assert_eq!(found, expected, "{recipe:?}");
        reached += found.len();
        let folder = toy.run(&name).join(checkpoint::MILESTONES);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), found.len(), "{name}");
        for (name, step, words) in found {
            let (state, _) = checkpoint::read_state(&folder.join(&name)).unwrap();
            let seen: u64 = state.seen.values().map(|seen| seen.words).sum();
            assert_eq!((state.step, seen), (step, words), "{name}");
            assert_eq!(state.trained_block, blocks.get(&step).copied(), "{name}");
        }
    }
    assert!(kills > 20 && reached > 30, "{kills} kills, {reached} milestones");
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

/// What `auto` comes to is the run's for good: in its recipe and its checkpoints, and on other hardware it is refused.
#[test]
fn bf16_is_resumed_where_it_has_the_same_bits() {
    let native = Device::Cpu.multiplies_bf16();
    for (asked, written) in [("auto", if native { "bf16" } else { "f32" }), ("bf16", "bf16")] {
        let toy = Toy::with(&[&format!("precision={asked}")]);
        let recipe = std::fs::read_to_string(toy.run("whole").join("recipe.toml")).unwrap();
        assert!(recipe.contains(&format!("\nprecision = \"{written}\"\n")), "{asked}: {recipe}");
        for event in (3..toy.events).step_by(7) {
            let name = format!("killed-{event}");
            assert!(toy.start(&name).unwrap().train(&mut fails_at(event), &|| None).is_err());
            toy.resume(&name).unwrap();
            toy.is_whole(&name);
        }
    }
    let toy = Toy::with(&["precision=bf16"]);
    let f32 = Toy::new();
    let losses = |toy: &Toy| read(&toy.run("whole").join("log.jsonl"));
    assert!(losses(&toy) != losses(&f32), "bf16 changes nothing");
    let (run, here) = (toy.run("whole"), Device::Cpu.arithmetic(Precision::Bf16));
    let recipe = Recipe::load(run.join("recipe.toml").to_str().unwrap(), &[]).unwrap();
    let model = Model::new(&recipe.config()).unwrap();
    let (mut newest, _) = checkpoint::newest_good(&run, model.layout()).unwrap().unwrap();
    assert_eq!(std::mem::replace(&mut newest.state.precision, "bf16-elsewhere".into()), here);
    checkpoint::save(&run, &newest.state, model.layout(), &newest.weights, newest.kept).unwrap();
    let refused = toy.resume("whole").unwrap_err().to_string();
    for part in ["state.json", "precision", "bf16-elsewhere", here, "--init"] {
        assert!(refused.contains(part), "{refused}");
    }
}

/// Learns as much in bf16 as in f32: dev losses within half a per cent.
#[test]
fn bf16_learns_as_f32() {
    let sizes = [
        "schedule=3 clm + 3 mntp",
        "model.layers=2",
        "model.hidden=64",
        "model.hidden_dropout=0.1",
        "optimizer.ema_decay=0.0",
    ];
    let health = ["health.spikes=off", "batch.segments=8", "dev.max_segments=0", "optimizer.lr=0.003"];
    let losses = ["f32", "bf16"].map(|precision| {
        let precision = format!("precision={precision}");
        let set: Vec<&str> = sizes.iter().chain(&health).copied().chain([&precision[..]]).collect();
        let (toy, mut losses) = (Toy::untrained(&set), Vec::new());
        let mut listen = |event: &Event| {
            if let Event::Dev { backend, loss, unigram, .. } = event {
                losses.push((*backend, *loss, *unigram));
            }
            Ok(())
        };
        toy.start("whole").unwrap().train(&mut listen, &|| None).unwrap();
        losses
    });
    let [f32, bf16] = &losses;
    assert_eq!(f32.len(), bf16.len());
    for (f32, bf16) in f32.iter().zip(bf16) {
        println!("{f32:?} {bf16:?}");
        assert!(f32.0 == bf16.0 && (f32.1 - bf16.1).abs() < 0.005 * f32.1, "{f32:?} {bf16:?}");
    }
    let (_, loss, unigram) = f32[f32.len() - 1];
    assert!(loss < 0.9 * unigram, "too little was learnt to compare: {loss}, words alone {unigram}");
}
