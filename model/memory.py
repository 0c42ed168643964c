"""Memory of one GPU at the peak of a training step, predicted from shapes alone.

The arithmetic follows what model/parallel.py, model/recompute.py and model/logprobs.py do. In bytes, with

    P parameters  S = GPUs / parallel.replicate shards  T tokens of the longest row  e bytes of the compute dtype
    L layers  D hidden  I intermediate  Q = heads · head size  K = key/value heads · head size  N heads  V vocabulary
    W = e · parameters of a layer   H = V · D

    shards               (4 P master weights + 4 P gradients + 8 P AdamW, 2.03 P in 8 bits) / S; in CPU memory with
                         parallel.offload. LoRA: e P / S frozen weights, the rest for the adapters alone
    kept in a forward    T L e D with activation_checkpointing=full; T L (e (2 D + 2 Q + K + I) + 4 N) with selective;
    pass                 with none all that the backward passes read, T L · _layer_bytes
    while a layer runs   gathered: 2 W and W for each prefetched layer; its gradient W, and in float32 what is being
    backward             reduced, the head's still among it; T times what it recomputed and the gradients under way
    while the head runs  gathered e H; its gradient e H, and 4 H in float32; T rows of BLOCK logits, T D in float32

What a layer keeps and its working set are tested against torch's memory tracker; the allowance for kernels and
fragmentation is an assumption. parallel.compile fuses, and needs less than predicted here.
"""

from dataclasses import dataclass

from model.logprobs import BLOCK

GIB = 2**30
CONTEXT = 1.5 * GIB  # CUDA context, kernels, cuBLAS and NCCL buffers
FRAGMENTED = 0.05  # share of what is allocated that is lost between blocks


@dataclass(frozen=True)
class Settings:
    """The keys of a configuration that decide memory. compute_bytes: of the compute dtype."""

    gpus: int
    replicate: int = 1
    prefetch: int = 1
    checkpointing: str = "none"
    offload: bool = False
    optim_state: str = "float32"
    lora_rank: int = 0
    max_tokens: int = 32768
    group_by_problem: bool = True
    compute_bytes: int = 2


@dataclass(frozen=True)
class Memory:
    """parts: {what: bytes} on one GPU at the peak. cpu: bytes of CPU memory for one GPU."""

    parts: dict
    cpu: float

    @property
    def total(self):
        return sum(self.parts.values())


def predict_memory(shape, settings, longest_row):
    """Memory at the peak of a step: when the head, or when the last layer runs backward. longest_row: tokens."""
    s, e = settings, settings.compute_bytes
    trained = s.lora_rank * shape.layers * shape.layer_sides if s.lora_rank else shape.params
    frozen = shape.params if s.lora_rank else 0
    shards = s.gpus // s.replicate
    state = 8 if s.optim_state == "float32" else 2 * (1 + 4 / 256)  # a scale for every 256 codes
    sharded = {
        "weights": (4 * trained + e * frozen) / shards,
        "gradients": 4 * trained / shards,
        "optimizer state": state * trained / shards,
    }
    parts = dict.fromkeys(sharded, 0.0) if s.offload else dict(sharded)
    parts["activations kept"] = _kept_bytes(shape, s.checkpointing, e) * shape.layers * longest_row
    phases = _layer_phase(shape, s, shards, longest_row), _head_phase(shape, s, shards, longest_row)
    parts |= max(phases, key=lambda phase: sum(phase.values()))
    parts["kernels, fragmentation"] = CONTEXT + FRAGMENTED * sum(parts.values())
    return Memory(parts, sum(sharded.values()) if s.offload else 0.0)


def _layer_bytes(shape, e):
    """What the backward pass of one layer reads, bytes a token (transformers' Qwen2 and Llama blocks)."""
    d, q, k = shape.hidden, shape.attention_width, shape.kv_heads * shape.head_dim
    norms = 2 * ((4 + e) * d + 4)  # the input in float32, the normed input, 1 / rms
    attention = e * d + e * (2 * q + 2 * k) + 4 * shape.heads  # input of q, k, v; those and the output; log-sum-exps
    mlp = e * d + 4 * e * shape.intermediate  # input; gate, silu(gate), up, their product
    return norms + attention + mlp


def _kept_bytes(shape, checkpointing, e):
    """What a layer keeps of its forward pass, bytes a token."""
    if checkpointing == "none":
        return _layer_bytes(shape, e)
    if checkpointing == "full":
        return e * shape.hidden
    key_value = shape.kv_heads * shape.head_dim
    products = shape.attention_width + key_value + shape.intermediate + shape.hidden  # q, v, gate, down: every second
    return e * (shape.hidden + shape.attention_width + products) + 4 * shape.heads


def _layer_phase(shape, s, shards, tokens):
    e, layer = s.compute_bytes, shape.layer_params
    gathered = (2 + s.prefetch) * e * layer
    if s.lora_rank:
        gradients = (e + _reduced(shards)) * s.lora_rank * shape.layer_sides
    else:
        gradients = e * layer + _reduced(shards) * layer + 4 * shape.head_params
        gradients += e * shape.head_params if shape.tied else 0  # waits for the embedding's share
    gathered += e * shape.head_params if shape.tied else 0
    recomputed = 0 if s.checkpointing == "none" else _layer_bytes(shape, e)
    passing = e * shape.intermediate + (0 if recomputed else 5 * e * shape.hidden)  # gradients on their way through
    return {
        "gathered weights": gathered,
        "gradients being reduced": gradients,
        "working set of a layer": (recomputed + passing) * tokens,
    }


def _head_phase(shape, s, shards, tokens):
    e, head = s.compute_bytes, shape.head_params
    hidden = (4 + 3 * e + 4) * shape.hidden  # the final norm's, the head's input and its gradient in float32
    return {
        "gathered weights": e * head + (1 + s.prefetch) * e * shape.layer_params,
        "gradients being reduced": 0 if s.lora_rank else (e + _reduced(shards)) * head,
        "working set of the head": ((8 + e) * min(BLOCK, shape.vocab) + hidden) * tokens,
    }


def _reduced(shards):
    """Bytes in float32 for each weight whose gradient is being reduced: all of it, and this rank's share of the sum."""
    return 4 + 4 / shards
