//! The recipes that come with the program: TOML files in the folder `recipes`, one for each size.
//!
//! The recipes of one size differ in schedule and description only. So a file holds what they share, and a table
//! `[variants.NAME]` for each with what they do not.

use super::{Recipe, load};
use crate::{Error, Result};
use toml::{Table, Value};

/// The files, in the order of [`names`].
const FILES: [&str; 9] = [
    include_str!("../../../../recipes/demo.toml"),
    include_str!("../../../../recipes/ltg-bert-tiny.toml"),
    include_str!("../../../../recipes/ltg-bert-xs.toml"),
    include_str!("../../../../recipes/ltg-bert-small.toml"),
    include_str!("../../../../recipes/ltg-bert-base.toml"),
    include_str!("../../../../recipes/babyllama-tiny.toml"),
    include_str!("../../../../recipes/babyllama-small.toml"),
    include_str!("../../../../recipes/babyllama-58m.toml"),
    include_str!("../../../../recipes/babyllama-97m.toml"),
];

/// What the recipes of one file share, and their variants by name.
fn read(file: &str) -> (Table, Table) {
    // The files are part of the program, and a test reads every one.
    let mut shared: Table = file.parse().expect("built-in recipes are TOML");
    let Some(Value::Table(variants)) = shared.remove("variants") else { return (shared, Table::new()) };
    (shared, variants)
}

/// The names of all built-in recipes, by family and size.
///
/// ```
/// assert!(antlm::recipe::names().contains(&"antlm-ltg-bert-tiny".to_owned()));
/// ```
pub fn names() -> Vec<String> {
    FILES.iter().flat_map(|file| read(file).1.into_iter().map(|(name, _)| name)).collect()
}

/// The built-in recipe of this name.
///
/// # Errors
/// [`Error::Usage`] if there is none.
pub fn builtin(name: &str) -> Result<Recipe> {
    match table(name) {
        Some(table) => load::finish(table, name, &[]),
        None => Err(Error::Usage(format!("no built-in recipe is named {name:?}"))),
    }
}

/// The keys of a built-in recipe.
pub(super) fn table(name: &str) -> Option<Table> {
    FILES.iter().find_map(|file| {
        let (mut shared, mut variants) = read(file);
        let Value::Table(variant) = variants.remove(name)? else { return None };
        shared.extend(variant);
        shared.insert("name".into(), Value::String(name.to_owned()));
        Some(shared)
    })
}
