//! The optimisers against PyTorch's goldens, against a slow f64 twin, and against themselves on other thread counts.

use super::*;
use crate::params::Init;
use crate::rng::{Rng, Stream};
use safetensors::{Dtype, SafeTensors};

const ADAMW: Optimizer = Optimizer { rule: Rule::AdamW, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
const LAMB: Optimizer = Optimizer { rule: Rule::Lamb, beta1: 0.9, beta2: 0.98, eps: 1e-6, weight_decay: 0.1 };

/// The same rules, one value after another, all in f64.
fn slow_step(o: &Optimizer, layout: &Layout, w: &mut [f64], g: &[f64], m: &mut [f64], v: &mut [f64], at: Update) {
    for tensor in layout.tensors() {
        let decay = if tensor.decay { o.weight_decay } else { 0.0 };
        let (in_update, keep) = match o.rule {
            Rule::AdamW => (0.0, 1.0 - at.lr * decay),
            Rule::Lamb => (decay, 1.0),
        };
        let mut u = vec![0.0; tensor.len()];
        for (u, i) in u.iter_mut().zip(tensor.range()) {
            let g = g[i] * f64::from(at.grad_scale);
            m[i] = o.beta1 * m[i] + (1.0 - o.beta1) * g;
            v[i] = o.beta2 * v[i] + (1.0 - o.beta2) * g * g;
            let (m, v) = (m[i] / (1.0 - o.beta1.powf(at.t as f64)), v[i] / (1.0 - o.beta2.powf(at.t as f64)));
            *u = m / (v.sqrt() + o.eps) + in_update * w[i];
        }
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let norms = [norm(&w[tensor.range()]), norm(&u)];
        let trust = tensor.decay && o.rule == Rule::Lamb && norms.iter().all(|&n| n > 0.0);
        let ratio = if trust { norms[0] / norms[1] } else { 1.0 };
        w[tensor.range()].iter_mut().zip(u).for_each(|(w, u)| *w = *w * keep - at.lr * ratio * u);
    }
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f64> {
    let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    match view.dtype() {
        Dtype::F32 => view.data().as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
        Dtype::F64 => view.data().as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

/// Buffers without a moving average.
fn state<'a>(params: &'a mut [f32], grads: &'a [f32], m: &'a mut [f32], v: &'a mut [f32]) -> State<'a> {
    State { params, grads, m, v, average: None }
}

#[test]
fn five_steps_as_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../antlm/tests/golden/optim.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let names = ["decayed", "plain", "zero", "dead", "long"];
    let mut layout = Layout::default();
    for name in names {
        layout.add(name, file.tensor(&format!("start.{name}")).unwrap().shape(), Init::Zeros, name != "plain");
    }
    let flat = |prefix: &str| names.iter().flat_map(|n| floats(&file, &format!("{prefix}.{n}"))).collect::<Vec<f64>>();
    let (rates, norms) = (floats(&file, "lr"), floats(&file, "norms"));
    for (kind, optimizer) in [("adamw", ADAMW), ("lamb", LAMB)] {
        let mut w = narrow(&flat("start"));
        let start = w.clone();
        let (mut m, mut v) = (vec![0.0; w.len()], vec![0.0; w.len()]);
        for t in 1..=5 {
            let grads = narrow(&flat(&format!("grad.{t}")));
            let norm = global_norm(&grads);
            assert!((norm / norms[t - 1] - 1.0).abs() < 1e-6, "{norm} {}", norms[t - 1]);
            let at = Update { t: t as u64, lr: rates[t - 1], grad_scale: clip_coefficient(norm, 2.0) };
            optimizer.step(&layout, state(&mut w, &grads, &mut m, &mut v), at).unwrap();
            for (i, (got, want)) in w.iter().zip(flat(&format!("{kind}.{t}"))).enumerate() {
                // Two f32 roundings of a weight below 2 an update.
                assert!((f64::from(*got) - want).abs() < 2.5e-7 * t as f64, "{kind} {t} {i}: {got} {want}");
            }
            assert_eq!(t == 1, w == start, "the first update has learning rate 0");
        }
    }
}

/// A layout whose tensors do not end at block borders, and numbers for it.
fn example() -> (Layout, Vec<f32>, Vec<f32>) {
    let mut layout = Layout::default();
    layout.add("matrix", &[257, 515], Init::Normal { std: 0.1 }, true); // three blocks
    layout.add("bias", &[7], Init::Normal { std: 0.1 }, false);
    layout.add("table", &[130, 600], Init::Normal { std: 0.3 }, false); // two blocks
    layout.add("zeros", &[31], Init::Zeros, true);
    layout.add("last", &[65, 9], Init::Normal { std: 1.0 }, true);
    let params = layout.init(5);
    let draw = |i| (Rng::new(6).unit(Stream::SAMPLE, 0, 0, i as u32) as f32 - 0.5) * 0.1;
    let grads = (0..params.len()).map(draw).collect();
    (layout, params, grads)
}

#[test]
fn as_the_slow_twin() {
    let (layout, params, grads) = example();
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let norm = wide(&grads).iter().map(|g| g * g).sum::<f64>().sqrt();
    assert!((global_norm(&grads) / norm - 1.0).abs() < 1e-7);
    for optimizer in [ADAMW, LAMB] {
        let (mut w, mut m, mut v) = (params.clone(), vec![0.0; params.len()], vec![0.0; params.len()]);
        let (mut slow_w, mut slow_m, mut slow_v) = (wide(&w), wide(&m), wide(&v));
        for t in 1..=3 {
            let at = Update { t, lr: 0.01, grad_scale: 0.37 };
            optimizer.step(&layout, state(&mut w, &grads, &mut m, &mut v), at).unwrap();
            slow_step(&optimizer, &layout, &mut slow_w, &wide(&grads), &mut slow_m, &mut slow_v, at);
        }
        for (i, (got, want)) in w.iter().zip(&slow_w).enumerate() {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{:?} {i}: {got} {want}", optimizer.rule);
        }
    }
}

#[test]
fn equal_bits_for_any_number_of_threads() {
    let (layout, params, grads) = example();
    for optimizer in [ADAMW, LAMB] {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (mut w, mut m, mut v) = (params.clone(), vec![0.0; params.len()], vec![0.0; params.len()]);
                for t in 1..=3 {
                    let at = Update { t, lr: 0.01, grad_scale: clip_coefficient(global_norm(&grads), 2.0) };
                    optimizer.step(&layout, state(&mut w, &grads, &mut m, &mut v), at).unwrap();
                }
                w.iter().chain(&m).chain(&v).map(|x| x.to_bits()).collect::<Vec<u32>>()
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3));
    }
}

#[test]
fn zero_gradients_stay_finite_and_wrong_lengths_are_refused() {
    let (layout, params, _) = example();
    let zeros = vec![0.0; params.len()];
    for optimizer in [ADAMW, LAMB] {
        let (mut w, mut m, mut v) = (params.clone(), zeros.clone(), zeros.clone());
        let at = Update { t: 1, lr: 0.01, grad_scale: clip_coefficient(global_norm(&zeros), 2.0) };
        optimizer.step(&layout, state(&mut w, &zeros, &mut m, &mut v), at).unwrap();
        assert!(w.iter().chain(&m).chain(&v).all(|x| x.is_finite()));
        for tensor in layout.tensors() {
            let moved = w[tensor.range()] != params[tensor.range()];
            assert_eq!(moved, tensor.decay && tensor.name != "zeros", "{}: only decay moves it", tensor.name);
        }
        assert!(optimizer.step(&layout, state(&mut w, &zeros[1..], &mut m, &mut v), at).is_err());
        let short = Some((&mut zeros.clone()[1..], 0.9));
        let of = State { average: short, ..state(&mut w, &zeros, &mut m, &mut v) };
        assert!(optimizer.step(&layout, of, at).is_err());
        let of = state(&mut w, &zeros, &mut m, &mut v);
        assert!(optimizer.step(&layout, of, Update { t: 0, ..at }).is_err());
    }
}

#[test]
fn the_average_is_the_sum_of_the_weights_past() {
    let (layout, start, grads) = example();
    for optimizer in [ADAMW, LAMB] {
        for decay in [0.0, 0.9] {
            let (mut w, mut m, mut v) = (start.clone(), vec![0.0; start.len()], vec![0.0; start.len()]);
            let (mut ema, mut all) = (w.clone(), vec![w.clone()]);
            for t in 1..=20 {
                let of = State { average: Some((&mut ema, decay)), ..state(&mut w, &grads, &mut m, &mut v) };
                optimizer.step(&layout, of, Update { t, lr: 0.01, grad_scale: 0.37 }).unwrap();
                all.push(w.clone());
            }
            for i in 0..start.len() {
                let past = |t: usize| (1.0 - decay) * decay.powi(20 - t as i32) * f64::from(all[t][i]);
                let want = decay.powi(20) * f64::from(all[0][i]) + (1..=20).map(past).sum::<f64>();
                assert!((f64::from(ema[i]) - want).abs() < 1e-6, "{:?} {i}: {} {want}", optimizer.rule, ema[i]);
            }
        }
    }
}
