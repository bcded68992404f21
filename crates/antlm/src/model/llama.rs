//! Llama as BabyLlama has it (models.md section 4 of the specification): a decoder with RMS norms, rotary positions
//! and SwiGLU, no biases, no dropout. Read with both sides it is the same network without the causal mask.

use std::sync::Arc;

use antlm_nn::Result;
use antlm_nn::kernels::past::Past;
use antlm_nn::kernels::rope::Table;
use antlm_nn::params::{Init, Layout, View};
use antlm_nn::tape::{Act, Attention, Tape};

use super::{Cache, Config, Rows};
use crate::text::special::PAD;

/// Rotary base.
pub const THETA: f64 = 10_000.0;

/// The tensors of one Llama.
#[derive(Clone, Debug)]
pub struct Llama {
    pub(super) config: Config,
    pub(super) layout: Layout,
    embed: View,
    layers: Vec<Layer>,
    norm: View,
    head: Option<View>,
}

#[derive(Clone, Debug)]
struct Layer {
    input_norm: View,
    /// W_q over W_k over W_v, `[3 d, d]`.
    qkv: View,
    out: View,
    post_norm: View,
    /// W_gate over W_up, `[2 I, d]`.
    gate_up: View,
    down: View,
}

impl Llama {
    pub(super) fn new(config: &Config) -> Result<Llama> {
        let (d, wide, vocab) = (config.hidden, config.intermediate, config.vocab_size);
        let normal = Init::Normal { std: 0.02 };
        // Matrices decay (if the recipe asks for decay at all), norms do not.
        let mut layout = Layout::default();
        let embed = layout.add("model.embed_tokens.weight", &[vocab, d], normal, true);
        let mut layers = Vec::with_capacity(config.layers);
        for l in 0..config.layers {
            let mut add = |name: &str, shape: &[usize], init| {
                layout.add(format!("model.layers.{l}.{name}.weight"), shape, init, shape.len() > 1)
            };
            let input_norm = add("input_layernorm", &[d], Init::Ones);
            let [q, k, v] = ["q", "k", "v"].map(|part| add(&format!("self_attn.{part}_proj"), &[d, d], normal));
            let out = add("self_attn.o_proj", &[d, d], normal);
            let post_norm = add("post_attention_layernorm", &[d], Init::Ones);
            let gate = add("mlp.gate_proj", &[wide, d], normal);
            let up = add("mlp.up_proj", &[wide, d], normal);
            let down = add("mlp.down_proj", &[d, wide], normal);
            let qkv = Layout::span(Layout::span(q, k)?, v)?;
            layers.push(Layer { input_norm, qkv, out, post_norm, gate_up: Layout::span(gate, up)?, down });
        }
        let norm = layout.add("model.norm.weight", &[d], Init::Ones, false);
        let head = (!config.tied).then(|| layout.add("lm_head.weight", &[vocab, d], normal, true));
        Ok(Llama { config: config.clone(), layout, embed, layers, norm, head })
    }

    /// The padding row of the embedding starts as zeros, as `nn.Embedding(padding_idx=…)` leaves it.
    pub(super) fn clear_padding(&self, params: &mut [f32]) {
        let d = self.embed.cols;
        if let Some(row) = params[self.embed.range()].chunks_exact_mut(d).nth(PAD as usize) {
            row.fill(0.0);
        }
    }

    pub(super) fn output(&self) -> View {
        self.head.unwrap_or(self.embed)
    }

    pub(super) fn hidden(&self, tape: &mut Tape<'_>, rows: &Rows) -> Result<Act> {
        let c = &self.config;
        let (eps, width) = (c.norm_eps as f32, c.hidden / c.heads);
        let positions = rows.positions();
        let longest = positions.iter().max().map_or(0, |&p| p as usize + 1);
        let table = Arc::new(Table::new(longest, width, THETA));
        let attention =
            Attention { heads: c.heads, scale: 1.0 / (width as f32).sqrt(), causal: rows.causal, drop: None };

        let mut x = tape.embedding(&rows.ids, self.embed)?; // [n, d]
        for (l, layer) in self.layers.iter().enumerate() {
            let mark = tape.mark();
            let y = tape.rms_norm(x, layer.input_norm, eps)?;
            let qkv = tape.linear(y, layer.qkv, None, None)?; // [n, 3 d]
            let qkv = tape.rope(qkv, &table, c.heads, &positions)?;
            let mut o = rows.attend(tape, qkv, None, &attention)?;
            // Behind the last attention no row looks at another: only rows with a target are needed, [m, d] each.
            if l + 1 == self.layers.len() {
                (o, x) = (tape.gather(o, &rows.picked)?, tape.gather(x, &rows.picked)?);
            }
            x = tape.linear(o, layer.out, None, Some(x))?;
            let y = tape.rms_norm(x, layer.post_norm, eps)?;
            let gate_up = tape.linear(y, layer.gate_up, None, None)?; // [n, 2 I]
            let z = tape.swiglu(gate_up)?; // [n, I]
            x = tape.linear(z, layer.down, None, Some(x))?;
            tape.release(mark, x);
        }
        tape.rms_norm(x, self.norm, eps)
    }

    /// An empty cache.
    pub(super) fn cache(&self) -> Result<Cache> {
        let layers = self.layers.iter().map(|_| Past::new(self.config.hidden, None)).collect::<Result<_>>()?;
        Ok(Cache { layers, turns: Arc::new(Table::default()) })
    }

    /// As `hidden`, causal, for rows that follow those in the cache.
    pub(super) fn hidden_next(
        &self,
        tape: &mut Tape<'_>,
        ids: &Arc<[u32]>,
        picked: &Arc<[u32]>,
        cache: &mut Cache,
    ) -> Result<Act> {
        let c = &self.config;
        let (eps, width) = (c.norm_eps as f32, c.hidden / c.heads);
        let scale = 1.0 / (width as f32).sqrt();
        let (first, end) = (cache.rows(), cache.rows() + ids.len());
        if cache.turns.width() != width || cache.turns.positions() < end {
            cache.turns = Arc::new(Table::new(end.next_power_of_two(), width, THETA));
        }
        let positions: Arc<[u32]> = (first as u32..end as u32).collect();

        let mut x = tape.embedding(ids, self.embed)?; // [n, d]
        for (layer, past) in self.layers.iter().zip(&mut cache.layers) {
            let y = tape.rms_norm(x, layer.input_norm, eps)?;
            let qkv = tape.linear(y, layer.qkv, None, None)?; // [n, 3 d]
            let qkv = tape.rope(qkv, &cache.turns, c.heads, &positions)?;
            let o = tape.attention_over(qkv, c.heads, scale, past)?;
            x = tape.linear(o, layer.out, None, Some(x))?;
            let y = tape.rms_norm(x, layer.post_norm, eps)?;
            let gate_up = tape.linear(y, layer.gate_up, None, None)?; // [n, 2 I]
            let z = tape.swiglu(gate_up)?; // [n, I]
            x = tape.linear(z, layer.down, None, Some(x))?;
        }
        let x = tape.gather(x, picked)?; // [m, d]
        tape.rms_norm(x, self.norm, eps)
    }
}
