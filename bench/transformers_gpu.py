#!/usr/bin/env python3
"""transformers_gpu.py FOLDER --job full|lora - the steps of `moetune bench --model FOLDER` in transformers 5 and peft.

The same weights, and the same token ids: those that `bench` draws with the same seed. A step is the forward pass in
training mode, the backward pass, clipping at 1 and the update. Of the experts implementations and attentions that this
machine has the fastest is taken, with activations kept where they fit, else with gradient checkpointing.

  full  weights and gradients in bfloat16 on the device, AdamW (fused) over float32 masters with float32 moments:
        the precision of moetune's masters and moments; its gradients are float32
  lora  rank 32 on attention and all experts, float32 adapters with float32 moments, products in bfloat16 by autocast

Prints one JSON line a try and at the end one of the result. Not needed to build or to test anything.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time

import numpy
import torch
import transformers


def philox(seed, stream, count):
    """base/philox.h for counters 0 to count."""
    mask = numpy.uint64(0xFFFFFFFF)
    counter = numpy.arange(count, dtype=numpy.uint64)
    x = [counter & mask, counter >> numpy.uint64(32),
         numpy.full(count, stream & 0xFFFFFFFF, numpy.uint64), numpy.full(count, stream >> 32, numpy.uint64)]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = x[0] * numpy.uint64(0xD2511F53), x[2] * numpy.uint64(0xCD9E8D57)
        x = [(p1 >> numpy.uint64(32)) ^ x[1] ^ numpy.uint64(k0), p1 & mask,
             (p0 >> numpy.uint64(32)) ^ x[3] ^ numpy.uint64(k1), p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return x[1] << numpy.uint64(32) | x[0]


def token_ids(seed, count, vocab):
    drawn = philox(seed, 0x62656E6368, count)
    assert int(drawn.max()) <= 2**64 - 1 - 2**64 % vocab, "a draw that bench would repeat"
    return torch.from_numpy((drawn % numpy.uint64(vocab)).astype(numpy.int64))


class Masters:
    """AdamW over float32 masters of bfloat16 parameters, one at a time: the gradients of no two exist in float32."""

    def __init__(self, parameters, fused):
        self.pairs = []
        for p in parameters:
            master = p.detach().float()
            self.pairs.append((p, master, torch.optim.AdamW([master], lr=1e-5, weight_decay=0.0, fused=fused)))

    def step(self):
        for p, master, optimizer in self.pairs:
            master.grad = p.grad.float()
            p.grad = None
            optimizer.step()
            master.grad = None
            p.data.copy_(master)


class Plain:
    def __init__(self, parameters, fused):
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0, fused=fused)

    def step(self):
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def add_adapter(model):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=32, lora_alpha=64, lora_dropout=0.0, task_type="CAUSAL_LM",
                        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])
    return get_peft_model(model, config)


class Job:
    def __init__(self, args):
        self.args = args
        self.cuda = args.device == "cuda"
        where = {"device_map": "cuda"} if self.cuda else {}
        self.base = transformers.AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.bfloat16, **where)
        self.base.config.use_cache = False
        self.model = add_adapter(self.base) if args.job == "lora" else self.base
        self.model.train()
        self.learning = [p for p in self.model.parameters() if p.requires_grad]
        ids = token_ids(args.seed, args.tokens, self.base.config.vocab_size)
        self.ids = ids.view(-1, args.sequence).to(args.device)
        self.optimizer = None

    def step(self):
        with torch.autocast(self.args.device, torch.bfloat16, enabled=self.args.job == "lora"):
            loss = self.model(input_ids=self.ids, labels=self.ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
        if not self.optimizer:  # after the first gradients, whose size decides what fits
            self.optimizer = (Plain if self.args.job == "lora" else Masters)(self.learning, self.cuda)
        self.optimizer.step()
        return loss.item()  # waits

    def forget(self):
        for p in self.learning:
            p.grad = None
        if self.cuda:
            torch.cuda.empty_cache()

    def times(self, steps):
        taken = []
        for _ in range(steps):
            start = time.monotonic()
            loss = self.step()
            taken.append(time.monotonic() - start)
        return taken, loss

    def choose(self, experts, attention, checkpointing):
        self.base.set_experts_implementation(experts)
        self.base.set_attn_implementation(attention)
        if checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            self.model.enable_input_require_grads()
        else:
            self.model.gradient_checkpointing_disable()


def candidates():
    attentions = ["sdpa"]
    for package, name in (("flash_attn", "flash_attention_2"), ("flash_attn_interface", "flash_attention_3")):
        if importlib.util.find_spec(package):
            attentions.insert(0, name)
    return [(e, a) for e in ("grouped_mm", "eager") for a in attentions]


def attempt(job, experts, attention):
    """Seconds of a step, and whether it needed checkpointing; None if it cannot run."""
    for checkpointing in (False, True):
        try:
            job.choose(experts, attention, checkpointing)
            seconds = min(job.times(2)[0])
            print(json.dumps({"experts": experts, "attention": attention, "checkpointing": checkpointing,
                              "seconds": seconds}), flush=True)
            return seconds, experts, attention, checkpointing
        except torch.OutOfMemoryError:
            print(f"{experts}, {attention}, checkpointing {checkpointing}: out of memory", flush=True)
        except Exception as e:  # an implementation that this machine has not
            print(f"{experts}, {attention}: {type(e).__name__}: {str(e)[:200]}", flush=True)
            job.forget()
            return None
        job.forget()
    return None


def result(job, choice):
    args = job.args
    _, experts, attention, checkpointing = choice
    job.choose(experts, attention, checkpointing)
    if job.cuda:
        torch.cuda.reset_peak_memory_stats()
    taken, loss = job.times(args.steps)
    seconds = statistics.median(taken)
    return {"run": f"transformers-{args.job}", "transformers": transformers.__version__, "torch": torch.__version__,
            "experts": experts, "attention": attention, "checkpointing": checkpointing,
            "weights": "bfloat16", "gradients": "bfloat16" if args.job == "full" else "float32",
            "masters": "float32", "moments": "float32", "learning": sum(p.numel() for p in job.learning),
            "tokens": args.tokens, "sequence": args.sequence, "loss": loss, "step_seconds": seconds,
            "tokens_per_second": args.tokens / seconds,
            "peak_device_bytes": torch.cuda.max_memory_allocated() if job.cuda else 0}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--job", choices=("full", "lora"), default="full")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--sequence", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1234)
    job = Job(parser.parse_args())
    tried = [a for a in (attempt(job, *c) for c in candidates()) if a]
    if not tried:
        sys.exit("nothing runs")
    print(json.dumps(result(job, min(tried))), flush=True)


if __name__ == "__main__":
    main()
