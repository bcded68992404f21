//! The engine below antlm: flat parameters, counter-based random numbers, a tape of fused operations with
//! hand-written backwards, and optimisers. It knows matrices, rows and segments of rows; it knows nothing of
//! language models, tokens or files.

pub mod device;
pub mod error;
pub mod kernels;
pub mod optim;
pub mod params;
#[doc(hidden)]
pub mod reference;
pub mod relative;
pub mod rng;
pub mod tape;

pub use error::{Error, Result};
