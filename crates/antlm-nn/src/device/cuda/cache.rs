//! Compiled kernels on disk, so that a card is opened without compiling every time. What is wrong there (damage, no
//! folder, no room) costs a compilation and is never an error.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Result;

/// Where this user's programs keep what they can make again: `$XDG_CACHE_HOME` or `~/.cache` (the local application data
/// on Windows), and in it `antlm/kernels`. `None` where the environment does not say.
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only a real card is compiled for"))]
pub(super) fn folder() -> Option<PathBuf> {
    folder_of(|name| std::env::var_os(name))
}

fn folder_of(environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // A relative path there is not valid (XDG base directories), and would be another folder for every run.
    let path = |name| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = if cfg!(windows) {
        path("LOCALAPPDATA")
    } else {
        path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")))
    };
    caches.map(|caches| caches.join("antlm").join("kernels"))
}

/// What was made of these `ingredients` before, or what `make` makes now, which is kept.
///
/// # Errors
/// Those of `make`.
pub(super) fn kept(
    folder: Option<&Path>,
    ingredients: &[&[u8]],
    make: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    let Some(folder) = folder else { return make() };
    let mut hash = Sha256::new();
    for ingredient in ingredients {
        // With their lengths, so that no two lists are the same text.
        hash.update((ingredient.len() as u64).to_le_bytes());
        hash.update(ingredient);
    }
    let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(name);
    if let Some(image) = read(&path) {
        return Ok(image);
    }
    let image = make()?;
    let _ = write(folder, &path, &image);
    Ok(image)
}

/// A file's image, if its checksum is right.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut image = fs::read(path).ok()?;
    let sum = image.split_off(image.len().checked_sub(32)?);
    (Sha256::digest(&image)[..] == sum[..]).then_some(image)
}

/// Writes beside the place and moves there: another process may read or write it at the same time.
fn write(folder: &Path, path: &Path, image: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let beside = path.with_extension(std::process::id().to_string());
    let written = fs::write(&beside, [image, &Sha256::digest(image)[..]].concat());
    let moved = written.and_then(|()| fs::rename(&beside, path));
    if moved.is_err() {
        let _ = fs::remove_file(&beside);
    }
    moved
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::device::cuda::error;

    #[test]
    fn made_once_and_again_when_anything_differs_or_is_damaged() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("not").join("yet").join("there");
        let made = Cell::new(0);
        let ask = |ingredients: &[&[u8]]| {
            let image = kept(Some(&folder), ingredients, || {
                made.set(made.get() + 1);
                Ok(vec![7; 1000])
            });
            assert_eq!(image.unwrap(), [7; 1000]);
            made.get()
        };
        assert_eq!([ask(&[b"a", b"b"]), ask(&[b"a", b"b"])], [1, 1]);
        // The same text, cut elsewhere.
        assert_eq!([ask(&[b"ab", b""]), ask(&[b"ab"]), ask(&[b"a", b"b"])], [2, 3, 3]);
        let files = || fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        assert_eq!(files().len(), 3, "only whole files stay");
        for file in files() {
            let whole = fs::read(&file).unwrap();
            for damaged in [&whole[..0], &whole[..31], &whole[..whole.len() - 1], &[&whole[..], b"x"].concat()] {
                fs::write(&file, damaged).unwrap();
                assert_eq!(read(&file), None);
            }
            for place in [0, 999, 1000, 1031] {
                let mut flipped = whole.clone();
                flipped[place] ^= 1;
                fs::write(&file, flipped).unwrap();
                assert_eq!(read(&file), None);
            }
        }
        assert_eq!([ask(&[b"a", b"b"]), ask(&[b"a", b"b"])], [4, 4]);
    }

    #[test]
    fn no_folder_no_room_and_no_image_are_no_trouble() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        for folder in [None, Some(&*file), Some(&*file.join("below"))] {
            assert_eq!(kept(folder, &[b"a"], || Ok(vec![1])).unwrap(), [1]);
        }
        let failed = kept(Some(place.path()), &[b"a"], || Err(error("no compiler")));
        assert!(failed.unwrap_err().to_string().contains("no compiler"));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing was written");
    }

    #[test]
    #[cfg(not(windows))]
    fn the_users_folder() {
        let of = |pairs: &[(&str, &str)]| {
            folder_of(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        assert_eq!(of(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]), Some("/c/antlm/kernels".into()));
        assert_eq!(of(&[("XDG_CACHE_HOME", "c"), ("HOME", "/h")]), Some("/h/.cache/antlm/kernels".into()));
        assert_eq!([of(&[]), of(&[("HOME", "")])], [None, None]);
    }
}
