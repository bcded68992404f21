//! Attention over packed segments and rotary positions.

use super::*;
use antlm_nn::kernels::dropout::HEAD_COLUMNS;
use antlm_nn::kernels::rope::Table;
use antlm_nn::relative::RELATIVE_ROWS;
use antlm_nn::tape::{Attention, Drop};

/// Where segments of these lengths start, and the number of rows at the end.
fn bounds(lengths: &[usize]) -> Arc<[u32]> {
    let ends = lengths.iter().scan(0, |end, &t| {
        *end += t as u32;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    heads: usize,
    width: usize,
    causal: bool,
    relative: bool,
    drops: bool,
}

fn attention_agrees(seed: u64, lengths: &[usize], settings: Settings) -> Outcome {
    let Settings { heads, width, causal, relative, drops } = settings;
    let (bounds, d, first) = (bounds(lengths), heads * width, 4321);
    let n = lengths.iter().sum();
    let mut flat = Flat::new(seed);
    let (qkv, positions) = (flat.add(n, 3 * d, 2.0), flat.add(RELATIVE_ROWS, 2 * d, 1.0));
    let scale = 1.0 / ((if relative { 3 } else { 1 } * width) as f32).sqrt();
    let dropout = dropping(seed).filter(|_| drops);

    // Keys count from the start of their segment, each head has a range of columns, rows count over the whole step.
    let mut start = vec![0; n];
    bounds.windows(2).for_each(|w| start[w[0] as usize..w[1] as usize].fill(w[0] as usize));
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut factors = vec![1.0; n * heads * longest];
    if let Some(dropout) = dropout {
        let site = Site::new(dropout.rng, 2, dropout.step, P).unwrap();
        for (place, factors) in factors.chunks_mut(longest).enumerate() {
            let (row, head) = (place / heads, place % heads);
            site.factors(first + row as u32, HEAD_COLUMNS * head as u32, factors);
        }
    }
    let keep = |i: usize, head: usize, j: usize| factors[(i * heads + head) * longest + j - start[i]] != 0.0;
    let dropped: Option<(&reference::Keep, f64)> = if drops { Some((&keep, P)) } else { None };
    let slow = reference::Attention { d, heads, bounds: &bounds, causal, scale: f64::from(scale), dropout: dropped };
    let (xs, ps) = (flat.get(qkv), flat.get(positions));
    let ps = relative.then_some(&ps[..]);

    let spec = Attention { heads, scale, causal, drop: Some(Drop { site: 2, p: P, rows: Rows::From(first) }) };
    let forward = |tape: &mut Tape| {
        let positions = if relative { Some(tape.param(positions)?) } else { None };
        let qkv = tape.param(qkv)?;
        tape.attention(qkv, positions, &spec, &bounds)
    };
    agrees(&mut flat, dropout, &slow.forward(&xs, ps), d, forward, |dy| {
        let (dqkv, dpositions) = slow.backward(&xs, ps, dy);
        let mut all = vec![Wanted { parts: 3, ..wanted(qkv, dqkv) }];
        if relative {
            all.push(Wanted { parts: 2, ..wanted(positions, dpositions) });
        }
        all
    })
}

/// Many short segments; a few around the tiles of 64 and the groups of 128 rows; one row alone.
fn lengths() -> impl Strategy<Value = Vec<usize>> {
    let middle = prop_oneof![Just(1usize), 60usize..70, 126usize..134];
    prop_oneof![Just(vec![1]), prop::collection::vec(1usize..9, 1..60), prop::collection::vec(middle, 1..4),]
}

fn settings() -> impl Strategy<Value = Settings> {
    let width = prop::sample::select(vec![2usize, 3, 7, 16, 33, 64]);
    (1usize..5, width, any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(heads, width, causal, relative, drops)| Settings { heads, width, causal, relative, drops })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn attention(seed: u64, lengths in lengths(), settings in settings()) {
        attention_agrees(seed, &lengths, settings)?;
    }

    #[test]
    fn rope(seed: u64, lengths in lengths(), heads in 1usize..5, half in prop::sample::select(vec![1usize, 3, 8, 32])) {
        let (bounds, d) = (bounds(&lengths), 2 * half * heads);
        let n = lengths.iter().sum();
        let mut flat = Flat::new(seed);
        let qkv = flat.add(n, 3 * d, 1.0);
        let table = Arc::new(Table::new(lengths.iter().copied().max().unwrap_or(0), 2 * half, 10_000.0));
        let places: Arc<[u32]> = lengths.iter().flat_map(|&t| 0..t as u32).collect();
        let y = reference::rope(&flat.get(qkv), 3 * d, 2 * d, 2 * half, &bounds, 10_000.0);
        agrees(&mut flat, None, &y, 3 * d, |tape| {
            let qkv = tape.param(qkv)?;
            tape.rope(qkv, &table, heads, &places)
        }, |dy| {
            let gradient = reference::rope_backward(dy, 3 * d, 2 * d, 2 * half, &bounds, 10_000.0);
            vec![Wanted { parts: 3, ..wanted(qkv, gradient) }]
        })?;
    }
}

/// Past the distance from which on all positions share a bucket (406), with a short segment on each side.
#[test]
fn long_segments() {
    for (seed, causal, relative, drops) in
        [(1, true, true, false), (2, false, true, true), (3, false, false, true), (4, true, false, false)]
    {
        let settings = Settings { heads: 2, width: 10, causal, relative, drops };
        attention_agrees(seed, &[3, 530, 1], settings).unwrap();
    }
}
