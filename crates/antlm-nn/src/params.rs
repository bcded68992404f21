//! One flat f32 buffer a model: the layout names views of it. Gradients, moments and averages have the same layout.
//!
//! Tensors that are multiplied with the same input are registered next to each other, so that one product serves
//! them ([`Layout::span`]); the names stay the Hub's names.

use rayon::prelude::*;

use crate::rng::{Rng, Stream};
use crate::{Error, Result};

/// How a tensor gets its first values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Normal with mean 0, drawn again while outside ±2 `std`, then multiplied by `scale`.
    TruncatedNormal {
        /// Standard deviation before truncation (the realised one is 0.880 of it).
        std: f64,
        /// Factor applied afterwards.
        scale: f64,
    },
    /// Uniform in [-bound, bound).
    Uniform {
        /// The bound.
        bound: f64,
    },
}

/// One named tensor of a layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The Hub's name.
    pub name: String,
    /// Its shape, one or two numbers.
    pub shape: Vec<usize>,
    /// Where it starts in the flat buffer.
    pub offset: usize,
    /// Weight decay (and LAMB's trust ratio) apply to it.
    pub decay: bool,
    /// How it starts.
    pub init: Init,
}

impl Tensor {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True for a tensor with no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its place in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// A matrix inside the flat buffer: `rows` x `cols` values, row-major, from `offset` on. A vector has one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// First value in the flat buffer.
    pub offset: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
}

impl View {
    /// Its place in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.rows * self.cols
    }
}

/// The names, shapes and places of a model's tensors in its flat buffer.
///
/// ```
/// use antlm_nn::params::{Init, Layout};
/// let mut layout = Layout::default();
/// let q = layout.add("q.weight", &[8, 4], Init::Normal { std: 0.02 }, true);
/// let k = layout.add("k.weight", &[8, 4], Init::Normal { std: 0.02 }, true);
/// let qk = Layout::span(q, k)?; // one product serves both
/// assert_eq!((qk.rows, qk.cols, layout.len()), (16, 4, 64));
/// # Ok::<(), antlm_nn::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    tensors: Vec<Tensor>,
    len: usize,
}

impl Layout {
    /// Appends a tensor and returns its view. A shape of one number is a vector.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], init: Init, decay: bool) -> View {
        let tensor = Tensor { name: name.into(), shape: shape.to_vec(), offset: self.len, decay, init };
        let cols = *shape.last().unwrap_or(&1);
        let view = View { offset: self.len, rows: tensor.len() / cols.max(1), cols };
        self.len += tensor.len();
        self.tensors.push(tensor);
        view
    }

    /// All tensors in the order of the buffer.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        let unknown = || Error::UnknownTensor { name: name.to_owned(), count: self.tensors.len() };
        self.tensors.iter().find(|t| t.name == name).ok_or_else(unknown)
    }

    /// Number of values of the whole buffer: the model's parameters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when no tensor was added.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The matrix made of `first` and, below it, the matrix that lies directly behind it.
    ///
    /// # Errors
    /// [`Error::Shape`] when they are not neighbours or differ in columns.
    pub fn span(first: View, second: View) -> Result<View> {
        neighbours("span", first, second, first.cols == second.cols)?;
        Ok(View { rows: first.rows + second.rows, ..first })
    }

    /// The vector made of `first` and the vector that lies directly behind it. (A view does not tell a vector from a matrix
    /// of one row, so the caller does.)
    ///
    /// # Errors
    /// [`Error::Shape`] when they are not neighbours, or no vectors.
    pub fn span_of_vectors(first: View, second: View) -> Result<View> {
        neighbours("span_of_vectors", first, second, first.rows == 1 && second.rows == 1)?;
        Ok(View { cols: first.cols + second.cols, ..first })
    }

    /// A buffer with the first values of every tensor; the same for the same seed everywhere.
    pub fn init(&self, seed: u64) -> Vec<f32> {
        self.init_behind(&[], seed)
    }

    /// The same, but the first tensors, whose values these are, are theirs already.
    ///
    /// # Panics
    /// When there are more values than the layout has.
    pub fn init_behind(&self, first: &[f32], seed: u64) -> Vec<f32> {
        let mut buffer = vec![0.0; self.len];
        buffer[..first.len()].copy_from_slice(first);
        let new = self.tensors.iter().enumerate().filter(|(_, tensor)| tensor.range().start >= first.len());
        for (index, tensor) in new {
            fill(&mut buffer[tensor.range()], tensor.init, Rng::new(seed), index as u32);
        }
        buffer
    }
}

/// Writes the first values of one tensor; value `i` depends on the seed, the tensor's index and `i` alone.
fn fill(values: &mut [f32], init: Init, rng: Rng, index: u32) {
    match init {
        Init::Zeros => values.fill(0.0),
        Init::Ones => values.fill(1.0),
        Init::Normal { std } => {
            values.par_iter_mut().enumerate().for_each(|(i, value)| {
                *value = (std * normal(rng, index, i as u32, 0)) as f32;
            });
        }
        Init::TruncatedNormal { std, scale } => {
            values.par_iter_mut().enumerate().for_each(|(i, value)| {
                let mut draws = (0..64).map(|attempt| normal(rng, index, i as u32, attempt));
                // 64 draws outside ±2 in a row have probability 1e-86; then the value is 0.
                let z = draws.find(|z| z.abs() <= 2.0).unwrap_or(0.0);
                *value = (scale * std * z) as f32;
            });
        }
        Init::Uniform { bound } => {
            values.par_iter_mut().enumerate().for_each(|(i, value)| {
                *value = (bound * (2.0 * rng.unit(Stream::INIT, index, i as u32, 0) - 1.0)) as f32;
            });
        }
    }
}

/// A standard normal number (Box-Muller, f64).
fn normal(rng: Rng, index: u32, i: u32, attempt: u32) -> f64 {
    let [a, b, _, _] = rng.quad(Stream::INIT, index, i, attempt);
    // (a + 1) / 2^32 is in (0, 1], so the logarithm is finite.
    let radius = (-2.0 * libm::log((f64::from(a) + 1.0) / 4_294_967_296.0)).sqrt();
    radius * libm::cos(std::f64::consts::TAU * f64::from(b) / 4_294_967_296.0)
}

/// Refuses two views that do not lie one behind the other, or do not fit otherwise.
fn neighbours(op: &'static str, first: View, second: View, fit: bool) -> Result<()> {
    if first.range().end == second.offset && fit {
        return Ok(());
    }
    let expected = "two that lie one behind the other and fit together".into();
    Err(Error::Shape { op, expected, got: format!("{first:?} and {second:?}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_values_have_the_asked_spread() {
        let mut layout = Layout::default();
        let n = layout.add("n", &[200, 500], Init::Normal { std: 0.02 }, true);
        let t = layout.add("t", &[200, 500], Init::TruncatedNormal { std: 0.1, scale: 0.5 }, true);
        let u = layout.add("u", &[200, 500], Init::Uniform { bound: 0.5 }, true);
        let buffer = layout.init(3);
        let std = |v: View| {
            let x = &buffer[v.range()];
            (x.iter().map(|x| f64::from(x * x)).sum::<f64>() / x.len() as f64).sqrt()
        };
        assert!((std(n) / 0.02 - 1.0).abs() < 0.01, "{}", std(n));
        assert!((std(t) / (0.880 * 0.1 * 0.5) - 1.0).abs() < 0.01, "{}", std(t));
        assert!(buffer[t.range()].iter().all(|x| x.abs() <= 0.1));
        // bound / √3
        assert!((std(u) / 0.28868 - 1.0).abs() < 0.01, "{}", std(u));
        assert!(buffer[u.range()].iter().all(|x| x.abs() <= 0.5));
        assert_ne!(buffer, layout.init(4));
    }

    #[test]
    fn spans_need_neighbours() {
        let mut layout = Layout::default();
        let a = layout.add("a", &[4, 2], Init::Zeros, true);
        let b = layout.add("b", &[4], Init::Zeros, false);
        let c = layout.add("c", &[4], Init::Zeros, false);
        assert_eq!(Layout::span_of_vectors(b, c).unwrap().cols, 8);
        assert!(Layout::span(a, b).is_err() && Layout::span(a, c).is_err() && Layout::span_of_vectors(a, b).is_err());
        // Matrices of one row are matrices.
        let [d, e] = ["d", "e"].map(|name| layout.add(name, &[1, 3], Init::Zeros, true));
        let both = Layout::span(d, e).unwrap();
        assert_eq!((both.rows, both.cols), (2, 3));
        assert!(layout.get("f").is_err());
    }
}
