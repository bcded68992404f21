//! The tokenizer that a path means: that of a run, of prepared text, or a file.

use std::path::Path;

use crate::text::prepare;
use crate::text::tokenizer::Tokenizer;
use crate::train::run_folder;
use crate::train::trained::locate;
use crate::{Error, Result};

/// The tokenizer of a run, a checkpoint or a prepared folder, or the tokenizer.json that is named.
///
/// # Errors
/// [`Error::Usage`] when the path is none of these, and what [`Tokenizer::load`] says of the file.
pub fn tokenizer(path: &Path) -> Result<Tokenizer> {
    if path.is_file() {
        return Tokenizer::load(path, None);
    }
    let folder = if path.join(prepare::SUMMARY_FILE).is_file() {
        path.to_owned()
    } else if let Ok((run, _)) = locate(path) {
        run
    } else {
        let what = if path.exists() { "has no tokenizer" } else { "no such file or folder" };
        let advice = "give a run, a folder that `antlm prepare` made, or a tokenizer.json";
        return Err(Error::Usage(format!("{}: {what}; {advice}", path.display())));
    };
    Tokenizer::load(folder.join(run_folder::TOKENIZER), None)
}
