//! `antlm sample-text`: text of the built-in grammar.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use antlm::text::sample::{self, Part};
use antlm::{Error, files::AtomicFile};
use anyhow::Result;

use crate::args::SampleText;

pub fn run(args: &SampleText, out: &mut impl Write) -> Result<()> {
    let path = &args.out;
    if path == Path::new("-") {
        sample::write(args.words, args.seed, Part::Train, out)?;
        return Ok(());
    }
    let there = fs::metadata(path).ok();
    if there.as_ref().is_some_and(|m| m.is_file() || m.is_dir()) {
        let what =
            if path.is_dir() { "is a folder; name a file in it" } else { "exists; name another file, or remove it" };
        return Err(Error::Usage(format!("{}: {what}", path.display())).into());
    }
    let words = if there.is_some() {
        // A device or a pipe is written to.
        let mut file = BufWriter::new(File::create(path).map_err(Error::io(path))?);
        let words = sample::write(args.words, args.seed, Part::Train, &mut file).map_err(Error::io(path))?;
        file.flush().map_err(Error::io(path))?;
        words
    } else {
        let mut file = AtomicFile::create(path)?;
        let words = sample::write(args.words, args.seed, Part::Train, &mut file).map_err(Error::io(path))?;
        file.finish()?;
        words
    };
    writeln!(out, "{}: {} words", path.display(), crate::output::grouped(words))?;
    Ok(())
}
