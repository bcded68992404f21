//! What the tests share: running the binary, a folder with toy text and toy recipes, looking at what a run left.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The binary with these arguments, in this folder.
pub fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_antlm"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command
}

pub fn antlm(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

/// Runs and gives back stdout; anything but success fails the test.
pub fn succeeds(folder: &Path, args: &[&str]) -> String {
    let output = antlm(folder, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

/// Runs with this on stdin.
pub fn antlm_with_input(folder: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child =
        command(folder, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The binary may be gone already, with an error that the test looks at.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Expects exit code 2, nothing on stdout, and one line on stderr that has these words.
pub fn is_refusal(args: &[&str], output: &Output, words: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    assert!(message.starts_with("antlm: ") && message.trim_end().lines().count() == 1, "{args:?}: {message:?}");
    for word in words {
        assert!(message.contains(word), "{args:?}: {message:?} lacks {word:?}");
    }
    assert_eq!(stdout(output), "");
}

/// Runs with these arguments and expects [a refusal](is_refusal) and nothing new on disk.
pub fn refused(folder: &Path, args: &[&str], words: &[&str]) {
    let before = tree(folder);
    is_refusal(args, &antlm(folder, args), words);
    let after = tree(folder);
    assert!(after.keys().eq(before.keys()), "{args:?} left something behind: {:?}", after.keys());
    assert!(after == before, "{args:?} changed a file");
}

/// Every file below a folder, with its content.
pub fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.insert(path.clone(), Vec::new());
            files.extend(tree(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

/// A folder with `text.txt` and the recipes `ltg.toml` and `llama.toml`: some 150 steps of a few milliseconds, in
/// three blocks, the first of two epochs.
pub struct Toy {
    folder: TempDir,
}

impl Toy {
    pub fn new() -> Toy {
        let toy = Toy { folder: tempfile::tempdir().unwrap() };
        succeeds(toy.path(), &["sample-text", "--words", "2500", "--seed", "3", "--out", "text.txt"]);
        for (name, base) in [("ltg.toml", "ltg-bert-tiny"), ("llama.toml", "babyllama-tiny")] {
            toy.write(
                name,
                format!(
                    "version = 1\nbase = \"{base}\"\nschedule = \"2 clm + 1 mlm + 1 mntp\"\nseq_len = 32\n\
                     [model]\nlayers = 1\nhidden = 16\nheads = 2\nintermediate = 32\nvocab_size = 300\n\
                     [batch]\nsegments = 8\nmicro_tokens = 100\n[checkpoints]\nevery = 8\n[dev]\nmax_segments = 8\n"
                ),
            );
        }
        toy
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.file(name)).unwrap()
    }

    /// Trains to the end.
    pub fn train(&self, recipe: &str, run: &str, more: &[&str]) {
        let args = [&["train", recipe, "--text", "text.txt", "--out", run, "--quiet"], more].concat();
        assert_eq!(succeeds(self.path(), &args), "");
    }

    /// The names in a folder, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.file(folder)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// The checkpoints that stay, by name.
    pub fn kept(&self, run: &str) -> Vec<String> {
        let mut names = self.names(&format!("{run}/checkpoints"));
        names.retain(|name| self.json(&format!("{run}/checkpoints/{name}/state.json"))["kept"] == true);
        names
    }
}

/// Waits until the log of a run has `lines` lines. False when the process ended before.
pub fn wait_for_lines(child: &mut Child, log: &Path, lines: usize) -> bool {
    wait_until(child, || {
        std::fs::read(log).is_ok_and(|text| text.iter().filter(|&&byte| byte == b'\n').count() >= lines)
    })
}

/// Waits until something holds. False when the process ended before.
pub fn wait_until(child: &mut Child, holds: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "waited for two minutes");
        std::thread::sleep(Duration::from_millis(1));
    }
}
