//! The program that docs/from-rust.md explains piece by piece: `cargo run --release -p antlm --example from_rust`. The
//! tests run it and hold the page against it.

use std::fs::File;
use std::path::{Path, PathBuf};

use antlm::eval::sampling::Sampling;
use antlm::eval::{fill, generate, score::Scorer};
use antlm::hub::export;
use antlm::objective::Backend;
use antlm::recipe::{Plan, Recipe};
use antlm::text::{prepare, sample};
use antlm::train::events::{self, Event};
use antlm::train::trained::{Trained, Weights};
use antlm::train::{info, input, run};

fn train(folder: &Path) -> antlm::Result<PathBuf> {
    let text = folder.join("text.txt");
    let mut file = File::create(&text).map_err(antlm::Error::io(&text))?;
    sample::write(5000, 1, sample::Part::Train, &mut file).map_err(antlm::Error::io(&text))?;

    // A built-in recipe or the path of one, and keys to change: what `--set` takes.
    let set = [
        "schedule=2 clm + 2 mntp + 2 clm",
        "seq_len=32",
        "model.layers=1",
        "model.hidden=32",
        "model.intermediate=64",
        "model.vocab_size=512",
        "batch.segments=8",
    ];
    let recipe = Recipe::load("antlm-mntp-ltg-bert-tiny", &set.map(String::from))?;

    // Tokenizer and tokens. The closures are told how far it is, and asked whether to stop.
    let options = input::options(&recipe, &[text], &[])?;
    let prepared = prepare::prepare(&options, folder.join("prepared"), &mut |_| {}, &|| false)?;
    println!("{}", Plan::of(&recipe, &prepared)?);

    // The loop prints nothing; who wants to know something listens. An error of the listener ends the run.
    let mut listener = |event: &Event| {
        if let Event::Dev { step, backend, loss, .. } = event {
            println!("step {step}: {backend} {loss:.3}");
        }
        Ok(())
    };
    // The last closure is asked between micro-batches; a signal's number saves the run and ends it.
    let out = folder.join("run");
    run::create(&recipe, prepared, &out)?.train(&mut listener, &|| None)?;
    Ok(out)
}

fn judge(run: &Path) -> antlm::Result<()> {
    let mut scorer = Scorer::open(run)?;
    println!("trained: {:?}", scorer.trained());
    for backend in [Backend::Causal, Backend::Mlm, Backend::Mntp] {
        let score = scorer.score("The dogs sleep.", backend)?;
        println!("{backend}: {:.2} nats for {} tokens", score.total, score.logprobs.iter().flatten().count());
    }
    Ok(())
}

fn judge_pairs(run: &Path) -> antlm::Result<()> {
    let mut scorer = Scorer::open(run)?;
    for (phenomenon, pairs) in sample::pairs::phenomena().zip(sample::pairs::make(10, 1)) {
        let mut right = 0;
        for pair in &pairs {
            let good = scorer.score(&pair.sentence_good, Backend::Causal)?.total;
            let bad = scorer.score(&pair.sentence_bad, Backend::Causal)?.total;
            right += u32::from(good > bad);
        }
        println!("{phenomenon}: {right} of {}", pairs.len());
    }
    Ok(())
}

fn write(run: &Path) -> antlm::Result<()> {
    let mut generator = generate::Generator::new(Trained::open(run)?);
    let prompt = generator.read("The dogs")?;
    let sampling = Sampling { temperature: 0.8, ..Sampling::default() };
    let options = generate::Options { sampling, max_tokens: 20, ..generate::Options::default() };
    // Called for every piece of text as soon as it is certain.
    let text = generator.generate(&prompt, 0, &options, &mut |piece| {
        print!("{piece}");
        Ok(())
    })?;
    println!(" ({} tokens)", text.ids.len());
    Ok(())
}

fn fill_in(run: &Path) -> antlm::Result<()> {
    let mut filler = fill::Filler::new(Trained::open(run)?);
    let options = fill::Options { backend: Backend::Mntp, top: 3, word_tokens: 1 };
    for word in &filler.fill("The [MASK] sleep.", &options)?.masks[0] {
        println!("{:.3} {}", word.p, word.word);
    }
    Ok(())
}

fn look_at(run: &Path) -> antlm::Result<()> {
    let info = info::read(run)?;
    println!("{} of {} steps, {} words seen", info.step, info.steps, info.words_seen);

    // The log, event by event; a line that is not finished yet is passed over.
    let log = run.join("log.jsonl");
    let mut steepest = (0, 0.0);
    for event in events::read_log(&log, events::open(&log)?) {
        if let Event::Step { step, grad_norm, .. } = event?
            && grad_norm > steepest.1
        {
            steepest = (step, grad_norm);
        }
    }
    println!("largest gradient: {:.2} at step {}", steepest.1, steepest.0);
    Ok(())
}

fn tensors(run: &Path) -> antlm::Result<()> {
    let trained = Trained::open(run)?;
    for tensor in trained.model.layout().tensors().iter().take(3) {
        let values = &trained.params[tensor.range()]; // f32, row by row
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        println!("{} {:?}: mean {mean:.4}", tensor.name, tensor.shape);
    }
    Ok(())
}

fn export_to(run: &Path, out: &Path) -> antlm::Result<()> {
    let options = export::Options {
        run: run.to_owned(),
        which: export::Which::Last,
        weights: Weights::Last,
        license: Some("mit".into()),
        out: out.to_owned(),
    };
    for folder in export::export(&options, &mut |_, _, _| Ok(()))? {
        println!("{}", folder.display());
    }
    Ok(())
}

fn main() -> antlm::Result<()> {
    let folder = tempfile::tempdir().map_err(antlm::Error::io("a temporary folder"))?;
    let run = train(folder.path())?;
    judge(&run)?;
    judge_pairs(&run)?;
    write(&run)?;
    fill_in(&run)?;
    look_at(&run)?;
    tensors(&run)?;
    export_to(&run, &folder.path().join("my-model"))
}

#[test]
fn it_runs() {
    main().unwrap();
}

/// Every block of the page stands here as it stands there, so that what the page says compiles and runs.
#[test]
fn the_page_shows_this_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../../docs/from-rust.md")).unwrap().replace("\r\n", "\n");
    let program = std::fs::read_to_string(root.join("examples/from_rust.rs")).unwrap().replace("\r\n", "\n");
    let blocks: Vec<&str> = page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 8, "{} blocks", blocks.len());
    for block in blocks {
        assert!(program.contains(block), "docs/from-rust.md shows what the program does not have:\n{block}");
    }
    // And the other way round: no function of the program is missing from the page.
    for line in program.lines().filter(|line| line.starts_with("fn ") && line.contains("antlm::Result")) {
        assert!(page.contains(line), "docs/from-rust.md lacks {line}");
    }
}
