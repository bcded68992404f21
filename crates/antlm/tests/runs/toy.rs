//! A very small run to stop, to resume and to damage.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use antlm::Result;
use antlm::recipe::Recipe;
use antlm::text::prepare::{self, prepare};
use antlm::train::events::Event;
use antlm::train::{checkpoint, input, run};

/// A folder with prepared text, and a recipe for some fourteen steps over it: two epochs, a switch, a third epoch.
pub struct Toy {
    folder: tempfile::TempDir,
    pub recipe: Recipe,
    /// Steps of the whole run, and its events.
    pub steps: u64,
    pub events: u64,
}

impl Toy {
    pub fn new() -> Toy {
        Toy::with(&[])
    }

    /// With other values of the recipe.
    pub fn with(other: &[&str]) -> Toy {
        let mut toy = Toy::untrained(other);
        let (steps, events, skipped) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let mut count = |event: &Event| {
            skipped.set(skipped.get() + u64::from(matches!(event, Event::Skip { .. })));
            steps.set(event.step());
            events.set(events.get() + 1);
            Ok(())
        };
        toy.start("whole").unwrap().train(&mut count, &|| None).unwrap();
        (toy.steps, toy.events) = (steps.get(), events.get());
        assert!((9..20).contains(&toy.steps), "{}", toy.steps);
        assert!((1..toy.steps / 2).contains(&skipped.get()), "{} steps were skipped", skipped.get());
        toy
    }

    /// Without a run.
    pub fn untrained(other: &[&str]) -> Toy {
        let folder = tempfile::tempdir().unwrap();
        let set = [
            "schedule=2 clm + 1 mntp",
            "seq_len=24",
            "model.layers=1",
            "model.hidden=16",
            "model.heads=2",
            "model.intermediate=16",
            "model.vocab_size=280",
            "batch.segments=32",
            "batch.micro_tokens=200",
            "checkpoints.every=3",
            "checkpoints.milestones=[200, 700, 1600]",
            "optimizer.ema_decay=0.9",
            "optimizer.z_loss=0.001",
            "dev.max_segments=2",
            // So that some of the few steps are skipped, and some told.
            "health.spikes=skip",
            "health.spike_z=0.001",
            "health.window=2",
            "model.hidden_dropout=0.5",
        ];
        let recipe = {
            let set: Vec<String> = set.iter().chain(other).map(|set| set.to_string()).collect();
            Recipe::load("ltg-bert-tiny", &set).unwrap()
        };
        let mut text = Vec::new();
        antlm::text::sample::write(800, 5, antlm::text::sample::Part::Train, &mut text).unwrap();
        let path = folder.path().join("text.txt");
        std::fs::write(&path, text).unwrap();
        let options = input::options(&recipe, &[path], &[]).unwrap();
        let prepared = prepare(&options, folder.path().join("prepared"), &mut |_| {}, &|| false).unwrap();
        assert!(prepared.dev.is_some(), "dev losses are part of the run");
        Toy { folder, recipe, steps: 0, events: 0 }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of a run; that of `whole` was trained to its end.
    pub fn run(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn start(&self, name: &str) -> Result<run::Run> {
        let prepared = prepare::open(self.folder.path().join("prepared"), self.recipe.seq_len)?;
        run::create(&self.recipe, prepared, &self.run(name))
    }

    pub fn resume(&self, name: &str) -> Result<()> {
        run::resume(&self.run(name))?.train(&mut |_: &Event| Ok(()), &|| None)
    }

    /// The log, all checkpoints that stay and the milestones are those of the whole run.
    pub fn is_whole(&self, name: &str) {
        let (whole, found) = (self.run("whole"), self.run(name));
        let same =
            |file: &Path| assert!(read(&whole.join(file)) == read(&found.join(file)), "{name}: {file:?} differs");
        same(Path::new("log.jsonl"));
        let names = milestones(&whole);
        assert_eq!(names, ["chck_0M", "chck_1600", "chck_200", "chck_700"]);
        assert_eq!(milestones(&found), names, "{name}");
        for folder in names {
            for file in ["model.safetensors", "ema.safetensors", "state.json"] {
                same(&Path::new("milestones").join(&folder).join(file));
            }
        }
        let kept = kept(&whole);
        assert!(kept.len() == 2 && self::kept(&found) == kept, "{name}: {:?}", self::kept(&found));
        for folder in kept {
            for file in ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"] {
                same(&Path::new("checkpoints").join(&folder).join(file));
            }
        }
    }
}

/// All that is in the folder of milestones.
fn milestones(run: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(run.join(checkpoint::MILESTONES)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn kept(run: &Path) -> Vec<PathBuf> {
    let mut entries = checkpoint::list(run).unwrap();
    entries.retain(|entry| checkpoint::read_state(&entry.path).unwrap().1);
    entries.iter().map(|entry| entry.path.file_name().unwrap().into()).collect()
}
