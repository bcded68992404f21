//! The CUDA kernels, compiled for the host and run on an emulated card (`cuda/emulate.hpp`), against the CPU's
//! operations. Needs a C++ compiler: the environment's CXX, or c++.
//!
//! Every case runs with several orders of threads and once under AddressSanitizer, and has the same bits each time.
//! Where a kernel adds in the CPU's order its result must have the CPU's bits, too. With ANTLM_CARD in the environment (and
//! feature `cuda`) the same cases run on the first card of this machine, twice each; `emulator` is of the emulated one alone.

mod activation;
mod attention;
mod attention_bf16;
mod card;
mod emulator;
mod loss;
mod norm;
mod optim;
mod probes;
mod products;
mod rows;

use antlm_nn::kernels::dropout::{Rows, Site};
use antlm_nn::rng::{Rng, Stream};
use card::{Argument, Card, Compiled};

/// Seeds of the orders in which threads run.
const ORDERS: [u64; 3] = [1, 22, 333];

/// Runs a case on emulated cards that differ in their order of threads, and under AddressSanitizer; or twice on a card of
/// this machine.
fn run(case: impl Fn(&mut Card) -> Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let first = case(&mut Card::start(Compiled::Plain, ORDERS[0]));
    let others = ORDERS[1..].iter().map(|&seed| (Compiled::Plain, seed)).chain([(Compiled::Sanitized, 4444)]);
    let others = others.take(if card::real() { 1 } else { ORDERS.len() });
    for (compiled, seed) in others {
        let again = case(&mut Card::start(compiled, seed));
        for (what, (first, again)) in first.iter().zip(&again).enumerate() {
            assert_bits(&format!("result {what} with threads in order {seed}"), again, first);
        }
    }
    first
}

/// The same bits, value by value.
fn assert_bits(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(got.to_bits() == want.to_bits(), "{what}, value {i}: {got:e}, want {want:e}");
    }
}

/// Within `bound` times the largest wanted value.
fn assert_close(what: &str, got: &[f32], want: &[f32], bound: f32) {
    assert_close_to(what, got, want, bound, 0.0);
}

/// Within `bound` times the largest wanted value, or times `least`: the size of terms that can cancel.
fn assert_close_to(what: &str, got: &[f32], want: &[f32], bound: f32, least: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(least, |most, x| most.max(x.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        // Not `off > …`: NaN must fail.
        assert!(
            (got - want).abs() <= bound * largest,
            "{what}, value {i}: {got:e}, want {want:e}, largest {largest:e}"
        );
    }
}

/// `n` numbers in -scale..scale, others for each seed.
fn random(seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let rng = Rng::new(seed);
    (0..n).map(|i| scale * (2.0 * rng.unit(Stream::SAMPLE, 0, 0, i as u32) as f32 - 1.0)).collect()
}

/// `n` whole numbers below `limit`.
fn below(seed: u64, n: usize, limit: usize) -> Vec<u32> {
    let rng = Rng::new(seed);
    (0..n).map(|i| rng.u32(Stream::SAMPLE, 1, 0, i as u32) % limit as u32).collect()
}

/// A dropout on both sides.
struct Drops {
    site: Option<Site>,
    rows: Rows,
    seed: u64,
    number: u32,
    step: u32,
    p: f64,
}

impl Drops {
    fn new(p: f64, rows: Rows) -> Drops {
        let (seed, number, step) = (0x1234_5678_9abc_def0, 3, 17);
        Drops { site: Site::new(Rng::new(seed), number, step, p), rows, seed, number, step, p }
    }

    /// As the CPU has it.
    fn cpu(&self) -> Option<(Site, &Rows)> {
        self.site.map(|site| (site, &self.rows))
    }

    /// `struct Dropout` of random.cuh.
    fn argument(&self, card: &mut Card) -> Argument {
        let (first, list) = match &self.rows {
            Rows::Shared => (0, None),
            Rows::From(first) => (*first, None),
            Rows::Picked(first, list) => (*first, Some(card.put(list))),
        };
        let threshold = (self.p * 65_536.0).round() as u32;
        let scale = self.site.map_or(1.0, |site| site.scale());
        let stream = Stream::dropout(self.number).0;
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let words = [key[0], key[1], stream, self.step, threshold, scale.to_bits(), first, 0];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(list.map_or(0, |list| list.address()).to_le_bytes());
        Argument(bytes)
    }
}
