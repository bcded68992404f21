//! `antlm eval` from outside: every backend and checkpoint, results that are kept, items, what is missing or broken.

use serde_json::Value;

use super::common::{Toy, antlm, refused, stderr, stdout, succeeds};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn toy() -> Toy {
    let toy = Toy::new();
    toy.train("ltg.toml", "run", &[]);
    succeeds(toy.path(), &["sample-pairs", "--per-phenomenon", "4", "--out", "pairs"]);
    toy
}

#[test]
fn models_are_judged_and_results_are_kept() {
    let toy = toy();
    let eval = |more: &[&str]| {
        let output = antlm(toy.path(), &[&["eval", "run", "--data", "pairs"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{more:?}: {}", stderr(&output));
        (stdout(&output), stderr(&output))
    };
    let (text, notes) = eval(&["--json"]);
    let results = lines(&text);
    let backends: Vec<&str> = results.iter().map(|result| result["backend"].as_str().unwrap()).collect();
    assert_eq!(backends, ["causal", "mlm", "mntp"]);
    assert!(notes.contains("pairs, causal: done"), "{notes}");
    for result in &results {
        assert_eq!((&result["task"], &result["protocol"], &result["n"]), (&"pairs".into(), &"2026".into(), &28.into()));
        assert_eq!(result["parts"]["uid"].as_object().unwrap().len(), 7);
        let kept = toy.json(&format!(
            "run/results/{}/pairs.{}.2026.json",
            result["checkpoint"]["name"].as_str().unwrap(),
            result["backend"].as_str().unwrap()
        ));
        assert_eq!(kept["score"], result["score"]);
        assert_eq!(kept["outcomes"].as_object().unwrap().len(), 7);
    }
    // Taken from what is there, and the same on one thread, made anew.
    let (again, notes) = eval(&["--json"]);
    assert!(again == text && notes.contains("as it was in RUN/results/"), "{notes}");
    assert_eq!(eval(&["--json", "--again", "--threads", "1", "--quiet"]), (text, String::new()));

    let (table, _) = eval(&["--backend", "causal", "--parts", "--limit", "2", "--quiet"]);
    let words: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(words[..9], ["run", "checkpoint", "task", "backend", "protocol", "score", "metric", "items", "ties"]);
    assert!(table.contains("not to be compared") && table.contains("phenomenon"), "{table}");

    // All checkpoints, those at the ends of blocks, one; another protocol.
    let names = |more: &[&str]| -> Vec<String> {
        let (text, _) = eval(&[&["--json", "--quiet", "--backend", "mlm", "--limit", "1"], more].concat());
        lines(&text).iter().map(|result| result["checkpoint"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["--checkpoints", "blocks"]), toy.kept("run"));
    assert_eq!(names(&["--checkpoints", "all"]), toy.names("run/checkpoints"));
    assert_eq!(names(&[]), toy.kept("run")[2..]);
    let (text, _) = eval(&["--json", "--quiet", "--protocol", "2024", "--backend", "mlm"]);
    assert_ne!(lines(&text)[0]["score"], Value::Null);
    assert!(toy.names(&format!("run/results/{}", toy.kept("run")[2])).contains(&"pairs.mlm.2024.json".to_owned()));
}

#[test]
fn items_have_what_scoring_says() {
    let toy = toy();
    succeeds(toy.path(), &["eval", "run", "--data", "pairs", "--backend", "mntp", "--items", "items.jsonl", "--quiet"]);
    let items = lines(&String::from_utf8(toy.read("items.jsonl")).unwrap());
    assert_eq!(items.len(), 28);
    assert_eq!((&items[0]["run"], &items[0]["set"]), (&"run".into(), &"full".into()));
    for item in items.iter().take(5) {
        for (number, candidate) in item["candidates"].as_array().unwrap().iter().enumerate() {
            let sentence = candidate["text"].as_str().unwrap();
            toy.write("sentence", sentence);
            let args = ["score", "run", "--backend", "mntp", "--json"];
            let scored = super::common::antlm_with_input(toy.path(), &args, sentence.as_bytes());
            let total = lines(&stdout(&scored))[0]["total"].as_f64().unwrap();
            assert!((total - item["logprobs"][number].as_f64().unwrap()).abs() < 1e-4, "{item}");
        }
    }
}

#[test]
fn what_is_missing_or_broken_is_named() {
    let toy = toy();
    let refuse = |args: &[&str], words: &[&str]| refused(toy.path(), &[&["eval"], args, &["--quiet"]].concat(), words);
    refuse(&["run", "--data", "nowhere"], &["nowhere", "no such folder"]);
    refuse(&["run", "--data", "text.txt"], &["text.txt", "not a folder"]);
    refuse(&["run", "--data", "run/checkpoints"], &["run/checkpoints", "no data of any task"]);
    refuse(&["nowhere", "--data", "pairs"], &["nowhere"]);
    refuse(&["run", "--data", "pairs", "--tasks", "ewok"], &["no data of ewok", "ewok-core"]);
    refuse(&["run", "--data", "pairs", "--checkpoints", "milestones"], &["run", "no milestones"]);
    refuse(&["run", "--data", "pairs", "--ema"], &["ema"]);
    let unknown = antlm(toy.path(), &["eval", "run", "--data", "pairs", "--tasks", "blimb"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("did you mean blimp?"), "{}", stderr(&unknown));
    // A task that cannot be scored takes nothing from the others.
    std::fs::create_dir(toy.file("pairs/reading")).unwrap();
    toy.write(
        "pairs/reading/reading_data.csv",
        "item,word,Subtlex_log10,length,context_length,RTfirstfix,RTfirstpass,RTgopast,RTrightbound,\
         self_paced_reading_time,prev_word,prev_item,prev_length\na,b,1,2,3,4,5,6,7,8,c,d,9\n",
    );
    let failed = antlm(toy.path(), &["eval", "run", "--data", "pairs", "--quiet"]);
    assert_eq!(failed.status.code(), Some(2));
    assert!(["causal", "mlm", "mntp"].iter().all(|way| stdout(&failed).contains(way)), "{}", stdout(&failed));
    let said = stderr(&failed);
    assert_eq!((said.lines().count(), said.matches("do not differ").count()), (3, 3), "{said}");
    assert!(said.contains("reading, causal"), "{said}");
    std::fs::remove_dir_all(toy.file("pairs/reading")).unwrap();
    toy.write("pairs/zz.jsonl", "{\"sentence_good\": \"a\", \"sentence_bad\": \"b\"}\n{\"sentence_good\": \"a\"}\n");
    refuse(&["run", "--data", "pairs"], &["zz.jsonl", "line 2", "sentence_bad"]);
}
