//! Export: a checkpoint as a folder that is a repository of the Hub as it stands, complete or absent.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{CARD, CONFIG, MODEL, RECIPE, TOKENIZER, card, config};
use crate::files::{self, NewFolder};
use crate::recipe::Recipe;
use crate::train::checkpoint;
use crate::train::checkpoint::MILESTONES;
use crate::train::trained::{self, Trained, Weights};
use crate::{Error, Result, tensor_file};

/// Which checkpoints are exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The newest, or the one that the path names.
    #[default]
    Last,
    /// One: `step-500`, a milestone's name, or a checkpoint's folder.
    One(String),
    /// Every milestone of the run, each into a folder of its own.
    Milestones,
}

/// What to export, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// A run, or one of its checkpoints.
    pub run: PathBuf,
    /// Which of its checkpoints.
    pub which: Which,
    /// Which of its weights.
    pub weights: Weights,
    /// The licence that stands in the card, as the Hub names it (`mit`, `cc-by-4.0`); none is chosen for the user.
    pub license: Option<String>,
    /// The new folder.
    pub out: PathBuf,
}

/// Writes the export and returns its folders: `out` itself for one checkpoint, `out/NAME` for each milestone. `tell` is
/// called before each file, with the folder's number from 0 on, the number of folders, and the folder; an error of it
/// ends the export.
///
/// # Errors
/// A run that cannot be read, a checkpoint that is not there, a place that is taken or has a dot in its name; then
/// nothing is left behind.
pub fn export(options: &Options, tell: &mut dyn FnMut(usize, usize, &Path) -> Result<()>) -> Result<Vec<PathBuf>> {
    check_name(&options.out)?;
    files::check_free(&options.out)?;
    let (run, named) = trained::locate(&options.run)?;
    let found = match (&options.which, named) {
        (Which::Last, named) => vec![named.unwrap_or(run)],
        (_, Some(named)) => {
            let what = "is one checkpoint already; name the run to choose another";
            return Err(Error::Usage(format!("{}: {what}", named.display())));
        }
        (Which::One(name), None) => vec![one(&run, name)?],
        (Which::Milestones, None) => milestones(&run)?,
    };
    let many = options.which == Which::Milestones;
    let folder = NewFolder::create(&options.out)?;
    let mut written = Vec::new();
    for (number, checkpoint) in found.iter().enumerate() {
        let name = checkpoint.file_name().unwrap_or_default();
        let (place, shown) = match many {
            true => (folder.path().join(name), options.out.join(name)),
            false => (folder.path().to_owned(), options.out.clone()),
        };
        let mut tell = || tell(number, found.len(), &shown);
        tell()?;
        if many {
            check_name(&shown)?;
            fs::create_dir(&place).map_err(Error::io(&place))?;
        }
        let trained = trained::open(checkpoint, options.weights)?;
        let title = shown.file_name().unwrap_or_default().to_string_lossy().into_owned();
        write(&trained, options.weights, options.license.as_deref(), &title, &place, &mut tell)?;
        written.push(shown);
    }
    folder.finish()?;
    Ok(written)
}

/// The official BabyLM scripts put a model's name through a path's stem, which cuts it at its last dot, so that
/// `antlm-0.5` and `antlm-0.7` would share their results.
fn check_name(out: &Path) -> Result<()> {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    if name.contains('.') {
        let fine = name.replace('.', "-");
        let why = "the BabyLM pipelines cut a model's name at its dot, so that two models share one name";
        return Err(Error::Usage(format!("{}: a dot in the name: {why}; call it {fine}", out.display())));
    }
    Ok(())
}

/// The checkpoint of a run that a name means.
fn one(run: &Path, name: &str) -> Result<PathBuf> {
    let step = name.strip_prefix("step-").unwrap_or(name).parse::<u64>().ok();
    let listed = checkpoint::list(run)?;
    if let Some(entry) = listed.iter().find(|entry| Some(entry.step) == step) {
        return Ok(entry.path.clone());
    }
    let mut places = vec![PathBuf::from(name)];
    if Path::new(name).components().count() == 1 {
        places.push(run.join(MILESTONES).join(name));
    }
    for place in places {
        if place.join("state.json").is_file() {
            let (owner, _) = trained::locate(&place)?;
            let same = |path: &Path| path.canonicalize().map_err(Error::io(path));
            if same(&owner)? != same(run)? {
                let what = format!("{}: a checkpoint of another run than {}", place.display(), run.display());
                return Err(Error::Usage(what));
            }
            return Ok(place);
        }
    }
    let mut known: Vec<String> = listed.iter().map(|entry| format!("step-{}", entry.step)).collect();
    known.extend(
        milestones(run)
            .unwrap_or_default()
            .iter()
            .filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned())),
    );
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    Err(Error::Usage(format!("{}: no checkpoint {name:?} (there are: {known})", run.display())))
}

/// The milestones of a run, at least one.
fn milestones(run: &Path) -> Result<Vec<PathBuf>> {
    let found = trained::milestones(run)?;
    if found.is_empty() {
        let what = "this run has no milestones; export one checkpoint with --checkpoint step-N";
        return Err(Error::Usage(format!("{}: {what}", run.display())));
    }
    Ok(found)
}

/// Writes one export into a folder that is there; `tell` is called before each file.
fn write(
    trained: &Trained,
    weights: Weights,
    license: Option<&str>,
    title: &str,
    folder: &Path,
    tell: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let kind = trained.model.config().kind;
    tell()?;
    tensor_file::write(&folder.join(MODEL), trained.model.layout(), &[("", &trained.params)])?;
    let (code_name, code) = config::code(kind);
    let card = card::card(trained, weights, license, title)?;
    let recipe = public_recipe(&trained.recipe).to_toml()?;
    let seq_len = trained.recipe.seq_len;
    for (name, text) in [
        (CONFIG, pretty(&config::config(trained, weights))),
        ("generation_config.json", pretty(&config::generation(kind))),
        (TOKENIZER, trained.tokenizer.to_json()?),
        ("tokenizer_config.json", pretty(&config::tokenizer(kind, seq_len))),
        ("special_tokens_map.json", pretty(&config::special_tokens(kind))),
        (code_name, code.to_owned()),
        (RECIPE, recipe),
        (CARD, card),
    ] {
        tell()?;
        files::write_atomic(folder.join(name), text.as_bytes())?;
    }
    Ok(())
}

fn pretty(json: &Value) -> String {
    format!("{json:#}\n")
}

/// The recipe as anyone may see it: the texts' file names without the places where they lie, and the vocabulary that
/// the tokenizer really has.
pub fn public_recipe(recipe: &Recipe) -> Recipe {
    let mut public = recipe.clone();
    public.model = recipe.config();
    public.used = None;
    for path in public.data.iter_mut().flat_map(|source| &mut source.paths).chain(&mut public.dev.paths) {
        *path = path.file_name().unwrap_or(path.as_os_str()).into();
    }
    public
}
