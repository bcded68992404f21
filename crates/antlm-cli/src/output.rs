//! How errors are printed, and which exit code they have.

use std::io::{ErrorKind, Write};

use antlm::Error;
pub use antlm::text::words::grouped;

/// Exit codes: 2 wrong usage or input, 128 + n stopped by signal n after saving (142 by the time limit), 1 anything else.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Error>() {
        Some(Error::Stopped { signal, .. }) => u8::try_from(128 + signal).unwrap_or(1),
        Some(Error::Data { .. } | Error::Recipe { .. } | Error::Schedule { .. } | Error::Usage(_)) => 2,
        Some(Error::Io { source, .. }) => match source.kind() {
            // The path that was given is wrong; a full disk, say, is not the user's mistake.
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::AlreadyExists
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidData => 2,
            _ => 1,
        },
        _ => 1,
    }
}

/// Prints `antlm: what went wrong, where, what to do` on one line. Control characters from outside (a name in a
/// damaged file) become spaces.
pub fn print_error(error: &anyhow::Error) {
    // The library's errors say their cause themselves.
    let text = if error.is::<Error>() { error.to_string() } else { format!("{error:#}") };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(std::io::stderr(), "antlm: {line}");
}

/// True when whoever reads our output has gone, which is no error.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe))
}

/// Writes rows in columns as wide as they need to be; the columns whose heading begins with `>` are right-aligned.
pub fn table(out: &mut impl Write, heading: &[&str], rows: &[Vec<String>]) -> std::io::Result<()> {
    let names: Vec<String> = heading.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&names).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    for row in all {
        let cells = row.iter().zip(&widths).zip(heading).map(|((cell, &width), heading)| {
            if heading.starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        let io = |kind: ErrorKind| Error::Io { path: "x".into(), source: kind.into() };
        for (error, code) in [
            (Error::Stopped { signal: 2, left: "x".into() }, 130),
            (Error::Stopped { signal: 15, left: "x".into() }, 143),
            (Error::Stopped { signal: antlm::error::TIME_UP, left: "x".into() }, 142),
            (Error::Diverged { step: 1, loss: f64::NAN, grad_norm: 1.0, advice: "x".into() }, 1),
            (Error::Usage("x".into()), 2),
            (Error::data("x", "line 1", "y"), 2),
            (io(ErrorKind::NotFound), 2),
            (io(ErrorKind::StorageFull), 1),
        ] {
            assert_eq!(exit_code(&anyhow::Error::from(error)), code);
        }
        assert_eq!(exit_code(&anyhow::anyhow!("x")), 1);
    }

    #[test]
    fn numbers_and_tables() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let mut out = Vec::new();
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "12".to_owned()]];
        table(&mut out, &["name", ">n"], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name   n\na      1\nbcd   12\n");
    }
}
