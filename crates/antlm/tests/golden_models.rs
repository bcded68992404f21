//! Both models against float64 PyTorch: logits, loss and every gradient; causal, bidirectional, packed, long.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use antlm::model::{Model, Rows};
use antlm::objective::Batch;
use antlm_nn::device::{Device, Precision};
use antlm_nn::optim::{Optimizer, Rule, State, Update, clip_coefficient, global_norm};
use antlm_nn::tape::{Pool, Tape};
use common::{batch, difference, goldens_agree, largest, loss_and_gradient, model, read};

#[test]
fn ltg_bert_agrees() {
    goldens_agree("ltg-bert", &Device::Cpu);
}

#[test]
fn llama_agrees() {
    goldens_agree("llama", &Device::Cpu);
}

#[test]
fn tied_llama_agrees() {
    goldens_agree("llama-tied", &Device::Cpu);
}

/// Products of rounded operands, the rest as in f32: rounding changes an operand by 2^-9 of itself, so a product by 2^-8 of
/// its length at the most, and a chain of k products, forward and backward, by k times that to first order.
#[test]
fn bf16_stays_near() {
    for name in ["ltg-bert", "llama", "llama-tied"] {
        let golden = read(name);
        let (model, params) = model(&golden);
        let chain = 2 * (6 * model.config().layers + 2);
        for case in golden.ints.keys().filter_map(|key| key.strip_suffix(".ids")) {
            let batch = batch(&golden, case);
            let (loss, grads) = loss_and_gradient(&model, &params, &batch, Precision::Bf16, &Device::Cpu);
            let want = f64::from(golden.floats[&format!("{case}.loss")][0]);
            let (mut off, mut length) = (0.0, 0.0);
            for tensor in model.layout().tensors() {
                let want = &golden.floats[&format!("{case}.grad.{}", tensor.name)];
                for (x, y) in grads[tensor.range()].iter().zip(want) {
                    off += f64::from(x - y).powi(2);
                    length += f64::from(*y).powi(2);
                }
            }
            let off = (off / length).sqrt();
            println!("{name} {case}: loss {loss} {want}, gradient off by {off}, bound {}", chain as f64 / 256.0);
            assert!(off > 1e-3, "{name} {case}: {off}: bf16 changes nothing");
            assert!(off < chain as f64 / 256.0, "{name} {case}: the gradient is off by {off} of its length");
            assert!((loss - want).abs() < want / 256.0, "{name} {case}: loss {loss}, want {want}");
        }
    }
}

/// Forward, backward, clip and update, dropout 0, against PyTorch.
fn one_step_agrees(name: &str) {
    let golden = read(name);
    let (model, start) = model(&golden);
    let step = &golden.meta["step"];
    let number = |key: &str| step[key].as_f64().unwrap();
    let decayed: BTreeSet<&str> =
        step["decayed"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let ours = model.layout().tensors().iter().filter(|tensor| tensor.decay).map(|tensor| &tensor.name[..]).collect();
    assert_eq!(decayed, ours, "{name}: the tensors that decay");

    let (_, grads) = {
        let case = batch(&golden, step["case"].as_str().unwrap());
        loss_and_gradient(&model, &start, &case, Precision::F32, &Device::Cpu)
    };
    let norm = global_norm(&grads);
    assert!(norm > number("clip"), "{name}: the clip has nothing to do");
    let optimizer = Optimizer {
        rule: match step["optimizer"].as_str().unwrap() {
            "lamb" => Rule::Lamb,
            "adamw" => Rule::AdamW,
            other => panic!("{other}"),
        },
        beta1: number("beta1"),
        beta2: number("beta2"),
        eps: number("eps"),
        weight_decay: number("weight_decay"),
    };
    let mut params = start.clone();
    let (mut m, mut v) = (vec![number("m") as f32; start.len()], vec![number("v") as f32; start.len()]);
    let update =
        Update { t: step["t"].as_u64().unwrap(), lr: number("lr"), grad_scale: clip_coefficient(norm, number("clip")) };
    let of = State { params: &mut params, grads: &grads, m: &mut m, v: &mut v, average: None };
    optimizer.step(model.layout(), of, update).unwrap();
    for tensor in model.layout().tensors() {
        let want = &golden.floats[&format!("step.param.{}", tensor.name)];
        let moved = difference(&start[tensor.range()], want);
        let off = difference(&params[tensor.range()], want);
        // A part of the update as large as the gradients' tolerance, and two roundings of the parameter to f32 (ours,
        // the golden file's), which are not small beside an update of 7e-4.
        let bound = 2e-4 * moved + 1.2e-7 * largest(want);
        assert!(moved > 0.0 && off <= bound, "{name}: {} differs by {off} after moving by {moved}", tensor.name);
    }
}

#[test]
fn one_step_of_lamb_agrees() {
    one_step_agrees("ltg-bert");
}

#[test]
fn one_step_of_adamw_agrees() {
    one_step_agrees("llama");
    one_step_agrees("llama-tied");
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
    tape.read(logits).unwrap().into_owned()
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
