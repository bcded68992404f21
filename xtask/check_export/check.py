"""Loads one export with every Auto class of transformers and compares it with what antlm computed.

    python check.py EXPORT EXPECTED.json SCRATCH

EXPECTED.json is written by `cargo xtask check-export`: texts, ids, logits, losses, odd strings with ids and offsets.
Prints what was checked, and ends with 1 and a line for each check that failed.
"""

import contextlib
import io
import json
import logging
import os
import shutil
import sys
import warnings

SCRATCH = sys.argv[3]
os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=os.path.join(SCRATCH, "hf"), HF_MODULES_CACHE=os.path.join(SCRATCH, "modules"),
                  TOKENIZERS_PARALLELISM="false")

import torch
import transformers
from safetensors.torch import load_file
from transformers import (AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM,
                          AutoModelForSequenceClassification, AutoProcessor, AutoTokenizer, pipeline)

torch.set_num_threads(1)  # the models are tiny
TOLERANCE = 1e-4
EXPORT, EXPECTED = sys.argv[1], json.load(open(sys.argv[2], encoding="utf-8"))
MAJOR = int(transformers.__version__.split(".")[0])
LTG = EXPECTED["family"] == "ltg-bert"
failures = []


class Records(logging.Handler):
    """Every warning of transformers."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


records = Records()
transformers.logging.set_verbosity_warning()
transformers.logging.disable_progress_bar()
# What is said is looked at, and shown where it is not expected.
transformers.logging.disable_default_handler()
logging.getLogger("transformers").addHandler(records)
logging.captureWarnings(True)
logging.getLogger("py.warnings").addHandler(records)
warnings.simplefilter("default")


def check(name, fine, detail=""):
    if not fine:
        failures.append(f"{name}: {detail}")
        print(f"  FAILED {name}: {detail}")


def close(name, found, wanted, tolerance=TOLERANCE):
    off = (found.double() - wanted.double()).abs().max().item() if found.shape == wanted.shape else float("inf")
    check(name, off <= tolerance, f"differs by {off}, shapes {list(found.shape)} and {list(wanted.shape)}")
    return off


def load(auto, path=EXPORT, **more):
    """A model in evaluation mode, what transformers says of its tensors, and its warnings."""
    records.texts.clear()
    model, info = auto.from_pretrained(path, trust_remote_code=True, output_loading_info=True, **more)
    return model.eval(), info, list(records.texts)


def pad(rows, value, side):
    """Rows of ids in one tensor, and their attention mask."""
    most = max(map(len, rows))
    fill = [[value] * (most - len(row)) for row in rows]
    left = side == "left"
    ids = torch.tensor([f + r if left else r + f for r, f in zip(rows, fill)])
    mask = torch.tensor([[0] * len(f) + [1] * len(r) if left else [1] * len(r) + [0] * len(f) for r, f in zip(rows, fill)])
    return ids, mask


def compare_logits(name, model, wanted):
    """One by one, padded right, padded left; and several texts in one row by a mask of three dimensions."""
    worst = 0.0
    with torch.no_grad():
        for number, (row, want) in enumerate(zip(EXPECTED["ids"], wanted)):
            found = model(input_ids=torch.tensor([row])).logits[0]
            worst = max(worst, close(f"{name}, text {number}", found, torch.tensor(want)))
        for side in ("right", "left"):
            ids, mask = pad(EXPECTED["ids"], 3, side)
            logits = model(input_ids=ids, attention_mask=mask).logits
            for number, want in enumerate(wanted):
                found = logits[number][mask[number].bool()]
                worst = max(worst, close(f"{name}, padded {side}, text {number}", found, torch.tensor(want)))
    return worst


def compare_packed(name, model, wanted, causal):
    """All texts in one row; a mask [1, T, T] keeps them apart."""
    bounds, row = [], []
    for ids in EXPECTED["ids"]:
        bounds.append((len(row), len(row) + len(ids)))
        row += ids
    mask = torch.zeros(1, len(row), len(row), dtype=torch.long)
    for start, end in bounds:
        mask[0, start:end, start:end] = 1
    if causal:
        mask = mask.tril()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row]), attention_mask=mask).logits[0]
    for number, ((start, end), want) in enumerate(zip(bounds, wanted)):
        close(f"{name}, packed, text {number}", logits[start:end], torch.tensor(want))


def square(mask, causal):
    """The mask [B, T, T] that means the same as this one, [B, T]: tokens see tokens, padding sees nothing."""
    pairs = mask[:, :, None] * mask[:, None, :]
    return pairs.tril() if causal else pairs


def compare_paddings(name, outputs, causal, whole, wanted):
    """Outputs of the same texts padded right and left, by masks of two and three dimensions.

    `wanted` is what they are padded left with a mask of two; `whole` if there is one for each token.
    """
    _, left = pad(EXPECTED["ids"], 3, "left")
    for side in ("right", "left"):
        ids, mask = pad(EXPECTED["ids"], 3, side)
        for attention in (mask, square(mask, causal)):
            with torch.no_grad():
                found = outputs(input_ids=ids, attention_mask=attention)
            one, two = (found[mask.bool()], wanted[left.bool()]) if whole else (found, wanted)
            close(f"{name}, padded {side}, mask of {attention.dim()} dimensions", one, two, 1e-5)


def check_loading(auto, new_tensors=()):
    """Twice: the same values as in the file both times, and nothing that is not there."""
    name = auto.__name__
    file = load_file(os.path.join(EXPORT, "model.safetensors"))
    for turn in (1, 2):
        model, info, texts = load(auto)
        missing = {key for key in info["missing_keys"] if not any(key.startswith(new) for new in new_tensors)}
        check(f"{name}, load {turn}, missing tensors", not missing, missing)
        check(f"{name}, load {turn}, unused tensors", not info["unexpected_keys"], info["unexpected_keys"])
        check(f"{name}, load {turn}, other shapes", not info["mismatched_keys"], info["mismatched_keys"])
        bad = [text for text in texts if any(words in text for words in (
            "newly initialized", "not used", "not initialized", "MISSING", "UNEXPECTED", "MISMATCH"))]
        if new_tensors:
            # The head is new, and transformers says so (which shows that we hear it); it must say so of nothing else.
            check(f"{name}, load {turn}, the head is called new", any(new in text for text in bad for new in new_tensors))
            bad = [text for text in bad if any(key in text for key in file)]
        check(f"{name}, load {turn}, warnings of new or unused tensors", not bad, bad)
        if turn == 1 and texts and not new_tensors:
            print(f"  {name} also says: {texts}")
        own = model.state_dict()
        same = {key: value for key, value in own.items() if key in file}
        prefix = getattr(model, "base_model_prefix", "")
        same.update({f"{prefix}.{key}": value for key, value in own.items() if f"{prefix}.{key}" in file})
        check(f"{name}, load {turn}, tensors of the file that are in the model", len(same) >= EXPECTED["stack_tensors"],
              f"{len(same)} of {EXPECTED['stack_tensors']}")
        for key, value in same.items():
            check(f"{name}, load {turn}, {key}", torch.equal(value, file[key]), "other values than in the file")
    return model


def check_tied(name, model):
    if EXPECTED["tied"]:
        one, two = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        check(f"{name}, tied", one.data_ptr() == two.data_ptr(), "two matrices")


def save_and_reload(name, auto, model, inputs):
    """save_pretrained and from_pretrained keep the outputs."""
    folder = os.path.join(SCRATCH, "again", name)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    again, info, texts = load(auto, folder)
    check(f"{name}, reloaded", not info["missing_keys"] and not info["unexpected_keys"], (info, texts))
    with torch.no_grad():
        close(f"{name}, reloaded", again(**inputs)[0], model(**inputs)[0], 1e-6)
    check_tied(f"{name}, reloaded", again) if name in ("AutoModelForCausalLM", "AutoModelForMaskedLM") else None


def check_other_classes(models, inputs):
    """What one language model's save_pretrained wrote loads by the other classes, too, with their outputs."""
    code = "modeling_antlm_ltg_bert.py" if LTG else "modeling_antlm_llama.py"
    for saved in ("AutoModelForCausalLM", "AutoModelForMaskedLM"):
        folder = os.path.join(SCRATCH, "again", saved)
        if not LTG and saved == "AutoModelForCausalLM":
            # docs/export.md says that transformers' own Llama leaves this file behind, and what to do.
            check("a saved native Llama, remote code", not os.path.exists(os.path.join(folder, code)),
                  "is copied now: docs/export.md is out of date")
            shutil.copy(os.path.join(EXPORT, code), folder)
        check(f"{saved}, saved, remote code", os.path.exists(os.path.join(folder, code)), os.listdir(folder))
        for auto, model in models:
            again, info, _ = load(auto, folder)
            name = f"{auto.__name__} of what {saved} saved"
            check(name, not info["missing_keys"] and not info["unexpected_keys"], info)
            with torch.no_grad():
                close(name, again(**inputs)[0], model(**inputs)[0], 1e-6)


def check_gradients(name, model, **inputs):
    """Also where a row of padding sees nothing."""
    model.zero_grad()
    output = model(**inputs)
    (output.loss if "labels" in inputs else output[0].sum()).backward()
    fine = all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    check(f"{name}, gradients", fine and any(p.grad is not None for p in model.parameters()), "not finite")
    model.zero_grad()


def check_generation(model, tokenizer):
    """Greedy generation from a batch padded on the left equals step by step by hand, without any cache."""
    prompts = [row[: max(2, len(row) // 2)] for row in EXPECTED["ids"]]
    ids, mask = pad(prompts, tokenizer.pad_token_id, "left")
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, min_new_tokens=8, do_sample=False)
        for number, prompt in enumerate(prompts):
            row = list(prompt)
            for _ in range(8):
                logits = model(input_ids=torch.tensor([row])).logits[0, -1]
                logits[tokenizer.eos_token_id] = -float("inf")
                row.append(int(logits.argmax()))
            check(f"generate, prompt {number}", out[number, ids.shape[1]:].tolist() == row[len(prompt):],
                  f"{out[number].tolist()} and {row}")
        sampled = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=True, top_k=5)
        check("generate, sampled", sampled.shape[0] == len(prompts))


def check_tokenizer(tokenizer):
    names = EXPECTED["special_tokens"]
    check("tokenizer is fast", tokenizer.is_fast)
    for role, want in (("unk", 0), ("bos", 1), ("cls", 1), ("eos", 2), ("sep", 2), ("pad", 3), ("mask", 4)):
        found = (getattr(tokenizer, f"{role}_token"), getattr(tokenizer, f"{role}_token_id"))
        check(f"tokenizer, {role}", found == (names[want], want), found)
    check("tokenizer, size", len(tokenizer) == EXPECTED["vocab_size"], len(tokenizer))
    check("tokenizer, padding side", tokenizer.padding_side == "right", tokenizer.padding_side)
    wrong = plain = 0
    for string in EXPECTED["strings"]:
        text, want_ids, want_offsets = string["text"], string["ids"], [tuple(o) for o in string["offsets"]]
        # What looks like a special token stays text for antlm, and becomes one for transformers unless it is told.
        ways = [{"split_special_tokens": True}] + ([{}] if not any(name in text for name in names) else [])
        plain += len(ways) - 1
        for way in ways:
            got = tokenizer(text, return_offsets_mapping=True, **way)
            offsets = [tuple(o) for o in got["offset_mapping"]]
            if got["input_ids"] != [1] + want_ids or offsets != [(0, 0)] + want_offsets:
                wrong += 1
                if wrong <= 3:
                    check("tokenizer", False, f"{text[:60]!r} {way}: {got['input_ids'][:20]} {offsets[:20]}, "
                                              f"want {want_ids[:20]} {want_offsets[:20]}")
        if tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] != want_ids:
            check("tokenizer without marks", False, repr(text[:60]))
    check("tokenizer, all strings", wrong == 0, f"{wrong} differ")
    a, b = EXPECTED["strings"][0]["ids"], EXPECTED["strings"][1]["ids"]
    pair = tokenizer(EXPECTED["strings"][0]["text"], EXPECTED["strings"][1]["text"])["input_ids"]
    check("tokenizer, pair", pair == [1] + a + [1] + b, pair)
    check("tokenizer, inputs", set(tokenizer("a").keys()) == {"input_ids", "attention_mask"}, list(tokenizer("a").keys()))
    return len(EXPECTED["strings"]), plain


def check_pipelines(tokenizer, causal, masked, base):
    """The pipelines of transformers find model and tokenizer by the folder's name alone, and give what these give."""
    ids = tokenizer("The old dogs", return_tensors="pt")
    with torch.no_grad():
        wanted = causal.generate(**ids, max_new_tokens=6, min_new_tokens=6, do_sample=False)[0].tolist()
    run = pipeline("text-generation", model=EXPORT, trust_remote_code=True)
    found = run("The old dogs", max_new_tokens=6, min_new_tokens=6, do_sample=False, return_tensors=True)
    found = found[0]["generated_token_ids"]
    check("text-generation pipeline", list(found) == wanted, f"{found} and {wanted}")

    text = f"The {tokenizer.mask_token} sleep."
    ids = tokenizer(text, return_tensors="pt")
    place = ids.input_ids[0].tolist().index(tokenizer.mask_token_id)
    with torch.no_grad():
        wanted = masked(**ids).logits[0, place].softmax(-1).topk(5)  # it reads output k in any case
    found = pipeline("fill-mask", model=EXPORT, trust_remote_code=True)(text)
    check("fill-mask pipeline", [one["token"] for one in found] == wanted.indices.tolist(), found)
    close("fill-mask pipeline, scores", torch.tensor([one["score"] for one in found]), wanted.values, 1e-5)

    with torch.no_grad():
        wanted = base(**tokenizer("The old dogs", return_tensors="pt")).last_hidden_state
    found = pipeline("feature-extraction", model=EXPORT, trust_remote_code=True)("The old dogs")
    close("feature-extraction pipeline", torch.tensor(found), wanted, 1e-5)
    print("  pipelines text-generation, fill-mask, feature-extraction: fine" if not failures else "  with failures")


def check_card():
    """The Python in the model card runs as it stands there."""
    text = open(os.path.join(EXPORT, "README.md"), encoding="utf-8").read()
    code = text.split("```python\n")[1].split("```")[0]
    os.chdir(os.path.dirname(EXPORT))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "README.md", "exec"), {})
    check("README.md", len(said.getvalue().splitlines()) >= 2, said.getvalue())


def main():
    shutil.rmtree(SCRATCH, ignore_errors=True)
    print(f"{os.path.basename(EXPORT)}: transformers {transformers.__version__}, torch {torch.__version__}")
    config = AutoConfig.from_pretrained(EXPORT, trust_remote_code=True)
    check("config.hidden_size", config.hidden_size == EXPECTED["hidden"])
    check("config.antlm_masked_alignment", config.antlm_masked_alignment == EXPECTED["alignment"])

    tokenizer = AutoTokenizer.from_pretrained(EXPORT, trust_remote_code=True)
    strings, plain = check_tokenizer(tokenizer)
    tokenizer.save_pretrained(os.path.join(SCRATCH, "tokenizer"))
    check_tokenizer(AutoTokenizer.from_pretrained(os.path.join(SCRATCH, "tokenizer")))
    processor = AutoProcessor.from_pretrained(EXPORT, trust_remote_code=True)  # what the BabyLM pipelines load
    check("AutoProcessor", processor.is_fast and processor("The dogs")["input_ids"] == tokenizer("The dogs")["input_ids"])
    print(f"  tokenizer: {strings} strings equal in ids and offsets ({plain} of them also with special tokens parsed)")

    ids, mask = pad(EXPECTED["ids"], 3, "left")
    inputs = {"input_ids": ids, "attention_mask": mask}
    # Neither padding nor the opening mark behind it is to be predicted.
    labels = ids.masked_fill((mask == 0) | (ids == tokenizer.bos_token_id), -100)

    causal = check_loading(AutoModelForCausalLM)
    check_tied("AutoModelForCausalLM", causal)
    worst = compare_logits("causal", causal, EXPECTED["causal"])
    if LTG:
        compare_packed("causal", causal, EXPECTED["causal"], True)
    with torch.no_grad():
        loss = causal(**inputs, labels=labels).loss
    close("causal loss", loss, torch.tensor(EXPECTED["causal_loss"]))
    check_gradients("causal", causal, **inputs, labels=labels)
    check_generation(causal, tokenizer)
    save_and_reload("AutoModelForCausalLM", AutoModelForCausalLM, causal, inputs)
    print(f"  AutoModelForCausalLM: logits within {worst:.1e}, loss within {abs(loss.item() - EXPECTED['causal_loss']):.1e}")

    masked = check_loading(AutoModelForMaskedLM)
    check_tied("AutoModelForMaskedLM", masked)
    worst = compare_logits("bidirectional", masked, EXPECTED["bidirectional"])
    compare_packed("bidirectional", masked, EXPECTED["bidirectional"], False)
    for side in ("right", "left"):
        rows, attention = pad(EXPECTED["masked"]["ids"], 3, side)
        targets, _ = pad(EXPECTED["masked"]["labels"], -100, side)
        with torch.no_grad():
            loss = masked(input_ids=rows, attention_mask=attention, labels=targets).loss
        close(f"masked loss, padded {side}", loss, torch.tensor(EXPECTED["masked"]["loss"]))
    check_gradients("masked", masked, input_ids=rows, attention_mask=attention, labels=targets)
    save_and_reload("AutoModelForMaskedLM", AutoModelForMaskedLM, masked, inputs)
    with torch.no_grad():
        close("a tuple", masked(**inputs, return_dict=False)[0], masked(**inputs).logits, 0.0)
    print(f"  AutoModelForMaskedLM: logits within {worst:.1e}, loss within "
          f"{abs(loss.item() - EXPECTED['masked']['loss']):.1e}")

    base = check_loading(AutoModel)
    with torch.no_grad():
        hidden = base(**inputs).last_hidden_state
        check("AutoModel, shape", list(hidden.shape) == [*ids.shape, EXPECTED["hidden"]], list(hidden.shape))
        # Of the language model that reads as it does, the last hidden states are the same (Llama's, behind the last norm).
        like = masked if config.antlm_bidirectional else causal
        states = like(**inputs, output_hidden_states=True).hidden_states
        check("AutoModel, layers", len(states) == EXPECTED["layers"] + 1, len(states))
        close("AutoModel, last hidden state", hidden[mask.bool()], states[-1][mask.bool()], 1e-5)
    from_left = not config.antlm_bidirectional
    compare_paddings("AutoModel", lambda **given: base(**given).last_hidden_state, from_left, True, hidden)
    save_and_reload("AutoModel", AutoModel, base, inputs)
    check_other_classes(((AutoModelForCausalLM, causal), (AutoModelForMaskedLM, masked), (AutoModel, base)), inputs)

    heads = check_loading(AutoModelForSequenceClassification, new_tensors=("head.",))
    other, _, _ = load(AutoModelForSequenceClassification, num_labels=3)
    with torch.no_grad():
        logits = other(**inputs).logits
        check("AutoModelForSequenceClassification, labels", list(logits.shape) == [len(EXPECTED["ids"]), 3], logits.shape)
    compare_paddings("AutoModelForSequenceClassification", lambda **given: other(**given).logits, from_left, False, logits)
    check_gradients("AutoModelForSequenceClassification", other, **inputs, labels=torch.arange(len(ids)) % 3)
    save_and_reload("AutoModelForSequenceClassification", AutoModelForSequenceClassification, other, inputs)
    print("  AutoModel, AutoModelForSequenceClassification: fine" if not failures else "  with failures")

    if not LTG:
        native = AutoModelForCausalLM.from_pretrained(EXPORT).eval()  # no remote code at all
        with torch.no_grad():
            close("native Llama", native(**inputs).logits[mask.bool()], causal(**inputs).logits[mask.bool()], 1e-6)
        if MAJOR >= 5:
            both = AutoConfig.from_pretrained(EXPORT)
            both.is_causal = False
            for name, given in (("config.is_causal = False", {"config": both}), ("is_causal=False", {"is_causal": False})):
                model = AutoModelForCausalLM.from_pretrained(EXPORT, **given).eval()
                worst = compare_logits(name, model, EXPECTED["bidirectional"])
                print(f"  {name}: logits within {worst:.1e}")

    check_pipelines(tokenizer, causal, masked, base)
    check_card()
    for line in failures:
        print(f"FAILED {line}", file=sys.stderr)
    sys.exit(1 if failures else 0)


main()
