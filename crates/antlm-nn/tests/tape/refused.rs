//! Operands that do not fit are errors, and empty ones are served: nothing here may panic.

use super::*;
use antlm_nn::kernels::rope::Table;
use antlm_nn::relative::RELATIVE_ROWS;
use antlm_nn::tape::{Attention, Drop, Norm};

/// A matrix at the start of the buffer.
fn at(rows: usize, cols: usize) -> View {
    View { offset: 0, rows, cols }
}

fn list(numbers: &[u32]) -> Arc<[u32]> {
    Arc::from(numbers)
}

fn attend(tape: &mut Tape, x: Act, heads: usize, bounds: &[u32]) -> antlm_nn::Result<Act> {
    tape.attention(x, None, &Attention { heads, scale: 1.0, causal: false, drop: None }, &list(bounds))
}

fn dropped(rows: Rows) -> Drop {
    Drop { site: 0, p: 0.5, rows }
}

#[test]
fn unfit_operands_are_errors() {
    let values = vec![0.5; 1000];
    let outside = View { offset: 990, rows: 1, cols: 12 };
    let huge = View { offset: 1, rows: usize::MAX / 2, cols: 3 };
    let table = |width| Arc::new(Table::new(4, width, 1e4));
    let positions = |n| (0..n).collect::<Arc<[u32]>>();
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Tape, Act) -> antlm_nn::Result<Act>);
    // The value `x` is [4, 12].
    let cases: [Case; 46] = [
        ("id outside the table", &|t, _| t.embedding(&list(&[0, 5]), at(5, 3))),
        ("table outside the buffer", &|t, _| t.embedding(&list(&[0]), outside)),
        ("huge table", &|t, _| t.embedding(&list(&[0]), huge)),
        ("table without columns", &|t, _| t.embedding(&list(&[]), at(5, 0))),
        ("parameter outside", &|t, _| t.param(outside)),
        ("parameter without rows", &|t, _| t.param(at(0, 3))),
        ("weight of another width", &|t, x| t.linear(x, at(3, 11), None, None)),
        ("weight outside", &|t, x| t.linear(x, outside, None, None)),
        ("weight without rows", &|t, x| t.linear(x, at(0, 12), None, None)),
        ("bias of another length", &|t, x| t.linear(x, at(3, 12), Some(at(1, 4)), None)),
        ("bias outside", &|t, x| t.linear(x, at(12, 12), Some(outside), None)),
        ("residual of another width", &|t, x| t.linear(x, at(3, 12), None, Some(x))),
        ("γ of another length", &|t, x| {
            t.layer_norm(x, &Norm { affine: Some((at(1, 11), at(1, 12))), ..Norm::default() })
        }),
        ("β outside", &|t, x| t.layer_norm(x, &Norm { affine: Some((at(1, 12), outside)), ..Norm::default() })),
        ("norm's residual", &|t, x| {
            let residual = Some(t.param(at(3, 12))?);
            t.layer_norm(x, &Norm { residual, ..Norm::default() })
        }),
        ("norm's dropped rows", &|t, x| {
            t.layer_norm(x, &Norm { drop: Some(dropped(Rows::Picked(0, list(&[1, 2, 3])))), ..Norm::default() })
        }),
        ("rms weight of another length", &|t, x| t.rms_norm(x, at(1, 13), 1e-6)),
        ("rms weight outside", &|t, x| t.rms_norm(x, outside, 1e-6)),
        ("too few positions", &|t, x| t.rope(x, &table(4), 1, &positions(3))),
        ("no heads", &|t, x| t.rope(x, &table(4), 0, &positions(4))),
        ("odd heads", &|t, x| t.rope(x, &table(4), 4, &positions(4))),
        ("table for wider heads", &|t, x| t.rope(x, &table(6), 1, &positions(4))),
        ("table for narrower heads", &|t, x| t.rope(x, &table(2), 1, &positions(4))),
        ("empty table", &|t, x| t.rope(x, &table(0), 1, &positions(4))),
        ("position outside the table", &|t, x| t.rope(x, &table(4), 1, &list(&[0, 1, 2, 4]))),
        ("rope of a value that others use", &|t, x| {
            t.gelu(x)?;
            t.rope(x, &table(4), 1, &positions(4))
        }),
        ("a value that rope took", &|t, x| {
            t.rope(x, &table(4), 1, &positions(4))?;
            t.gelu(x)
        }),
        ("no heads in attention", &|t, x| attend(t, x, 0, &[0, 4])),
        ("heads that do not divide", &|t, x| attend(t, x, 3, &[0, 4])),
        ("qkv not in three parts", &|t, x| {
            let x = t.linear(x, at(13, 12), None, None)?;
            attend(t, x, 1, &[0, 4])
        }),
        ("no bounds", &|t, x| attend(t, x, 2, &[])),
        ("one bound", &|t, x| attend(t, x, 2, &[0])),
        ("bounds not from 0", &|t, x| attend(t, x, 2, &[1, 4])),
        ("bounds that end early", &|t, x| attend(t, x, 2, &[0, 3])),
        ("bounds that end late", &|t, x| attend(t, x, 2, &[0, 5])),
        ("empty segment", &|t, x| attend(t, x, 2, &[0, 2, 2, 4])),
        ("falling bounds", &|t, x| attend(t, x, 2, &[0, 3, 2, 4])),
        ("positions of another shape", &|t, x| {
            let positions = Some(t.param(at(RELATIVE_ROWS - 1, 8))?);
            t.attention(x, positions, &Attention { heads: 2, scale: 1.0, causal: true, drop: None }, &list(&[0, 4]))
        }),
        ("attention's dropped rows", &|t, x| {
            let drop = Some(dropped(Rows::Shared));
            t.attention(x, None, &Attention { heads: 2, scale: 1.0, causal: true, drop }, &list(&[0, 4]))
        }),
        ("geglu of an odd width", &|t, x| {
            let x = t.linear(x, at(3, 12), None, None)?;
            t.geglu_norm(x, 1e-6)
        }),
        ("swiglu of an odd width", &|t, x| {
            let x = t.linear(x, at(3, 12), None, None)?;
            t.swiglu(x)
        }),
        ("dropped rows", &|t, x| t.dropout(x, &dropped(Rows::Picked(0, list(&[0]))), None)),
        ("dropout's residual", &|t, x| {
            let residual = Some(t.param(at(4, 11))?);
            t.dropout(x, &dropped(Rows::Shared), residual)
        }),
        ("row outside", &|t, x| t.gather(x, &list(&[0, 4]))),
        ("target outside", &|t, x| t.classifier_loss(x, at(7, 12), None, &[0, 1, 2, 7], 1.0, 0.0).map(|_| x)),
        ("table and bias overlap", &|t, x| {
            t.classifier_loss(x, at(7, 12), Some(at(1, 7)), &[0; 4], 1.0, 0.0).map(|_| x)
        }),
    ];
    for (name, case) in cases {
        let (mut grads, mut pool) = (vec![0.0; values.len()], Pool::default());
        let mut tape = Tape::new(&values, Some((&mut grads).into()), dropping(1), &mut pool).unwrap();
        let x = tape.param(at(4, 12)).unwrap();
        let error = case(&mut tape, x).expect_err(name).to_string();
        assert!(!error.contains('\n') && error.contains(": "), "{name}: {error}");
    }
    let mut pool = Pool::default();
    let mut tape = Tape::new(&values, None, None, &mut pool).unwrap();
    let x = tape.param(at(4, 12)).unwrap();
    assert!(tape.classifier_loss(x, at(7, 11), None, &[0; 4], 1.0, 0.0).is_err());
    assert!(tape.classifier_loss(x, at(7, 12), None, &[0; 3], 1.0, 0.0).is_err());
    assert!(tape.classifier_loss(x, at(7, 12), Some(at(1, 8)), &[0; 4], 1.0, 0.0).is_err());
    assert!(Tape::new(&values, Some((&mut [0.0; 3][..]).into()), None, &mut Pool::default()).is_err());
}

/// A batch without rows, and one without targets, go through everything and leave gradients of 0.
#[test]
fn nothing_in_nothing_out() {
    let values = vec![0.5; 2000];
    let (mut grads, mut pool) = (vec![0.0; values.len()], Pool::default());
    for bounds in [&[][..], &[0][..]] {
        let mut t = Tape::new(&values, Some((&mut grads).into()), dropping(1), &mut pool).unwrap();
        let none = list(&[]);
        let x = t.embedding(&none, at(5, 12)).unwrap();
        let drop = Some(dropped(Rows::From(0)));
        let norm = Norm { eps: 1e-6, affine: Some((at(1, 12), at(1, 12))), drop: drop.clone(), residual: Some(x) };
        let x = t.layer_norm(x, &norm).unwrap();
        let x = t.rms_norm(x, at(1, 12), 1e-6).unwrap();
        let x = t.linear(x, at(24, 12), Some(at(1, 24)), None).unwrap();
        let x = t.rope(x, &Arc::new(Table::new(0, 4, 1e4)), 2, &none).unwrap();
        let positions = t.param(at(RELATIVE_ROWS, 16)).unwrap();
        let spec = Attention { heads: 2, scale: 1.0, causal: true, drop };
        let x = t.attention(x, Some(positions), &spec, &list(bounds)).unwrap();
        let x = t.geglu_norm(x, 1e-6).unwrap();
        let x = t.swiglu(x).unwrap();
        let x = t.gelu(x).unwrap();
        let x = t.dropout(x, &dropped(Rows::Picked(0, none.clone())), Some(x)).unwrap();
        let x = t.gather(x, &none).unwrap();
        let bias = View { offset: 1000, rows: 1, cols: 9 };
        assert!(t.classifier_loss(x, at(9, 2), Some(bias), &[], 1.0, 0.0).unwrap().is_empty());
        t.backward().unwrap();
    }
    assert!(grads.iter().all(|g| *g == 0.0));
}

/// Numbers that are not: the loss says so, and nothing panics.
#[test]
fn not_a_number_in_not_a_number_out() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
        let mut values = vec![0.5; 1000];
        values[13] = bad;
        let (mut grads, mut pool) = (vec![0.0; values.len()], Pool::default());
        let mut tape = Tape::new(&values, Some((&mut grads).into()), None, &mut pool).unwrap();
        let x = tape.param(at(4, 12)).unwrap();
        let y = attend(&mut tape, x, 2, &[0, 1, 4]).unwrap();
        let nll = tape.classifier_loss(y, View { offset: 100, rows: 7, cols: 4 }, None, &[0; 4], 1.0, 0.0).unwrap();
        tape.backward().unwrap();
        assert!(bad.is_finite() || nll.iter().any(|x| x.is_nan()), "{bad}: {nll:?}");
    }
}
