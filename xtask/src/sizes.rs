//! The engine stays small, and a file is a room: counts lines.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Lines of the engine without its tests; past it the reason for an engine of our own is gone (ARCHITECTURE.md).
const ENGINE: usize = 6_000;
/// A file longer than this should be two.
const ROOM: usize = 600;

/// Fails when the engine is too large; names files that are too long.
pub fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask"] {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut engine = 0;
    for path in &files {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let short = path.strip_prefix(root).unwrap_or(path);
        let lines = text.lines().count();
        if lines > ROOM {
            println!("{}: {lines} lines; a file of more than {ROOM} should be two", short.display());
        }
        if short.starts_with("crates/antlm-nn/src") && !is_test_file(short) {
            engine += without_tests(&text);
        }
    }
    println!("engine (crates/antlm-nn without tests): {engine} of {ENGINE} lines");
    if engine > ENGINE {
        bail!("the engine has outgrown its limit of {ENGINE} lines");
    }
    Ok(())
}

pub fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
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
