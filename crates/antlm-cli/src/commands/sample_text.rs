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
    let words = if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        // A device or a pipe is written to; only files are replaced.
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
