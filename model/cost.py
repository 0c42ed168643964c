"""What a step costs: floating-point operations and memory of a GPU, from shapes, before a weight is touched.

Operations. Counted are the matrix products, two operations a multiply-add: every linear layer for every token, the
head for the supervised tokens alone (the others get no logits), and attention per sequence, of whose n × n scores the
causal half is computed. The backward pass is twice the forward one. What activation checkpointing, chunked log-probs
or flash attention compute again is work but not progress, and is not counted; nor are norms, activations, rotations.

Memory of one GPU at the peak of a training step follows what model/parallel.py and model/logprobs.py do. In bytes, with

    P parameters  S = GPUs / parallel.replicate shards  T tokens of the longest row  e bytes of the compute dtype
    L layers  D hidden  I intermediate  Q = heads · head size  K = key/value heads · head size  N heads  V vocabulary
    W = e · parameters of a layer   H = V · D

    shards               (4 P master weights + 4 P gradients + 8 P AdamW) / S; in CPU memory with parallel.offload.
                         LoRA: e P / S frozen weights, the rest for the adapters alone, by whole rows
    kept in a forward    T L e D with activation_checkpointing=full; T L (e (2 D + Q + K + I) + 4 N) with selective;
    pass                 twice Q, K and I with products; with none all that backward passes read, T L · _layer_bytes
    while a layer runs   gathered: 2 W, and W for the prefetched layer; its gradient W, and in float32 what is being
    backward             reduced, an untied head's too; T times what it recomputed and the gradients under way
    while the head runs  gathered e H; its gradient e H, and 4 H in float32; T rows of BLOCK logits, T D in float32

All of it is tested against what steps of the training's own code take (`python -m bench.simulate`, docs/scaling.md);
the allowance for kernels and fragmentation is an assumption. parallel.compile needs less than predicted here.
"""

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PretrainedConfig

from errors import UserError
from model.guard import skeleton
from model.logprobs import BLOCK
from model.parallel import ANY_LENGTH, KEPT_PRODUCTS
from settings import TrainConfig

GIB = 2**30
CONTEXT = 1.5 * GIB  # CUDA context, kernels, cuBLAS and NCCL buffers
FRAGMENTED = 0.05  # share of what is allocated that is lost between blocks


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
    matrices: tuple[tuple[int, int], ...]  # (out, in) of its matrices, in the order of their use

    @property
    def layer_linear(self):
        return sum(out * into for out, into in self.matrices)

    @property
    def head_params(self):
        return self.vocab * self.hidden

    @property
    def params(self):
        return self.layers * self.layer_params + self.hidden + self.head_params * (1 if self.tied else 2)

    @property
    def attention_width(self):
        return self.heads * self.head_dim


def shape_of(config: PretrainedConfig) -> Shape:
    """Return the Shape of a transformers config, counted on the library's own model, built without storage.

    Raises UserError for a model that model/guard.py refuses.
    """
    layer = skeleton(config, config.name_or_path, torch.float32).model.layers[0]
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
        matrices=tuple(tuple(p.shape) for p in layer.parameters() if p.ndim == 2),
    )


def train_flops(shape: Shape, lengths: Iterable[int], supervised: int, lora_rank: int = 0) -> float:
    """Count the FLOPs of forward and backward. With LoRA no frozen weight gets a gradient, only the adapters do."""
    linear, head, attention = forward_parts(shape, lengths, supervised)
    if not lora_rank:
        return 3 * (linear + head + attention)
    adapters = 2.0 * adapter_params(shape, lora_rank) * float(np.sum(lengths))
    return 2 * (linear + head) + 3 * (attention + adapters)


def adapter_params(shape: Shape, rank: int, shards: int = 1) -> float:
    """Count the parameters of LoRA's adapters, A [rank, in] and B [out, rank] of each matrix, on the GPU with the most.

    FSDP2 hands out whole rows: with more shards than A has rows, the first GPUs get one each and the others none.
    """
    return shape.layers * sum(-(-rank // shards) * into + -(-out // shards) * rank for out, into in shape.matrices)


def forward_parts(shape: Shape, lengths: Iterable[int], supervised: int) -> tuple[float, float, float]:
    """Count the FLOPs of a forward pass: (linear layers, head, attention).

    lengths: tokens of each sequence. supervised: tokens with a label.
    """
    lengths = np.asarray(lengths, dtype=np.float64)
    linear = 2.0 * shape.layers * shape.layer_linear * lengths.sum()
    head = 2.0 * shape.head_params * supervised
    attention = 2.0 * shape.layers * shape.attention_width * np.square(lengths).sum()  # q·k and p·v, half of 2 n² each
    return float(linear), float(head), float(attention)


def recomputed_flops(shape: Shape, lengths: Iterable[int], mode: str, lora_rank: int = 0) -> tuple[float, float]:
    """Count what the backward pass computes again of the layers' (matrix products, attention), FLOPs.

    Nothing needs what the last product of a layer gives, but its adapter comes after it; of the others products keeps
    all, selective every second one.
    """
    linear, _, attention = forward_parts(shape, lengths, 0)
    last = shape.matrices[-1:] if lora_rank else ()
    matrices = {"none": (), "products": last, "selective": last + shape.matrices[-3::-2],
                "full": last + shape.matrices[:-1]}[mode]  # fmt: skip
    return linear * sum(a * b for a, b in matrices) / shape.layer_linear, attention * (mode == "full")


def quadratic(shape: Shape) -> float:
    """Return what attention adds to the cost of n tokens, all supervised, in tokens: quadratic · n²."""
    return shape.layers * shape.attention_width / (shape.layers * shape.layer_linear + shape.head_params)


@dataclass(frozen=True)
class Settings:
    """The keys of a configuration that decide memory. compute_bytes: of the compute dtype."""

    gpus: int
    replicate: int = 1
    checkpointing: str = "none"
    offload: bool = False
    lora_rank: int = 0
    max_tokens: int = 32768
    compute_bytes: int = 2


@dataclass(frozen=True)
class Memory:
    """parts: {what: bytes} on one GPU at the peak. cpu: bytes of CPU memory for one GPU, a checkpoint's copy
    included."""

    parts: dict
    cpu: float

    @property
    def total(self):
        return sum(self.parts.values())


def predict_memory(shape: Shape, settings: Settings, longest_row: int) -> Memory:
    """Predict the memory at the peak of a step: when the head, or the last layer runs backward. longest_row: tokens."""
    # what is sharded: weights, gradients, optimizer state
    s, e = settings, settings.compute_bytes
    shards = s.gpus // s.replicate
    trained = adapter_params(shape, s.lora_rank, shards) if s.lora_rank else shape.params / shards
    frozen = shape.params / shards if s.lora_rank else 0
    sharded = {"weights": 4 * trained + e * frozen, "gradients": 4 * trained, "optimizer state": 8 * trained}
    # weights and moments, from the end of a step until the checkpoint is written; tied weights under both their names
    copied = 12 * trained + shape.tied * (e if s.lora_rank else 4) * shape.head_params / shards

    # what a step adds on this GPU, at the worse of its two peaks
    parts = dict.fromkeys(sharded, 0.0) if s.offload else dict(sharded)
    parts["activations kept"] = _kept_bytes(shape, s.checkpointing, e, s.lora_rank) * shape.layers * longest_row
    phases = _layer_phase(shape, s, shards, longest_row), _head_phase(shape, s, shards, longest_row)
    parts |= max(phases, key=lambda phase: sum(phase.values()))
    parts["kernels, fragmentation"] = CONTEXT + FRAGMENTED * sum(parts.values())
    return Memory(parts, copied + (sum(sharded.values()) if s.offload else 0.0))


def longest_rows(shape: Shape, settings: Settings, memory: float) -> dict[str, int]:
    """Find how long a row may be with each way of recomputing: {mode: tokens}, the fastest first; the last takes all.

    memory: bytes of one GPU. Of a mixture of experts nothing is predicted: with checkpointing=auto it recomputes all.
    """
    if settings.checkpointing != "auto" or shape.layer_params > 1.1 * shape.layer_linear:
        return {settings.checkpointing.replace("auto", "full"): ANY_LENGTH}
    found = {}
    for mode in ("none", *KEPT_PRODUCTS):
        fixed = replace(settings, checkpointing=mode)
        needed = lambda tokens, fixed=fixed: predict_memory(shape, fixed, tokens).total  # noqa: E731
        found[mode] = bisect.bisect_right(range(ANY_LENGTH), memory, key=needed) - 1
    return found | {"full": ANY_LENGTH}


def _layer_bytes(shape: Shape, e: int, lora_rank: int) -> float:
    """Count what the backward pass of one layer reads, bytes a token (transformers' Qwen2 and Llama blocks)."""
    d, q, k = shape.hidden, shape.attention_width, shape.kv_heads * shape.head_dim
    norms = 2 * ((4 if lora_rank else 4 + e) * d + 4)  # the input in float32, the normed input if trained, 1 / rms
    attention = e * d + e * (2 * q + 2 * k) + 4 * shape.heads  # input of q, k, v; those and the output; log-sum-exps
    mlp = e * d + 4 * e * shape.intermediate  # input; gate, silu(gate), up, their product
    return norms + attention + mlp


def _kept_bytes(shape: Shape, checkpointing: str, e: int, lora_rank: int = 0) -> float:
    """Count what a layer keeps of its forward pass, bytes a token."""
    if checkpointing == "none":
        return _layer_bytes(shape, e, lora_rank)
    if checkpointing == "full":
        return e * shape.hidden
    every = KEPT_PRODUCTS[checkpointing]
    products = sum(out for out, _ in shape.matrices[-2::-every])  # selective: up, o, k; all but the last with products
    return e * (shape.hidden + shape.attention_width + products) + 4 * shape.heads


def _layer_phase(shape, s, shards, tokens):
    """Return {what: bytes} while the last layer runs backward."""
    e, layer = s.compute_bytes, shape.layer_params
    gathered = 3 * e * layer  # this one, the one before that is still in use, and the prefetched
    if s.lora_rank:
        gradients = (e + _reduced(shards)) * adapter_params(shape, s.lora_rank) / shape.layers
    else:
        gradients = e * layer + _reduced(shards) * layer
        gradients += (e if shape.tied else 4) * shape.head_params  # if tied, it waits for the embedding's share
    gathered += e * shape.head_params if shape.tied else 0
    # what is kept of it is not made again: attention's output and up; with products gate and v, too
    kept = {"selective": shape.attention_width + shape.intermediate}
    kept["products"] = kept["selective"] + shape.intermediate + shape.kv_heads * shape.head_dim
    again = _layer_bytes(shape, e, s.lora_rank) - e * kept.get(s.checkpointing, 0)
    recomputed = 0 if s.checkpointing == "none" else again
    # gradients on their way through; the last product's input gets one from its adapter, too, before they are added
    passing = e * shape.intermediate
    if not recomputed:
        passing += 5 * e * shape.hidden
    elif s.lora_rank:
        passing += e * shape.intermediate
    return {
        "gathered weights": gathered,
        "gradients being reduced": gradients,
        "working set of a layer": (recomputed + passing) * tokens,
    }


def _head_phase(shape, s, shards, tokens):
    """Return {what: bytes} while the head runs backward."""
    e, head = s.compute_bytes, shape.head_params
    hidden = (4 + 3 * e + 4) * shape.hidden  # the final norm's, the head's input and its gradient in float32
    return {
        "gathered weights": e * head + 2 * e * shape.layer_params,
        "gradients being reduced": 0 if s.lora_rank else (e + _reduced(shards)) * head,
        "working set of the head": ((8 + e) * min(BLOCK, shape.vocab) + hidden) * tokens,
    }


def _reduced(shards):
    """Count the float32 bytes a weight whose gradient is being reduced: all of it, and this rank's share."""
    return 4 + 4 / shards


def settings_of(cfg: TrainConfig, gpus: int) -> Settings:
    """Take from a script's config what decides memory. Raises UserError if the GPUs cannot be divided so."""
    replicate = cfg.parallel.replicate
    if gpus % replicate:
        raise UserError(f"parallel.replicate={replicate} does not divide {gpus} GPUs")
    return Settings(
        gpus, replicate, cfg.parallel.activation_checkpointing, cfg.parallel.offload, cfg.lora.rank,
        cfg.batch.max_tokens, compute_bytes=4 if cfg.model.compute_dtype == "float32" else 2,
    )  # fmt: skip
