//! Tests of filling: against scoring, against the definition of a longer word's probability, odd places of masks.

use super::super::score::Scorer;
use super::super::test_models::trained;
use super::*;
use crate::model::Kind;

fn options(backend: Backend) -> Options {
    Options { backend, top: 5, word_tokens: 1 }
}

fn filler(kind: Kind) -> Filler {
    Filler::new(trained(kind, "1 mlm"))
}

/// What scoring gives for the one token in the mask's place of the filled sentence.
fn scored(scorer: &mut Scorer, text: &str, place: usize, id: u32, backend: Backend) -> f64 {
    let score = scorer.score(text, backend).unwrap();
    assert_eq!(score.ids[place], id);
    score.logprobs[place].unwrap()
}

/// One mask, one token: the probability is that of scoring the filled sentence, for both backends and families,
/// wherever the mask stands and however it is written.
#[test]
fn a_word_of_one_token_has_the_probability_that_scoring_gives() {
    for kind in [Kind::LtgBert, Kind::Llama] {
        let (mut filler, mut scorer) = (filler(kind), Scorer::new(trained(kind, "1 mlm")));
        for backend in [Backend::Mlm, Backend::Mntp] {
            for text in [
                "The [MASK] sleep.",
                "The <mask> sleep.",
                "[MASK] dogs sleep near the girl",
                "The dogs\n[MASK]",
                "[MASK]",
            ] {
                let filled = filler.fill(text, &Options { top: 20, ..options(backend) }).unwrap();
                let place = filler.template(text).unwrap().tokens(&[1]).1[0].start;
                let words = &filled.masks[0];
                assert_eq!((words.len(), filled.masks.len(), filled.together.len()), (20, 1, 0));
                assert!(words.windows(2).all(|w| w[0].logp >= w[1].logp));
                for word in words {
                    let whole = text.replace("[MASK]", &word.word).replace("<mask>", &word.word);
                    let want = scored(&mut scorer, &whole, place, word.ids[0], backend);
                    assert!((word.logp - want).abs() < 1e-4, "{kind:?} {backend} {whole:?}: {word:?}, scored {want}");
                    assert!((word.p - word.logp.exp()).abs() < 1e-12);
                }
            }
        }
    }
}

/// No word that may stand there is more probable than those found.
#[test]
fn the_likeliest_words_are_found() {
    let mut filler = filler(Kind::LtgBert);
    let found = filler.fill("The [MASK] sleep.", &options(Backend::Mlm)).unwrap().masks.remove(0);
    let template = filler.template("The [MASK] sleep.").unwrap();
    let (ids, places) = template.tokens(&[1]);
    let beam = Beam { ids, words: Vec::new(), logp: 0.0 };
    let log_p = filler.log_probabilities(&[beam], places[0].start, Backend::Mlm).unwrap().remove(0);
    let mut all: Vec<(u32, f64)> = (0..).zip(log_p).collect();
    all.retain(|&(id, _)| {
        let text = filler.trained.tokenizer.decode(&[id]);
        id >= FIRST_ORDINARY
            && text.len() > 1
            && text.starts_with(' ')
            && !text[1..].contains(char::is_whitespace)
            && filler.trained.tokenizer.encode(&format!("The{text} sleep.")).unwrap().contains(&id)
    });
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let ids: Vec<u32> = found.iter().map(|word| word.ids[0]).collect();
    assert_eq!(ids, all[..5].iter().map(|&(id, _)| id).collect::<Vec<_>>());
}

/// log p of a filling by hand: masks from the left, each read with those before it filled.
fn chain(filler: &mut Filler, template: &Template, lengths: &[usize], ids: &[u32], backend: Backend) -> f64 {
    let (mut text, places) = template.tokens(lengths);
    let mut sum = 0.0;
    let masked: Vec<usize> = places.into_iter().flatten().filter(|&place| text[place] == MASK).collect();
    assert_eq!(masked.len(), ids.len());
    for (place, &id) in masked.into_iter().zip(ids) {
        let beam = Beam { ids: text.clone(), words: Vec::new(), logp: 0.0 };
        sum += filler.log_probabilities(&[beam], place, backend).unwrap()[0][id as usize];
        text[place] = id;
    }
    sum
}

#[test]
fn words_of_several_tokens_are_filled_from_the_left() {
    for (kind, backend) in [(Kind::LtgBert, Backend::Mlm), (Kind::Llama, Backend::Mntp)] {
        let mut filler = filler(kind);
        let text = "The [MASK] sleep near the girl.";
        let filled = filler.fill(text, &Options { word_tokens: 3, ..options(backend) }).unwrap();
        let template = filler.template(text).unwrap();
        for length in 1..=3 {
            let words: Vec<&Word> = filled.masks[0].iter().filter(|word| word.ids.len() == length).collect();
            assert!(!words.is_empty() && words.len() <= 5, "{length}: {words:?}");
            assert!(words.windows(2).all(|w| w[0].logp >= w[1].logp));
            for word in words {
                let want = chain(&mut filler, &template, &[length], &word.ids, backend);
                assert!((word.logp - want).abs() < 1e-4, "{word:?}, by hand {want}");
                // The text with the word is read as these tokens.
                let whole = filler.trained.tokenizer.encode(&text.replace("[MASK]", &word.word)).unwrap();
                assert!(whole.windows(length).any(|ids| ids == word.ids), "{word:?}");
            }
        }
        // In the order of their lengths.
        assert!(filled.masks[0].windows(2).all(|w| w[0].ids.len() <= w[1].ids.len()));
        // The words of one token are the same whether longer ones are asked for or not.
        let short = filler.fill(text, &options(backend)).unwrap();
        assert_eq!(filled.masks[0][..5], short.masks[0]);
    }
}

#[test]
fn several_masks_are_filled_each_for_itself_and_together() {
    for (kind, backend) in [(Kind::LtgBert, Backend::Mntp), (Kind::Llama, Backend::Mlm)] {
        let mut filler = filler(kind);
        let text = "The [MASK] near <mask> girl [MASK].";
        let filled = filler.fill(text, &options(backend)).unwrap();
        assert_eq!((filled.masks.len(), filled.together.len()), (3, 5));
        let template = filler.template(text).unwrap();
        let (ids, places) = template.tokens(&[1, 1, 1]);
        for (words, place) in filled.masks.iter().zip(places) {
            let beam = Beam { ids: ids.clone(), words: Vec::new(), logp: 0.0 };
            let log_p = filler.log_probabilities(&[beam], place.start, backend).unwrap().remove(0);
            assert_eq!(words.len(), 5);
            assert!(words.iter().all(|word| (word.logp - log_p[word.ids[0] as usize]).abs() < 1e-4));
        }
        for filling in &filled.together {
            let ids: Vec<u32> =
                filling.words.iter().map(|word| filler.trained.tokenizer.encode(word).unwrap()[0]).collect();
            let want = chain(&mut filler, &template, &[1, 1, 1], &ids, backend);
            assert!((filling.logp - want).abs() < 1e-4, "{filling:?}, by hand {want}");
            let [a, b, c] = &filling.words[..] else { panic!("{filling:?}") };
            assert_eq!(filling.text, format!("The {a} near {b} girl {c}."));
        }
        assert!(filled.together.windows(2).all(|w| w[0].logp >= w[1].logp));
        // The best together is at least as good as the best ones each for itself, put together.
        let alone: Vec<u32> = filled.masks.iter().map(|words| words[0].ids[0]).collect();
        assert!(filled.together[0].logp >= chain(&mut filler, &template, &[1, 1, 1], &alone, backend) - 1e-4);
    }
}

/// The space before a mask is the word's; without one, what is asked for continues a word.
#[test]
fn a_space_before_the_mask_belongs_to_the_word() {
    let mut filler = filler(Kind::LtgBert);
    let template = filler.template("The [MASK] sleep").unwrap();
    assert_eq!((template.parts, template.spaced), (vec![" The".into(), " sleep".into()], vec![true]));
    let template = filler.template("[MASK][MASK], <mask>s").unwrap();
    assert_eq!(template.spaced, [true, false, true]);
    assert_eq!(template.parts, ["", "", ",", "s"]);
    let glued = filler.fill("The dogs sleep[MASK]", &options(Backend::Mlm)).unwrap().masks.remove(0);
    let tokenizer = &filler.trained.tokenizer;
    for word in &glued {
        let whole = tokenizer.encode(&format!("The dogs sleep{}", word.word)).unwrap();
        assert_eq!(whole.last(), word.ids.last(), "{word:?}");
    }
    assert!(!glued.is_empty());
}

#[test]
fn what_cannot_be_filled_is_named() {
    let mut filler = filler(Kind::LtgBert);
    let mut refused = |text: &str, options: Options, words: &[&str]| {
        let error = filler.fill(text, &options).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let plain = options(Backend::Mlm);
    refused("The dogs sleep.", plain, &["no mask", "The dogs sleep.", "[MASK]", "<mask>"]);
    refused("", plain, &["no mask"]);
    refused("The [mask] sleeps.", plain, &["no mask"]);
    refused(&"[MASK] ".repeat(17), plain, &["17 masks", "16"]);
    refused(&format!("[MASK] {}", "dogs ".repeat(5000)), plain, &["tokens", "4096"]);
    refused("[MASK]", Options { top: 0, ..plain }, &["top is 0"]);
    refused("[MASK]", Options { word_tokens: 99, ..plain }, &["max-word-tokens is 99"]);
    refused("[MASK]", options(Backend::Causal), &["causal", "mlm or mntp"]);
    filler.trained.params.fill(f32::NAN);
    let error = filler.fill("The [MASK] sleep.", &plain).unwrap_err().to_string();
    assert!(error.contains("no number"), "{error}");
}
