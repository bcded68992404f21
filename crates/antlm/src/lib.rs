//! antlm pretrains small language models that read both ways: causal and masked language modelling by turns on one
//! transformer (AntLM, Yu et al., CoNLL BabyLM 2024).
//!
//! Data flows one way: text -> tokens -> objective -> model -> loss -> optimiser -> checkpoint. ARCHITECTURE.md says
//! which folder does what and which rules hold between them.
//!
//! The whole way, on text that the library makes itself (a model of one layer, so that it takes a moment only):
//!
//! ```
//! use antlm::eval::score::Scorer;
//! use antlm::objective::Backend;
//! use antlm::recipe::Recipe;
//! use antlm::text::{prepare, sample};
//! use antlm::train::events::Event;
//! use antlm::train::{input, run};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let text = folder.path().join("text.txt");
//! sample::write(3000, 1, sample::Part::Train, &mut std::fs::File::create(&text).unwrap()).unwrap();
//!
//! // A built-in recipe, or the path of one; then keys to change, as `antlm train --set` does.
//! let set = ["schedule=1 clm + 1 mntp", "seq_len=32", "model.layers=1", "model.hidden=32", "model.vocab_size=400"];
//! let recipe = Recipe::load("antlm-mntp-ltg-bert-tiny", &set.map(String::from))?;
//!
//! // Tokenizer and tokens; the two closures are told how far it is, and asked whether to stop.
//! let options = input::options(&recipe, &[text], &[])?;
//! let prepared = prepare::prepare(&options, folder.path().join("prepared"), &mut |_| {}, &|| false)?;
//!
//! // The run tells a listener what happens. `run::resume` opens one that was stopped.
//! let out = folder.path().join("run");
//! let mut losses = Vec::new();
//! let mut listener = |event: &Event| {
//!     if let Event::Step { loss, .. } = event {
//!         losses.push(*loss);
//!     }
//!     Ok(())
//! };
//! run::create(&recipe, prepared, &out)?.train(&mut listener, &|| None)?;
//! assert!(losses.last() < losses.first());
//!
//! // Log-probabilities in nats: one for every token but the opening mark.
//! let score = Scorer::open(&out)?.score("The dogs sleep.", Backend::Causal)?;
//! assert!(score.logprobs[0].is_none() && score.total < 0.0);
//! # Ok::<(), antlm::Error>(())
//! ```

pub mod bench;
pub mod demo;
pub mod error;
pub mod eval;
pub mod files;
pub mod hub;
pub mod model;
pub mod objective;
pub mod recipe;
pub mod suggest;
pub mod sweep;
pub mod tensor_file;
pub mod text;
pub mod train;

pub use error::{Error, Result};
