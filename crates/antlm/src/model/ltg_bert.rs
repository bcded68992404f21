//! LTG-BERT (Samuel et al., 2023, "Trained on 100 million words and still in shape"): an encoder with extra norms,
//! GEGLU and relative positions in disentangled attention, as models.md section 2 of the specification states it.

use std::sync::Arc;

use antlm_nn::Result;
use antlm_nn::kernels::dropout::Rows as DropRows;
use antlm_nn::kernels::past::Past;
use antlm_nn::kernels::rope::Table;
use antlm_nn::params::{Init, Layout, View};
use antlm_nn::relative::RELATIVE_ROWS;
use antlm_nn::tape::{Act, Attention, Drop, Norm, Tape};

use super::{Cache, Config, Rows};

/// The tensors of one LTG-BERT.
#[derive(Clone, Debug)]
pub struct LtgBert {
    pub(super) config: Config,
    pub(super) layout: Layout,
    word: View,
    relative: View,
    relative_norm: (View, View),
    layers: Vec<Layer>,
    head: (View, View),
    output_bias: View,
}

#[derive(Clone, Debug)]
struct Layer {
    /// W_qk over W_v, `[3 d, d]`: one product makes q|k|v.
    qkv: (View, View),
    /// W_qk alone, `[2 d, d]`: also projects the relative positions.
    qk: (View, View),
    out: (View, View),
    post_norm: (View, View),
    /// `[2 I, d]`: the second half is the gate.
    up: View,
    down: View,
}

/// Dropout places of a layer; the embedding's is 0, the head's comes last.
const SITES: u32 = 4;

impl LtgBert {
    pub(super) fn new(config: &Config) -> Result<LtgBert> {
        let (d, wide, vocab) = (config.hidden, config.intermediate, config.vocab_size);
        let std = (2.0 / (5.0 * d as f64)).sqrt();
        let scaled = |scale| Init::TruncatedNormal { std, scale };
        let matrix = scaled(1.0);
        let mut layout = Layout::default();
        // Not decayed: names with bias, layer_norm or embedding (models.md 2.5).
        let word = layout.add("embedding.word_embedding.weight", &[vocab, d], matrix, false);
        let relative = layout.add("embedding.relative_embedding", &[RELATIVE_ROWS, d], matrix, false);
        let norm = |layout: &mut Layout, name: String| {
            let weight = layout.add(format!("{name}.weight"), &[d], Init::Ones, false);
            (weight, layout.add(format!("{name}.bias"), &[d], Init::Zeros, false))
        };
        let relative_norm = norm(&mut layout, "embedding.relative_layer_norm".into());
        let mut layers = Vec::with_capacity(config.layers);
        for l in 0..config.layers {
            let (a, m) = (format!("transformer.layers.{l}.attention"), format!("transformer.layers.{l}.mlp.mlp"));
            let qk = layout.add(format!("{a}.in_proj_qk.weight"), &[2 * d, d], matrix, true);
            let v = layout.add(format!("{a}.in_proj_v.weight"), &[d, d], matrix, true);
            let qk_bias = layout.add(format!("{a}.in_proj_qk.bias"), &[2 * d], Init::Zeros, false);
            let v_bias = layout.add(format!("{a}.in_proj_v.bias"), &[d], Init::Zeros, false);
            let out = layout.add(format!("{a}.out_proj.weight"), &[d, d], matrix, true);
            let out_bias = layout.add(format!("{a}.out_proj.bias"), &[d], Init::Zeros, false);
            let post_norm = norm(&mut layout, format!("{a}.post_layer_norm"));
            let shrunk = scaled((1.0 / (2.0 * (1.0 + l as f64))).sqrt());
            let up = layout.add(format!("{m}.1.weight"), &[2 * wide, d], shrunk, true);
            let down = layout.add(format!("{m}.4.weight"), &[d, wide], shrunk, true);
            let qkv = (Layout::span(qk, v)?, Layout::span_of_vectors(qk_bias, v_bias)?);
            layers.push(Layer { qkv, qk: (qk, qk_bias), out: (out, out_bias), post_norm, up, down });
        }
        let head = layout.add("classifier.nonlinearity.1.weight", &[d, d], matrix, true);
        let head_bias = layout.add("classifier.nonlinearity.1.bias", &[d], Init::Zeros, false);
        let output_bias = layout.add("classifier.nonlinearity.5.bias", &[vocab], Init::Zeros, false);
        let config = config.clone();
        Ok(LtgBert { config, layout, word, relative, relative_norm, layers, head: (head, head_bias), output_bias })
    }

    /// The tied vocabulary matrix and the output bias.
    pub(super) fn output(&self) -> (View, Option<View>) {
        (self.word, Some(self.output_bias))
    }

    /// The last layer's output at the picked rows, which the head reads: `[m, d]`.
    pub(super) fn features(&self, tape: &mut Tape<'_>, rows: &Rows) -> Result<Act> {
        let c = &self.config;
        let eps = c.norm_eps as f32;
        let plain = Norm { eps, ..Norm::default() };
        let step = || DropRows::From(rows.first);
        let picked = || DropRows::Picked(rows.first, rows.picked.clone());
        let hidden_drop = |site, rows| Some(Drop { site, p: c.hidden_dropout, rows });
        let attention_drop = |site, rows| Drop { site, p: c.attention_dropout, rows };

        let x = tape.embedding(&rows.ids, self.word)?;
        let mut x = tape.layer_norm(x, &Norm { drop: hidden_drop(0, step()), ..plain.clone() })?; // [n, d]
        let relative = tape.param(self.relative)?;
        let relative = tape.layer_norm(relative, &Norm { affine: Some(self.relative_norm), ..plain.clone() })?; // [63, d]
        for (l, layer) in self.layers.iter().enumerate() {
            let site = 1 + SITES * l as u32;
            let mark = tape.mark();
            let y = tape.layer_norm(x, &plain)?;
            let qkv = tape.linear(y, layer.qkv.0, Some(layer.qkv.1), None)?; // [n, 3 d]
            let dropped = tape.dropout(relative, &attention_drop(site, DropRows::Shared), None)?;
            let positions = tape.linear(dropped, layer.qk.0, Some(layer.qk.1), None)?; // [63, 2 d]
            let attention = Attention {
                heads: c.heads,
                scale: 1.0 / (3.0 * (c.hidden / c.heads) as f32).sqrt(),
                causal: rows.causal,
                drop: Some(attention_drop(site + 1, step())),
            };
            let mut o = rows.attend(tape, qkv, Some(positions), &attention)?;
            // Behind the last attention no row looks at another: only rows with a target are needed, [m, d] each.
            let last = l + 1 == self.layers.len();
            if last {
                (o, x) = (tape.gather(o, &rows.picked)?, tape.gather(x, &rows.picked)?);
            }
            let places = || if last { picked() } else { step() };
            let o = tape.linear(o, layer.out.0, Some(layer.out.1), None)?;
            let drop = Some(attention_drop(site + 2, places()));
            x = tape.layer_norm(o, &Norm { affine: Some(layer.post_norm), drop, residual: Some(x), eps })?;
            let y = tape.layer_norm(x, &plain)?;
            let ug = tape.linear(y, layer.up, None, None)?; // [n, 2 I]
            let z = tape.geglu_norm(ug, eps)?; // [n, I]
            let z = tape.linear(z, layer.down, None, None)?;
            x = tape.dropout(z, &Drop { site: site + 3, p: c.hidden_dropout, rows: places() }, Some(x))?;
            tape.release(mark, x);
        }
        Ok(x)
    }

    pub(super) fn hidden(&self, tape: &mut Tape<'_>, rows: &Rows) -> Result<Act> {
        let plain = Norm { eps: self.config.norm_eps as f32, ..Norm::default() };
        let x = self.features(tape, rows)?; // [m, d]
        let y = tape.layer_norm(x, &plain)?;
        let y = tape.linear(y, self.head.0, Some(self.head.1), None)?;
        let y = tape.gelu(y)?;
        let site = 1 + SITES * self.layers.len() as u32;
        let drop =
            Drop { site, p: self.config.hidden_dropout, rows: DropRows::Picked(rows.first, rows.picked.clone()) };
        tape.layer_norm(y, &Norm { drop: Some(drop), ..plain })
    }

    /// An empty cache.
    pub(super) fn cache(&self, tape: &mut Tape<'_>) -> Result<Cache> {
        let norm = Norm { eps: self.config.norm_eps as f32, affine: Some(self.relative_norm), ..Norm::default() };
        let relative = tape.param(self.relative)?;
        let relative = tape.layer_norm(relative, &norm)?; // [63, d]
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let positions = tape.linear(relative, layer.qk.0, Some(layer.qk.1), None)?; // [63, 2 d]
            layers.push(Past::new(self.config.hidden, Some(tape.read(positions)?.into_owned()))?);
        }
        Ok(Cache { layers, turns: Arc::new(Table::default()) })
    }

    /// As `hidden`, causal and without dropout, for rows that follow those in the cache.
    pub(super) fn hidden_next(
        &self,
        tape: &mut Tape<'_>,
        ids: &Arc<[u32]>,
        picked: &Arc<[u32]>,
        cache: &mut Cache,
    ) -> Result<Act> {
        let c = &self.config;
        let eps = c.norm_eps as f32;
        let plain = Norm { eps, ..Norm::default() };
        let scale = 1.0 / (3.0 * (c.hidden / c.heads) as f32).sqrt();

        let x = tape.embedding(ids, self.word)?;
        let mut x = tape.layer_norm(x, &plain)?; // [n, d]
        for (layer, past) in self.layers.iter().zip(&mut cache.layers) {
            let y = tape.layer_norm(x, &plain)?;
            let qkv = tape.linear(y, layer.qkv.0, Some(layer.qkv.1), None)?; // [n, 3 d]
            let o = tape.attention_over(qkv, c.heads, scale, past)?;
            let o = tape.linear(o, layer.out.0, Some(layer.out.1), None)?;
            x = tape.layer_norm(o, &Norm { affine: Some(layer.post_norm), residual: Some(x), ..plain.clone() })?;
            let y = tape.layer_norm(x, &plain)?;
            let ug = tape.linear(y, layer.up, None, None)?; // [n, 2 I]
            let z = tape.geglu_norm(ug, eps)?; // [n, I]
            x = tape.linear(z, layer.down, None, Some(x))?;
        }
        let x = tape.gather(x, picked)?; // [m, d]
        let y = tape.layer_norm(x, &plain)?;
        let y = tape.linear(y, self.head.0, Some(self.head.1), None)?;
        let y = tape.gelu(y)?;
        tape.layer_norm(y, &plain)
    }
}
