//! Import: a folder as transformers saves it, or as [`super::export`] writes it, becomes one that this program reads.
//!
//! Nothing in such a folder is trusted. Sizes are checked before memory is taken for them, every tensor's name and shape
//! is checked both ways, names from files never become paths, and Python code is not looked at.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::config::Reading;
use super::{CONFIG, MODEL, RECIPE, TOKENIZER, config};
use crate::files::{self, NewFolder};
use crate::model::{Config, Kind, Model};
use crate::objective::schedule::Schedule;
use crate::objective::{Backend, Objective};
use crate::recipe::{self, Imported, Recipe};
use crate::tensor_file::{self, Spare};
use crate::text::tokenizer::Tokenizer;
use crate::train::checkpoint::{self, Hashes, State};
use crate::train::run_folder;
use crate::{Error, Result};

/// A config.json larger than this is not one: 1 MB.
const MAX_CONFIG: u64 = 1 << 20;
/// A recipe larger than this is not one: 1 MB.
const MAX_RECIPE: u64 = 1 << 20;

/// A model from elsewhere, checked.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// The recipe that came with it, or one with its sizes; `imported` says which.
    pub recipe: Recipe,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The model.
    pub model: Model,
    /// Its numbers, in the model's layout.
    pub params: Vec<f32>,
    /// For people: what in the folder was passed over or is done in another way here.
    pub notes: Vec<String>,
}

/// Reads such a folder and writes a folder like that of a run: recipe, tokenizer and one checkpoint without an
/// optimiser's state. All that reads a run reads it, and `train --init`; it cannot be resumed.
///
/// # Errors
/// As [`read`], and a place that is taken; then nothing is left behind.
pub fn import(from: &Path, out: &Path) -> Result<Foreign> {
    files::check_free(out)?;
    let foreign = read(from)?;
    let folder = NewFolder::create(out)?;
    let (recipe, tokenizer) = (foreign.recipe.to_toml()?, foreign.tokenizer.to_json()?);
    let hashes = Hashes {
        data: String::new(), // not known
        tokenizer: files::sha256(tokenizer.as_bytes()),
        recipe: files::sha256(recipe.as_bytes()),
    };
    let (precision, device) = ("f32".into(), "cpu".into());
    let state = State { hashes, seed: foreign.recipe.seed, precision, device, ..State::default() };
    checkpoint::save_weights(folder.path(), &state, foreign.model.layout(), &foreign.params)?;
    files::write_atomic(folder.path().join(run_folder::TOKENIZER), tokenizer.as_bytes())?;
    files::write_atomic(folder.path().join(run_folder::RECIPE), recipe.as_bytes())?;
    folder.finish()?;
    Ok(foreign)
}

/// Reads a folder with `config.json`, `tokenizer.json` and `model.safetensors` of one of our two architectures.
///
/// # Errors
/// [`Error::Usage`] for a folder that is none, [`Error::Data`] with file and place of what is wrong or not supported.
pub fn read(from: &Path) -> Result<Foreign> {
    let file = from.join(CONFIG);
    if !file.is_file() {
        let what = if from.is_dir() { "no config.json in it" } else { "no such folder" };
        return Err(Error::Usage(format!("{}: {what}; give a folder as transformers saves it", from.display())));
    }
    let text = files::read_text(&file, MAX_CONFIG)?;
    let json: Value = serde_json::from_str(&text)
        .map_err(|e| Error::data(&file, format!("line {}, column {}", e.line(), e.column()), e.to_string()))?;
    let sizes = config::sizes(&json).map_err(|(key, what)| Error::data(&file, key, short(&what)))?;
    check_variant(from, &file, &json, sizes.kind)?;
    let weights = weights_file(from)?;
    let mut recipe = recipe_of(from, &file, &json, &sizes)?;
    recipe.check().map_err(|error| Error::data(&file, "sizes", error.to_string()))?;

    let tokenizer_file = from.join(TOKENIZER);
    let tokenizer = Tokenizer::load(&tokenizer_file, Some(sizes.kind))?;
    if tokenizer.vocab_size() != sizes.vocab_size {
        let what = format!("{} tokens, but {CONFIG} says vocab_size {}", tokenizer.vocab_size(), sizes.vocab_size);
        return Err(Error::data(tokenizer_file, "model.vocab", what));
    }
    let mut notes: Vec<String> =
        config::unknown(&json).map(|what| format!("{}: {what}", file.display())).into_iter().collect();
    notes.extend(framing(&tokenizer_file, &tokenizer)?);
    let model = Model::new(&sizes)?;
    let params = tensor_file::read_foreign(&weights, model.layout(), |name| spare(&sizes, name))?;
    if let Some(i) = params.iter().position(|value| !value.is_finite()) {
        let tensor = model.layout().tensors().iter().find(|tensor| tensor.range().contains(&i));
        let place = tensor.map_or("tensors".into(), |tensor| format!("tensor {}", tensor.name));
        return Err(Error::data(weights, place, format!("has the value {}", params[i])));
    }
    if let Some(imported) = &mut recipe.imported {
        imported.weights = files::sha256_file(&weights)?;
    }
    Ok(Foreign { recipe, tokenizer, model, params, notes })
}

/// The one weights file that is read, or why there is none.
fn weights_file(from: &Path) -> Result<std::path::PathBuf> {
    let weights = from.join(MODEL);
    if weights.is_file() {
        return Ok(weights);
    }
    let what = if from.join("model.safetensors.index.json").is_file() {
        "missing: the weights are cut into several files; save them as one (save_pretrained with a larger max_shard_size)"
    } else if from.join("pytorch_model.bin").is_file() {
        "missing: pytorch_model.bin is a pickle, which can run code, and is not read; save it with safetensors first \
         (model.save_pretrained(folder))"
    } else {
        "missing"
    };
    Err(Error::data(weights, "file", what))
}

/// The first LTG-BERT (of the BNC models) projects relative positions in another way, with the same names and shapes.
/// Only its name can tell.
fn check_variant(from: &Path, file: &Path, json: &Value, kind: Kind) -> Result<()> {
    let names = [
        from.file_name().map(|name| name.to_string_lossy().into_owned()),
        json["_name_or_path"].as_str().map(str::to_owned),
    ];
    let bnc = |name: &String| name.to_lowercase().replace('_', "-").contains("bnc-bert");
    if kind == Kind::LtgBert && names.iter().flatten().any(bnc) {
        let what = "a bnc-bert: it cuts the projected positions by heads in another way than the BabyLM models do, which \
                    no tensor shows; antlm has only the latter";
        return Err(Error::data(file, "_name_or_path", what));
    }
    Ok(())
}

/// Tensors that a file may have besides the model's.
fn spare(sizes: &Config, name: &str) -> Spare {
    match sizes.kind {
        // Tables that follow from the sizes.
        Kind::LtgBert if name.ends_with(".attention.position_indices") => Spare::Ignored,
        Kind::Llama if name.ends_with("rotary_emb.inv_freq") => Spare::Ignored,
        Kind::LtgBert if name == "classifier.nonlinearity.5.weight" => Spare::CopyOf("embedding.word_embedding.weight"),
        Kind::Llama if sizes.tied && name == "lm_head.weight" => Spare::CopyOf("model.embed_tokens.weight"),
        _ => Spare::Unknown,
    }
}

/// The recipe in the folder, or one with the model's sizes.
fn recipe_of(from: &Path, config_file: &Path, json: &Value, sizes: &Config) -> Result<Recipe> {
    let file = from.join(RECIPE);
    let known = file.is_file();
    let mut recipe = if known {
        let text = files::read_text(&file, MAX_RECIPE)?;
        let recipe = Recipe::from_toml(&text, &file.display().to_string())?;
        contradiction(&recipe, json).map_err(|(place, what)| Error::data(&file, place, what))?;
        let Config { hidden_dropout, attention_dropout, .. } = recipe.model;
        if recipe.model != (Config { hidden_dropout, attention_dropout, ..sizes.clone() }) {
            let what = format!("other sizes than in {CONFIG}; remove this file if that one is right");
            return Err(Error::data(file, "model", what));
        }
        recipe
    } else {
        let (base, schedule) = match sizes.kind {
            Kind::LtgBert => ("ltg-bert-tiny", "1 mlm"),
            Kind::Llama => ("babyllama-tiny", "1 clm"),
        };
        let mut recipe = recipe::builtin(base)?;
        // What our exports say in config.json is believed; of others the family's own objective is.
        recipe.schedule = Schedule::parse(json["antlm"]["schedule"].as_str().unwrap_or(schedule))
            .map_err(|error| Error::data(config_file, "antlm.schedule", short(&error.to_string())))?;
        recipe.model = sizes.clone();
        recipe.description = "Imported; only [model] is the model's own, the rest is to start from.".into();
        let name = std::path::absolute(from).map_err(Error::io(from))?;
        recipe.name = name.file_name().map_or("imported".into(), |name| short(&name.to_string_lossy()));
        recipe
    };
    let backends = backends(json, &recipe.schedule).map_err(|(key, what)| Error::data(config_file, key, what))?;
    // Its text is not here.
    recipe.data.clear();
    recipe.dev.paths.clear();
    recipe.used = None;
    recipe.imported = Some(Imported {
        from: from.file_name().map_or(".".into(), |name| short(&name.to_string_lossy())),
        model_type: short(json["model_type"].as_str().unwrap_or_default()),
        weights: String::new(), // comes once it is read
        recipe_known: known,
        backends,
    });
    Ok(recipe)
}

/// What the recipe says otherwise than config.json, both having come from one export: key and what is wrong.
fn contradiction(recipe: &Recipe, json: &Value) -> std::result::Result<(), (&'static str, String)> {
    let said = &json["antlm"];
    let advice = format!("remove this file, or `antlm` from {CONFIG}, if the other is right");
    if let Some(schedule) = said["schedule"].as_str()
        && Schedule::parse(schedule).ok().as_ref() != Some(&recipe.schedule)
    {
        return Err(("schedule", format!("is {}, but {CONFIG} says {:?}; {advice}", recipe.schedule, short(schedule))));
    }
    match &said["seq_len"] {
        Value::Null => Ok(()),
        length if length.as_u64() == Some(recipe.seq_len as u64) => Ok(()),
        length => Err((
            "seq_len",
            format!("is {}, but {CONFIG} says {}; {advice}", recipe.seq_len, short(&length.to_string())),
        )),
    }
}

/// What our exports say of how the model is read, the last taught last; nothing if they do not say.
fn backends(json: &Value, schedule: &Schedule) -> std::result::Result<Option<Vec<Backend>>, (&'static str, String)> {
    let key = "antlm.backends";
    let said = &json["antlm"]["backends"];
    if said.is_null() {
        return Ok(None);
    }
    let wrong = |what: &str| (key, format!("is {}; {what}", short(&said.to_string())));
    let backends: Vec<Backend> = serde_json::from_value(said.clone())
        .map_err(|_| wrong("expected a list of \"causal\", \"mlm\" and \"mntp\""))?;
    let taught: Vec<Backend> = schedule.objectives().into_iter().map(Objective::backend).collect();
    for (i, backend) in backends.iter().enumerate() {
        if backends[..i].contains(backend) || !taught.contains(backend) {
            return Err(wrong(&format!("each may stand there once, if the schedule ({schedule}) teaches it")));
        }
    }
    // What transformers goes by must be the same.
    let reading = Reading { backends };
    let alignment = &json["antlm_masked_alignment"];
    if !alignment.is_null() && alignment != reading.alignment() {
        return Err(wrong(&format!("but antlm_masked_alignment is {}", short(&alignment.to_string()))));
    }
    let both = &json["antlm_bidirectional"];
    if !both.is_null() && *both != reading.masked().is_some() {
        return Err(wrong(&format!("but antlm_bidirectional is {}", short(&both.to_string()))));
    }
    Ok(Some(reading.backends))
}

/// Where a tokenizer.json frames texts, or takes special tokens from them, in another way than ours does. antlm puts the
/// opening mark in front, writes its own tokenizer.json, and parses no special tokens.
fn framing(file: &Path, ours: &Tokenizer) -> Result<Vec<String>> {
    /// The parts that [`Tokenizer`] does not look at.
    #[derive(Default, Deserialize)]
    struct Parts {
        #[serde(default)]
        post_processor: Value,
        #[serde(default)]
        added_tokens: Vec<Value>,
    }
    // Both have been read as such a file before.
    let parts = |text: &str| serde_json::from_str::<Parts>(text).unwrap_or_default();
    let (theirs, ours) = (parts(&files::read_text(file, Tokenizer::MAX_FILE)?), parts(&ours.to_json()?));
    let mut notes = Vec::new();
    if theirs.post_processor != ours.post_processor {
        let (theirs, ours) = (template(&theirs.post_processor), template(&ours.post_processor));
        notes.push(format!("{}: it frames a text as {theirs}; antlm reads and writes {ours}", file.display()));
    }
    for token in &theirs.added_tokens {
        let name = short(token["content"].as_str().unwrap_or_default());
        let set = |flag: &&&str| token[**flag] == true;
        let flags: Vec<&str> = ["lstrip", "rstrip", "single_word", "normalized"].iter().filter(set).copied().collect();
        if !flags.is_empty() {
            let what = format!("{name:?} is parsed with {}; antlm writes it without", flags.join(", "));
            notes.push(format!("{}: {what}", file.display()));
        }
    }
    Ok(notes)
}

/// What a post-processor makes of one text, in words.
fn template(processor: &Value) -> String {
    let piece = |piece: &Value| {
        let mark = piece["SpecialToken"]["id"].as_str().map(short);
        mark.unwrap_or_else(|| "A".into())
    };
    match (&processor["type"], processor["single"].as_array()) {
        (Value::Null, _) => "A, without any mark".into(),
        (_, Some(pieces)) => pieces.iter().take(8).map(piece).collect::<Vec<_>>().join(" "),
        (kind, None) => format!("{} does", short(&kind.to_string())),
    }
}

/// What a file says may be of any length.
fn short(text: &str) -> String {
    text.chars().take(200).collect()
}
