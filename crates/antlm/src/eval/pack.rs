//! Requests for log-probabilities, packed into forward passes without padding.
//!
//! `causal`: sentences are sorted, so that those which begin alike follow each other, and a row that several share is
//! computed once; what stands behind the last row that is read is left out. `mlm` and `mntp`: a copy of the sentence for every token asked for, masked there; copies that are the
//! same (two sentences that differ in this very token) are one.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::model::{Rows, Shared};
use crate::objective::Backend;
use crate::text::special::MASK;

/// Tokens, and which of them are asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The whole sentence, framed as the model is to see it: `[n]`.
    pub ids: Vec<u32>,
    /// The places whose log-probabilities are asked for, from 1 on (nothing predicts the first): `[k]`.
    pub scored: Vec<u32>,
}

impl Request {
    /// Asks for all tokens but the first.
    pub fn all(ids: Vec<u32>) -> Request {
        Request { scored: (1..ids.len() as u32).collect(), ids }
    }
}

/// One forward pass.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub rows: Rows,
    /// What is predicted at each picked row: `[m]`.
    pub targets: Vec<u32>,
    /// Request, which of its scored places, and which target that is.
    pub answers: Vec<(u32, u32, u32)>,
    /// What this pass counts for in [`rows`].
    pub worth: u64,
}

/// The rows of all requests, one by one: a measure of the work.
pub(super) fn rows(requests: &[Request], backend: Backend) -> u64 {
    requests.iter().map(|request| worth(request, backend)).sum()
}

fn worth(request: &Request, backend: Backend) -> u64 {
    let copies = if backend == Backend::Causal { 1 } else { request.scored.len() };
    (request.ids.len() * copies) as u64
}

/// The passes that answer all requests, of about `most` rows each (a longer sentence is a pass of its own).
pub(super) fn batches(requests: &[Request], backend: Backend, most: usize) -> Box<dyn Iterator<Item = Packed> + '_> {
    match backend {
        Backend::Causal => Box::new(causal_batches(requests, most)),
        Backend::Mlm | Backend::Mntp => Box::new(masked_batches(requests, backend, most)),
    }
}

/// How many rows a request needs when it is read from the left: the last token that is asked for is never fed.
fn needed(request: &Request) -> usize {
    request.scored.iter().max().map_or(0, |&place| place as usize)
}

/// How many tokens two sentences have in common from the left.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn causal_batches(requests: &[Request], most: usize) -> impl Iterator<Item = Packed> + '_ {
    let mut order: Vec<u32> = (0..requests.len() as u32).collect();
    order.sort_by(|&a, &b| requests[a as usize].ids.cmp(&requests[b as usize].ids).then(a.cmp(&b)));
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        // Rows so far, and how many of the previous sentence's places have one.
        let (mut rows, mut has) = (0, 0);
        while at < order.len() {
            let request = &requests[order[at] as usize];
            let same = if at == start { 0 } else { common(&requests[order[at - 1] as usize].ids, &request.ids) };
            has = same.min(has);
            let new = needed(request).saturating_sub(has);
            if at > start && rows + new > most {
                break;
            }
            (rows, has) = (rows + new, has + new);
            at += 1;
        }
        (at > start).then(|| causal(requests, &order[start..at]))
    })
}

/// One pass over requests in sorted order: a row for each beginning that is new.
fn causal(requests: &[Request], order: &[u32]) -> Packed {
    let (mut ids, mut kept, mut spread, mut bounds) = (Vec::new(), Vec::new(), Vec::new(), vec![0]);
    let (mut picked, mut targets, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    // The previous sentence, and for each of its places: its row, if it has one, and the target that was asked for there.
    let mut before: &[u32] = &[];
    let (mut row_of, mut asked): (Vec<u32>, Vec<Option<u32>>) = (Vec::new(), Vec::new());
    let mut worth = 0;
    for &number in order {
        let request = &requests[number as usize];
        let (same, needed) = (common(before, &request.ids), needed(request));
        row_of.truncate(same);
        asked.truncate(same);
        asked.resize(request.ids.len(), None);
        for &id in request.ids.iter().take(needed).skip(row_of.len()) {
            kept.push((spread.len() + row_of.len()) as u32);
            row_of.push(ids.len() as u32);
            ids.push(id);
        }
        spread.extend(row_of.iter().take(needed));
        bounds.push(spread.len() as u32);
        for (slot, &place) in request.scored.iter().enumerate() {
            let target = *asked[place as usize].get_or_insert_with(|| {
                picked.push(row_of[place as usize - 1]);
                targets.push(request.ids[place as usize]);
                targets.len() as u32 - 1
            });
            answers.push((number, slot as u32, target));
        }
        worth += request.ids.len() as u64;
        before = &request.ids;
    }
    let shared = (spread.len() > ids.len()).then(|| Shared { spread: spread.into(), kept: kept.into() });
    let rows = Rows { ids: ids.into(), bounds: bounds.into(), picked: picked.into(), causal: true, first: 0, shared };
    Packed { rows, targets, answers, worth }
}

fn masked_batches(requests: &[Request], backend: Backend, most: usize) -> impl Iterator<Item = Packed> + '_ {
    // The next copy: request and which of its scored places.
    let mut next = (0, 0);
    std::iter::from_fn(move || {
        let mut copies: Vec<(usize, Range<usize>)> = Vec::new();
        let mut rows = 0;
        while let Some(request) = requests.get(next.0) {
            let n = request.ids.len().max(1);
            let left = request.scored.len() - next.1;
            let room = (most.saturating_sub(rows) / n).max(usize::from(rows == 0));
            let taken = left.min(room);
            if taken > 0 {
                copies.push((next.0, next.1..next.1 + taken));
                rows += taken * n;
            }
            if taken < left {
                next.1 += taken;
                break;
            }
            next = (next.0 + 1, 0);
        }
        (!copies.is_empty()).then(|| masked(requests, &copies, backend))
    })
}

/// One pass over copies, each masked at one place.
fn masked(requests: &[Request], copies: &[(usize, Range<usize>)], backend: Backend) -> Packed {
    let shift = u32::from(backend == Backend::Mntp);
    let (mut ids, mut bounds) = (Vec::new(), vec![0]);
    let (mut picked, mut targets, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    // Where a copy begins, and which targets are asked for there.
    let mut known: HashMap<(u32, Vec<u32>), u32> = HashMap::new();
    let mut asked: HashMap<(u32, u32), u32> = HashMap::new();
    let mut worth = 0;
    for (number, slots) in copies {
        let request = &requests[*number];
        for slot in slots.clone() {
            let place = request.scored[slot];
            let mut copy = request.ids.clone();
            copy[place as usize] = MASK;
            worth += copy.len() as u64;
            let start = *known.entry((place, copy)).or_insert_with_key(|(_, copy)| {
                let start = ids.len() as u32;
                ids.extend(copy);
                bounds.push(ids.len() as u32);
                start
            });
            let (row, target) = (start + place - shift, request.ids[place as usize]);
            let target = *asked.entry((row, target)).or_insert_with(|| {
                picked.push(row);
                targets.push(target);
                targets.len() as u32 - 1
            });
            answers.push((*number as u32, slot as u32, target));
        }
    }
    let (ids, bounds, picked) = (Arc::from(ids), Arc::from(bounds), Arc::from(picked));
    Packed { rows: Rows { ids, bounds, picked, causal: false, first: 0, shared: None }, targets, answers, worth }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
