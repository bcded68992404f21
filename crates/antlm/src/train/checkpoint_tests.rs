//! Checkpoints come back bit for bit; every kind of damage is an error with path and place; leftovers do not count.

use super::*;
use antlm_nn::params::Init;

fn layout() -> Layout {
    let mut layout = Layout::default();
    layout.add("model.embed.weight", &[7, 4], Init::Normal { std: 0.5 }, true);
    layout.add("model.norm.weight", &[4], Init::Ones, false);
    layout
}

fn state(step: u64) -> State {
    State {
        hashes: Hashes { data: "d".into(), tokenizer: "t".into(), recipe: "r".into() },
        seed: u64::MAX,
        step,
        optimizer_t: step,
        block: 1,
        trained_block: Some(1),
        position: 1017,
        seen: BTreeMap::from([
            (Objective::Clm, Seen { words: 10, targets: 12 }),
            (Objective::Mlm, Seen { words: 20, targets: 3 }),
        ]),
        health: serde_json::from_str(r#"{"recent": {"clm": [3.25, 0.1]}, "skipped": 1}"#).unwrap(),
        unmeasured: true,
        log: LogEnd { bytes: 99, sha256: files::sha256(b"the log") },
        precision: "f32".into(),
        device: "cpu".into(),
    }
}

/// Those of a run without a moving average.
fn weights(step: u64) -> Weights {
    let [params, m, v] = [step, step + 1, step + 2].map(|seed| layout().init(seed));
    Weights { params, m, v, ema: None, t: step }
}

fn put(run: &Path, step: u64, kept: bool) -> PathBuf {
    let path = save(run, &state(step), &layout(), &weights(step), kept).unwrap();
    retain(run, step, 2, 0).unwrap();
    path
}

fn steps(run: &Path) -> Vec<u64> {
    list(run).unwrap().iter().map(|entry| entry.step).collect()
}

#[test]
fn round_trip_is_bit_for_bit() {
    let run = tempfile::tempdir().unwrap();
    let odd = [f32::MIN_POSITIVE / 8.0, -0.0, 1.0 / 3.0, f32::MAX];
    let mut weights = weights(120);
    weights.params[..4].copy_from_slice(&odd);
    let path = save(run.path(), &state(120), &layout(), &weights, true).unwrap();
    assert!(path.ends_with("checkpoints/step-000000120"));
    let back = load(&path, &layout()).unwrap();
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&back.weights.params), bits(&weights.params));
    assert_eq!(back.weights, weights);
    assert_eq!((&back.state, back.kept), (&state(120), true));
    assert_eq!(load_weights(&path, &layout()).unwrap(), (state(120), weights.params));
    assert_eq!(read_state(&path).unwrap(), (state(120), true));
    // The keys that scripts rely on.
    let json: serde_json::Value = serde_json::from_slice(&fs::read(path.join(STATE)).unwrap()).unwrap();
    assert_eq!(json["version"], VERSION);
    assert_eq!(json["seen"]["mlm"]["targets"], 3);
    assert_eq!(json["position"], 1017);
    // The Hub's names, and nothing else in the folder.
    let bytes = fs::read(path.join(MODEL)).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.offset_keys(), ["model.embed.weight", "model.norm.weight"]);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 3);
    assert_eq!(fs::read_dir(folder(run.path())).unwrap().count(), 1);
}

#[test]
fn the_last_two_and_all_kept_ones_stay() {
    let run = tempfile::tempdir().unwrap();
    assert_eq!(newest(run.path()).unwrap(), None);
    for (step, kept) in [(10, false), (20, true), (30, false), (40, false), (50, true), (60, false)] {
        put(run.path(), step, kept);
    }
    assert_eq!(steps(run.path()), [20, 40, 50, 60]);
    assert_eq!(newest(run.path()).unwrap().unwrap().step, 60);
    // The same step again, now to be kept: replaced.
    put(run.path(), 60, true);
    put(run.path(), 70, false);
    put(run.path(), 80, false);
    assert_eq!(steps(run.path()), [20, 50, 60, 70, 80]);
    // A run that went back to 70 does not lose it to the checkpoint of a later step.
    put(run.path(), 75, false);
    assert_eq!(steps(run.path()), [20, 50, 60, 70, 75, 80]);
}

/// As many as are asked for, every so many for good, and never the one that was just written.
#[test]
fn how_many_stay() {
    let left = |last: u32, every: u32, saved: &[(u64, bool)]| {
        let run = tempfile::tempdir().unwrap();
        for &(step, kept) in saved {
            save(run.path(), &state(step), &layout(), &weights(step), kept).unwrap();
            retain(run.path(), step, last, every).unwrap();
            assert!(steps(run.path()).contains(&step) && newest_good(run.path(), &layout()).unwrap().is_some());
        }
        steps(run.path())
    };
    let plain = [0, 10, 20, 30, 40, 50].map(|step| (step, false));
    assert_eq!(left(1, 0, &plain), [50]);
    assert_eq!(left(0, 0, &plain), [50], "one stays whatever is asked");
    assert_eq!(left(3, 0, &plain), [30, 40, 50]);
    assert_eq!(left(100, 0, &plain), [0, 10, 20, 30, 40, 50]);
    assert_eq!(left(1, 20, &plain), [20, 40, 50]);
    // Where the newest is kept, the rolling ones before it stay as well.
    assert_eq!(left(1, 0, &[(10, false), (20, false), (30, true)]), [20, 30]);
    assert_eq!(left(1, 0, &[(10, true), (20, false), (30, false)]), [10, 30]);

    // One that is damaged is not counted and not removed, so a good one before it is there to go on from.
    let run = tempfile::tempdir().unwrap();
    for step in [10, 20] {
        save(run.path(), &state(step), &layout(), &weights(step), false).unwrap();
    }
    fs::write(folder(run.path()).join("step-000000020").join(STATE), "{").unwrap();
    retain(run.path(), 20, 1, 0).unwrap();
    assert_eq!(newest_good(run.path(), &layout()).unwrap().unwrap().0.state.step, 10);
}

#[test]
fn leftovers_of_interrupted_writes_are_ignored_and_removed() {
    let run = tempfile::tempdir().unwrap();
    let good = put(run.path(), 10, false);
    let all = folder(run.path());
    let copy = |to: &str| {
        fs::create_dir(all.join(to)).unwrap();
        for name in [MODEL, OPTIMIZER, STATE] {
            fs::copy(good.join(name), all.join(to).join(name)).unwrap();
        }
    };
    copy(".tmp-step-000000020"); // died before the rename
    copy(".old-step-000000010"); // died after it
    copy("step-20"); // not a name of ours
    fs::write(all.join(".tmp-step-000000020").join(MODEL), b"half").unwrap();
    fs::write(all.join("notes.txt"), b"mine").unwrap();
    assert_eq!(steps(run.path()), [10]);
    assert_eq!(newest_good(run.path(), &layout()).unwrap().unwrap().0.state.step, 10);
    put(run.path(), 20, false);
    assert_eq!(steps(run.path()), [10, 20]);
    let left: Vec<String> = names(run.path()).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["notes.txt", "step-000000010", "step-000000020", "step-20"]);

    // Died between the two renames of a replacement: the old one comes back.
    fs::rename(all.join("step-000000020"), all.join(".old-step-000000020")).unwrap();
    put(run.path(), 30, true);
    assert_eq!(steps(run.path()), [10, 20, 30]);
    load(&all.join("step-000000020"), &layout()).unwrap();
}

#[test]
fn a_failed_save_leaves_the_older_one() {
    let run = tempfile::tempdir().unwrap();
    put(run.path(), 10, false);
    let short = Weights::new(vec![0.0; 3], false);
    assert!(save(run.path(), &state(20), &layout(), &short, false).is_err());
    let short = Weights { ema: Some(vec![0.0; 3]), ..weights(20) };
    assert!(save(run.path(), &state(20), &layout(), &short, false).is_err());
    assert_eq!(steps(run.path()), [10]);
    // Nor is anything left that takes room.
    assert_eq!(names(run.path()).unwrap().len(), 1);
    put(run.path(), 20, false);
    assert_eq!(steps(run.path()), [10, 20]);
}

/// Changes a file of a good checkpoint and expects these words in the error.
fn damaged(name: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>, expected: &[&str]) {
    let run = tempfile::tempdir().unwrap();
    put(run.path(), 10, false);
    let path = put(run.path(), 20, false);
    match change(fs::read(path.join(name)).unwrap()) {
        Some(bytes) => fs::write(path.join(name), bytes).unwrap(),
        None => fs::remove_file(path.join(name)).unwrap(),
    }
    let error = load(&path, &layout()).unwrap_err().to_string();
    for words in expected.iter().chain([&"step-000000020", &name]) {
        assert!(error.contains(words), "{error:?} lacks {words:?}");
    }
    assert!(!error.contains('\n'), "{error}");
    // Resuming falls back to the one before and names the damaged one.
    let (good, bad) = newest_good(run.path(), &layout()).unwrap().unwrap();
    assert_eq!(good.state.step, 10);
    assert_eq!(bad.iter().map(Error::to_string).collect::<Vec<_>>(), [error]);
}

fn flip(at: usize) -> impl FnOnce(Vec<u8>) -> Option<Vec<u8>> {
    move |mut bytes| {
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= 1;
        Some(bytes)
    }
}

fn edit(from: &'static str, to: &'static str) -> impl FnOnce(Vec<u8>) -> Option<Vec<u8>> {
    move |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(from), "{text}");
        Some(text.replacen(from, to, 1).into_bytes())
    }
}

#[test]
fn damage_is_named_and_passed_over() {
    for name in [MODEL, OPTIMIZER] {
        damaged(name, flip(usize::MAX), &["sha256", "damaged"]);
        damaged(name, flip(12), &[]);
        damaged(name, |b| Some(b[..b.len() - 4].to_vec()), &["the file ends here"]);
        damaged(name, |_| Some(Vec::new()), &["byte 0"]);
        damaged(name, |_| None, &[]);
    }
    damaged(STATE, |_| None, &[]);
    damaged(STATE, |_| Some(Vec::new()), &["line 1"]);
    damaged(STATE, |_| Some(vec![b'['; 100_000]), &["line 1"]);
    damaged(STATE, |_| Some(vec![b' '; 2_000_000]), &["byte 1000000"]);
    damaged(STATE, |_| Some(b"[1]".to_vec()), &["line 1"]);
    damaged(STATE, |b| Some(b[..b.len() / 2].to_vec()), &["line"]);
    damaged(STATE, edit("\"version\": 2", "\"version\": 3"), &["version", "is 3"]);
    damaged(STATE, edit("\"seed\"", "\"sed\""), &["sed"]);
    damaged(STATE, edit("\"step\": 20", "\"step\": -1"), &["-1"]);
    damaged(STATE, edit("\"step\": 20", "\"step\": 21"), &["sha256", "damaged or changed"]);
    damaged(STATE, edit("\"kept\": false", "\"kept\": \"no\""), &["boolean"]);
}

#[test]
fn a_folder_under_another_number_is_named() {
    let run = tempfile::tempdir().unwrap();
    let path = put(run.path(), 20, false);
    let renamed = path.with_file_name("step-000000021");
    fs::rename(path, &renamed).unwrap();
    let error = load(&renamed, &layout()).unwrap_err().to_string();
    assert!(error.contains("step: is 20") && error.contains("renamed"), "{error}");
}

/// The average is a file of its own: as exact, as carefully read, and missed where it is wanted.
#[test]
fn the_average_comes_back_or_is_missed() {
    let run = tempfile::tempdir().unwrap();
    let plain = put(run.path(), 10, true);
    let error = load_ema(&plain, &layout()).unwrap_err().to_string();
    assert!(error.contains("step-000000010") && error.contains("optimizer.ema_decay"), "{error}");
    let weights = Weights { ema: Some(layout().init(9)), ..weights(20) };
    let path = save(run.path(), &state(20), &layout(), &weights, true).unwrap();
    assert_eq!(load(&path, &layout()).unwrap().weights, weights);
    assert_eq!(load_ema(&path, &layout()).unwrap().1, layout().init(9));
    assert_eq!(load_weights(&path, &layout()).unwrap().1, weights.params);
    for change in [|b: &[u8]| Some(b[..b.len() - 4].to_vec()), |b: &[u8]| Some([b, &[0]].concat()), |_: &[u8]| None] {
        let good = fs::read(path.join(EMA)).unwrap();
        match change(&good) {
            Some(bytes) => fs::write(path.join(EMA), bytes).unwrap(),
            None => fs::remove_file(path.join(EMA)).unwrap(),
        }
        for error in [load(&path, &layout()).unwrap_err(), load_ema(&path, &layout()).unwrap_err()] {
            assert!(error.to_string().contains("ema.safetensors"), "{error}");
        }
        assert_eq!(newest_good(run.path(), &layout()).unwrap().unwrap().0.state.step, 10);
        fs::write(path.join(EMA), good).unwrap();
    }
    let mut flipped = fs::read(path.join(EMA)).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(path.join(EMA), flipped).unwrap();
    assert!(load_ema(&path, &layout()).unwrap_err().to_string().contains("sha256"));
}

#[test]
fn another_models_checkpoint_is_refused() {
    let run = tempfile::tempdir().unwrap();
    let path = put(run.path(), 10, false);
    let check = |name: &str, shape: &[usize], expected: &str| {
        let mut other = Layout::default();
        other.add(name, &[7, 4], Init::Zeros, true);
        other.add("model.norm.weight", shape, Init::Zeros, true);
        let error = load(&path, &other).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(MODEL), "{error}");
        // And with none whole there is no falling back.
        assert!(newest_good(run.path(), &other).is_err());
    };
    check("model.embed.weight", &[5], "tensor model.norm.weight: is F32 [4], but this model needs F32 [5]");
    check("other.weight", &[4], "tensor other.weight: missing");
}
