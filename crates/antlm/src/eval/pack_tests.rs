//! What is packed, and that it gives the numbers of sentences one by one.

use super::super::score::{Scorer, framed};
use super::super::test_models::trained;
use super::*;
use crate::model::Kind;
use crate::text::sample::{Part, document};

fn request(ids: &[u32]) -> Request {
    Request::all(ids.to_vec())
}

fn list<T: Copy>(values: &Arc<[T]>) -> Vec<T> {
    values.to_vec()
}

#[test]
fn each_token_is_masked_once_and_read_where_its_backend_reads() {
    let requests = [request(&[1, 7, 8, 9])];
    for (backend, picked) in [(Backend::Mlm, [1, 6, 11]), (Backend::Mntp, [0, 5, 10])] {
        let packed: Vec<Packed> = batches(&requests, backend, 100).collect();
        let [Packed { rows, targets, answers, worth }] = &packed[..] else { panic!("{packed:?}") };
        assert_eq!(list(&rows.ids), [1, MASK, 8, 9, 1, 7, MASK, 9, 1, 7, 8, MASK]);
        assert_eq!((list(&rows.picked), list(&rows.bounds)), (picked.to_vec(), vec![0, 4, 8, 12]));
        assert_eq!((&targets[..], *worth, rows.causal), (&[7, 8, 9][..], 12, false));
        assert_eq!(answers[..], [(0, 0, 0), (0, 1, 1), (0, 2, 2)]);
    }
}

#[test]
fn copies_that_are_the_same_are_made_once() {
    // They differ in the second token only, so masked there they are the same.
    let requests = [request(&[1, 7, 8, 9]), request(&[1, 7, 5, 9])];
    let packed: Vec<Packed> = batches(&requests, Backend::Mlm, 100).collect();
    assert_eq!((packed.len(), packed[0].rows.ids.len()), (1, 5 * 4));
    // Both are asked for at the same row, each its own token.
    assert_eq!(packed[0].targets, [7, 8, 9, 7, 5, 9]);
    assert_eq!(list(&packed[0].rows.picked), [1, 6, 11, 13, 6, 19]);
    // The very same sentence costs nothing.
    let twice = [request(&[1, 7, 8, 9]), request(&[1, 7, 8, 9])];
    let packed: Vec<Packed> = batches(&twice, Backend::Mlm, 100).collect();
    assert_eq!((packed[0].rows.ids.len(), packed[0].targets.len(), packed[0].answers.len()), (12, 3, 6));
}

#[test]
fn what_sentences_share_from_the_left_is_computed_once() {
    let requests = [request(&[1, 7, 8, 9]), request(&[1, 5]), request(&[1, 7, 8, 4, 4]), request(&[1, 7, 8, 9])];
    let packed: Vec<Packed> = batches(&requests, Backend::Causal, 100).collect();
    let [Packed { rows, targets, answers, worth }] = &packed[..] else { panic!("{packed:?}") };
    // Sorted: [1 5] [1 7 8 4 4] [1 7 8 9] [1 7 8 9].
    // The last token of each is only asked for.
    assert_eq!(list(&rows.ids), [1, 7, 8, 4]);
    assert_eq!(list(&rows.bounds), [0, 1, 5, 8, 11]);
    let shared = rows.shared.as_ref().unwrap();
    assert_eq!(list(&shared.spread), [0, 0, 1, 2, 3, 0, 1, 2, 0, 1, 2]);
    assert!(shared.kept.iter().enumerate().all(|(row, &at)| shared.spread[at as usize] == row as u32));
    assert_eq!(list(&rows.positions()), [0, 1, 2, 3]);
    // [1 7 8 ...]: 7 and 8 are asked for once, 4 and 9 behind the same row.
    assert_eq!((list(&rows.picked), &targets[..]), (vec![0, 0, 1, 2, 3, 2], &[5, 7, 8, 4, 4, 9][..]));
    assert_eq!((answers.len(), *worth), (3 + 1 + 4 + 3, 15));
}

#[test]
fn passes_have_about_the_size_asked_for_and_answer_everything() {
    let requests: Vec<Request> = (0..40).map(|i| request(&vec![1 + i % 7; 2 + i as usize % 9])).collect();
    for backend in [Backend::Causal, Backend::Mlm, Backend::Mntp] {
        for most in [1, 10, 25, 1000] {
            let packed: Vec<Packed> = batches(&requests, backend, most).collect();
            assert!(packed.iter().all(|packed| packed.rows.ids.len() <= most.max(10)), "{backend} {most}");
            assert_eq!(packed.iter().map(|packed| packed.worth).sum::<u64>(), rows(&requests, backend));
            let mut answers: Vec<(u32, u32)> =
                packed.iter().flat_map(|packed| packed.answers.iter().map(|&(r, s, _)| (r, s))).collect();
            answers.sort_unstable();
            let all = requests.iter().enumerate().flat_map(|(r, q)| (0..q.scored.len()).map(move |s| (r, s)));
            assert_eq!(answers, all.map(|(r, s)| (r as u32, s as u32)).collect::<Vec<_>>());
        }
    }
    assert_eq!(batches(&[], Backend::Mlm, 10).count() + batches(&[], Backend::Causal, 10).count(), 0);
    // A request without anything to score is no trouble.
    let none = [Request { ids: vec![1, 2], scored: vec![] }, request(&[1, 2])];
    assert_eq!(batches(&none, Backend::Mlm, 10).count(), 1);
}

/// Sentences of the sample text, many of which begin alike.
fn sentences(scorer: &Scorer) -> Vec<Request> {
    let text: String = (0..6).map(|index| document(5, index, Part::Test) + " ").collect();
    let mut requests = Vec::new();
    for sentence in text.split_inclusive(['.', '?']).map(str::trim).filter(|s| !s.is_empty()) {
        let ids = framed(&scorer.model().tokenizer, sentence).unwrap();
        requests.push(request(&ids));
        // Another ending, and a part of the tokens only.
        let mut other = request(&ids);
        *other.ids.last_mut().unwrap() = ids[1];
        other.scored.retain(|place| place % 2 == 1);
        requests.push(other);
    }
    assert!(requests.len() > 30);
    requests
}

/// The same numbers whatever is packed together, on any number of threads.
#[test]
fn packed_scores_equal_those_one_by_one() {
    for kind in [Kind::LtgBert, Kind::Llama] {
        let mut scorer = Scorer::new(trained(kind, "1 clm + 1 mlm"));
        let requests = sentences(&scorer);
        for backend in [Backend::Causal, Backend::Mlm, Backend::Mntp] {
            let run = |scorer: &mut Scorer, requests: &[Request]| {
                scorer
                    .log_probabilities(requests, backend, &mut |done, of| {
                        assert!(done <= of);
                        Ok(())
                    })
                    .unwrap()
            };
            let alone: Vec<Vec<f64>> =
                requests.iter().map(|request| run(&mut scorer, std::slice::from_ref(request)).remove(0)).collect();
            for rows in [7, 64, 100_000] {
                let mut packed = Scorer::new(trained(kind, "1 clm + 1 mlm")).with_rows(rows);
                for threads in [1, 3] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let together = pool.install(|| run(&mut packed, &requests));
                    let pairs = alone.iter().flatten().zip(together.iter().flatten());
                    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(worst < 1e-5, "{kind:?} {backend} {rows} rows, {threads} threads: {worst}");
                }
            }
        }
    }
}
