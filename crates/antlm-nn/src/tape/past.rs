//! Attention over rows that were kept: for passes whose rows come a few at a time, from the left.

use super::{Act, Tape};
use crate::Result;
use crate::kernels::past::Past;

use super::forward::check;

impl Tape<'_> {
    /// Causal attention of new rows `qkv: [m, 3 d]` over those in `past` and themselves: `[m, d]`. Their keys and values
    /// are added to `past`. There is no backward of it.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), also on a tape with gradients.
    pub fn attention_over(&mut self, qkv: Act, heads: usize, scale: f32, past: &mut Past) -> Result<Act> {
        self.operands("attention_over", &[Some(qkv)], &[])?;
        check(self.grads.is_none(), "attention_over", "a pass without gradients", "one with gradients")?;
        let d = past.width();
        let fits = heads > 0 && d.is_multiple_of(heads) && qkv.cols == 3 * d;
        check(fits, "attention_over", format!("[m, {}] and heads that divide {d}", 3 * d), format!("{qkv:?}"))?;
        self.push(qkv.rows, d, |tape, y| tape.device.attention_over(past, heads, scale, tape.value(qkv), y))
    }
}
