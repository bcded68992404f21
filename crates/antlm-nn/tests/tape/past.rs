//! Attention over rows that were kept: the same as causal attention over all rows at once, however they are cut.

use super::*;
use antlm_nn::kernels::past::Past;
use antlm_nn::relative::RELATIVE_ROWS;

fn agrees(seed: u64, pieces: &[usize], heads: usize, width: usize, relative: bool) -> Outcome {
    let (n, d): (usize, usize) = (pieces.iter().sum(), heads * width);
    let mut flat = Flat::new(seed);
    let (qkv, positions) = (flat.add(n, 3 * d, 2.0), flat.add(RELATIVE_ROWS, 2 * d, 1.0));
    let scale = 1.0 / ((if relative { 3 } else { 1 } * width) as f32).sqrt();
    let positions = relative.then(|| flat.values[positions.range()].to_vec());
    let wide = positions.as_ref().map(|p| reference::widen(p));
    let slow =
        reference::Attention { d, heads, bounds: &[0, n as u32], causal: true, scale: f64::from(scale), dropout: None };
    let want = slow.forward(&flat.get(qkv), wide.as_deref());

    let (mut past, mut pool) = (Past::new(d, positions).unwrap(), Pool::default());
    for &m in pieces {
        let first = past.rows();
        let mut tape = Tape::new(&flat.values, None, None, &mut pool).unwrap();
        let rows = tape.param(View { offset: qkv.offset + first * 3 * d, rows: m, cols: 3 * d }).unwrap();
        let o = tape.attention_over(rows, heads, scale, &mut past).unwrap();
        close("value", &tape.read(o).unwrap(), &want[first * d..(first + m) * d], largest(&want))?;
    }
    prop_assert_eq!(past.rows(), n);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_pieces(
        seed: u64,
        pieces in prop::collection::vec(prop_oneof![Just(1usize), 2usize..9, 60usize..70], 1..12),
        heads in 1usize..5,
        width in prop::sample::select(vec![2usize, 3, 16, 33, 64]),
        relative: bool,
    ) {
        agrees(seed, &pieces, heads, width, relative)?;
    }
}

/// Past the distance from which on all positions share a bucket (406).
#[test]
fn long() {
    for relative in [false, true] {
        agrees(3, &[1, 300, 1, 1, 200, 1, 1, 1], 2, 10, relative).unwrap();
    }
}

#[test]
fn unfit_operands_are_errors() {
    assert!(Past::new(0, None).is_err() && Past::new(4, Some(vec![0.0; 63 * 4])).is_err());
    let values = vec![0.5; 1000];
    let (mut grads, mut pool) = (vec![0.0; values.len()], Pool::default());
    let view = |cols| View { offset: 0, rows: 2, cols };
    let mut past = Past::new(4, None).unwrap();
    let mut tape = Tape::new(&values, None, None, &mut pool).unwrap();
    for (cols, heads) in [(12, 0), (12, 3), (13, 1), (24, 1)] {
        let x = tape.param(view(cols)).unwrap();
        assert!(tape.attention_over(x, heads, 1.0, &mut past).is_err(), "{cols} {heads}");
    }
    drop(tape);
    let mut tape = Tape::new(&values, Some((&mut grads).into()), None, &mut pool).unwrap();
    let x = tape.param(view(12)).unwrap();
    let error = tape.attention_over(x, 2, 1.0, &mut past).unwrap_err().to_string();
    assert!(error.contains("without gradients"), "{error}");
    assert_eq!(past.rows(), 0);
}
