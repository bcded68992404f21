//! Uploads: what goes where is planned without a network; with the feature `hub` it is done, by the `hf-hub` crate.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{CONFIG, MODEL};
use crate::{Error, Result};

/// One file of an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct File {
    /// Its name, here and in the repository.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// One commit: an exported folder onto a branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Branch {
    /// The branch.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// The files in it, sorted. Others in the repository stay as they are.
    pub files: Vec<File>,
}

/// What an upload would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// `OWNER/NAME`.
    pub repo: String,
    /// A repository that is made for it is private.
    pub private: bool,
    /// One commit each.
    pub branches: Vec<Branch>,
    /// What lies there, too, and is not uploaded, sorted: folders in an export, hidden names, and beside several exports
    /// whatever is none.
    pub left_out: Vec<PathBuf>,
}

impl Branch {
    /// All bytes of it.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Looks at a folder that [`super::export`](fn@super::export) wrote: one export goes to `main`, a folder of them to a
/// branch each, named as the folders are, and `main` is left alone. Folders within an export are not uploaded.
///
/// # Errors
/// A folder that is no export, a link in it, names that the Hub or the BabyLM pipelines do not take.
pub fn plan(folder: &Path, repo: &str, private: bool) -> Result<Plan> {
    check_repo(repo)?;
    let (mut branches, mut left_out) = (Vec::new(), Vec::new());
    if folder.join(CONFIG).is_file() {
        branches.push(branch("main", folder, &mut left_out)?);
    } else {
        let mut entries: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            if path.join(CONFIG).is_file() {
                entries.push(path);
            } else {
                left_out.push(path);
            }
        }
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name == "main" || !plain(&name) {
                let what = "no name for a branch: letters, digits, - and _ only, and not main";
                return Err(Error::Usage(format!("{}: {what}", path.display())));
            }
            branches.push(branch(&name, &path, &mut left_out)?);
        }
    }
    if branches.is_empty() {
        let what = "no config.json in it or in a folder of it; give what `antlm export` wrote";
        return Err(Error::Usage(format!("{}: {what}", folder.display())));
    }
    left_out.sort();
    Ok(Plan { repo: repo.to_owned(), private, branches, left_out })
}

fn branch(name: &str, folder: &Path, left_out: &mut Vec<PathBuf>) -> Result<Branch> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        // Not followed: a link could lead to a file that nobody means to publish.
        let meta = fs::symlink_metadata(&path).map_err(Error::io(&path))?;
        if name.starts_with('.') || meta.is_dir() {
            left_out.push(path);
            continue;
        }
        if !meta.is_file() {
            return Err(Error::Usage(format!("{}: a link or no plain file; only files are uploaded", path.display())));
        }
        files.push(File { name, bytes: meta.len() });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if !files.iter().any(|file| file.name == MODEL) {
        return Err(Error::Usage(format!("{}: no {MODEL} in it; give what `antlm export` wrote", folder.display())));
    }
    Ok(Branch { name: name.to_owned(), folder: folder.to_owned(), files })
}

/// Letters, digits, `-` and `_`, beginning with a letter or digit.
fn plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 96
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn check_repo(repo: &str) -> Result<()> {
    let (owner, name) = repo.split_once('/').unwrap_or_default();
    if name.contains('.') {
        let why = "the BabyLM pipelines cut a model's name at its dot, so that two models share one name";
        return Err(Error::Usage(format!("--repo {repo}: a dot in the name: {why}")));
    }
    if !plain(owner) || !plain(name) {
        return Err(Error::Usage(format!("--repo {repo:?}: expected OWNER/NAME, of letters, digits, - and _")));
    }
    Ok(())
}

/// What [`push`] tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress<'a> {
    /// A branch begins.
    Branch(&'a Branch),
    /// Bytes of it that are there, of all.
    Bytes(u64, u64),
}

/// Does what a plan says: makes the repository if it is not there, then each branch, then one commit on it. Gives the
/// commits' addresses. The token is read from `HF_TOKEN`, the file `HF_TOKEN_PATH`, or `token` in `HF_HOME`
/// (`~/.cache/huggingface`), as all tools of the Hub do, and appears in no message. `HF_ENDPOINT` names another server.
///
/// # Errors
/// No token, or what the server refuses: branches before that one are there already, and pushing again is harmless.
#[cfg(feature = "hub")]
pub fn push(plan: &Plan, tell: &(dyn Fn(Progress<'_>) + Sync)) -> Result<Vec<String>> {
    client::push(plan, tell)
}

#[cfg(feature = "hub")]
mod client {
    use std::sync::{Arc, Mutex};

    use hf_hub::HFClient;
    use hf_hub::HFError;
    use hf_hub::progress::{ProgressEvent, ProgressHandler, UploadEvent};
    use hf_hub::repository::{AddSource, CommitOperation, RepoTypeModel};

    use super::{Branch, Plan, Progress};
    use crate::{Error, Result, files};
    use std::path::PathBuf;

    /// Where `antlm push` looks for a token, for the message that there is none.
    const PLACES: &str = "HF_TOKEN, the file HF_TOKEN_PATH, or `token` in HF_HOME (~/.cache/huggingface); \
                          make one at https://huggingface.co/settings/tokens with the right to write";

    pub fn push(plan: &Plan, tell: &(dyn Fn(Progress<'_>) + Sync)) -> Result<Vec<String>> {
        let Some(token) = token()? else {
            return Err(Error::Usage(format!("no token for the Hub; it is looked for in {PLACES}")));
        };
        let failed = |what: &str, error: HFError| {
            // Whatever a server echoes, the token is not printed.
            let error = error.to_string().replace(&token, "***").replace('\n', " ");
            Error::Io { path: PathBuf::from(&plan.repo), source: std::io::Error::other(format!("{what}: {error}")) }
        };
        let client = HFClient::builder().token(&token).cache_enabled(false).build_sync();
        let client = client.map_err(|error| failed("cannot start", error))?;
        let made = client.create_repository().repo_id(&plan.repo).repo_type(RepoTypeModel);
        made.private(plan.private)
            .exist_ok(true)
            .send()
            .map_err(|error| failed("cannot make the repository", error))?;
        let (owner, name) = plan.repo.split_once('/').unwrap_or(("", &plan.repo));
        let repo = client.model(owner, name);
        let mut commits = Vec::new();
        for branch in &plan.branches {
            tell(Progress::Branch(branch));
            if branch.name != "main" {
                match repo.create_branch().branch(&branch.name).send() {
                    Ok(()) | Err(HFError::Conflict { .. }) => {} // there already
                    Err(error) => return Err(failed(&format!("branch {}", branch.name), error)),
                }
            }
            let add = |file: &super::File| CommitOperation::Add {
                path_in_repo: file.name.clone(),
                source: AddSource::File(branch.folder.join(&file.name)),
            };
            let seen = Arc::new(Bytes::default());
            // The crate wants a handler that outlives the call; ours keeps two numbers, which are told from here.
            let commit = std::thread::scope(|scope| {
                let upload = scope.spawn(|| {
                    let commit = repo.create_commit().operations(branch.files.iter().map(add).collect());
                    let commit = commit.commit_message(message(branch)).revision(&branch.name);
                    commit.progress(Arc::clone(&seen)).send()
                });
                let mut last = (0, 0);
                while !upload.is_finished() {
                    std::thread::sleep(std::time::Duration::from_millis(100));
                    let now = *seen.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    if now != last {
                        last = now;
                        tell(Progress::Bytes(now.0, now.1));
                    }
                }
                upload.join()
            });
            let commit = commit.map_err(|_| Error::Usage(format!("{}: the upload broke off", branch.name)))?;
            let commit = commit.map_err(|error| failed(&format!("branch {}", branch.name), error))?;
            commits.push(commit.commit_url.unwrap_or_default());
        }
        Ok(commits)
    }

    fn message(branch: &Branch) -> String {
        format!("antlm push: {} files", branch.files.len())
    }

    /// Bytes done, of all.
    #[derive(Default)]
    struct Bytes(Mutex<(u64, u64)>);

    impl ProgressHandler for Bytes {
        fn on_progress(&self, event: &ProgressEvent) {
            if let ProgressEvent::Upload(UploadEvent::Progress { bytes_completed, total_bytes, .. }) = event {
                *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = (*bytes_completed, *total_bytes);
            }
        }
    }

    /// The user's token, from where the Hub's own tools keep it. A file has a line.
    fn token() -> Result<Option<String>> {
        let set = |key: &str| std::env::var(key).ok().filter(|value| !value.trim().is_empty());
        if let Some(token) = set("HF_TOKEN") {
            return Ok(Some(token.trim().to_owned()));
        }
        let home = || set("HF_HOME").map(PathBuf::from).unwrap_or_else(default_home);
        let file = set("HF_TOKEN_PATH").map_or_else(|| home().join("token"), PathBuf::from);
        if !file.is_file() {
            return Ok(None);
        }
        let text = files::read_text(&file, 1 << 12)?;
        Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty()))
    }

    /// `~/.cache/huggingface`, or where XDG_CACHE_HOME has it.
    fn default_home() -> PathBuf {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
        cache.unwrap_or_else(home).join("huggingface")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(folder: &Path, files: &[&str]) {
        fs::create_dir_all(folder).unwrap();
        for file in files {
            fs::write(folder.join(file), "x").unwrap();
        }
    }

    #[test]
    fn one_folder_goes_to_main_and_many_to_branches() {
        let tmp = tempfile::tempdir().unwrap();
        let (one, many) = (tmp.path().join("one"), tmp.path().join("many"));
        export(&one, &[CONFIG, MODEL, "README.md", ".hidden"]);
        fs::create_dir(one.join("folder")).unwrap();
        let found = plan(&one, "me/model", true).unwrap();
        assert_eq!((found.branches.len(), found.branches[0].name.as_str(), found.branches[0].bytes()), (1, "main", 3));
        let names: Vec<&str> = found.branches[0].files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["README.md", CONFIG, MODEL]);
        assert_eq!(found.left_out, [one.join(".hidden"), one.join("folder")]);
        for name in ["chck_2M", "chck_1M", "no-export"] {
            export(&many.join(name), if name == "no-export" { &["x"] } else { &[CONFIG, MODEL] });
        }
        export(&many, &["notes.txt"]);
        fs::create_dir(many.join("chck_1M/runs")).unwrap();
        let found = plan(&many, "me/model", false).unwrap();
        assert_eq!(found.branches.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(), ["chck_1M", "chck_2M"]);
        assert_eq!(found.left_out, ["chck_1M/runs", "no-export", "notes.txt"].map(|name| many.join(name)));
    }

    #[test]
    fn what_is_no_export_or_no_name_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let refused = |folder: &Path, repo: &str, words: &str| {
            let error = plan(folder, repo, false).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let good = tmp.path().join("good");
        export(&good, &[CONFIG, MODEL]);
        for repo in ["model", "me/", "/model", "me/a/b", "../x", "me/a b", "me/a?b=c"] {
            refused(&good, repo, "OWNER/NAME");
        }
        refused(&good, "me/antlm-0.5", "dot");
        refused(&tmp.path().join("nowhere"), "me/model", "nowhere");
        export(&tmp.path().join("empty"), &["thesis.tex"]);
        refused(&tmp.path().join("empty"), "me/model", "config.json");
        export(&tmp.path().join("bare"), &[CONFIG]);
        refused(&tmp.path().join("bare"), "me/model", MODEL);
        export(&tmp.path().join("many/main"), &[CONFIG, MODEL]);
        refused(&tmp.path().join("many"), "me/model", "not main");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/etc/passwd", good.join("notes.txt")).unwrap();
            refused(&good, "me/model", "link");
        }
    }
}
