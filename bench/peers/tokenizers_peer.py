"""Peer of `antlm prepare`: the same tokenizer trained and the same text encoded by the Python `tokenizers` library, as a
careful user would write it. Written for this project.

usage: tokenizers_peer.py TEXT WORK [--vocab 16384]
  TEXT  plain text, blank lines between documents
  WORK  a folder for what it makes
Reads a line from stdin for each repetition, `train` (learn the tokenizer, save it, encode the text with it) or `encode`
(load the saved one, encode), and prints a JSON line with the seconds and the tokens, so that another program can take
turns with it. Threads: RAYON_NUM_THREADS.

Both read the file and write the tokens as 16-bit numbers. It does less than antlm: no checksums, no dev set, no bounds of
documents. Documents are encoded a thousand at a time, by the variant that keeps no offsets.
"""
import argparse, json, os, sys, time
import numpy
import tokenizers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]


def documents(path):
    with open(path, encoding="utf-8", newline="\n") as file:
        return [text for text in file.read().split("\n\n") if text.strip()]


def train(texts, vocab):
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Replace("\n", " ")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab, min_frequency=2, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    return tokenizer


def encode(tokenizer, texts, path):
    tokens = 0
    with open(path, "wb") as file:
        for start in range(0, len(texts), 1000):
            for encoded in tokenizer.encode_batch_fast(texts[start:start + 1000], add_special_tokens=False):
                ids = numpy.array(encoded.ids, dtype=numpy.uint16)
                tokens += len(ids)
                file.write(ids.tobytes())
    return tokens


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("text"); ap.add_argument("work")
    ap.add_argument("--vocab", type=int, default=16384)
    a = ap.parse_args()
    saved, made = os.path.join(a.work, "peer-tokenizer.json"), os.path.join(a.work, "peer.tokens")
    for line in sys.stdin:
        start = time.perf_counter()
        texts = documents(a.text)
        if line.strip() == "train":
            tokenizer = train(texts, a.vocab)
            tokenizer.save(saved)
        else:
            tokenizer = Tokenizer.from_file(saved)
        tokens = encode(tokenizer, texts, made)
        print(json.dumps(dict(peer="tokenizers " + tokenizers.__version__, seconds=time.perf_counter() - start, tokens=tokens)), flush=True)


if __name__ == "__main__":
    main()
