//! What several test programs need: golden files, and how to compare with them; a small text, prepared.

#![allow(dead_code, reason = "every test program uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;

use antlm::model::{Config, Model, Rows};
use antlm::objective::Batch;
use antlm::recipe::Recipe;
use antlm::text::prepare::{Prepared, prepare};
use antlm_nn::device::{Device, Precision};
use antlm_nn::tape::{Pool, Tape};
use safetensors::{Dtype, SafeTensors};

/// The tensors of one golden file, and its metadata.
pub struct Golden {
    pub floats: BTreeMap<String, Vec<f32>>,
    pub ints: BTreeMap<String, Vec<u32>>,
    pub meta: serde_json::Value,
}

/// A golden file of `tests/golden`.
pub fn read(name: &str) -> Golden {
    // As it is when the test runs: its program may have been carried to another machine (`cargo xtask gpu`).
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let path = Path::new(&package).join(format!("tests/golden/{name}.safetensors"));
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

/// Mean loss, and gradients of it.
pub fn loss_and_gradient(
    model: &Model,
    params: &[f32],
    batch: &Batch,
    precision: Precision,
    device: &Device,
) -> (f64, Vec<f32>) {
    let [params, mut grads] = [params.to_vec(), vec![0.0; params.len()]].map(|x| device.buffer(x).unwrap());
    let mut pool = Pool::of(device.clone());
    let tape = Tape::new(&params, Some(grads.slice_mut()), None, &mut pool).unwrap();
    let mut tape = tape.with_precision(precision);
    let nll = model.loss(&mut tape, batch, 1.0 / batch.targets.len() as f32).unwrap();
    tape.backward().unwrap();
    (nll.iter().map(|&x| f64::from(x)).sum::<f64>() / nll.len() as f64, grads.read().unwrap().into_owned())
}

/// Loss, logits and every gradient of a golden file's cases, by a device.
pub fn goldens_agree(name: &str, device: &Device) {
    let golden = read(name);
    let (model, params) = model(&golden);
    let cases: Vec<&str> = golden.ints.keys().filter_map(|key| key.strip_suffix(".ids")).collect();
    assert!(cases.len() >= 2);
    for case in cases {
        let batch = batch(&golden, case);
        let (loss, grads) = loss_and_gradient(&model, &params, &batch, Precision::F32, device);
        let want = golden.floats[&format!("{case}.loss")][0];
        assert!(
            (loss - f64::from(want)).abs() < 2e-5 * f64::from(want).max(1.0),
            "{name} {case}: loss {loss}, want {want}"
        );

        let (there, mut pool) = (device.buffer(params.clone()).unwrap(), Pool::of(device.clone()));
        let mut tape = Tape::new(&there, None, None, &mut pool).unwrap();
        let hidden = model.hidden(&mut tape, &Rows::from(&batch)).unwrap();
        let (table, bias) = model.output();
        let logits = tape.linear(hidden, table, bias, None).unwrap();
        let off = difference(&tape.read(logits).unwrap(), &golden.floats[&format!("{case}.logits")]);
        assert!(off < 1e-4, "{name} {case}: logits differ by {off}");

        for tensor in model.layout().tensors() {
            let want = &golden.floats[&format!("{case}.grad.{}", tensor.name)];
            let off = difference(&grads[tensor.range()], want);
            assert!(
                off <= 2e-4 * largest(want),
                "{name} {case}: gradient of {} differs by {off} of {}",
                tensor.name,
                largest(want)
            );
        }
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
