"""Ranks and sharding: one process, or many under torchrun, with the same loop.

Parameters are sharded with FSDP2 (`fully_shard`): one unit a decoder layer, one for the embedding, one for the final
norm and the head. Each unit computes in `compute_dtype` from float32 shards and reduces its gradients in float32, as a
plain sum: the losses are divided by global counts, so the sharding must not divide again.

Activation checkpointing wraps a layer's `forward`, inside FSDP's hooks (whose gathered weights serve both passes) and
inside torch.compile (which then sees, and honours, the choice of what to keep).
"""

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial, wraps
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from errors import UserError, one_line
from model.lora import is_adapter
from progress import say
from settings import ParallelConfig

PATIENCE = timedelta(minutes=10)  # how long a rank waits for the others before it gives up

ANY_LENGTH = 1 << 24  # tokens, more than any row has
KEPT_PRODUCTS = {"products": 1, "selective": 2}  # way of recomputing: of a layer's products, every which is kept
PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}
ATTENTION = (  # by name: the flash-attn package registers its own when it is imported
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_flash_attn_varlen_forward",
    "_flash_attn_forward",
    "_varlen_attn",
    "flash_attn_3.fwd",
)


class Ranks:
    """This process among the others. rank, count: ints. device: where it computes. One process needs no launcher."""

    def __init__(self):
        self.rank, self.count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
            if local >= here:
                raise UserError(
                    f"rank {self.rank} is number {local + 1} on its machine, which has {here} GPUs: "
                    f"torchrun --nproc_per_node {here}"
                )
            self.device = torch.device("cuda", local)
            torch.cuda.set_device(self.device)
        if self.count > 1:
            _join(**_store_of_this_attempt())

    @property
    def is_main(self):
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over ranks, in place: on the GPU through NCCL, on the CPU through gloo. Returns it."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's Python value on every rank."""
        box = [value]
        if self.count > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list:
        """List every rank's Python value, on every rank."""
        values = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def barrier(self):
        if self.count > 1:
            dist.barrier()

    def close(self):
        """At the end of a run that went well. After an error it would wait for ranks that are stuck."""
        if dist.is_initialized():
            dist.destroy_process_group()


def _join(**kwargs):
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE, **kwargs)


def _store_of_this_attempt():
    """Return how to meet the other ranks. torchrun starts the ranks anew after one has died (--max-restarts), but on
    the same store, in which they would take what the dead have left for the answers of the living."""
    of = os.environ.get
    if of("TORCHELASTIC_USE_AGENT_STORE") != "True" or of("GROUP_WORLD_SIZE") != "1":
        return {}  # nodes count restarts apart: TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 there, as in runs/slurm.sh
    rank, count = int(of("RANK")), int(of("WORLD_SIZE"))
    store = dist.TCPStore(of("MASTER_ADDR"), int(of("MASTER_PORT")), count, is_master=False, timeout=PATIENCE)
    return {"store": dist.PrefixStore(of("TORCHELASTIC_RESTART_COUNT"), store), "rank": rank, "world_size": count}


def shard(
    model: nn.Module,
    cfg: ParallelConfig,
    ranks: Ranks,
    compute_dtype: torch.dtype,
    longest: dict[str, int] | None = None,
) -> nn.Module:
    """Spread a model.logprobs.LogProbModel, still on the meta device, over the ranks. Returns it, without values.

    Alone in float32, and not offloaded, it stays a plain module. longest: see `checkpointed`; None: one mode for all
    rows. Raises UserError if the ranks cannot be divided as `cfg` asks.
    """
    if ranks.count % cfg.replicate:
        raise UserError(f"parallel.replicate={cfg.replicate} does not divide the {ranks.count} ranks")
    if cfg.offload and ranks.device.type != "cuda":
        raise UserError("parallel.offload moves the optimizer from the GPU to the CPU; there is no GPU here")
    longest = longest or {cfg.activation_checkpointing.replace("auto", "none"): ANY_LENGTH}
    model.compiled = longest if cfg.compile and compiles(ranks.device) else None
    for layer in model.lm.model.layers:
        layer.forward = checkpointed(layer, longest)
        if model.compiled:  # one graph for rows of all lengths: a resumed run meets them in another order
            layer.forward = torch.compile(layer.forward, dynamic=True)
    lm = model.lm
    tied = lm.lm_head.weight is lm.model.embed_tokens.weight
    if ranks.count > 1 or compute_dtype != torch.float32 or cfg.offload:
        _fully_shard(model, cfg, ranks, compute_dtype, tied)
    to_empty(model, lm, "cpu" if cfg.offload else ranks.device)
    return model


def to_empty(model: nn.Module, lm: nn.Module, device: torch.device | str) -> None:
    """Give a model on the meta device storage without values. lm: the language model in it, or itself."""
    tied = lm.lm_head.weight is lm.model.embed_tokens.weight
    model.to_empty(device=device)
    if tied:  # to_empty makes two of them
        lm.lm_head.weight = lm.model.embed_tokens.weight


def _fully_shard(model, cfg, ranks, compute_dtype, tied):
    # alone, sharding is for the compute dtype or for offload: a group of one
    if ranks.count == 1:
        _join(store=dist.HashStore(), rank=0, world_size=1)
    shards = ranks.count // cfg.replicate
    shape, names = ((shards,), ("shard",)) if cfg.replicate == 1 else ((cfg.replicate, shards), ("replicate", "shard"))
    options = {
        "mesh": dist.init_device_mesh(ranks.device.type, shape, mesh_dim_names=names),
        "mp_policy": MixedPrecisionPolicy(compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False),
    }
    if cfg.offload:
        options["offload_policy"] = CPUOffloadPolicy()
    # the units, innermost first
    lm, layers = model.lm, model.lm.model.layers
    for layer in layers:
        fully_shard(layer, **options)
    if not tied:
        fully_shard(lm.model.embed_tokens, **options)
        # used last in the forward pass and first in the backward one: not worth giving back in between
        fully_shard([lm.model.norm, lm.lm_head], **options, reshard_after_forward=False)
    fully_shard(model, **options, reshard_after_forward=False)  # with tied weights, the unit of all three
    # one layer's weights are gathered while the one before it computes
    for i, layer in enumerate(layers):
        layer.set_modules_to_forward_prefetch(list(layers[i + 1 : i + 2]))
        layer.set_modules_to_backward_prefetch(list(layers[max(0, i - 1) : i]))
    # gradients are summed: the losses are divided by global counts already
    for module in model.modules():
        if isinstance(module, FSDPModule) and ranks.count > 1:  # alone, FSDP2 divides by nothing
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # a plain sum: gloo knows no other


def compiles(device: torch.device) -> bool:
    """Tell whether torch.compile works here, tried on a line of arithmetic; why not is said."""
    try:
        torch.compile(lambda x: torch.nn.functional.silu(x) * x)(torch.ones(8, device=device))
    except Exception as error:  # no compiler, no Triton, or one of another version
        say(f"warning: parallel.compile does not work here ({one_line(error, 200)}): nothing is compiled")
        return False
    return True


def recomputed_by(tokens: int, longest: dict[str, int]) -> str:
    """Return how a row is recomputed: by the first mode whose longest row is as long. longest: see `checkpointed`."""
    for mode, limit in longest.items():  # a plain loop: torch.compile follows it
        if tokens <= limit:
            return mode
    raise AssertionError(f"a row of {tokens} tokens")


def checkpointed(layer: nn.Module, longest: dict[str, int]) -> Callable:
    """Wrap the `forward` of a decoder layer for activation checkpointing.

    longest: {"none", "products", "selective" or "full": tokens of the longest row that goes so}, the fastest first.
    """
    again = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    ways = {"none": layer.forward, "full": again}
    ways |= {mode: partial(again, context_fn=_contexts(layer, every)) for mode, every in KEPT_PRODUCTS.items()}
    if list(longest) == ["none"]:
        return layer.forward

    @wraps(layer.forward)
    def wrapped(hidden_BTD, *args, **kwargs):
        return ways[recomputed_by(hidden_BTD.shape[1], longest)](hidden_BTD, *args, **kwargs)

    return wrapped


def _contexts(layer, every):
    """Keep attention, whose recomputation costs most, and of a layer's matrix products every one, or every second one,
    back from the last but one: nothing reads what the last one gave. An adapter's small products are not counted."""
    sides = [min(p.shape) for name, p in layer.named_parameters() if p.ndim == 2 and not is_adapter(name)]
    wide, last = min(sides, default=0), len(sides)

    def policy(ctx, op, *args, seen, **kwargs):
        if op in PRODUCTS and min(args[-1].shape) >= wide:
            seen[ctx.is_recompute] += 1
            number = seen[ctx.is_recompute]
            keep = number != last and (last - 1 - number) % every == 0
        else:
            keep = any(name in str(op) for name in ATTENTION)
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    return lambda: create_selective_checkpoint_contexts(partial(policy, seen={False: 0, True: 0}))


def own_rows(parameter: nn.Parameter) -> tuple[torch.Tensor, int]:
    """Return (local tensor, first row): the part of a parameter on this rank, rows first:first+len(local)."""
    if not isinstance(parameter, DTensor):
        return parameter.data, 0
    rows = -(-parameter.shape[0] // parameter.device_mesh.size(-1))  # FSDP2 shards the first dimension, in such pieces
    local = parameter.to_local()
    return local, min(parameter.device_mesh.get_local_rank(-1) * rows, parameter.shape[0])


def reshard(model: nn.Module) -> None:
    """Free the head's gathered weights, after forward passes without a backward one.

    They are kept for a backward pass otherwise, and an optimizer or a checkpoint made meanwhile would take hold of the
    gathered copies instead of the shards.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
