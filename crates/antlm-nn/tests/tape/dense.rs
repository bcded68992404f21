//! Tables and products: embedding, param, linear, gather, the output layer with its loss.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn embedding(seed: u64, n in rows(), v in 1usize..40, d in widths()) {
        let mut flat = Flat::new(seed);
        let table = flat.add(v, d, 1.0);
        let ids = flat.below(n, v);
        let y = reference::embedding(&flat.get(table), &ids, d);
        agrees(&mut flat, None, &y, d, |tape| tape.embedding(&ids, table), |dy| {
            vec![wanted(table, reference::embedding_backward(&ids, v, d, dy))]
        })?;
    }

    #[test]
    fn param(seed: u64, n in rows(), d in widths()) {
        let mut flat = Flat::new(seed);
        let x = flat.add(n, d, 1.0);
        let y = flat.get(x);
        agrees(&mut flat, None, &y, d, |tape| tape.param(x), |dy| vec![wanted(x, dy.to_vec())])?;
    }

    #[test]
    fn linear(seed: u64, n in rows(), inner in widths(), out in widths(), biased: bool, residual: bool) {
        let mut flat = Flat::new(seed);
        let (x, w) = (flat.add(n, inner, 1.0), flat.add(out, inner, 1.0));
        let (b, r) = (flat.add(1, out, 1.0), flat.add(n, out, 1.0));
        let (xs, ws, bs) = (flat.get(x), flat.get(w), flat.get(b));
        let mut y = reference::linear(&xs, inner, &ws, biased.then_some(&bs));
        if residual {
            y.iter_mut().zip(flat.get(r)).for_each(|(y, r)| *y += r);
        }
        agrees(&mut flat, None, &y, out, |tape| {
            let x = tape.param(x)?;
            let r = if residual { Some(tape.param(r)?) } else { None };
            tape.linear(x, w, biased.then_some(b), r)
        }, |dy| {
            let (dx, dw, db) = reference::linear_backward(&xs, inner, &ws, dy);
            let mut all = vec![wanted(x, dx), wanted(w, dw)];
            if biased {
                all.push(wanted(b, db));
            }
            if residual {
                all.push(wanted(r, dy.to_vec()));
            }
            all
        })?;
    }

    /// More picked rows than there are: some come several times, others not at all.
    #[test]
    fn gather(seed: u64, n in rows(), m in rows(), d in widths()) {
        let mut flat = Flat::new(seed);
        let x = flat.add(n, d, 1.0);
        let picked = flat.below(m, n);
        let y = reference::embedding(&flat.get(x), &picked, d);
        agrees(&mut flat, None, &y, d, |tape| {
            let x = tape.param(x)?;
            tape.gather(x, &picked)
        }, |dy| vec![wanted(x, reference::embedding_backward(&picked, n, d, dy))])?;
    }

    /// Up to three tiles of 256 rows.
    #[test]
    fn classifier_loss(
        seed: u64, m in prop_oneof![rows(), 255usize..258, 500usize..520], d in widths(), v in widths(), biased: bool,
        z in prop_oneof![Just(0.0f32), Just(1e-4), Just(0.1)],
    ) {
        let mut flat = Flat::new(seed);
        let (x, table, bias) = (flat.add(m, d, 1.0), flat.add(v, d, 3.0 / (d as f64).sqrt()), flat.add(1, v, 1.0));
        let targets = flat.below(m, v);
        let biased = biased.then_some(bias);
        let (xs, es, bs) = (flat.get(x), flat.get(table), biased.map(|b| flat.get(b)));
        let want = reference::classifier_loss(&xs, d, &es, bs.as_deref(), &targets, 0.25, f64::from(z));

        let (mut grads, mut pool) = (vec![0.0; flat.values.len()], Pool::default());
        let mut tape = Tape::new(&flat.values, Some((&mut grads).into()), None, &mut pool).unwrap();
        let act = tape.param(x).unwrap();
        let nll = tape.classifier_loss(act, table, biased, &targets, 0.25, z).unwrap();
        tape.backward().unwrap();
        // Without bias one token has probability 1 and, but for z, no gradient; logits are about 3.
        close("nll", &nll, &want.rows, 1.0)?;
        let least = 0.01;
        close("x", &grads[x.range()], &want.dx, least)?;
        close("table", &grads[table.range()], &want.dtable, least)?;
        let no_bias = vec![0.0; v];
        close("bias", &grads[bias.range()], if biased.is_some() { &want.dbias } else { &no_bias }, least)?;

        // A pass without gradients says the same, bit for bit.
        let mut tape = Tape::new(&flat.values, None, None, &mut pool).unwrap();
        let act = tape.param(x).unwrap();
        prop_assert_eq!(nll, tape.classifier_loss(act, table, biased, &targets, 0.25, z).unwrap());
    }
}
