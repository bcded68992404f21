//! Imports from the Hub: config.json, a recipe (or none), the header of model.safetensors and the values, with zero bytes
//! between. The tokenizer is a good one. The header's length is put right, and missing values are zeros.

use std::sync::OnceLock;

use antlm::eval::score::Scorer;
use antlm::hub::import::import;
use antlm::model::Model;
use antlm::recipe::Recipe;
use antlm::text::special::Family;
use antlm::text::tokenizer::Tokenizer;
use serde_json::{Value, json};

/// The most values that are filled up, in bytes.
const MOST: u64 = 1 << 16;

pub fn run(data: &[u8]) -> bool {
    let Some((way, rest)) = crate::choice(data, 2) else { return false };
    let [config, recipe, header, values] = crate::parts(rest);
    let from = crate::place("hub");
    let out = crate::place("imported");
    std::fs::create_dir_all(&from).expect("a temporary folder");
    let put = |name: &str, bytes: &[u8]| std::fs::write(from.join(name), bytes).expect("a temporary file");
    put("config.json", config);
    let _ = std::fs::remove_file(from.join("antlm_recipe.toml"));
    if !recipe.is_empty() {
        put("antlm_recipe.toml", recipe);
    }
    put("tokenizer.json", tokenizers()[way].as_bytes());
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header);
    weights.extend(values);
    weights.resize(weights.len().max(8 + header.len() + end(header)), 0);
    put("model.safetensors", &weights);

    let before = crate::names(from.parent().unwrap_or(&from));
    let foreign = crate::read(import(&from, &out));
    assert_eq!(out.exists(), foreign.is_some());
    let Some(foreign) = foreign else {
        assert_eq!(crate::names(from.parent().unwrap_or(&from)), before, "something was left");
        return false;
    };
    assert_eq!(crate::names(&out), ["checkpoints", "recipe.toml", "tokenizer.json"]);
    let mut scorer = Scorer::open(&out).expect("what was imported is read");
    let text = "the cat";
    let last = scorer.last();
    if foreign.params.iter().all(|x| x.abs() < 1.0) {
        let score = scorer.score(text, last).expect("a score");
        assert!(score.total <= 0.0 && score.total.is_finite(), "{score:?}");
    }
    std::fs::remove_dir_all(&out).expect("a temporary folder");
    true
}

/// Where the header says that the values end.
fn end(header: &[u8]) -> usize {
    let json: Value = serde_json::from_slice(header).unwrap_or_default();
    let tensors = json.as_object().into_iter().flatten();
    let ends = tensors.filter_map(|(_, tensor)| tensor["data_offsets"][1].as_u64());
    ends.filter(|&end| end <= MOST).max().unwrap_or(0) as usize
}

/// One of each family.
fn tokenizers() -> &'static [String; 2] {
    static MADE: OnceLock<[String; 2]> = OnceLock::new();
    MADE.get_or_init(|| {
        [Family::LtgBert, Family::Llama].map(|family| {
            let tokenizer = Tokenizer::train(["the cat"], 261, 2, family).expect("a tokenizer");
            tokenizer.to_json().expect("it is written")
        })
    })
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (way, base, model_type) in [(0, "ltg-bert-tiny", "ltgbert"), (1, "babyllama-tiny", "llama")] {
        let set = ["layers=1", "hidden=2", "heads=1", "intermediate=1", "vocab_size=261"];
        let set = set.map(|key| format!("model.{key}"));
        let recipe = Recipe::load(base, &set).expect("a built-in recipe");
        let model = Model::new(&recipe.model).expect("a model");
        let c = model.config();
        let config = json!({
            "model_type": model_type, "hidden_size": c.hidden, "num_attention_heads": c.heads,
            "num_hidden_layers": c.layers, "intermediate_size": c.intermediate, "vocab_size": c.vocab_size,
            "tie_word_embeddings": c.tied, "antlm": {"schedule": recipe.schedule.to_string()},
        });
        for (dtype, bytes) in [("F32", 4), ("BF16", 2)] {
            let mut header = serde_json::Map::new();
            for tensor in model.layout().tensors() {
                let [from, to] = [tensor.range().start, tensor.range().end].map(|at| at * bytes);
                let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [from, to]});
                header.insert(tensor.name.clone(), entry);
            }
            let recipe = if bytes == 4 { recipe.to_toml().expect("a recipe") } else { String::new() };
            let text = format!("{config}\0{recipe}\0{}\0", Value::from(header));
            seeds.push([&[way], text.as_bytes(), &[1, 2, 3]].concat());
        }
    }
    seeds
}
