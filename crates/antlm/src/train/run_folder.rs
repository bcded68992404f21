//! The folder of a run: made once, locked while a process trains into it, its small files whole or absent.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use antlm_nn::device::{Device, Precision};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, files};

const LOCK: &str = ".lock";

/// A run's folder, locked against other processes for as long as this value lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes the folder of a new run. An empty folder may exist already, and one where a process ended while it made a run:
    /// without a recipe nothing was done in it.
    ///
    /// # Errors
    /// [`Error::Usage`] when the folder has something in it or another process trains into it, [`Error::Io`] otherwise.
    pub fn create(path: &Path) -> Result<RunFolder> {
        if path.is_dir() {
            // Before the lock, so that a folder that is not a run's does not get a lock file.
            check_empty(path)?;
        }
        files::create_folders(path)?;
        let folder = RunFolder::lock(path)?;
        check_empty(path)?;
        for name in left_over(path)? {
            let file = path.join(name);
            fs::remove_file(&file).map_err(Error::io(&file))?;
        }
        Ok(folder)
    }

    /// Opens the folder of a run that is to go on.
    ///
    /// # Errors
    /// [`Error::Usage`] when it is no run's folder or another process trains into it, [`Error::Io`] otherwise.
    pub fn open(path: &Path) -> Result<RunFolder> {
        check_run(path)?;
        RunFolder::lock(path)
    }

    fn lock(path: &Path) -> Result<RunFolder> {
        let lock = path.join(LOCK);
        let file = File::create(&lock).map_err(Error::io(&lock))?;
        match file.try_lock() {
            Ok(()) => Ok(RunFolder { path: path.to_owned(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Usage(format!(
                "{}: another process trains into this folder; wait for it, stop it, or give another --out",
                path.display()
            ))),
            Err(TryLockError::Error(source)) => Err(Error::Io { path: lock, source }),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one of its small files, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        files::write_atomic(self.path.join(name), bytes)
    }

    /// Writes `environment.json`.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn write_environment(&self, environment: &Environment) -> Result<()> {
        // A plain struct of strings and numbers is always JSON.
        let json = serde_json::to_string_pretty(environment).expect("an environment is JSON");
        self.write(ENVIRONMENT, format!("{json}\n").as_bytes())
    }
}

/// Checks that a run can be made here, before any work is done for it.
///
/// # Errors
/// [`Error::Usage`] when the folder has something in it.
pub fn check_new(path: &Path) -> Result<()> {
    if path.exists() { check_empty(path) } else { Ok(()) }
}

/// The recipe as used, with the hashes of text, tokenizer and version.
pub const RECIPE: &str = "recipe.toml";
/// The run's tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";
/// What happened, without any clock.
pub const LOG: &str = "log.jsonl";
/// Seconds, and what depends on the day.
pub const TIMING: &str = "timing.jsonl";
/// What is known of the step that ended the run because its loss or gradient was no number.
pub const DIVERGED: &str = "diverged.json";
/// The machine.
pub const ENVIRONMENT: &str = "environment.json";

/// Checks that a folder is a run's, for `--resume`, `info` and `score`.
///
/// # Errors
/// [`Error::Usage`] with the path and what is missing.
pub fn check_run(path: &Path) -> Result<()> {
    if path.join(RECIPE).is_file() {
        return Ok(());
    }
    if !left_over(path)?.is_empty() {
        let what = "the run was stopped before it began, and nothing was lost: give the command that began it again";
        return Err(Error::Usage(format!("{}: {what}", path.display())));
    }
    let what = if path.is_dir() { "has no recipe.toml, so it is not a run's folder" } else { "no such folder" };
    Err(Error::Usage(format!("{}: {what}; give the folder that `antlm train … --out` wrote", path.display())))
}

fn check_empty(path: &Path) -> Result<()> {
    if path.is_file() {
        return Err(Error::Usage(format!("{}: is a file, not a folder; give another --out", path.display())));
    }
    if !left_over(path)?.is_empty() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(Error::io(path))? {
        if entry.map_err(Error::io(path))?.file_name() == LOCK {
            continue;
        }
        let advice = if path.join(RECIPE).is_file() {
            format!("it holds a run; continue it with `antlm train --resume {}`, or give another --out", path.display())
        } else {
            "it is not empty; give another --out (or --resume RUN to continue a run)".into()
        };
        return Err(Error::Usage(format!("{}: exists already: {advice}", path.display())));
    }
    Ok(())
}

/// The files of a run that ended while it was made, before its recipe, which comes last; nothing if there is anything else.
fn left_over(path: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if !path.is_dir() {
        return Ok(found);
    }
    for entry in fs::read_dir(path).map_err(Error::io(path))? {
        let entry = entry.map_err(Error::io(path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let begun = |file: &&str| name.starts_with(&format!(".{file}.")) && name.ends_with(".tmp");
        let ours = [ENVIRONMENT, TOKENIZER].contains(&&*name) || [ENVIRONMENT, TOKENIZER, RECIPE].iter().any(begun);
        match &*name {
            LOCK => {}
            _ if ours && entry.path().is_file() => found.push(name),
            _ => return Ok(Vec::new()),
        }
    }
    // The machine is written first: a tokenizer.json without it is somebody's own.
    let first = |name: &String| *name == ENVIRONMENT || name.starts_with(&format!(".{ENVIRONMENT}."));
    Ok(if found.iter().any(first) { found } else { Vec::new() })
}

/// The machine a run was done on: speed and the last bits of the results depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// antlm's version.
    pub version: String,
    /// Operating system.
    pub os: String,
    /// Instruction set family.
    pub arch: String,
    /// The processor's name, as the system tells it; empty where it does not.
    pub cpu: String,
    /// Of the instruction sets that matter to us, those it has.
    pub cpu_features: Vec<String>,
    /// Processors this process may use.
    pub cores: usize,
    /// Threads used.
    pub threads: usize,
}

impl Environment {
    /// What this machine is.
    pub fn here(threads: usize) -> Environment {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let cpu = model.and_then(|line| line.split_once(':')).map_or("", |(_, name)| name.trim());
        Environment {
            version: env!("CARGO_PKG_VERSION").into(),
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            cpu: cpu.into(),
            cpu_features: cpu_features(),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            threads,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<String> {
    let found = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
        // Also if the kernel lets nobody use it, it is not there.
        ("amx-bf16", Device::Cpu.arithmetic(Precision::Bf16) == "bf16-amx"),
    ];
    found.iter().filter(|(_, has)| *has).map(|(name, _)| (*name).to_owned()).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_once_and_locked() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("deep/run");
        let folder = RunFolder::create(&path).unwrap();
        let busy = RunFolder::create(&path).unwrap_err().to_string();
        assert!(busy.contains("another process") && busy.contains("deep/run"), "{busy}");
        folder.write(RECIPE, b"name = \"x\"\n").unwrap();
        folder.write_environment(&Environment::here(2)).unwrap();
        assert!(RunFolder::open(&path).unwrap_err().to_string().contains("another process"));
        drop(folder);

        let exists = RunFolder::create(&path).unwrap_err().to_string();
        assert!(exists.contains("exists already") && exists.contains("--resume"), "{exists}");
        assert_eq!(RunFolder::open(&path).unwrap().path(), path);
        let json = fs::read(path.join(ENVIRONMENT)).unwrap();
        assert_eq!(serde_json::from_slice::<Environment>(&json).unwrap().threads, 2);
    }

    /// Killed between any two files of its making, or in the middle of one.
    #[test]
    fn a_run_that_ended_while_it_was_made_is_made_again() {
        let half = ".recipe.toml.123.tmp";
        for files in [&[".environment.json.9.tmp"][..], &[ENVIRONMENT], &[ENVIRONMENT, TOKENIZER, half]] {
            let tmp = tempfile::tempdir().unwrap();
            files.iter().chain(&[LOCK]).for_each(|name| fs::write(tmp.path().join(name), "half").unwrap());
            let error = check_run(tmp.path()).unwrap_err().to_string();
            assert!(error.contains("stopped before it began"), "{error}");
            check_new(tmp.path()).unwrap();
            let folder = RunFolder::create(tmp.path()).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{files:?}");
        }
        // What may be somebody's own.
        for files in [&[TOKENIZER][..], &[ENVIRONMENT, "notes.txt"], &[ENVIRONMENT, RECIPE], &[half]] {
            let tmp = tempfile::tempdir().unwrap();
            files.iter().for_each(|name| fs::write(tmp.path().join(name), "mine").unwrap());
            assert!(check_new(tmp.path()).is_err() && RunFolder::create(tmp.path()).is_err());
            assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), files.len(), "{files:?}");
        }
    }

    #[test]
    fn folders_of_others_are_left_alone() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("thesis.tex"), "x").unwrap();
        let error = RunFolder::create(tmp.path()).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
        assert!(RunFolder::open(tmp.path()).unwrap_err().to_string().contains("no recipe.toml"));
        assert!(RunFolder::open(&tmp.path().join("none")).unwrap_err().to_string().contains("no such folder"));
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
        // A file where the folder should be.
        let error = RunFolder::create(&tmp.path().join("thesis.tex")).unwrap_err().to_string();
        assert!(error.contains("thesis.tex"), "{error}");
    }
}
