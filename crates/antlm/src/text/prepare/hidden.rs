//! The hidden folder in which text is prepared before it gets its name; what killed processes left of theirs is removed.

use std::fs;
use std::path::Path;

use crate::{Error, Result};

const PREFIX: &str = ".prepare-";
const LOCK: &str = ".lock";

/// A hidden folder to work in, locked for as long as it is used and removed in the end.
pub struct Hidden {
    folder: tempfile::TempDir,
    _lock: fs::File,
}

impl Hidden {
    /// Makes one in this folder, and removes those that killed processes left there.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn create(above: &Path) -> Result<Hidden> {
        for entry in fs::read_dir(above).map_err(Error::io(above))? {
            let path = entry.map_err(Error::io(above))?.path();
            let ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
            // Only one with a lock is ours, and only one whose lock is free is left over.
            let free = || fs::File::open(path.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
            if ours && free() {
                // If it cannot be removed, it is as it was before.
                let _ = fs::remove_dir_all(&path);
            }
        }
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(above).map_err(Error::io(above))?;
        // It has its name when it is locked, so that nobody takes it for left over before.
        let (new, path) = (folder.path().join(".lock.new"), folder.path().join(LOCK));
        let lock = fs::File::create(&new).map_err(Error::io(&new))?;
        lock.try_lock().map_err(|e| Error::Io { path: new.clone(), source: e.into() })?;
        fs::rename(&new, &path).map_err(Error::io(&path))?;
        Ok(Hidden { folder, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_is_removed_and_nothing_else() {
        let tmp = tempfile::tempdir().unwrap();
        let names = [".prepare-killed", ".prepare-mine", "prepared"];
        names.iter().for_each(|name| fs::create_dir(tmp.path().join(name)).unwrap());
        fs::write(tmp.path().join(".prepare-killed/.lock"), "").unwrap();
        let used = Hidden::create(tmp.path()).unwrap();
        assert!(!tmp.path().join(".prepare-killed").exists());
        let second = Hidden::create(tmp.path()).unwrap();
        assert!(used.path().exists() && second.path().exists() && used.path() != second.path());
        assert!(tmp.path().join(".prepare-mine").exists() && tmp.path().join("prepared").exists());
        drop((used, second));
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 2);
    }
}
