//! Preparing text that the tests make: the whole way, used again, refused, stopped; equal bytes for equal input.

use super::super::corpus::DocumentRule;
use super::super::words;
use super::passes::document_hash;
use super::*;

/// About `bytes` of made-up text: documents of a few lines with a skewed vocabulary.
pub(super) fn text(bytes: usize, seed: u64) -> String {
    let syllables = ["ba", "ke", "li", "mo", "nu", "ra", "sto", "ing", "er", "the", "\u{e9}t\u{e9}", "'ll"];
    let mut state = seed;
    let mut next = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut out = String::new();
    while out.len() < bytes {
        let most = 1 + next(300);
        let word = next(most);
        for k in 0..1 + word % 3 {
            out.push_str(syllables[((word >> (3 * k)) % 12) as usize]);
        }
        out.push_str(["\n", ". ", "\n\n", " ", " ", " ", " ", " ", " ", " "][next(10) as usize]);
    }
    out
}

pub(super) fn options(paths: &[PathBuf]) -> Options {
    Options {
        sources: vec![Source::new("made", paths)],
        dev: Vec::new(),
        family: Family::LtgBert,
        tokenizer: TokenizerChoice::Train { vocab_size: 400, min_frequency: 2 },
        seq_len: 16,
    }
}

pub(super) fn run(options: &Options, out: &Path) -> Result<Prepared> {
    prepare(options, out, &mut |_| {}, &|| false)
}

/// The files of a folder with their bytes.
fn bytes_of(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn the_same_bytes_whatever_the_folder_and_the_threads() {
    let dir = tempfile::tempdir().unwrap();
    let mut outs = Vec::new();
    for threads in 1..=3 {
        let corpus = dir.path().join(format!("corpus{threads}"));
        fs::create_dir(&corpus).unwrap();
        // Made in another order each time; more than one task's worth of text.
        for i in 0..3 {
            let i = (i + threads) % 3;
            fs::write(corpus.join(format!("{i}.txt")), text(300_000, i as u64)).unwrap();
        }
        let out = dir.path().join(format!("out{threads}"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let prepared = pool.install(|| run(&options(&[corpus]), &out)).unwrap();
        assert!(!prepared.reused);
        assert_eq!(prepared.summary.vocab_size, 400);
        outs.push(bytes_of(&out));
    }
    let names: Vec<&str> = outs[0].iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, [DEV_FILE, SUMMARY_FILE, TOKENIZER_FILE, TRAIN_FILE]);
    assert!(outs[0] == outs[1] && outs[1] == outs[2]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 6, "nothing else is left");
}

#[test]
fn shards_hold_the_documents_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.txt"), dir.path().join("b.jsonl"));
    fs::write(&a, format!("= = = One = = =\nfirst line\n\nsecond\n= = = Two = = =\n{}", text(5000, 1))).unwrap();
    fs::write(&b, "{\"body\":\"json\\ntext [MASK]\"}\n").unwrap();
    let dev = dir.path().join("x.dev");
    fs::write(&dev, "dev one\n\ndev two\n").unwrap();
    let mut options = options(&[b, a.clone()]);
    options.sources[0].documents = DocumentRule::Title;
    options.sources[0].field = "body".into();
    options.dev = vec![Source::new("dev", [dev])];
    let it = run(&options, &dir.path().join("out/deep")).unwrap();

    let dev = it.dev.as_ref().unwrap();
    assert_eq!((dev.documents(), dev.total_words()), (2, 4));
    let decode = |set: &Dataset, i| it.tokenizer.decode(&set.tokens(i).iter().map(|&t| t.into()).collect::<Vec<_>>());
    assert_eq!((0..dev.len()).map(|i| decode(dev, i)).collect::<String>(), " dev one dev two");
    assert_eq!(it.train.documents(), 3);
    let mut documents = vec![String::new()];
    let mut words = 0;
    for i in 0..it.train.len() {
        documents.last_mut().unwrap().push_str(&decode(&it.train, i));
        words += u64::from(it.train.segment(i).words);
        if it.train.segment(i).ends_document {
            documents.push(String::new());
        }
    }
    assert_eq!(documents[0], " = = = One = = = first line  second");
    assert!(documents[1].starts_with(" = = = Two = = = "));
    assert_eq!(documents[2], " json text [MASK]");
    let expect = words::count(&fs::read_to_string(a).unwrap()) + 3;
    assert_eq!((words, it.train.total_words(), it.summary.train.words), (expect, expect, expect));
    assert_eq!(it.summary.train.tokens, it.train.total_tokens());
    assert_eq!(it.tokenizer.vocab_size(), it.train.vocab_size());
}

#[test]
fn what_is_prepared_is_used_again_until_something_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("a.txt"), dir.path().join("out"));
    fs::write(&file, text(20_000, 1)).unwrap();
    let mut options = options(std::slice::from_ref(&file));
    let first = run(&options, &out).unwrap();
    options.seq_len = 32;
    let second = run(&options, &out).unwrap();
    assert!(!first.reused && second.reused && first.train.hash() == second.train.hash());
    assert!(second.train.len() < first.train.len());

    // Another name is the same content; other settings or content are not.
    let moved = dir.path().join("b.txt");
    fs::rename(&file, &moved).unwrap();
    options.sources[0].paths = vec![moved.clone()];
    assert!(run(&options, &out).unwrap().reused);
    options.tokenizer = TokenizerChoice::Train { vocab_size: 300, min_frequency: 2 };
    // What is there may be needed by a run: it is not replaced.
    let error = run(&options, &out).unwrap_err().to_string();
    assert!(error.contains("holds other prepared text"), "{error}");
    let out = dir.path().join("smaller");
    let smaller = run(&options, &out).unwrap();
    assert!(!smaller.reused && smaller.tokenizer.vocab_size() == 300);
    fs::write(&moved, text(20_000, 2)).unwrap();
    let out = dir.path().join("changed");
    let changed = run(&options, &out).unwrap();
    assert!(!changed.reused && changed.train.hash() != smaller.train.hash());

    // A tokenizer that is given is taken as it is.
    let given = dir.path().join("given.json");
    fs::copy(out.join(TOKENIZER_FILE), &given).unwrap();
    options.tokenizer = TokenizerChoice::File(given.clone());
    let out = dir.path().join("given");
    let with_given = run(&options, &out).unwrap();
    assert!(!with_given.reused);
    assert_eq!(with_given.summary.tokenizer_sha256, changed.summary.tokenizer_sha256);
    assert!(run(&options, &out).unwrap().reused);
    options.family = Family::Llama;
    let error = run(&options, &out).unwrap_err().to_string();
    assert!(error.contains("given.json: model.vocab: wrong family"), "{error}");
}

#[test]
fn damage_is_noticed_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("a.txt"), dir.path().join("out"));
    fs::write(&file, text(5_000, 1)).unwrap();
    let options = options(&[file]);
    run(&options, &out).unwrap();
    for name in [TRAIN_FILE, DEV_FILE, TOKENIZER_FILE, SUMMARY_FILE] {
        let path = out.join(name);
        let good = fs::read(&path).unwrap();
        fs::write(&path, &good[..good.len() - 5]).unwrap();
        let error = run(&options, &out).unwrap_err().to_string();
        assert!(error.contains(name) && !error.contains('\n'), "{error}");
        fs::write(&path, &good).unwrap();
    }
    assert!(run(&options, &out).unwrap().reused);
    assert!(open(dir.path(), 16).unwrap_err().to_string().contains("no prepared text here"));
}

#[test]
fn bad_input_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.txt");
    fs::write(&good, text(5_000, 1)).unwrap();
    let cases: [(&[u8], &str); 5] = [
        (b"", "bad.txt: file: empty"),
        (b"caf\xE9\n", "bad.txt: byte 3: 0xE9 is not UTF-8"),
        (&[0; 4096], "bad.txt: byte 0: a NUL byte"),
        (b"\x89PNG\r\n\x1a\n", "bad.txt: byte 0: 0x89 is not UTF-8"),
        (b"\n\n \n", "bad.txt: file: no text in it"),
    ];
    let bad = dir.path().join("bad.txt");
    let out = dir.path().join("out");
    for (bytes, expect) in cases {
        fs::write(&bad, bytes).unwrap();
        for as_dev in [false, true] {
            let mut options = options(std::slice::from_ref(&good));
            let source = if as_dev { &mut options.dev } else { &mut options.sources };
            source.push(Source::new("bad", [&bad]));
            let error = run(&options, &out).unwrap_err().to_string();
            assert!(error.contains(expect) && !error.contains('\n'), "{error}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something is left after: {error}");
        }
    }
    let mut same = options(std::slice::from_ref(&good));
    same.dev = same.sources.clone();
    assert!(run(&same, &out).unwrap_err().to_string().contains("both the training and the dev text"));
    let mut impossible = options(&[good]);
    impossible.seq_len = 2;
    assert!(run(&impossible, &out).is_err());
    impossible.seq_len = 16;
    impossible.tokenizer = TokenizerChoice::Train { vocab_size: 100, min_frequency: 2 };
    assert!(run(&impossible, &out).is_err());
}

#[test]
fn a_folder_with_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.txt");
    fs::write(&file, text(5_000, 1)).unwrap();
    let options = options(std::slice::from_ref(&file));
    let out = dir.path().join("mine");
    for name in ["notes.txt", TOKENIZER_FILE] {
        fs::create_dir(&out).unwrap();
        fs::write(out.join(name), "mine").unwrap();
        assert!(run(&options, &out).unwrap_err().to_string().contains("mine: folder: holds something else"));
        assert_eq!(fs::read(out.join(name)).unwrap(), b"mine");
        fs::remove_dir_all(&out).unwrap();
    }
    assert!(run(&options, &file).is_err());
    fs::create_dir(&out).unwrap();
    assert!(run(&options, &out).is_ok());
}

#[test]
fn it_stops_in_every_phase_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.txt");
    fs::write(&file, text(50_000, 1)).unwrap();
    let out = dir.path().join("not/there/yet");
    let reports = std::cell::Cell::new(0);
    let mut phases = Vec::new();
    for stop_after in 0.. {
        reports.set(0);
        let mut last = None;
        let mut progress = |p: Progress| {
            assert!(p.done <= p.total, "{p:?}");
            assert!(last.is_none_or(|l: Progress| l.phase != p.phase || l.done <= p.done));
            last = Some(p);
            reports.set(reports.get() + 1);
        };
        let result =
            prepare(&options(std::slice::from_ref(&file)), &out, &mut progress, &|| reports.get() >= stop_after);
        phases.extend(last.map(|l| l.phase));
        match result {
            Err(Error::Stopped { .. }) => assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1),
            other => {
                other.unwrap();
                break;
            }
        }
    }
    for phase in [Phase::Hash, Phase::Scan, Phase::Count, Phase::Merge, Phase::Encode] {
        assert!(phases.contains(&phase), "{phase:?}");
    }
}

#[test]
fn the_dev_set_depends_on_content_alone() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<String> = (0..2000).map(|i| format!("document number {i}")).collect();
    let dev_of = |documents: &[String], name: &str| {
        let file = dir.path().join("a.txt");
        fs::write(&file, documents.join("\n\n")).unwrap();
        let it = run(&options(&[file]), &dir.path().join(name)).unwrap();
        assert_eq!(it.summary.train.documents + it.summary.dev.map_or(0, |d| d.documents), documents.len() as u64);
        let Some(dev) = &it.dev else { return Vec::new() };
        let mut texts: Vec<String> = vec![String::new()];
        for i in 0..dev.len() {
            let ids: Vec<u32> = dev.tokens(i).iter().map(|&t| t.into()).collect();
            texts.last_mut().unwrap().push_str(&it.tokenizer.decode(&ids));
            if dev.segment(i).ends_document {
                texts.push(String::new());
            }
        }
        texts.pop();
        texts.sort();
        texts
    };
    let chosen = dev_of(&all, "all");
    assert!((8..=35).contains(&chosen.len()), "{} of 2000", chosen.len());
    let backwards: Vec<String> = all.iter().rev().cloned().collect();
    assert_eq!(dev_of(&backwards, "backwards"), chosen);
    let half = dev_of(&all[..1000], "half");
    assert!(half.iter().all(|d| chosen.contains(d)));

    // Few documents: one, from ten on, or none.
    let ordinary: Vec<String> =
        all.iter().filter(|d| !Split::Share.is_dev(document_hash(d))).take(10).cloned().collect();
    assert_eq!(dev_of(&ordinary, "ten").len(), 1);
    assert_eq!(dev_of(&ordinary[..9], "nine").len(), 0);
}

#[test]
fn a_line_of_ten_megabytes_and_a_word_of_one_just_work() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.txt");
    fs::write(&file, format!("{}\n\n{}", text(10_000_000, 1).replace('\n', " "), "\u{e9}x".repeat(300_000))).unwrap();
    let it = run(&options(&[file]), &dir.path().join("out")).unwrap();
    assert_eq!(it.train.documents(), 2);
    assert!(it.summary.train.tokens > 1_000_000);
}
