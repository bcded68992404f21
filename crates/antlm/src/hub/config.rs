//! The JSON files of an export: what transformers wants to know of a model and its tokenizer.

use serde_json::{Value, json};

use crate::model::{Config, Kind};
use crate::objective::Backend;
use crate::text::special::{CLS, MASK, PAD, SEP, UNK};
use crate::train::trained::{Trained, Weights};

/// Remote code of the LTG-BERT family: configuration and models.
pub const LTG_BERT_CODE: (&str, &str) =
    ("modeling_antlm_ltg_bert.py", include_str!("remote/modeling_antlm_ltg_bert.py"));
/// Remote code of the Llama family: what transformers' own Llama does not do.
pub const LLAMA_CODE: (&str, &str) = ("modeling_antlm_llama.py", include_str!("remote/modeling_antlm_llama.py"));

/// The `model_type` of our LTG-BERT exports.
pub const LTG_BERT_TYPE: &str = "antlm_ltg_bert";
/// The `model_type` of Llama.
pub const LLAMA_TYPE: &str = "llama";

/// The remote code that an export carries: file name and content.
pub fn code(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::LtgBert => LTG_BERT_CODE,
        Kind::Llama => LLAMA_CODE,
    }
}

/// What a model was taught, for whoever reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The backends that were trained until now, in the order in which each was last taught.
    pub backends: Vec<Backend>,
}

impl Reading {
    /// Of a checkpoint: what it has had, not what its schedule goes on to.
    pub fn of(trained: &Trained) -> Reading {
        Reading { backends: trained.taught() }
    }

    /// The backend of what was taught last; nothing before the first step.
    pub fn last(&self) -> Option<Backend> {
        self.backends.last().copied()
    }

    /// The masked backend that was taught last, if one was.
    pub fn masked(&self) -> Option<Backend> {
        self.backends.iter().copied().rfind(|&backend| backend != Backend::Causal)
    }

    /// The Hub's name for what the model is best at. The `fill-mask` pipeline reads output k about token k, so it does not
    /// fit `mntp`; and nothing fits a model that has learnt nothing.
    pub fn pipeline(&self) -> Option<&'static str> {
        match self.last()? {
            Backend::Mlm => Some("fill-mask"),
            Backend::Mntp if !self.backends.contains(&Backend::Causal) => None,
            Backend::Mntp | Backend::Causal => Some("text-generation"),
        }
    }

    /// `antlm_masked_alignment`: about which token output k of AutoModelForMaskedLM is.
    pub fn alignment(&self) -> &'static str {
        if self.masked() == Some(Backend::Mntp) { NEXT_TOKEN } else { SAME_POSITION }
    }
}

/// Output k is about token k (`mlm`).
pub const SAME_POSITION: &str = "same-position";
/// Output k is about token k + 1 (`mntp`).
pub const NEXT_TOKEN: &str = "next-token";

/// The longest text that readers are told to give: LTG-BERT's positions saturate there, and 512 is what the BabyLM
/// pipelines ask for. It decides no tensor's shape.
pub fn longest(seq_len: usize) -> usize {
    seq_len.max(512)
}

/// `config.json`.
pub fn config(trained: &Trained, weights: Weights) -> Value {
    let c = trained.model.config();
    let reading = Reading::of(trained);
    let (file, _) = code(c.kind);
    let class = |name: &str| format!("{}.{name}", file.trim_end_matches(".py"));
    let mut json = json!({
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "intermediate_size": c.intermediate,
        "max_position_embeddings": longest(trained.recipe.seq_len),
        "bos_token_id": CLS,
        "eos_token_id": SEP,
        "pad_token_id": PAD,
        "torch_dtype": "float32",
        // The pipelines of 4.x look here first; without it they find no tokenizer for a model type that is not theirs.
        "tokenizer_class": TOKENIZER_CLASS,
        "antlm_masked_alignment": reading.alignment(),
        "antlm_bidirectional": reading.masked().is_some(),
        "antlm": origin(trained, weights, &reading),
    });
    let more = match c.kind {
        Kind::LtgBert => json!({
            "model_type": LTG_BERT_TYPE,
            "architectures": [match reading.last() {
                Some(Backend::Causal) => "AntlmLtgBertForCausalLM",
                _ => "AntlmLtgBertForMaskedLM",
            }],
            "auto_map": {
                "AutoConfig": class("AntlmLtgBertConfig"),
                "AutoModel": class("AntlmLtgBertModel"),
                "AutoModelForCausalLM": class("AntlmLtgBertForCausalLM"),
                "AutoModelForMaskedLM": class("AntlmLtgBertForMaskedLM"),
                "AutoModelForSequenceClassification": class("AntlmLtgBertForSequenceClassification"),
            },
            "layer_norm_eps": c.norm_eps,
            "hidden_dropout_prob": c.hidden_dropout,
            "attention_probs_dropout_prob": c.attention_dropout,
            "tie_word_embeddings": true,
            "use_cache": false,
        }),
        Kind::Llama => json!({
            "model_type": LLAMA_TYPE,
            "architectures": ["LlamaForCausalLM"],
            "auto_map": {
                "AutoModel": class("AntlmLlamaModel"),
                "AutoModelForMaskedLM": class("AntlmLlamaForMaskedLM"),
                "AutoModelForSequenceClassification": class("AntlmLlamaForSequenceClassification"),
            },
            "hidden_act": "silu",
            "rms_norm_eps": c.norm_eps,
            "rope_theta": crate::model::llama::THETA,
            "num_key_value_heads": c.heads,
            "head_dim": c.hidden / c.heads,
            "attention_bias": false,
            "mlp_bias": false,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            // transformers 5.2 and later read both sides by `from_pretrained(…, is_causal=False)`, but only where it is known.
            "is_causal": true,
            "tie_word_embeddings": c.tied,
            "use_cache": true,
        }),
    };
    if let (Some(all), Value::Object(more)) = (json.as_object_mut(), more) {
        all.extend(more);
    }
    json
}

/// Where the weights come from; for people and for `antlm import`.
fn origin(trained: &Trained, weights: Weights, reading: &Reading) -> Value {
    let (recipe, state) = (&trained.recipe, &trained.state);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "recipe": recipe.name,
        "schedule": recipe.schedule.to_string(),
        "backends": reading.backends,
        "seq_len": recipe.seq_len,
        "step": state.step,
        "words_seen": state.seen.iter().map(|(objective, seen)| (objective.to_string(), seen.words)).collect::<std::collections::BTreeMap<_, _>>(),
        "text_sha256": state.hashes.data,
        "tokenizer_sha256": state.hashes.tokenizer,
        "averaged_weights": weights == Weights::Average,
    })
}

/// `generation_config.json`.
pub fn generation(kind: Kind) -> Value {
    let mut json = json!({"bos_token_id": CLS, "eos_token_id": SEP, "pad_token_id": PAD});
    if kind == Kind::LtgBert {
        json["use_cache"] = false.into(); // there is none
    }
    json
}

/// `special_tokens_map.json`: every role that some reader asks for has a name. The opening mark is bos and cls, the
/// closing mark is eos and sep.
pub fn special_tokens(kind: Kind) -> Value {
    let names = kind.special_names();
    let name = |id: u32| names[id as usize];
    json!({
        "unk_token": name(UNK),
        "bos_token": name(CLS),
        "cls_token": name(CLS),
        "eos_token": name(SEP),
        "sep_token": name(SEP),
        "pad_token": name(PAD),
        "mask_token": name(MASK),
    })
}

/// Only the general class leaves the space before the first word alone, and it does so only when it is told.
const TOKENIZER_CLASS: &str = "PreTrainedTokenizerFast";

/// `tokenizer_config.json`.
pub fn tokenizer(kind: Kind, seq_len: usize) -> Value {
    let mut json = special_tokens(kind);
    json["tokenizer_class"] = TOKENIZER_CLASS.into();
    json["add_prefix_space"] = true.into();
    json["clean_up_tokenization_spaces"] = false.into();
    json["model_max_length"] = longest(seq_len).into();
    json["padding_side"] = "right".into();
    json["truncation_side"] = "right".into();
    json["model_input_names"] = json!(["input_ids", "attention_mask"]);
    json
}

/// The sizes that a `config.json` of either family has, and whether this build can read such a model.
///
/// # Errors
/// The key, and what is wrong with it.
pub fn sizes(json: &Value) -> Result<Config, (String, String)> {
    let kind = match json["model_type"].as_str() {
        Some("llama") => Kind::Llama,
        Some("antlm_ltg_bert" | "ltgbert" | "ltg-bert" | "ltg_bert") => Kind::LtgBert,
        found => {
            let what = format!("is {found:?}; antlm reads \"llama\", \"{LTG_BERT_TYPE}\" and \"ltgbert\"");
            return Err(("model_type".into(), what));
        }
    };
    let whole = |key: &str| match json[key].as_u64() {
        Some(n) if (1..=1 << 32).contains(&n) => Ok(n as usize),
        _ => Err((key.to_owned(), format!("is {}; expected a whole number above 0", json[key]))),
    };
    // Only what this build computes: a key that is absent, or has the one value that is meant here.
    let only = |key: &str, fine: &[Value]| match &json[key] {
        Value::Null => Ok(()),
        found if fine.iter().any(|value| value == found) => Ok(()),
        found => Err((key.to_owned(), format!("is {found}; antlm's model needs {}", fine[0]))),
    };
    let number = |key: &str, default: f64| match &json[key] {
        Value::Null => Ok(default),
        value => value.as_f64().ok_or_else(|| (key.to_owned(), format!("is {value}; expected a number"))),
    };
    let (hidden, heads) = (whole("hidden_size")?, whole("num_attention_heads")?);
    let (norm_eps, tied, dropouts) = match kind {
        Kind::LtgBert => {
            only("position_bucket_size", &[32.into()])?;
            only("max_position_embeddings", &[512.into()])?;
            only("tie_word_embeddings", &[true.into()])?;
            let dropouts = (number("hidden_dropout_prob", 0.0)?, number("attention_probs_dropout_prob", 0.0)?);
            (number("layer_norm_eps", 1e-7)?, true, dropouts)
        }
        Kind::Llama => {
            only("hidden_act", &["silu".into()])?;
            only("num_key_value_heads", &[heads.into()])?;
            only("head_dim", &[(hidden / heads).into()])?;
            only("attention_bias", &[false.into()])?;
            only("mlp_bias", &[false.into()])?;
            // What is read from both sides here is a matter of the backend; `causal` must mean what it says.
            only("is_causal", &[true.into()])?;
            only("sliding_window", &[Value::Null])?;
            only("use_sliding_window", &[false.into()])?;
            only("partial_rotary_factor", &[json!(1.0), 1.into()])?;
            only("rope_scaling", &[Value::Null])?;
            only("rope_theta", &[json!(10_000.0), 10_000.into()])?;
            let rope = &json["rope_parameters"];
            let whole = &rope["partial_rotary_factor"];
            let plain = rope["rope_type"] == "default"
                && rope["rope_theta"].as_f64() == Some(10_000.0)
                && (whole.is_null() || whole.as_f64() == Some(1.0));
            if !rope.is_null() && !plain {
                let what = format!("is {rope}; antlm's model needs the default with a base of 10000");
                return Err(("rope_parameters".into(), what));
            }
            let tied = match &json["tie_word_embeddings"] {
                Value::Null => false,
                Value::Bool(tied) => *tied,
                other => return Err(("tie_word_embeddings".into(), format!("is {other}; expected true or false"))),
            };
            (number("rms_norm_eps", 1e-6)?, tied, (0.0, 0.0))
        }
    };
    Ok(Config {
        kind,
        layers: whole("num_hidden_layers")?,
        hidden,
        heads,
        intermediate: whole("intermediate_size")?,
        vocab_size: whole("vocab_size")?,
        norm_eps,
        hidden_dropout: dropouts.0,
        attention_dropout: dropouts.1,
        tied,
    })
}

/// Keys of a `config.json` that [`sizes`] reads, or that change nothing of what a model computes from ids.
const KNOWN: &str = "\
    model_type hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size tie_word_embeddings \
    position_bucket_size max_position_embeddings hidden_dropout_prob attention_probs_dropout_prob layer_norm_eps \
    hidden_act num_key_value_heads head_dim attention_bias mlp_bias is_causal sliding_window use_sliding_window \
    partial_rotary_factor rope_scaling rope_theta rope_parameters rms_norm_eps \
    _name_or_path architectures attention_dropout auto_map bos_token_id classifier_dropout cls_token_id dtype eos_token_id \
    id2label initializer_range label2id mask_token_id num_labels output_attentions output_hidden_states pad_token_id \
    pretraining_tp problem_type return_dict sep_token_id tokenizer_class torch_dtype transformers_version unk_token_id \
    use_cache antlm antlm_bidirectional antlm_masked_alignment";

/// What a `config.json` says that this build does not know, and so passes over; nothing if there is nothing.
pub fn unknown(json: &Value) -> Option<String> {
    const SHOWN: usize = 20;
    let known: Vec<&str> = KNOWN.split_whitespace().collect();
    let set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    let all = json.as_object().into_iter().flatten();
    let keys: Vec<&String> =
        all.filter(|(key, value)| set(value) && !known.contains(&&***key)).map(|(key, _)| key).collect();
    if keys.is_empty() {
        return None;
    }
    let shown = keys.iter().take(SHOWN).map(|key| format!("{:?}", key.chars().take(60).collect::<String>()));
    let more = keys.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!("keys that antlm does not know, passed over: {}{more}", shown.collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taught_says_how_a_model_is_read() {
        use Backend::{Causal, Mlm, Mntp};
        type Said = (Option<Backend>, Option<Backend>, &'static str, Option<&'static str>);
        let cases: [(&[Backend], Said); 6] = [
            (&[], (None, None, SAME_POSITION, None)),
            (&[Causal], (Some(Causal), None, SAME_POSITION, Some("text-generation"))),
            (&[Mlm, Mntp, Causal], (Some(Causal), Some(Mntp), NEXT_TOKEN, Some("text-generation"))),
            (&[Causal, Mntp], (Some(Mntp), Some(Mntp), NEXT_TOKEN, Some("text-generation"))),
            (&[Mntp], (Some(Mntp), Some(Mntp), NEXT_TOKEN, None)),
            (&[Mntp, Causal, Mlm], (Some(Mlm), Some(Mlm), SAME_POSITION, Some("fill-mask"))),
        ];
        for (backends, said) in cases {
            let of = Reading { backends: backends.to_vec() };
            assert_eq!((of.last(), of.masked(), of.alignment(), of.pipeline()), said);
        }
    }

    #[test]
    fn foreign_configurations_are_read_or_refused_with_the_key() {
        let llama = json!({
            "model_type": "llama", "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
            "intermediate_size": 48, "vocab_size": 300, "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        });
        let config = sizes(&llama).unwrap();
        assert_eq!((config.kind, config.layers, config.norm_eps, config.tied), (Kind::Llama, 2, 1e-5, false));
        let ltg = json!({
            "model_type": "ltgbert", "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
            "intermediate_size": 48, "vocab_size": 300, "position_bucket_size": 32, "hidden_dropout_prob": 0.1,
        });
        assert_eq!(sizes(&ltg).unwrap().hidden_dropout, 0.1);
        let cases: [(&Value, &str, Value); 12] = [
            (&llama, "model_type", json!("gpt2")),
            (&llama, "model_type", Value::Null),
            (&llama, "hidden_size", json!(-3)),
            (&llama, "num_attention_heads", json!(0)),
            (&llama, "vocab_size", json!("many")),
            (&llama, "num_key_value_heads", json!(2)),
            (&llama, "rope_theta", json!(500000.0)),
            (&llama, "rope_scaling", json!({"type": "linear", "factor": 2.0})),
            (&llama, "rope_parameters", json!({"rope_type": "yarn", "rope_theta": 10000.0})),
            (&llama, "hidden_act", json!("gelu")),
            (&llama, "mlp_bias", json!(true)),
            (&ltg, "position_bucket_size", json!(64)),
        ];
        for (good, key, value) in cases {
            let mut bad = good.clone();
            bad[key] = value;
            assert_eq!(sizes(&bad).unwrap_err().0, key);
        }
    }
}
