//! A run that ends anywhere and is resumed, once or often, equals the run that was never interrupted: weights,
//! moments, states and log, bit for bit. Here a run ends by a signal before a chosen step, or by an error after a
//! chosen event (then nothing more is saved); the binary's own tests kill processes.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use antlm::recipe::Recipe;
use antlm::text::prepare::{self, prepare};
use antlm::train::events::Event;
use antlm::train::{checkpoint, input, run};
use antlm::{Error, Result};

/// A folder with prepared text, and a recipe for some fourteen steps over it: two epochs, a switch, a third epoch.
struct Toy {
    folder: tempfile::TempDir,
    recipe: Recipe,
    steps: u64,
    events: u64,
}

impl Toy {
    fn new() -> Toy {
        let folder = tempfile::tempdir().unwrap();
        let set = [
            "schedule=2 clm + 1 mntp",
            "seq_len=24",
            "model.layers=1",
            "model.hidden=16",
            "model.heads=2",
            "model.intermediate=16",
            "model.vocab_size=280",
            "batch.segments=12",
            "batch.micro_tokens=100",
            "checkpoints.every=3",
            "dev.max_segments=2",
        ];
        let recipe = Recipe::load("ltg-bert-tiny", &set.map(String::from)).unwrap();
        let mut text = Vec::new();
        antlm::text::sample::write(300, 5, &mut text).unwrap();
        let path = folder.path().join("text.txt");
        std::fs::write(&path, text).unwrap();
        let options = input::options(&recipe, &[path], &[]).unwrap();
        prepare(&options, folder.path().join("prepared"), &mut |_| {}, &|| false).unwrap();
        let mut toy = Toy { folder, recipe, steps: 0, events: 0 };
        let (steps, events) = (Cell::new(0), Cell::new(0));
        let mut count = |event: &Event| {
            steps.set(event.step());
            events.set(events.get() + 1);
            Ok(())
        };
        toy.start("whole").unwrap().train(&mut count, &|| None).unwrap();
        (toy.steps, toy.events) = (steps.get(), events.get());
        assert!((9..20).contains(&toy.steps), "{}", toy.steps);
        toy
    }

    fn run(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, name: &str) -> Result<run::Run> {
        let prepared = prepare::open(self.folder.path().join("prepared"), self.recipe.seq_len)?;
        run::create(&self.recipe, prepared, &self.run(name))
    }

    fn resume(&self, name: &str) -> Result<()> {
        run::resume(&self.run(name))?.train(&mut |_: &Event| Ok(()), &|| None)
    }

    /// The log and all checkpoints that stay are those of the whole run.
    fn is_whole(&self, name: &str) {
        let (whole, found) = (self.run("whole"), self.run(name));
        let same = |file: &Path| assert!(read(&whole.join(file)) == read(&found.join(file)), "{name}: {file:?} differs");
        same(Path::new("log.jsonl"));
        let kept = kept(&whole);
        assert!(kept.len() == 2 && self::kept(&found) == kept, "{name}: {:?}", self::kept(&found));
        for folder in kept {
            for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
                same(&Path::new("checkpoints").join(&folder).join(file));
            }
        }
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn kept(run: &Path) -> Vec<PathBuf> {
    let mut entries = checkpoint::list(run).unwrap();
    entries.retain(|entry| checkpoint::read_state(&entry.path).unwrap().1);
    entries.iter().map(|entry| entry.path.file_name().unwrap().into()).collect()
}

/// A listener that fails at its n-th event: the run ends there as if its process had been killed.
fn fails_at(n: u64) -> impl FnMut(&Event) -> Result<()> {
    let mut seen = 0;
    move |_| {
        seen += 1;
        if seen == n { Err(Error::Usage("killed".into())) } else { Ok(()) }
    }
}

#[test]
fn stopped_by_a_signal_before_any_step() {
    let toy = Toy::new();
    for step in 0..toy.steps {
        let name = format!("stopped-{step}");
        let asked = Cell::new(0);
        let cancel = || {
            asked.set(asked.get() + 1);
            (asked.get() > step).then_some(15)
        };
        let error = toy.start(&name).unwrap().train(&mut |_: &Event| Ok(()), &cancel).unwrap_err();
        assert!(matches!(error, Error::Stopped { signal: 15, .. }), "{error}");
        assert!(error.to_string().contains("--resume"), "{error}");
        assert_eq!(checkpoint::newest(&toy.run(&name)).unwrap().unwrap().step, step, "everything was saved");
        toy.resume(&name).unwrap();
        toy.is_whole(&name);
    }
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
    assert!(toy.start(name).unwrap().train(&mut fails_at(9), &|| None).is_err());
    loop {
        let half = toy.run(name).join("checkpoints").join(".tmp-step-000000009");
        std::fs::create_dir_all(&half).unwrap();
        std::fs::write(half.join("model.safetensors"), "half a fi").unwrap();
        match run::resume(&toy.run(name)).unwrap().train(&mut fails_at(9), &|| None) {
            Ok(()) => break,
            Err(_) => kills += 1,
        }
        assert!(kills < 100, "no progress");
    }
    assert!(kills > 2, "{kills}");
    toy.is_whole(name);
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

    let prepared = toy.folder.path().join("prepared");
    std::fs::rename(&prepared, toy.folder.path().join("away")).unwrap();
    for word in ["prepared", "not there any more", "antlm prepare", "--out"] {
        assert!(message().contains(word), "{}", message());
    }
    let other = toy.folder.path().join("other.txt");
    std::fs::write(&other, "The dogs sleep.\n\nA cat runs.\n").unwrap();
    let options = input::options(&toy.recipe, &[other], &[]).unwrap();
    prepare(&options, &prepared, &mut |_| {}, &|| false).unwrap();
    assert!(message().contains("not the text that this run was trained on"), "{}", message());
    std::fs::remove_dir_all(&prepared).unwrap();

    // As the message says: the run's own recipe and the same text bring it back.
    let recipe = Recipe::load(run.join("recipe.toml").to_str().unwrap(), &[]).unwrap();
    let options = input::options(&recipe, &[toy.folder.path().join("text.txt")], &[]).unwrap();
    prepare(&options, &prepared, &mut |_| {}, &|| false).unwrap();
    toy.resume("whole").unwrap();
}
