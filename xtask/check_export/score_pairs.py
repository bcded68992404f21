"""Scores minimal pairs with an export through transformers alone, as the BabyLM 2026 protocol does.

    python score_pairs.py EXPORT PAIRS.jsonl OUT.json causal,mntp

A pair is a line with `sentence_good` and `sentence_bad`. The tokenizer's own defaults are used; the score is the sum of
log-probabilities over the tokens whose characters end behind the start of the sentence, so no special token counts.
causal: token k from output k - 1. mlm: token k masked, read at output k. mntp: token k masked, read at output k - 1.
OUT.json: {"causal": [[good, bad], …], …}
"""

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

torch.set_num_threads(1)  # a sentence at a time is too little for several
ROWS = 64
EXPORT, PAIRS, OUT, BACKENDS = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(",")


def scored(tokenizer, sentence):
    """The ids, and the places that count."""
    encoding = tokenizer(sentence, return_offsets_mapping=True)
    places = [k for k, (_, end) in enumerate(encoding["offset_mapping"]) if end > 0]
    return encoding["input_ids"], places


def causal(model, tokenizer, sentence):
    ids, places = scored(tokenizer, sentence)
    logits = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(logits[k - 1, ids[k]].item() for k in places if k > 0)


def masked(model, tokenizer, sentence, shift):
    ids, places = scored(tokenizer, sentence)
    total = 0.0
    for start in range(0, len(places), ROWS):
        some = places[start:start + ROWS]
        rows = torch.tensor([ids] * len(some))
        for row, k in enumerate(some):
            rows[row, k] = tokenizer.mask_token_id
        logits = model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits
        total += sum(logits[row, k - shift].double().log_softmax(-1)[ids[k]].item() for row, k in enumerate(some))
    return total


def main():
    tokenizer = AutoTokenizer.from_pretrained(EXPORT, trust_remote_code=True)
    pairs = [json.loads(line) for line in open(PAIRS, encoding="utf-8")]
    result = {}
    for backend in BACKENDS:
        auto = AutoModelForCausalLM if backend == "causal" else AutoModelForMaskedLM
        model = auto.from_pretrained(EXPORT, trust_remote_code=True).eval()
        if backend == "causal":
            score = lambda text: causal(model, tokenizer, text)
        else:
            shift = 1 if backend == "mntp" else 0
            score = lambda text: masked(model, tokenizer, text, shift)
        with torch.no_grad():
            result[backend] = [[score(pair["sentence_good"]), score(pair["sentence_bad"])] for pair in pairs]
    with open(OUT, "w", encoding="utf-8") as file:
        json.dump(result, file)


main()
