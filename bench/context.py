"""Tokens a second of one training step, forward and backward, as the context grows from 1k to 32k tokens.

    python -m bench.context                                 tiny on a CPU, 7B-shaped in bfloat16 on one GPU
    python -m bench.context --shape 135m --lengths 512 1024 2048

A row is one sequence of that many tokens, every token but the first supervised. The weights are random and lie in the
compute dtype on one device; the optimizer and sharding are other benchmarks' matter. FLOP/s count what model/flops.py
counts: causal attention, and nothing that checkpointing or the head computes again. A length that would take longer
than is left of --limit, judged by the one before it, is not run.
"""

import argparse
import statistics
import sys
import time

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from bench.common import environment_line, memory_now, memory_peak, table
from bench.logprobs import CUDA, DEVICE
from bench.workload import SHAPES
from data.packing import pack
from data.render import Sequence
from model.attention import NAME, choose_backend
from model.flops import peak_flops, shape_of, train_flops
from model.logprobs import LogProbModel
from model.recompute import checkpointed

LENGTHS = [2**n for n in range(10, 16)]
KEYS = ("seconds", "tokens/s", "TFLOP/s", "MFU %", "GB beyond weights")


def make_model(name, dtype, backend, checkpointing, compiled):
    family, layers, hidden, mlp, heads, kv_heads, vocab, tied = SHAPES[name]
    config = family(
        num_hidden_layers=layers, hidden_size=hidden, intermediate_size=mlp, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=vocab, tie_word_embeddings=tied, max_position_embeddings=LENGTHS[-1],
    )  # fmt: skip
    torch.manual_seed(0)
    with DEVICE:
        lm = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=NAME)
    lm.config.packed_backend = choose_backend(backend, DEVICE, dtype)
    for layer in lm.model.layers:
        layer.forward = checkpointed(layer.forward, checkpointing)
        if compiled:
            layer.forward = torch.compile(layer.forward)
    return LogProbModel(lm.train())


def step_seconds(model, batch):
    began = time.perf_counter()
    (-model(batch).sum() / len(batch.labels)).backward()
    if CUDA:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    model.zero_grad(set_to_none=True)
    return seconds


def measure(model, length, repeats):
    """Median seconds of a step and, on CUDA, the peak of memory beyond the weights in bytes, gradients included."""
    ids = np.random.default_rng(length).integers(model.lm.config.vocab_size, size=length)
    batch = pack([Sequence(ids.astype(np.int32), 1)]).to(DEVICE)
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    held = memory_now()
    seconds = statistics.median(step_seconds(model, batch) for _ in range(repeats))
    return seconds, memory_peak() - held if CUDA else None


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="7b" if CUDA else "tiny")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="tokens, ascending")
    parser.add_argument("--attention", choices=["auto", "flash", "varlen", "sdpa"], default="auto")
    parser.add_argument("--checkpointing", choices=["none", "selective", "full"], default="full" if CUDA else "none")
    parser.add_argument("--compile", action="store_true", help="torch.compile each layer")
    parser.add_argument("--limit", type=float, default=150, help="seconds for all lengths together")
    args = parser.parse_args(argv)
    dtype = torch.bfloat16 if CUDA else torch.float32
    model = make_model(args.shape, dtype, args.attention, args.checkpointing, args.compile)
    shape, peak = shape_of(model.lm.config), peak_flops(torch.cuda.get_device_name()) if CUDA else None
    began, rows, rate = time.perf_counter(), [], None
    measure(model, args.lengths[0], 2)  # kernels are chosen and compiled here
    for length in args.lengths:
        flops = train_flops(shape, [length], length - 1)
        row = {"context": length} | dict.fromkeys(KEYS)
        if rate is None or time.perf_counter() - began + flops / rate < args.limit:
            seconds, memory = measure(model, length, min(8, max(1, 16384 // length)))
            rate = flops / seconds
            mfu = 100 * rate / peak if peak else None
            values = (seconds, length / seconds, rate / 1e12, mfu, memory and memory / 1e9)
            row |= zip(KEYS, values, strict=True)
        rows.append(row)
    print(environment_line(), end="\n\n")
    print(f"{args.shape}, {dtype}, attention {model.lm.config.packed_backend}, ", end="")
    print(f"checkpointing {args.checkpointing}{', compiled' * args.compile}, {torch.get_num_threads()} CPU threads\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
