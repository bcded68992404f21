//! The text of a run: what a recipe and the paths given for it mean for preparing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::checkpoint;
use super::trained::Trained;
use crate::recipe::{Recipe, Used};
use crate::text::clean::Cleaning;
use crate::text::prepare::{self, Options, Prepared, Summary, TokenizerChoice};
use crate::text::source::Source;
use crate::{Error, Result, files};

/// Puts text given on the command line in the place of the recipe's own: all of `[[data]]` becomes one source of these
/// files, with default field and document rule and not weighted; of `[dev]` the paths are replaced. `cleaning` is for
/// what is given so. Text that is prepared already takes the place of both.
///
/// # Errors
/// [`Error::Usage`] for a cleaning without text that it is for.
pub fn choose(recipe: &mut Recipe, text: &[PathBuf], dev: &[PathBuf], cleaning: Option<Cleaning>) -> Result<()> {
    if cleaning.is_some() && text.is_empty() {
        let what = "--cleaning is for the text of --text; a recipe's own sources say theirs in [[data]]";
        return Err(Error::Usage(what.into()));
    }
    if let Some(dir) = prepared_dir(text) {
        if cleaning.is_some() {
            let what = "prepared text is not cleaned again; leave --cleaning out, or name the text itself";
            return Err(Error::Usage(format!("{}: {what}", dir.display())));
        }
        recipe.data.clear();
        recipe.dev.paths.clear();
    } else if !text.is_empty() {
        recipe.data = vec![Source { cleaning: cleaning.unwrap_or_default(), ..Source::new("text", text) }];
    }
    if !dev.is_empty() {
        recipe.dev.paths = dev.to_vec();
        recipe.dev.cleaning = cleaning.unwrap_or(recipe.dev.cleaning);
    }
    Ok(())
}

/// What is to be prepared for a recipe. Paths given as `text` and `dev` take the place of the recipe's own, as
/// [`choose`] does it.
///
/// ```
/// let recipe = antlm::recipe::builtin("babyllama-tiny")?;
/// let options = antlm::train::input::options(&recipe, &["corpus".into()], &[])?;
/// assert_eq!(options.sources[0].paths, [std::path::Path::new("corpus")]);
/// assert!(antlm::train::input::options(&recipe, &[], &[]).is_err());
/// # Ok::<(), antlm::Error>(())
/// ```
///
/// # Errors
/// [`Error::Usage`] when neither names any text.
pub fn options(recipe: &Recipe, text: &[PathBuf], dev: &[PathBuf]) -> Result<Options> {
    let mut recipe = recipe.clone();
    choose(&mut recipe, text, dev, None)?;
    let Recipe { data, dev, .. } = recipe;
    if data.is_empty() {
        return Err(Error::Usage(format!("recipe {} names no text; give it with --text PATH", recipe.name)));
    }
    let dev_source = || Source {
        field: dev.field.clone(),
        documents: dev.documents,
        cleaning: dev.cleaning,
        ..Source::new("dev", &dev.paths)
    };
    Ok(Options {
        sources: data,
        dev: if dev.paths.is_empty() { Vec::new() } else { vec![dev_source()] },
        family: recipe.model.kind,
        tokenizer: TokenizerChoice::Train {
            vocab_size: recipe.model.vocab_size,
            min_frequency: u64::from(recipe.tokenizer.min_frequency),
        },
        seq_len: recipe.seq_len,
    })
}

/// The folder of prepared text, if that is what the paths name.
pub fn prepared_dir(text: &[PathBuf]) -> Option<&Path> {
    match text {
        [dir] if dir.join(prepare::SUMMARY_FILE).is_file() => Some(dir),
        _ => None,
    }
}

/// Opens text that was prepared before.
///
/// # Errors
/// [`Error::Usage`] when it was prepared for another family, or dev text is given beside it.
pub fn open(recipe: &Recipe, dir: &Path, dev: bool) -> Result<Prepared> {
    let prepared = prepare::open(dir, recipe.seq_len)?;
    let (family, place) = (prepared.summary.family, dir.display());
    if family != recipe.model.kind {
        let what = format!("{place}: prepared for a {family:?} model, but recipe {} is of another family", recipe.name);
        return Err(Error::Usage(what));
    }
    if prepared.tokenizer.vocab_size() > recipe.model.vocab_size {
        let (has, wants) = (prepared.tokenizer.vocab_size(), recipe.model.vocab_size);
        return Err(Error::Usage(format!(
            "{place}: prepared with {has} tokens, but recipe {} has {wants}",
            recipe.name
        )));
    }
    if dev {
        return Err(Error::Usage(format!("{place}: prepared text has its dev set already; leave --dev out")));
    }
    Ok(prepared)
}

/// Checks that a run of this program can give what the run gave whose recipe is used again: the same version, and the same
/// model to start from, if it had one.
///
/// # Errors
/// [`Error::Usage`] with what differs.
pub fn check_origin(recipe: &str, used: &Used, init: Option<&Trained>) -> Result<()> {
    if used.antlm != env!("CARGO_PKG_VERSION") {
        let what =
            format!("antlm {}, and this is {}; its results may be others", used.antlm, env!("CARGO_PKG_VERSION"));
        return Err(not_the_same(recipe, &what));
    }
    let Some(wanted) = &used.init else { return Ok(()) };
    let weights = init.map(|init| files::sha256_file(&init.checkpoint.join(checkpoint::MODEL))).transpose()?;
    if weights.as_ref() != Some(&wanted.weights) {
        let what = format!("another model to start from: say --init {}", wanted.checkpoint.display());
        return Err(not_the_same(recipe, &what));
    }
    Ok(())
}

/// Checks that the text and the tokenizer are those of the run whose recipe is used again.
///
/// # Errors
/// [`Error::Usage`] with what differs; by their names the files that do, if the run's prepared text is still there.
pub fn check_same(recipe: &str, used: &Used, prepared: &Prepared) -> Result<()> {
    if prepared.train.hash() == used.text && prepared.summary.tokenizer_sha256 == used.tokenizer {
        return Ok(());
    }
    let of = |summary: &Summary| -> BTreeMap<(String, String), String> {
        let files = summary.train_files.iter().chain(&summary.dev_files);
        files.map(|file| ((file.source.clone(), file.name.clone()), file.sha256.clone())).collect()
    };
    let now = of(&prepared.summary);
    // Gone or damaged, it has no names to tell.
    let then =
        prepare::read_summary(&used.prepared).ok().flatten().filter(|then| then.key == used.text).map(|s| of(&s));
    let mut names = Vec::new();
    for (file, hash) in then.iter().flatten() {
        match now.get(file) {
            None => names.push(format!("{} is not there", file.1)),
            Some(other) if other != hash => names.push(format!("{} has changed", file.1)),
            Some(_) => {}
        }
    }
    if let Some(then) = &then {
        names.extend(now.keys().filter(|file| !then.contains_key(file)).map(|file| format!("{} is new", file.1)));
    }
    let what = match names.len() {
        0 => "other text, another tokenizer, or text that was prepared in another way".into(),
        n => {
            names.truncate(3);
            let more = if n > 3 { format!(" and {} more", n - 3) } else { String::new() };
            format!("other text ({}{more})", names.join(", "))
        }
    };
    Err(not_the_same(recipe, &what))
}

fn not_the_same(recipe: &str, what: &str) -> Error {
    Error::Usage(format!("{recipe}: this is the recipe of a run with {what}; --other-data trains it all the same"))
}
