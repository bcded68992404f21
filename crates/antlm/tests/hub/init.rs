//! Runs that start from a trained model.

use antlm::recipe::Recipe;
use antlm::text::prepare::{Prepared, TokenizerChoice, prepare};
use antlm::train::events::{Event, Moment};
use antlm::train::trained::{self, Trained, Weights};
use antlm::train::{checkpoint, input, run};

use super::folder::Folder;

const SET: [&str; 8] = [
    "schedule=1 clm + 1 mlm",
    "seq_len=24",
    "model.layers=1",
    "model.hidden=16",
    "model.heads=2",
    "model.intermediate=16",
    "model.vocab_size=280",
    "dev.max_segments=4",
];

fn text(folder: &Folder, recipe: &Recipe, init: Option<&Trained>, name: &str) -> Prepared {
    let path = folder.path("text.txt");
    antlm::text::sample::write(900, 5, antlm::text::sample::Part::Train, &mut std::fs::File::create(&path).unwrap())
        .unwrap();
    let mut options = input::options(recipe, &[path], &[]).unwrap();
    if let Some(init) = init {
        options.tokenizer = TokenizerChoice::File(init.run.join("tokenizer.json"));
    }
    prepare(&options, folder.path(name), &mut |_| {}, &|| false).unwrap()
}

/// Dev losses at this moment.
fn losses(events: &[Event], wanted: Moment) -> Vec<f64> {
    let at = events.iter().filter_map(|event| match event {
        Event::Dev { at, loss, .. } if *at == wanted => Some(*loss),
        _ => None,
    });
    at.collect()
}

#[test]
fn a_run_starts_where_the_model_is() {
    let folder = Folder::new();
    let recipe = Recipe::load("ltg-bert-tiny", &SET.map(String::from)).unwrap();
    let train = |run: run::Run| {
        let mut events = Vec::new();
        let mut listen = |event: &Event| {
            events.push(event.clone());
            Ok(())
        };
        run.train(&mut listen, &|| None).unwrap();
        events
    };
    let first = train(run::create(&recipe, text(&folder, &recipe, None, "prepared"), &folder.path("first")).unwrap());
    let out = folder.export(&folder.path("first"), "model");
    antlm::hub::import(&out, &folder.path("imported")).unwrap();

    // From the run itself and from its export that was imported: the dev losses are those at its end.
    for (from, name) in [("first", "second"), ("imported", "third")] {
        let init = trained::open(&folder.path(from), Weights::Last).unwrap();
        let prepared = text(&folder, &recipe, Some(&init), "again");
        let checkpoint = std::path::absolute(&init.checkpoint).unwrap();
        let events = train(run::create_from(&recipe, prepared, Some(init), &folder.path(name)).unwrap());
        let end = losses(&first, Moment::Block);
        assert_eq!(losses(&events, Moment::Start), end[end.len() - 3..]);
        let (used, _) = Recipe::read(&folder.path(name).join("recipe.toml")).unwrap();
        assert_eq!(used.used.unwrap().init.unwrap().checkpoint, checkpoint);
    }

    // Stopped before its first checkpoint and resumed, it starts there again, and refuses another model in its place.
    let init = trained::open(&folder.path("first"), Weights::Last).unwrap();
    let prepared = text(&folder, &recipe, Some(&init), "again");
    drop(run::create_from(&recipe, prepared, Some(init), &folder.path("fourth")).unwrap());
    train(run::resume(&folder.path("fourth")).unwrap());
    let last = |name: &str| checkpoint::newest(&folder.path(name)).unwrap().unwrap().path.join("model.safetensors");
    assert!(std::fs::read(last("fourth")).unwrap() == std::fs::read(last("second")).unwrap());
    std::fs::remove_dir_all(folder.path("fourth/checkpoints")).unwrap();
    std::fs::copy(last("second"), last("first")).unwrap();
    let error = run::resume(&folder.path("fourth")).err().unwrap().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_with_what_to_set() {
    let folder = Folder::new();
    let recipe = Recipe::load("ltg-bert-tiny", &SET.map(String::from)).unwrap();
    let prepared = text(&folder, &recipe, None, "prepared");
    let model = folder.run("model", "ltg-bert-tiny", &[]);
    let init = || trained::open(&model, Weights::Last).unwrap();
    let error = run::create_from(&recipe, prepared, Some(init()), &folder.path("run")).err().unwrap().to_string();
    assert!(
        error.contains("layers 2, not 1") && error.contains("--set model.layers=2 --set model.intermediate=24"),
        "{error}"
    );

    let mut set = SET.map(String::from).to_vec();
    set.extend(["model.layers=2", "model.intermediate=24"].map(String::from));
    let recipe = Recipe::load("ltg-bert-tiny", &set).unwrap();
    let prepared = text(&folder, &recipe, None, "prepared");
    let error = run::create_from(&recipe, prepared, Some(init()), &folder.path("run")).err().unwrap().to_string();
    assert!(error.contains("another tokenizer"), "{error}");
    assert!(!folder.path("run").exists());
    let llama = Recipe::load("babyllama-tiny", &[]).unwrap();
    let error = init().check_fits(&llama).unwrap_err().to_string();
    assert!(error.contains("kind ltg-bert, not llama"), "{error}");
}
