//! A trained model on disk, opened to be read: a run's newest checkpoint, or the very checkpoint that is named.

use std::fs;
use std::path::{Path, PathBuf};

use antlm_nn::device::{Buffer, Device, Slice};

use super::checkpoint::{self, MILESTONES, State};
use super::run_folder;
use crate::model::{Config, Kind, Model};
use crate::objective::{Backend, Objective};
use crate::recipe::Recipe;
use crate::recipe::budget::Before;
use crate::text::prepare;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result, files};

/// Which numbers of a checkpoint are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Those of the last step.
    #[default]
    Last,
    /// Their moving average (`optimizer.ema_decay`).
    Average,
}

/// A trained model, without what only further training needs.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The run's folder.
    pub run: PathBuf,
    /// The checkpoint's folder.
    pub checkpoint: PathBuf,
    /// The recipe as used.
    pub recipe: Recipe,
    /// The model.
    pub model: Model,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// What the checkpoint says of itself.
    pub state: State,
    /// The numbers, in the model's layout.
    pub params: Vec<f32>,
}

/// Opens the newest checkpoint of a run, or the very checkpoint that is named.
///
/// # Errors
/// A folder that is neither, a run without a checkpoint, damaged files; [`Error::Usage`] for a checkpoint without the
/// average that was asked for.
pub fn open(path: &Path, weights: Weights) -> Result<Trained> {
    let (run, one) = locate(path)?;
    let (recipe, text) = Recipe::read(&run.join(run_folder::RECIPE))?;
    let checkpoint = match one {
        Some(folder) => folder,
        // A damaged newest checkpoint is an error here: an older model would answer with other numbers.
        None => match checkpoint::newest(&run)? {
            Some(entry) => entry.path,
            None => {
                let what = format!("{}: this run has no checkpoint yet; let it train to its first one", run.display());
                return Err(Error::Usage(what));
            }
        },
    };
    // What belongs together: the run's recipe and tokenizer are those that the checkpoint was written with. The recipe
    // first, as the rest is read by it.
    let belongs = |file: &Path, found: String, expected: &String| {
        let what =
            || format!("is {found}, but {} was written with {expected}: damaged or changed", checkpoint.display());
        if found == *expected { Ok(()) } else { Err(Error::data(file, "sha256", what())) }
    };
    let (state, _) = checkpoint::read_state(&checkpoint)?;
    belongs(&run.join(run_folder::RECIPE), files::sha256(text.as_bytes()), &state.hashes.recipe)?;
    let config = recipe.config();
    let model = Model::new(&config)?;
    let tokenizer_file = run.join(run_folder::TOKENIZER);
    let tokenizer = Tokenizer::load(&tokenizer_file, Some(recipe.model.kind))?;
    if tokenizer.vocab_size() != config.vocab_size {
        let what = format!("{} tokens, but the model has {}", tokenizer.vocab_size(), config.vocab_size);
        return Err(Error::data(tokenizer_file, "vocabulary", what));
    }
    let (state, params) = match weights {
        Weights::Last => checkpoint::load_weights(&checkpoint, model.layout())?,
        Weights::Average => checkpoint::load_ema(&checkpoint, model.layout())?,
    };
    belongs(&tokenizer_file, files::sha256_file(&tokenizer_file)?, &state.hashes.tokenizer)?;
    Ok(Trained { run, checkpoint, recipe, model, tokenizer, state, params })
}

impl Trained {
    /// [`open`] with the weights of the last step.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(path: &Path) -> Result<Trained> {
        open(path, Weights::Last)
    }

    /// [`open`] with their moving average.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open_ema(path: &Path) -> Result<Trained> {
        open(path, Weights::Average)
    }

    /// The numbers on a card that is to read the model; nothing for the CPU, which reads those that are here.
    ///
    /// # Errors
    /// The card's.
    pub fn placed(&self, device: &Device) -> Result<Option<Buffer>> {
        match device {
            Device::Cpu => Ok(None),
            Device::Cuda(_) => Ok(Some(device.buffer(self.params.clone())?)),
        }
    }

    /// The numbers where they are read: those that [`placed`](Trained::placed) gave, or these.
    pub fn read_from<'a>(&'a self, placed: &'a Option<Buffer>) -> Slice<'a> {
        placed.as_ref().map_or(Slice::from(&self.params), Buffer::slice)
    }

    /// The backends that read what this model has been trained for so far, sorted; of an imported one, what its files say.
    pub fn trained(&self) -> Vec<Backend> {
        let mut all = self.taught();
        all.sort_unstable();
        all
    }

    /// The same backends in the order in which each was last taught: the schedule may go on to others, but what this
    /// checkpoint has not had does not count.
    pub fn taught(&self) -> Vec<Backend> {
        let imported = self.recipe.imported.as_ref();
        if let Some(backends) = imported.and_then(|imported| imported.backends.clone()) {
            return backends;
        }
        let mut blocks = self.recipe.schedule.blocks();
        if let Some(last) = self.state.trained_block {
            blocks.truncate(usize::try_from(last).map_or(usize::MAX, |last| last.saturating_add(1)));
        }
        // What an imported model saw is not known; what it is for is.
        let had = |o: &Objective| imported.is_some() || self.state.seen.get(o).is_some_and(|seen| seen.targets > 0);
        let mut newest_first = Vec::new();
        for objective in blocks.iter().rev().flat_map(|block| block.what.pattern().into_iter().rev()).filter(had) {
            if !newest_first.contains(&objective.backend()) {
                newest_first.push(objective.backend());
            }
        }
        newest_first.reverse();
        newest_first
    }

    /// What the model had seen before it is trained on; a run that itself started from another model counts that, too.
    pub fn words_before(&self) -> Before {
        let own = self.state.seen.values().map(|seen| seen.words).sum::<u64>();
        let used = self.recipe.used.as_ref();
        match used.and_then(|used| used.init.as_ref()).map(|init| init.words) {
            _ if self.recipe.imported.is_some() => Before::Unknown,
            None => Before::Words(own),
            Some(Some(words)) => Before::Words(own.saturating_add(words)),
            Some(None) => Before::Unknown,
        }
    }

    /// The backend of what was taught last; before the first step `causal`.
    pub fn last(&self) -> Backend {
        self.taught().pop().unwrap_or(Backend::Causal)
    }

    /// The masked backend that was taught last, if one was.
    pub fn last_masked(&self) -> Option<Backend> {
        self.taught().into_iter().rfind(|&backend| backend != Backend::Causal)
    }

    /// Checks that a recipe's model has these sizes, so that a run of it can start from these weights. Dropout is the
    /// recipe's own affair.
    ///
    /// # Errors
    /// [`Error::Recipe`] with every key that differs, and what to set it to.
    pub fn check_fits(&self, recipe: &Recipe) -> Result<()> {
        let (ours, theirs) = (&recipe.model, self.model.config());
        let kind = |config: &Config| match config.kind {
            Kind::LtgBert => "ltg-bert".to_owned(),
            Kind::Llama => "llama".to_owned(),
        };
        let mut keys = vec![
            ("kind", kind(ours), kind(theirs)),
            ("layers", ours.layers.to_string(), theirs.layers.to_string()),
            ("hidden", ours.hidden.to_string(), theirs.hidden.to_string()),
            ("heads", ours.heads.to_string(), theirs.heads.to_string()),
            ("intermediate", ours.intermediate.to_string(), theirs.intermediate.to_string()),
            ("norm_eps", format!("{:e}", ours.norm_eps), format!("{:e}", theirs.norm_eps)),
            ("tied", ours.tied.to_string(), theirs.tied.to_string()),
        ];
        // The recipe's is the most that its tokenizer may have, and the tokenizer is the model's.
        if ours.vocab_size < theirs.vocab_size {
            keys.push(("vocab_size", ours.vocab_size.to_string(), theirs.vocab_size.to_string()));
        }
        keys.retain(|(_, ours, theirs)| ours != theirs);
        let Some((first, _, _)) = keys.first() else { return Ok(()) };
        let list =
            |f: &dyn Fn(&(&str, String, String)) -> String, by: &str| keys.iter().map(f).collect::<Vec<_>>().join(by);
        let what = format!(
            "the model to start from has another size ({}); say {}",
            list(&|(key, ours, theirs)| format!("{key} {theirs}, not {ours}"), ", "),
            list(&|(key, _, theirs)| format!("--set model.{key}={theirs}"), " "),
        );
        Err(Error::Recipe { origin: recipe.name.clone(), place: format!("model.{first}"), what })
    }
}

/// The tokenizer of a run, a checkpoint or a prepared folder, or the tokenizer.json that is named.
///
/// # Errors
/// [`Error::Usage`] when the path is none of these, and what [`Tokenizer::load`] says of the file.
pub fn tokenizer(path: &Path) -> Result<Tokenizer> {
    if path.is_file() {
        return Tokenizer::load(path, None);
    }
    let folder = if path.join(prepare::SUMMARY_FILE).is_file() {
        path.to_owned()
    } else if let Ok((run, _)) = locate(path) {
        run
    } else {
        let what = if path.exists() { "has no tokenizer" } else { "no such file or folder" };
        let advice = "give a run, a folder that `antlm prepare` made, or a tokenizer.json";
        return Err(Error::Usage(format!("{}: {what}; {advice}", path.display())));
    };
    Tokenizer::load(folder.join(run_folder::TOKENIZER), None)
}

/// The checkpoints that a run keeps under names of their own, in the order of the words seen. Often none.
///
/// # Errors
/// [`Error::Io`], or what is wrong with a checkpoint's `state.json`.
pub fn milestones(run: &Path) -> Result<Vec<PathBuf>> {
    let folder = run.join(MILESTONES);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Io { path: folder, source }),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(&folder))?.path();
        if path.join("state.json").is_file() {
            let words: u64 = checkpoint::read_state(&path)?.0.seen.values().map(|seen| seen.words).sum();
            found.push((words, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Some of a run's checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    #[default]
    Last,
    /// Those that stay: the end of every block, and the newest.
    Blocks,
    /// Those with names of their own, see [`milestones`].
    Milestones,
    /// All there are.
    All,
}

/// The checkpoints that are meant, oldest first; the one that is named, if `path` names one.
///
/// # Errors
/// [`Error::Usage`] when `path` is no run or there are none such; [`Error::Io`].
pub fn choose(path: &Path, which: Which) -> Result<Vec<PathBuf>> {
    let (run, named) = locate(path)?;
    if let Some(named) = named {
        return Ok(vec![named]);
    }
    let mut steps: Vec<PathBuf> = checkpoint::list(&run)?.into_iter().map(|entry| entry.path).collect();
    let found = match which {
        Which::Last => steps.pop().into_iter().collect(),
        Which::Blocks => {
            let last = steps.pop();
            // One that is damaged is kept here, so that opening it says what is wrong.
            steps.retain(|path| checkpoint::read_state(path).map_or(true, |(_, kept)| kept));
            steps.into_iter().chain(last).collect()
        }
        Which::Milestones => milestones(&run)?,
        Which::All => milestones(&run)?.into_iter().chain(steps).collect(),
    };
    if found.is_empty() {
        let what = match which {
            Which::Milestones => "this run has no milestones",
            _ => "this run has no checkpoint yet; let it train to its first one",
        };
        return Err(Error::Usage(format!("{}: {what}", run.display())));
    }
    Ok(found)
}

/// The run that a path names, and the checkpoint if it names one (`RUN/checkpoints/…`, `RUN/milestones/…`).
///
/// # Errors
/// [`Error::Usage`] when it is neither.
pub fn locate(path: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    let run = path.parent().and_then(Path::parent);
    if let Some(run) = run
        && path.join("state.json").is_file()
        && run.join(run_folder::RECIPE).is_file()
    {
        return Ok((run.to_owned(), Some(path.to_owned())));
    }
    run_folder::check_run(path)?;
    Ok((path.to_owned(), None))
}
