//! Products in bf16 against the slow sum of rounded operands, and their bits on any number of threads.

use proptest::prelude::*;

use super::*;

fn values(len: usize, seed: u32) -> Vec<f32> {
    (0..len)
        .map(|i| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect()
}

fn on<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    rows: usize,
    cols: usize,
    inner: usize,
    left_transposed: bool,
    right_transposed: bool,
    add: bool,
    /// How much longer than necessary rows are in memory.
    gap: usize,
}

fn agrees(shape: Shape) {
    let Shape { rows: m, cols: n, inner: k, left_transposed, right_transposed, add, gap } = shape;
    let stored = |rows: usize, cols: usize, seed| values(rows * (cols + gap), seed);
    let a = if left_transposed { stored(k, m, 1) } else { stored(m, k, 1) };
    let b = if right_transposed { stored(n, k, 2) } else { stored(k, n, 2) };
    let start = stored(m, n, 3);
    let left = |i: usize, l: usize| if left_transposed { a[l * (m + gap) + i] } else { a[i * (k + gap) + l] };
    let right = |l: usize, j: usize| if right_transposed { b[j * (k + gap) + l] } else { b[l * (n + gap) + j] };
    for way in Way::here() {
        let run = |threads| {
            on(threads, || {
                let mut c = start.clone();
                let am =
                    if left_transposed { Mat::strided(&a, k, m, m + gap).t() } else { Mat::strided(&a, m, k, k + gap) };
                let bm = if right_transposed {
                    Mat::strided(&b, n, k, k + gap).t()
                } else {
                    Mat::strided(&b, k, n, n + gap)
                };
                let into = if add { Into::Add } else { Into::Write };
                product_by(way, MatMut::strided(&mut c, m, n, n + gap), into, am, bm, Threads::All);
                c
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(5), "{way:?} {shape:?}: other bits on other threads");
        for i in 0..m {
            for j in 0..n + gap {
                let (got, before) = (one[i * (n + gap) + j], start[i * (n + gap) + j]);
                if j >= n {
                    assert_eq!(got, before, "{way:?} {shape:?}: ({i}, {j}) lies outside");
                    continue;
                }
                let terms = || (0..k).map(|l| f64::from(round(left(i, l))) * f64::from(round(right(l, j))));
                let before = if add { f64::from(before) } else { 0.0 };
                let want = before + terms().sum::<f64>();
                // Every one of k + 1 additions in f32 is off by at most 2^-24 of a sum that is at most this large.
                let bound = (before.abs() + terms().map(f64::abs).sum::<f64>()) * (k + 2) as f64 * 2f64.powi(-24);
                assert!((f64::from(got) - want).abs() <= bound, "{way:?} {shape:?}: ({i}, {j}) is {got}, not {want}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn equals_the_slow_product_of_rounded_numbers(
        (rows, cols, inner) in (1usize..130, 1usize..200, 0usize..150),
        left_transposed: bool, right_transposed: bool, add: bool, gap in 0usize..3,
    ) {
        agrees(Shape { rows, cols, inner, left_transposed, right_transposed, add, gap });
    }
}

#[test]
fn sizes_around_tiles_panels_blocks_and_tasks() {
    for (rows, cols, inner) in [
        (1, 1, 1),
        (12, 32, 512),
        (13, 33, 513),
        (11, 31, 511),
        (32, 32, 1024),
        (33, 48, 1025),
        (241, 65, 33),
        (600, 17, 1030),
        (257, 32, 2049),
    ] {
        for (left_transposed, right_transposed) in [(false, false), (false, true), (true, false), (true, true)] {
            for add in [false, true] {
                agrees(Shape { rows, cols, inner, left_transposed, right_transposed, add, gap: 0 });
            }
        }
    }
}

#[test]
fn an_entry_has_the_same_bits_whatever_lies_beside_it() {
    let (m, n, k) = (100, 90, 1700);
    let (a, b) = (values(m * k, 1), values(k * n, 2));
    for way in Way::here().filter(|way| *way != Way::F32) {
        for (into, start) in [(Into::Write, 0.0), (Into::Add, 0.3)] {
            let (mut whole, mut part) = (vec![start; m * n], vec![start; 5]);
            let right = Mat::new(&b, k, n);
            product_by(way, MatMut::new(&mut whole, m, n), into, Mat::new(&a, m, k), right, Threads::One);
            let (left, right) = (Mat::new(&a[57 * k..][..k], 1, k), Mat::strided(&b[40..], k, 5, n));
            product_by(way, MatMut::new(&mut part, 1, 5), into, left, right, Threads::One);
            assert_eq!(part, whole[57 * n + 40..][..5], "{way:?}");
        }
    }
}

#[test]
fn what_an_earlier_product_left_is_not_seen() {
    let (a, b, start) = (values(35 * 45, 1), values(45 * 37, 2), values(35 * 37, 3));
    for way in Way::here() {
        for into in [Into::Write, Into::Add] {
            let run = || {
                let mut c = start.clone();
                let (left, right) = (Mat::new(&a, 35, 45), Mat::new(&b, 45, 37));
                product_by(way, MatMut::new(&mut c, 35, 37), into, left, right, Threads::One);
                c
            };
            let clean = run();
            let (nan, mut c) = (vec![f32::NAN; 300 * 300], vec![0.0; 300 * 300]);
            let (left, right) = (Mat::new(&nan, 300, 300), Mat::new(&nan, 300, 300));
            product_by(way, MatMut::new(&mut c, 300, 300), Into::Write, left, right, Threads::One);
            assert!(c.iter().all(|c| c.is_nan()));
            assert_eq!(run(), clean, "{way:?} {into:?}");
        }
    }
}

#[test]
fn rounding_is_to_nearest_even() {
    for (x, want) in [
        (1.0, 1.0),
        (f32::from_bits(0x3f80_8000), 1.0), // half way: to the even one
        (f32::from_bits(0x3f81_8000), f32::from_bits(0x3f82_0000)),
        (f32::from_bits(0x3f80_8001), f32::from_bits(0x3f81_0000)),
        (f32::MAX, f32::INFINITY),
        (f32::NEG_INFINITY, f32::NEG_INFINITY),
    ] {
        assert_eq!(round(x).to_bits(), f32::to_bits(want), "{x:e}");
        assert_eq!(round(-x).to_bits(), f32::to_bits(-want), "-{x:e}");
    }
    assert!(round(f32::NAN).is_nan() && round(f32::from_bits(0x7f80_0001)).is_nan());
}

#[test]
fn what_is_no_number_stays_none() {
    for way in Way::here() {
        for (x, y) in [(f32::NAN, 1.0), (f32::INFINITY, 0.0), (f32::from_bits(0x7f80_0001), 1.0)] {
            let mut c = [0.0];
            let (left, right) = ([x], [y]);
            let (left, right) = (Mat::new(&left, 1, 1), Mat::new(&right, 1, 1));
            product_by(way, MatMut::new(&mut c, 1, 1), Into::Write, left, right, Threads::One);
            assert!(c[0].is_nan(), "{way:?} {x} {y}: {}", c[0]);
        }
        let mut c = [0.0];
        product_by(
            way,
            MatMut::new(&mut c, 1, 1),
            Into::Write,
            Mat::new(&[f32::MAX], 1, 1),
            Mat::new(&[1.0], 1, 1),
            Threads::One,
        );
        assert_eq!(c[0], f32::INFINITY);
    }
}
