//! Small models that were not trained, for the tests of this folder: what is tested does not depend on what they know.

use std::collections::BTreeMap;

use crate::model::{Kind, Model};
use crate::objective::schedule::Schedule;
use crate::recipe;
use crate::text::sample;
use crate::text::tokenizer::Tokenizer;
use crate::train::checkpoint::State;
use crate::train::trained::Trained;

/// A model of random weights, large enough that their outputs differ from token to token, with a tokenizer of the
/// sample text.
pub fn trained(kind: Kind, schedule: &str) -> Trained {
    let name = if kind == Kind::Llama { "babyllama-tiny" } else { "ltg-bert-tiny" };
    let mut recipe = recipe::builtin(name).unwrap();
    recipe.schedule = Schedule::parse(schedule).unwrap();
    let documents: Vec<String> = (0..60).map(|index| sample::document(3, index, sample::Part::Train)).collect();
    let tokenizer = Tokenizer::train(documents, 500, 2, kind).unwrap();
    let m = &mut recipe.model;
    (m.layers, m.hidden, m.heads, m.intermediate, m.vocab_size) = (3, 32, 2, 48, tokenizer.vocab_size());
    let model = Model::new(&recipe.config()).unwrap();
    // Initial weights give nearly the same logits everywhere; three times as large they do not, and the logits are of
    // the size that trained models have (five times is chaos: rounding alone is 1e-5 nats then).
    let mut params = model.init(9);
    for tensor in model.layout().tensors().iter().filter(|tensor| tensor.shape.len() > 1) {
        params[tensor.range()].iter_mut().for_each(|x| *x *= 3.0);
    }
    let seen = recipe.schedule.objectives().into_iter();
    let seen: BTreeMap<_, _> = seen.map(|o| (o, crate::train::checkpoint::Seen { words: 1, targets: 1 })).collect();
    let (run, checkpoint) = Default::default();
    Trained { run, checkpoint, recipe, model, tokenizer, params, state: State { seen, ..State::default() } }
}
