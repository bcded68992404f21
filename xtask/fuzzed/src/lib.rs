//! What the fuzz targets in `fuzz/` call: one function for each kind of file from outside. It gives any bytes to the
//! library's readers and checks what must hold then, besides that nothing panics. The tests of this package give it the
//! seeds and what fuzzing has found (`found/`), so that both are tried without a fuzzer, too.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use antlm::Error;

mod checkpoint;
mod cleaning;
mod evaluation;
mod import;
mod log;
mod recipe;
mod schedule;
mod shard;
mod text;
mod tokenizer;

/// A kind of file.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What the fuzz target is called.
    pub name: &'static str,
    /// Takes any bytes; says whether the library reads them. Panics where something does not hold.
    pub run: fn(&[u8]) -> bool,
    /// Bytes to start from, which the library reads.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All.
pub const TARGETS: [Target; 10] = [
    Target { name: "recipe", run: recipe::run, seeds: recipe::seeds },
    Target { name: "schedule", run: schedule::run, seeds: schedule::seeds },
    Target { name: "shard", run: shard::run, seeds: shard::seeds },
    Target { name: "checkpoint", run: checkpoint::run, seeds: checkpoint::seeds },
    Target { name: "tokenizer", run: tokenizer::run, seeds: tokenizer::seeds },
    Target { name: "import", run: import::run, seeds: import::seeds },
    Target { name: "evaluation", run: evaluation::run, seeds: evaluation::seeds },
    Target { name: "cleaning", run: cleaning::run, seeds: cleaning::seeds },
    Target { name: "text", run: text::run, seeds: text::seeds },
    Target { name: "log", run: log::run, seeds: log::seeds },
];

/// Calls a target by its name; what it says.
///
/// # Panics
/// If there is none of this name, or something does not hold.
pub fn run(name: &str, data: &[u8]) -> bool {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.run)(data)
}

thread_local! {
    static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

/// A file of this thread's own with these bytes; the next call with the same name replaces it.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = place(name);
    std::fs::write(&path, bytes).expect("there is room for a temporary file");
    path
}

/// Where a file or folder of this thread's own may be.
fn place(name: &str) -> PathBuf {
    FOLDER.with(|folder| folder.get_or_init(|| tempfile::tempdir().expect("a temporary folder")).path().join(name))
}

/// An error is one line of a moderate length, in which nothing of the file acts on the terminal.
fn refused(error: &Error) {
    let line = error.to_string();
    assert!(!line.contains(char::is_control), "control characters: {line:?}");
    assert!(line.len() < 4000, "{} bytes: {line}", line.len());
}

/// What a reader gives, if it gives something.
fn read<T>(result: antlm::Result<T>) -> Option<T> {
    result.inspect_err(refused).ok()
}

/// The first byte, which chooses between `of` ways, and the rest.
fn choice(data: &[u8], of: usize) -> Option<(usize, &[u8])> {
    let (&first, rest) = data.split_first()?;
    Some((usize::from(first) % of, rest))
}

/// The parts between zero bytes: so many, the last one with all that is left; those that are not there are empty.
fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = data.splitn(N, |&byte| byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
