//! A whole training step of a plain transformer in burn, with the keys of `torch_peer.py`, to measure antlm against.
//!
//! usage: burn-peer MODEL OBJECTIVE [--batch=8] [--seq=128] [--steps=5] [--threads=N]
//!   MODEL      ltg-bert-small | ltg-bert-base | babyllama-58m
//!   OBJECTIVE  clm | mlm
//! Prints one line of JSON: median and minimum seconds of a step, tokens a second, peak memory. README.md says what is
//! simpler than in antlm.

use std::process::ExitCode;
use std::time::Instant;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Module, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{
    Embedding, EmbeddingConfig, Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig,
};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::{gelu_approximate, silu, softmax};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// The shape of a model.
struct Size {
    name: &'static str,
    /// Llama: root-mean-square norm, SiLU and an output layer of its own. Else layer norm, GELU and tied embeddings.
    llama: bool,
    layers: usize,
    hidden: usize,
    heads: usize,
    intermediate: usize,
    vocab: usize,
}

const SIZES: [Size; 3] = [
    Size { name: "ltg-bert-small", llama: false, layers: 12, hidden: 384, heads: 6, intermediate: 1024, vocab: 16384 },
    Size { name: "ltg-bert-base", llama: false, layers: 12, hidden: 768, heads: 12, intermediate: 2048, vocab: 16384 },
    Size { name: "babyllama-58m", llama: true, layers: 16, hidden: 512, heads: 8, intermediate: 1024, vocab: 16000 },
];

/// Rows that are predicted, and what is predicted there.
struct Batch {
    ids: Tensor<2, Int>,     // [batch, seq]
    rows: Tensor<1, Int>,    // [m]
    targets: Tensor<1, Int>, // [m]
    /// What a place does not see.
    blocked: Option<Tensor<4, Bool>>, // [1, 1, seq, seq]
}

#[derive(Module, Debug)]
enum Norm {
    Layer(LayerNorm),
    Rms(RmsNorm),
}

impl Norm {
    fn new(size: &Size, device: &Device) -> Norm {
        if size.llama {
            Norm::Rms(RmsNormConfig::new(size.hidden).with_epsilon(1e-6).init(device))
        } else {
            Norm::Layer(LayerNormConfig::new(size.hidden).with_epsilon(1e-7).init(device))
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Norm::Layer(norm) => norm.forward(x),
            Norm::Rms(norm) => norm.forward(x),
        }
    }
}

/// Attention and a gated layer, each behind a norm and beside the residual.
#[derive(Module, Debug)]
struct Block {
    before_attention: Norm,
    qkv: Linear,
    out: Linear,
    before_gated: Norm,
    gate_up: Linear,
    down: Linear,
    heads: usize,
    llama: bool,
}

impl Block {
    fn new(size: &Size, device: &Device) -> Block {
        let linear = |from, to, bias| LinearConfig::new(from, to).with_bias(bias).with_initializer(NORMAL).init(device);
        let (d, bias) = (size.hidden, !size.llama);
        Block {
            before_attention: Norm::new(size, device),
            qkv: linear(d, 3 * d, bias),
            out: linear(d, d, bias),
            before_gated: Norm::new(size, device),
            gate_up: linear(d, 2 * size.intermediate, false),
            down: linear(size.intermediate, d, false),
            heads: size.heads,
            llama: size.llama,
        }
    }

    /// `x` is `[batch * seq, hidden]`.
    fn forward(&self, x: Tensor<2>, batch: &Batch) -> Tensor<2> {
        let ([b, t], [n, d]) = (batch.ids.dims(), x.dims());
        let head = d / self.heads;
        let qkv = self.qkv.forward(self.before_attention.forward(x.clone()));
        let mut parts = qkv.chunk(3, 1).into_iter().map(|part| part.reshape([b, t, self.heads, head]).swap_dims(1, 2)); // [b, heads, t, head]
        let mut next = || parts.next().expect("three parts");
        let (q, k, v) = (next() * (head as f32).powf(-0.5), next(), next());
        let mut scores = q.matmul(k.transpose()); // [b, heads, t, t]
        if let Some(blocked) = &batch.blocked {
            scores = scores.mask_fill(blocked.clone(), -1.0e9);
        }
        let mixed = softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([n, d]);
        let x = x + self.out.forward(mixed);
        let wide = self.gate_up.forward(self.before_gated.forward(x.clone()));
        let mut parts = wide.chunk(2, 1).into_iter();
        let (gate, up) = (parts.next().expect("two parts"), parts.next().expect("two parts"));
        let gate = if self.llama { silu(gate) } else { gelu_approximate(gate) };
        x + self.down.forward(gate * up)
    }
}

const NORMAL: Initializer = Initializer::Normal { mean: 0.0, std: 0.02 };

#[derive(Module, Debug)]
struct Transformer {
    embedding: Embedding,
    positions: Param<Tensor<2>>, // [seq, hidden]
    blocks: Vec<Block>,
    last: Norm,
    /// Absent where the embeddings are the output layer.
    output: Option<Linear>,
}

impl Transformer {
    fn new(size: &Size, seq: usize, device: &Device) -> Transformer {
        let output = LinearConfig::new(size.hidden, size.vocab).with_bias(false).with_initializer(NORMAL);
        Transformer {
            embedding: EmbeddingConfig::new(size.vocab, size.hidden).with_initializer(NORMAL).init(device),
            positions: NORMAL.init([seq, size.hidden], device),
            blocks: (0..size.layers).map(|_| Block::new(size, device)).collect(),
            last: Norm::new(size, device),
            output: size.llama.then(|| output.init(device)),
        }
    }

    /// The mean loss of the rows that are predicted.
    fn loss(&self, batch: &Batch) -> Tensor<1> {
        let [b, t] = batch.ids.dims();
        let x = self.embedding.forward(batch.ids.clone()) + self.positions.val().unsqueeze();
        let [_, _, d] = x.dims();
        let x = self.blocks.iter().fold(x.reshape([b * t, d]), |x, block| block.forward(x, batch));
        let x = self.last.forward(x.select(0, batch.rows.clone()));
        let logits = match &self.output {
            Some(output) => output.forward(x),
            None => x.matmul(self.embedding.weight.val().transpose()),
        };
        CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, batch.targets.clone())
    }
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("burn-peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: impl Iterator<Item = String>) -> Result<String, String> {
    let (mut batch, mut seq, mut steps, mut threads, mut words) = (8, 128, 5, 0, Vec::new());
    for arg in args {
        let Some((name, value)) = arg.split_once('=') else {
            words.push(arg);
            continue;
        };
        let number = value.parse::<usize>().map_err(|error| format!("{arg}: {error}"))?;
        match name {
            "--batch" => batch = number,
            "--seq" => seq = number,
            "--steps" => steps = number,
            "--threads" => threads = number,
            _ => return Err(format!("{arg}: unknown")),
        }
    }
    let [model, objective] = &words[..] else { return Err("MODEL OBJECTIVE".into()) };
    let size = SIZES.iter().find(|size| size.name == model).ok_or_else(|| format!("no model {model}"))?;
    let causal = match objective.as_str() {
        "clm" => true,
        "mlm" => false,
        _ => return Err(format!("no objective {objective}")),
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|error| error.to_string())?;
    // Gradients exist for tensors of a device that has autodiff; ids and masks need none, but meet such tensors.
    let device = Device::flex().autodiff();
    device.seed(0);
    let data = tokens(size.vocab, batch, seq, causal, &device);
    let mut net = Transformer::new(size, seq, &device);
    let clip = Some(GradientClippingConfig::Norm(2.0));
    let adamw = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.01).with_grad_clipping(clip);
    let mut optimizer = adamw.init();
    let (mut seconds, mut last_loss) = (Vec::new(), 0.0);
    for step in 0..steps.max(1) + 2 {
        let start = Instant::now();
        let loss = net.loss(&data);
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(1e-4, net, grads);
        last_loss = loss.into_scalar::<f32>();
        if step >= 2 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let (low, high) = (seconds[(seconds.len() - 1) / 2], seconds[seconds.len() / 2]);
    let median = (low + high) / 2.0;
    let line = serde_json::json!({
        "peer": "burn 0.22.1 flex", "model": model, "objective": objective, "batch": batch, "seq": seq, "bf16": false,
        "compile": false, "threads": rayon::current_num_threads(), "parameters": net.num_params(),
        "seconds_median": median, "seconds_min": seconds[0], "tokens_per_second": (batch * seq) as f64 / median,
        "peak_bytes": peak_bytes(), "last_loss": last_loss,
    });
    Ok(line.to_string())
}

/// Tokens drawn at random; for `clm` every one but a sequence's first is predicted, for `mlm` about 15 % of them.
fn tokens(vocab: usize, batch: usize, seq: usize, causal: bool, device: &Device) -> Batch {
    // The finaliser of SplitMix64: as random as this needs.
    let draw = |index: usize| {
        let z = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let n = batch * seq;
    let ids: Vec<i64> = (0..n).map(|row| (5 + draw(row) % (vocab as u64 - 5)) as i64).collect();
    let wanted = |&row: &usize| if causal { row % seq != seq - 1 } else { draw(n + row) % 100 < 15 };
    let rows: Vec<usize> = (0..n).filter(wanted).collect();
    let targets: Vec<i64> = rows.iter().map(|&row| ids[row + usize::from(causal)]).collect();
    let m = rows.len();
    let rows: Vec<i64> = rows.into_iter().map(|row| row as i64).collect();
    // Here `true` is above the diagonal.
    let blocked = || Tensor::<2, Bool>::tril_mask([seq, seq], 0, device).reshape([1, 1, seq, seq]);
    Batch {
        ids: Tensor::from_data(TensorData::new(ids, [batch, seq]), device),
        rows: Tensor::from_data(TensorData::new(rows, [m]), device),
        targets: Tensor::from_data(TensorData::new(targets, [m]), device),
        blocked: causal.then(blocked),
    }
}

/// The process's largest resident memory, from `/proc` where there is one; else 0.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).map_or(0, |kb| kb * 1024)
}
