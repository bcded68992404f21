//! The whole way on text that the program writes itself: train, info, score, both families, every backend.

use serde_json::Value;

use super::common::{Toy, antlm_with_input, is_refusal, stderr, stdout, succeeds};

/// A run of each family: what is in its folder, what `info` and `score` say.
#[test]
fn a_run_of_each_family_from_text_to_scores() {
    let toy = Toy::new();
    for (recipe, family) in [("ltg.toml", "ltg-bert"), ("llama.toml", "llama")] {
        toy.train(recipe, family, &[]);
        the_folder_is_as_promised(&toy, family);
        info_tells_it(&toy, family);
        scores(&toy, family);
    }
    // Both families read the same text with different tokenizers; each was prepared once.
    assert_eq!(toy.names("prepared").len(), 2);
    let before = toy.names("prepared");
    toy.train("ltg.toml", "again", &["--threads", "1"]);
    assert_eq!(toy.names("prepared"), before);
    for name in ["log.jsonl", "tokenizer.json", "recipe.toml"] {
        assert!(toy.read(&format!("again/{name}")) == toy.read(&format!("ltg-bert/{name}")), "{name} differs");
    }
    toy.train("ltg.toml", "other", &["--seed", "7"]);
    assert!(toy.read("other/log.jsonl") != toy.read("again/log.jsonl"));
    diff_tells_them_apart(&toy);
}

/// `again` is `ltg-bert` once more, `other` has another seed, `llama` another tokenizer.
fn diff_tells_them_apart(toy: &Toy) {
    let diff = |a, b| -> Value { serde_json::from_str(&succeeds(toy.path(), &["diff", a, b, "--json"])).unwrap() };
    let same = diff("ltg-bert", "again");
    assert_eq!((same["recipe"].to_string(), same["data"].to_string()), ("[]".into(), "[]".into()));
    assert_eq!(same["equal_steps"], same["steps"][0]);
    assert_eq!(same["comparable"], true);
    let seeds = diff("ltg-bert", "other");
    assert_eq!(seeds["recipe"], serde_json::json!([{"key": "seed", "values": ["42", "7"]}]));
    assert_eq!((&seeds["equal_steps"], &seeds["comparable"]), (&0.into(), &true.into()));
    assert_eq!(diff("ltg-bert", "llama")["comparable"], false);
    let text = succeeds(toy.path(), &["diff", "ltg-bert", "other"]);
    for words in ["seed", "data: the same", "dev causal last", "dev mntp lowest", "training mlm last"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(succeeds(toy.path(), &["diff", "ltg-bert", "llama"]).contains("cannot be compared"));
}

fn the_folder_is_as_promised(toy: &Toy, run: &str) {
    let expected =
        [".lock", "checkpoints", "environment.json", "log.jsonl", "recipe.toml", "timing.jsonl", "tokenizer.json"];
    assert_eq!(toy.names(run), expected);
    let steps = toy.kept(run);
    assert_eq!(steps.len(), 3, "one for each block: {steps:?}");
    // The kept ones and the newest two of the others.
    assert_eq!(toy.names(&format!("{run}/checkpoints")).len(), 5);
    for name in toy.names(&format!("{run}/checkpoints")) {
        let folder = format!("{run}/checkpoints/{name}");
        assert_eq!(toy.names(&folder), ["model.safetensors", "optimizer.safetensors", "state.json"]);
        let state = toy.json(&format!("{folder}/state.json"));
        let keys: Vec<&str> = state.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "block",
            "device",
            "hashes",
            "health",
            "kept",
            "log",
            "optimizer_t",
            "position",
            "precision",
            "seed",
            "seen",
            "sha256",
            "step",
            "trained_block",
            "version",
        ];
        assert_eq!(keys, expected);
        assert_eq!(name, format!("step-{:09}", state["step"].as_u64().unwrap()));
        for key in ["data", "tokenizer", "recipe"] {
            assert_eq!(state["hashes"][key].as_str().unwrap().len(), 64, "{key}");
        }
    }
    let last = toy.json(&format!("{run}/checkpoints/{}/state.json", steps[2]));
    let words = |objective: &str| last["seen"][objective]["words"].as_u64().unwrap();
    assert_eq!((words("clm"), words("mlm")), (2 * words("mntp"), words("mntp")));
    assert_eq!(last["trained_block"], 2);
    assert_eq!((&last["block"], &last["precision"], &last["device"]), (&3.into(), &"f32".into(), &"cpu".into()));

    let recipe = String::from_utf8(toy.read(&format!("{run}/recipe.toml"))).unwrap();
    for word in
        ["[used]", "antlm = ", "text = ", "tokenizer = ", "prepared = ", "schedule = \"2 clm + 1 mlm + 1 mntp\""]
    {
        assert!(recipe.contains(word), "{word}: {recipe}");
    }
    let log = lines(&toy.read(&format!("{run}/log.jsonl")));
    let count = |event: &str| log.iter().filter(|line| line["event"] == event).count();
    assert_eq!((count("start"), count("switch"), count("block_end"), count("end")), (1, 2, 3, 1));
    assert_eq!(count("step") as u64, last["step"].as_u64().unwrap());
    // At the start, at the end of the first epoch, at three block ends, and 32 steps after each switch; three backends.
    assert_eq!(count("dev"), 3 * (1 + 1 + 3 + 2));
    let timing = lines(&toy.read(&format!("{run}/timing.jsonl")));
    assert!(timing.len() >= count("step") && timing.iter().all(|line| line["seconds"].as_f64().unwrap() >= 0.0));
}

fn info_tells_it(toy: &Toy, run: &str) {
    let info: Value = serde_json::from_str(&succeeds(toy.path(), &["info", run, "--json"])).unwrap();
    assert_eq!((&info["finished"], &info["seed"]), (&true.into(), &42.into()));
    assert_eq!((&info["step"], &info["words_seen"]), (&info["steps"], &info["words"]));
    assert_eq!(info["checkpoints"].as_array().unwrap().len(), 5);
    // It learnt: every way of reading is better at the end than at the start.
    let dev = info["dev"].as_array().unwrap();
    let loss = |at: &Value, backend: &str, last: bool| {
        let mut found = dev.iter().filter(|d| &d["at"] == at && d["backend"] == backend);
        let found = if last { found.next_back() } else { found.next() };
        found.unwrap()["loss"].as_f64().unwrap()
    };
    for backend in ["causal", "mlm", "mntp"] {
        let (first, last) = (loss(&"start".into(), backend, false), loss(&"block".into(), backend, true));
        assert!(last < first - 1.0, "{backend}: {first} -> {last}");
    }
    let text = succeeds(toy.path(), &["info", run]);
    assert!(text.contains("finished") && text.contains("(kept: end of a block)"), "{text}");

    // The plan said so before.
    let recipe = if run == "llama" { "llama.toml" } else { "ltg.toml" };
    let plan: Value =
        serde_json::from_str(&succeeds(toy.path(), &["plan", recipe, "--text", "text.txt", "--json"])).unwrap();
    for key in ["parameters", "steps", "words"] {
        assert_eq!(plan[key], info[key], "{key}");
    }
}

fn scores(toy: &Toy, run: &str) {
    let sentences = "The dogs sleep.\n\n  Leading blanks, <mask> and a \\ \"quote\".\r\nNaïve 🦊\n";
    let mut totals = Vec::new();
    for backend in ["causal", "mlm", "mntp"] {
        let args = ["score", run, "--backend", backend];
        let json = antlm_with_input(toy.path(), &[&args[..], &["--json"]].concat(), sentences.as_bytes());
        assert_eq!((json.status.code(), stderr(&json).as_str()), (Some(0), ""));
        let found = lines(&json.stdout);
        let texts: Vec<&Value> = found.iter().map(|line| &line["text"]).collect();
        assert_eq!(texts, ["The dogs sleep.", "  Leading blanks, <mask> and a \\ \"quote\".", "Naïve 🦊"]);
        let plain = antlm_with_input(toy.path(), &args, sentences.as_bytes());
        for (line, plain) in found.iter().zip(stdout(&plain).lines()) {
            let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["ids", "logprobs", "text", "total"]);
            let (ids, logprobs) = (line["ids"].as_array().unwrap(), line["logprobs"].as_array().unwrap());
            assert_eq!(ids.len(), logprobs.len());
            // The opening mark is framing; it is not scored, and everything else is.
            assert!(ids[0] == 1 && logprobs[0].is_null());
            // Text that looks like a special token is text: no id below 5.
            assert!(ids[1..].iter().all(|id| (5..300).contains(&id.as_u64().unwrap())), "{ids:?}");
            let scored: Vec<f64> = logprobs[1..].iter().map(|x| x.as_f64().unwrap()).collect();
            assert!(scored.iter().all(|&x| x < 0.0));
            let total = line["total"].as_f64().unwrap();
            assert_eq!(total, scored.iter().sum::<f64>());
            let (number, text) = plain.split_once('\t').unwrap();
            assert_eq!((number, text), (format!("{total:.4}").as_str(), line["text"].as_str().unwrap()));
        }
        totals.push(found.iter().map(|line| line["total"].as_f64().unwrap()).collect::<Vec<_>>());
    }
    assert!(totals[0] != totals[1] && totals[1] != totals[2], "the backends read in different ways: {totals:?}");

    // The default is what the last block taught; a checkpoint can be named, too.
    let first = format!("{run}/checkpoints/{}", toy.kept(run)[0]);
    let score = |path: &str| stdout(&antlm_with_input(toy.path(), &["score", path], b"The dogs sleep.\n"));
    assert!(score(run).starts_with(&format!("{:.4}\t", totals[2][0])), "{}", score(run));
    assert_ne!(score(run), score(&first));
    let nothing = antlm_with_input(toy.path(), &["score", run], b"");
    assert_eq!((nothing.status.code(), stdout(&nothing).as_str()), (Some(0), ""));
}

fn lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Prepared text is given as `--text`; a model of one objective warns when it is read in another way.
#[test]
fn prepared_text_and_a_model_of_one_objective() {
    let toy = Toy::new();
    let only = ["--set", "schedule=1 clm"];
    succeeds(toy.path(), &["prepare", "llama.toml", "--text", "text.txt", "--out", "ready", "--quiet"]);
    succeeds(toy.path(), &[&["train", "llama.toml", "--text", "ready", "--out", "a", "--quiet"], &only[..]].concat());
    assert!(!toy.file("prepared").exists());
    toy.train("llama.toml", "b", &only);
    assert!(toy.read("a/log.jsonl") == toy.read("b/log.jsonl"), "the text was the same");
    let plan: Value =
        serde_json::from_str(&succeeds(toy.path(), &["plan", "llama.toml", "--text", "ready", "--json"])).unwrap();
    assert_eq!(plan["assumed"], false);

    let causal = antlm_with_input(toy.path(), &["score", "a"], b"The dogs sleep.\n");
    assert_eq!((causal.status.code(), stderr(&causal).as_str()), (Some(0), ""));
    let masked = antlm_with_input(toy.path(), &["score", "a", "--backend", "mlm"], b"The dogs sleep.\n");
    assert!(
        masked.status.success() && stderr(&masked).contains("not trained to be read by mlm"),
        "{}",
        stderr(&masked)
    );
}

/// `--json` prints the events, and nothing else goes to stdout.
#[test]
fn events_are_lines_of_json() {
    let toy = Toy::new();
    let args = ["train", "llama.toml", "--text", "text.txt", "--out", "run", "--set", "schedule=1 clm", "--json"];
    let events = lines(succeeds(toy.path(), &args).as_bytes());
    let results: Vec<&Value> = events.iter().filter(|event| event["event"] != "checkpoint").collect();
    let log = lines(&toy.read("run/log.jsonl"));
    assert!(results.into_iter().eq(&log));
}

/// A loss that is no number ends the run with exit code 1 and says what to try; what was saved before stays.
#[test]
fn a_run_that_diverges_says_so() {
    let toy = Toy::new();
    let set = ["--set", "optimizer.lr=1e30", "--set", "learning_rate.warmup=0", "--set", "optimizer.eps=1e-30"];
    let args = [&["train", "llama.toml", "--text", "text.txt", "--out", "run", "--quiet"], &set[..]].concat();
    let output = super::common::antlm(toy.path(), &args);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("step ") && message.contains("lower optimizer.lr"), "{message}");
    assert!(message.contains("run/diverged.json"), "{message}");
    assert_eq!(message.lines().count(), 1);
    let found = toy.json("run/diverged.json");
    assert_eq!(found["segments"].as_array().unwrap().len(), 8);
    assert!(["NaN", "inf"].map(Value::from).contains(&found["grad_norm"]), "{found}");
    let tensors = found["tensors"].as_array().unwrap();
    assert!(tensors.iter().any(|tensor| tensor["gradient"]["not_finite"].as_u64().unwrap() > 0), "{found}");
    // Nothing was updated by what is no number. The steps before are in the log.
    assert!(tensors.iter().all(|tensor| tensor["weights"]["not_finite"] == 0), "{found}");
    let log = lines(&toy.read("run/log.jsonl"));
    let steps = log.iter().filter(|line| line["event"] == "step").count() as u64;
    assert_eq!((steps, found["step"].as_u64()), (steps, Some(steps)));

    // Skipped instead, ten in a row end the run, and the log has them.
    let args = [&["train", "llama.toml", "--text", "text.txt", "--out", "skip", "--quiet"], &set[..]].concat();
    let output = super::common::antlm(toy.path(), &[&args[..], &["--set", "health.not_finite=skip"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let log = lines(&toy.read("skip/log.jsonl"));
    let skips: Vec<&Value> = log.iter().filter(|line| line["event"] == "skip").collect();
    assert!(skips.len() == 10 && skips.iter().all(|skip| skip["why"] == "not_finite"), "{skips:?}");
    assert!(toy.file("skip/diverged.json").exists());
    assert!(succeeds(toy.path(), &["info", "skip"]).contains("10 steps were skipped"));
}

/// The lock of a run folder ends with its process, however that ends.
#[cfg(unix)]
#[test]
fn two_processes_do_not_train_into_one_folder() {
    use super::common::{antlm, command, is_refusal, wait_for_lines};
    let toy = Toy::new();
    let set = ["--set", "schedule=500 clm"];
    let args = [&["train", "llama.toml", "--text", "text.txt", "--out", "run", "--quiet"], &set[..]].concat();
    let mut child = command(toy.path(), &args).spawn().unwrap();
    assert!(wait_for_lines(&mut child, &toy.file("run/log.jsonl"), 10));
    let resume = ["train", "--resume", "run"];
    is_refusal(&resume, &antlm(toy.path(), &resume), &["run", "another process"]);
    is_refusal(&args, &antlm(toy.path(), &args), &["run", "exists already", "--resume"]);
    // A run that goes on can be looked at.
    assert!(succeeds(toy.path(), &["info", "run"]).contains("not finished"));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The memory that a plan expects is within a quarter of what a step takes.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_as_planned() {
    let toy = Toy::new();
    for recipe in ["ltg-bert-tiny", "babyllama-tiny"] {
        for batch in ["2", "16"] {
            let rows = (batch.parse::<u32>().unwrap() * 128).to_string();
            let (segments, micro) = (format!("batch.segments={batch}"), format!("batch.micro_tokens={rows}"));
            let plan = succeeds(toy.path(), &["plan", recipe, "--json", "--set", &segments, "--set", &micro]);
            let bench = ["bench", recipe, "--objective", "clm", "--batch", batch, "--steps", "1", "--json"];
            let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            let planned = json(&plan)["memory"]["total"].as_f64().unwrap();
            let measured = json(&succeeds(toy.path(), &bench))["peak_bytes"].as_f64().unwrap();
            let ratio = planned / measured;
            assert!((0.75..1.25).contains(&ratio), "{recipe}, {batch} x 128: {planned} planned, {measured} measured");
        }
    }
}

/// What is off by default: averaged weights and TensorBoard's file, also over a stop and a resume.
#[test]
fn averaged_weights_and_tensorboard() {
    let toy = Toy::new();
    let short = ["--set", "schedule=1 clm"];
    toy.train("llama.toml", "plain", &short);
    let args = ["score", "plain", "--ema"];
    let none = antlm_with_input(toy.path(), &args, b"The dogs sleep.\n");
    is_refusal(&args, &none, &["plain", "no averaged weights", "optimizer.ema_decay"]);
    let more = ["--tensorboard", "--set", "optimizer.ema_decay=0.9", "--set", "optimizer.z_loss=0.0001"];
    toy.train("llama.toml", "more", &[&short[..], &more].concat());
    let score = |args: &[&str]| {
        let output = antlm_with_input(toy.path(), args, b"The dogs sleep.\n");
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
        stdout(&output)
    };
    assert_ne!(score(&["score", "more"]), score(&["score", "more", "--ema"]));

    // A finished run that is resumed writes nothing twice; what is missing comes back.
    let file = "more/tensorboard/events.out.tfevents.antlm";
    let whole = toy.read(file);
    succeeds(toy.path(), &["train", "--resume", "more", "--quiet"]);
    assert!(toy.read(file) == whole);
    toy.write(file, &whole[..whole.len() / 2]);
    succeeds(toy.path(), &["train", "--resume", "more", "--quiet"]);
    assert_eq!(toy.read(file).len(), whole.len());
    assert!(!toy.file("plain/tensorboard").exists());
}
