//! Reading a trained model as a user would: text from it, words for masks, how text is cut; and wrong input to each.

use serde_json::Value;

use super::common::{Toy, antlm, antlm_with_input, is_refusal, refused, stderr, stdout, succeeds};

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(json).collect()
}

/// Trains these: `ltg` and `llama` with all three objectives, `mlm` and `clm` with one only.
fn toy(runs: &[&str]) -> Toy {
    let toy = Toy::new();
    for run in runs {
        match *run {
            "mlm" => toy.train("ltg.toml", run, &["--set", "schedule=1 mlm"]),
            "clm" => toy.train("llama.toml", run, &["--set", "schedule=1 clm"]),
            family => toy.train(&format!("{family}.toml"), run, &[]),
        }
    }
    toy
}

#[test]
fn text_is_generated() {
    let toy = toy(&["ltg", "llama"]);
    for run in ["ltg", "llama"] {
        let generate = |more: &[&str]| {
            let output =
                antlm(toy.path(), &[&["generate", run, "--prompt", "The dogs ", "--max-tokens", "20"], more].concat());
            assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{more:?}");
            stdout(&output)
        };
        let (text, found) = (generate(&[]), json(&generate(&["--json"])));
        let keys: Vec<&String> = found.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["end", "ids", "logprobs", "prompt", "sample", "text"]);
        assert_eq!(found["prompt"], "The dogs");
        assert_eq!(text, format!("The dogs{}\n", found["text"].as_str().unwrap()));
        assert_eq!(text, generate(&[]), "the same seed");
        assert_ne!(text, generate(&["--seed", "2"]));
        // Greedy text needs no seed.
        let greedy = generate(&["--temperature", "0"]);
        assert_eq!(greedy, generate(&["--temperature", "0", "--seed", "9"]));
        assert_eq!(greedy, generate(&["--top-k", "1"]));
        assert_eq!(greedy, generate(&["--top-p", "0.000001"]));
        assert_eq!(greedy, generate(&["--min-p", "1"]));

        // Several: the first is the one alone, and each has a line or a paragraph of its own.
        let several = lines(&generate(&["--json", "--count", "3"]));
        assert_eq!((several.len(), &several[0]), (3, &found));
        assert_ne!(several[1]["ids"], several[2]["ids"]);
        let paragraphs: Vec<String> =
            several.iter().map(|one| format!("The dogs{}\n", one["text"].as_str().unwrap())).collect();
        assert_eq!(generate(&["--count", "3"]), paragraphs.join("\n"));

        // A stop text from the middle of it.
        let made = found["text"].as_str().unwrap();
        let stop: String = made.chars().skip(3).take(3).collect();
        let stopped = json(&generate(&["--json", "--stop", &stop, "--stop", "never to be seen"]));
        assert_eq!(stopped["end"], "stop");
        assert_eq!(stopped["text"].as_str().unwrap(), &made[..made.find(&stop).unwrap()]);
    }
    // Without a prompt, and from a checkpoint.
    let alone = succeeds(toy.path(), &["generate", "ltg", "--max-tokens", "3"]);
    assert!(alone.ends_with('\n') && !alone.starts_with(' '), "{alone:?}");
    let first = format!("ltg/checkpoints/{}", toy.kept("ltg")[0]);
    let args = |run| ["generate", run, "--max-tokens", "30", "--temperature", "0"];
    assert_ne!(succeeds(toy.path(), &args(&first)), succeeds(toy.path(), &args("ltg")));
}

/// Notes on stderr, once, and not with --quiet; the text comes all the same.
#[test]
fn notes_say_what_a_model_was_not_trained_for() {
    let toy = toy(&["ltg", "mlm", "clm"]);
    let noted = |args: &[&str], words: &[&str]| {
        let output = antlm(toy.path(), args);
        let notes = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{notes}");
        assert_eq!(notes.lines().count(), usize::from(!words.is_empty()), "{args:?}: {notes}");
        assert!(words.iter().all(|word| notes.contains(word)), "{args:?}: {notes}");
        let quiet = antlm(toy.path(), &[args, &["--quiet"]].concat());
        assert_eq!((stdout(&quiet), stderr(&quiet)), (stdout(&output), String::new()));
    };
    let short = ["--max-tokens", "5"];
    noted(&[&["generate", "mlm"], &short[..]].concat(), &["trained with mlm only", "left to right"]);
    noted(&[&["generate", "clm"], &short[..]].concat(), &[]);
    noted(&["fill", "ltg", "The [MASK] sleep."], &[]);
    noted(&["fill", "mlm", "The [MASK] sleep."], &[]);
    noted(
        &["fill", "mlm", "The [MASK] sleep.", "--backend", "mntp"],
        &["not trained to be read by mntp", "only by mlm"],
    );
    noted(&["fill", "clm", "The [MASK] sleep."], &["clm only", "never seen a mask", "antlm generate"]);
    // What the checkpoint has had so far counts, not what the recipe will do.
    let first = format!("ltg/checkpoints/{}", toy.kept("ltg")[0]);
    noted(&["fill", &first, "The [MASK] sleep."], &["clm only"]);
    // Segments have 32 tokens: past them once is said once.
    let long = "The dogs sleep near the girl. ".repeat(10);
    noted(
        &[&["generate", "clm", "--count", "2", "--prompt", &long], &short[..]].concat(),
        &["segments of 32", "worse"],
    );
    let notes = stderr(&antlm(toy.path(), &["generate", "clm", "--temperature", "0.1", "--count", "2"]));
    assert!(notes.lines().count() <= 1, "{notes}");
}

#[test]
fn masks_are_filled() {
    let toy = toy(&["ltg", "llama", "mlm"]);
    for (run, backend) in [("ltg", "mntp"), ("llama", "mntp"), ("mlm", "mlm")] {
        let filled = json(&succeeds(toy.path(), &["fill", run, "The [MASK] sleep.", "--top", "3", "--json"]));
        let keys: Vec<&String> = filled.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["backend", "masks", "text", "together"]);
        assert_eq!((&filled["backend"], &filled["text"]), (&backend.into(), &"The [MASK] sleep.".into()));
        let words = filled["masks"][0].as_array().unwrap();
        assert_eq!((words.len(), filled["together"].as_array().unwrap().len()), (3, 0));
        // Score says the same of the filled sentence.
        for word in words {
            let sentence = format!("The {} sleep.\n", word["word"].as_str().unwrap());
            let args = ["score", run, "--backend", backend, "--json"];
            let score = json(&stdout(&antlm_with_input(toy.path(), &args, sentence.as_bytes())));
            let ids = score["ids"].as_array().unwrap();
            let place = ids.iter().position(|id| id == &word["ids"][0]).unwrap();
            let (p, want) = (word["p"].as_f64().unwrap(), score["logprobs"][place].as_f64().unwrap().exp());
            assert!((p - want).abs() < 1e-5 * want, "{word}: {p}, scored {want}");
        }
        let table = succeeds(toy.path(), &["fill", run, "The [MASK] sleep.", "--top", "3"]);
        assert_eq!(table.lines().count(), 5, "{table}");
        assert!(table.lines().nth(2).unwrap().ends_with(words[0]["word"].as_str().unwrap()), "{table}");
    }
    // Both spellings, from lines of standard input.
    let args = ["fill", "ltg", "--json", "--quiet"];
    let both = antlm_with_input(toy.path(), &args, b"The [MASK] sleep.\n\nThe <mask> sleep.\r\n");
    let both = lines(&stdout(&both));
    assert_eq!((both.len(), &both[0]["masks"]), (2, &both[1]["masks"]));

    let several = ["fill", "llama", "The [MASK] near the [MASK] sleep.", "--max-word-tokens", "2"];
    let text = succeeds(toy.path(), &several);
    for words in ["mask 1, all others masked", "mask 2", "words of 1 token\n", "words of 2 tokens", "together"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let found = json(&succeeds(toy.path(), &[&several[..], &["--json"]].concat()));
    let best = &found["together"][0];
    let [a, b] = [0, 1].map(|i| best["words"][i].as_str().unwrap());
    assert_eq!(best["text"], format!("The {a} near the {b} sleep."));
}

#[test]
fn text_is_cut_and_put_together_again() {
    let toy = toy(&["mlm"]);
    let text = "The dogs sleep — naïve 🦊";
    let cut = json(&succeeds(toy.path(), &["tokenize", "mlm", text, "--json"]));
    let keys: Vec<&String> = cut.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["ids", "offsets", "text", "tokens", "words"]);
    assert_eq!((&cut["text"], &cut["words"]), (&text.into(), &6.into()));
    let count = |key: &str| cut[key].as_array().unwrap().len();
    assert!(count("ids") > 6 && count("ids") == count("tokens") && count("ids") == count("offsets"));
    assert_eq!(
        (&cut["offsets"][0][0], &cut["offsets"][count("ids") - 1][1]),
        (&0.into(), &text.chars().count().into())
    );
    // The ids are those that scoring reads.
    let score = antlm_with_input(toy.path(), &["score", "mlm", "--json"], format!("{text}\n").as_bytes());
    assert_eq!(json(&stdout(&score))["ids"].as_array().unwrap()[1..], cut["ids"].as_array().unwrap()[..]);

    // All the places that a tokenizer is in.
    let prepared = format!("prepared/{}", toy.names("prepared")[0]);
    let checkpoint = format!("mlm/checkpoints/{}", toy.kept("mlm")[0]);
    for from in ["mlm/tokenizer.json", &prepared, &checkpoint] {
        assert_eq!(json(&succeeds(toy.path(), &["tokenize", from, text, "--json"])), cut, "{from}");
    }
    let table = succeeds(toy.path(), &["tokenize", "mlm", text]);
    assert_eq!(table.lines().count(), count("ids") + 2);
    assert!(table.ends_with(&format!("6 words, {} tokens\n", count("ids"))), "{table}");

    let ids: Vec<String> = cut["ids"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(succeeds(toy.path(), &["tokenize", "mlm", "--decode", &ids.join(" ")]), format!("{text}\n"));
    let back = antlm_with_input(toy.path(), &["tokenize", "mlm", "--decode", "--json"], ids.join(",").as_bytes());
    assert_eq!(json(&stdout(&back)), serde_json::json!({ "ids": cut["ids"], "text": text }));
    // A line each, empty ones left out.
    let several = antlm_with_input(toy.path(), &["tokenize", "mlm", "--json"], b"The dogs\r\n\n  \nsleep.");
    let texts: Vec<Value> = lines(&stdout(&several)).into_iter().map(|cut| cut["text"].clone()).collect();
    assert_eq!(texts, ["The dogs", "sleep."]);
}

#[test]
fn wrong_input() {
    let toy = toy(&["mlm"]);
    // Wrong options are named before the run is looked at.
    let generate = |more: &[&str], words: &[&str]| {
        refused(toy.path(), &[&["generate", "nowhere"], more].concat(), words);
    };
    generate(&[], &["nowhere", "no such folder"]);
    for value in ["NaN", "inf", "-1"] {
        generate(&["--temperature", value], &["temperature is", "at least 0"]);
    }
    for value in ["0", "1.5", "-0.5", "NaN"] {
        generate(&["--top-p", value], &["top-p is", "above 0 and at most 1"]);
    }
    generate(&["--min-p", "-0.1"], &["min-p is -0.1"]);
    generate(&["--min-p", "2"], &["min-p is 2"]);
    generate(&["--top-k", "0"], &["top-k is 0"]);
    generate(&["--max-tokens", "0"], &["max-tokens is 0"]);
    generate(&["--max-tokens", "999999999"], &["max-tokens", "4096"]);
    generate(&["--stop", ""], &["stop text is empty"]);
    let long = "dogs ".repeat(5000);
    refused(toy.path(), &["generate", "mlm", "--quiet", "--prompt", &long], &["the prompt has", "4096"]);
    refused(toy.path(), &["generate", "mlm", "--quiet", "--ema"], &["mlm", "no averaged weights"]);
    std::fs::create_dir(toy.file("thesis")).unwrap();
    for command in ["generate", "fill"] {
        refused(toy.path(), &[command, "thesis"], &["thesis", "recipe.toml"]);
    }

    refused(toy.path(), &["fill", "mlm", "The dogs sleep."], &["no mask in", "[MASK]", "<mask>"]);
    refused(toy.path(), &["fill", "mlm", ""], &["no mask in"]);
    refused(toy.path(), &["fill", "mlm", &"[MASK] ".repeat(99)], &["99 masks", "16"]);
    refused(toy.path(), &["fill", "mlm", &format!("[MASK] {long}")], &["tokens", "4096"]);
    refused(toy.path(), &["fill", "nowhere", "[MASK]", "--top", "0"], &["top is 0"]);
    refused(toy.path(), &["fill", "nowhere", "[MASK]", "--max-word-tokens", "9"], &["max-word-tokens is 9", "8"]);
    refused(toy.path(), &["fill", "nowhere", "[MASK]"], &["nowhere", "no such folder"]);
    let fill = ["fill", "mlm"];
    is_refusal(
        &fill,
        &antlm_with_input(toy.path(), &fill, b"na\xefve [MASK]\n"),
        &["<stdin>: line 1, byte 2", "UTF-8"],
    );

    refused(toy.path(), &["tokenize", "nowhere", "x"], &["nowhere", "no such file or folder"]);
    refused(toy.path(), &["tokenize", "thesis", "x"], &["thesis", "has no tokenizer", "antlm prepare"]);
    refused(toy.path(), &["tokenize", "text.txt", "x"], &["text.txt", "line 1"]);
    refused(toy.path(), &["tokenize", "mlm", "--decode", "5 fox"], &["\"fox\"", "0 to"]);
    refused(toy.path(), &["tokenize", "mlm", "--decode", "5 99999"], &["\"99999\"", "0 to"]);
    let tokenize = ["tokenize", "mlm"];
    is_refusal(&tokenize, &antlm_with_input(toy.path(), &tokenize, b"\xff\n"), &["<stdin>: line 1, byte 0", "UTF-8"]);

    for args in [
        &["generate"][..],
        &["generate", "mlm", "--temperature", "warm"],
        &["generate", "mlm", "--count", "0"],
        &["fill", "mlm", "[MASK]", "--backend", "causal"],
        &["fill", "mlm", "[MASK]", "--backend", "psychic"],
        &["tokenize"],
    ] {
        let output = antlm(toy.path(), args);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{args:?}");
    }
    toy.write("mlm/tokenizer.json", "{}");
    for args in [&["generate", "mlm"][..], &["fill", "mlm", "[MASK]"], &["tokenize", "mlm", "x"]] {
        refused(toy.path(), args, &["mlm/tokenizer.json"]);
    }
}

/// Ctrl-C ends the text where it is: what was printed stays, and a line end follows.
#[cfg(unix)]
#[test]
fn a_signal_ends_a_text() {
    use std::io::Read;
    use std::process::{Command, Stdio};
    let toy = toy(&["clm"]);
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let args = ["generate", "clm", "--prompt", "The dogs", "--count", "1000000", "--max-tokens", "4096", "--quiet"];
        let mut command = super::common::command(toy.path(), &args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The handlers are in place before the first word.
        let (mut out, mut text) = (child.stdout.take().unwrap(), vec![0; 40]);
        out.read_exact(&mut text).unwrap();
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        out.read_to_end(&mut text).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).starts_with("antlm: stopped by SIG"), "{}", stderr(&output));
        let text = String::from_utf8(text).expect("never half a character");
        assert!(text.starts_with("The dogs") && text.ends_with('\n'));
    }
}
