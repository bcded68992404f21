//! `export`, `import`, `train --init` and `push`, from outside.

use serde_json::Value;

use super::common::{Toy, antlm, refused, stderr, stdout, succeeds};

/// Lines of `score --json`.
fn scores(toy: &Toy, run: &str, backend: &str) -> String {
    let args = ["score", run, "--json", "--quiet", "--backend", backend];
    let output = super::common::antlm_with_input(toy.path(), &args, b"The dogs sleep.\nA cat!\n");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output)
}

#[test]
fn out_and_in_and_on() {
    let toy = Toy::new();
    for recipe in ["ltg.toml", "llama.toml"] {
        let name = |what: &str| format!("{}-{what}", recipe.trim_end_matches(".toml"));
        let (run, out, back, on) = (name("run"), name("out"), name("back"), name("on"));
        toy.train(recipe, &run, &["--set", "schedule=1 clm + 1 mntp"]);
        let said = succeeds(toy.path(), &["export", &run, "--out", &out, "--license", "mit"]);
        assert!(said.contains(&out), "{said}");
        let card = String::from_utf8(toy.read(&format!("{out}/README.md"))).unwrap();
        assert!(card.contains("measured by `antlm train` at this checkpoint") && card.contains("| `mntp` |"), "{card}");
        let said = succeeds(toy.path(), &["import", &out, "--out", &back]);
        assert!(said.contains("antlm score") && !said.contains("not known"), "{said}");
        for backend in ["causal", "mntp"] {
            assert_eq!(scores(&toy, &run, backend), scores(&toy, &back, backend));
        }
        let info = succeeds(toy.path(), &["info", &back]);
        assert!(info.contains("imported") && info.contains(&out), "{info}");
        // On from there, with the recipe that came with it.
        let imported = format!("{back}/recipe.toml");
        toy.train(&imported, &on, &["--init", &back, "--set", "schedule=1 mntp"]);
        let recipe: toml::Table = String::from_utf8(toy.read(&format!("{on}/recipe.toml"))).unwrap().parse().unwrap();
        assert!(recipe["used"]["init"]["weights"].is_str() && !recipe.contains_key("imported"), "{recipe}");
        assert_eq!(toy.read(&format!("{on}/tokenizer.json")), toy.read(&format!("{run}/tokenizer.json")));
        refused(toy.path(), &["train", "--resume", &back], &["imported", "--init"]);
        refused(toy.path(), &["export", &run, "--out", &out], &["exists already"]);
        refused(toy.path(), &["export", &run, "--out", "a.b"], &["dot"]);
        refused(toy.path(), &["export", &run, "--out", "new", "--ema"], &["ema_decay"]);
        refused(toy.path(), &["export", &run, "--out", "new", "--milestones"], &["no milestones"]);
        refused(toy.path(), &["export", &run, "--out", "new", "--checkpoint", "step-1"], &["step-1", "there are"]);
        refused(toy.path(), &["import", &run, "--out", "new"], &["config.json"]);
        let small = ["train", recipe_of_other_size(&toy), "--text", "text.txt", "--init", &run, "--out", "new"];
        refused(toy.path(), &small, &["--set model.layers=1"]);
    }
    let json = succeeds(toy.path(), &["export", "ltg-run", "--out", "again", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["folders"], serde_json::json!(["again"]));

    // What would be uploaded needs no network and no token.
    let said = succeeds(toy.path(), &["push", "again", "--repo", "me/again", "--dry-run"]);
    for words in ["me/again", "main", "config.json", "model.safetensors", "modeling_antlm_ltg_bert.py", "README.md"] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!said.contains("not uploaded"), "{said}");
    std::fs::create_dir(toy.file("again/figures")).unwrap();
    toy.write("again/figures/loss.txt", "x");
    let said = succeeds(toy.path(), &["push", "again", "--repo", "me/again", "--dry-run"]);
    assert!(said.contains("not uploaded: again/figures\n") && !said.contains("loss.txt"), "{said}");
    let json = succeeds(toy.path(), &["push", "again", "--repo", "me/again", "--dry-run", "--json", "--private"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["private"], &json["branches"][0]["name"]), (&true.into(), &"main".into()));
    assert_eq!(json["left_out"], serde_json::json!(["again/figures"]));
    refused(toy.path(), &["push", "again", "--repo", "me/a.b", "--dry-run"], &["dot"]);
    refused(toy.path(), &["push", "ltg-run", "--repo", "me/again", "--dry-run"], &["config.json"]);
    let output = antlm(toy.path(), &["push", "again", "--repo", "me/again"]);
    if cfg!(not(feature = "hub")) {
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("--features hub"), "{}", stderr(&output));
    }
}

fn recipe_of_other_size(toy: &Toy) -> &'static str {
    toy.write("other.toml", "version = 1\nbase = \"ltg-bert-tiny\"\n[model]\nlayers = 3\n");
    "other.toml"
}

/// Against a server of our own on this machine.
#[cfg(feature = "hub")]
mod upload {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::common::command;

    const TOKEN: &str = "hf_a_secret_that_nobody_sees";

    /// Method and path, the authorization header, and the body.
    type Request = (String, String, Vec<u8>);

    /// A server that answers as the Hub does, and writes down what it is asked. Every file is taken within the commit.
    fn serve(refuse: bool) -> (String, Arc<Mutex<Vec<Request>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), refuse, &seen);
            }
        });
        (address, requests)
    }

    fn answer(mut stream: TcpStream, refuse: bool, seen: &Mutex<Vec<Request>>) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut line, mut length, mut authorization) = (String::new(), 0, String::new());
        reader.read_line(&mut line).unwrap();
        let request = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap() == 0 || line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            match name.to_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "authorization" => authorization = value.trim().to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let (status, json) = if refuse {
            // A server that echoes what it was sent.
            ("403 Forbidden", serde_json::json!({"error": format!("not allowed: {authorization}")}))
        } else if request.contains("/branch/chck_2M") {
            ("409 Conflict", serde_json::json!({"error": "Reference already exists"}))
        } else if request.contains("/preupload/") {
            let asked: Value = serde_json::from_slice(&body).unwrap();
            let file = |file: &Value| serde_json::json!({"path": file["path"], "uploadMode": "regular", "shouldIgnore": false});
            let files: Vec<Value> = asked["files"].as_array().unwrap().iter().map(file).collect();
            ("200 OK", serde_json::json!({"files": files}))
        } else if request.contains("/commit/") {
            ("200 OK", serde_json::json!({"commitOid": "c0ffee", "commitUrl": "http://hub/commit/c0ffee"}))
        } else {
            ("200 OK", serde_json::json!({"url": "http://hub/me/model"}))
        };
        seen.lock().unwrap().push((request, authorization, body));
        let json = json.to_string();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
        write!(stream, "{head}content-length: {}\r\n\r\n{json}", json.len()).unwrap();
    }

    /// A folder of two exports, without training.
    fn milestones(toy: &Toy) {
        for name in ["chck_1M", "chck_2M"] {
            std::fs::create_dir_all(toy.file(&format!("many/{name}"))).unwrap();
            for file in ["config.json", "model.safetensors"] {
                toy.write(&format!("many/{name}/{file}"), format!("{name} {file}"));
            }
        }
    }

    fn push(toy: &Toy, address: &str) -> std::process::Output {
        let mut command = command(toy.path(), &["push", "many", "--repo", "me/model", "--private", "--json"]);
        command
            .env("HF_ENDPOINT", address)
            .env("HF_TOKEN", TOKEN)
            .env("HF_HOME", toy.path())
            .env_remove("HF_TOKEN_PATH");
        command.output().unwrap()
    }

    #[test]
    fn every_milestone_becomes_a_branch_with_a_commit() {
        let toy = Toy::new();
        milestones(&toy);
        let (address, requests) = serve(false);
        let output = push(&toy, &address);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["commits"], serde_json::json!(["http://hub/commit/c0ffee", "http://hub/commit/c0ffee"]));
        let requests = requests.lock().unwrap();
        let asked: Vec<&str> = requests.iter().map(|(request, _, _)| request.as_str()).collect();
        assert_eq!(
            asked,
            [
                "POST /api/repos/create",
                "POST /api/models/me/model/branch/chck_1M",
                "POST /api/models/me/model/preupload/chck_1M",
                "POST /api/models/me/model/commit/chck_1M",
                "POST /api/models/me/model/branch/chck_2M", // there already, which is fine
                "POST /api/models/me/model/preupload/chck_2M",
                "POST /api/models/me/model/commit/chck_2M",
            ]
        );
        assert!(requests.iter().all(|(_, authorization, _)| *authorization == format!("Bearer {TOKEN}")));
        let made: Value = serde_json::from_slice(&requests[0].2).unwrap();
        assert_eq!(
            (&made["name"], &made["organization"], &made["private"]),
            (&"model".into(), &"me".into(), &true.into())
        );
        let commit = String::from_utf8(requests[3].2.clone()).unwrap();
        let lines: Vec<Value> = commit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        // "chck_1M config.json" in base64.
        assert_eq!(lines[1]["value"]["path"], "config.json");
        assert_eq!(lines[1]["value"]["content"], "Y2hja18xTSBjb25maWcuanNvbg==");
        assert!(!(stdout(&output) + &stderr(&output)).contains(TOKEN));
    }

    #[test]
    fn a_refusal_is_one_line_without_the_token_and_no_token_is_said() {
        let toy = Toy::new();
        milestones(&toy);
        let (address, _) = serve(true);
        let output = push(&toy, &address);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("me/model") && said.contains("Forbidden") && !said.contains(TOKEN), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");

        let mut command = command(toy.path(), &["push", "many", "--repo", "me/model"]);
        command
            .env_remove("HF_TOKEN")
            .env_remove("HF_TOKEN_PATH")
            .env("HF_HOME", toy.path())
            .env("HF_ENDPOINT", &address);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("no token") && stderr(&output).contains("HF_TOKEN"), "{}", stderr(&output));
        // In a file it is found.
        toy.write("token", format!("{TOKEN}\n"));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(!stderr(&output).contains(TOKEN));
    }
}
