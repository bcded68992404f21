use super::*;
use crate::recipe::{Precision, Used};
use std::path::PathBuf;

fn set(assignments: &[&str]) -> Vec<String> {
    assignments.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn every_built_in_recipe_reads_and_writes_back() {
    let names = names();
    assert_eq!(names.len(), 48);
    for name in &names {
        let recipe = Recipe::load(name, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(&recipe.name, name);
        assert!(!recipe.description.is_empty());
        assert_eq!(Recipe::from_toml(&recipe.to_toml().unwrap(), name).unwrap(), recipe);
    }
}

#[test]
fn recipes_of_one_size_differ_in_name_description_and_schedule_only() {
    for size in ["base", "small", "xs", "tiny"] {
        let [antlm, mntp, mlm, clm] = ["antlm-ltg-bert-", "antlm-mntp-ltg-bert-", "ltg-bert-", "ltg-bert-clm-"]
            .map(|p| builtin::builtin(&format!("{p}{size}")).unwrap());
        for other in [&mntp, &mlm, &clm] {
            let Recipe { name, description, schedule, .. } = antlm.clone();
            assert_eq!(Recipe { name, description, schedule, ..other.clone() }, antlm);
        }
        let text = [&antlm, &mntp, &mlm, &clm].map(|recipe| recipe.schedule.to_string());
        assert_eq!(text[1], text[0].replace("mlm", "mntp"));
        assert!(text[2].ends_with("mlm") && text[3] == text[2].replace("mlm", "clm"), "{text:?}");
    }
    let [paper, base] = ["antlm-babyllama-58m", "babyllama-58m"].map(|name| builtin::builtin(name).unwrap());
    assert_eq!([paper.schedule.to_string(), base.schedule.to_string()], ["4 clm + 16 mlm + 4 clm", "24 clm"]);
}

#[test]
fn a_recipe_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let text = "base = \"antlm-ltg-bert-small\"\nschedule = \"2 clm\"\n[optimizer]\nlr = 0.001\n[[data]]\nname = \"all\"\npaths = [\"corpus\", \"/far/x.txt\"]\n[dev]\npaths = [\"dev.txt\"]\n";
    std::fs::write(&path, text).unwrap();
    let recipe = Recipe::load(path.to_str().unwrap(), &set(&["seed=7", "model.layers = 2"])).unwrap();
    let base = builtin::builtin("antlm-ltg-bert-small").unwrap();
    assert_eq!((recipe.name.as_str(), recipe.seed, recipe.model.layers), ("mine", 7, 2));
    assert_eq!(recipe.optimizer, crate::recipe::Optimizer { lr: 0.001, ..base.optimizer });
    // Beside the recipe, wherever the program is started; what --set says is as it stands there.
    assert_eq!(recipe.data[0].paths, [folder.path().join("corpus"), PathBuf::from("/far/x.txt")]);
    assert_eq!(recipe.dev.paths, [folder.path().join("dev.txt")]);
    let recipe = Recipe::load(path.to_str().unwrap(), &set(&["dev.paths=[\"mine.txt\"]"])).unwrap();
    assert_eq!(recipe.dev.paths, [PathBuf::from("mine.txt")]);
    assert_eq!(recipe.masking, base.masking);
}

#[test]
fn the_recipe_of_a_run_reads_back() {
    let mut recipe = builtin::builtin("babyllama-tiny").unwrap();
    recipe.used = Some(Used {
        antlm: "0.1.0".into(),
        prepared: "p".into(),
        vocab_size: 300,
        text: "ab".into(),
        tokenizer: "cd".into(),
        init: None,
    });
    assert_eq!(Recipe::from_toml(&recipe.to_toml().unwrap(), "run").unwrap(), recipe);
    recipe.seed = u64::MAX;
    assert!(recipe.check().is_err());
    assert!(recipe.to_toml().is_err());
}

#[test]
fn override_values_are_toml_or_text() {
    let load = |assignments: &[&str]| Recipe::load("ltg-bert-tiny", &set(assignments)).unwrap();
    assert_eq!(load(&["optimizer.betas=[0.5, 0.6]"]).optimizer.betas, [0.5, 0.6]);
    assert_eq!(load(&["learning_rate.warmup=20"]).learning_rate.warmup, crate::recipe::Warmup::Steps(20));
    assert_eq!(load(&["learning_rate.warmup=0.5"]).learning_rate.warmup, crate::recipe::Warmup::Fraction(0.5));
    assert_eq!(load(&["optimizer.lr=1"]).optimizer.lr, 1.0);
    assert_eq!(load(&["optimizer.clip=inf"]).optimizer.clip, f64::INFINITY);
    assert_eq!(load(&["masking.rule=token"]).masking.rule, crate::objective::masked::Rule::Token);
    assert_eq!(load(&["dev.max_segments=5"]).dev.max_segments, 5);
    assert_eq!(load(&["precision=f32"]).precision, Precision::F32);
    assert_eq!(load(&["precision=auto"]).precision, Precision::Auto);
    // Not two keys, but one text with a line break.
    assert_eq!(load(&["description=1\nseed = 9"]).description, "1\nseed = 9");
}

#[test]
fn a_source_says_how_it_is_read() {
    use crate::text::{clean::Cleaning, corpus::DocumentRule, words};
    let load = |keys: &str| {
        let text =
            format!("name = \"mine\"\nbase = \"babyllama-tiny\"\n[[data]]\nname = \"a\"\npaths = [\"a\"]\n{keys}\n");
        Recipe::from_toml(&text, "mine")
    };
    let recipe =
        load("field = \"body\"\ndocuments = \"title\"\ncleaning = \"babylm\"\nweight = 2\nlanguage = \"zh-Hans\"\nwords = \"bytes\"")
            .unwrap();
    let source = &recipe.data[0];
    assert_eq!((source.documents, source.cleaning), (DocumentRule::Title, Cleaning::Babylm));
    assert_eq!((source.words, f64::from(source.weight), source.field.as_str()), (words::Rule::Bytes, 2.0, "body"));
    assert_eq!(source.language.as_ref().unwrap().to_string(), "zh-Hans");
    assert_eq!(Recipe::from_toml(&recipe.to_toml().unwrap(), "mine").unwrap(), recipe);
    let plain = load("").unwrap();
    assert_eq!(plain.data[0], crate::text::source::Source::new("a", ["a"]));

    for (keys, place, what) in [
        ("cleaning = \"babyml\"", "data.cleaning", "did you mean \"babylm\"?"),
        ("weight = 0", "data.weight", "above 0"),
        ("weight = -1.5", "data.weight", "above 0"),
        ("weight = nan", "data.weight", "above 0"),
        ("language = \"English\"", "data.language", "language code"),
        ("language = \"zho\"", "data.words", "write `words = \"bytes\"`"),
        ("words = \"bytes\"", "data.words", "need `language`"),
        ("words = \"letters\"", "data.words", "unknown variant"),
        ("documents = \"page\"", "data.documents", "unknown variant"),
        ("colour = 1", "data", "unknown field `colour`"),
        ("field = \"\"", "data.field", "empty"),
    ] {
        match load(keys) {
            Err(Error::Recipe { place: found, what: text, .. }) => {
                assert_eq!(found, place, "{keys}: {text}");
                assert!(text.contains(what) && !text.contains('\n'), "{keys}: {text}");
            }
            other => panic!("{keys} gave {other:?}"),
        }
    }
}

#[test]
fn wrong_values_name_recipe_and_key() {
    for (name, assignment, place, what) in [
        ("ltg-bert-tiny", "model.layer=3", "model", "unknown field `layer`"),
        ("ltg-bert-tiny", "colour=red", "top level", "unknown field `colour`"),
        ("ltg-bert-tiny", "model.layers=many", "model.layers", "invalid type"),
        ("ltg-bert-tiny", "model.layers=-1", "model.layers", "invalid value"),
        ("ltg-bert-tiny", "model.layers=0", "model.layers", "expected 1 to 1000"),
        ("ltg-bert-tiny", "model.kind=gpt", "model.kind", "unknown variant"),
        ("ltg-bert-tiny", "model.heads=3", "model.heads", "3 heads do not divide a width of 128"),
        ("ltg-bert-tiny", "model.tied=false", "model.tied", "always tied"),
        ("babyllama-tiny", "model.heads=128", "model.heads", "must be even"),
        ("babyllama-tiny", "model.hidden_dropout=0.1", "model.hidden_dropout", "no dropout"),
        ("ltg-bert-tiny", "model.hidden=9223372036854775807", "model.hidden", "expected 1 to 65536"),
        ("ltg-bert-tiny", "model.vocab_size=65537", "model.vocab_size", "expected 261 to 65536"),
        ("ltg-bert-tiny", "model.norm_eps=nan", "model.norm_eps", "between 0 and 1"),
        ("ltg-bert-tiny", "checkpoints.milestones=[\"1M\"]", "checkpoints.milestones", "a list of numbers of words"),
        ("ltg-bert-tiny", "seq_len=2", "seq_len", "expected 3 to 512"),
        ("ltg-bert-tiny", "seq_len=513", "seq_len", "expected 3 to 512"),
        ("ltg-bert-tiny", "masking.rate=1.5", "masking.rate", "share from 0 to 1"),
        ("ltg-bert-tiny", "masking.rate=nan", "masking.rate", "share from 0 to 1"),
        ("ltg-bert-tiny", "masking.random=0.3", "masking.random", "more than 1"),
        ("ltg-bert-tiny", "batch.segments=0", "batch.segments", "expected 1"),
        ("ltg-bert-tiny", "batch.micro_tokens=127", "batch.micro_tokens", "expected 128"),
        ("ltg-bert-tiny", "optimizer.kind=sgd", "optimizer.kind", "unknown variant"),
        ("ltg-bert-tiny", "optimizer.lr=0", "optimizer.lr", "above 0"),
        ("ltg-bert-tiny", "optimizer.betas=[0.9]", "optimizer.betas", "invalid length 1"),
        ("ltg-bert-tiny", "optimizer.betas=[0.9, 1.0]", "optimizer.betas", "below 1"),
        ("ltg-bert-tiny", "optimizer.z_loss=-0.1", "optimizer.z_loss", "expected 0 (off) to 1"),
        ("ltg-bert-tiny", "optimizer.z_loss=nan", "optimizer.z_loss", "expected 0 (off) to 1"),
        ("ltg-bert-tiny", "optimizer.ema_decay=1.0", "optimizer.ema_decay", "below 1"),
        ("ltg-bert-tiny", "optimizer.ema_decay=nan", "optimizer.ema_decay", "below 1"),
        ("ltg-bert-tiny", "learning_rate.warmup=slow", "learning_rate.warmup", "number of steps"),
        ("ltg-bert-tiny", "learning_rate.floor=2", "learning_rate.floor", "share from 0 to 1"),
        ("ltg-bert-tiny", "precision=f16", "precision", "unknown variant"),
        ("ltg-bert-tiny", "seed=-1", "seed", "invalid value"),
        ("ltg-bert-tiny", "version=2", "version", "version 1, not 2"),
        ("ltg-bert-tiny", "dev.share=0.1", "dev", "share"),
        ("ltg-bert-tiny", "tokenizer.min_frequency=0", "tokenizer.min_frequency", "1 or more"),
    ] {
        match Recipe::load(name, &set(&[assignment])) {
            Err(Error::Recipe { origin, place: found, what: text }) => {
                assert_eq!((origin.as_str(), found.as_str()), (name, place), "{assignment}: {text}");
                assert!(text.contains(what) && !text.contains('\n'), "{assignment}: {text}");
            }
            other => panic!("{assignment} gave {other:?}"),
        }
    }
    for (assignment, what) in [
        ("model", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("model..layers=3", "expected KEY=VALUE"),
        ("seed.x=3", "`seed` is no table"),
    ] {
        let error = Recipe::load("ltg-bert-tiny", &set(&[assignment])).unwrap_err().to_string();
        assert!(error.contains(what), "{assignment}: {error}");
    }
    match Recipe::load("ltg-bert-tiny", &set(&["schedule=1 clm + 1 nsp"])) {
        Err(Error::Recipe { place, what, .. }) => {
            assert!(place == "schedule" && what.contains("character 11: "), "{what}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_very_large_model_is_refused_not_tried() {
    let big = ["model.layers=1000", "model.hidden=65536", "model.intermediate=1048576"];
    let error = Recipe::load("ltg-bert-tiny", &set(&big)).unwrap_err().to_string();
    assert!(error.contains("too many"), "{error}");
}

#[test]
fn wrong_files_name_path_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for (path, what) in [
        (file("syntax.toml", b"version = 1\nname = \n"), "line 2"),
        (file("latin.toml", b"name = \"caf\xe9\"\n"), "byte 11: not UTF-8"),
        (file("empty.toml", b""), "version: missing"),
        (file("bare.toml", b"version = 1\n"), "missing field `schedule`"),
        (file("base.toml", b"base = \"nothing\"\n"), "base: no built-in recipe is named \"nothing\""),
        (file("base2.toml", b"base = 3\n"), "base: expected the name"),
        (file("large.toml", &vec![b'\n'; (1 << 20) + 1]), "byte 1048576: too long"),
        (folder.path().join("absent.toml").to_str().unwrap().to_owned(), "absent.toml"),
        (folder.path().to_str().unwrap().to_owned(), "directory"),
    ] {
        let error = Recipe::load(&path, &[]).unwrap_err().to_string();
        assert!(error.contains(&path) && error.contains(what) && !error.contains('\n'), "{path}: {error}");
    }
    let error = Recipe::load("antlm-ltg-bert-tny", &[]).unwrap_err().to_string();
    assert!(error.contains("antlm-ltg-bert-tiny"), "{error}");
}

#[test]
fn deep_tables_are_refused() {
    let deep = "a.".repeat(100_000) + "a";
    assert!(Recipe::load("ltg-bert-tiny", &[format!("{deep}=1")]).is_err());
    assert!(Recipe::load("ltg-bert-tiny", &[format!("seed={{{deep}=1}}")]).is_err());
    assert!(Recipe::from_toml(&format!("{deep} = 1"), "deep").is_err());
    assert!(Recipe::from_toml(&format!("[{deep}]"), "deep").is_err());
    assert!(Recipe::from_toml(&format!("a = {}", "[".repeat(100_000)), "deep").is_err());
}

#[test]
fn what_is_nearly_known_is_suggested() {
    for (assignment, near) in [
        ("model.layer=3", Some("layers")),
        ("optimiser.lr=3", Some("optimizer")),
        ("learning-rate.floor=0", Some("learning_rate")),
        ("layers=3", Some("model.layers")),
        ("micro_token=512", Some("batch.micro_tokens")),
        ("batch.seqlen=3", Some("seq_len")),
        ("model.kind=lama", Some("llama")),
        ("optimizer.kind=adam", Some("adamw")),
        ("schedule=1 cml", Some("clm")),
        ("colour=red", None),
        ("optimizer.kind=sgd", None),
        ("model.layers=many", None),
    ] {
        let error = Recipe::load("ltg-bert-tiny", &set(&[assignment])).unwrap_err().to_string();
        match near {
            Some(near) => assert!(error.ends_with(&format!("did you mean `{near}`?")), "{assignment}: {error}"),
            None => assert!(!error.contains("did you mean"), "{assignment}: {error}"),
        }
    }
    let error = Recipe::load("antlm-ltg-bert-tny", &[]).unwrap_err().to_string();
    assert!(error.contains("did you mean `antlm-ltg-bert-tiny`?"), "{error}");
    let error = Recipe::load("lama/of/mine", &[]).unwrap_err().to_string();
    assert!(!error.contains("did you mean"), "{error}");
    let error = Recipe::from_toml("base = \"babylama-tiny\"\n", "mine").unwrap_err().to_string();
    assert!(error.ends_with("did you mean `babyllama-tiny`?"), "{error}");
}
