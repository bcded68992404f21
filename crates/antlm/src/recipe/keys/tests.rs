use super::*;
use crate::objective::Backend;
use crate::recipe::{Imported, InitialModel, Recipe, Used, builtin};
use crate::text::corpus::Source;
use std::collections::BTreeSet;

/// A recipe in which every key that a file may have is written out.
fn full() -> toml::Table {
    let mut recipe = builtin("ltg-bert-tiny").unwrap();
    recipe.data = vec![Source::new("all", ["text.txt"])];
    recipe.data[0].language = "eng".to_owned().try_into().ok();
    recipe.used = Some(Used {
        antlm: "0.1.0".into(),
        prepared: "p".into(),
        text: "a".into(),
        tokenizer: "b".into(),
        vocab_size: 300,
        init: Some(InitialModel { checkpoint: "c".into(), weights: "d".into(), words: Some(7) }),
    });
    recipe.imported = Some(Imported {
        from: "m".into(),
        model_type: "llama".into(),
        weights: "e".into(),
        recipe_known: false,
        backends: Some(vec![Backend::Mlm]),
    });
    recipe.to_toml().unwrap().parse().unwrap()
}

fn leaves(table: &toml::Table, prefix: &str, found: &mut BTreeSet<String>) {
    for (name, value) in table {
        let path = format!("{prefix}{name}");
        match value {
            toml::Value::Table(inner) => leaves(inner, &format!("{path}."), found),
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                items.iter().filter_map(toml::Value::as_table).for_each(|t| leaves(t, &format!("{path}."), found));
            }
            _ => drop(found.insert(path)),
        }
    }
}

#[test]
fn the_table_has_the_keys_of_the_types_and_no_others() {
    let mut found = BTreeSet::new();
    leaves(&full(), "", &mut found);
    found.insert("base".into()); // which is gone once a recipe is read
    let listed: BTreeSet<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(listed, found);
    assert_eq!(listed.len(), KEYS.len(), "a key is listed twice");
    let tables: usize = TABLES.iter().map(|(table, _)| keys_of(table).count()).sum();
    assert_eq!(tables, KEYS.len(), "a table is missing");
}

/// The table that a key stands in.
fn parent<'a>(all: &'a mut toml::Table, path: &'a str) -> (&'a mut toml::Table, &'a str) {
    match path.rsplit_once('.') {
        None => (all, path),
        Some(("data", name)) => (all["data"][0].as_table_mut().unwrap(), name),
        Some((table, name)) => (table.split('.').fold(all, |all, table| all[table].as_table_mut().unwrap()), name),
    }
}

/// Left out, a key has the default that the table says; one without a default is asked for.
#[test]
fn defaults_are_those_of_the_types() {
    // Where nothing is meant, nothing is written.
    for key in KEYS.iter().filter(|key| key.default != Some("")) {
        let mut without = full();
        let (table, name) = parent(&mut without, key.path);
        table.remove(name).unwrap();
        let read = |table: &toml::Table| Recipe::from_toml(&toml::to_string(table).unwrap(), "test");
        match key.default {
            None => assert!(read(&without).is_err(), "{} is not asked for", key.path),
            Some(default) => {
                let mut with = full();
                let (table, name) = parent(&mut with, key.path);
                let value: toml::Table = format!("value = {default}").parse().unwrap();
                table.insert(name.into(), value["value"].clone());
                let (with, without) = (read(&with), read(&without));
                // LTG-BERT's `tied` has a default that it refuses; both are refused then.
                assert_eq!(with.as_ref().ok(), without.as_ref().ok(), "{}", key.path);
                assert!(with.is_ok() || key.path == "model.tied", "{}: {with:?}", key.path);
            }
        }
    }
}

#[test]
fn choices_are_accepted_and_others_refused() {
    for key in KEYS {
        let One(words) = key.values else { continue };
        for (word, good) in words.iter().map(|word| (*word, true)).chain([("nothing", false)]) {
            let mut recipe = full();
            let (table, name) = parent(&mut recipe, key.path);
            table.insert(name.into(), word.into());
            let error = Recipe::from_toml(&toml::to_string(&recipe).unwrap(), "test").err().map(|e| e.to_string());
            let unknown = error.as_ref().is_some_and(|e| e.contains("unknown variant") || e.contains("trains in"));
            assert_eq!(unknown, !good, "{} = {word}: {error:?}", key.path);
        }
    }
}

#[test]
fn the_schema_knows_every_key_and_the_reference_explains_it() {
    let (schema, text) = (schema(), reference());
    for key in KEYS {
        let found = match key.path.rsplit_once('.') {
            None => &schema["properties"][key.path],
            Some(("data", name)) => &schema["properties"]["data"]["items"]["properties"][name],
            Some((table, name)) => {
                &table.split('.').fold(&schema, |all, table| &all["properties"][table])["properties"][name]
            }
        };
        assert_eq!(found["description"], key.meaning, "{}", key.path);
        assert_eq!(found.get("default").is_some(), key.default.is_some_and(|d| !d.is_empty()), "{}", key.path);
        assert!(text.contains(&format!("| `{}` |", key.path)));
        assert!(!key.meaning.contains('|') && key.meaning.ends_with('.'), "{}", key.path);
    }
    assert!(text.lines().filter(|line| line.starts_with("| `")).count() == KEYS.len());
}
