//! Usage of every command: help, exit codes, messages, and what is left behind.

use std::process::{Command, Stdio};

use super::common::{antlm, refused, stderr, stdout};

#[test]
fn help_is_there_for_every_command_and_teaches() {
    let folder = tempfile::tempdir().unwrap();
    let help = antlm(folder.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("Exit codes"));
    // Every command that it lists: a line that begins with two spaces and the name.
    let text = stdout(&help);
    let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let commands: Vec<&str> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    for command in ["demo", "init", "train", "eval", "finetune", "compare", "submit", "sweep", "export", "completions"]
    {
        assert!(commands.contains(&command), "{command}: {commands:?}");
    }
    for command in commands.into_iter().filter(|command| *command != "help") {
        let help = antlm(folder.path(), &[command, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{command}");
        assert!(stdout(&help).contains("antlm "), "{command} --help has no example");
    }
    let version = antlm(folder.path(), &["--version"]);
    assert!(stdout(&version).contains(env!("CARGO_PKG_VERSION")));
}

/// A card that is asked for is used or an error, never the CPU in silence; `auto` is the CPU where there is none.
#[test]
#[cfg(not(feature = "cuda-emulation"))]
fn a_card_that_cannot_be_used_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let bench = |device| {
        let args = ["bench", "ltg-bert-tiny", "--objective", "clm", "--batch", "1", "--steps", "1", "--json"];
        antlm(folder.path(), &[&args[..], &["--device", device]].concat())
    };
    let refused = bench("cuda:99");
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("cuda:99") && stderr(&refused).contains("--device cpu"), "{}", stderr(&refused));
    assert!(stdout(&bench("cpu")).contains("\"device\":\"cpu\""));
    assert_eq!(bench("auto").status.code(), Some(0));
}

#[test]
fn wrong_usage_is_2() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &[][..],
        &["fly"],
        &["train"],
        &["train", "antlm-ltg-bert-tiny"],
        &["train", "antlm-ltg-bert-tiny", "--text", "a"],
        &["train", "antlm-ltg-bert-tiny", "--text", "a", "--out", "b", "--resume", "c"],
        &["train", "--resume", "c", "--seed", "1"],
        &["score", "run", "--backend", "psychic"],
        &["bench", "ltg-bert-tiny"],
        &["bench", "ltg-bert-tiny", "--objective", "clm", "--precision", "f7"],
        &["bench", "ltg-bert-tiny", "--objective", "clm", "--batch", "0"],
        &["bench", "ltg-bert-tiny", "--objective", "clm", "--device", "gpu"],
        &["score", "run", "--device", "cuda:one"],
        &["diff", "a"],
        &["export", "run"],
        &["export", "run", "--out", "x", "--milestones", "--checkpoint", "step-1"],
        &["import", "x"],
        &["push", "x"],
        &["train", "--resume", "c", "--init", "d"],
        &["completions"],
        &["completions", "teletype"],
        &["sample-text", "--out", "x"],
        &["sample-text", "--out", "x", "--words", "0"],
    ] {
        let output = antlm(folder.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_is_no_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    refused(folder.path(), &["info", "nowhere"], &["nowhere", "no such folder"]);
    std::fs::create_dir(folder.path().join("thesis")).unwrap();
    refused(folder.path(), &["info", "thesis", "--json"], &["thesis", "recipe.toml"]);
    refused(folder.path(), &["diff", "thesis", "nowhere"], &["thesis", "recipe.toml"]);
    refused(folder.path(), &["score", "thesis"], &["thesis", "recipe.toml"]);
}

#[test]
fn info_reads_a_log_and_names_a_damaged_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("recipe.toml"), "").unwrap();
    let log = concat!(
        r#"{"event":"start","version":1,"recipe":"toy","schedule":"1 clm","seed":7,"parameters":12345,"blocks":1,"#,
        r#""steps":20,"words":4000}"#,
        "\n",
        r#"{"event":"dev","step":3,"block":0,"at":"block","backend":"mlm","loss":7.25,"targets":9,"unigram":6.5}"#,
        "\n"
    );
    std::fs::write(run.join("log.jsonl"), log).unwrap();
    let output = antlm(folder.path(), &["info", "run"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for words in ["toy", "12,345", "3 of 20", "7.2500", "worse than token frequencies", "--resume run"] {
        assert!(stdout(&output).contains(words), "{words}: {}", stdout(&output));
    }
    let json: serde_json::Value =
        serde_json::from_slice(&antlm(folder.path(), &["info", "run", "--json"]).stdout).unwrap();
    assert_eq!((&json["dev"][0]["backend"], &json["dev"][0]["loss"]), (&"mlm".into(), &7.25.into()));
    assert_eq!(json["finished"], false);

    std::fs::write(run.join("log.jsonl"), format!("{log}\x1b[2J nonsense\n")).unwrap();
    refused(folder.path(), &["info", "run"], &["log.jsonl", "line 3"]);
}

#[test]
fn sample_text_is_the_same_every_time() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.txt", "b.txt"] {
        let output = antlm(folder.path(), &["sample-text", "--words", "500", "--seed", "9", "--out", name]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).contains(name));
    }
    let text = std::fs::read_to_string(folder.path().join("a.txt")).unwrap();
    assert_eq!(text, std::fs::read_to_string(folder.path().join("b.txt")).unwrap());
    assert!((500..700).contains(&text.split_whitespace().count()));
    assert_eq!(stdout(&antlm(folder.path(), &["sample-text", "--words", "500", "--seed", "9", "--out", "-"])), text);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    let missing = ["none/c.txt", "none: there is no such folder", "make it first"];
    refused(folder.path(), &["sample-text", "--words", "5", "--out", "none/c.txt"], &missing);
}

/// `antlm … | head -1`: the reader goes away early, and that is no error.
#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_antlm"))
        .args(["sample-text", "--words", "1000000", "--out", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn completions_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&antlm(folder.path(), &["completions", shell]));
        for word in ["antlm", "train", "sample-text", "resume", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn recipes_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let text = stdout(&antlm(folder.path(), &["recipes"]));
    for name in ["antlm-ltg-bert-tiny", "ltg-bert-small", "babyllama-58m", "antlm-mntp-babyllama-tiny"] {
        assert!(text.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}: {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&stdout(&antlm(folder.path(), &["recipes", "--json"]))).unwrap();
    assert_eq!(json.as_array().unwrap().len(), text.lines().count() - 1);
    assert!(json[0]["parameters"].as_u64().unwrap() > 0);
}

#[test]
fn plans_are_printed_and_wrong_recipes_refused() {
    let folder = tempfile::tempdir().unwrap();
    let plan = antlm(folder.path(), &["plan", "antlm-babyllama-58m"]);
    assert!(stdout(&plan).contains("4 clm") && stdout(&plan).contains("CROSSED"), "{}", stdout(&plan));
    let json = antlm(folder.path(), &["plan", "antlm-babyllama-58m", "--json", "--set", "schedule=2 clm"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["blocks"].as_array().unwrap().len(), 1);

    refused(folder.path(), &["plan", "antlm-ltg-bert-huge"], &["antlm-ltg-bert-huge"]);
    refused(
        folder.path(),
        &["plan", "babyllama-tiny", "--set", "schedule=1 clm + 2 nonsense"],
        &["nonsense", "character"],
    );
    refused(folder.path(), &["plan", "babyllama-tiny", "--set", "schedule="], &["schedule"]);
    refused(folder.path(), &["plan", "babyllama-tiny", "--set", "speed=9"], &["speed"]);
    refused(folder.path(), &["plan", "babyllama-tiny", "--dev", "dev.txt"], &["names no text", "--text"]);
    refused(folder.path(), &["plan", "babyllama-tiny", "--set", "model.layers=many"], &["layers"]);
    refused(folder.path(), &["plan", "babyllama-tiny", "--text", "none.txt"], &["none.txt"]);
    std::fs::write(folder.path().join("mine.toml"), "version = 1\nbase = \"babyllama-tiny\"\nlayers = 3\n").unwrap();
    refused(folder.path(), &["plan", "mine.toml"], &["mine.toml", "layers"]);
}

#[test]
fn text_is_prepared_once_and_a_plan_counts_it() {
    let folder = tempfile::tempdir().unwrap();
    antlm(folder.path(), &["sample-text", "--words", "5000", "--out", "text.txt"]);
    let prepare =
        ["prepare", "babyllama-tiny", "--text", "text.txt", "--out", "ready", "--set", "model.vocab_size=400"];
    let first = antlm(folder.path(), &prepare);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    assert!(stdout(&first).contains("train") && !stdout(&first).contains("used again"), "{}", stdout(&first));
    let again = antlm(folder.path(), &prepare);
    assert!(stdout(&again).contains("used again") && folder.path().join("ready/tokenizer.json").is_file());
    let quiet = antlm(folder.path(), &[&prepare[..], &["--quiet"]].concat());
    assert_eq!((stdout(&quiet), stderr(&quiet)), (String::new(), String::new()));
    let json = antlm(folder.path(), &[&prepare[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["reused"], true);

    let plan = antlm(folder.path(), &["plan", "babyllama-tiny", "--text", "text.txt", "--json"]);
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    let words = plan["dataset"]["words"].as_u64().unwrap();
    assert!(plan["assumed"] == false && (4000..5100).contains(&words), "{words}");
}

#[test]
fn wrong_text_is_named_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[u8], &[&str]); 4] = [
        ("empty.txt", b"", &["empty.txt"]),
        ("latin1.txt", b"fine\n\ncaf\xe9 au lait\n", &["latin1.txt", "byte"]),
        ("picture.png", b"\x89PNG\r\n\x1a\n", &["picture.png"]),
        ("lines.jsonl", b"{\"text\": \"a\"}\n{\"txet\": \"b\"}\n", &["lines.jsonl", "line 2"]),
    ];
    for (name, content, words) in cases {
        std::fs::write(folder.path().join(name), content).unwrap();
        refused(folder.path(), &["prepare", "ltg-bert-tiny", "--text", name, "--out", "ready", "--quiet"], words);
    }
    for command in ["prepare", "train"] {
        refused(folder.path(), &[command, "ltg-bert-tiny", "--out", "ready"], &["--text"]);
        refused(
            folder.path(),
            &[command, "no-such-recipe", "--text", "empty.txt", "--out", "ready"],
            &["no-such-recipe"],
        );
    }
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    std::fs::write(folder.path().join("mine/thesis.tex"), "x").unwrap();
    std::fs::write(folder.path().join("good.txt"), "A dog sleeps.\n").unwrap();
    refused(folder.path(), &["prepare", "ltg-bert-tiny", "--text", "good.txt", "--out", "mine", "--quiet"], &["mine"]);
}

/// Ctrl-C ends preparing with 130 and leaves nothing; SIGTERM with 143; SIGUSR1 changes nothing.
#[cfg(unix)]
#[test]
fn a_signal_ends_preparing_and_leaves_nothing() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    antlm(folder.path(), &["sample-text", "--words", "2000000", "--out", "text.txt"]);
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_antlm"))
            .args(["prepare", "ltg-bert-tiny", "--text", "text.txt", "--out", "ready"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The handlers are in place before the first word about progress.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "reading the text");
        for signal in ["-USR1", signal] {
            assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        }
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{rest:?}");
        assert!(rest.last().unwrap().starts_with("antlm: stopped by SIG"), "{rest:?}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["text.txt"]);
    }
}

/// A recipe for one's own text plans as it is and is never written over.
#[test]
fn init_writes_a_recipe_that_plans() {
    let folder = tempfile::tempdir().unwrap();
    antlm(folder.path(), &["sample-text", "--words", "20000", "--out", "text.txt"]);
    let written = antlm(folder.path(), &["init", "--text", "text.txt"]);
    assert_eq!(written.status.code(), Some(0), "{}", stderr(&written));
    assert!(stdout(&written).contains("antlm train recipe.toml --out"), "{}", stdout(&written));
    let text = std::fs::read_to_string(folder.path().join("recipe.toml")).unwrap();
    assert_eq!(stdout(&antlm(folder.path(), &["init", "--text", "text.txt", "--out", "-"])), text);
    let plan = antlm(folder.path(), &["plan", "recipe.toml", "--json"]);
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert!(plan["assumed"] == false && plan["recipe"] == "recipe", "{plan}");
    // All of the text is trained on when the dev text is another.
    antlm(folder.path(), &["sample-text", "--words", "500", "--seed", "2", "--out", "dev.txt"]);
    let dev: serde_json::Value =
        serde_json::from_str(&stdout(&antlm(folder.path(), &["plan", "recipe.toml", "--dev", "dev.txt", "--json"])))
            .unwrap();
    assert!(dev["dataset"]["words"].as_u64() > plan["dataset"]["words"].as_u64(), "{dev}");
    refused(folder.path(), &["init", "--text", "text.txt"], &["recipe.toml", "exists already", "--out"]);
    refused(folder.path(), &["init", "--text", "none.txt", "--out", "new.toml"], &["none.txt"]);
    refused(folder.path(), &["init", "--out", "no/such/folder.toml"], &["no/such/folder.toml"]);
    antlm(folder.path(), &["init", "--out", "bare.toml"]);
    assert_eq!(antlm(folder.path(), &["plan", "bare.toml"]).status.code(), Some(0));
}

#[test]
fn the_schema_is_json_and_suggestions_reach_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let schema: serde_json::Value =
        serde_json::from_slice(&antlm(folder.path(), &["recipes", "--schema"]).stdout).unwrap();
    assert_eq!(schema["properties"]["model"]["properties"]["layers"]["type"], "integer");
    refused(folder.path(), &["plan", "babyllama-tiny", "--set", "layers=3"], &["did you mean `model.layers`?"]);
    refused(folder.path(), &["plan", "babylama-tiny"], &["did you mean `babyllama-tiny`?"]);
}

#[test]
fn pairs_are_files_that_are_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["sample-pairs", "--per-phenomenon", "3", "--seed", "2", "--out", "pairs"];
    let output = antlm(folder.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().filter(|line| line.ends_with(".jsonl: 4 pairs")).count(), 7);
    let text = std::fs::read_to_string(folder.path().join("pairs/npi.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(first["sentence_good"].is_string() && first["UID"] == "npi" && text.lines().count() == 4, "{text}");
    refused(folder.path(), &args, &["pairs/agreement_distance.jsonl", "exists"]);
    for wrong in ["0", "-1", "many"] {
        let output = antlm(folder.path(), &["sample-pairs", "--per-phenomenon", wrong, "--out", "x"]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn the_demo_takes_no_folder_of_something_else() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    std::fs::write(folder.path().join("mine/thesis.txt"), "mine").unwrap();
    refused(folder.path(), &["demo", "--out", "mine", "--quiet"], &["mine", "exists already"]);
    std::fs::write(folder.path().join("mine/demo.json"), "{}").unwrap();
    refused(folder.path(), &["demo", "--out", "mine", "--quiet"], &["mine", "another seed", "--out"]);
    refused(folder.path(), &["demo", "--out", "mine/thesis.txt", "--quiet"], &["thesis.txt", "is a file", "--out"]);
    refused(folder.path(), &["tokenize", "mine/thesis.txt", "hi"], &["thesis.txt", "line 1", "no tokenizer.json"]);
}
