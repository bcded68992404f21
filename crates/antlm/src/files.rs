//! Small helpers for files that must be whole or absent: atomic writes, synced folders, checksums.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Writes a small file so that a reader finds the old content or the new one, never a part: written beside under a
/// hidden name, synced, renamed over `path`.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("recipe.toml");
/// antlm::files::write_atomic(&path, b"seed = 1\n")?;
/// assert_eq!(std::fs::read(&path).unwrap(), b"seed = 1\n");
/// # Ok::<(), antlm::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] with the path; then nothing was changed.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(Error::io(path))?;
    file.finish()
}

/// A file that appears under its name when [`AtomicFile::finish`] is called, and not at all when it never is. What is there
/// and no plain file (`/dev/stdout`, a pipe, a link) is written to as it is, and not replaced.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    beside: Option<PathBuf>,
    file: BufWriter<File>,
}

impl AtomicFile {
    /// Makes the hidden file that is written to.
    ///
    /// # Errors
    /// [`Error::Usage`] when its folder is not there, [`Error::Io`] with the path.
    pub fn create(path: &Path) -> Result<AtomicFile> {
        let above = parent(path);
        if !above.exists() {
            let what = "there is no such folder to write to; make it first, or name another place";
            return Err(Error::Usage(format!("{}: {}: {what}", path.display(), above.display())));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let special = path.symlink_metadata().is_ok_and(|there| !there.is_file() && !there.is_dir());
        let beside = (!special).then(|| path.with_file_name(format!(".{name}.{}.tmp", std::process::id())));
        let file = BufWriter::new(File::create(beside.as_deref().unwrap_or(path)).map_err(Error::io(path))?);
        Ok(AtomicFile { path: path.to_owned(), beside, file })
    }

    /// Syncs what was written and renames it to its place.
    ///
    /// # Errors
    /// [`Error::Io`] with the path; then the place is as it was before.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(Error::io(&self.path))?;
        let Some(beside) = &self.beside else { return Ok(()) };
        self.file.get_ref().sync_all().map_err(Error::io(&self.path))?;
        fs::rename(beside, &self.path).map_err(Error::io(&self.path))?;
        sync_folder(parent(&self.path))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // Gone already after a rename; after an error, that error is the one that matters.
        let _ = self.beside.as_ref().map(fs::remove_file);
    }
}

/// A folder that appears under its name when [`NewFolder::finish`] is called, and not at all when it never is.
///
/// ```
/// # let tmp = tempfile::tempdir().unwrap();
/// let place = tmp.path().join("export");
/// let folder = antlm::files::NewFolder::create(&place)?;
/// std::fs::write(folder.path().join("config.json"), "{}").unwrap();
/// assert!(!place.exists());
/// folder.finish()?;
/// assert!(place.join("config.json").exists());
/// # Ok::<(), antlm::Error>(())
/// ```
#[derive(Debug)]
pub struct NewFolder {
    place: PathBuf,
    beside: PathBuf,
}

impl NewFolder {
    /// Makes the hidden folder that is written into. The place may be an empty folder.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is something at the place, [`Error::Io`] with the path.
    pub fn create(place: &Path) -> Result<NewFolder> {
        check_free(place)?;
        let Some(name) = place.file_name() else {
            return Err(Error::Usage(format!("{}: give the name of a new folder", place.display())));
        };
        let above = parent(place);
        fs::create_dir_all(above).map_err(Error::io(above))?;
        let beside = place.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        fs::create_dir(&beside).map_err(Error::io(&beside))?;
        Ok(NewFolder { place: place.to_owned(), beside })
    }

    /// Where to write until it is finished.
    pub fn path(&self) -> &Path {
        &self.beside
    }

    /// Renames it to its place. The files in it should be synced.
    ///
    /// # Errors
    /// [`Error::Usage`] when something has come to be at the place, [`Error::Io`] with the path.
    pub fn finish(self) -> Result<()> {
        sync_folder(&self.beside)?;
        check_free(&self.place)?;
        if self.place.is_dir() {
            fs::remove_dir(&self.place).map_err(Error::io(&self.place))?;
        }
        fs::rename(&self.beside, &self.place).map_err(Error::io(&self.place))?;
        sync_folder(parent(&self.place))
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // Gone already after a rename; after an error, that error is the one that matters.
        let _ = fs::remove_dir_all(&self.beside);
    }
}

/// Checks that a new folder can be made here: nothing is there, or an empty folder.
///
/// # Errors
/// [`Error::Usage`] when something is in the way, [`Error::Io`] when the folder cannot be read.
pub fn check_free(place: &Path) -> Result<()> {
    let taken = match fs::read_dir(place) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => true,
        Err(source) => return Err(Error::Io { path: place.to_owned(), source }),
    };
    if taken {
        return Err(Error::Usage(format!("{}: exists already; give another --out", place.display())));
    }
    Ok(())
}

/// Reads a small text file of at most `most` bytes; what is longer (or never ends) is not read to its end.
///
/// # Errors
/// [`Error::Io`], or [`Error::Data`] with the byte where it is too long or not UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    let file = File::open(path).map_err(Error::io(path))?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > most {
        return Err(Error::data(
            path,
            format!("byte {most}"),
            format!("too long: such a file has at most {most} bytes"),
        ));
    }
    String::from_utf8(bytes)
        .map_err(|e| Error::data(path, format!("byte {}", e.utf8_error().valid_up_to()), "not UTF-8"))
}

/// The folder that holds `path`; for a bare name that is the current one.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Makes renames inside a folder last through a loss of power. Does nothing where a folder cannot be opened (Windows).
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io(folder))?;
    }
    Ok(())
}

/// Makes a folder and those above it that are not there, so that they last through a loss of power.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn create_folders(folder: &Path) -> Result<()> {
    let absent = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let absent: Vec<&Path> = absent.collect();
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    absent.into_iter().try_for_each(|made| sync_folder(parent(made)))
}

/// Bytes that this user can still write to the disk of a folder; nothing where the system does not say (also: not on
/// Windows).
pub fn available(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    return rustix::fs::statvfs(folder).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    #[cfg(not(unix))]
    return None;
}

/// Checks that there is room for so many bytes more, and a little besides; `free` is what [`available`] says.
///
/// # Errors
/// [`Error::Io`] of the kind `StorageFull`, with both numbers.
pub fn check_room(folder: &Path, bytes: u64, free: Option<u64>) -> Result<()> {
    /// For the log and what else is written meanwhile.
    const BESIDES: u64 = 1 << 20;
    let bytes = bytes.saturating_add(BESIDES);
    let Some(free) = free.filter(|&free| free < bytes) else { return Ok(()) };
    let [needed, free] = [bytes, free].map(|bytes| format!("{:.1} MB", bytes as f64 / 1e6));
    let source = std::io::Error::new(ErrorKind::StorageFull, format!("{needed} are needed, and {free} are free"));
    Err(Error::Io { path: folder.to_owned(), source })
}

/// Syncs a file that something else wrote.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn sync_file(path: &Path) -> Result<()> {
    // Windows syncs only what is open for writing.
    fs::OpenOptions::new().write(true).open(path).and_then(|f| f.sync_all()).map_err(Error::io(path))
}

/// SHA-256 of a file's content, in lower-case hexadecimal digits; reads it in pieces of 1 MiB.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut piece = vec![0; 1 << 20];
    let mut sha = Sha256::new();
    loop {
        match file.read(&mut piece).map_err(Error::io(path))? {
            0 => return Ok(hex(&sha.finalize())),
            n => sha.update(&piece[..n]),
        }
    }
}

/// SHA-256 of some bytes, in lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Removes a folder and all in it in such a way that an interruption leaves no half-empty folder under its name.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn remove_folder(folder: &Path) -> Result<()> {
    let hidden = hidden(folder, ".tmp-");
    let _ = fs::remove_dir_all(&hidden); // left over from an interrupted removal, or absent
    fs::rename(folder, &hidden).map_err(Error::io(folder))?;
    fs::remove_dir_all(&hidden).map_err(Error::io(&hidden))
}

/// The path beside `path` whose name has `prefix` before it.
pub fn hidden(path: &Path, prefix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{prefix}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_write_replaces_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // A folder in the way: an error that names it, and no leftover.
        let blocked = folder.path().join("taken");
        fs::create_dir(&blocked).unwrap();
        let error = write_atomic(&blocked, b"x").unwrap_err().to_string();
        assert!(error.contains("taken"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    /// As root, `--out /dev/null` would otherwise put a file in the place of the device.
    #[cfg(unix)]
    #[test]
    fn links_and_devices_are_written_to_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        fs::write(&file, b"one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_atomic(&link, b"two").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"two");
        let null = folder.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &null).unwrap();
        write_atomic(&null, b"gone").unwrap();
        assert!(fs::read(&null).unwrap().is_empty() && fs::read_dir(folder.path()).unwrap().count() == 3);
    }

    #[test]
    fn a_new_folder_is_whole_or_absent() {
        let tmp = tempfile::tempdir().unwrap();
        let place = tmp.path().join("deep/new");
        let folder = NewFolder::create(&place).unwrap();
        fs::write(folder.path().join("a"), "x").unwrap();
        drop(folder);
        assert_eq!(fs::read_dir(tmp.path().join("deep")).unwrap().count(), 0);
        fs::create_dir(&place).unwrap(); // empty
        let folder = NewFolder::create(&place).unwrap();
        fs::write(folder.path().join("a"), "x").unwrap();
        folder.finish().unwrap();
        assert_eq!(fs::read(place.join("a")).unwrap(), b"x");
        for taken in [place.clone(), place.join("a")] {
            let error = NewFolder::create(&taken).unwrap_err().to_string();
            assert!(error.contains("exists already"), "{error}");
        }
        assert!(NewFolder::create(Path::new("..")).is_err());
        assert_eq!(fs::read_dir(tmp.path().join("deep")).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_seen_before() {
        let folder = tempfile::tempdir().unwrap();
        assert!(cfg!(not(unix)) || available(folder.path()).is_some_and(|free| free > 0));
        let check = |bytes, free| check_room(folder.path(), bytes, free);
        check(5_000_000, Some(7_000_000)).unwrap();
        check(u64::MAX, None).unwrap();
        for (bytes, free) in [(5_000_000, 5_000_000), (u64::MAX, u64::MAX - 1)] {
            let error = check(bytes, Some(free)).unwrap_err();
            assert!(error.is_full() && error.to_string().contains("MB are free"), "{error}");
        }
        assert!(check(5_000_000, Some(4_200_000)).unwrap_err().to_string().contains("6.0 MB are needed, and 4.2 MB"));
    }

    #[test]
    fn checksum_is_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, b"abc").unwrap();
        // FIPS 180-4's example.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_file(&path).unwrap(), abc);
        assert_eq!(sha256(b"abc"), abc);
    }
}
