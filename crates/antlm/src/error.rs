//! The library's one error type: every variant says where (path, place) and what.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Stands for the signal when it is the time limit that asks to stop: SIGALRM's number.
pub const TIME_UP: i32 = 14;

/// What can go wrong in antlm. The display text is one line and names path and place. It may quote a file, but at a
/// moderate length, and control characters are escaped: what somebody else wrote does not act on the terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file from outside is wrong.
    #[error("{}: {}: {}", path.display(), shown(place), shown(what))]
    Data {
        /// The file.
        path: PathBuf,
        /// Where in it: `byte 120`, `line 3`, `tensor model.norm.weight`.
        place: String,
        /// What is wrong there, and what to do where that is not plain.
        what: String,
    },
    /// A recipe, or a value given on the command line for one, is wrong.
    #[error("recipe {}: {}: {}", shown(origin), shown(place), shown(what))]
    Recipe {
        /// The recipe's name or path.
        origin: String,
        /// The key.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// A schedule does not parse; the text shows the character.
    #[error("schedule {}, character {at}: {}", shown(&format!("{text:?}")), shown(what))]
    Schedule {
        /// The schedule as given.
        text: String,
        /// The character's position, from 1 on.
        at: usize,
        /// What was expected there.
        what: String,
    },
    /// Something was asked for that does not go together (an existing run folder, a backend the model lacks).
    #[error("{}", shown(.0))]
    Usage(String),
    /// A signal, or the time limit ([`TIME_UP`]), asked to stop.
    #[error("stopped by {}; {left}", signal_name(*signal))]
    Stopped {
        /// Its number.
        signal: i32,
        /// What is left of the work, and how to go on.
        left: String,
    },
    /// Training has gone wrong: loss or gradient is not a finite number.
    #[error("step {step}: the loss is {loss} and the gradient's norm {grad_norm}; {advice}")]
    Diverged {
        /// The step, from 0 on.
        step: u32,
        /// Its loss.
        loss: f64,
        /// The norm of its gradient.
        grad_norm: f64,
        /// What may help.
        advice: String,
    },
    /// The engine refused an operation.
    #[error(transparent)]
    Engine(#[from] antlm_nn::Error),
}

impl Error {
    /// An I/O error with its path, for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { path, source }
    }

    /// True when there was no room on the disk.
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// A wrong file, with the place in it.
    pub fn data(path: impl AsRef<Path>, place: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Data { path: path.as_ref().to_owned(), place: place.into(), what: what.into() }
    }
}

/// A part of a message as it is shown: on one line, without control characters, the middle of a very long one left out.
fn shown(text: &str) -> Cow<'_, str> {
    /// Bytes that are shown at the beginning, and at the end.
    const HEAD: usize = 800;
    const TAIL: usize = 200;
    let mut text = Cow::Borrowed(text);
    if text.len() > HEAD + TAIL {
        let (head, tail) = (text.floor_char_boundary(HEAD), text.ceil_char_boundary(text.len() - TAIL));
        text = format!("{} … {}", &text[..head], &text[tail..]).into();
    }
    if text.contains(char::is_control) {
        let each = text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() });
        text = each.collect::<String>().into();
    }
    text
}

/// The names of the signals that we listen to.
fn signal_name(signal: i32) -> String {
    match signal {
        2 => "SIGINT (Ctrl-C)".into(),
        15 => "SIGTERM".into(),
        TIME_UP => "the time limit".into(),
        other => format!("signal {other}"),
    }
}

/// The library's result type.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_does_not_act_on_the_terminal() {
        let error = Error::data("x.json", "key \u{1b}[2J", "is \"a\nb\u{9b}\"");
        assert_eq!(error.to_string(), r#"x.json: key \u{1b}[2J: is "a\nb\u{9b}""#);
        let long = "é".repeat(100_000);
        for error in [
            Error::data("x", &*long, &*long),
            Error::Recipe { origin: long.clone(), place: long.clone(), what: long.clone() },
            Error::Schedule { text: long.clone(), at: 3, what: long.clone() },
            Error::Usage(long.clone()),
        ] {
            let line = error.to_string();
            assert!(line.contains("é … é") && line.len() < 4000, "{}", line.len());
        }
    }
}
