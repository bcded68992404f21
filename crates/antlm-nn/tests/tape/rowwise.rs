//! What happens within a row: norms, activations, dropout.

use super::*;
use antlm_nn::tape::{Drop, Norm};

/// The three ways of counting the rows of a step.
fn counted(flat: &Flat, kind: u8, n: usize) -> Rows {
    match kind {
        0 => Rows::Shared,
        1 => Rows::From(1000),
        _ => Rows::Picked(70, flat.below(n, 500)),
    }
}

/// Widths of norms. In rows of two to six values some are nearly equal by chance: their norm divides by almost nothing,
/// so rounding is large there for any way to compute it. (One value is exact again for a layer norm: 0.)
fn norm_widths() -> impl Strategy<Value = usize> {
    widths().prop_map(|d| d.max(7))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn layer_norm(seed: u64, n in rows(), d in prop_oneof![Just(1), norm_widths()], affine: bool, drops: bool, residual: bool, kind in 0u8..3) {
        let mut flat = Flat::new(seed);
        let (x, r) = (flat.add(n, d, 2.0), flat.add(n, d, 1.0));
        let (gamma, beta) = flat.affine(d);
        let rows = counted(&flat, kind, n);
        let dropout = dropping(seed).filter(|_| drops);
        let keep = dropout.map(|dropout| kept(dropout, 3, &rows, n, d));
        let eps = 1e-6f32;
        let (xs, gs, bs) = (flat.get(x), flat.get(gamma), flat.get(beta));
        let vectors = affine.then_some((&gs[..], &bs[..]));
        let mut y = reference::layer_norm(&xs, d, f64::from(eps), vectors);
        if let Some(keep) = &keep {
            y = reference::dropout(&y, keep, P);
        }
        if residual {
            y.iter_mut().zip(flat.get(r)).for_each(|(y, r)| *y += r);
        }
        agrees(&mut flat, dropout, &y, d, |tape| {
            let x = tape.param(x)?;
            let residual = if residual { Some(tape.param(r)?) } else { None };
            let drop = Some(Drop { site: 3, p: P, rows: rows.clone() });
            tape.layer_norm(x, &Norm { eps, affine: affine.then_some((gamma, beta)), drop, residual })
        }, |dy| {
            let inner = match &keep {
                Some(keep) => reference::dropout_backward(keep, P, dy),
                None => dy.to_vec(),
            };
            let (dx, dgamma, dbeta) = reference::layer_norm_backward(&xs, d, f64::from(eps), vectors, &inner);
            let mut all = vec![wanted(x, dx)];
            if affine {
                all.extend([wanted(gamma, dgamma), wanted(beta, dbeta)]);
            }
            if residual {
                all.push(wanted(r, dy.to_vec()));
            }
            all
        })?;
    }

    #[test]
    fn rms_norm(seed: u64, n in rows(), d in norm_widths()) {
        let mut flat = Flat::new(seed);
        let (x, (w, _)) = (flat.add(n, d, 2.0), flat.affine(d));
        let eps = 1e-6f32;
        let (xs, ws) = (flat.get(x), flat.get(w));
        let y = reference::rms_norm(&xs, d, f64::from(eps), &ws);
        agrees(&mut flat, None, &y, d, |tape| {
            let x = tape.param(x)?;
            tape.rms_norm(x, w, eps)
        }, |dy| {
            let (dx, dw) = reference::rms_norm_backward(&xs, d, f64::from(eps), &ws, dy);
            vec![wanted(x, dx), wanted(w, dw)]
        })?;
    }

    #[test]
    fn geglu_norm(seed: u64, n in rows(), width in prop_oneof![Just(1), norm_widths()]) {
        let mut flat = Flat::new(seed);
        let x = flat.add(n, 2 * width, 3.0);
        let eps = 1e-6f32;
        let xs = flat.get(x);
        let y = reference::geglu(&xs, width, f64::from(eps));
        agrees(&mut flat, None, &y, width, |tape| {
            let x = tape.param(x)?;
            tape.geglu_norm(x, eps)
        }, |dy| vec![wanted(x, reference::geglu_backward(&xs, width, f64::from(eps), dy))])?;
    }

    #[test]
    fn swiglu(seed: u64, n in rows(), width in widths()) {
        let mut flat = Flat::new(seed);
        let x = flat.add(n, 2 * width, 4.0);
        let xs = flat.get(x);
        let y = reference::swiglu(&xs, width);
        // Logits err in proportion to y, so the gradient of y does, and that is multiplied by gate and up.
        let gain = largest(&y).max(1.0) * largest(&xs).max(1.0);
        agrees(&mut flat, None, &y, width, |tape| {
            let x = tape.param(x)?;
            tape.swiglu(x)
        }, |dy| vec![Wanted { gain, ..wanted(x, reference::swiglu_backward(&xs, width, dy)) }])?;
    }

    #[test]
    fn gelu(seed: u64, n in rows(), d in widths()) {
        let mut flat = Flat::new(seed);
        let x = flat.add(n, d, 5.0);
        let xs = flat.get(x);
        let y = reference::gelu(&xs);
        agrees(&mut flat, None, &y, d, |tape| {
            let x = tape.param(x)?;
            tape.gelu(x)
        }, |dy| vec![wanted(x, reference::gelu_backward(&xs, dy))])?;
    }

    #[test]
    fn dropout(seed: u64, n in rows(), d in widths(), drops: bool, residual: bool, kind in 0u8..3) {
        let mut flat = Flat::new(seed);
        let (x, r) = (flat.add(n, d, 1.0), flat.add(n, d, 1.0));
        let rows = counted(&flat, kind, n);
        let dropout = dropping(seed).filter(|_| drops);
        let keep = dropout.map_or(vec![true; n * d], |dropout| kept(dropout, 9, &rows, n, d));
        let p = if drops { P } else { 0.0 };
        let mut y = reference::dropout(&flat.get(x), &keep, p);
        if residual {
            y.iter_mut().zip(flat.get(r)).for_each(|(y, r)| *y += r);
        }
        agrees(&mut flat, dropout, &y, d, |tape| {
            let x = tape.param(x)?;
            let residual = if residual { Some(tape.param(r)?) } else { None };
            tape.dropout(x, &Drop { site: 9, p: P, rows: rows.clone() }, residual)
        }, |dy| {
            let mut all = vec![wanted(x, reference::dropout_backward(&keep, p, dy))];
            if residual {
                all.push(wanted(r, dy.to_vec()));
            }
            all
        })?;
    }
}

/// Large arguments: saturated, not NaN.
#[test]
fn activations_far_out() {
    let far = [-1e30f32, -300.0, -87.5, -20.0, -6.0, 0.0, 6.0, 20.0, 87.5, 300.0, 1e30];
    let mut grads = vec![0.0; far.len()];
    let mut pool = Pool::default();
    let mut tape = Tape::new(&far[..], Some((&mut grads).into()), None, &mut pool).unwrap();
    let x = tape.param(View { offset: 0, rows: 1, cols: far.len() }).unwrap();
    let y = tape.gelu(x).unwrap();
    close("gelu", &tape.read(y).unwrap(), &reference::gelu(&reference::widen(&far)), 0.0).unwrap();
    tape.backward().unwrap();
    assert_eq!(grads, [0.0; 11], "without a loss there is no gradient");
    // [gate|up] = [x, x]: both halves of one row.
    let pairs: Vec<f32> = far.iter().flat_map(|&x| [x, 1.0]).collect();
    let mut tape = Tape::new(&pairs, None, None, &mut pool).unwrap();
    let x = tape.param(View { offset: 0, rows: far.len(), cols: 2 }).unwrap();
    let y = tape.swiglu(x).unwrap();
    close("swiglu", &tape.read(y).unwrap(), &reference::swiglu(&reference::widen(&pairs), 1), 0.0).unwrap();
}
