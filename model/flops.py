"""How much a model computes: floating-point operations, counted once and honestly, and what GPUs can do at most.

Counted are the matrix products, two operations a multiply-add: every linear layer for every token, the head for the
supervised tokens alone (the others get no logits), and attention per sequence, of whose n × n scores the causal half
is computed. The backward pass is twice the forward one. What activation checkpointing, chunked log-probs or flash
attention compute again is work but not progress, and is not counted; nor are norms, activations and rotations.
"""

import copy
import re
from dataclasses import dataclass

import numpy as np
import torch
from transformers import AutoModelForCausalLM

# dense bfloat16 TFLOP/s (no sparsity) by the words of a GPU's name, from NVIDIA's data sheets; the first match counts
PEAK_TFLOPS = (
    ({"B200"}, 2250),
    ({"H200", "NVL"}, 836),
    ({"H200"}, 989),
    ({"GH200"}, 989),
    ({"H100", "PCIE"}, 756),
    ({"H100", "NVL"}, 836),
    ({"H100"}, 989),
    ({"H800"}, 989),
    ({"H20"}, 148),
    ({"A100"}, 312),
    ({"A800"}, 312),
    ({"A40"}, 150),
    ({"A10"}, 125),
    ({"A6000"}, 155),
    ({"L40S"}, 362),
    ({"L40"}, 181),
    ({"L4"}, 121),
    ({"4090"}, 165),
    ({"3090"}, 71),
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder-only transformer (Qwen2, Llama, Mistral) that time and memory follow from."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool  # head and embedding are one matrix
    layer_params: int  # parameters of a decoder layer, biases and norms included
    layer_linear: int  # those of its matrices
    layer_sides: int  # rows + columns, summed over its matrices: what a LoRA adapter of rank 1 holds

    @property
    def head_params(self):
        return self.vocab * self.hidden

    @property
    def params(self):
        return self.layers * self.layer_params + self.hidden + self.head_params * (1 if self.tied else 2)

    @property
    def attention_width(self):
        return self.heads * self.head_dim


def shape_of(config):
    """Shape of a transformers config. The parameters are those of the library's own model, built without storage."""
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    layer = lm.model.layers[0]
    matrices = [p.shape for p in layer.parameters() if p.ndim == 2]
    return Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size,
        tied=config.tie_word_embeddings,
        layer_params=sum(p.numel() for p in layer.parameters()),
        layer_linear=sum(shape.numel() for shape in matrices),
        layer_sides=sum(map(sum, matrices)),
    )


def forward_flops(shape, lengths, supervised):
    """FLOPs of a forward pass. lengths: tokens of each sequence (any iterable). supervised: tokens with a label."""
    linear, head, attention = _forward_parts(shape, lengths, supervised)
    return linear + head + attention


def train_flops(shape, lengths, supervised, lora_rank=0):
    """FLOPs of forward and backward. With LoRA no gradient of a frozen weight is computed, only those of adapters."""
    linear, head, attention = _forward_parts(shape, lengths, supervised)
    if not lora_rank:
        return 3 * (linear + head + attention)
    adapters = 2.0 * shape.layers * shape.layer_sides * lora_rank * float(np.sum(lengths))
    return 2 * (linear + head) + 3 * (attention + adapters)


def _forward_parts(shape, lengths, supervised):
    lengths = np.asarray(lengths, dtype=np.float64)
    linear = 2.0 * shape.layers * shape.layer_linear * lengths.sum()
    head = 2.0 * shape.head_params * supervised
    attention = 2.0 * shape.layers * shape.attention_width * np.square(lengths).sum()  # q·k and p·v, half of 2 n² each
    return float(linear), float(head), float(attention)


def quadratic(shape):
    """What attention adds to the cost of a sequence of n tokens, in tokens: quadratic · n² (all tokens supervised)."""
    return shape.layers * shape.attention_width / (shape.layers * shape.layer_linear + shape.head_params)


def peak_flops(device_name):
    """Dense bfloat16 FLOP/s of a GPU by its name, e.g. "NVIDIA A100-SXM4-80GB"; None if it is not in the table."""
    words = set(re.split(r"[\s_-]+", device_name.upper()))
    return next((tflops * 1e12 for name, tflops in PEAK_TFLOPS if name <= words), None)


def device_peak(device):
    """`peak_flops` of a torch.device; None for a CPU and for a GPU that is not in the table."""
    return peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
