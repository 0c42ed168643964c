"""Ranks and sharding: one process, or many under torchrun, with the same loop.

Parameters are sharded with FSDP2 (`fully_shard`), one unit a decoder layer and one for the rest. Each unit computes in
`compute_dtype` from float32 shards and reduces its gradients in float32, as a plain sum: the losses are divided by
global counts, so the sharding must not divide again.
"""

import atexit
import os

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard


class Ranks:
    """This process among the others. rank, count: ints. device: where it computes. One process needs no launcher."""

    def __init__(self):
        self.rank, self.count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self.device)
        if self.count > 1:
            _join()

    @property
    def is_main(self):
        return self.rank == 0

    def sum(self, tensor):
        """The sum over ranks of a tensor on this rank's device, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, value):
        """Rank 0's Python value on every rank."""
        box = [value]
        if self.count > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value):
        """List of every rank's Python value, on every rank."""
        values = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def barrier(self):
        if self.count > 1:
            dist.barrier()


def _join(**kwargs):
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", **kwargs)
        atexit.register(dist.destroy_process_group)


def shard(model, ranks, compute_dtype):
    """Put a model.logprobs.LogProbModel where it computes. Alone in float32 it stays a plain module."""
    if ranks.count == 1 and compute_dtype == torch.float32:
        return model.to(ranks.device)
    if ranks.count == 1:
        _join(store=dist.HashStore(), rank=0, world_size=1)
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = dist.init_device_mesh(ranks.device.type, (ranks.count,))
    for layer in model.lm.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    # embedding, final norm and head share the root unit: with tied weights they are one parameter
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            if ranks.device.type == "cpu":
                module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum
    return model


def reshard(model):
    """After forward passes without a backward one: free the root unit's gathered weights.

    It keeps them for a backward pass otherwise, and an optimizer or a checkpoint made meanwhile would take hold of the
    gathered copies instead of the shards.
    """
    if isinstance(model, FSDPModule):
        model.reshard()
