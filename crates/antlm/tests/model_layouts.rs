//! What a new model is: names, sizes, decay and first values, as models.md of the specification has them.

use antlm::model::{Config, Kind, Model};
use antlm::recipe::{self, size};
use antlm::text::special::PAD;

/// layers, hidden, heads, intermediate, vocabulary
fn config(kind: Kind, [layers, hidden, heads, intermediate, vocab_size]: [usize; 5], tied: bool) -> Config {
    let norm_eps = if kind == Kind::Llama { 1e-6 } else { 1e-7 };
    Config {
        kind,
        layers,
        hidden,
        heads,
        intermediate,
        vocab_size,
        norm_eps,
        hidden_dropout: 0.0,
        attention_dropout: 0.0,
        tied,
    }
}

/// Counted on the reference implementations (models.md, section 1).
#[test]
fn published_numbers_of_parameters() {
    let published = [
        (config(Kind::LtgBert, [12, 768, 12, 2048, 16384], true), 98_229_760),
        (config(Kind::LtgBert, [12, 384, 6, 1024, 16384], true), 27_741_952),
        (config(Kind::LtgBert, [12, 192, 3, 512, 16384], true), 8_533_888),
        (config(Kind::Llama, [16, 512, 8, 1024, 16000], false), 58_343_936),
        (config(Kind::Llama, [8, 256, 8, 1024, 16000], false), 16_584_960),
        (config(Kind::Llama, [24, 1024, 8, 3072, 16000], false), 359_973_888),
        (config(Kind::Llama, [10, 768, 12, 2048, 16000], false), 95_371_008),
        (config(Kind::Llama, [12, 768, 12, 2048, 16000], true), 97_241_856),
        (config(Kind::Llama, [12, 768, 12, 2048, 16000], false), 109_529_856),
    ];
    for (config, parameters) in published {
        assert_eq!(Model::new(&config).unwrap().layout().len(), parameters, "{config:?}");
        assert_eq!(size::parameters(&config), parameters as u64, "{config:?}");
    }
}

#[test]
fn every_recipe_has_as_many_parameters_as_its_plan_says() {
    for name in recipe::names() {
        let config = recipe::builtin(&name).unwrap().model;
        assert_eq!(Model::new(&config).unwrap().layout().len() as u64, size::parameters(&config), "{name}");
    }
}

/// Name, shape and decay of every tensor, in the order of the buffer.
fn tensors(config: &Config) -> Vec<(String, Vec<usize>, bool)> {
    let model = Model::new(config).unwrap();
    model.layout().tensors().iter().map(|t| (t.name.clone(), t.shape.clone(), t.decay)).collect()
}

fn check(config: &Config, wanted: &[(&str, &[usize], bool)]) {
    let wanted: Vec<_> = wanted.iter().map(|(name, shape, decay)| (name.to_string(), shape.to_vec(), *decay)).collect();
    assert_eq!(tensors(config), wanted);
}

#[test]
fn names_of_ltg_bert() {
    let config = config(Kind::LtgBert, [1, 8, 2, 12, 30], true);
    check(
        &config,
        &[
            ("embedding.word_embedding.weight", &[30, 8], false),
            ("embedding.relative_embedding", &[63, 8], false),
            ("embedding.relative_layer_norm.weight", &[8], false),
            ("embedding.relative_layer_norm.bias", &[8], false),
            ("transformer.layers.0.attention.in_proj_qk.weight", &[16, 8], true),
            ("transformer.layers.0.attention.in_proj_v.weight", &[8, 8], true),
            ("transformer.layers.0.attention.in_proj_qk.bias", &[16], false),
            ("transformer.layers.0.attention.in_proj_v.bias", &[8], false),
            ("transformer.layers.0.attention.out_proj.weight", &[8, 8], true),
            ("transformer.layers.0.attention.out_proj.bias", &[8], false),
            ("transformer.layers.0.attention.post_layer_norm.weight", &[8], false),
            ("transformer.layers.0.attention.post_layer_norm.bias", &[8], false),
            ("transformer.layers.0.mlp.mlp.1.weight", &[24, 8], true),
            ("transformer.layers.0.mlp.mlp.4.weight", &[8, 12], true),
            ("classifier.nonlinearity.1.weight", &[8, 8], true),
            ("classifier.nonlinearity.1.bias", &[8], false),
            ("classifier.nonlinearity.5.bias", &[30], false),
        ],
    );
}

#[test]
fn names_of_llama() {
    let all: [(&str, &[usize], bool); 12] = [
        ("model.embed_tokens.weight", &[30, 8], true),
        ("model.layers.0.input_layernorm.weight", &[8], false),
        ("model.layers.0.self_attn.q_proj.weight", &[8, 8], true),
        ("model.layers.0.self_attn.k_proj.weight", &[8, 8], true),
        ("model.layers.0.self_attn.v_proj.weight", &[8, 8], true),
        ("model.layers.0.self_attn.o_proj.weight", &[8, 8], true),
        ("model.layers.0.post_attention_layernorm.weight", &[8], false),
        ("model.layers.0.mlp.gate_proj.weight", &[12, 8], true),
        ("model.layers.0.mlp.up_proj.weight", &[12, 8], true),
        ("model.layers.0.mlp.down_proj.weight", &[8, 12], true),
        ("model.norm.weight", &[8], false),
        ("lm_head.weight", &[30, 8], true),
    ];
    check(&config(Kind::Llama, [1, 8, 2, 12, 30], false), &all);
    check(&config(Kind::Llama, [1, 8, 2, 12, 30], true), &all[..11]);
}

/// Root mean square of the values, and the largest.
fn spread(values: &[f32]) -> (f64, f64) {
    let squares: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let largest = values.iter().fold(0.0, |most, x| x.abs().max(most));
    ((squares / values.len() as f64).sqrt(), f64::from(largest))
}

/// Whether a measured spread of n values is the wanted one: four standard errors of a normal sample.
fn as_wide(got: f64, want: f64, n: usize) -> bool {
    (got / want - 1.0).abs() < 4.0 / (2.0 * n as f64).sqrt()
}

#[test]
fn first_values_of_ltg_bert() {
    let config = config(Kind::LtgBert, [4, 96, 2, 200, 500], true);
    let model = Model::new(&config).unwrap();
    let params = model.init(9);
    let sigma = (2.0f64 / (5.0 * 96.0)).sqrt();
    for tensor in model.layout().tensors() {
        let (name, values) = (&tensor.name, &params[tensor.range()]);
        if tensor.shape.len() == 1 {
            let all = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
            assert!(values.iter().all(|&x| x == all), "{name}");
            continue;
        }
        let layer = name.strip_prefix("transformer.layers.").and_then(|rest| rest.split('.').next());
        let scale = match layer {
            Some(l) if name.contains(".mlp.") => (1.0 / (2.0 * (1.0 + l.parse::<f64>().unwrap()))).sqrt(),
            _ => 1.0,
        };
        let (std, largest) = spread(values);
        // 0.880: what is left of the spread of a normal distribution without its values beyond two sigma.
        assert!(as_wide(std, 0.880 * sigma * scale, values.len()), "{name}: {std}");
        assert!(largest <= 2.0 * sigma * scale * 1.000_001, "{name}: {largest}");
    }
    assert_eq!(params, model.init(9));
    assert_ne!(params, model.init(10));
}

#[test]
fn first_values_of_llama() {
    for tied in [false, true] {
        let config = config(Kind::Llama, [2, 96, 2, 200, 500], tied);
        let model = Model::new(&config).unwrap();
        let params = model.init(9);
        for tensor in model.layout().tensors() {
            let (name, values) = (&tensor.name, &params[tensor.range()]);
            if tensor.shape.len() == 1 {
                assert!(values.iter().all(|&x| x == 1.0), "{name}");
                continue;
            }
            let empty: Vec<usize> = values
                .chunks(tensor.shape[1])
                .enumerate()
                .filter(|(_, row)| row.iter().all(|&x| x == 0.0))
                .map(|(r, _)| r)
                .collect();
            let padding = if name == "model.embed_tokens.weight" { vec![PAD as usize] } else { vec![] };
            assert_eq!(empty, padding, "{name}: rows of zeros");
            let filled: Vec<f32> = values.iter().copied().filter(|&x| x != 0.0).collect();
            assert!(as_wide(spread(&filled).0, 0.02, filled.len()), "{name}: {}", spread(&filled).0);
        }
    }
}
