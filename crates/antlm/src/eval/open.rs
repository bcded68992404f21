//! Opening a trained model: a run's newest checkpoint or a certain one, with the run's recipe and tokenizer.

use std::path::{Path, PathBuf};

use antlm_nn::params::Layout;

use crate::model::Model;
use crate::objective::Backend;
use crate::recipe::Recipe;
use crate::text::prepare;
use crate::text::tokenizer::Tokenizer;
use crate::train::checkpoint::{self, State};
use crate::train::run_folder;
use crate::{Error, Result};

/// A trained model with what belongs to it, ready to be read.
pub struct Trained {
    /// The recipe as used.
    pub recipe: Recipe,
    /// Tensors and forward pass.
    pub model: Model,
    /// The run's tokenizer.
    pub tokenizer: Tokenizer,
    /// The weights, with the model's layout.
    pub params: Vec<f32>,
    /// How far the run was.
    pub state: State,
}

impl Trained {
    /// Opens the newest checkpoint of a run, or the very checkpoint that is named.
    ///
    /// # Errors
    /// A folder that is neither, a run without a checkpoint, damaged files.
    pub fn open(path: &Path) -> Result<Trained> {
        Trained::open_with(path, checkpoint::load_weights)
    }

    /// As [`Trained::open`], but with the moving average of the weights (`optimizer.ema_decay`) in place of the weights.
    ///
    /// # Errors
    /// As [`Trained::open`], and [`Error::Usage`] for a checkpoint without an average.
    pub fn open_ema(path: &Path) -> Result<Trained> {
        Trained::open_with(path, checkpoint::load_ema)
    }

    fn open_with(path: &Path, load: impl Fn(&Path, &Layout) -> Result<(State, Vec<f32>)>) -> Result<Trained> {
        let (run, one) = locate(path)?;
        let file = run.join(run_folder::RECIPE);
        let (recipe, _) = Recipe::read(&file)?;
        let config = recipe.config();
        let model = Model::new(&config)?;
        let tokenizer_file = run.join(run_folder::TOKENIZER);
        let tokenizer = Tokenizer::load(&tokenizer_file, Some(recipe.model.kind))?;
        if tokenizer.vocab_size() != config.vocab_size {
            let what = format!("{} tokens, but the model has {}", tokenizer.vocab_size(), config.vocab_size);
            return Err(Error::data(tokenizer_file, "vocabulary", what));
        }
        let (state, params) = match one {
            Some(folder) => load(&folder, model.layout())?,
            // A damaged newest checkpoint is an error here: an older model would answer with other numbers.
            None => match checkpoint::newest(&run)? {
                Some(entry) => load(&entry.path, model.layout())?,
                None => {
                    let what =
                        format!("{}: this run has no checkpoint yet; let it train to its first one", run.display());
                    return Err(Error::Usage(what));
                }
            },
        };
        Ok(Trained { recipe, model, tokenizer, params, state })
    }

    /// The backends that read what this model has been trained for so far.
    pub fn trained(&self) -> Vec<Backend> {
        let seen = self.state.seen.iter().filter(|(_, seen)| seen.targets > 0);
        seen.map(|(objective, _)| objective.backend()).collect()
    }

    /// The backend of what the run's last block teaches.
    pub fn last(&self) -> Backend {
        let last = self.recipe.schedule.blocks().last().and_then(|block| block.what.pattern().last().copied());
        last.map_or(Backend::Causal, |objective| objective.backend())
    }

    /// The masked backend that the run's schedule teaches last, if it teaches any.
    pub fn last_masked(&self) -> Option<Backend> {
        let blocks = self.recipe.schedule.blocks();
        let backends =
            blocks.iter().rev().flat_map(|block| block.what.pattern().into_iter().rev().map(|o| o.backend()));
        backends.into_iter().find(|&backend| backend != Backend::Causal)
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

/// The run that a path names, and the checkpoint if it names one.
///
/// # Errors
/// [`Error::Usage`] when it is neither a run's folder nor a checkpoint in one.
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
