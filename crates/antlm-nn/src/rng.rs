//! Counter-based random numbers (Philox4x32-10, Salmon et al., SC 2011): value = f(seed, stream, step, row, column).
//!
//! There is no state: a number depends only on where it is used, never on how many were drawn before, so results do
//! not depend on threads, micro-batches, devices or on where a run was interrupted.

const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;

/// One Philox4x32-10 block: a keyed bijection of the 128-bit counter.
#[inline(always)]
pub fn philox4x32(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let ([mut k0, mut k1], [mut c0, mut c1, mut c2, mut c3]) = (key, counter);
    for _ in 0..10 {
        let p0 = u64::from(M0) * u64::from(c0);
        let p1 = u64::from(M1) * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(W0);
        k1 = k1.wrapping_add(W1);
    }
    [c0, c1, c2, c3]
}

/// What a random number is for. Every use has a number of its own, so that no two uses share values.
/// `0x1000 + site` is dropout at that site of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub u32);

impl Stream {
    /// Initial weights: step = tensor's index in the layout, row and column = place in it.
    pub const INIT: Stream = Stream(1);
    /// The order of segments: step = epoch.
    pub const ORDER: Stream = Stream(2);
    /// Which tokens are masked, and what replaces them: step = optimiser step, row = row within the whole step.
    pub const MASK: Stream = Stream(3);
    /// The built-in sample text: step = document.
    pub const SAMPLE: Stream = Stream(4);
    /// Text that a model generates: step = position in the text, row = which of several texts.
    pub const GENERATE: Stream = Stream(5);
    /// What a bootstrap draws: step = resample, row = which list it draws from.
    pub const BOOTSTRAP: Stream = Stream(7);

    /// Which rows of a training file are held out when a model is fine-tuned.
    pub const HOLDOUT: Stream = Stream(6);

    /// Dropout at place `site` of a model (sites are numbered by the model, in order of use).
    pub const fn dropout(site: u32) -> Stream {
        Stream(0x1000 + site)
    }
}

/// The source of all random numbers of one seed.
///
/// ```
/// use antlm_nn::rng::{Rng, Stream};
/// let rng = Rng::new(42);
/// assert_eq!(rng.u32(Stream::MASK, 7, 3, 1), Rng::new(42).u32(Stream::MASK, 7, 3, 1));
/// assert!((0.0..1.0).contains(&rng.unit(Stream::MASK, 7, 3, 1)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rng {
    key: [u32; 2],
}

impl Rng {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Rng {
        Rng { key: [seed as u32, (seed >> 32) as u32] }
    }

    /// The seed's halves.
    pub(crate) fn key(&self) -> [u32; 2] {
        self.key
    }

    /// The four values of columns `4 * quad .. 4 * quad + 4`.
    #[inline(always)]
    pub fn quad(&self, stream: Stream, step: u32, row: u32, quad: u32) -> [u32; 4] {
        philox4x32(self.key, [quad, row, step, stream.0])
    }

    /// One uniform 32-bit number.
    pub fn u32(&self, stream: Stream, step: u32, row: u32, column: u32) -> u32 {
        self.quad(stream, step, row, column / 4)[(column % 4) as usize]
    }

    /// One uniform number in `[0, 1)`, a multiple of 2^-32.
    pub fn unit(&self, stream: Stream, step: u32, row: u32, column: u32) -> f64 {
        f64::from(self.u32(stream, step, row, column)) / 4_294_967_296.0
    }

    /// A sequence of draws that belongs to one (stream, step, row): columns 0, 1, 2, …
    pub fn draws(&self, stream: Stream, step: u32, row: u32) -> Draws {
        Draws { rng: *self, stream, step, row, column: 0 }
    }

    /// A permutation of `0..len` that depends on the seed, the stream and the step alone (Fisher-Yates).
    pub fn permutation(&self, stream: Stream, step: u32, len: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len).collect();
        for i in (1..len).rev() {
            // 32 x 32 -> 64 bits: the bias is below len / 2^32 and the same everywhere.
            let j = (u64::from(self.u32(stream, step, i / 4, i % 4)) * u64::from(i + 1)) >> 32;
            order.swap(i as usize, j as usize);
        }
        order
    }
}

/// Numbers drawn one after another at one place (see [`Rng::draws`]).
#[derive(Clone, Debug)]
pub struct Draws {
    rng: Rng,
    stream: Stream,
    step: u32,
    row: u32,
    column: u32,
}

impl Draws {
    /// The next uniform 32-bit number.
    pub fn u32(&mut self) -> u32 {
        let value = self.rng.u32(self.stream, self.step, self.row, self.column);
        self.column += 1;
        value
    }

    /// The next uniform number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        f64::from(self.u32()) / 4_294_967_296.0
    }

    /// The next uniform whole number in `0..n`; `n` must not be 0 (then the answer is 0).
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.u32()) * u64::from(n)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // The published test vectors of Philox4x32-10 (Random123, kat_vectors): all zeros, all ones, digits of pi.
        let ones = u32::MAX;
        assert_eq!(philox4x32([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([ones; 2], [ones; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn permutation_is_one() {
        for len in [0, 1, 2, 17, 1000] {
            let mut p = Rng::new(7).permutation(Stream::ORDER, 3, len);
            let other = Rng::new(7).permutation(Stream::ORDER, 4, len);
            assert!(len < 10 || p != other);
            p.sort_unstable();
            assert!(p.iter().enumerate().all(|(i, &x)| i as u32 == x));
        }
    }
}
