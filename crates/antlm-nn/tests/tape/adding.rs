//! Gradients add: over uses of a value, over uses of a parameter, over tapes.

use super::*;
use antlm_nn::tape::{Attention, Norm};

const N: usize = 70;
const D: usize = 12;

type Operation = fn(&mut Tape, Act, View) -> antlm_nn::Result<Act>;

/// Every operation with a value as operand, also as its residual. `View` is a square matrix; results are `D` wide, or
/// are brought to it.
const OPERATIONS: [(&str, Operation); 11] = [
    ("linear", |tape, x, w| tape.linear(x, w, None, None)),
    ("linear and residual", |tape, x, w| tape.linear(x, w, None, Some(x))),
    ("layer norm", |tape, x, _| tape.layer_norm(x, &Norm { eps: 1e-6, ..Norm::default() })),
    ("layer norm and residual", |tape, x, _| {
        tape.layer_norm(x, &Norm { eps: 1e-6, residual: Some(x), ..Norm::default() })
    }),
    ("rms norm", |tape, x, w| tape.rms_norm(x, View { rows: 1, ..w }, 1e-6)),
    ("gelu", |tape, x, _| tape.gelu(x)),
    ("geglu norm", |tape, x, _| tape.geglu_norm(x, 1e-6)),
    ("swiglu", |tape, x, _| tape.swiglu(x)),
    ("dropout and residual", |tape, x, _| {
        let drop = antlm_nn::tape::Drop { site: 1, p: P, rows: Rows::From(0) };
        tape.dropout(x, &drop, Some(x))
    }),
    ("gather", |tape, x, _| tape.gather(x, &(0..N as u32).map(|r| (r * 3) % N as u32 / 2 * 2).collect())),
    ("attention", |tape, x, _| {
        let spec = Attention { heads: 2, scale: 0.7, causal: true, drop: None };
        tape.attention(x, None, &spec, &Arc::from([0, 3, N as u32]))
    }),
];

/// The flat gradient when one value goes through these operations, each with a loss of its own.
fn gradient(flat: &Flat, x: View, w: View, tables: &[View], operations: &[(&str, Operation)]) -> Vec<f64> {
    let (mut grads, mut pool) = (vec![0.0; flat.values.len()], Pool::default());
    let targets = flat.below(N, VOCAB);
    let mut tape = Tape::new(&flat.values, Some((&mut grads).into()), dropping(1), &mut pool).unwrap();
    let x = tape.param(x).unwrap();
    for (name, operation) in operations {
        let y = operation(&mut tape, x, w).unwrap_or_else(|e| panic!("{name}: {e}"));
        let table = *tables.iter().find(|table| table.cols == y.cols).unwrap();
        tape.classifier_loss(y, table, None, &targets, 1.0, 0.0).unwrap();
    }
    tape.backward().unwrap();
    reference::widen(&grads)
}

fn sum(gradients: impl Iterator<Item = Vec<f64>>) -> Vec<f64> {
    gradients.reduce(|a, b| a.iter().zip(b).map(|(a, b)| a + b).collect()).unwrap()
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

#[test]
fn a_value_used_by_every_operation_gets_all_their_gradients() {
    let mut flat = Flat::new(3);
    let (x, w) = (flat.add(N, D, 1.0), flat.add(D, D, 0.5));
    let tables = [D, D / 2, D / 3].map(|cols| flat.add(VOCAB, cols, 0.5));
    let apart = sum(OPERATIONS.iter().map(|operation| gradient(&flat, x, w, &tables, &[*operation])));
    // In both orders, so that each operation is the first to write the gradient once, and adds to it otherwise.
    let mut turned = OPERATIONS;
    turned.reverse();
    for operations in [OPERATIONS, turned] {
        let together = gradient(&flat, x, w, &tables, &operations);
        close("all", &narrow(&together), &apart, 0.0).unwrap();
    }
    for first in OPERATIONS {
        for second in OPERATIONS {
            let together = gradient(&flat, x, w, &tables, &[first, second]);
            let apart = sum([first, second].iter().map(|operation| gradient(&flat, x, w, &tables, &[*operation])));
            close(&format!("{} then {}", first.0, second.0), &narrow(&together), &apart, 0.0).unwrap();
        }
    }
}

/// One matrix as embedding, as value, as weight and in the output layer; one vector as bias, γ and β.
#[test]
fn a_parameter_used_everywhere_gets_all_gradients() {
    let mut flat = Flat::new(4);
    let (e, v) = (flat.add(D, D, 1.0), flat.add(1, D, 1.0));
    let ids = flat.below(D, D);
    let (es, vs) = (flat.get(e), flat.get(v));

    let (mut grads, mut pool) = (vec![0.0; flat.values.len()], Pool::default());
    let mut tape = Tape::new(&flat.values, Some((&mut grads).into()), None, &mut pool).unwrap();
    let a = tape.embedding(&ids, e).unwrap();
    let b = tape.param(e).unwrap();
    let c = tape.linear(a, e, Some(v), Some(b)).unwrap();
    let y = tape.layer_norm(c, &Norm { eps: 1e-6, affine: Some((v, v)), ..Norm::default() }).unwrap();
    tape.classifier_loss(y, e, Some(v), &ids, 1.0, 0.0).unwrap();
    tape.backward().unwrap();

    let a = reference::embedding(&es, &ids, D);
    let c: Vec<f64> = reference::linear(&a, D, &es, Some(&vs)).iter().zip(&es).map(|(y, r)| y + r).collect();
    let y = reference::layer_norm(&c, D, f64::from(1e-6f32), Some((&vs, &vs)));
    let loss = reference::classifier_loss(&y, D, &es, Some(&vs), &ids, 1.0, 0.0);
    let (dc, dgamma, dbeta) = reference::layer_norm_backward(&c, D, f64::from(1e-6f32), Some((&vs, &vs)), &loss.dx);
    let (da, dw, dbias) = reference::linear_backward(&a, D, &es, &dc);
    let de = sum([loss.dtable, dc, dw, reference::embedding_backward(&ids, D, D, &da)].into_iter());
    close("matrix", &grads[e.range()], &de, 0.0).unwrap();
    close("vector", &grads[v.range()], &sum([loss.dbias, dgamma, dbeta, dbias].into_iter()), 0.0).unwrap();
}

#[test]
fn a_second_tape_adds_to_what_is_there() {
    let mut flat = Flat::new(5);
    let (x, w, bias) = (flat.add(N, D, 1.0), flat.add(D, D, 1.0), flat.add(1, D, 1.0));
    let (gamma, beta) = flat.affine(D);
    let targets = flat.below(N, D);
    let mut pool = Pool::default();
    let mut pass = |grads: &mut [f32]| {
        let mut tape = Tape::new(&flat.values, Some(grads.into()), None, &mut pool).unwrap();
        let x = tape.param(x).unwrap();
        let y = tape.linear(x, w, Some(bias), Some(x)).unwrap();
        let y = tape.layer_norm(y, &Norm { eps: 1e-6, affine: Some((gamma, beta)), ..Norm::default() }).unwrap();
        let y = tape.rms_norm(y, gamma, 1e-6).unwrap();
        tape.classifier_loss(y, w, Some(bias), &targets, 1.0, 0.0).unwrap();
        tape.backward().unwrap();
    };
    let mut once = vec![0.0; flat.values.len()];
    pass(&mut once);
    let start: Vec<f32> = (0..once.len()).map(|i| (i % 7) as f32 - 3.0).collect();
    let mut twice = start.clone();
    pass(&mut twice);
    pass(&mut twice);
    let want: Vec<f64> = start.iter().zip(&once).map(|(s, g)| f64::from(*s) + 2.0 * f64::from(*g)).collect();
    close("twice", &twice, &want, 0.0).unwrap();
    assert!(once.iter().all(|g| *g != 0.0));
}

/// A pool that was used gives buffers with old numbers in them; no result may depend on them.
#[test]
fn old_buffers_leave_no_trace() {
    let mut flat = Flat::new(6);
    let (x, w) = (flat.add(N, D, 1.0), flat.add(D, D, 0.5));
    let tables = [D, D / 2, D / 3].map(|cols| flat.add(VOCAB, cols, 0.5));
    let targets = flat.below(N, VOCAB);
    let poison = vec![f32::NAN; flat.values.len()];
    for (name, operation) in OPERATIONS {
        let mut pool = Pool::default();
        let mut pass = |values: &[f32]| {
            let mut grads = vec![0.0; values.len()];
            let mut tape = Tape::new(values, Some((&mut grads).into()), dropping(1), &mut pool).unwrap();
            let x = tape.param(x).unwrap();
            let y = operation(&mut tape, x, w).unwrap();
            let table = *tables.iter().find(|table| table.cols == y.cols).unwrap();
            tape.classifier_loss(y, table, None, &targets, 1.0, 0.0).unwrap();
            tape.backward().unwrap();
            grads.iter().map(|g| g.to_bits()).collect::<Vec<u32>>()
        };
        let fresh = pass(&flat.values);
        pass(&poison);
        assert!(fresh == pass(&flat.values), "{name}");
    }
}

/// Gradients that replace the buffer's content equal those added to zeros, whatever was there, also where operations share
/// a parameter, have no rows, or use none of it.
#[test]
fn fresh_gradients_need_no_clearing() {
    let mut flat = Flat::new(7);
    let (x, w, v, unused) = (flat.add(N, D, 1.0), flat.add(D, D, 0.5), flat.add(1, D, 1.0), flat.add(3, D, 1.0));
    let (tables, lone) = ([D, D / 2, D / 3].map(|cols| flat.add(VOCAB, cols, 0.5)), flat.add(D, D, 0.5));
    let (targets, ids) = (flat.below(N, VOCAB), flat.below(N, D));
    let mut pool = Pool::default();
    let mut all: Vec<Vec<(&str, Operation)>> = OPERATIONS.iter().map(|operation| vec![*operation]).collect();
    all.push(OPERATIONS.to_vec());
    for rows in [N, 0] {
        for operations in &all {
            let mut pass = |start: f32, fresh: bool| {
                let mut grads = vec![start; flat.values.len()];
                let tape = Tape::new(&flat.values, Some((&mut grads).into()), dropping(1), &mut pool).unwrap();
                let mut tape = if fresh { tape.with_fresh_gradients() } else { tape };
                let picked: Arc<[u32]> = (0..rows as u32).collect();
                let all = tape.param(x).unwrap();
                let among = tape.embedding(&ids, w).unwrap();
                let mixed = tape.linear(among, w, Some(v), Some(all)).unwrap();
                let few = tape.gather(all, &picked).unwrap();
                let few = tape.linear(few, lone, None, None).unwrap();
                tape.classifier_loss(few, tables[0], None, &targets[..rows], 1.0, 0.0).unwrap();
                for (_, operation) in operations {
                    let y = operation(&mut tape, mixed, w).unwrap();
                    let table = *tables.iter().find(|table| table.cols == y.cols).unwrap();
                    let y = tape.gather(y, &picked).unwrap();
                    tape.classifier_loss(y, table, None, &targets[..rows], 1.0, 0.0).unwrap();
                }
                tape.backward().unwrap();
                grads
            };
            let (added, fresh) = (pass(0.0, false), pass(f32::NAN, true));
            assert!(added == fresh && (rows == 0 || fresh[w.range()].iter().all(|g| *g != 0.0)), "{}", operations[0].0);
            assert!(fresh[unused.range()].iter().all(|g| *g == 0.0));
            assert!(fresh[lone.range()].iter().all(|g| (*g == 0.0) == (rows == 0)));
        }
    }
}
