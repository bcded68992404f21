//! The engine's one error type: every variant names the operation or tensor and the shapes involved.

/// What can go wrong in the engine. Shapes are given as `[rows, columns]` or as the tensor's full shape.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two operands do not fit together.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The operation that was asked for.
        op: &'static str,
        /// What it needs, in words and numbers.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// A tensor of this name is not in the layout.
    #[error("no tensor named {name:?} among the {count} tensors of this model")]
    UnknownTensor {
        /// The name that was asked for.
        name: String,
        /// How many tensors there are.
        count: usize,
    },
    /// A graphics card has no memory left, is lost, or is none.
    #[error("{what}")]
    Card {
        /// What happened on which card, and what can be done.
        what: String,
    },
    /// An index (token id, row, segment bound) is outside its range.
    #[error("{op}: {what} {index} is outside 0..{limit}")]
    Range {
        /// The operation that was asked for.
        op: &'static str,
        /// What the index is.
        what: &'static str,
        /// The index itself.
        index: usize,
        /// The first value that is too large.
        limit: usize,
    },
}

/// The engine's result type.
pub type Result<T> = std::result::Result<T, Error>;
