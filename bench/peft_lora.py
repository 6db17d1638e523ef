"""The LoRA job of full_size.sh in transformers + peft, on the CPU: seconds a step, tokens/s, resident memory.

Run: python peft_lora.py MODEL_FOLDER [steps] [tokens a step]. Attention and the experts' fused matrices (peft's
target_parameters) learn with rank 32; bfloat16 weights, gradient checkpointing, AdamW over the adapter, no dropout
(peft has none for target_parameters). Prints one JSON line a step, as far as it gets.
"""

import json
import resource
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def resident_gib():
    with open("/proc/self/status") as f:
        fields = dict(line.split(":", 1) for line in f)
    return {k: int(fields[k].split()[0]) / 2**20 for k in ("VmRSS", "RssAnon", "VmHWM")}


def main():
    folder = sys.argv[1]
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    tokens = int(sys.argv[3]) if len(sys.argv) > 3 else 2048
    begin = time.monotonic()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    config = LoraConfig(r=32, lora_alpha=64, lora_dropout=0.0, task_type="CAUSAL_LM",
                        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])
    model = get_peft_model(model, config)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4)
    print(json.dumps({"loaded_seconds": time.monotonic() - begin, "threads": torch.get_num_threads(),
                      "learning": sum(p.numel() for p in learning), **resident_gib()}), flush=True)
    g = torch.Generator().manual_seed(1)
    for step in range(steps):
        ids = torch.randint(0, model.config.vocab_size, (2, tokens // 2), generator=g)
        start = time.monotonic()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.monotonic() - start
        print(json.dumps({"step": step + 1, "loss": loss.item(), "seconds": seconds,
                          "tokens_per_second": tokens / seconds, **resident_gib(),
                          "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}),
              flush=True)


if __name__ == "__main__":
    main()
