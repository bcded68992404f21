//! Evaluation files: the first byte says which task's, or that it is a result.

use antlm::eval::finetune::data;
use antlm::eval::results::TaskResult;
use antlm::eval::zeroshot::find::Found;
use antlm::eval::zeroshot::protocol::Protocol;
use antlm::eval::zeroshot::{Task, aoa, items, reading};
use antlm::objective::Backend;
use antlm::text::special::Family;
use antlm::text::tokenizer::Tokenizer;

/// Ways of reading: the zero-shot tasks, those of fine-tuning, results, children's norms.
const WAYS: usize = Task::ALL.len() + data::Task::ALL.len() + 2;

pub fn run(data: &[u8]) -> bool {
    let Some((way, bytes)) = crate::choice(data, WAYS) else { return false };
    match Task::ALL.get(way) {
        Some(Task::Reading) => read_times(bytes),
        Some(Task::Aoa) => read_contexts(bytes),
        Some(&task) => read_items(task, bytes),
        None => match data::Task::ALL.get(way - Task::ALL.len()) {
            Some(&task) => read_rows(task, bytes),
            None if way + 2 == WAYS => read_result(bytes),
            None => read_norms(bytes),
        },
    }
}

fn read_items(task: Task, bytes: &[u8]) -> bool {
    let path = crate::file("comps_base.jsonl", bytes);
    let found = Found { task, folder: crate::place(""), files: vec![path] };
    crate::read(items::read(&found, Some(1)));
    let Some(read) = crate::read(items::read(&found, None)) else { return false };
    assert!(!read.items.is_empty());
    for item in &read.items {
        assert!(item.candidates.len() >= 2 && item.ratio.is_none_or(f64::is_finite));
        for candidate in item.candidates.iter().take(4) {
            assert!(candidate.start < candidate.text.chars().count().max(1), "{candidate:?}");
            TOKENIZER.with(|tokenizer| {
                for protocol in [Protocol::Y2024, Protocol::Y2026, Protocol::LmEval] {
                    for backend in [Backend::Causal, Backend::Mntp] {
                        crate::read(protocol.request(backend, tokenizer, candidate));
                    }
                }
            });
        }
    }
    true
}

thread_local! {
    static TOKENIZER: Tokenizer = Tokenizer::train(["the cat"; 5], 265, 2, Family::LtgBert).expect("a tokenizer");
}

fn read_times(bytes: &[u8]) -> bool {
    let path = crate::file("reading_data.csv", bytes);
    let Some(words) = crate::read(reading::read(&path, None)) else { return false };
    let surprisal: Vec<f64> = (0..words.len()).map(|i| (i % 7) as f64 + 0.5).collect();
    let previous: Vec<Option<f64>> = surprisal.iter().map(|&s| (s > 1.0).then_some(s)).collect();
    crate::read(reading::explained(&words, &surprisal, &previous));
    for word in words.iter().take(4) {
        for backend in [Backend::Causal, Backend::Mlm] {
            TOKENIZER.with(|tokenizer| crate::read(reading::requests(&word.before, &word.word, backend, tokenizer)));
        }
    }
    true
}

fn read_contexts(bytes: &[u8]) -> bool {
    let path = crate::file("cdi_childes.json", bytes);
    crate::read(aoa::read(&path, Some(1)));
    let Some(words) = crate::read(aoa::read(&path, None)) else { return false };
    for word in words.iter().take(4) {
        for context in word.contexts.iter().take(2) {
            TOKENIZER.with(|tokenizer| crate::read(aoa::request(context, &word.word, Backend::Mlm, tokenizer)));
        }
    }
    true
}

fn read_norms(bytes: &[u8]) -> bool {
    let path = crate::file("cdi_human.csv", bytes);
    let Some(norms) = crate::read(aoa::Norms::read(&path)) else { return false };
    if let Some(age) = norms.age("ball") {
        assert!((16.0..=30.0).contains(&age), "{age}");
    }
    true
}

fn read_rows(task: data::Task, bytes: &[u8]) -> bool {
    let path = crate::file("rte.train.jsonl", bytes);
    crate::read(data::read(&path, task, Some(1)));
    let Some(rows) = crate::read(data::read(&path, task, None)) else { return false };
    assert!(!rows.is_empty() && rows.iter().all(|row| row.label < task.classes()));
    true
}

fn read_result(bytes: &[u8]) -> bool {
    let path = crate::file("result.json", bytes);
    let Some(result) = crate::read(TaskResult::read(&path)) else { return false };
    if crate::read(result.write(&path)).is_some() {
        assert_eq!(TaskResult::read(&path).expect("what it writes it reads"), result);
    }
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let pair = r#"{"sentence_good": "The dogs sleep.", "sentence_bad": "The dogs sleeps.", "UID": "a", "field": "syntax", "linguistics_term": "agreement"}"#;
    let ewok = r#"{"Domain": "d", "Context1": "A is left of B.", "Context2": "A is right of B.", "Target1": "B is right of A.", "Target2": "B is left of A."}"#;
    let tracking = r#"{"input_prefix": "Box 0 contains", "numops": 1, "options": [" the cat.", " the dog."]}"#;
    let comps = r#"{"prefix_acceptable": "A dog", "prefix_unacceptable": "A stone", "property_phrase": "can bark."}"#;
    let wug = r#"{"sentences": "wuggable\twuggish", "ratio": "0.25"}"#;
    let times = "item,word,prev_item,prev_word,Subtlex_log10,length,context_length,prev_length,RTfirstfix,RTfirstpass,RTgopast,RTrightbound,self_paced_reading_time\n\
                 None,The,None,None,1.5,3,0,,1,2,3,4,5\n\"The, \",old,None,The,1.1,3,1,3,2,3,4.25,5.5,7\n";
    let contexts = r#"{"ball": [{"context": "throw me the"}, {"context": "a"}], "dog": [{"context": "the"}]}"#;
    let norms = "word,16,20,24,28,30\nball,0.1,0.2,0.55,0.8,0.9\ndog,0.3,NA,0.5,,1\n";
    let texts = Task::ALL.map(|task| match task {
        Task::Ewok => ewok,
        Task::EntityTracking => tracking,
        Task::Comps => comps,
        Task::WugAdj | Task::WugPast => wug,
        Task::Reading => times,
        Task::Aoa => contexts,
        _ => pair,
    });
    let rows = data::Task::ALL.map(|_| {
        r#"{"question": "q", "passage": "p", "sentence": "s", "premise": "p", "hypothesis": "h", "sentence1": "a", "sentence2": "b", "question1": "a", "question2": "b", "answer": "a", "paragraph": "p", "span1_text": "a", "span2_text": "b", "text": "t", "label": 1}"#
    });
    let mut result = TaskResult::new("blimp", "2026");
    result.outcomes.insert("a".into(), "110=".into());
    let path = crate::place("seed.json");
    result.write(&path).expect("a temporary file");
    let result = std::fs::read_to_string(path).expect("the seed");
    let all = texts.into_iter().chain(rows).chain([&result[..], norms]);
    let mut seeds: Vec<Vec<u8>> = all.zip(0u8..).map(|(text, way)| [&[way], text.as_bytes()].concat()).collect();
    let chinese = r#"{"sen": "a b", "wrong_sen": "b a", "paradigm": "x", "phenomenon": "y"}"#;
    seeds.push([&[0], chinese.as_bytes(), b"\n", chinese.as_bytes()].concat());
    seeds
}
