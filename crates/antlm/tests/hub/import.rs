//! What an import accepts, and what it refuses: errors of one line with the file, never a panic, nothing left behind.

use std::path::Path;

use antlm::eval::score::Scorer;
use antlm::hub::import;
use antlm::objective::Backend;
use antlm::train::{info, run};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

use super::folder::{Folder, names};

/// A tensor of a file that is changed and written again.
#[derive(Clone)]
struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

fn load(path: &Path) -> Vec<Tensor> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, TensorView)| {
        let (dtype, shape, data) = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        Tensor { name, dtype, shape, data }
    };
    file.tensors().into_iter().map(tensor).collect()
}

fn store(path: &Path, tensors: &[Tensor]) {
    let views = tensors.iter().map(|t| (&t.name, TensorView::new(t.dtype, t.shape.clone(), &t.data).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn change(path: &Path, name: &str, f: impl FnOnce(&mut Value)) {
    let file = path.join(name);
    let mut json = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    f(&mut json);
    std::fs::write(file, json.to_string()).unwrap();
}

/// Refuses this folder with these words, and leaves nothing.
fn refused(folder: &Folder, from: &Path, words: &[&str]) {
    let before = names(&folder.path(""));
    let error = import(from, &folder.path("imported")).unwrap_err().to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{error:?} lacks one of {words:?}");
    assert!(!error.contains('\n') && error.len() < 3000, "{error:?}");
    assert_eq!(names(&folder.path("")), before);
}

#[test]
fn an_export_comes_back_and_scores_the_same() {
    let folder = Folder::new();
    for (name, base, set) in [
        ("ltg", "ltg-bert-tiny", "schedule=1 clm + 1 mntp"),
        ("llama", "babyllama-tiny", "model.tied=true"),
        ("untied", "babyllama-tiny", "schedule=1 mlm"),
    ] {
        let run = folder.run(&format!("{name}-run"), base, &[set]);
        let out = folder.export(&run, &format!("{name}-out"));
        let again = folder.path(&format!("{name}-again"));
        let foreign = import(&out, &again).unwrap();
        let (mut one, mut two) = (Scorer::open(&run).unwrap(), Scorer::open(&again).unwrap());
        assert_eq!((one.trained(), one.last()), (two.trained(), two.last()));
        for backend in [Backend::Causal, Backend::Mlm, Backend::Mntp] {
            let text = "the old cat sees 3 dogs";
            assert_eq!(one.score(text, backend).unwrap(), two.score(text, backend).unwrap());
        }
        let imported = foreign.recipe.imported.unwrap();
        assert!(imported.recipe_known && imported.from == format!("{name}-out"), "{imported:?}");
        // Nothing is said of a training that is not known.
        let card = folder.export(&again, &format!("{name}-card")).join("README.md");
        let card = std::fs::read_to_string(card).unwrap();
        assert!(card.contains("imported into antlm") && !card.contains("optimiser steps"), "{card}");
        // Exported once more it is the same file.
        let bytes = |path: &Path| std::fs::read(path.join("model.safetensors")).unwrap();
        assert!(bytes(&folder.export(&again, &format!("{name}-third"))) == bytes(&out));
        // It is no run: it cannot be resumed, and says what to do; looked at, it says what it is.
        let error = run::resume(&again).err().unwrap().to_string();
        assert!(error.contains("imported") && error.contains("--init"), "{error}");
        let info = info::read(&again).unwrap();
        assert_eq!((info.parameters, info.imported.is_some()), (foreign.params.len() as u64, true));
    }
}

/// What transformers and the original wrappers write besides what we do.
#[test]
fn foreign_checkpoints_of_the_same_names_are_read() {
    let folder = Folder::new();
    let ltg = folder.export(&folder.run("ltg-run", "ltg-bert-tiny", &[]), "ltg");
    let llama = folder.export(&folder.run("llama-run", "babyllama-tiny", &["model.tied=true"]), "llama");
    for (out, alias, of, buffer) in [
        (
            &ltg,
            "classifier.nonlinearity.5.weight",
            "embedding.word_embedding.weight",
            "transformer.layers.0.attention.position_indices",
        ),
        (&llama, "lm_head.weight", "model.embed_tokens.weight", "model.layers.1.self_attn.rotary_emb.inv_freq"),
    ] {
        std::fs::remove_file(out.join("antlm_recipe.toml")).unwrap();
        change(out, "config.json", |json| {
            json.as_object_mut().unwrap().remove("antlm");
            if json["model_type"] == "antlm_ltg_bert" {
                json["model_type"] = "ltgbert".into();
            }
        });
        let file = out.join("model.safetensors");
        let mut tensors = load(&file);
        let copy = tensors.iter().find(|t| t.name == of).unwrap().clone();
        tensors.push(Tensor { name: alias.into(), ..copy });
        tensors.push(Tensor { name: buffer.into(), dtype: Dtype::I64, shape: vec![2], data: vec![0; 16] });
        store(&file, &tensors);
        let foreign = import(out, &folder.path(&format!("again-{}", tensors.len()))).unwrap();
        let imported = foreign.recipe.imported.unwrap();
        assert!(!imported.recipe_known);
        // Without a word of how it was trained it counts as its family's own objective.
        let own = if imported.model_type == "llama" { "1 clm" } else { "1 mlm" };
        assert_eq!(foreign.recipe.schedule.to_string(), own);

        // A copy that is none.
        tensors.iter_mut().find(|t| t.name == alias).unwrap().data[0] ^= 1;
        store(&file, &tensors);
        refused(&folder, out, &["model.safetensors", alias, "not the same"]);
    }
}

#[test]
fn half_precision_becomes_f32() {
    let folder = Folder::new();
    let out = folder.export(&folder.run("run", "babyllama-tiny", &[]), "out");
    let whole = import(&out, &folder.path("f32")).unwrap().params;
    let file = out.join("model.safetensors");
    for (dtype, error) in [(Dtype::F16, 1e-3), (Dtype::BF16, 8e-3)] {
        let mut tensors = load(&file);
        for tensor in &mut tensors {
            if tensor.dtype == Dtype::F32 {
                let values = tensor.data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                let bits = values.map(|x| match dtype {
                    Dtype::F16 => half::f16::from_f32(x).to_bits(),
                    _ => half::bf16::from_f32(x).to_bits(),
                });
                tensor.data = bits.flat_map(u16::to_le_bytes).collect();
                tensor.dtype = dtype;
            }
        }
        let half = folder.path(&format!("{dtype:?}-out"));
        std::fs::create_dir(&half).unwrap();
        for name in ["config.json", "tokenizer.json"] {
            std::fs::copy(out.join(name), half.join(name)).unwrap();
        }
        store(&half.join("model.safetensors"), &tensors);
        let params = import(&half, &folder.path(&format!("{dtype:?}"))).unwrap().params;
        let off = whole.iter().zip(&params).map(|(a, b)| (a - b).abs() / a.abs().max(1e-2)).fold(0.0, f32::max);
        assert!(off > 0.0 && off < error, "{dtype:?}: {off}");
    }
}

#[test]
fn broken_weights_are_errors_with_the_file() {
    let folder = Folder::new();
    let out = folder.export(&folder.run("run", "ltg-bert-tiny", &[]), "out");
    let file = out.join("model.safetensors");
    let (good, tensors) = (std::fs::read(&file).unwrap(), load(&file));
    let raw = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    };
    let overlap = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    let hole = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}}"#;
    let backwards = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#;
    let twice = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let cases: [(Vec<u8>, &str); 10] = [
        (raw(twice, 8), "\"a\" stands in it twice"),
        (Vec::new(), "not a safetensors file"),
        (good[..good.len() / 2].to_vec(), "the file ends here"),
        (good[..100].to_vec(), "a header of"),
        ((1u64 << 63).to_le_bytes().to_vec(), "a header of 9223372036854775808 bytes"),
        ([&u64::MAX.to_le_bytes()[..], &good[8..]].concat(), "a header of"),
        (raw(overlap, 12), "header"),
        (raw(hole, 20), "header"),
        (raw(backwards, 8), "header"),
        (raw(r#"{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}"#, 8), "header"),
    ];
    for (bytes, words) in cases {
        std::fs::write(&file, bytes).unwrap();
        refused(&folder, &out, &["model.safetensors", words]);
    }

    let with = |f: &dyn Fn(&mut Vec<Tensor>)| {
        let mut tensors = tensors.clone();
        f(&mut tensors);
        store(&file, &tensors);
    };
    let place = |tensors: &mut Vec<Tensor>, name: &str| tensors.iter_mut().position(|t| t.name == name).unwrap();
    let word = "embedding.word_embedding.weight";
    let small = || Tensor { name: String::new(), dtype: Dtype::F32, shape: vec![1], data: vec![0; 4] };
    with(&|tensors| tensors.retain(|t| !t.name.contains("layers.1")));
    let missing: Vec<&str> = tensors.iter().map(|t| &*t.name).filter(|name| name.contains("layers.1")).collect();
    assert_eq!(missing.len(), 10);
    refused(&folder, &out, &[&["10 missing"], &missing[..]].concat());
    // Of all kinds at once, every one; of a hostile file as many as anyone reads.
    let bias = "transformer.layers.0.attention.out_proj.bias";
    with(&|tensors| {
        tensors.retain(|t| t.name != bias);
        for name in [word, "classifier.nonlinearity.1.weight"] {
            let at = place(tensors, name);
            tensors[at].shape.insert(0, 1);
        }
        tensors.extend((0..9).map(|i| Tensor { name: format!("more.{i}"), ..small() }));
    });
    let all: Vec<String> = (0..9).map(|i| format!("more.{i}")).collect();
    let mut words: Vec<&str> = all.iter().map(String::as_str).collect();
    words.extend([
        "1 missing",
        bias,
        "9 surplus",
        "2 of another shape",
        word,
        "classifier.nonlinearity.1.weight",
        "[1, 270, 16]",
    ]);
    refused(&folder, &out, &words);
    with(&|tensors| {
        tensors.extend((0..5000).map(|i| Tensor { name: format!("{i}-{}", "\u{7f}".repeat(99)), ..small() }))
    });
    let error = import(&out, &folder.path("imported")).unwrap_err().to_string();
    assert!(error.contains("5000 surplus") && error.ends_with("more") && error.len() < 70_000, "{}", error.len());
    for name in ["../../../../tmp/antlm-escape", "/etc/antlm", "a\0b\n\x1b[2J", "head.nonlinearity.1.weight"] {
        with(&|tensors| tensors.push(Tensor { name: name.into(), ..small() }));
        refused(&folder, &out, &["1 surplus", name.split(['\0', '/']).next().unwrap()]);
    }
    with(&|tensors| {
        let at = place(tensors, word);
        tensors[at].shape.swap(0, 1);
    });
    refused(&folder, &out, &[word, "[16, 270]", "[270, 16]"]);
    with(&|tensors| {
        let at = place(tensors, word);
        tensors[at].dtype = Dtype::I32;
    });
    refused(&folder, &out, &[word, "I32"]);
    with(&|tensors| {
        let at = place(tensors, word);
        tensors[at].data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    refused(&folder, &out, &[word, "NaN"]);
    std::fs::write(&file, good).unwrap();
    import(&out, &folder.path("fine")).unwrap();
    assert!(!Path::new("/tmp/antlm-escape").exists());
}

#[test]
fn broken_folders_are_errors_with_the_file() {
    let folder = Folder::new();
    let fresh = |name: &str| folder.export(&folder.run(&format!("run-{name}"), "ltg-bert-tiny", &[]), name);
    refused(&folder, &folder.path("nowhere"), &["nowhere", "no such folder"]);
    let run = folder.run("run", "ltg-bert-tiny", &[]);
    refused(&folder, &run, &["config.json"]);
    let taken = import(&fresh("taken"), &run).unwrap_err().to_string();
    assert!(taken.contains("exists already"), "{taken}");

    let out = fresh("config");
    let config = std::fs::read(out.join("config.json")).unwrap();
    let huge = |key: &str| {
        let mut json: Value = serde_json::from_slice(&config).unwrap();
        json[key] = json!(4_000_000_000u64);
        json.to_string().into_bytes()
    };
    for (bytes, words) in [
        (b"{".to_vec(), "config.json"),
        (b"\xff".to_vec(), "config.json"),
        ("[".repeat(100_000).into_bytes(), "config.json"),
        (b"{}".to_vec(), "model_type"),
        (vec![b' '; 2 << 20], "config.json"),
        (huge("vocab_size"), "vocab_size"),
        (huge("hidden_size"), "hidden"),
        (huge("num_hidden_layers"), "layers"),
    ] {
        std::fs::write(out.join("config.json"), bytes).unwrap();
        std::fs::remove_file(out.join("antlm_recipe.toml")).ok();
        refused(&folder, &out, &[words]);
    }

    let out = fresh("tokenizer");
    change(&out, "tokenizer.json", |json| json["model"]["merges"][0] = json!(["a", "not there"]));
    refused(&folder, &out, &["tokenizer.json", "model.merges[0]"]);
    change(&out, "tokenizer.json", |json| json["model"]["type"] = "WordPiece".into());
    refused(&folder, &out, &["tokenizer.json", "WordPiece"]);
    std::fs::write(out.join("tokenizer.json"), "\0".repeat(1000)).unwrap();
    refused(&folder, &out, &["tokenizer.json"]);
    std::fs::remove_file(out.join("tokenizer.json")).unwrap();
    refused(&folder, &out, &["tokenizer.json"]);

    let out = fresh("recipe");
    let recipe = std::fs::read_to_string(out.join("antlm_recipe.toml")).unwrap();
    std::fs::write(out.join("antlm_recipe.toml"), recipe.replace("layers = 2", "layers = 3")).unwrap();
    refused(&folder, &out, &["antlm_recipe.toml", "other sizes"]);

    let out = fresh("shards");
    std::fs::remove_file(out.join("model.safetensors")).unwrap();
    refused(&folder, &out, &["model.safetensors", "missing"]);
    std::fs::write(out.join("pytorch_model.bin"), "x").unwrap();
    refused(&folder, &out, &["pickle"]);
    std::fs::write(out.join("model.safetensors.index.json"), "{}").unwrap();
    refused(&folder, &out, &["several files"]);

    refused(&folder, &fresh("my_BNC-BERT-small"), &["bnc-bert", "config.json"]);
    let out = fresh("family");
    change(&out, "config.json", |json| json["model_type"] = "llama".into());
    refused(&folder, &out, &["antlm_recipe.toml", "other sizes"]);
}

/// Two files that end a program that gives them to the tokenizers crate, which is shown first: one on reading, one on
/// encoding, whose template names a token that it does not have. Ours is written anew, so nothing of the latter is left.
#[test]
fn what_makes_the_tokenizers_crate_panic_is_no_harm() {
    let folder = Folder::new();
    let out = folder.export(&folder.run("run", "ltg-bert-tiny", &[]), "out");
    let file = out.join("tokenizer.json");
    let good = std::fs::read(&file).unwrap();
    let crate_panics = || {
        let text = std::fs::read_to_string(&file).unwrap();
        let encode = || text.parse::<tokenizers::Tokenizer>().and_then(|it| it.encode("the cat", true)).map(drop);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(encode)).is_err()
    };
    assert!(!crate_panics());
    change(&out, "tokenizer.json", |json| json["model"]["continuing_subword_prefix"] = json!("#".repeat(100)));
    assert!(crate_panics());
    refused(&folder, &out, &["tokenizer.json", "model: subword prefixes"]);

    std::fs::write(&file, good).unwrap();
    change(&out, "tokenizer.json", |json| json["post_processor"]["special_tokens"] = json!({}));
    assert!(crate_panics());
    import(&out, &folder.path("imported")).unwrap();
    let ours = std::fs::read_to_string(folder.path("imported/tokenizer.json")).unwrap();
    ours.parse::<tokenizers::Tokenizer>().unwrap().encode("the cat", true).unwrap();
}

/// Files that contradict each other, and what a Llama may be that ours is not.
#[test]
fn contradictions_and_other_computations_are_refused() {
    let folder = Folder::new();
    let ltg = folder.export(&folder.run("ltg-run", "ltg-bert-tiny", &["schedule=1 clm + 1 mntp"]), "ltg");
    let llama = folder.export(&folder.run("llama-run", "babyllama-tiny", &["schedule=1 clm"]), "llama");
    type Case<'a> = (&'a Path, fn(&mut Value), &'a [&'a str]);
    let cases: [Case; 14] = [
        (
            &ltg,
            |c| c["antlm"]["schedule"] = "1 clm".into(),
            &["antlm_recipe.toml", "schedule", "1 clm + 1 mntp", "1 clm"],
        ),
        (&ltg, |c| c["antlm"]["seq_len"] = 25.into(), &["antlm_recipe.toml", "seq_len", "24", "25"]),
        (&ltg, |c| c["antlm"]["backends"] = json!(["causal", "mlm"]), &["config.json", "antlm.backends", "mlm"]),
        (&ltg, |c| c["antlm"]["backends"] = json!(["causal", "causal"]), &["config.json", "antlm.backends", "once"]),
        (&ltg, |c| c["antlm"]["backends"] = json!("causal"), &["config.json", "antlm.backends", "a list of"]),
        (&ltg, |c| c["antlm_masked_alignment"] = "same-position".into(), &["antlm.backends", "antlm_masked_alignment"]),
        (&ltg, |c| c["antlm_bidirectional"] = false.into(), &["antlm.backends", "antlm_bidirectional"]),
        (&llama, |c| c["is_causal"] = false.into(), &["config.json", "is_causal"]),
        (&llama, |c| c["sliding_window"] = 512.into(), &["config.json", "sliding_window"]),
        (&llama, |c| c["use_sliding_window"] = true.into(), &["config.json", "use_sliding_window"]),
        (&llama, |c| c["partial_rotary_factor"] = 0.5.into(), &["config.json", "partial_rotary_factor"]),
        (
            &llama,
            |c| c["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
            &["config.json", "rope_parameters"],
        ),
        (&llama, |c| c["head_dim"] = 16.into(), &["config.json", "head_dim"]),
        (
            &llama,
            |c| c["rope_scaling"] = json!({"rope_type": "linear", "factor": 2.0}),
            &["config.json", "rope_scaling"],
        ),
    ];
    for (from, change_it, words) in cases {
        let good = std::fs::read(from.join("config.json")).unwrap();
        change(from, "config.json", change_it);
        refused(&folder, from, words);
        std::fs::write(from.join("config.json"), good).unwrap();
    }
    for from in [&ltg, &llama] {
        assert_eq!(import(from, &folder.path(&format!("{}-fine", from.display()))).unwrap().notes, [""; 0]);
    }
}

/// What is read in another way than its files say it is told.
#[test]
fn what_is_passed_over_is_said() {
    let folder = Folder::new();
    let out = folder.export(&folder.run("run", "ltg-bert-tiny", &[]), "out");
    change(&out, "config.json", |json| json["logits_scaling"] = 8.0.into());
    change(&out, "tokenizer.json", |json| {
        json["post_processor"]["single"] = json!([{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]);
        json["added_tokens"][4]["lstrip"] = true.into();
    });
    let notes = import(&out, &folder.path("one")).unwrap().notes;
    let wanted = [
        ["config.json", "\"logits_scaling\""],
        ["tokenizer.json", "as [CLS] A [SEP]; antlm reads and writes [CLS] A"],
        ["tokenizer.json", "\"[MASK]\" is parsed with lstrip"],
    ];
    assert_eq!(notes.len(), wanted.len(), "{notes:?}");
    for (note, words) in notes.iter().zip(wanted) {
        assert!(words.iter().all(|word| note.contains(word)), "{note}");
    }
    change(&out, "tokenizer.json", |json| json["post_processor"] = Value::Null);
    let notes = import(&out, &folder.path("two")).unwrap().notes;
    assert!(notes[1].contains("as A, without any mark"), "{notes:?}");
    change(&out, "tokenizer.json", |json| json["post_processor"] = json!({"type": "BertProcessing"}));
    let notes = import(&out, &folder.path("three")).unwrap().notes;
    assert!(notes[1].contains("as \"BertProcessing\" does"), "{notes:?}");
}

#[cfg(unix)]
#[test]
fn links_and_pipes_do_not_fool_it() {
    let folder = Folder::new();
    let out = folder.export(&folder.run("run", "ltg-bert-tiny", &[]), "out");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let path = out.join(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        refused(&folder, &out, &[name]);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, whole).unwrap();
    }
    // A pipe that nobody writes to would be waited for.
    let path = out.join("tokenizer.json");
    std::fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    refused(&folder, &out, &["tokenizer.json", "not a regular file"]);
}
