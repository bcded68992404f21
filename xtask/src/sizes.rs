//! The engine and its kernels for CUDA stay small, and a file is a room: counts lines.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Lines of the engine without its tests; past it the reason for an engine of our own is gone (ARCHITECTURE.md).
const ENGINE: usize = 6_000;
/// Lines of the kernels for CUDA with their emulation.
const CUDA: usize = 2_500;
/// Lines of the engine's part that speaks to cards: a second implementation of what the engine is, and counted apart.
const CARDS: usize = 2_200;
/// A file longer than this should be two.
const ROOM: usize = 600;

/// Fails when the engine is too large; names files that are too long.
pub fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask"] {
        collect(&root.join(folder), &mut files)?;
    }
    collect_kind(&root.join("crates/antlm-nn/cuda"), &["cu", "cuh", "hpp", "cpp"], &mut files)?;
    files.sort();
    let (mut engine, mut cuda, mut cards) = (0, 0, 0);
    for path in &files {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let short = path.strip_prefix(root).unwrap_or(path);
        let lines = text.lines().count();
        if lines > ROOM {
            println!("{}: {lines} lines; a file of more than {ROOM} should be two", short.display());
        }
        if short.starts_with("crates/antlm-nn/src") && !is_test_file(short) {
            let part = if is_of_cards(short) { &mut cards } else { &mut engine };
            *part += without_tests(&text);
        }
        if short.starts_with("crates/antlm-nn/cuda") {
            cuda += lines;
        }
    }
    println!("engine (crates/antlm-nn without cards and tests): {engine} of {ENGINE} lines");
    println!("cards (crates/antlm-nn/src/device/cuda without tests): {cards} of {CARDS} lines");
    println!("kernels for CUDA (crates/antlm-nn/cuda): {cuda} of {CUDA} lines");
    if cuda > CUDA {
        bail!("the kernels for CUDA have outgrown their limit of {CUDA} lines");
    }
    if cards > CARDS {
        bail!("what speaks to cards has outgrown its limit of {CARDS} lines");
    }
    if engine > ENGINE {
        bail!("the engine has outgrown its limit of {ENGINE} lines");
    }
    Ok(())
}

/// What only a build or a machine with a card runs.
fn is_of_cards(path: &Path) -> bool {
    ["src/device/cuda", "src/cuda"].iter().any(|part| path.starts_with(Path::new("crates/antlm-nn").join(part)))
}

/// The Rust files below a folder.
pub fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    collect_kind(folder, &["rs"], files)
}

/// The files below a folder that have one of these extensions.
fn collect_kind(folder: &Path, kinds: &[&str], files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect_kind(&path, kinds, files)?;
        } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| kinds.contains(&e)) {
            files.push(path);
        }
    }
    Ok(())
}

/// `tests.rs`, `…_tests.rs` and everything in a folder `tests`.
pub fn is_test_file(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem == "tests" || stem.ends_with("_tests") || path.components().any(|c| c.as_os_str() == "tests")
}

/// Lines before the file's test module, which is its last item by our habit.
fn without_tests(text: &str) -> usize {
    text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count() {
        assert_eq!(without_tests("a\nb\n#[cfg(test)]\nmod tests {}\n"), 2);
        assert!(is_test_file(Path::new("crates/antlm-nn/src/ops/tests.rs")));
        assert!(is_test_file(Path::new("crates/antlm/src/train/checkpoint_tests.rs")));
        assert!(!is_test_file(Path::new("crates/antlm-nn/src/params.rs")));
    }
}
