//! A run that was never trained, with everything that an export reads, in a moment.

use std::path::{Path, PathBuf};

use antlm::hub::{self, Options, Which};
use antlm::model::Model;
use antlm::objective::Objective;
use antlm::recipe::{Recipe, Used};
use antlm::text::tokenizer::Tokenizer;
use antlm::train::checkpoint::{self, Hashes, Seen, State};
use antlm::train::step;
use antlm::train::trained::Weights;

/// A folder for runs and exports.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A run of this base recipe with one checkpoint, at step 7.
    pub fn run(&self, name: &str, base: &str, set: &[&str]) -> PathBuf {
        let mut all: Vec<String> = [
            "model.layers=2",
            "model.hidden=16",
            "model.heads=2",
            "model.intermediate=24",
            "seq_len=24",
            "optimizer.ema_decay=0.9",
        ]
        .map(String::from)
        .to_vec();
        all.extend(set.iter().map(ToString::to_string));
        let mut recipe = Recipe::load(base, &all).unwrap();
        let tokenizer = Tokenizer::train(["the old cat sees the dog"; 5], 270, 2, recipe.model.kind).unwrap();
        recipe.data = vec![antlm::text::source::Source::new("secret", ["/home/me/secret/childes.train"])];
        recipe.used = Some(Used {
            antlm: "0.1.0".into(),
            prepared: "/home/me/prepared".into(),
            text: "aa".into(),
            tokenizer: tokenizer.hash().unwrap(),
            vocab_size: tokenizer.vocab_size(),
            init: None,
        });
        let run = self.path(name);
        std::fs::create_dir_all(&run).unwrap();
        std::fs::write(run.join("recipe.toml"), recipe.to_toml().unwrap()).unwrap();
        std::fs::write(run.join("tokenizer.json"), tokenizer.to_json().unwrap()).unwrap();
        save(&run, &recipe, 7);
        run
    }

    /// Exports the newest checkpoint.
    pub fn export(&self, run: &Path, name: &str) -> PathBuf {
        let out = self.path(name);
        hub::export(&options(run, &out), &mut |_, _, _| Ok(())).unwrap();
        out
    }
}

/// Writes a checkpoint with weights that follow from its step.
pub fn save(run: &Path, recipe: &Recipe, step: u64) {
    let seen = recipe.schedule.objectives();
    save_seen(run, recipe, step, &seen, None);
}

/// The same of a checkpoint that has had these objectives, the last of them in this block.
pub fn save_seen(run: &Path, recipe: &Recipe, step: u64, seen: &[Objective], trained_block: Option<u64>) {
    let model = Model::new(&recipe.config()).unwrap();
    let mut weights = step::Weights::new(model.init(step), true);
    weights.ema = Some(model.init(step + 100));
    let seen = seen.iter().map(|&o| (o, Seen { words: 1000 * step, targets: 1500 * step })).collect();
    let hash = |name| antlm::files::sha256_file(&run.join(name)).unwrap();
    let hashes = Hashes { data: "aa".into(), tokenizer: hash("tokenizer.json"), recipe: hash("recipe.toml") };
    let (precision, device) = ("f32".into(), "cpu".into());
    let state = State { step, seen, trained_block, hashes, precision, device, ..State::default() };
    checkpoint::save(run, &state, model.layout(), &weights, true).unwrap();
}

pub fn options(run: &Path, out: &Path) -> Options {
    let (run, out) = (run.to_owned(), out.to_owned());
    Options { run, which: Which::Last, weights: Weights::Last, license: None, out }
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
