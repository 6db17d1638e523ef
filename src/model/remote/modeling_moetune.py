"""A model of moetune whose routing is no part of its architecture, for transformers (4.57 and 5).

The weights are the architecture's own; how tokens reach experts is not. With z = W x, b the layer's bias and
C its r condensers, experts that are active for every token:

  bias_in logits     p = softmax(z + b)     for the choice and the gates
  bias_in selection  p = softmax(z)         for the gates, p + b for the choice
  no condensers      the K best
  preset paper       the K - r best outside C, then C
  preset released    the K best of all, then C: an expert may be in both
  condenser_gate     router: p; sigmoid and softmax: of rows of its own times x; one: 1

and where the config has norm_topk_prob, the gates of all active experts are divided by their sum. The state is
read from the files beside the weights (routing.json and those that it needs) and is constant here: transformers
may train the weights, but moves neither the bias nor the condensers' own rows.
"""

import json
import os

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from transformers import OlmoeForCausalLM, Qwen2MoeForCausalLM
from transformers.utils import cached_file

CODE = "modeling_moetune.py"
ROUTING = "routing.json"
BIAS = "moe_bias_states.json"
EXPERTS = "forced_experts_records.json"
GATES = "condenser_gates.safetensors"
HUB = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")


class Routing:
    """What one layer needs to route. Float32 whatever the model's type, and moved to where it is used."""

    def __init__(self, config):
        self.k = config.num_experts_per_tok
        self.norm = config.norm_topk_prob
        self.in_logits = self.released = False
        self.gate = "router"
        self.bias = torch.zeros(config.num_experts, device="cpu")  # models are made on "meta" first
        self.experts = torch.zeros(0, dtype=torch.int64, device="cpu")
        self.rows = None

    def own_gates(self, x):
        if self.gate == "one":
            return x.new_ones(x.shape[0], len(self.experts), dtype=torch.float32)
        own = F.linear(x.float(), self.rows)
        return own.sigmoid() if self.gate == "sigmoid" else own.softmax(-1)

    def __call__(self, x, z):
        """Logits as they were used, weights and experts of every slot, from x (N, C) and z (N, E)."""
        if self.bias.device != x.device:
            self.bias, self.experts = self.bias.to(x.device), self.experts.to(x.device)
            self.rows = None if self.rows is None else self.rows.to(x.device)
        r = len(self.experts)
        z = z.float() + self.bias if self.in_logits else z.float()
        p = z.softmax(-1)
        key = p.detach() if self.in_logits else p.detach() + self.bias
        if not self.released:
            key = key.index_fill(-1, self.experts, -torch.inf)
        routed = key.topk(self.k if self.released else self.k - r, -1).indices
        expert = torch.cat([routed, self.experts.expand(len(x), r)], -1)
        weight = p.gather(-1, expert)
        if r and self.gate != "router":
            weight = torch.cat([weight[:, : expert.shape[1] - r], self.own_gates(x)], -1)
        if self.norm:
            weight = weight / weight.sum(-1, keepdim=True)
        return z, weight, expert


def router_class(base):
    """The router of transformers 5: it gives logits, weights and experts, and the block does the rest."""

    class Router(base):
        def forward(self, hidden_states):
            x = hidden_states.reshape(-1, hidden_states.shape[-1])
            logits = F.linear(x, self.weight)
            z, weight, expert = self.routing(x, logits)
            return z.to(logits.dtype), weight.to(logits.dtype), expert

    return Router


def block_class(base):
    """The block of transformers 4: the router is a linear layer, and the experts are a list."""

    class Block(base):
        def forward(self, hidden_states):
            x = hidden_states.reshape(-1, hidden_states.shape[-1])
            z, weight, expert = self.routing(x, self.gate(x))
            out = torch.zeros_like(x)
            for e in expert.unique().tolist():
                token, slot = torch.where(expert == e)
                part = self.experts[e](x[token]) * weight[token, slot, None].to(x.dtype)
                out.index_add_(0, token, part.to(x.dtype))
            if hasattr(self, "shared_expert"):
                out = out + self.shared_expert_gate(x).sigmoid() * self.shared_expert(x)
            return out.reshape(hidden_states.shape), z.to(hidden_states.dtype)

    return Block


def moe_layers(model):
    """(name in the state's files, block) of every MoE layer."""
    for i, layer in enumerate(model.model.layers):
        if hasattr(layer.mlp, "experts"):
            yield f"model.layers.{i}.mlp", layer.mlp


class MoetuneRouting:
    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self.state_files = {}
        classes = {}
        for _, block in moe_layers(self):
            old = isinstance(block.experts, nn.ModuleList)
            part, make = (block, block_class) if old else (block.gate, router_class)
            if type(part) not in classes:
                classes[type(part)] = make(type(part))
            part.__class__ = classes[type(part)]
            part.routing = block.moetune_routing = Routing(config)

    @classmethod
    def from_pretrained(cls, path, *args, **kwargs):
        loaded = super().from_pretrained(path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.read_state(path, {k: kwargs[k] for k in HUB if kwargs.get(k) is not None})
        return loaded

    def save_pretrained(self, folder, *args, **kwargs):
        super().save_pretrained(folder, *args, **kwargs)
        for name, content in self.state_files.items():
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)

    def read_state(self, path, hub):
        def find(name):
            found = cached_file(path, name, **hub)
            with open(found, "rb") as file:
                self.state_files[name] = file.read()
            return found

        find(CODE)
        find(ROUTING)
        options = json.loads(self.state_files[ROUTING])
        find(BIAS)
        bias = json.loads(self.state_files[BIAS])["moe_bias_states"]
        experts, rows = None, None
        gate = options.get("condenser_gate", "router")
        if "condenser_preset" in options:
            find(EXPERTS)
            experts = json.loads(self.state_files[EXPERTS])["forced_experts_records"]
            if gate in ("sigmoid", "softmax"):
                rows = load_file(find(GATES))
        for name, block in moe_layers(self):
            routing = block.moetune_routing
            routing.in_logits = options["bias_in"] == "logits"
            routing.released = options.get("condenser_preset") == "released"
            routing.gate = gate
            routing.bias = torch.tensor(bias[name]["bias_values"], dtype=torch.float32)
            if experts is not None:
                routing.experts = torch.tensor(experts[name]["forced_expert_indices"], dtype=torch.int64)
            if rows is not None:
                routing.rows = rows[f"{name}.condenser_gate"]


class MoetuneOlmoeForCausalLM(MoetuneRouting, OlmoeForCausalLM):
    pass


class MoetuneQwen2MoeForCausalLM(MoetuneRouting, Qwen2MoeForCausalLM):
    pass
