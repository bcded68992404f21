//! The files of each task: in loose folders, or in the tree of the official pipeline (`evaluation_data/full_eval/…`).

use std::fs;
use std::path::{Path, PathBuf};

use super::Task;
use crate::eval::results::Set;
use crate::{Error, Result};

/// A task's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The task.
    pub task: Task,
    /// Its folder.
    pub folder: PathBuf,
    /// Its files, sorted by name.
    pub files: Vec<PathBuf>,
}

/// What the folder of a full set or a fast one is called, in the official tree or as participants keep it.
fn folders(task: Task, set: Set) -> &'static [&'static str] {
    match (task, set) {
        (Task::Blimp, Set::Full) => &["blimp_filtered", "blimp"],
        (Task::Blimp, Set::Fast) => &["blimp_fast"],
        (Task::Supplement, Set::Full) => &["supplement_filtered", "blimp_supplement", "supplement"],
        (Task::Supplement, Set::Fast) => &["supplement_fast"],
        (Task::Ewok, Set::Full) => &["ewok_filtered", "ewok"],
        (Task::Ewok, Set::Fast) => &["ewok_fast"],
        (Task::EntityTracking, Set::Full) => &["entity_tracking"],
        (Task::EntityTracking, Set::Fast) => &["entity_tracking_fast"],
        (Task::Comps, Set::Full) => &["comps"],
        (Task::WugAdj, _) => &["wug_adj_nominalization"],
        (Task::WugPast, _) => &["wug_past_tense"],
        (Task::Reading, _) => &["reading"],
        (Task::Aoa, Set::Full) => &["cdi_childes", "aoa"],
        (Task::BlimpNl, Set::Full) => &["blimp_nl", "blimp-nl"],
        (Task::Zhoblimp, Set::Full) => &["zhoblimp"],
        (Task::Multiblimp, Set::Full) => &["multiblimp"],
        (Task::Pairs, Set::Full) => &[""],
        (Task::Comps | Task::Aoa | Task::BlimpNl | Task::Zhoblimp | Task::Multiblimp | Task::Pairs, Set::Fast) => &[],
    }
}

/// Whether a task has such a set at all: COMPS, the age of acquisition and other languages have no short one.
pub fn exists(task: Task, set: Set) -> bool {
    !folders(task, set).is_empty()
}

/// Where a user gets a task's data.
pub fn source(task: Task) -> &'static str {
    match task {
        Task::Blimp | Task::Supplement | Task::EntityTracking | Task::Comps | Task::WugAdj | Task::WugPast => {
            "it is in the evaluation_data of the BabyLM organisers at osf.io/ryjfm"
        }
        Task::Ewok => {
            "it may not be passed on: ask for access to ewok-core/ewok-core-1.0 on the Hugging Face Hub and run the organisers' \
             script (evaluation_pipeline.ewok.dl_and_filter); the short set is ewok_fast.zip at osf.io/ryjfm"
        }
        Task::Reading => "it is in the evaluation_data of the BabyLM organisers at osf.io/ryjfm, as reading_data.csv",
        Task::Aoa => {
            "it is in the evaluation_data of the BabyLM organisers at osf.io/ryjfm: cdi_childes.json, and cdi_human.csv beside it"
        }
        Task::BlimpNl => "juletxara/blimp-nl on the Hugging Face Hub, as jsonl files",
        Task::Zhoblimp => "Junrui1202/zhoblimp on the Hugging Face Hub, as jsonl files",
        Task::Multiblimp => "jumelet/multiblimp on the Hugging Face Hub, as jsonl files",
        Task::Pairs => "`antlm sample-pairs --out DIR` writes some",
    }
}

/// The folders that may hold a task's folder.
fn roots(data: &Path, set: Set) -> Vec<PathBuf> {
    let tree = if set == Set::Full { "full_eval" } else { "fast_eval" };
    let mut roots = vec![data.join("evaluation_data").join(tree), data.join(tree), data.to_owned()];
    // The folder of one task, named itself.
    if let Some(parent) = data.parent() {
        roots.push(parent.to_owned());
    }
    roots
}

/// Where a task's files are; nothing when they are not there.
///
/// # Errors
/// [`Error::Io`] for a folder that cannot be read.
pub fn find(data: &Path, task: Task, set: Set) -> Result<Option<Found>> {
    let ending = match task {
        Task::Reading => "csv",
        Task::Aoa => "json",
        _ => "jsonl",
    };
    for root in roots(data, set) {
        for name in folders(task, set) {
            let folder = if name.is_empty() { root.clone() } else { root.join(name) };
            // Through its parent only the very folder that was named, and loose pairs only there.
            let beside = data.parent() == Some(&root);
            if !folder.is_dir() || (beside && folder != data) || (name.is_empty() && root != data) {
                continue;
            }
            // A folder of another task holds no loose pairs.
            if task == Task::Pairs && Task::ALL.iter().any(|&t| t != task && known(&folder, t, set)) {
                continue;
            }
            // Entity tracking has folders inside.
            let mut files = Vec::new();
            collect(&folder, ending, if task == Task::EntityTracking { 3 } else { 1 }, &mut files)?;
            files.sort();
            if !files.is_empty() {
                return Ok(Some(Found { task, folder, files }));
            }
        }
    }
    Ok(None)
}

fn known(folder: &Path, task: Task, set: Set) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    folders(task, set).contains(&name)
}

fn collect(folder: &Path, ending: &str, depth: u32, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            if depth > 1 {
                collect(&path, ending, depth - 1, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == ending) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}\n").unwrap();
        }
    }

    fn names(data: &Path, set: Set) -> Vec<(Task, usize)> {
        let found = Task::ALL.iter().filter_map(|&task| find(data, task, set).unwrap());
        found.map(|found| (found.task, found.files.len())).collect()
    }

    #[test]
    fn files_are_found_in_loose_folders_and_in_the_official_tree() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert!(names(root, Set::Full).is_empty());
        put(root, &["loose/blimp_filtered/b.jsonl", "loose/blimp_filtered/a.jsonl", "loose/blimp_filtered/notes.txt"]);
        put(root, &["loose/reading/reading_data.csv", "loose/entity_tracking/regular/regular.jsonl"]);
        let loose = [(Task::Blimp, 2), (Task::EntityTracking, 1), (Task::Reading, 1)];
        assert_eq!(names(&root.join("loose"), Set::Full), loose);
        let found = find(&root.join("loose"), Task::Blimp, Set::Full).unwrap().unwrap();
        assert!(found.files[0].ends_with("a.jsonl"));
        // The folder of one task.
        assert_eq!(names(&root.join("loose/blimp_filtered"), Set::Full), [(Task::Blimp, 2)]);

        assert!(exists(Task::Aoa, Set::Full) && !exists(Task::Aoa, Set::Fast));
        put(root, &["tree/evaluation_data/full_eval/comps/comps_base.jsonl"]);
        put(root, &["tree/evaluation_data/fast_eval/blimp_fast/x.jsonl"]);
        put(root, &["tree/evaluation_data/fast_eval/wug_past_tense/wug_past_tense.jsonl"]);
        for data in ["tree", "tree/evaluation_data"] {
            assert_eq!(names(&root.join(data), Set::Full), [(Task::Comps, 1)]);
            assert_eq!(names(&root.join(data), Set::Fast), [(Task::Blimp, 1), (Task::WugPast, 1)]);
        }
        // Any other folder with such files.
        put(root, &["mine/agreement.jsonl"]);
        assert_eq!(names(&root.join("mine"), Set::Full), [(Task::Pairs, 1)]);
    }
}
