//! A recipe as a flat list of keys with their values, for comparing recipes.

use super::Recipe;
use crate::{Error, Result};
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Every key of a complete recipe by its dotted name, with its value as TOML writes it; without `used` and
/// `imported`, which say what a run was made of.
///
/// ```
/// let recipe = antlm::recipe::builtin("antlm-ltg-bert-tiny")?;
/// let entries = antlm::recipe::flat::entries(&recipe)?;
/// assert_eq!(entries["model.layers"], "4");
/// assert_eq!(entries["schedule"], "\"1 clm + 4 mlm + 1 clm\"");
/// # Ok::<(), antlm::Error>(())
/// ```
///
/// # Errors
/// [`Error::Recipe`] for what TOML cannot hold, as [`Recipe::to_toml`].
pub fn entries(recipe: &Recipe) -> Result<BTreeMap<String, String>> {
    let unwritable = |error: toml::ser::Error| Error::Recipe {
        origin: recipe.name.clone(),
        place: "top level".to_owned(),
        what: error.to_string(),
    };
    let mut table = Table::try_from(recipe).map_err(unwritable)?;
    table.remove("used");
    table.remove("imported");
    let mut entries = BTreeMap::new();
    flatten(table, "", &mut entries);
    Ok(entries)
}

fn flatten(table: Table, above: &str, entries: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let key = if above.is_empty() { key } else { format!("{above}.{key}") };
        match value {
            Value::Table(inner) => flatten(inner, &key, entries),
            value => drop(entries.insert(key, value.to_string())),
        }
    }
}
