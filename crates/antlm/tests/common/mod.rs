//! What several test programs need: golden files, and how to compare with them; a small text, prepared.

#![allow(dead_code, reason = "every test program uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;

use antlm::model::{Config, Model};
use antlm::objective::Batch;
use antlm::recipe::Recipe;
use antlm::text::prepare::{Prepared, prepare};
use safetensors::{Dtype, SafeTensors};

/// The tensors of one golden file, and its metadata.
pub struct Golden {
    pub floats: BTreeMap<String, Vec<f32>>,
    pub ints: BTreeMap<String, Vec<u32>>,
    pub meta: serde_json::Value,
}

/// A golden file of `tests/golden`.
pub fn read(name: &str) -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.safetensors"));
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let meta = serde_json::from_str(&header.metadata().as_ref().unwrap()["json"]).unwrap();
    let (mut floats, mut ints) = (BTreeMap::new(), BTreeMap::new());
    for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let words = tensor.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        match tensor.dtype() {
            Dtype::F32 => drop(floats.insert(name, words.map(f32::from_le_bytes).collect())),
            Dtype::U32 => drop(ints.insert(name, words.map(u32::from_le_bytes).collect())),
            other => panic!("{name}: {other:?}"),
        }
    }
    Golden { floats, ints, meta }
}

/// The model of a golden file, and its parameters.
pub fn model(golden: &Golden) -> (Model, Vec<f32>) {
    let mut config = golden.meta["config"].clone();
    config.as_object_mut().unwrap().entry("tied").or_insert(false.into());
    let model = Model::new(&serde_json::from_value::<Config>(config).unwrap()).unwrap();
    let mut params = vec![f32::NAN; model.layout().len()];
    for tensor in model.layout().tensors() {
        params[tensor.range()].copy_from_slice(&golden.floats[&format!("param.{}", tensor.name)]);
    }
    let stored = golden.floats.keys().filter(|name| name.starts_with("param.")).count();
    assert_eq!(stored, model.layout().tensors().len(), "the golden file has tensors that the model lacks");
    (model, params)
}

/// The batch of one case.
pub fn batch(golden: &Golden, case: &str) -> Batch {
    let ints = |part: &str| golden.ints[&format!("{case}.{part}")].clone();
    let causal = ints("causal") == [1];
    Batch {
        ids: ints("ids"),
        bounds: ints("bounds"),
        rows: ints("rows"),
        targets: ints("targets"),
        causal,
        first_row: 0,
    }
}

/// Largest magnitude.
pub fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |a, b| a.max(b.abs()))
}

/// Largest difference; infinite for NaN.
pub fn difference(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).fold(0.0, |a, (x, y)| if (x - y).is_nan() { f32::INFINITY } else { a.max((x - y).abs()) })
}

/// The project's own text, prepared for a recipe in `folder`.
pub fn prepared(recipe: &Recipe, words: u64, folder: &Path) -> Prepared {
    let text = folder.join("text.txt");
    let mut file = std::fs::File::create(&text).unwrap();
    antlm::text::sample::write(words, 7, antlm::text::sample::Part::Train, &mut file).unwrap();
    let options = antlm::train::input::options(recipe, &[text], &[]).unwrap();
    prepare(&options, folder.join("prepared"), &mut |_| {}, &|| false).unwrap()
}
