//! Whole models made of the reference forwards, against the golden logits and losses of float64 PyTorch.

use super::super::*;
use safetensors::SafeTensors;

const D: usize = 48;
const HEADS: usize = 3;
const I: usize = 40;
const LAYERS: usize = 3;

/// A golden file, opened.
struct Golden<'a>(SafeTensors<'a>);

impl Golden<'_> {
    fn floats(&self, name: &str) -> Vec<f64> {
        let data = self.0.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        data.data().as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()
    }

    fn numbers(&self, name: &str) -> Vec<u32> {
        self.0.tensor(name).unwrap().data().as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect()
    }

    fn param(&self, name: &str) -> Vec<f64> {
        self.floats(&format!("param.{name}"))
    }

    fn linear(&self, x: &[f64], inputs: usize, name: &str) -> Vec<f64> {
        let bias = self.0.tensor(&format!("param.{name}.bias")).is_ok().then(|| self.param(&format!("{name}.bias")));
        linear(x, inputs, &self.param(&format!("{name}.weight")), bias.as_deref())
    }

    /// Compares logits and loss of a case with those that `last` (rows before the head's product) gives.
    fn check(&self, case: &str, last: &[f64], table: &[f64], bias: Option<&[f64]>) {
        let rows = self.numbers(&format!("{case}.rows"));
        let x = embedding(last, &rows, D); // the rows with targets
        let logits = linear(&x, D, table, bias);
        for (got, want) in logits.iter().zip(self.floats(&format!("{case}.logits"))) {
            assert!((got - want).abs() < 1e-6, "{case}: {got} {want}"); // half a bit of an f32 below 16
        }
        let targets = self.numbers(&format!("{case}.targets"));
        let loss = classifier_loss(&x, D, table, bias, &targets, 1.0 / rows.len() as f64, 0.0).loss;
        assert!((loss - self.floats(&format!("{case}.loss"))[0]).abs() < 1e-6, "{case}: {loss}");
    }
}

fn with_golden(file: &str, f: impl Fn(&Golden)) {
    let path = format!("{}/../antlm/tests/golden/{file}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    f(&Golden(SafeTensors::deserialize(&bytes).unwrap()));
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// Columns side by side: `[n, a]` and `[n, b]` -> `[n, a + b]`.
fn beside(left: &[f64], a: usize, right: &[f64], b: usize) -> Vec<f64> {
    left.chunks(a).zip(right.chunks(b)).flat_map(|(l, r)| l.iter().chain(r)).copied().collect()
}

fn attention<'a>(bounds: &'a [u32], causal: bool, scale: f64) -> Attention<'a> {
    Attention { d: D, heads: HEADS, bounds, causal, scale, dropout: None }
}

#[test]
fn ltg_bert() {
    with_golden("ltg-bert", |g| {
        for case in ["packed.causal", "packed.bidirectional", "t450.causal", "t450.bidirectional"] {
            let eps = 1e-7;
            let plain = |x: &[f64]| layer_norm(x, D, eps, None);
            let affine = |x: &[f64], name: &str| {
                let (gamma, beta) = (g.param(&format!("{name}.weight")), g.param(&format!("{name}.bias")));
                layer_norm(x, D, eps, Some((&gamma, &beta)))
            };
            let bounds = g.numbers(&format!("{case}.bounds"));
            let causal = g.numbers(&format!("{case}.causal")) == [1];
            let table = g.param("embedding.word_embedding.weight");
            let mut x = plain(&embedding(&table, &g.numbers(&format!("{case}.ids")), D));
            let positions = affine(&g.param("embedding.relative_embedding"), "embedding.relative_layer_norm");
            for layer in 0..LAYERS {
                let [a, m] = ["attention", "mlp.mlp"].map(|part| format!("transformer.layers.{layer}.{part}"));
                let y = plain(&x);
                let qk = format!("{a}.in_proj_qk");
                let qkv = beside(&g.linear(&y, D, &qk), 2 * D, &g.linear(&y, D, &format!("{a}.in_proj_v")), D);
                let relative = g.linear(&positions, D, &qk);
                let scale = 1.0 / (3.0 * (D / HEADS) as f64).sqrt();
                let o = attention(&bounds, causal, scale).forward(&qkv, Some(&relative));
                let o = g.linear(&o, D, &format!("{a}.out_proj"));
                x = sum(&x, &affine(&o, &format!("{a}.post_layer_norm")));
                let z = geglu(&g.linear(&plain(&x), D, &format!("{m}.1")), I, eps);
                x = sum(&x, &g.linear(&z, I, &format!("{m}.4")));
            }
            let x = plain(&gelu(&g.linear(&plain(&x), D, "classifier.nonlinearity.1")));
            g.check(case, &x, &table, Some(&g.param("classifier.nonlinearity.5.bias")));
        }
    });
}

#[test]
fn llama() {
    for (file, head) in [("llama", "lm_head.weight"), ("llama-tied", "model.embed_tokens.weight")] {
        with_golden(file, |g| {
            let cases: &[&str] = if file == "llama" {
                &["packed.causal", "packed.bidirectional", "t450.causal", "t450.bidirectional"]
            } else {
                &["packed.causal", "packed.bidirectional"]
            };
            for case in cases {
                let norm = |x: &[f64], name: &str| rms_norm(x, D, 1e-6, &g.param(name));
                let bounds = g.numbers(&format!("{case}.bounds"));
                let causal = g.numbers(&format!("{case}.causal")) == [1];
                let ids = g.numbers(&format!("{case}.ids"));
                let mut x = embedding(&g.param("model.embed_tokens.weight"), &ids, D);
                for layer in 0..LAYERS {
                    let name = |part: &str| format!("model.layers.{layer}.{part}");
                    let y = norm(&x, &name("input_layernorm.weight"));
                    let [q, k, v] = ["q", "k", "v"].map(|z| g.linear(&y, D, &name(&format!("self_attn.{z}_proj"))));
                    let qkv = beside(&beside(&q, D, &k, D), 2 * D, &v, D);
                    let width = D / HEADS;
                    let qkv = rope(&qkv, 3 * D, 2 * D, width, &bounds, 10_000.0);
                    let o = attention(&bounds, causal, 1.0 / (width as f64).sqrt()).forward(&qkv, None);
                    x = sum(&x, &g.linear(&o, D, &name("self_attn.o_proj")));
                    let y = norm(&x, &name("post_attention_layernorm.weight"));
                    let [gate, up] = ["gate", "up"].map(|z| g.linear(&y, D, &name(&format!("mlp.{z}_proj"))));
                    x = sum(&x, &g.linear(&swiglu(&beside(&gate, I, &up, I), I), I, &name("mlp.down_proj")));
                }
                g.check(case, &norm(&x, "model.norm.weight"), &g.param(head), None);
            }
        });
    }
}
