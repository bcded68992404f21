//! How a run comes to be: its folder made and its recipe written, or the newest good checkpoint opened.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use antlm_nn::device::{Buffer, Device};
use antlm_nn::rng::Rng;

use super::Run;
use crate::model::Model;
use crate::objective::stream::{Layout, position_of_word};
use crate::recipe::budget::{self, Before};
use crate::recipe::{InitialModel, Plan, Recipe, Used, size};
use crate::text::prepare::{self, Prepared};
use crate::train::checkpoint::{self, Hashes};
use crate::train::events::{LogEnd, LogWriter, TimingWriter};
use crate::train::health::Memory;
use crate::train::run_folder::{self, Environment, RunFolder};
use crate::train::step::Weights;
use crate::train::trained::Trained;
use crate::{Error, Result, files};

/// Makes the folder of a new run and writes what it is made of.
///
/// # Errors
/// A folder that exists, text without a segment, or what the system refuses.
pub fn create(recipe: &Recipe, prepared: Prepared, out: &Path) -> Result<Run> {
    create_from(recipe, prepared, None, out)
}

/// As [`create`], but the run starts from the weights of a trained model of the same sizes and with the same tokenizer.
///
/// # Errors
/// As [`create`], and a model that does not fit the recipe or the text.
pub fn create_from(recipe: &Recipe, prepared: Prepared, init: Option<Trained>, out: &Path) -> Result<Run> {
    create_on(recipe, prepared, init, out, &Device::Cpu)
}

/// As [`create_from`], on any device.
///
/// # Errors
/// As [`create_from`], and the device's.
pub fn create_on(
    recipe: &Recipe,
    prepared: Prepared,
    init: Option<Trained>,
    out: &Path,
    device: &Device,
) -> Result<Run> {
    let mut recipe = recipe.clone();
    // What `auto` is here must stay so on any machine that goes on with the run.
    recipe.precision = recipe.precision.on(device).into();
    if let Some(init) = &init {
        init.check_fits(&recipe)?;
        if init.tokenizer.hash()? != prepared.tokenizer.hash()? {
            let (text, model) = (prepared.dir.display(), init.run.display());
            let what = "prepared with another tokenizer than that of the model to start from";
            return Err(Error::Usage(format!(
                "{text}: {what} ({model}); name the text itself, to be prepared with it"
            )));
        }
    }
    let record = |init: &Trained| -> Result<InitialModel> {
        let weights = files::sha256_file(&init.checkpoint.join(checkpoint::MODEL))?;
        let checkpoint = std::path::absolute(&init.checkpoint).map_err(Error::io(&init.checkpoint))?;
        let words = match init.words_before() {
            Before::Words(words) => Some(words),
            Before::Unknown => None,
        };
        Ok(InitialModel { checkpoint, weights, words })
    };
    // From wherever the recipe is read again, it means the same text.
    for path in recipe.data.iter_mut().flat_map(|source| &mut source.paths).chain(&mut recipe.dev.paths) {
        *path = std::path::absolute(&*path).map_err(Error::io(&*path))?;
    }
    recipe.used = Some(Used {
        antlm: env!("CARGO_PKG_VERSION").into(),
        prepared: std::path::absolute(&prepared.dir).map_err(Error::io(&prepared.dir))?,
        text: prepared.train.hash(),
        tokenizer: prepared.summary.tokenizer_sha256.clone(),
        vocab_size: prepared.tokenizer.vocab_size(),
        init: init.as_ref().map(record).transpose()?,
    });
    recipe.imported = None;
    recipe.check()?;
    let memory = size::check_memory_on(&recipe, device)?;
    let model = Model::new(&recipe.config())?;
    // What cannot be run, or may not, is refused before anything is written.
    let plan = Plan::of(&recipe, &prepared)?;
    if let Some(why) = budget::refusal(&plan, init.as_ref().map_or(Before::Words(0), Trained::words_before)) {
        return Err(Error::Usage(why));
    }
    let folder = RunFolder::create(out)?;
    folder.write_environment(&Environment::here(rayon::current_num_threads()))?;
    folder.write(run_folder::TOKENIZER, prepared.tokenizer.to_json()?.as_bytes())?;
    let text = recipe.to_toml()?;
    // The recipe comes last: a folder with one is a run's.
    folder.write(run_folder::RECIPE, text.as_bytes())?;
    let params = init.map_or_else(|| model.init(recipe.seed), |init| init.params);
    let weights = Weights::new(params, recipe.optimizer.ema_decay > 0.0);
    let run = Run::open(recipe, model, prepared, folder, weights.on(device)?, &text, &LogEnd::default(), device)?;
    let room = checkpoint::room(&run.recipe, run.model.layout(), &plan, files::available(run.path()));
    Ok(Run { warnings: budget::note(&plan).into_iter().chain(room).collect(), memory, ..run })
}

/// The weights of a run before its first step.
fn first_weights(recipe: &Recipe, model: &Model) -> Result<Vec<f32>> {
    let Some(init) = recipe.used.as_ref().and_then(|used| used.init.as_ref()) else {
        return Ok(model.init(recipe.seed));
    };
    let (_, params) = checkpoint::load_weights(&init.checkpoint, model.layout())?;
    let file = init.checkpoint.join(checkpoint::MODEL);
    if files::sha256_file(&file)? != init.weights {
        return Err(Error::data(file, "sha256", "not the model that this run was started from"));
    }
    Ok(params)
}

/// Opens an interrupted run at its newest good checkpoint, or at its beginning when it has none.
///
/// # Errors
/// A folder that is no run's or in use, text that is gone or not the same, damaged checkpoints without a good one.
pub fn resume(out: &Path) -> Result<Run> {
    resume_on(out, &Device::Cpu)
}

/// As [`resume`], on any device. A checkpoint of another kind of device is gone on with; the run warns that its numbers
/// have other last bits from there on.
///
/// # Errors
/// As [`resume`], and the device's.
pub fn resume_on(out: &Path, device: &Device) -> Result<Run> {
    run_folder::check_run(out)?;
    let path = out.join(run_folder::RECIPE);
    let (recipe, text) = Recipe::read(&path)?;
    if recipe.imported.is_some() {
        let what = "an imported model has no run to go on with; train it on with `antlm train RECIPE --init`";
        return Err(Error::Usage(format!("{}: {what} {}", path.display(), out.display())));
    }
    let folder = RunFolder::open(out)?;
    let Some(used) = &recipe.used else {
        return Err(Error::data(&path, "used", "missing: this recipe is not that of a run"));
    };
    let recipe_text = !recipe.data.is_empty();
    let again = || {
        let (recipe, prepared) = (path.display(), used.prepared.display());
        // The recipe names its text and how it was read, unless the run was given text that was prepared already.
        let text = if recipe_text { "" } else { " --text THE-SAME-TEXT [--dev THE-SAME-DEV]" };
        format!("prepare it again: antlm prepare {recipe}{text} --out {prepared}")
    };
    // A run that was moved together with the `prepared` beside it finds its text there.
    let beside = used.prepared.file_name().map(|name| files::parent(out).join("prepared").join(name));
    let places = [Some(used.prepared.clone()), beside].into_iter().flatten();
    let Some(place) = places.into_iter().find(|place| place.join(prepare::SUMMARY_FILE).exists()) else {
        let what = format!("the prepared text of this run is not there any more; {}", again());
        return Err(Error::data(&used.prepared, "folder", what));
    };
    let prepared = prepare::open(&place, recipe.seq_len)?;
    if prepared.train.hash() != used.text || prepared.summary.tokenizer_sha256 != used.tokenizer {
        let what = format!("not the text that this run was trained on; remove it and {}", again());
        return Err(Error::data(&used.prepared, "key", what));
    }
    if prepared.tokenizer.vocab_size() != used.vocab_size {
        let what = format!("is {}, but the tokenizer has {} tokens", used.vocab_size, prepared.tokenizer.vocab_size());
        return Err(Error::data(&path, "used.vocab_size", what));
    }
    let own = out.join(run_folder::TOKENIZER);
    if files::sha256_file(&own)? != used.tokenizer {
        return Err(Error::data(
            own,
            "sha256",
            format!("not the run's tokenizer; copy the one in {}", place.display()),
        ));
    }
    let memory = size::check_memory_on(&recipe, device)?;
    let model = Model::new(&recipe.config())?;
    let found = checkpoint::newest_good(out, model.layout())?;
    let Some((saved, warnings)) = found else {
        let params = first_weights(&recipe, &model)?;
        let weights = Weights::new(params, recipe.optimizer.ema_decay > 0.0);
        let weights = weights.on(device)?;
        let run = Run::open(recipe, model, prepared, folder, weights, &text, &LogEnd::default(), device)?;
        return Ok(Run { memory, ..run });
    };
    let state = saved.state;
    let averaged = saved.weights.ema.is_some();
    // Before the log is cut back.
    if state.hashes != hashes(&prepared, &text) || state.seed != recipe.seed {
        let what = "belongs to another text, tokenizer, recipe or seed than this run's recipe.toml";
        return Err(Error::data(saved.path.join("state.json"), "hashes", what));
    }
    if averaged != (recipe.optimizer.ema_decay > 0.0) {
        let what = "averaged weights are in one of checkpoint and recipe (optimizer.ema_decay) but not in the other";
        return Err(Error::data(saved.path.join("state.json"), "sha256", what));
    }
    let arithmetic = device.arithmetic(recipe.precision.on(device));
    if state.device == device.kind() && state.precision != arithmetic {
        let what = format!(
            "was trained with the arithmetic {}, and this machine has {arithmetic}: its sums have another order, and the \
             run would not be the same; go on with it on a processor like that one, or start a new run from it with \
             `antlm train RECIPE --init`",
            state.precision
        );
        return Err(Error::data(saved.path.join("state.json"), "precision", what));
    }
    let weights = saved.weights.on(device)?;
    let mut run = Run::open(recipe, model, prepared, folder, weights, &text, &state.log, device)?;
    (run.health, run.memory) = (state.health, memory);
    (run.step, run.seen, run.saved) = (state.step, state.seen, Some(state.step));
    run.warnings = warnings.iter().map(Error::to_string).collect();
    if state.device != device.kind() {
        let (from, on) = (state.device, device.kind());
        run.warnings.push(format!("this run was trained on {from} so far and goes on on {on}: from here on the last bits of its numbers are others"));
    }
    (run.resumed, run.unmeasured) = (Some(saved.path), state.unmeasured);
    Ok(run)
}

/// The blocks and steps of a recipe's run over prepared text.
///
/// # Errors
/// A schedule that this text cannot fill.
pub fn steps(recipe: &Recipe, prepared: &Prepared) -> Result<Layout> {
    let (data, rng) = (&prepared.train, Rng::new(recipe.seed));
    let words = |i| data.segment(i).words;
    Layout::new(&recipe.schedule.blocks(), data.len(), words, recipe.batch.segments, rng)
}

/// By the number of steps done, the milestones of a recipe's run over prepared text.
pub(super) fn milestones(recipe: &Recipe, prepared: &Prepared, layout: &Layout) -> Result<BTreeMap<u64, String>> {
    let (data, rng) = (&prepared.train, Rng::new(recipe.seed));
    let position = |word| position_of_word(word, data.len(), |i| data.segment(i).words, rng);
    let reached = recipe.checkpoints.milestones.reached(layout, position)?;
    Ok(reached.into_iter().map(|milestone| (milestone.step, milestone.name)).collect())
}

/// What a run is made of; `text` is its recipe's.
fn hashes(prepared: &Prepared, text: &str) -> Hashes {
    Hashes {
        data: prepared.train.hash(),
        tokenizer: prepared.summary.tokenizer_sha256.clone(),
        recipe: files::sha256(text.as_bytes()),
    }
}

impl Run {
    #[expect(clippy::too_many_arguments, reason = "what a run is made of")]
    fn open(
        recipe: Recipe,
        model: Model,
        prepared: Prepared,
        folder: RunFolder,
        weights: Weights<Buffer>,
        text: &str,
        log: &LogEnd,
        device: &Device,
    ) -> Result<Run> {
        let hashes = hashes(&prepared, text);
        let timing = TimingWriter::open(&folder.path().join(run_folder::TIMING))?;
        let log = LogWriter::open(&folder.path().join(run_folder::LOG), log)?;
        Ok(Run {
            recipe,
            model,
            prepared: Rc::new(prepared),
            folder,
            hashes,
            weights,
            device: device.clone(),
            seen: BTreeMap::new(),
            step: 0,
            health: Memory::default(),
            log,
            timing,
            memory: None,
            warnings: Vec::new(),
            resumed: None,
            saved: None,
            unmeasured: false,
            milestones: BTreeMap::new(),
            save_asked: Box::new(|| false),
        })
    }
}
