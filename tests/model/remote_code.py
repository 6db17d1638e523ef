"""For engineers, not part of the tests: exports whose routing is no part of the architecture, in transformers.

python remote_code.py path/to/moetune    (needs torch, transformers, tokenizers; prints a line a check and
exits with the number of failures). On tiny models of fixtures/parity (transformers 4.57: those with an expert a
tensor), with both values of norm_topk_prob, in float32, for every place of the bias, preset and gate: two steps
of training from a bias file, then

  with trust_remote_code     logits, loss and the gradients of router and experts against `moetune dump`, greedy
                             ids (with a cache) against `moetune generate`, and the same after save_pretrained
  without it                 the plain weights: the logits of `moetune dump --routing topk`
"""

import json
import random
import sys
import tempfile
from itertools import product
from pathlib import Path

import torch
import transformers
from roundtrip import PARITY, check, copy_base, documents, run
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

import roundtrip

GATES = ("router", "sigmoid", "softmax", "one")
CONDENSER = [("condenser", "--condenser-preset", p, "--bias-in", b, "--condenser-gate", g)
             for p, b, g in product(("paper", "released"), ("selection", "logits"), GATES)]
BIAS = [("bias", "--bias-in", b) for b in ("selection", "logits")]
FUSED = int(transformers.__version__.split(".")[0]) >= 5  # before, an expert is a module
FULL = ("olmoe-gqa/v4", "qwen-dense/v4" if FUSED else "qwen-all/v4")  # every variant; the others some


def load(folder, remote, implementation="eager"):
    more = {"experts_implementation": implementation} if FUSED else {}
    return AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=remote, dtype=torch.float32, attn_implementation="eager", **more)


def prepare(source, folder, norm):
    tokenizer, characters = copy_base(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config["norm_topk_prob"] = norm
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return config, tokenizer, characters


def write_bias(path, config):
    rng = random.Random(7)
    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    layers = [n for n in range(config["num_hidden_layers"]) if (n + 1) % step == 0 and n not in dense]
    path.write_text(json.dumps({"moe_bias_states": {
        f"model.layers.{n}.mlp": {"bias_values": [rng.gauss(0, 0.1) for _ in range(config["num_experts"])]}
        for n in layers}}))


def train(binary, base, work, variant, docs, count):
    data = work / "data.jsonl"
    data.write_text("".join(json.dumps({"input_ids": i, "labels": l}) + "\n" for i, l in docs))
    run(binary, "train", "--model", base, "--data", data, "--out", work / "run", "--dtype", "f32",
        "--batch-sequences", 1, "--max-steps", 2, "--lr", 1e-2, "--warmup-ratio", 0, "--overwrite",
        "--bias-file", work / "bias.json", "--condenser-count", count, "--routing", *variant, "--threads", 1, "--quiet")
    return work / "run" / "model"


def dump(binary, folder, work, document, *options):
    ids, labels = document
    (work / "batch.json").write_text(json.dumps({"input_ids": [ids], "labels": [labels]}))
    run(binary, "dump", "--model", folder, "--batch", work / "batch.json", "--out",
        work / "dump.safetensors", "--threads", 1, "--quiet", *options)
    return load_file(work / "dump.safetensors")


def relative(got, want):
    return float((got.detach().double() - want.double()).norm() / want.double().norm())


def expert_gradients(dumped, name, parameter):
    """The gradient of a fused parameter of transformers from moetune's, fused or expert by expert."""
    if f"grad.{name}" in dumped:
        return dumped[f"grad.{name}"]
    stem, kind = name.rsplit(".", 1)
    parts = ("gate_proj", "up_proj") if kind == "gate_up_proj" else (kind,)
    return torch.stack([torch.cat([dumped[f"grad.{stem}.{e}.{p}.weight"] for p in parts])
                        for e in range(parameter.shape[0])])


def gradient_error(model, dumped):
    worst = 0.0
    for name, parameter in model.named_parameters():
        if ".mlp.gate.weight" in name or ".mlp.experts." in name:
            want = expert_gradients(dumped, name, parameter)
            got = torch.zeros_like(want) if parameter.grad is None else parameter.grad  # no token came
            worst = max(worst, relative(got, want) if want.any() else float(got.norm()))
    return worst


def compare(binary, folder, work, name, document):
    want = dump(binary, folder, work, document, "--gradients")
    ids, labels = (torch.tensor([x]) for x in document)
    model = load(folder, True)
    assert type(model).__name__.startswith("Moetune"), type(model)
    out = model(input_ids=ids, labels=labels)
    out.loss.backward()
    logits, gradients = relative(out.logits, want["logits"]), gradient_error(model, want)
    loss = abs(out.loss.item() - want["loss"].item()) / want["loss"].item()
    with torch.no_grad():
        batched = relative(load(folder, True, "batched_mm")(input_ids=ids).logits, want["logits"])
        model.save_pretrained(work / "saved")
        saved = relative(load(work / "saved", True)(input_ids=ids).logits, want["logits"])
    good = max(logits, loss, batched, saved) < 1e-5 and gradients < 1e-4
    check(f"{name}", good, f"logits {logits:.1e} (batched_mm {batched:.1e}, saved again {saved:.1e}), "
                           f"loss {loss:.1e}, gradients {gradients:.1e}")

    plain = dump(binary, folder, work, document, "--routing", "topk")
    with torch.no_grad():
        stock = load(folder, False)
        assert not type(stock).__name__.startswith("Moetune")
        error = relative(stock(input_ids=ids).logits, plain["logits"])
    check(f"{name} without trust_remote_code", error < 1e-5,
          f"plain top-k within {error:.1e}; the routing moves logits by "
          f"{relative(plain['logits'], want['logits']):.1e}")


def compare_generate(binary, folder, name, tokenizer, characters):
    model = load(folder, True)
    g = torch.Generator().manual_seed(5)
    same = total = 0
    for n in (2, 5, 9, 12):
        ids = torch.randint(3, len(characters), (n,), generator=g).tolist()
        text = tokenizer.decode(ids)
        if not text.isascii() or tokenizer.encode(text).ids != ids or text.startswith("-"):
            continue
        line = json.loads(run(binary, "generate", "--model", folder, "--prompt", text, "--dtype", "f32",
                              "--max-new-tokens", 24, "--json", "--threads", 1, "--quiet"))
        prompt = torch.tensor([ids])
        with torch.no_grad():
            want = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                                  max_new_tokens=24)[0, n:].tolist()
        stop = model.generation_config.eos_token_id
        want = want[:want.index(stop)] if stop in want else want
        total += 1
        same += line["ids"] == want
    check(f"{name} generate", same == total > 0, f"{same} of {total} prompts")


def main():
    binary = Path(sys.argv[1]).resolve()
    disable_progress_bar()
    set_verbosity_error()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    for source, norm in product(sorted(PARITY.glob("*/v[45]" if FUSED else "*/v4")), (False, True)):
        model = f"{source.parent.name}/{source.name}"
        variants = BIAS + CONDENSER if model in FULL else BIAS[:1] + CONDENSER[6:11]
        docs = documents(source.parent.name)
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            config, tokenizer, characters = prepare(source, work / "base", norm)
            if not FUSED and config["hidden_size"] % config["num_attention_heads"] + ("head_dim" in config):
                continue  # a shape that Qwen2-MoE had not yet
            write_bias(work / "bias.json", config)
            for variant in variants:
                words = [w for w in variant if not w.startswith("--")]
                name = f"{model}{' norm' if norm else ''} {' '.join(words)}"
                result = train(binary, work / "base", work, variant, docs,
                               min(2, config["num_experts_per_tok"]))
                compare(binary, result, work, name, max(docs, key=lambda d: len(d[0])))
                compare_generate(binary, result, name, tokenizer, characters)
    sys.exit(roundtrip.failures)


if __name__ == "__main__":
    main()
