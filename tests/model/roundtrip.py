"""For engineers, not part of the tests: the program and transformers, hand in hand.

python roundtrip.py path/to/moetune    (needs torch, transformers, tokenizers; prints a line a check and
exits with the number of failures). On every tiny model of fixtures/parity, in float32:

  train      20 steps of one document each: the losses of metrics.jsonl against torch.optim.AdamW
  export     what comes out loads in transformers and gives the logits of `moetune dump`; tensor names,
             shapes, types, shards, index and side files are the base's
  generate   greedy ids from text prompts against generate()
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

PARITY = Path(__file__).parent.parent / "fixtures" / "parity"
STEPS = 20
RATE, DECAY = 1e-3, 0.1
failures = 0


def check(what, ok, figure=""):
    global failures
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {what} {figure}", flush=True)


def run(*arguments):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, arguments))}\n{done.stderr}")
    return done.stdout


def load(folder):
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")


def copy_base(source, folder):
    """The fixture with side files of its own: a tokenizer of one character an id, and others."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    vocab = json.loads((source / "config.json").read_text())["vocab_size"]
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(characters[:vocab])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "LICENSE").write_text("as it was\n")
    return tokenizer, characters[:vocab]


def documents(name):
    """The documents of the fixture's batches with at least one target: (ids, labels before the shift)."""
    reference = load_file(PARITY / name / "reference.safetensors")
    found = []
    for i in range(4):
        ids, position, target = (reference[f"batch{i}.{k}"].tolist()
                                 for k in ("id", "position", "target"))
        first = [n for n, p in enumerate(position) if p == 0] + [len(ids)]
        for a, b in zip(first, first[1:]):
            labels = [-100] + target[a:b - 1]
            if any(label >= 0 for label in labels):
                found.append((ids[a:b], labels))
    return found


def torch_losses(model, docs):
    groups = [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": DECAY},
              {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    losses = []
    for step in range(STEPS):
        ids, labels = docs[step % len(docs)]
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def layout(folder):
    """{tensor: (shard, shape, dtype)} and {side file: bytes}."""
    tensors, side = {}, {}
    for file in sorted(folder.iterdir()):
        if file.suffix != ".safetensors":
            side[file.name] = file.read_bytes()
            continue
        with safe_open(file, "pt") as shard:
            for name in shard.keys():
                part = shard.get_slice(name)
                tensors[name] = (file.name, tuple(part.get_shape()), part.get_dtype())
    return tensors, side


def train_and_export(binary, base, work, name):
    docs = documents(name.split("/")[0])
    data = work / "data.jsonl"
    data.write_text("".join(json.dumps({"input_ids": i, "labels": l}) + "\n" for i, l in docs))
    out = work / "run"
    run(binary, "train", "--model", base, "--data", data, "--out", out, "--dtype", "f32",
        "--batch-sequences", 1, "--no-shuffle", "--max-steps", STEPS, "--lr", RATE, "--schedule",
        "constant", "--warmup-ratio", 0, "--weight-decay", DECAY, "--threads", 2, "--quiet")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    got = [line["loss"] for line in lines if "loss" in line]
    model = load(base)
    want = torch_losses(model, docs)
    worst = max(abs(a - b) / b for a, b in zip(got, want))
    check(f"{name} train", len(got) == STEPS and worst < 1e-4, f"losses within {worst:.1e}")

    result = out / "model"
    tensors, side = layout(base)
    tensors_out, side_out = layout(result)
    check(f"{name} export: tensors", tensors == tensors_out, f"{len(tensors)} of them")
    same = {k for k in side if side_out.get(k) == side[k]}
    check(f"{name} export: side files", same == set(side), f"new: {sorted(set(side_out) - set(side))}")
    after = load(result)
    stored = json.loads((base / "config.json").read_text())
    kind = getattr(torch, stored.get("dtype") or stored["torch_dtype"])
    with torch.no_grad():
        moved = max(float((p - q.to(kind).float()).norm() / q.norm())
                    for p, q in zip(after.parameters(), model.parameters()))
    check(f"{name} export: values", moved < 1e-5 if kind == torch.float32 else moved < 1e-3,
          f"weights within {moved:.1e} of torch's, rounded to {kind}")
    return result, docs


def compare_dump(binary, folder, work, name, docs):
    ids, labels = max(docs, key=lambda d: len(d[0]))
    (work / "batch.json").write_text(json.dumps({"input_ids": [ids], "labels": [labels]}))
    run(binary, "dump", "--model", folder, "--batch", work / "batch.json", "--out",
        work / "dump.safetensors", "--threads", 2, "--quiet")
    dump = load_file(work / "dump.safetensors")
    with torch.no_grad():
        out = load(folder).double()(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]))
    error = float((dump["logits"] - out.logits).norm() / out.logits.norm())
    loss = abs(dump["loss"].item() - out.loss.item()) / out.loss.item()
    check(f"{name} dump of the export", error < 1e-5 and loss < 1e-5,
          f"logits within {error:.1e}, loss {loss:.1e}")


def compare_generate(binary, folder, name, tokenizer, characters):
    model = load(folder)
    g = torch.Generator().manual_seed(5)
    same = total = 0
    for n in (1, 3, 7, 12):
        ids = torch.randint(3, len(characters), (n,), generator=g).tolist()
        text = tokenizer.decode(ids)
        if not text.isascii() or tokenizer.encode(text).ids != ids or text.startswith("-"):
            continue
        line = json.loads(run(binary, "generate", "--model", folder, "--prompt", text, "--dtype",
                              "f32", "--max-new-tokens", 24, "--json", "--threads", 2, "--quiet"))
        prompt = torch.tensor([ids])
        with torch.no_grad():
            want = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                                  max_new_tokens=24)[0, n:].tolist()
        stop = model.generation_config.eos_token_id
        want = want[:want.index(stop)] if stop in want else want
        total += 1
        same += line["ids"] == want and line["prompt_ids"] == ids
    check(f"{name} generate", same == total and total > 0, f"{same} of {total} prompts")


def main():
    binary = Path(sys.argv[1]).resolve()
    disable_progress_bar()
    torch.set_num_threads(2)
    for source in sorted(PARITY.glob("*/v[45]")):
        name = f"{source.parent.name}/{source.name}"
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            base = work / "base"
            tokenizer, characters = copy_base(source, base)
            result, docs = train_and_export(binary, base, work, name)
            compare_dump(binary, result, work, name, docs)
            compare_generate(binary, base, name, tokenizer, characters)
            compare_generate(binary, result, f"{name} trained", tokenizer, characters)
    sys.exit(failures)


if __name__ == "__main__":
    main()
