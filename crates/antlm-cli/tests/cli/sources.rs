//! Sources of a recipe through the binary: cleaned, weighted, packed; `prepare --diff`; what is wrong with them.

use serde_json::Value;

use super::common::{Toy, antlm, refused, stderr, succeeds, tree};

/// A toy whose recipe `mine/recipe.toml` names its text itself.
fn toy(data: &str) -> Toy {
    let toy = Toy::new();
    std::fs::create_dir_all(toy.file("mine/texts")).unwrap();
    let text = String::from_utf8(toy.read("text.txt")).unwrap();
    toy.write("mine/texts/qed.txt", format!("- A  line .\n- A  line .\n\n&lt;i&gt;\n\n{text}"));
    toy.write("mine/lines.jsonl", "{\"body\": \"one document\"}\n{\"body\": \"another one\"}\n");
    let recipe = String::from_utf8(toy.read("ltg.toml")).unwrap();
    toy.write("mine/recipe.toml", format!("{recipe}{data}"));
    toy
}

const DATA: &str = "\
[[data]]
name = \"talks\"
paths = [\"texts\"]
cleaning = \"babylm\"
language = \"eng\"
[[data]]
name = \"lines\"
paths = [\"lines.jsonl\"]
field = \"body\"
weight = 3
";

#[test]
fn a_recipe_says_where_its_text_is_and_how_it_is_read() {
    let toy = toy(DATA);
    let plan: serde_json::Value =
        serde_json::from_str(&succeeds(toy.path(), &["plan", "mine/recipe.toml", "--json"])).unwrap();
    let [talks, lines] = &plan["sources"].as_array().unwrap()[..] else { panic!("{plan}") };
    assert_eq!(
        (&talks["cleaning"], &talks["language"], &talks["dropped"]),
        (&"babylm".into(), &"eng".into(), &1.into())
    );
    assert_eq!((&lines["text_words"], &lines["epoch"]["words"]), (&4.into(), &12.into()));
    let words = |key: &str| plan["dataset"][key].as_u64().unwrap();
    assert_eq!(words("words"), words("text_words") + 8);
    let text = succeeds(toy.path(), &["plan", "mine/recipe.toml"]);
    for part in
        ["talks: ", ", eng, cleaning babylm (dropped 1 documents)", "lines: 4 words in 2 documents, weight 3 (12"]
    {
        assert!(text.contains(part), "{text}");
    }

    // From another folder it is the same text, and so it is for the recipe that the run keeps.
    std::fs::create_dir(toy.file("elsewhere")).unwrap();
    let elsewhere = toy.file("elsewhere");
    let train = |recipe: &str, run: &str| {
        let set = ["--set", "schedule=1 clm"];
        succeeds(&elsewhere, &[&["train", recipe, "--out", run, "--quiet"][..], &set].concat());
        toml(&toy, &format!("elsewhere/{run}/recipe.toml"))
    };
    let first = train("../mine/recipe.toml", "first");
    let second = train("first/recipe.toml", "second");
    assert_eq!(first["used"]["text"], second["used"]["text"]);
    assert_eq!(first["data"], second["data"]);
    assert_eq!(first["data"][0]["cleaning"].as_str(), Some("babylm"));
    assert_eq!(first["data"][1]["weight"].as_float(), Some(3.0));

    // Text on the command line takes the place of all of it.
    let args =
        ["train", "mine/recipe.toml", "--text", "text.txt", "--out", "run", "--quiet", "--set", "schedule=1 clm"];
    succeeds(toy.path(), &args);
    let run = toml(&toy, "run/recipe.toml");
    assert_eq!(run["data"].as_array().unwrap().len(), 1);
    let path = std::path::absolute(toy.file("text.txt")).unwrap();
    assert!(run["data"][0]["paths"][0].as_str().unwrap().ends_with("text.txt"), "{path:?}");
    assert_eq!(run["data"][0]["cleaning"].as_str(), Some("none"));
}

fn toml(toy: &Toy, name: &str) -> toml::Table {
    String::from_utf8(toy.read(name)).unwrap().parse().unwrap()
}

#[test]
fn a_diff_shows_what_cleaning_changes_and_writes_nothing() {
    let toy = toy(DATA);
    let before = tree(toy.path());
    let text = succeeds(toy.path(), &["prepare", "mine/recipe.toml", "--diff"]);
    for part in ["talks: cleaning babylm", "qed", "entities", "- - A  line .", "+ - A line .", "lines: cleaning none"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let args = ["prepare", "ltg.toml", "--text", "mine/texts/qed.txt", "--cleaning", "babylm:qed", "--diff", "--json"];
    let json: serde_json::Value = serde_json::from_str(&succeeds(toy.path(), &args)).unwrap();
    let source = &json["sources"][0];
    assert_eq!((&source["cleaning"], &source["documents_dropped"]), (&"babylm:qed".into(), &1.into()));
    let rule = |name: &str| source["rules"].as_array().unwrap().iter().find(|r| r["rule"] == name).unwrap().clone();
    assert_eq!(rule("markup")["lines_dropped"], 1);
    assert_eq!(rule("dash")["lines_changed"], 2);
    assert_eq!(rule("repeats")["examples"][0], serde_json::json!({ "before": "A line .", "after": null }));
    let nothing = succeeds(toy.path(), &["prepare", "ltg.toml", "--text", "text.txt", "--diff"]);
    assert!(nothing.contains("nothing is cleaned"), "{nothing}");
    assert!(tree(toy.path()) == before);
}

#[test]
fn wrong_sources_are_refused() {
    for (from, to, words) in [
        ("\"babylm\"", "\"babyml\"", &["mine/recipe.toml", "data.cleaning", "did you mean \"babylm\"?"][..]),
        ("\"babylm\"", "\"babylm:qde\"", &["did you mean \"babylm:qed\"?"]),
        ("weight = 3", "weight = 0", &["data.weight", "above 0"]),
        ("\"eng\"", "\"english\"", &["data.language"]),
        ("\"eng\"", "\"zho\"", &["data.words", "talks", "bytes"]),
        ("\"body\"", "\"text\"", &["lines.jsonl", "line 1", "no field \"text\""]),
        ("\"texts\"", "\"text\"", &["mine/text"]),
        ("\"lines.jsonl\"", "\"x.jsonl.gz\"", &["x.jsonl.gz", "byte 0", "cut short"]),
        ("\"lines.jsonl\"", "\"x.jsonl.zst\"", &["x.jsonl.zst", "byte 0", "damaged"]),
        ("\"texts\"", "\"lines.jsonl\"", &["lines.jsonl", "name", "babylm:CORPUS"]),
        #[cfg(not(feature = "parquet"))]
        ("\"lines.jsonl\"", "\"x.parquet\"", &["x.parquet", "--features parquet"]),
        #[cfg(feature = "parquet")]
        ("\"lines.jsonl\"", "\"x.parquet\"", &["x.parquet", "cannot be read as parquet"]),
    ] {
        let toy = toy(&DATA.replace(from, to));
        toy.write("mine/x.jsonl.gz", b"\x1f\x8b\x08");
        toy.write("mine/x.jsonl.zst", b"no archive");
        toy.write("mine/x.parquet", b"no table");
        refused(toy.path(), &["prepare", "mine/recipe.toml", "--out", "ready", "--quiet"], words);
        refused(toy.path(), &["train", "mine/recipe.toml", "--out", "run", "--quiet"], words);
    }
    let toy = Toy::new();
    // Wrong usage in clap's words.
    for (args, word) in [
        (
            &["prepare", "ltg.toml", "--text", "text.txt", "--cleaning", "babyml", "--diff"][..],
            "did you mean \"babylm\"?",
        ),
        (&["prepare", "ltg.toml", "--cleaning", "babylm", "--diff"], "--text"),
        (&["prepare", "ltg.toml", "--text", "text.txt", "--diff", "--out", "x"], "--diff"),
        (&["prepare", "ltg.toml", "--text", "text.txt"], "--out"),
    ] {
        let output = antlm(toy.path(), args);
        assert!(output.status.code() == Some(2) && stderr(&output).contains(word), "{}", stderr(&output));
    }
    succeeds(toy.path(), &["prepare", "ltg.toml", "--text", "text.txt", "--out", "ready", "--quiet"]);
    let args = ["train", "ltg.toml", "--text", "ready", "--cleaning", "babylm", "--out", "run", "--quiet"];
    refused(toy.path(), &args, &["ready", "not cleaned again"]);
}

/// A track's limit of words holds before anything is written, for a model that another run has trained, too; without a
/// track a line says what BabyLM would not allow.
#[test]
fn a_track_refuses_too_many_words() {
    let toy = Toy::new();
    let args = |more: &[&'static str]| {
        [&["train", "ltg.toml", "--text", "text.txt", "--out", "run", "--quiet"][..], more].concat()
    };
    // Some 2,500 words.
    let many = ["--set", "schedule=50000 clm"];
    succeeds(toy.path(), &["prepare", "ltg.toml", "--text", "text.txt", "--out", "ready", "--quiet"]);
    let words = [
        "track strict-small",
        "words an epoch x 50000 epochs = ",
        "100,000,000 are allowed",
        "block 1",
        "--track none",
    ];
    let milestones = ["--set", "checkpoints.milestones=babylm-strict-small"];
    for more in [&["--track", "strict-small"][..], &["--set", "track=strict-small"], &milestones] {
        let args = [&["train", "ltg.toml", "--text", "ready", "--out", "run", "--quiet"], &many[..], more].concat();
        refused(toy.path(), &args, &words);
    }
    let plan = [&["plan", "ltg.toml", "--text", "ready", "--json"], &many[..], &milestones].concat();
    let plan: Value = serde_json::from_str(&succeeds(toy.path(), &plan)).unwrap();
    assert_eq!((&plan["track"], &plan["allowed"]["seen"]), (&"strict-small".into(), &100_000_000.into()));
    assert!(plan["refused"].as_str().unwrap().contains("50000 epochs"));

    // Stopped at once: this is about how it begins.
    let output = antlm(toy.path(), &[&args(&many)[..5], &["free", "--stop-after", "1s"], &many].concat());
    assert_eq!(output.status.code(), Some(142), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("BabyLM's track strict-small allows 100,000,000 since 2025"), "{said}");

    succeeds(toy.path(), &args(&["--set", "schedule=1 clm", "--track", "strict-small"]));
    let on =
        ["train", "ltg.toml", "--text", "text.txt", "--out", "on", "--quiet", "--init", "run", "--track", "strict"];
    succeeds(toy.path(), &[&on[..], &["--set", "schedule=1 clm"]].concat());
    let recipe: toml::Table = String::from_utf8(toy.read("on/recipe.toml")).unwrap().parse().unwrap();
    let seen = recipe["used"]["init"]["words"].as_integer().unwrap();
    assert!((2_000..3_000).contains(&seen) && recipe["track"].as_str() == Some("strict"), "{recipe}");
}
