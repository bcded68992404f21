"""Makes the golden files beside it: float64 PyTorch, written from the equations alone (README.md says how to run it).

    python make.py [FOLDER]        writes ltg-bert, llama, llama-tied, optim and relative .safetensors

Everything the Rust side starts from (parameters, gradients of the optimiser trajectories) is rounded to f32 first, so
that both sides start from the same numbers; the expected values are computed in float64 and stored as f32.
Rows are packed: ids [n], segment bounds [s + 1]; a row sees its own segment, and nothing right of it when causal.
"""
import json, math, pathlib, sys
import numpy as np, torch
from safetensors.numpy import save_file

torch.set_default_dtype(torch.float64)
LTG = dict(kind="ltg-bert", layers=3, hidden=48, heads=3, intermediate=40, vocab_size=50, norm_eps=1e-7, tied=True)
LLAMA = dict(kind="llama", layers=3, hidden=48, heads=3, intermediate=40, vocab_size=50, norm_eps=1e-6, tied=False)

# ---------------------------------------------------------------------------------------------------- equations

def layer_norm(x, eps, name=None, p=None):
    mean = x.mean(-1, keepdim=True)
    y = (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + eps)
    return y if name is None else y * p[name + ".weight"] + p[name + ".bias"]

def rms_norm(x, eps, gamma):
    return gamma * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)

def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))

def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

def relative_row(r):
    """Row 0..62 of the relative table: exact up to |r| = 16, then logarithmic, constant from |r| = 511 on.

    The logarithmic part is ceil(15 ln(a/16) / ln(511/16)) + 16; the ceiling is the smallest k with
    (511/16)^k >= (a/16)^15, decided here in whole numbers, because a float is fragile at a = 511."""
    a = min(abs(r), 511)
    if a > 16:
        a = 16 + next(k for k in range(1, 16) if 511**k * 16**15 >= a**15 * 16**k)
    return 31 + (a if r >= 0 else -a)

class Rows:
    """Which row sees which: segment and position of every row, and the [n, n] matrix of visible keys."""
    def __init__(self, bounds, causal):
        lengths = np.diff(bounds)
        self.n = int(bounds[-1])
        self.position = torch.tensor(np.concatenate([np.arange(k) for k in lengths]))
        segment = torch.tensor(np.repeat(np.arange(len(lengths)), lengths))
        self.visible = segment[:, None] == segment[None, :]
        if causal:
            self.visible &= self.position[:, None] >= self.position[None, :]

def attend(scores, v, rows):
    """scores [H, n, n], v [n, H, h] -> [n, d]."""
    weights = scores.masked_fill(~rows.visible, -math.inf).softmax(-1)
    return torch.einsum("kij,jkc->ikc", weights, v).reshape(rows.n, -1)

def ltg_bert(p, ids, rows, c):
    eps, d, heads = c["norm_eps"], c["hidden"], c["heads"]
    split = lambda z: z.reshape(len(z), heads, d // heads)
    e = p["embedding.word_embedding.weight"]
    x = layer_norm(e[ids], eps)
    table = layer_norm(p["embedding.relative_embedding"], eps, "embedding.relative_layer_norm", p)
    i_minus_j = rows.position[:, None] - rows.position[None, :]  # across segments meaningless, and masked
    low = int(i_minus_j.min())
    lookup = torch.tensor([relative_row(r) for r in range(low, int(i_minus_j.max()) + 1)])
    where = lookup[i_minus_j - low]  # [n, n]
    for layer in range(c["layers"]):
        a, m = f"transformer.layers.{layer}.attention.", f"transformer.layers.{layer}.mlp.mlp."
        w, b = p[a + "in_proj_qk.weight"], p[a + "in_proj_qk.bias"]
        y = layer_norm(x, eps)
        q, k = (split(z) for z in (y @ w.T + b).split(d, -1))
        qp, kp = (split(z) for z in (table @ w.T + b).split(d, -1))  # [63, H, h]
        v = split(y @ p[a + "in_proj_v.weight"].T + p[a + "in_proj_v.bias"])
        content = torch.einsum("ikc,jkc->kij", q, k)
        by_query = torch.einsum("ikc,rkc->kir", q, kp)  # [H, n, 63]
        by_key = torch.einsum("jkc,rkc->kjr", k, qp)
        every = where[None].expand(heads, -1, -1)
        scores = content + by_query.gather(2, every) + by_key.gather(2, every.transpose(1, 2)).transpose(1, 2)
        o = attend(scores / math.sqrt(3 * d // heads), v, rows)
        o = o @ p[a + "out_proj.weight"].T + p[a + "out_proj.bias"]
        x = x + layer_norm(o, eps, a + "post_layer_norm", p)
        up, gate = (layer_norm(x, eps) @ p[m + "1.weight"].T).split(c["intermediate"], -1)
        x = x + layer_norm(up * gelu_tanh(gate), eps) @ p[m + "4.weight"].T
    h = "classifier.nonlinearity."
    x = layer_norm(gelu(layer_norm(x, eps) @ p[h + "1.weight"].T + p[h + "1.bias"]), eps)
    return x @ e.T + p[h + "5.bias"]

def llama(p, ids, rows, c):
    eps, d, heads = c["norm_eps"], c["hidden"], c["heads"]
    width = d // heads
    angle = rows.position[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)  # [n, h/2]
    cos, sin = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    split = lambda z: z.reshape(len(z), heads, width)
    def turn(z):
        a, b = z.split(width // 2, -1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
    x = p["model.embed_tokens.weight"][ids]
    for layer in range(c["layers"]):
        n = f"model.layers.{layer}."
        y = rms_norm(x, eps, p[n + "input_layernorm.weight"])
        q, k, v = (split(y @ p[n + f"self_attn.{z}_proj.weight"].T) for z in "qkv")
        scores = torch.einsum("ikc,jkc->kij", turn(q), turn(k)) / math.sqrt(width)
        x = x + attend(scores, v, rows) @ p[n + "self_attn.o_proj.weight"].T
        y = rms_norm(x, eps, p[n + "post_attention_layernorm.weight"])
        gate, up = y @ p[n + "mlp.gate_proj.weight"].T, y @ p[n + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + torch.exp(-gate)) * up) @ p[n + "mlp.down_proj.weight"].T
    x = rms_norm(x, eps, p["model.norm.weight"])
    return x @ p["model.embed_tokens.weight" if c["tied"] else "lm_head.weight"].T

# ------------------------------------------------------------------------------------------------------- models

def f32(x):
    """The f32 nearest to each value, as float64."""
    return torch.as_tensor(np.asarray(x, dtype=np.float32).astype(np.float64))

def parameters(c, rng):
    """Every parameter random (the default start, with norms 1 and biases 0, would hide mistakes)."""
    d, i, v = c["hidden"], c["intermediate"], c["vocab_size"]
    matrix = lambda rows, cols, scale=1.0: f32(rng.normal(0, scale / math.sqrt(cols), (rows, cols)))
    bias = lambda n: f32(rng.normal(0, 0.3, n))
    norm = lambda n: f32(rng.uniform(0.5, 1.5, n))
    p = {}
    if c["kind"] == "ltg-bert":
        p["embedding.word_embedding.weight"] = matrix(v, d, 2.5)
        p["embedding.relative_embedding"] = matrix(63, d, 2.0)
        p["embedding.relative_layer_norm.weight"], p["embedding.relative_layer_norm.bias"] = norm(d), bias(d)
        for layer in range(c["layers"]):
            a, m = f"transformer.layers.{layer}.attention.", f"transformer.layers.{layer}.mlp.mlp."
            p[a + "in_proj_qk.weight"], p[a + "in_proj_qk.bias"] = matrix(2 * d, d, 1.2), bias(2 * d)
            p[a + "in_proj_v.weight"], p[a + "in_proj_v.bias"] = matrix(d, d), bias(d)
            p[a + "out_proj.weight"], p[a + "out_proj.bias"] = matrix(d, d), bias(d)
            p[a + "post_layer_norm.weight"], p[a + "post_layer_norm.bias"] = norm(d), bias(d)
            p[m + "1.weight"], p[m + "4.weight"] = matrix(2 * i, d), matrix(d, i)
        h = "classifier.nonlinearity."
        p[h + "1.weight"], p[h + "1.bias"], p[h + "5.bias"] = matrix(d, d), bias(d), bias(v)
    else:
        p["model.embed_tokens.weight"] = matrix(v, d, 2.0 if c["tied"] else 6.0)
        for layer in range(c["layers"]):
            n = f"model.layers.{layer}."
            for z in "qkvo":
                p[n + f"self_attn.{z}_proj.weight"] = matrix(d, d, 1.2)
            p[n + "mlp.gate_proj.weight"], p[n + "mlp.up_proj.weight"] = matrix(i, d), matrix(i, d)
            p[n + "mlp.down_proj.weight"] = matrix(d, i)
            p[n + "input_layernorm.weight"], p[n + "post_attention_layernorm.weight"] = norm(d), norm(d)
        p["model.norm.weight"] = norm(d)
        if not c["tied"]:
            p["lm_head.weight"] = matrix(v, d, 2.0)
    return p

def decayed(name, shape):
    """Which tensors get weight decay: matrices, but not LTG-BERT's two embeddings (its published optimiser groups)."""
    return len(shape) == 2 and not name.startswith("embedding.")

CASES = {  # name: (segment lengths, causal, share of rows with a target)
    "t40.causal": ([40], True, 1.0), "t40.bidirectional": ([40], False, 0.4),
    "t450.causal": ([450], True, 0.09), "t450.bidirectional": ([450], False, 0.09),
    "packed.causal": ([1, 2, 17, 20, 33, 5, 1], True, 0.8), "packed.bidirectional": ([1, 2, 17, 20, 33, 5, 1], False, 0.3),
}

def draw_case(lengths, share, vocab, rng):
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    n = int(bounds[-1])
    rows = np.sort(rng.permutation(n)[: max(1, round(share * n))])
    ids, targets = rng.integers(0, vocab, n), rng.integers(0, vocab, len(rows))
    return ids, bounds, rows, targets

def loss_and_gradients(c, p, ids, bounds, rows, targets, causal):
    """Logits at the rows [m, V], the mean cross-entropy over them, and its gradient by every parameter."""
    forward = ltg_bert if c["kind"] == "ltg-bert" else llama
    leaves = {name: value.clone().requires_grad_() for name, value in p.items()}
    logits = forward(leaves, torch.as_tensor(ids), Rows(bounds, causal), c)[torch.as_tensor(rows)]
    picked = logits[torch.arange(len(rows)), torch.as_tensor(targets)]
    loss = (torch.logsumexp(logits, -1) - picked).mean()
    grads = torch.autograd.grad(loss, list(leaves.values()))
    return logits.detach(), loss.detach(), dict(zip(leaves, grads))

def model_file(path, c, cases, step, rng):
    p = parameters(c, rng)
    out = {f"param.{name}": value for name, value in p.items()}
    for name in cases:
        lengths, causal, share = CASES[name]
        ids, bounds, rows, targets = draw_case(lengths, share, c["vocab_size"], rng)
        logits, loss, grads = loss_and_gradients(c, p, ids, bounds, rows, targets, causal)
        print(f"{path.name} {name}: {len(rows)} targets, loss {loss:.4f}, largest |logit| {logits.abs().max():.2f}")
        out |= {f"{name}.ids": ids, f"{name}.bounds": bounds, f"{name}.rows": rows, f"{name}.targets": targets,
                f"{name}.causal": np.array([int(causal)]), f"{name}.logits": logits, f"{name}.loss": loss[None]}
        out |= {f"{name}.grad.{k}": v for k, v in grads.items()}
        if name == step["case"]:
            out |= {f"step.param.{k}": v for k, v in whole_step(p, grads, step).items()}
    save(path, out, config=c, step=step | dict(decayed=[k for k in sorted(p) if decayed(k, p[k].shape)]))

# --------------------------------------------------------------------------------------------------- optimisers

def clip(grads, most):
    norm = math.sqrt(sum(float((g * g).sum()) for g in grads.values()))
    factor = min(1.0, most / (norm + 1e-6))
    return {k: g * factor for k, g in grads.items()}, norm

def lamb(w, g, m, v, t, lr, decay, beta1, beta2, eps):
    """One LAMB update; returns the new w, m, v. Tensors without decay get plain Adam (trust ratio 1)."""
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    u = (m / (1 - beta1**t)) / (torch.sqrt(v / (1 - beta2**t)) + eps)
    ratio = 1.0
    if decay > 0:
        u = u + decay * w
        if float(w.norm()) > 0 and float(u.norm()) > 0:
            ratio = float(w.norm() / u.norm())
    return w - lr * ratio * u, m, v

def adamw(w, g, m, v, t, lr, decay, beta1, beta2, eps):
    """One step of torch.optim.AdamW on a tensor whose moments after t - 1 steps are m and v."""
    leaf = torch.nn.Parameter(w.clone())
    optimizer = torch.optim.AdamW([leaf], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    optimizer.state[leaf] = dict(step=torch.tensor(float(t - 1)), exp_avg=m.clone(), exp_avg_sq=v.clone())
    leaf.grad = g.clone()
    optimizer.step()
    state = optimizer.state[leaf]
    return leaf.detach(), state["exp_avg"], state["exp_avg_sq"]

UPDATES = dict(lamb=lamb, adamw=adamw)

def whole_step(p, grads, step):
    """One optimiser step of a model. The moments start as constants, not as zeros: at t = 1 from zeros Adam's update
    is g / (|g| + eps), nearly the sign of g, and a rounding error in a gradient near 0 would flip it."""
    grads, norm = clip(grads, step["clip"])
    assert norm > step["clip"], norm
    new = {}
    for name, w in p.items():
        m, v = torch.full_like(w, step["m"]), torch.full_like(w, step["v"])
        decay = step["weight_decay"] if decayed(name, w.shape) else 0.0
        new[name], _, _ = UPDATES[step["optimizer"]](
            w, grads[name], m, v, step["t"], step["lr"], decay, step["beta1"], step["beta2"], step["eps"])
    return new

TENSORS = {"decayed": (7, 5), "plain": (13,), "zero": (4, 3), "dead": (6, 2), "long": (70, 11)}  # "plain" alone has no decay
LR = [0.0, 0.004, 0.01, 0.007, 0.003]  # the first update of a warm-up has lr 0: the moments move, the weights do not

def trajectories(path, rng):
    """Five steps each. `zero` starts at 0 (trust ratio 1 at first); `dead` is 0 and gets no gradient at all."""
    start = {k: f32(rng.normal(0, 0.5, s) * (k not in ("zero", "dead"))) for k, s in TENSORS.items()}
    grads = [{k: f32(rng.normal(0, 0.2 * scale, s) * (k != "dead")) for k, s in TENSORS.items()}
             for scale in (1.0, 0.2, 3.0, 0.1, 1.0)]
    settings = dict(lamb=dict(beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.1),
                    adamw=dict(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.1))
    out = {f"start.{k}": w for k, w in start.items()}
    out |= {"lr": np.array(LR), "norms": np.zeros(len(LR))}
    for kind, s in settings.items():
        state = {k: (w, torch.zeros_like(w), torch.zeros_like(w)) for k, w in start.items()}
        for t, (lr, raw) in enumerate(zip(LR, grads), 1):
            g, out["norms"][t - 1] = clip(raw, 2.0)
            for k, (w, m, v) in state.items():
                decay = 0.0 if k == "plain" else s["weight_decay"]
                state[k] = UPDATES[kind](w, g[k], m, v, t, lr, decay, s["beta1"], s["beta2"], s["eps"])
                out |= {f"grad.{t}.{k}": raw[k], f"{kind}.{t}.{k}": state[k][0]}
    clipped = (out["norms"] > 2.0).tolist()
    assert True in clipped and False in clipped, clipped
    save(path, out, clip=2.0, decayed=[k for k in TENSORS if k != "plain"], **settings)

# -------------------------------------------------------------------------------------------------------- files

FLOAT64 = {"lr", "norms"}

def save(path, tensors, **metadata):
    """Floats as f32 (but FLOAT64), whole numbers as u32 (the bucket table's r as i32)."""
    def kind(name, a):
        if a.dtype == np.float64:
            return np.float64 if name in FLOAT64 else np.float32
        return np.int32 if a.min() < 0 else np.uint32
    arrays = {k: np.asarray(v) for k, v in tensors.items()}
    arrays = {k: np.ascontiguousarray(a.astype(kind(k, a))) for k, a in arrays.items()}
    save_file(arrays, path, {"json": json.dumps(metadata, sort_keys=True)})
    path.chmod(0o644)

def main(folder):
    every = list(CASES)
    lamb_step = dict(case="packed.bidirectional", optimizer="lamb", lr=0.01, beta1=0.9, beta2=0.98, eps=1e-6,
                     weight_decay=0.1, clip=2.0, t=3, m=0.0, v=1e-4)
    adamw_step = dict(case="packed.causal", optimizer="adamw", lr=7e-4, beta1=0.9, beta2=0.999, eps=1e-8,
                      weight_decay=0.1, clip=1.0, t=3, m=0.0, v=1e-5)
    model_file(folder / "ltg-bert.safetensors", LTG, every, lamb_step, np.random.default_rng(1))
    model_file(folder / "llama.safetensors", LLAMA, every, adamw_step, np.random.default_rng(2))
    model_file(folder / "llama-tied.safetensors", LLAMA | dict(tied=True), ["packed.causal", "packed.bidirectional"],
               adamw_step, np.random.default_rng(3))
    trajectories(folder / "optim.safetensors", np.random.default_rng(4))
    r = np.arange(-700, 701)
    save(folder / "relative.safetensors", {"r": r, "row": np.array([relative_row(int(x)) for x in r])})

if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent))
