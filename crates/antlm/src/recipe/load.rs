//! Reading recipes: a built-in name or a file, the recipe it starts from, and `KEY=VALUE` from the command line.

use super::{KEYS, Recipe, Used, VERSION, builtin, names};
use crate::objective::schedule::Schedule;
use crate::suggest::{did_you_mean, suggest};
use crate::{Error, Result, files};
use std::path::Path;
use toml::{Table, Value};

/// A recipe file may have this many bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A dotted key may have this many parts.
const MAX_KEYS: usize = 8;

fn wrong(origin: &str, place: impl Into<String>, what: impl Into<String>) -> Error {
    Error::Recipe { origin: origin.to_owned(), place: place.into(), what: what.into() }
}

impl Recipe {
    /// Reads a built-in recipe by name, or a file; then applies `set` (`KEY=VALUE`, dotted keys), and checks all of it.
    ///
    /// Paths of text in a file are relative to the file's folder, those in `set` to the current one.
    ///
    /// The value of an override is TOML where it parses as TOML, otherwise it is taken as text.
    ///
    /// ```
    /// use antlm::recipe::Recipe;
    /// let set = ["optimizer.lr=0.002".to_owned(), "schedule=1 clm + 1 mlm".to_owned()];
    /// let recipe = Recipe::load("antlm-ltg-bert-tiny", &set)?;
    /// assert_eq!(recipe.optimizer.lr, 0.002);
    /// assert_eq!(recipe.schedule.to_string(), "1 clm + 1 mlm");
    /// # Ok::<(), antlm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Recipe`] with the recipe's name or path and the key (and the character of a schedule),
    /// [`Error::Io`] or [`Error::Data`] for an unreadable file, [`Error::Usage`] if there is neither recipe nor file.
    pub fn load(name_or_path: &str, set: &[String]) -> Result<Recipe> {
        if let Some(table) = builtin::table(name_or_path) {
            return finish(table, name_or_path, set);
        }
        let path = Path::new(name_or_path);
        if !path.exists() && !name_or_path.ends_with(".toml") {
            let names = names();
            let near = did_you_mean(name_or_path, names.iter().map(String::as_str));
            return Err(Error::Usage(format!(
                "no built-in recipe and no file is named {name_or_path:?}{near} (`antlm recipes` lists all)"
            )));
        }
        let text = files::read_text(path, MAX_BYTES)?;
        from_text(&text, name_or_path, Some(path), set)
    }

    /// Reads the recipe that stands in a run's folder; also gives its text.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn read(path: &Path) -> Result<(Recipe, String)> {
        let text = files::read_text(path, MAX_BYTES)?;
        Ok((Recipe::from_toml(&text, &path.display().to_string())?, text))
    }

    /// What the run was made of whose recipe [`Recipe::load`] reads by this name; nothing for a built-in recipe or one of
    /// the user's own.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn used_by(name_or_path: &str) -> Result<Option<Used>> {
        let path = Path::new(name_or_path);
        if builtin::table(name_or_path).is_some() || !path.exists() {
            return Ok(None);
        }
        let text = files::read_text(path, MAX_BYTES)?;
        // Of a user's own recipe only what it is without its base; what is wrong in it, loading it says.
        let is_a_runs = text.parse::<Table>().is_ok_and(|table| table.contains_key("used"));
        if is_a_runs { Ok(Recipe::from_toml(&text, name_or_path)?.used) } else { Ok(None) }
    }

    /// Reads a recipe from TOML; `origin` stands in errors.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn from_toml(text: &str, origin: &str) -> Result<Recipe> {
        from_text(text, origin, None, &[])
    }

    /// The recipe as TOML, complete, so that it reads back as the same recipe.
    ///
    /// # Errors
    /// [`Error::Recipe`] for what would not read back: a value that [`Recipe::check`] refuses, a path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        self.check()?;
        toml::to_string(self).map_err(|error| wrong(&self.name, "top level", one_line(&error.to_string())))
    }

    /// Checks the values of a recipe that was changed in memory.
    ///
    /// # Errors
    /// [`Error::Recipe`] with the key.
    pub fn check(&self) -> Result<()> {
        self.checked(&self.name)
    }

    fn checked(&self, origin: &str) -> Result<()> {
        super::check::check(self).map_err(|(place, what)| wrong(origin, place, what))
    }
}

/// From the text of a recipe; `file` is where it stands, if it is one to start from and not that of a run to go on with.
fn from_text(text: &str, origin: &str, file: Option<&Path>, set: &[String]) -> Result<Recipe> {
    let mut own: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        wrong(origin, format!("line {line}"), one_line(error.message()))
    })?;
    if let Some(folder) = file.and_then(Path::parent) {
        place_paths(&mut own, folder);
    }
    let mut table = match own.remove("base") {
        None => own,
        Some(Value::String(base)) => {
            let Some(mut table) = builtin::table(&base) else {
                let names = names();
                let near = did_you_mean(&base, names.iter().map(String::as_str));
                return Err(wrong(origin, "base", format!("no built-in recipe is named {base:?}{near}")));
            };
            // These say what the base is, not what was made of it.
            table.remove("name");
            table.remove("description");
            merge(&mut table, own);
            table
        }
        Some(_) => return Err(wrong(origin, "base", "expected the name of a built-in recipe")),
    };
    if let Some(file) = file {
        table.remove("used");
        table.remove("imported");
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        table.entry("name").or_insert(Value::String(stem));
    }
    finish(table, origin, set)
}

/// Puts the folder before the paths of text that are relative.
fn place_paths(table: &mut Table, folder: &Path) {
    let place = |table: &mut Table| {
        for path in table.get_mut("paths").and_then(Value::as_array_mut).into_iter().flatten() {
            // An empty path stays, to be refused. A folder that is not UTF-8 cannot be written in TOML.
            if let Value::String(path) = path
                && !path.is_empty()
            {
                *path = folder.join(&*path).to_string_lossy().into_owned();
            }
        }
    };
    let data = table.get_mut("data").and_then(Value::as_array_mut).into_iter().flatten();
    data.filter_map(Value::as_table_mut).for_each(place);
    table.get_mut("dev").and_then(Value::as_table_mut).into_iter().for_each(place);
}

/// From a table to a checked recipe.
pub(super) fn finish(mut table: Table, origin: &str, set: &[String]) -> Result<Recipe> {
    for assignment in set {
        assign(&mut table, assignment)?;
    }
    match table.get("version") {
        Some(Value::Integer(version)) if *version == i64::from(VERSION) => {}
        Some(other) => {
            return Err(wrong(
                origin,
                "version",
                format!("this antlm reads recipes of version {VERSION}, not {other}"),
            ));
        }
        None => return Err(wrong(origin, "version", format!("missing; write `version = {VERSION}`"))),
    }
    if let Some(Value::String(schedule)) = table.get("schedule") {
        Schedule::parse(schedule).map_err(|error| match error {
            Error::Schedule { text, at, what } => {
                wrong(origin, "schedule", format!("{text:?}, character {at}: {what}"))
            }
            other => other,
        })?;
    }
    let recipe: Recipe = Value::Table(table).try_into().map_err(|error: toml::de::Error| {
        // The key stands on the second line of the error's text, and nowhere else.
        let text = error.to_string();
        let key = text.trim_end().rsplit_once("\nin `").and_then(|(_, key)| key.strip_suffix('`'));
        let (key, what) = (key.unwrap_or("top level"), one_line(error.message()));
        let near = meant(key, &what);
        wrong(origin, key, what + &near)
    })?;
    recipe.checked(origin)?;
    Ok(recipe)
}

/// What serde's "unknown field `layer`, expected one of `kind`, `layers`" was meant to be: a key of the same table, a
/// value of the same key, or a key that stands elsewhere.
fn meant(key: &str, what: &str) -> String {
    if !what.starts_with("unknown ") {
        return String::new();
    }
    let mut quoted = what.split('`').skip(1).step_by(2);
    let word = quoted.next().unwrap_or_default();
    let near = did_you_mean(word, quoted);
    if !near.is_empty() || what.starts_with("unknown variant") {
        return near;
    }
    // Known, but in another table: `layers` at the top level, `optimizer.segments`.
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    let Some(found) = suggest(word, KEYS.iter().map(|key| last(key.path))) else { return String::new() };
    let full =
        KEYS.iter().find(|known| last(known.path) == found && known.path.rsplit_once('.').map(|k| k.0) != Some(key));
    full.map(|known| format!("; did you mean `{}`?", known.path)).unwrap_or_default()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Puts the keys of `over` into `table`; tables are merged, everything else is replaced.
fn merge(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

/// Applies one `KEY=VALUE`.
fn assign(table: &mut Table, assignment: &str) -> Result<()> {
    let Some((path, value)) = assignment.split_once('=') else {
        return Err(wrong("--set", format!("{assignment:?}"), "expected KEY=VALUE"));
    };
    let (path, value) = (path.trim(), value.trim());
    let keys: Vec<&str> = path.split('.').collect();
    if keys.len() > MAX_KEYS || keys.iter().any(|key| key.is_empty()) {
        return Err(wrong("--set", format!("{assignment:?}"), "expected KEY=VALUE with a key like model.layers"));
    }
    // One value, not a line that smuggles in other keys.
    let parsed = format!("value = {value}").parse::<Table>().ok().filter(|parsed| parsed.len() == 1);
    let value = parsed.and_then(|mut parsed| parsed.remove("value")).unwrap_or_else(|| Value::String(value.to_owned()));
    let mut here = table;
    for key in &keys[..keys.len() - 1] {
        let next = here.entry(*key).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(next) = next else {
            return Err(wrong("--set", path, format!("`{key}` is no table")));
        };
        here = next;
    }
    here.insert(keys[keys.len() - 1].to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests;
