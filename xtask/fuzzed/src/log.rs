//! Logs: the lines of a run's log, or of its timings.

use antlm::train::{events, info, run_folder};

pub fn run(data: &[u8]) -> bool {
    let mut good = Vec::new();
    for event in events::read_log("log.jsonl", data) {
        let Some(event) = crate::read(event) else { break };
        good.push(event);
    }
    // Written again, they are read as the same.
    let mut lines = String::new();
    for event in &good {
        lines += &format!("{}\n", serde_json::to_string(event).expect("an event is JSON"));
    }
    let again = events::read_log("log.jsonl", lines.as_bytes());
    assert_eq!(again.collect::<antlm::Result<Vec<_>>>().expect("what it writes it reads"), good);
    if events::read_timing("timing.jsonl", data).map_while(crate::read).count() > 0 {
        return true;
    }
    let run = crate::place("logged");
    std::fs::create_dir_all(&run).expect("a temporary folder");
    for (name, bytes) in [(run_folder::RECIPE, &b""[..]), (run_folder::LOG, data)] {
        std::fs::write(run.join(name), bytes).expect("a temporary file");
    }
    let Some(info) = crate::read(info::read(&run)) else { return false };
    assert!(good.iter().all(|event| event.step() <= info.step));
    !good.is_empty()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let lines = [
        r#"{"event":"start","version":1,"recipe":"r","schedule":"1 clm","seed":7,"parameters":99,"blocks":1,"steps":20,"words":4000}"#,
        r#"{"event":"step","step":1,"block":0,"epoch":0,"objective":"clm","loss":5.5,"lr":0.1,"grad_norm":1.0,"rows":9,"targets":8,"words_seen":200}"#,
        r#"{"event":"dev","step":1,"block":0,"at":"block","backend":"mlm","loss":7.0,"targets":5,"unigram":6.5}"#,
        r#"{"event":"switch","step":1,"block":1,"from":"clm","to":"mntp"}"#,
        r#"{"event":"milestone","step":1,"name":"chck_1M","words_seen":1000000}"#,
        r#"{"event":"block_end","step":1,"block":0,"objective":"clm","words_seen":200}"#,
        r#"{"event":"end","step":20,"words_seen":4000}"#,
    ];
    let timings = [
        r#"{"step":1,"seconds":0.5,"tokens_per_second":1000.0}"#,
        r#"{"step":1,"seconds":0.6,"event":{"event":"checkpoint","step":1,"path":"checkpoints/step-000000001","kept":true}}"#,
        r#"{"step":1,"seconds":0.7,"event":{"event":"warning","step":1,"text":"w"}}"#,
    ];
    vec![
        lines.join("\n").into_bytes(),
        (timings.join("\n") + "\n").into_bytes(),
        (lines.join("\n") + "\n").into_bytes(),
    ]
}
