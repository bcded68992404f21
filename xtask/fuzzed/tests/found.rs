//! The seeds of all fuzz targets, and what fuzzing has found (`found/TARGET/NAME`), given to the targets.

use std::path::Path;

use fuzzed::TARGETS;

#[test]
fn seeds_are_read() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(seeds.len() > 1, "{}", target.name);
        for (i, seed) in seeds.into_iter().enumerate() {
            assert!((target.run)(&seed), "seed {i} of {} is not read", target.name);
            // And what is cut short.
            for end in (0..seed.len()).step_by(seed.len() / 12 + 1) {
                (target.run)(&seed[..end]);
            }
        }
    }
}

#[test]
fn what_was_found_holds() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("found").join(target.name);
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "{}", target.name);
        for path in files {
            // The last name is that of what fails.
            eprintln!("{}", path.display());
            (target.run)(&std::fs::read(&path).unwrap());
        }
    }
}
