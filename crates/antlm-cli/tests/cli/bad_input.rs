//! Wrong input through the binary: a one-line error with path and place, exit code 2, nothing half-written.

use super::common::{Toy, antlm, antlm_with_input, is_refusal, refused, succeeds};

fn train<'a>(recipe: &'a str, text: &'a str) -> [&'a str; 7] {
    ["train", recipe, "--text", text, "--out", "run", "--quiet"]
}

#[test]
fn text() {
    let toy = Toy::new();
    let cases: [(&str, &[u8], &[&str]); 7] = [
        ("empty.txt", b"", &["empty.txt"]),
        ("blank.txt", b"\n \n\t\n", &["blank.txt"]),
        ("binary.txt", b"fine\n\x7fELF\x02\x01\x01\0\0\0\0", &["binary.txt", "byte 12"]),
        ("latin1.txt", b"fine\n\ncaf\xe9 au lait\n", &["latin1.txt", "byte 9", "UTF-8"]),
        ("nul.txt", &[0; 5000], &["nul.txt", "byte 0"]),
        ("lines.jsonl", b"{\"text\": \"a\"}\n{\"txet\": \"b\"}\n", &["lines.jsonl", "line 2"]),
        ("half.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"b", &["half.jsonl", "line 2"]),
    ];
    for (name, content, words) in cases {
        toy.write(name, content);
        refused(toy.path(), &train("ltg.toml", name), words);
        refused(toy.path(), &["prepare", "ltg.toml", "--text", name, "--out", "ready", "--quiet"], words);
        // Bad dev text is no better.
        let args = [&train("ltg.toml", "text.txt")[..], &["--dev", name]].concat();
        refused(toy.path(), &args, words);
    }
    refused(toy.path(), &train("ltg.toml", "nowhere.txt"), &["nowhere.txt"]);
    std::fs::create_dir(toy.file("no-text")).unwrap();
    toy.write("no-text/picture.png", "x");
    refused(toy.path(), &train("ltg.toml", "no-text"), &["no-text", ".txt"]);
    refused(toy.path(), &train("ltg.toml", "no-text/picture.png"), &["picture.png"]);
    refused(toy.path(), &["train", "ltg.toml", "--out", "run"], &["--text"]);
    refused(toy.path(), &[&train("ltg.toml", "text.txt")[..], &["--dev", "text.txt"]].concat(), &["text.txt", "both"]);
}

/// Ten million characters without a line end are a document like any other.
#[test]
fn a_line_of_ten_megabytes() {
    let toy = Toy::new();
    let line = String::from_utf8(toy.read("text.txt")).unwrap().replace('\n', " ");
    let long: String = line.chars().cycle().take(10_000_000).collect();
    toy.write("long.txt", format!("{long}\n"));
    let args = ["prepare", "ltg.toml", "--text", "long.txt", "--out", "ready", "--json"];
    let json: serde_json::Value = serde_json::from_str(&succeeds(toy.path(), &args)).unwrap();
    assert_eq!(json["prepared"]["train"]["words"].as_u64().unwrap(), long.split_whitespace().count() as u64);
    assert_eq!(json["prepared"]["train"]["documents"], 1);
}

#[test]
fn recipes() {
    let toy = Toy::new();
    let base = String::from_utf8(toy.read("ltg.toml")).unwrap();
    let with = |name: &str, text: String| toy.write(name, text);
    with("unknown.toml", base.replace("seq_len = 32", "seq_len = 32\nspeed = 9"));
    with("type.toml", base.replace("layers = 1", "layers = \"many\""));
    with("syntax.toml", base.replace("[batch]", "[batch"));
    with("heads.toml", base.replace("heads = 2", "heads = 3"));
    with("overflow.toml", base.replace("hidden = 16", "hidden = 9223372036854775807"));
    with("negative.toml", base.replace("layers = 1", "layers = -1"));
    with("wide.toml", base.replace("hidden = 16", "hidden = 65536").replace("layers = 1", "layers = 1000"));
    with("empty.toml", String::new());
    with("schedule.toml", base.replace("2 clm + 1 mlm + 1 mntp", ""));
    with("typo.toml", base.replace("2 clm + 1 mlm", "2 clm + 1 mlmm"));
    toy.write("latin1.toml", b"version = 1 # caf\xe9\n");
    // Allowed one by one, but no machine of ours has the memory: 2 billion weights, or activations of 16 M rows.
    let huge = base.replace("layers = 1\nhidden = 16", "layers = 140\nhidden = 1024");
    with(
        "huge.toml",
        huge.replace("intermediate = 32", "intermediate = 3072")
            .replace("micro_tokens = 100", "micro_tokens = 16777216")
            .replace("segments = 8", "segments = 524288"),
    );
    let cases: [(&str, &[&str]); 14] = [
        ("unknown.toml", &["unknown.toml", "speed"]),
        ("type.toml", &["type.toml", "model.layers"]),
        ("syntax.toml", &["syntax.toml", "line 11"]),
        ("heads.toml", &["heads.toml", "model.heads", "3"]),
        ("overflow.toml", &["overflow.toml", "model.hidden"]),
        ("negative.toml", &["negative.toml", "model.layers"]),
        ("wide.toml", &["wide.toml", "model", "parameters are too many"]),
        ("empty.toml", &["empty.toml", "version"]),
        ("schedule.toml", &["schedule", "character 1"]),
        ("typo.toml", &["schedule", "character 11", "mlmm"]),
        ("latin1.toml", &["latin1.toml", "byte 17"]),
        ("huge.toml", &["huge", "model", "GB"]),
        ("nowhere.toml", &["nowhere.toml"]),
        (".", &["."]),
    ];
    for (recipe, words) in cases {
        // The recipe comes before the text: that it is missing is not what is complained about.
        refused(toy.path(), &train(recipe, "no-such-text.txt"), words);
    }
    for recipe in ["unknown.toml", "heads.toml", "wide.toml", "typo.toml"] {
        refused(toy.path(), &["plan", recipe], &[]);
        refused(toy.path(), &["bench", recipe, "--objective", "clm"], &[]);
    }
    let bench = ["bench", "ltg.toml", "--objective", "mlm", "--batch", "65536", "--seq", "65536"];
    refused(toy.path(), &bench, &[]);

    // A gigabyte of zeros that takes no room on the disk: read to its bound and no further.
    std::fs::File::create(toy.file("zeros.toml")).unwrap().set_len(1 << 30).unwrap();
    let args = train("zeros.toml", "text.txt");
    is_refusal(&args, &antlm(toy.path(), &args), &["zeros.toml", "too long"]);
    #[cfg(target_os = "linux")]
    is_refusal(&args, &antlm(toy.path(), &train("/dev/zero", "text.txt")), &["/dev/zero", "too long"]);
    assert!(!toy.file("run").exists());
}

#[test]
fn options() {
    let toy = Toy::new();
    let set = |value: &str, words: &[&str]| {
        refused(toy.path(), &[&train("ltg.toml", "text.txt")[..], &["--set", value]].concat(), words);
    };
    set("nonsense", &["--set", "nonsense", "KEY=VALUE"]);
    set("=3", &["--set", "KEY=VALUE"]);
    set("speed=3", &["speed"]);
    set("model.layers=many", &["model.layers"]);
    set("model.layers.deep=3", &["layers"]);
    set("schedule=", &["schedule"]);
    set("schedule=1 clm + ", &["schedule", "character"]);
    for threads in ["0", "-1", "many", "99999999999"] {
        let output = antlm(toy.path(), &[&train("ltg.toml", "text.txt")[..], &["--threads", threads]].concat());
        assert_eq!(output.status.code(), Some(2), "{threads}");
    }
    std::fs::create_dir(toy.file("mine")).unwrap();
    toy.write("mine/thesis.tex", "x");
    refused(toy.path(), &["train", "ltg.toml", "--text", "text.txt", "--out", "mine"], &["mine", "not empty"]);
    refused(toy.path(), &["train", "ltg.toml", "--text", "text.txt", "--out", "text.txt"], &["text.txt"]);
    refused(toy.path(), &["train", "--resume", "mine"], &["mine", "recipe.toml"]);
    refused(toy.path(), &["train", "--resume", "nowhere"], &["nowhere", "no such folder"]);
}

/// A prepared folder that was damaged, or made for the other family.
#[test]
fn prepared_text() {
    let toy = Toy::new();
    for (recipe, out) in [("ltg.toml", "ltg"), ("llama.toml", "llama")] {
        succeeds(toy.path(), &["prepare", recipe, "--text", "text.txt", "--out", out, "--quiet"]);
    }
    refused(toy.path(), &train("ltg.toml", "llama"), &["llama", "another family"]);
    refused(toy.path(), &[&train("ltg.toml", "ltg")[..], &["--dev", "text.txt"]].concat(), &["ltg", "--dev"]);

    let (ltg, llama) = (toy.read("ltg/tokenizer.json"), toy.read("llama/tokenizer.json"));
    toy.write("ltg/tokenizer.json", &llama);
    refused(toy.path(), &train("ltg.toml", "ltg"), &["ltg/tokenizer.json", "prepare the text again"]);
    // Nor with the summary changed to fit it: that has a checksum of its own.
    let summary = String::from_utf8(toy.read("ltg/prepared.json")).unwrap();
    let sha = |name: &str| toy.json(&format!("{name}/prepared.json"))["tokenizer_sha256"].as_str().unwrap().to_owned();
    toy.write("ltg/prepared.json", summary.replace(&sha("ltg"), &sha("llama")));
    refused(toy.path(), &train("ltg.toml", "ltg"), &["ltg/prepared.json", "checksum", "prepare the text again"]);
    toy.write("ltg/prepared.json", &summary);
    toy.write("ltg/tokenizer.json", &ltg);

    let shard = toy.read("ltg/train.tokens");
    for length in [0, 7, 100, 128, shard.len() / 2, shard.len() - 1] {
        toy.write("ltg/train.tokens", &shard[..length]);
        refused(toy.path(), &train("ltg.toml", "ltg"), &["ltg/train.tokens"]);
    }
    let mut flipped = shard.clone();
    flipped[200] ^= 1;
    toy.write("ltg/train.tokens", &flipped);
    refused(toy.path(), &train("ltg.toml", "ltg"), &["ltg/train.tokens", "damaged"]);
    std::fs::remove_file(toy.file("ltg/train.tokens")).unwrap();
    refused(toy.path(), &train("ltg.toml", "ltg"), &["ltg/train.tokens"]);
    toy.write("ltg/train.tokens", &shard);
    toy.write("ltg/prepared.json", "{}");
    refused(toy.path(), &train("ltg.toml", "ltg"), &["ltg/prepared.json", "line 1"]);
}

#[test]
fn what_is_scored() {
    let toy = Toy::new();
    toy.train("ltg.toml", "run", &["--set", "schedule=1 mlm"]);
    let score = ["score", "run"];
    let wrong = antlm_with_input(toy.path(), &score, b"na\xefve\n");
    is_refusal(&score, &wrong, &["<stdin>: line 1, byte 2", "UTF-8"]);
    let long = antlm_with_input(toy.path(), &score, "dogs ".repeat(20_000).as_bytes());
    is_refusal(&score, &long, &["tokens", "4096"]);
    // What was right before the wrong line is scored.
    let late = antlm_with_input(toy.path(), &score, b"The dogs sleep.\n\xff\n");
    assert_eq!(late.status.code(), Some(2));
    assert_eq!(String::from_utf8(late.stdout).unwrap().lines().count(), 1);

    let newest = format!("run/checkpoints/{}", toy.names("run/checkpoints").last().unwrap());
    let tokenizer = toy.read("run/tokenizer.json");
    toy.write("run/tokenizer.json", "{}");
    refused(toy.path(), &score, &["run/tokenizer.json"]);
    toy.write("run/tokenizer.json", &tokenizer);
    toy.write(&format!("{newest}/state.json"), "{}");
    refused(toy.path(), &["score", &newest], &["state.json", "version"]);
    std::fs::remove_dir_all(toy.file("run/checkpoints")).unwrap();
    refused(toy.path(), &score, &["run", "no checkpoint"]);
    toy.write("run/recipe.toml", "version = 1\n");
    refused(toy.path(), &score, &["run/recipe.toml"]);
}
