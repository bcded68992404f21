//! The emulated card itself: that mistakes are noticed.

use std::fs;
use std::path::Path;

use super::card::{Card, Compiled, Grid, grid};
use super::random;
use crate::arguments;

#[test]
fn threads_that_go_apart_are_an_error() {
    for compiled in [Compiled::Plain, Compiled::Sanitized] {
        let mut card = Card::emulated(compiled, 1);
        let out = card.room::<f32>(64);
        for (kernel, threads, words) in [
            ("probe_leaves_early", 64, ["that not all threads reach", "1 of 64 have ended"]),
            ("probe_two_places", 64, ["meet at different places", "probes.cu:"]),
            ("probe_half_a_warp", 32, ["that not all threads reach", "16 of 32 have ended"]),
        ] {
            let error = card.try_launch(kernel, grid(1, 1, threads), &arguments![&out]).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        // And the card goes on.
        let x = card.put(&random(1, 64, 1.0));
        let out = card.room::<f32>(5 * 64);
        card.launch("probe_exchanges", grid(1, 1, 64), arguments![&x, 1u32, 1u32, &out]);
    }
}

#[test]
fn wrong_launches_are_errors() {
    let mut card = Card::emulated(Compiled::Plain, 1);
    let out = card.room::<f32>(64);
    for (name, grid, arguments, word) in [
        ("probe", grid(1, 1, 64), arguments![&out], "no such kernel"),
        ("probe_two_places", grid(0, 1, 64), arguments![&out], "no such grid"),
        ("probe_two_places", grid(1, 1, 32), arguments![&out], "blocks have 64 threads"),
        ("probe_two_places", grid(1, 1, 64), arguments![1u32], "other arguments"),
        (
            "probe_no_wait",
            Grid { shared: 512, ..grid(1, 1, 32) },
            arguments![out.address() + 4],
            "not aligned to 16 bytes",
        ),
        ("probe_no_wait", Grid { shared: 512, ..grid(1, 1, 32) }, arguments![&out], "before its copies were done"),
    ] {
        let error = card.try_launch(name, grid, &arguments).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_missing_barrier_shows() {
    // Some thread reads before its neighbour has written, in some order: then there is still NaN.
    let mut card = Card::emulated(Compiled::Plain, 1);
    let seen = (0..8).any(|_| {
        let out = card.room(64);
        card.launch("probe_no_barrier", grid(1, 1, 64), arguments![&out]);
        card.get::<f32>(&out).iter().any(|x| x.is_nan())
    });
    assert!(seen);
}

#[test]
fn what_lies_outside_is_seen() {
    for which in 0..3u32 {
        let mut card = Card::emulated(Compiled::Sanitized, 1);
        let (x, out) = (card.put(&random(1, 32, 1.0)), card.room::<f32>(32));
        let grid = Grid { shared: 128, ..grid(1, 1, 32) };
        let error = card.try_launch("probe_outside", grid, &arguments![which, &x, &out]).unwrap_err();
        assert!(error.contains("heap-buffer-overflow") && error.contains("probe_outside"), "{error}");
    }
}

/// A kernel that no test launches would go unseen.
#[test]
fn every_kernel_is_in_the_program_and_in_a_test() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |folder: &str, extension: &str| -> Vec<(String, String)> {
        let files = fs::read_dir(package.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|other| other == extension));
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        files.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
    };
    let tests: String = read("tests/cuda", "rs").into_iter().map(|(_, text)| text).collect();
    let program = fs::read_to_string(package.join("cuda/emulate.cpp")).unwrap();
    let mut count = 0;
    for (file, text) in read("cuda", "cu") {
        assert!(program.contains(&format!("#include \"{file}\"")), "emulate.cpp has no {file}");
        for kernel in text.split("\nKERNEL(").skip(1) {
            let name = kernel.split(',').nth(1).unwrap().trim();
            assert!(tests.contains(&format!("\"{name}\"")), "no test launches {name}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}
