//! A sample of a corpus: the beginning of every text file, each with the same share of its words.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Text files that the paths name, in order; a folder gives its `.txt` and `.train` files, sorted.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
            let file = entry?.path();
            if file.extension().is_some_and(|ending| ending == "txt" || ending == "train") {
                found.push(file);
            }
        }
        found.sort();
        if found.is_empty() {
            bail!("{}: no .txt or .train file in this folder", path.display());
        }
        files.extend(found);
    }
    Ok(files)
}

/// Writes the first lines of every file to a file of its own in `folder`, until each has its share of `words`: a file
/// with a tenth of all words gives a tenth of the sample. Returns the number of words written.
pub fn sample(files: &[PathBuf], words: u64, folder: &Path) -> Result<u64> {
    let counts: Vec<u64> =
        files.iter().map(|file| copy(file, u64::MAX, &mut std::io::sink())).collect::<Result<_>>()?;
    let all: u64 = counts.iter().sum();
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut written = 0;
    for (index, (file, &count)) in files.iter().zip(&counts).enumerate() {
        // Rounded up, so that no file is left out.
        let share = (u128::from(words) * u128::from(count)).div_ceil(u128::from(all.max(1))) as u64;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let path = folder.join(format!("{index:02}-{stem}.txt"));
        let mut out = Vec::new();
        written += copy(file, share, &mut out)?;
        fs::write(&path, out).with_context(|| path.display().to_string())?;
    }
    Ok(written)
}

/// Copies whole lines until at least `words` words are written; how many were.
fn copy(file: &Path, words: u64, out: &mut impl Write) -> Result<u64> {
    let name = || file.display().to_string();
    let (mut reader, mut written, mut line) = (BufReader::new(File::open(file).with_context(name)?), 0, String::new());
    while written < words && reader.read_line(&mut line).with_context(name)? > 0 {
        written += line.split_whitespace().count() as u64;
        out.write_all(line.as_bytes())?;
        line.clear();
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_gives_its_share_of_the_words() {
        let tmp = tempfile::tempdir().unwrap();
        let (long, short) = (tmp.path().join("a.train"), tmp.path().join("b.txt"));
        fs::write(&long, "one two\n\nthree four\n".repeat(30)).unwrap();
        fs::write(&short, "five six\n".repeat(20)).unwrap();
        fs::write(tmp.path().join("c.dev"), "not for training\n").unwrap();
        let files = files(&[tmp.path().into()]).unwrap();
        assert_eq!(files, [long, short]);
        let out = tmp.path().join("out");
        assert_eq!(sample(&files, 40, &out).unwrap(), 40);
        let text = |name| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(text("00-a.txt").split_whitespace().count(), 30);
        assert_eq!(text("01-b.txt"), "five six\n".repeat(5));
    }
}
