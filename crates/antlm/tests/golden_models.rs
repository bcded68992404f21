//! Both models against float64 PyTorch: logits, loss and every gradient; causal, bidirectional, packed, long.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use antlm::model::{Config, Model, Rows};
use antlm::objective::Batch;
use antlm_nn::tape::{Pool, Tape};
use safetensors::{Dtype, SafeTensors};

/// The tensors of one golden file, and its metadata.
struct Golden {
    floats: BTreeMap<String, Vec<f32>>,
    ints: BTreeMap<String, Vec<u32>>,
    meta: serde_json::Value,
}

fn read(name: &str) -> Golden {
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

fn model(golden: &Golden) -> (Model, Vec<f32>) {
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

fn batch(golden: &Golden, case: &str) -> Batch {
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

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |a, b| a.max(b.abs()))
}

fn difference(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).fold(0.0, |a, (x, y)| if (x - y).is_nan() { f32::INFINITY } else { a.max((x - y).abs()) })
}

/// Mean loss, and gradients of it.
fn run(model: &Model, params: &[f32], batch: &Batch) -> (f64, Vec<f32>) {
    let mut grads = vec![0.0; params.len()];
    let mut pool = Pool::default();
    let mut tape = Tape::new(params, Some(&mut grads), None, &mut pool).unwrap();
    let nll = model.loss(&mut tape, batch, 1.0 / batch.targets.len() as f32).unwrap();
    tape.backward();
    (nll.iter().map(|&x| f64::from(x)).sum::<f64>() / nll.len() as f64, grads)
}

fn agrees(name: &str) {
    let golden = read(name);
    let (model, params) = model(&golden);
    let cases: Vec<&str> = golden.ints.keys().filter_map(|key| key.strip_suffix(".ids")).collect();
    assert!(cases.len() >= 2);
    for case in cases {
        let batch = batch(&golden, case);
        let (loss, grads) = run(&model, &params, &batch);
        let want = golden.floats[&format!("{case}.loss")][0];
        assert!(
            (loss - f64::from(want)).abs() < 2e-5 * f64::from(want).max(1.0),
            "{name} {case}: loss {loss}, want {want}"
        );

        let mut pool = Pool::default();
        let mut tape = Tape::new(&params, None, None, &mut pool).unwrap();
        let hidden = model.hidden(&mut tape, &Rows::from(&batch)).unwrap();
        let (table, bias) = model.output();
        let logits = tape.linear(hidden, table, bias, None).unwrap();
        let off = difference(tape.value(logits), &golden.floats[&format!("{case}.logits")]);
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

#[test]
fn ltg_bert_agrees() {
    agrees("ltg-bert");
}

#[test]
fn llama_agrees() {
    agrees("llama");
}

#[test]
fn tied_llama_agrees() {
    agrees("llama-tied");
}

/// Logits of all rows of one batch.
fn logits(model: &Model, params: &[f32], batch: &Batch) -> Vec<f32> {
    let mut pool = Pool::default();
    let mut tape = Tape::new(params, None, None, &mut pool).unwrap();
    let mut rows = Rows::from(batch);
    rows.picked = (0..batch.ids.len() as u32).collect::<Arc<[u32]>>();
    let hidden = model.hidden(&mut tape, &rows).unwrap();
    let (table, bias) = model.output();
    let logits = tape.linear(hidden, table, bias, None).unwrap();
    tape.value(logits).to_vec()
}

#[test]
fn the_future_does_not_leak() {
    for name in ["ltg-bert", "llama"] {
        let golden = read(name);
        let (model, params) = model(&golden);
        let mut batch = batch(&golden, "t40.causal");
        let (before, vocab) = (logits(&model, &params, &batch), model.config().vocab_size);
        for changed in [39, 20, 1] {
            batch.ids[changed] = (batch.ids[changed] + 7) % vocab as u32;
            let after = logits(&model, &params, &batch);
            assert_eq!(
                before[..changed * vocab],
                after[..changed * vocab],
                "{name}: row {changed} is seen from its left"
            );
            assert_ne!(before[changed * vocab..], after[changed * vocab..]);
        }
    }
}

#[test]
fn packed_segments_equal_segments_one_by_one() {
    for name in ["ltg-bert", "llama"] {
        for case in ["packed.causal", "packed.bidirectional"] {
            let golden = read(name);
            let (model, params) = model(&golden);
            let whole = batch(&golden, case);
            let together = logits(&model, &params, &whole);
            let vocab = model.config().vocab_size;
            for piece in whole.bounds.windows(2) {
                let range = piece[0] as usize..piece[1] as usize;
                let ids = whole.ids[range.clone()].to_vec();
                let alone = Batch { bounds: vec![0, ids.len() as u32], ids, causal: whole.causal, ..Batch::default() };
                let off =
                    difference(&logits(&model, &params, &alone), &together[range.start * vocab..range.end * vocab]);
                assert!(off < 1e-5 * largest(&together), "{name} {case} {range:?}: {off}");
            }
        }
    }
}
