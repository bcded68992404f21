//! Checkpoints: one file of a whole one is replaced; with or without the checksums in `state.json` put right.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use antlm::files;
use antlm::objective::Objective;
use antlm::train::checkpoint::{self, Seen, State};
use antlm::train::step::Weights;
use antlm_nn::params::{Init, Layout};
use serde_json::Value;

const FILES: [&str; 4] = ["state.json", "model.safetensors", "optimizer.safetensors", "ema.safetensors"];

pub fn run(data: &[u8]) -> bool {
    let Some((way, bytes)) = crate::choice(data, 8) else { return false };
    let whole = whole();
    let (name, sealed) = (FILES[way % 4], way > 3);
    let folder = crate::place("run/checkpoints/step-000000007");
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    for file in FILES {
        let bytes = if file == name { bytes.to_vec() } else { std::fs::read(whole.join(file)).expect("a whole one") };
        std::fs::write(folder.join(file), bytes).expect("a temporary file");
    }
    if sealed {
        let state = std::fs::read(folder.join(FILES[0])).expect("a temporary file");
        let digests = FILES[1..].iter().map(|file| (*file, files::sha256_file(&folder.join(file)).expect("a file")));
        std::fs::write(folder.join(FILES[0]), seal(&state, digests)).expect("a temporary file");
    }
    let layout = layout();
    crate::read(checkpoint::read_state(&folder));
    crate::read(checkpoint::load_weights(&folder, &layout));
    crate::read(checkpoint::load_ema(&folder, &layout));
    let run = crate::place("run");
    let Some(found) = crate::read(checkpoint::load(&folder, &layout)) else {
        assert!(checkpoint::newest_good(&run, &layout).is_err(), "it is the only one");
        return false;
    };
    if !sealed {
        let original = checkpoint::load(&whole, &layout).expect("a whole one");
        assert!(same(&original.weights, &found.weights) && original.state == found.state, "a change was not noticed");
    }
    // Read and written, it holds the same.
    let again = crate::place("again");
    let kept = found.kept;
    let path = checkpoint::save(&again, &found.state, &layout, &found.weights, kept).expect("a temporary folder");
    let second = checkpoint::load(&path, &layout).expect("what it writes it reads");
    assert!(second.state == found.state && second.kept == kept && same(&second.weights, &found.weights));
    std::fs::remove_dir_all(again).expect("a temporary folder");
    true
}

/// The state with these checksums, where it has some, and its own.
fn seal<'a>(state: &[u8], digests: impl Iterator<Item = (&'a str, String)>) -> Vec<u8> {
    let Ok(mut json) = serde_json::from_slice::<Value>(state) else { return state.to_vec() };
    let Some(all) = json.get_mut("sha256").and_then(Value::as_object_mut) else { return state.to_vec() };
    for (name, digest) in digests {
        all.entry(name).and_modify(|old| *old = digest.into());
    }
    all.remove(FILES[0]);
    let own = files::sha256(format!("{json:#}\n").as_bytes());
    json["sha256"][FILES[0]] = own.into();
    format!("{json:#}\n").into_bytes()
}

/// Bit for bit; NaN, too.
fn same(a: &Weights, b: &Weights) -> bool {
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let all = |w: &Weights| [bits(&w.params), bits(&w.m), bits(&w.v), bits(w.ema.as_deref().unwrap_or_default())];
    all(a) == all(b) && a.t == b.t
}

fn layout() -> Layout {
    let mut layout = Layout::default();
    layout.add("embedding.weight", &[3, 2], Init::Zeros, true);
    layout.add("head.bias", &[3], Init::Zeros, false);
    layout
}

/// A whole checkpoint, made once in a thread.
fn whole() -> PathBuf {
    thread_local! {
        static MADE: OnceCell<PathBuf> = const { OnceCell::new() };
    }
    let make = || {
        let layout = layout();
        let seen = [(Objective::Clm, Seen { words: 12, targets: 30 })].into();
        let state =
            State { step: 7, optimizer_t: 7, seen, precision: "f32".into(), device: "cpu".into(), ..State::default() };
        let mut weights = Weights::new((0..layout.len()).map(|i| i as f32).collect(), true);
        weights.t = 7;
        checkpoint::save(&crate::place("whole"), &state, &layout, &weights, true).expect("a temporary folder")
    };
    MADE.with(|made| made.get_or_init(make).clone())
}

pub fn seeds() -> Vec<Vec<u8>> {
    let file = |name: &str| std::fs::read(Path::new(&whole()).join(name)).expect("a whole one");
    let mut seeds: Vec<Vec<u8>> =
        (0..8u8).map(|way| [&[way], &file(FILES[usize::from(way) % 4])[..]].concat()).collect();
    let state = String::from_utf8(file(FILES[0])).expect("JSON").replace("\"kept\": true", "\"kept\": false");
    seeds.push([&[4], state.as_bytes()].concat());
    seeds
}
