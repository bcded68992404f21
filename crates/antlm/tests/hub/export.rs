//! What an export is made of: files, configuration, names and shapes; which checkpoint; what is refused.

use std::path::Path;

use antlm::files;
use antlm::hub::config::{LLAMA_CODE, LTG_BERT_CODE};
use antlm::hub::{Which, export};
use antlm::model::Model;
use antlm::recipe::Recipe;
use antlm::train::trained::{Trained, Weights};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::folder::{Folder, names, options, save, save_seen};

fn read(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}

/// Whoever changes the remote code runs `cargo xtask check-export` and writes the new sums here.
#[test]
fn the_remote_code_is_what_was_checked() {
    let sums = [LTG_BERT_CODE, LLAMA_CODE].map(|(name, code)| (name, files::sha256(code.as_bytes())));
    assert_eq!(
        sums,
        [
            (
                "modeling_antlm_ltg_bert.py",
                "70d1ef8b0bb3fc4b1047e06537a2b5e37091118743219828abbe5fc7aa34b76c".to_owned()
            ),
            ("modeling_antlm_llama.py", "5c1f3702545c189bfb4e2f94d0892302f644896b0cd4a3ed88bc9b337be940dc".to_owned()),
        ]
    );
}

#[test]
fn an_ltg_bert_has_these_files() {
    let folder = Folder::new();
    let run = folder.run("run", "ltg-bert-tiny", &["schedule=1 clm + 2 mntp"]);
    let out = folder.export(&run, "model");
    assert_eq!(
        names(&out),
        [
            "README.md",
            "antlm_recipe.toml",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "modeling_antlm_ltg_bert.py",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
    let class = |name: &str| format!("modeling_antlm_ltg_bert.AntlmLtgBert{name}");
    let wanted = json!({
        "model_type": "antlm_ltg_bert",
        "architectures": ["AntlmLtgBertForMaskedLM"],
        "auto_map": {
            "AutoConfig": class("Config"),
            "AutoModel": class("Model"),
            "AutoModelForCausalLM": class("ForCausalLM"),
            "AutoModelForMaskedLM": class("ForMaskedLM"),
            "AutoModelForSequenceClassification": class("ForSequenceClassification"),
        },
        "vocab_size": 270, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 512, "layer_norm_eps": 1e-7, "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
        "tie_word_embeddings": true, "use_cache": false, "torch_dtype": "float32", "tokenizer_class": "PreTrainedTokenizerFast",
        "antlm_masked_alignment": "next-token", "antlm_bidirectional": true,
        "antlm": {
            "version": env!("CARGO_PKG_VERSION"), "recipe": "ltg-bert-tiny", "schedule": "1 clm + 2 mntp",
            "backends": ["causal", "mntp"], "seq_len": 24, "step": 7, "words_seen": {"clm": 7000, "mntp": 7000}, "text_sha256": "aa",
            "tokenizer_sha256": antlm::files::sha256_file(&run.join("tokenizer.json")).unwrap(), "averaged_weights": false,
        },
    });
    assert_eq!(read(&out, "config.json"), wanted);
    tensors_are_those_of_the_model(&run, &out);
    the_tokenizer_names_everything(&out, ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]);
    let generation = json!({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "use_cache": false});
    assert_eq!(read(&out, "generation_config.json"), generation);
    let code = std::fs::read_to_string(out.join("modeling_antlm_ltg_bert.py")).unwrap();
    assert_eq!(code, LTG_BERT_CODE.1);
    // Every class that the configuration names is there.
    for class in wanted["auto_map"].as_object().unwrap().values() {
        let name = class.as_str().unwrap().rsplit('.').next().unwrap();
        assert!(code.contains(&format!("class {name}(")), "{name}");
    }
}

/// What a checkpoint has had decides how it is read, not what its schedule goes on to; so it is after an import.
#[test]
fn a_milestone_says_what_it_has_had() {
    use antlm::objective::Objective::{self, Clm, Mlm, Mntp};
    let folder = Folder::new();
    let run = folder.run("run", "ltg-bert-tiny", &["schedule=1 clm + 1 mlm + 1 mntp + 1 clm"]);
    let (recipe, _) = Recipe::read(&run.join("recipe.toml")).unwrap();
    std::fs::create_dir(run.join("milestones")).unwrap();
    type Case<'a> =
        (&'a str, &'a [Objective], Option<u64>, &'a [&'a str], &'a str, bool, Option<&'a str>, &'a [&'a str]);
    let cases: [Case; 4] = [
        (
            "chck_0M",
            &[],
            None,
            &[],
            "same-position",
            false,
            None,
            &["not trained yet", "learnt nothing yet", "the head reads the last token"],
        ),
        (
            "chck_1M",
            &[Clm],
            Some(0),
            &["causal"],
            "same-position",
            false,
            Some("text-generation"),
            &["by causal language modelling alone", "Read it by `causal`, which", "the head reads the last token"],
        ),
        (
            "chck_2M",
            &[Clm, Mlm],
            Some(1),
            &["causal", "mlm"],
            "same-position",
            true,
            Some("fill-mask"),
            &["It reads both ways", "Read it by `causal` and `mlm`, which", "the head reads the first token"],
        ),
        (
            "chck_3M",
            &[Clm, Mlm, Mntp],
            Some(3),
            &["mlm", "mntp", "causal"],
            "next-token",
            true,
            Some("text-generation"),
            &["It reads both ways", "is about token k + 1 (backend `mntp`)"],
        ),
    ];
    for (number, (name, seen, block, backends, alignment, both, pipeline, words)) in cases.into_iter().enumerate() {
        let step = number as u64 + 20;
        save_seen(&run, &recipe, step, seen, block);
        let place = run.join("milestones").join(name);
        std::fs::rename(run.join(format!("checkpoints/step-{step:09}")), &place).unwrap();
        let out = folder.export(&place, name);
        let config = read(&out, "config.json");
        assert_eq!(config["antlm"]["backends"], json!(backends), "{name}");
        assert_eq!(
            (&config["antlm_masked_alignment"], &config["antlm_bidirectional"]),
            (&alignment.into(), &both.into())
        );
        let card = std::fs::read_to_string(out.join("README.md")).unwrap();
        let tag = card.lines().find_map(|line| line.strip_prefix("pipeline_tag: "));
        assert_eq!(tag, pipeline, "{name}");
        let revision = format!("revision=\"{name}\"");
        let path = format!("path = \"{name}\"");
        for words in words.iter().copied().chain([&*revision, &*path]) {
            assert!(card.contains(words), "{words}: {card}");
        }
        let again = folder.path(&format!("{name}-again"));
        antlm::hub::import(&out, &again).unwrap();
        let (one, two) = (Trained::open(&place).unwrap(), Trained::open(&again).unwrap());
        assert_eq!((one.taught(), one.trained()), (two.taught(), two.trained()));
        let mut sorted = backends.to_vec();
        sorted.sort_unstable();
        assert_eq!(json!(one.trained()), json!(sorted));
    }
}

#[test]
fn a_llama_is_a_plain_one() {
    let folder = Folder::new();
    for tied in [false, true] {
        let set = format!("model.tied={tied}");
        let run = folder.run(&format!("run-{tied}"), "babyllama-tiny", &[&set, "schedule=2 clm"]);
        let out = folder.export(&run, &format!("model-{tied}"));
        let class = |name: &str| format!("modeling_antlm_llama.AntlmLlama{name}");
        let mut found = read(&out, "config.json");
        found.as_object_mut().unwrap().remove("antlm");
        let wanted = json!({
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "auto_map": {
                "AutoModel": class("Model"),
                "AutoModelForMaskedLM": class("ForMaskedLM"),
                "AutoModelForSequenceClassification": class("ForSequenceClassification"),
            },
            "vocab_size": 270, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8,
            "num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": false, "mlp_bias": false,
            "attention_dropout": 0.0, "initializer_range": 0.02, "is_causal": true, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
            "tie_word_embeddings": tied, "use_cache": true, "torch_dtype": "float32", "tokenizer_class": "PreTrainedTokenizerFast",
            "antlm_masked_alignment": "same-position", "antlm_bidirectional": false,
        });
        assert_eq!(found, wanted);
        for class in wanted["auto_map"].as_object().unwrap().values() {
            let name = class.as_str().unwrap().rsplit('.').next().unwrap();
            assert!(LLAMA_CODE.1.contains(&format!("class {name}(")), "{name}");
        }
        let generation = json!({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3});
        assert_eq!(read(&out, "generation_config.json"), generation);
        tensors_are_those_of_the_model(&run, &out);
        the_tokenizer_names_everything(&out, ["<unk>", "<s>", "</s>", "<pad>", "<mask>"]);
        let bytes = std::fs::read(out.join("model.safetensors")).unwrap();
        let names = SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(String::from).collect::<Vec<_>>();
        assert_eq!(names.contains(&"lm_head.weight".to_owned()), !tied);
    }
}

/// Names, shapes and values of the file are those of the run's newest checkpoint; the metadata is what the Hub wants.
fn tensors_are_those_of_the_model(run: &Path, out: &Path) {
    let (recipe, _) = Recipe::read(&run.join("recipe.toml")).unwrap();
    let model = Model::new(&recipe.config()).unwrap();
    let params = model.init(7);
    let bytes = std::fs::read(out.join("model.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), model.layout().tensors().len());
    for tensor in model.layout().tensors() {
        let found = file.tensor(&tensor.name).unwrap();
        assert_eq!(found.shape(), tensor.shape, "{}", tensor.name);
        let values: Vec<u8> = params[tensor.range()].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert!(found.data() == values, "{}", tensor.name);
    }
}

/// All six roles besides the unknown token, the opening mark alone in front, and a space before the first word.
fn the_tokenizer_names_everything(out: &Path, [unk, open, close, pad, mask]: [&str; 5]) {
    let map = json!({
        "unk_token": unk, "bos_token": open, "cls_token": open, "eos_token": close, "sep_token": close, "pad_token": pad,
        "mask_token": mask,
    });
    assert_eq!(read(out, "special_tokens_map.json"), map);
    let mut config = read(out, "tokenizer_config.json");
    for (key, name) in map.as_object().unwrap() {
        assert_eq!(config.as_object_mut().unwrap().remove(key).as_ref(), Some(name));
    }
    let wanted = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": true, "clean_up_tokenization_spaces": false,
        "model_max_length": 512, "padding_side": "right", "truncation_side": "right",
        "model_input_names": ["input_ids", "attention_mask"],
    });
    assert_eq!(config, wanted);
    let tokenizer = tokenizers::Tokenizer::from_file(out.join("tokenizer.json")).unwrap();
    let tokens = |encoding: tokenizers::Encoding| encoding.get_tokens().to_vec();
    let found = tokens(tokenizer.encode("the cat", true).unwrap());
    assert_eq!((found[0].as_str(), found[1].as_str(), found.contains(&close.to_owned())), (open, "\u{120}the", false));
    let pair = tokens(tokenizer.encode(("the", "the"), true).unwrap());
    assert_eq!(pair, [open, "\u{120}the", open, "\u{120}the"]);
}

#[test]
fn the_card_says_what_is_known_and_no_place_of_this_machine() {
    let folder = Folder::new();
    let run = folder.run("run", "ltg-bert-tiny", &["schedule=1 clm + 1 mlm"]);
    let out = folder.path("card");
    let options = antlm::hub::Options { license: Some("mit".into()), ..options(&run, &out) };
    export(&options, &mut |_, _, _| Ok(())).unwrap();
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    for words in [
        "license: \"mit\"",
        "pipeline_tag: fill-mask",
        "# card\n",
        "`1 clm + 1 mlm`",
        "| words seen, `clm` | 7,000 (10,500 targets) |",
        "| text (SHA-256 of the prepared text) | `aa` |",
        "is about token k (backend `mlm`)",
        "Nothing was measured at this checkpoint",
        "Licence: mit.",
        "childes.train",
    ] {
        assert!(card.contains(words), "{words}: {card}");
    }
    for name in names(&out) {
        let text = String::from_utf8_lossy(&std::fs::read(out.join(&name)).unwrap()).into_owned();
        assert!(!text.contains("/home/me"), "{name} tells a folder");
    }
}

#[test]
fn scores_of_these_very_weights_are_in_the_card() {
    use antlm::eval::results::TaskResult;
    let folder = Folder::new();
    let run = folder.run("run", "ltg-bert-tiny", &[]);
    let weights = files::sha256_file(&run.join("checkpoints/step-000000007/model.safetensors")).unwrap();
    for (task, weights, limit) in
        [("blimp", weights.as_str(), None), ("ewok", "others", None), ("wug-adj", &weights, Some(5))]
    {
        let mut result = TaskResult::new(task, "2026");
        (result.backend, result.metric, result.score, result.n) =
            (Some(antlm::objective::Backend::Mlm), "accuracy".into(), 61.25, 59875);
        (result.checkpoint.name, result.checkpoint.weights, result.limit) =
            ("step-000000007".into(), weights.into(), limit);
        result.write(&result.path(&run)).unwrap();
    }
    let card = std::fs::read_to_string(folder.export(&run, "model").join("README.md")).unwrap();
    assert!(card.contains("| blimp | `mlm` | 2026 | accuracy | 61.25 | 59,875 |"), "{card}");
    assert!(!card.contains("ewok") && !card.contains("wug-adj"), "{card}");
}

/// A number stands with what decides it: which files, ties, and how a fine-tuning was set.
#[test]
fn scores_stand_with_how_they_were_measured() {
    use antlm::eval::finetune::{data::Task, presets::Preset};
    use antlm::eval::results::TaskResult;
    let folder = Folder::new();
    let run = folder.run("run", "ltg-bert-tiny", &[]);
    let weights = files::sha256_file(&run.join("checkpoints/step-000000007/model.safetensors")).unwrap();
    let write = |mut result: TaskResult, n: u64| {
        (result.metric, result.score, result.n) = ("accuracy".into(), 47.5, n);
        result.data = "0123456789abcdef".into();
        (result.checkpoint.name, result.checkpoint.weights) = ("step-000000007".into(), weights.clone());
        result.write(&result.path(&run)).unwrap();
    };
    // Two of BLiMP's 67 files, one of them whole, with ties.
    let mut blimp = TaskResult::new("blimp", "2026");
    blimp.backend = Some(antlm::objective::Backend::Causal);
    blimp.ties = 3;
    blimp.outcomes.insert("adjunct_island".into(), "1".repeat(928));
    blimp.outcomes.insert("causative".into(), "=10=".repeat(10));
    write(blimp, 968);
    let mut wug = TaskResult::new("wug-past", "2026");
    wug.backend = Some(antlm::objective::Backend::Mlm);
    wug.outcomes.insert("wug_past_tense".into(), "1".repeat(50));
    write(wug, 50);
    let tuned = |task: Task, n: u64, change: &[(&str, &str)]| {
        let mut result = TaskResult::new(task.name(), "2026");
        result.seed = Some(42);
        result.settings = Preset::Y2026.settings(task).listed();
        let all =
            [("select", "official"), ("chosen_by", "accuracy"), ("read", "both sides"), ("vector", "first token")];
        for (key, value) in all.iter().chain(change) {
            result.settings.insert((*key).into(), (*value).into());
        }
        write(result, n);
    };
    tuned(Task::Wsc, 52, &[]);
    let changed = [("lr", "0.1"), ("length", "32"), ("epochs", "1"), ("select", "holdout"), ("read", "causal")];
    tuned(Task::Rte, 139, &[&changed[..], &[("vector", "last token but one")]].concat());
    tuned(Task::Boolq, 1635, &[("lr", "0.1")]);
    let card = std::fs::read_to_string(folder.export(&run, "model").join("README.md")).unwrap();
    for words in [
        "| blimp | `causal` | 2026 | accuracy | 47.50 | 968 | 3 | no: 968 of 59,875 | `0123456789ab` |",
        "| wug-past | `mlm` | 2026 | accuracy | 47.50 | 50 | 0 | yes | `0123456789ab` |",
        "| rte | fine-tuned | 2026, seed 42 | accuracy | 47.50 | 139 | — | yes | `0123456789ab` |",
        "- Fine-tuned wsc (2026, seed 42): read from both sides, the head on the first token, the epoch chosen by accuracy on \
         the scored rows, as the official script does it (the best epoch) (`--select official`); all else as in the preset.",
        "- Fine-tuned rte (2026, seed 42): read from the left, the head on the last token but one, the epoch chosen by \
         accuracy on a tenth of the training rows (`--select holdout`); not the preset's settings: `epochs` 1 (not 10), \
         `length` 32 (not 512), `lr` 0.1 (not 0.00003).",
        "- Fine-tuned boolq (2026, seed 42): read from both sides",
        "over all items of the files that were given",
    ] {
        assert!(card.contains(words), "{words}: {card}");
    }
    assert!(!card.contains("all items of a task"));
}

#[test]
fn checkpoints_are_chosen_by_step_name_and_path() {
    let folder = Folder::new();
    let run = folder.run("run", "ltg-bert-tiny", &[]);
    let (recipe, _) = Recipe::read(&run.join("recipe.toml")).unwrap();
    save(&run, &recipe, 12);
    let step = |which: Which, weights: Weights, name: &str| {
        let out = folder.path(name);
        let options = antlm::hub::Options { which, weights, ..options(&run, &out) };
        export(&options, &mut |_, _, _| Ok(())).unwrap();
        let config = read(&out, "config.json");
        (config["antlm"]["step"].as_u64().unwrap(), config["antlm"]["averaged_weights"] == true)
    };
    assert_eq!(step(Which::Last, Weights::Last, "a"), (12, false));
    assert_eq!(step(Which::One("step-7".into()), Weights::Last, "b"), (7, false));
    assert_eq!(step(Which::One("7".into()), Weights::Average, "c"), (7, true));
    let path = run.join("checkpoints/step-000000007");
    assert_eq!(step(Which::One(path.display().to_string()), Weights::Last, "d"), (7, false));
    let one = folder.export(&path, "e");
    assert_eq!(read(&one, "config.json")["antlm"]["step"], 7);
    let bytes = |name: &str| std::fs::read(folder.path(name).join("model.safetensors")).unwrap();
    assert!(
        bytes("b") == bytes("d") && bytes("b") == bytes("e") && bytes("b") != bytes("c") && bytes("a") != bytes("b")
    );
}

#[test]
fn every_milestone_gets_a_folder_of_its_own() {
    let folder = Folder::new();
    let run = folder.run("run", "babyllama-tiny", &[]);
    let (recipe, _) = Recipe::read(&run.join("recipe.toml")).unwrap();
    let milestones = |out: &str| {
        let options = antlm::hub::Options { which: Which::Milestones, ..options(&run, &folder.path(out)) };
        export(&options, &mut |_, _, _| Ok(()))
    };
    let none = milestones("none").unwrap_err().to_string();
    assert!(none.contains("no milestones") && none.contains("--checkpoint"), "{none}");
    std::fs::create_dir(run.join("milestones")).unwrap();
    for (step, name) in [(3, "chck_1M"), (20, "chck_10M"), (9, "chck_2M")] {
        save(&run, &recipe, step);
        let place = run.join(format!("checkpoints/step-{step:09}"));
        std::fs::rename(place, run.join("milestones").join(name)).unwrap();
    }
    let written = milestones("all").unwrap();
    let out = folder.path("all");
    assert_eq!(written, ["chck_1M", "chck_2M", "chck_10M"].map(|name| out.join(name)));
    // No configuration above them: a reader that asks the folder for a revision fails instead of reading the wrong one.
    assert_eq!(names(&out), ["chck_10M", "chck_1M", "chck_2M"]);
    assert_eq!(read(&out.join("chck_2M"), "config.json")["antlm"]["step"], 9);
    let options = antlm::hub::Options { which: Which::One("chck_10M".into()), ..options(&run, &folder.path("one")) };
    export(&options, &mut |_, _, _| Ok(())).unwrap();
    assert_eq!(read(&folder.path("one"), "config.json")["antlm"]["step"], 20);
    // A damaged one: nothing at all is left.
    std::fs::write(run.join("milestones/chck_2M/model.safetensors"), "x").unwrap();
    assert!(milestones("broken").unwrap_err().to_string().contains("chck_2M"));
    assert!(!names(&folder.path("")).iter().any(|name| name.contains("broken")), "{:?}", names(&folder.path("")));
}

#[test]
fn what_cannot_be_exported_is_refused_with_a_word_of_why() {
    let folder = Folder::new();
    let run = folder.run("run", "ltg-bert-tiny", &["optimizer.ema_decay=0.0"]);
    let other = folder.run("other", "ltg-bert-tiny", &[]);
    let before = names(&folder.path(""));
    let refused = |change: &dyn Fn(&mut antlm::hub::Options), words: &[&str]| {
        let mut options = options(&run, &folder.path("new"));
        change(&mut options);
        let error = export(&options, &mut |_, _, _| Ok(())).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{error}");
        assert_eq!(names(&folder.path("")), before);
    };
    refused(&|o| o.out = folder.path("antlm-0.5"), &["dot", "antlm-0-5"]);
    refused(&|o| o.out = run.clone(), &["exists already"]);
    refused(&|o| o.run = folder.path("nowhere"), &["nowhere"]);
    refused(&|o| o.which = Which::One("step-99".into()), &["step-99", "step-7"]);
    refused(&|o| o.which = Which::One("../../etc".into()), &["no checkpoint"]);
    let others = other.join("checkpoints/step-000000007").display().to_string();
    refused(&|o| o.which = Which::One(others.clone()), &["another run"]);
}

/// A signal before any file: nothing is left, and no file is begun after it.
#[test]
fn a_stopped_export_leaves_nothing() {
    let folder = Folder::new();
    let run = folder.run("run", "ltg-bert-tiny", &["optimizer.ema_decay=0.0"]);
    let before = names(&folder.path(""));
    let mut files = 0;
    loop {
        let mut told = 0;
        let mut stop = |_: usize, _: usize, _: &Path| {
            told += 1;
            let stopped = antlm::Error::Stopped { signal: 2, left: "x".into() };
            if told > files { Err(stopped) } else { Ok(()) }
        };
        if export(&options(&run, &folder.path("new")), &mut stop).is_ok() {
            break;
        }
        assert_eq!((told, names(&folder.path(""))), (files + 1, before.clone()));
        files += 1;
    }
    // Before the checkpoint is read, and before each file.
    assert_eq!(files, 1 + names(&folder.path("new")).len());
}
