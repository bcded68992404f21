//! Tests of generating: the cache against the slow way and against scoring, stop texts, marks, threads.

use proptest::prelude::*;

use super::super::pack::Request;
use super::super::score::Scorer;
use super::super::test_models::trained;
use super::*;
use crate::model::Kind;
use crate::objective::Backend;
use antlm_nn::rng::Rng;

fn generator(kind: Kind) -> Generator {
    Generator::new(trained(kind, "1 clm"))
}

/// Generates, and checks that the listener's pieces are the text.
fn generate(generator: &mut Generator, prompt: &str, sample: u32, options: &Options) -> Generated {
    let prompt = generator.read(prompt).unwrap();
    let mut heard = String::new();
    let mut listener = |piece: &str| {
        heard += piece;
        Ok(())
    };
    let generated = generator.generate(&prompt, sample, options, &mut listener).unwrap();
    assert_eq!(heard, generated.text);
    assert_eq!(generated.ids.len(), generated.logprobs.len());
    generated
}

/// Every position's logits, far past the length that models are trained on (128) and the last bucket of relative
/// positions (406): tokens one by one, in pieces, and all at once without a cache.
#[test]
fn logits_with_the_cache_are_those_of_the_whole_text() {
    for kind in [Kind::LtgBert, Kind::Llama] {
        let Generator { trained, mut pool, .. } = generator(kind);
        let Trained { model, params, tokenizer, .. } = &trained;
        let (n, vocab) = (450, tokenizer.vocab_size());
        let rng = Rng::new(5);
        let mut ids = vec![CLS];
        ids.extend(
            (1..n).map(|i| FIRST_ORDINARY + rng.u32(Stream::GENERATE, i, 0, 0) % (vocab as u32 - FIRST_ORDINARY)),
        );
        let everything: Arc<[u32]> = (0..n).collect();
        let (bounds, picked) = (Arc::from([0, n]), everything.clone());
        let rows = Rows { ids: Arc::from(&ids[..]), bounds, picked, causal: true, first: 0, shared: None };
        let mut tape = Tape::new(params, None, None, &mut pool).unwrap();
        let whole = model.logits(&mut tape, &rows).unwrap();
        let whole = tape.read(whole).unwrap().into_owned();
        drop(tape);
        let largest = whole.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for pieces in [vec![1; n as usize], vec![450], vec![100, 1, 1, 200, 1, 147]] {
            let mut cache = model.cache(params, &mut pool).unwrap();
            for m in pieces {
                let first = cache.rows();
                let mut tape = Tape::new(params, None, None, &mut pool).unwrap();
                let (new, picked) = (Arc::from(&ids[first..first + m]), (0..m as u32).collect());
                let logits = model.logits_next(&mut tape, &new, &picked, &mut cache).unwrap();
                let want = &whole[first * vocab..(first + m) * vocab];
                for (i, (got, want)) in tape.read(logits).unwrap().iter().zip(want).enumerate() {
                    // f32 sums in another order, through three layers.
                    let off = (got - want).abs() / largest;
                    assert!(off < 2e-5, "{kind:?}, position {}: {got}, want {want}", first + i / vocab);
                }
            }
            assert_eq!(cache.rows(), n as usize);
        }
        // Something to tell apart: not every position says the same.
        assert!(whole[..vocab].iter().zip(&whole[300 * vocab..]).any(|(a, b)| (a - b).abs() > 0.1 * largest));
    }
}

#[test]
fn texts_with_and_without_the_cache_are_the_same() {
    for kind in [Kind::LtgBert, Kind::Llama] {
        let mut generator = generator(kind);
        let sampled = Sampling { top_k: Some(50), top_p: 0.95, min_p: 0.01, ..Sampling::default() };
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        for (prompt, sampling, seed) in [
            ("The dogs", sampled, 1),
            ("", sampled, 2),
            ("The girl near the dogs", sampled, u64::MAX),
            ("A", greedy, 1),
            ("", Sampling { temperature: 1.3, ..Sampling::default() }, 3),
        ] {
            let fast = Options { sampling, seed, max_tokens: 180, ..Options::default() };
            let (a, b) = (
                generate(&mut generator, prompt, 0, &fast),
                generate(&mut generator, prompt, 0, &Options { cache: false, ..fast.clone() }),
            );
            assert_eq!((&a.text, &a.ids, a.end), (&b.text, &b.ids, b.end));
            assert!(a.ids.len() > 20 || a.end == End::Mark, "{a:?}");
        }
    }
}

/// log p of what was drawn is what `score --backend causal` gives for the same tokens.
#[test]
fn log_probabilities_are_those_of_scoring() {
    for kind in [Kind::LtgBert, Kind::Llama] {
        let mut generator = generator(kind);
        let mut scorer = Scorer::new(trained(kind, "1 clm"));
        for (prompt, seed) in [("The dogs", 4), ("", 5)] {
            let read = generator.read(prompt).unwrap();
            let options = Options { seed, max_tokens: 150, ..Options::default() };
            let generated = generator.generate(&read, 0, &options, &mut |_| Ok(())).unwrap();
            let ids = [&read.ids[..], &generated.ids].concat();
            let request = Request { scored: (read.ids.len() as u32..ids.len() as u32).collect(), ids };
            let scored = &scorer.log_probabilities(&[request], Backend::Causal, &mut |_, _| Ok(())).unwrap()[0];
            assert_eq!(scored.len(), generated.logprobs.len());
            let (sum, want): (f64, f64) = (generated.logprobs.iter().sum(), scored.iter().sum());
            assert!((sum - want).abs() < 1e-5 * want.abs().max(1.0), "{kind:?}: {sum}, scored {want}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_text_on_any_number_of_threads() {
    let on = |threads: usize, kind, sample, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let options = Options { seed, max_tokens: 60, ..Options::default() };
            generate(&mut generator(kind), "The dogs", sample, &options)
        })
    };
    for kind in [Kind::LtgBert, Kind::Llama] {
        let one = on(1, kind, 0, 7);
        for threads in 2..4 {
            assert_eq!(on(threads, kind, 0, 7), one, "{threads} threads: not the same bits");
        }
        assert_ne!(on(1, kind, 1, 7).ids, one.ids, "another sample");
        assert_ne!(on(1, kind, 0, 8).ids, one.ids, "another seed");
        // A sample does not depend on the ones before it.
        let mut generator = generator(kind);
        let options = Options { seed: 7, max_tokens: 60, ..Options::default() };
        generate(&mut generator, "The dogs", 0, &options);
        assert_eq!(generate(&mut generator, "The dogs", 1, &options), on(1, kind, 1, 7));
    }
}

/// Only the closing mark of the special tokens is ever drawn; it ends the text and is not in it.
#[test]
fn special_tokens_are_not_generated() {
    let mut model = trained(Kind::LtgBert, "1 clm");
    // Special tokens are by far the likeliest.
    let bias = model.model.output().1.unwrap().range();
    model.params[bias.start..bias.start + 5].fill(1000.0);
    let mut generator = Generator::new(model);
    let generated = generate(&mut generator, "The dogs", 0, &Options::default());
    assert_eq!((generated.text.as_str(), generated.ids.len(), generated.end), ("", 0, End::Mark));
    let model = &mut generator.trained;
    model.params[bias.start + SEP as usize] = -1000.0;
    for sample in 0..3 {
        let options = Options { sampling: Sampling { temperature: 5.0, ..Sampling::default() }, ..Options::default() };
        let generated = generate(&mut generator, "", sample, &options);
        assert!(generated.ids.len() == 100 && generated.ids.iter().all(|&id| id >= FIRST_ORDINARY));
        assert_eq!(generated.end, End::Limit);
    }
}

#[test]
fn prompts_are_read_as_training_text_begins() {
    let mut generator = generator(Kind::Llama);
    assert_eq!(generator.read("").unwrap().ids, [CLS]);
    let prompt = generator.read("The dogs").unwrap();
    assert_eq!(prompt.ids[1..], generator.trained.tokenizer.encode("The dogs").unwrap());
    // A space at the end belongs to the word that comes.
    assert_eq!(generator.read("The dogs \n").unwrap().ids, prompt.ids);
    // A first word is shown without the tokenizer's space, a later one with it.
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let options = Options { sampling: greedy, max_tokens: 5, ..Options::default() };
    let decoded = |g: &Generated, generator: &Generator| generator.trained.tokenizer.decode(&g.ids);
    let first = generate(&mut generator, "", 0, &options);
    let whole = decoded(&first, &generator);
    assert_eq!(first.text, whole.strip_prefix(' ').unwrap_or(&whole));
    let later = generate(&mut generator, "The dogs", 0, &options);
    assert_eq!(later.text, decoded(&later, &generator));

    let error = generator.read(&"dogs ".repeat(5000)).unwrap_err().to_string();
    assert!(error.contains("4096"), "{error}");
    let read = generator.read("A").unwrap();
    for (options, words) in [
        (Options { max_tokens: 0, ..Options::default() }, "max-tokens is 0"),
        (Options { max_tokens: MOST_TOKENS + 1, ..Options::default() }, "max-tokens"),
        (Options { stop: vec![String::new()], ..Options::default() }, "stop text is empty"),
    ] {
        let error = generator.generate(&read, 0, &options, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    // Broken weights are an error, not a text.
    let mut broken = trained(Kind::Llama, "1 clm");
    broken.params.fill(f32::NAN);
    let mut broken = Generator::new(broken);
    let read = broken.read("A").unwrap();
    let error = broken.generate(&read, 0, &Options::default(), &mut |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("no number"), "{error}");
}

/// A stop text of several tokens: the text is the one without stops, up to the stop, and nothing of it is ever shown.
#[test]
fn stop_texts_end_the_text_before_them() {
    let mut generator = generator(Kind::LtgBert);
    let options = Options { max_tokens: 80, seed: 3, ..Options::default() };
    let whole = generate(&mut generator, "The dogs", 0, &options);
    let chars: Vec<char> = whole.text.chars().collect();
    assert!(chars.len() > 60);
    let stop: String = chars[40..47].iter().collect();
    let at = whole.text.find(&stop).unwrap();
    let stopped =
        generate(&mut generator, "The dogs", 0, &Options { stop: vec!["\u{0}never".into(), stop], ..options });
    assert_eq!((stopped.text.as_str(), stopped.end), (&whole.text[..at], End::Stop));
    assert!(whole.ids.starts_with(&stopped.ids) && stopped.ids.len() < whole.ids.len());
}

/// Slow and obvious: the shortest beginning of the text that ends with a stop text, without the longest such.
fn stopped(text: &str, stop: &[String]) -> Option<String> {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    ends.into_iter().find_map(|end| {
        let length = stop.iter().filter(|stop| text[..end].ends_with(stop.as_str())).map(String::len).max()?;
        Some(text[..end - length].to_owned())
    })
}

proptest! {
    #[test]
    fn stop_texts_do_not_depend_on_how_the_text_is_cut(
        pieces in prop::collection::vec("[abé]{0,4}", 0..8),
        stop in prop::collection::vec("[abé]{1,4}", 0..4),
        skip_space: bool,
    ) {
        let text = pieces.concat();
        let mut writer = Writer::new(&stop, skip_space);
        let (mut heard, mut ended) = (String::new(), false);
        for piece in &pieces {
            ended = writer.push_text(piece);
            heard += writer.certain();
            let shown = heard.clone();
            // Nothing is shown that the end may take back.
            prop_assert!(stopped(&text, &stop).unwrap_or(text.clone()).starts_with(&shown));
            if ended {
                break;
            }
        }
        let finished = writer.finish();
        prop_assert_eq!(heard + &finished.rest, finished.text.clone());
        prop_assert_eq!(ended, stopped(&text, &stop).is_some());
        prop_assert_eq!(finished.text, stopped(&text, &stop).unwrap_or(text));
    }
}
