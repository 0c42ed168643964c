"""One training step on fake tensors, on any machine: what it holds and multiplies, beside what --plan says of it.

    python -m bench.simulate                                      the cells of the tables in docs/scaling.md
    python -m bench.simulate --cells 7b:16384:8:auto 7b:65536:8:full:lora=16

A cell is MODEL:ROW TOKENS:RANKS:RECOMPUTATION, then options; auto is what fits 80 GiB. Run are the project's own
`shard`, LogProbModel, adapters, AdamW and the copy of a checkpoint, as rank 0 of N ranks that are not there, on torch's
fake tensors: shapes without memory behind them, whose operations compute nothing. Tracked is every storage from its
making to its end, through forward, backward and update of a micro-batch that finds gradients of the one before. Not
seen: what kernels need inside, and what fragments; --plan's allowance for them is left out of the comparison.

The MFU is an estimate: seconds = products / (share · peak) + attention / (share · peak) + bytes / bandwidth, with the
assumptions that are printed. Bytes are those of all other operations: each reads its arguments and writes its results.
Compiled, the operations of the layers between two matrix products are one kernel, which reads what comes from before
it and writes what outlives it. That launches and transfers between GPUs hide behind the products is assumed, too.
"""

import argparse
import re
import sys
import time
import weakref
from types import SimpleNamespace
from unittest import mock

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.harness import SHAPES, config_of, environment_line, table
from data.packing import PackedBatch
from model import logprobs
from model.attention import NAME
from model.checkpoint import Saver
from model.cost import (
    GIB,
    Settings,
    forward_parts,
    longest_rows,
    predict_memory,
    recomputed_flops,
    shape_of,
    train_flops,
)
from model.guard import skeleton
from model.logprobs import LogProbModel, response_sums
from model.lora import add_adapters
from model.metrics import peak_flops
from model.optim import make_optimizer
from model.parallel import ANY_LENGTH, Ranks, recomputed_by, shard
from settings import LoraConfig, OptimConfig, ParallelConfig

MODES = ("none", "products", "selective", "full", "auto")
CELLS = """
3b:16384:1:none 3b:16384:1:full 3b:65536:1:full 3b:65536:8:selective 3b:32768:32:full 3b:65536:32:none
3b:32768:32:full:lora=16 7b:16384:1:full 7b:16384:1:full:lora=16 7b:16384:8:none 7b:16384:8:products 7b:16384:8:full
7b:32768:8:selective 7b:65536:8:full 7b:65536:8:selective:lora=16 14b:16384:8:full 14b:16384:1:selective
14b:32768:8:none:lora=16 14b:16384:32:none 14b:65536:32:selective 7b:16384:8:auto 7b:32768:8:auto 3b:16384:8:auto
14b:16384:8:auto
"""
HEAD = "bench::mm32"  # the head's products, whose results are all float32
PRODUCTS = {"aten::mm", "aten::addmm", HEAD}
SUPERVISED, SEQUENCES = 0.97, 6  # of a row: share of its tokens, and how many responses it holds
# assumed of a GPU: share of its peak in matrix products, and in flash attention (3 on Hopper); bytes/s of other kernels
GPUS = {"A800": (0.80, 0.60, 0.85 * 2.04e12), "H100": (0.70, 0.55, 0.85 * 3.35e12)}


class Tracked(TorchDispatchMode):
    """Follows the storages that operations make, the operations of matrix products and the bytes of all others.

    total, peak: bytes held. flops: of matrix products, attention aside. moved: bytes that all other operations read and
    write; fused: those of them that remain when each run of them in a layer is one kernel.
    """

    def __init__(self):
        super().__init__()
        self.sizes, self.total, self.peak, self.flops, self.moved, self.fused = {}, 0, 0, 0, 0, 0
        self.made, self.read, self.in_head = set(), set(), False  # since the last product: storages; was it the head's

    def hold(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage until it ends."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.sizes:
            weakref.finalize(storage, self.resize, storage._cdata, 0)
        self.resize(storage._cdata, storage.nbytes())

    def resize(self, key: int, size: int) -> None:
        """Note that a storage has another size, 0 for its end."""
        self.total += size - self.sizes.pop(key, 0)
        if size:
            self.sizes[key] = size
        self.peak = max(self.peak, self.total)

    def move(self, read: list[torch.Tensor], made: list[torch.Tensor], fresh: bool) -> None:
        """Count the bytes of an operation. fresh: it writes into no tensor that was there before."""
        size = lambda tensors: sum(x.numel() * x.element_size() for x in tensors)  # noqa: E731
        self.moved += size((*read, *made))
        if self.in_head or not fresh:
            self.fused += size((*read, *made))
            return
        # one kernel with the operations before it: what comes from outside is read once, what outlives it is written
        for x in read:
            if (key := x.untyped_storage()._cdata) not in self.made | self.read:
                self.read.add(key)
                self.fused += size((x,))
        self.made |= {x.untyped_storage()._cdata for x in made}

    def multiply(self, name: str, a: torch.Tensor, b: torch.Tensor) -> None:
        """Count a matrix product, which ends a run of other operations."""
        self.flops += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        self.fused += sum(self.sizes.get(key, 0) for key in self.made)
        self.made, self.read, self.in_head = set(), set(), name == HEAD

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        if func is torch.ops.aten.silu_backward.default:  # one kernel on a GPU, five without one
            out = torch.empty_like(args[0])
        else:
            out = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        fresh = bool(made) and all(x.untyped_storage()._cdata not in self.sizes for x in made)
        for tensor in made:
            self.hold(tensor)
        if (name := func.overloadpacket._qualified_op_name) in PRODUCTS:
            self.multiply(name, *args[-2:])
        elif not func.is_view and func.namespace in ("aten", "fsdp") and "empty" not in name:
            self.move([x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)], made, fresh)
        return out

    def __enter__(self):
        # FSDP gives gathered weights back by resizing their storage, which is no operation
        self.resize_ = torch.UntypedStorage.resize_

        def resize_(storage, size):
            self.resize_(storage, size)
            self.resize(storage._cdata, size)

        torch.UntypedStorage.resize_ = resize_
        return super().__enter__()

    def __exit__(self, *exc):
        torch.UntypedStorage.resize_ = self.resize_
        return super().__exit__(*exc)


def simulate(name: str, row: int, count: int, mode: str, lora: int = 0) -> dict:
    """Run one micro-batch and one update of rank 0 of `count`. mode: of recomputation. lora: rank of adapters.

    Returns a row of the table: what was tracked beside what is planned, and MFU estimates.
    """
    config = config_of(name)
    shape, settings = shape_of(config), Settings(count, checkpointing=mode, lora_rank=lora)
    chosen = recomputed_by(row, longest_rows(shape, settings, 80 * GIB))
    dist.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    ranks = object.__new__(Ranks)  # without asking the environment
    ranks.rank, ranks.count, ranks.device = 0, count, torch.device("cpu")
    mesh = dist.init_device_mesh("cpu", (count,), mesh_dim_names=("shard",))  # numbers, which fake tensors have not

    # the model as training builds it; torch's varlen attention stands for all flash kernels: it keeps what they keep
    lm = skeleton(config, name, torch.float32, NAME)
    lm.config.packed_backend = "varlen"
    model = LogProbModel(lm)
    if lora:
        add_adapters(lm, LoraConfig(rank=lora), torch.bfloat16)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.autograd.set_multithreading_enabled(False):
        with mock.patch.object(dist, "init_device_mesh", return_value=mesh):
            shard(model, ParallelConfig(), ranks, torch.bfloat16, {chosen: ANY_LENGTH})
        lm.model.rotary_emb = type(lm.model.rotary_emb)(config=lm.config)
        optimizer = make_optimizer(OptimConfig(lr=1e-6), model.train())
        # as after the first micro-batch of a later step: moments are there, and gradients; and DTensor has derived how
        # clipping and the update are sharded, on shapes of whole tensors that no GPU ever holds
        trained = [p for p in model.parameters() if p.requires_grad]
        for _ in range(2):
            for parameter in trained:
                parameter.grad = torch.zeros_like(parameter)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()

        tracker = Tracked()
        state = [v for moments in optimizer.state.values() for v in moments.values() if isinstance(v, torch.Tensor)]
        for tensor in (*model.parameters(), *(p.grad for p in trained), *state):
            tracker.hold(tensor.to_local() if isinstance(tensor, DTensor) else tensor)
        with tracker:
            batch, lengths = made_up_batch(row)
            response_sums(model(batch), batch).sum().backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        # what a checkpoint copies, at the point where a thread would begin to write it
        saver, kept = object.__new__(Saver), []
        saver.pending, saver.thread = None, SimpleNamespace(submit=lambda write, step, state, extra: kept.append(state))
        saver.save(1, model, optimizer, {})
    dist.destroy_process_group()

    # beside it, what --plan says
    copied = [t.to_local() if isinstance(t, DTensor) else t for t in tree_leaves(kept) if isinstance(t, torch.Tensor)]
    plan = predict_memory(shape, Settings(count, checkpointing=chosen, lora_rank=lora), row)
    planned = plan.total - plan.parts["kernels, fragmentation"]
    supervised = sum(batch.response_lens)
    head, scores = forward_parts(shape, lengths, supervised)[1:]
    useful = train_flops(shape, lengths, supervised, lora)
    again, scores_again = recomputed_flops(shape, lengths, chosen, lora)
    found = {
        "recomputed": chosen,
        "GiB tracked": tracker.peak / GIB, "planned": planned / GIB, "planned / tracked": planned / tracker.peak,
        "CPU GiB of a checkpoint": sum(t.numel() * t.element_size() for t in copied) / GIB,
        "CPU GiB planned": plan.cpu / GIB,
        "products planned / counted": (useful - 3 * scores + head + again) / tracker.flops,
    }  # fmt: skip
    # the backward pass of flash attention computes five products where the forward one has two
    attention = 3.5 * scores + scores_again
    for gpu, (products, flash, bandwidth) in GPUS.items():
        peak, mfu = peak_flops(gpu), []
        for moved in (tracker.moved, tracker.fused):
            seconds = tracker.flops / (peak * products) + attention / (peak * flash) + moved / bandwidth
            mfu.append(f"{useful / (seconds * peak):.0%}")
        found[f"MFU on {gpu}, compiled"] = ", ".join(mfu)
    return found


def made_up_batch(row: int) -> tuple[PackedBatch, list[int]]:
    """Make a row of SEQUENCES sequences, of which SUPERVISED of the tokens are, and list their lengths."""
    lengths = [row // SEQUENCES] * (SEQUENCES - 1) + [row - row // SEQUENCES * (SEQUENCES - 1)]
    responses = [int(SUPERVISED * n) for n in lengths]
    tokens, labels = torch.empty(1, row, dtype=torch.int64), torch.empty(sum(responses), dtype=torch.int64)
    bounds = torch.empty(SEQUENCES + 1, dtype=torch.int32)
    return PackedBatch(tokens, tokens, bounds, max(lengths), labels, labels, responses), lengths


@torch.library.custom_op(HEAD, mutates_args=())
def mm32(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply bfloat16 matrices and hand out the float32 sums: torch.mm with out_dtype, which CUDA alone has."""
    return a.float() @ b.float()


@mm32.register_fake
def _(a, b):
    return a.new_empty(len(a), b.shape[1], dtype=torch.float32)


def read_cell(text: str) -> tuple:
    """Read a cell as it is written on the command line: (the text, the arguments of `simulate`)."""
    found = re.fullmatch(
        rf"({'|'.join(map(re.escape, SHAPES))}):([0-9]+):([0-9]+):({'|'.join(MODES)})(?::lora=([0-9]+))?", text
    )
    if not found:
        shape = f"{'|'.join(SHAPES)}:ROW TOKENS:RANKS:{'|'.join(MODES)}, then perhaps :lora=RANK"
        raise argparse.ArgumentTypeError(f"{text!r} is not {shape}, e.g. 7b:32768:8:full")
    row, ranks, lora = (int(found[i] or 0) for i in (2, 3, 5))
    limits = {"a row's tokens": (row, SEQUENCES, ANY_LENGTH), "ranks": (ranks, 1, 1024),
              "lora": (lora, 0, SHAPES[found[1]][2])}  # fmt: skip
    for what, (number, least, most) in limits.items():
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: {what} must be from {least} to {most}, not {number}")
    return text, (found[1], row, ranks, found[4], lora)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cells = [read_cell(cell) for cell in CELLS.split()]
    parser.add_argument("--cells", nargs="+", type=read_cell, default=cells, metavar="CELL")
    args = parser.parse_args()
    print(environment_line(), end="\n\n")
    for gpu, (products, attention, bandwidth) in GPUS.items():
        print(f"assumed of an {gpu}: products at {products:.0%} and attention at {attention:.0%} of "
              f"{peak_flops(gpu) / 1e12:.0f} TFLOP/s, all else at {bandwidth / 1e12:.2f} TB/s")  # fmt: skip
    logprobs.mm32 = mm32
    rows = []
    for text, cell in args.cells:
        began = time.perf_counter()
        rows.append({"model:row:ranks:mode": text} | simulate(*cell))
        print("\n".join(table(rows).splitlines()[-1 if len(rows) > 1 else 0 :]), flush=True)
        print(f"{text} in {time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
