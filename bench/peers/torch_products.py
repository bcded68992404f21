"""How fast PyTorch makes the products of a step: the other half of the floor that `cargo xtask bench` prints.

usage: torch_products.py [--threads N] < shapes.json
  shapes.json: a list of [rows, cols, inner, left transposed, right transposed, on all threads, in bf16]
prints a JSON list: seconds of each product, the fastest of several; those on one thread as one thread needs.
"""
import argparse, json, sys, time
import torch


def seconds(rows, cols, inner, left, right, bf16):
    a = torch.randn(inner, rows).t() if left else torch.randn(rows, inner)
    b = torch.randn(cols, inner).t() if right else torch.randn(inner, cols)
    c = torch.empty(rows, cols)
    if bf16:
        # Operands and result as autocast has them: rounding the operands is not counted.
        a, b, c = a.bfloat16(), b.bfloat16(), c.bfloat16()
    times, end = [], time.perf_counter() + 0.02
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b, out=c)
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    threads = parser.parse_args().threads
    found = []
    for rows, cols, inner, left, right, spread, bf16 in json.load(sys.stdin):
        torch.set_num_threads(threads if spread else 1)
        found.append(seconds(rows, cols, inner, left, right, bf16))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
