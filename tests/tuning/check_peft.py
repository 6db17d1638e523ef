#!/usr/bin/env python3
"""Adapters that moetune writes, loaded by peft: for engineers, not part of the test suite.

Run: python tests/tuning/check_peft.py build/moetune

Trains every tiny model of tests/fixtures/parity for a few steps by lora and dora, loads each adapter with peft
over the same base in transformers (5: experts fused; and "one by one": experts as modules, as transformers 4 has
them) and compares the logits with those of `moetune dump`. Then peft saves what it loaded, and moetune reads
that. Prints one line a case; exits 1 where logits differ by more than 1e-5 or a load fails that should not.
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
sys.path.insert(0, str(FIXTURES))
import make_low_rank  # noqa: E402
import make_parity  # noqa: E402

ATTENTION = "q_proj,k_proj,v_proj,o_proj"
EXPERTS = ATTENTION + ",gate_proj,up_proj,down_proj"
# Options of the run, and whether peft under transformers 5 must refuse it.
RUNS = {
    "attention, dropout": (["--tuning", "lora", "--lora-targets", ATTENTION], False),
    "attention, dora": (["--tuning", "dora", "--lora-targets", ATTENTION], False),
    "experts": (["--tuning", "lora", "--lora-dropout", "0"], False),
    "experts, dropout, rslora": (["--tuning", "lora", "--lora-rslora"], False),
    "experts and routers": (["--tuning", "lora", "--train", "*.mlp.gate.weight"], False),
    "one layer's": (["--tuning", "lora", "--lora-targets", "*.layers.0.*"], False),
    "experts, dora": (["--tuning", "dora"], True),
    "up without gate": (["--tuning", "lora", "--lora-targets", "up_proj,q_proj"], True),
}


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr}")
    return done.stderr


def logits_here(moetune, base, adapter, batch, work):
    (work / "batch.json").write_text(json.dumps(
        {"input_ids": [batch["id"].tolist()], "labels": [batch["target"].tolist()],
         "segment_ids": [torch.cumsum((batch["position"] == 0).long(), 0).tolist()]}))
    run(moetune, "dump", "--model", base, "--adapter", adapter, "--batch", work / "batch.json",
        "--out", work / "dump.safetensors")
    return load_file(work / "dump.safetensors")["logits"][0]


def difference(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def load_with_peft(base, adapter, apart):
    model = make_parity.load(base, torch.float32)
    if apart:
        make_low_rank.one_by_one(model)
    return PeftModel.from_pretrained(model, adapter).eval()


def check(moetune, name, layout, title, options, refused, work):
    base = FIXTURES / "parity" / name / layout
    batch = make_low_rank.read_batches(name)[0]
    data = work / "data.jsonl"
    ids = batch["id"].tolist()
    data.write_text("".join(json.dumps({"input_ids": ids[i:i + 8], "labels": ids[i:i + 8]}) + "\n"
                            for i in range(0, len(ids) - 8, 4)))
    out = work / "run"
    run(moetune, "train", "--model", base, "--data", data, "--out", out, "--overwrite", "--dtype",
        "f32", "--lora-rank", 3, "--max-steps", 6, "--lr", "3e-2", "--batch-tokens", 16,
        "--warmup-ratio", 0, *options)
    want = logits_here(moetune, base, out / "adapter", batch, work)
    words, ok = [], True
    with torch.no_grad():
        plain = make_parity.forward(make_parity.load(base, torch.float32), batch)
        words.append(f"the adapter changes {difference(plain, want):.2f}")
        for kind, apart in (("transformers 5", False), ("one by one", True)):
            has_experts = "expert" in title or "layer" in title or "gate" in title
            if not apart and refused and name != "llama":
                try:
                    load_with_peft(base, out / "adapter", apart)
                    words.append(f"{kind}: loads, though it should not")
                    ok = False
                except (ValueError, RuntimeError) as e:
                    words.append(f"{kind}: refused as expected ({type(e).__name__}: {str(e)[:60]}...)")
                continue
            if apart and (not has_experts or name in ("mixtral", "llama")):
                continue
            model = load_with_peft(base, out / "adapter", apart)
            off = difference(make_parity.forward(model.get_base_model(), batch), want)
            words.append(f"{kind}: {off:.1e}")
            ok &= off < 1e-5
            model.save_pretrained(work / "again")
            back = difference(logits_here(moetune, base, work / "again", batch, work), want)
            words.append(f"back {back:.1e}")
            ok &= back < 1e-5
    print(f"{'ok  ' if ok else 'BAD '} {name} {layout}, {title}: {'; '.join(words)}", flush=True)
    return ok


def main():
    torch.set_num_threads(1)
    disable_progress_bar()
    warnings.filterwarnings("ignore")  # peft gives every layer a pair where one has it; B is zero there
    set_verbosity_error()
    moetune = Path(sys.argv[1]).resolve()
    ok = True
    for name, layout in (("olmoe-gqa", "v5"), ("olmoe-gqa", "v4"), ("olmoe-clip", "v5"),
                         ("qwen-dense", "v4"), ("qwen-step", "v5"), ("mixtral", "v4"), ("mixtral", "v5"),
                         ("qwen3-moe", "v5"), ("llama", "v4")):
        for title, (options, refused) in RUNS.items():
            if name == "llama" and "router" in title:
                continue
            with tempfile.TemporaryDirectory() as work:
                ok &= check(moetune, name, layout, title, options, refused, Path(work))
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
