"""PyTorch peer of pair scoring: the fastest way that a careful PyTorch user would write. Written for this project.

usage: torch_score.py MODEL BACKEND SENTENCES.json [--rows 4096] [--compile] [--threads N] [--vocab V]
  MODEL      as torch_peer.py; random weights, which change nothing in the time
  BACKEND    causal | mlm | mntp
  SENTENCES  [[id, ...], ...]: tokens of each sentence behind the opening mark
Reads a line from stdin for each repetition, scores all sentences, and prints a JSON line with the seconds, so that another
program can take turns with it.

Sentences of equal length go together, so that there is no padding; about ROWS tokens make a pass; the output layer is
computed where a token is asked for only; masked copies that are the same are computed once; inference mode.
"""
import argparse, json, sys, time
import torch
import torch.nn.functional as F

from torch_peer import SIZES, Llama, Ltg

MASK = 4


def passes(sentences, backend, rows):
    """Tensors of every pass: ids [B, T], the flat rows that are read [m], what is wanted there [m]."""
    copies = {}
    for ids in sentences:
        if backend == "causal":
            # The last token is only asked for.
            copies.setdefault(len(ids) - 1, []).append((ids[:-1], [(k - 1, ids[k]) for k in range(1, len(ids))]))
            continue
        for k in range(1, len(ids)):
            masked = ids[:k] + [MASK] + ids[k + 1:]
            copies.setdefault(len(ids), []).append((masked, [(k - (backend == "mntp"), ids[k])]))
    found = []
    for length in sorted(copies):
        unique = {}
        for ids, asked in copies[length]:
            unique.setdefault(tuple(ids), []).extend(asked)
        unique = list(unique.items())
        step = max(1, rows // length)
        for start in range(0, len(unique), step):
            some = unique[start:start + step]
            keep = [b * length + row for b, (_, asked) in enumerate(some) for row, _ in asked]
            wanted = [token for _, asked in some for _, token in asked]
            found.append((torch.tensor([ids for ids, _ in some]), torch.tensor(keep), torch.tensor(wanted)))
    return found


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model"); ap.add_argument("backend", choices=["causal", "mlm", "mntp"]); ap.add_argument("sentences")
    for name, value in dict(rows=4096, threads=0, vocab=0).items():
        ap.add_argument("--" + name, type=int, default=value)
    ap.add_argument("--compile", action="store_true")
    a = ap.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    size = dict(SIZES[a.model])
    size["V"] = a.vocab or size["V"]
    net = (Ltg if size["kind"] == "ltg" else Llama)(p=0.0, **size).eval()
    if a.compile:
        net.rows = torch.compile(net.rows, dynamic=True)
    sentences = json.load(open(a.sentences))
    causal = a.backend == "causal"

    @torch.inference_mode()
    def score():
        total = 0.0
        for ids, keep, wanted in passes(sentences, a.backend, a.rows):
            T = ids.shape[1]
            blocked = torch.ones(T, T, dtype=torch.bool).triu(1)[None, None] if causal else torch.zeros(1, 1, T, T, dtype=torch.bool)
            net.prepare(T, "cpu")
            total += F.cross_entropy(net.logits(net.rows(ids, blocked, causal, keep)), wanted, reduction="sum").item()
        return total

    for _ in sys.stdin:
        t = time.perf_counter()
        total = score()
        print(json.dumps(dict(peer="torch " + torch.__version__, seconds=time.perf_counter() - t, nll=total)), flush=True)


if __name__ == "__main__":
    main()
