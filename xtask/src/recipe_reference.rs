//! docs/recipe-reference.md and docs/recipe.schema.json: made from the library's table of recipe keys.

use std::fs;
use std::path::Path;

use antlm::recipe::keys;
use anyhow::{Context, Result, bail};

/// The files and what should stand in them.
fn files() -> [(&'static str, String); 2] {
    [("docs/recipe-reference.md", keys::reference()), ("docs/recipe.schema.json", format!("{:#}\n", keys::schema()))]
}

/// Writes both.
pub fn write(root: &Path) -> Result<()> {
    for (name, text) in files() {
        let path = root.join(name);
        fs::create_dir_all(root.join("docs")).context("docs")?;
        fs::write(path, text).context(name)?;
        println!("{name}: written");
    }
    Ok(())
}

/// Fails when one of them is not what [`write`] would write.
pub fn check(root: &Path) -> Result<()> {
    for (name, text) in files() {
        if fs::read_to_string(root.join(name)).context(name)?.replace("\r\n", "\n") != text {
            bail!("{name} is out of date; run `cargo xtask recipe-reference`");
        }
    }
    println!("docs: the recipe reference and the schema are up to date");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_up_to_date_and_what_is_changed_is_not() {
        let root = tempfile::tempdir().unwrap();
        assert!(check(root.path()).is_err());
        write(root.path()).unwrap();
        check(root.path()).unwrap();
        fs::write(root.path().join("docs/recipe.schema.json"), "{}").unwrap();
        assert!(check(root.path()).unwrap_err().to_string().contains("cargo xtask recipe-reference"));
    }
}
