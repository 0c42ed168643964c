"""Token log-probs from hidden states, forward and backward: ours against the other ways not to hold the logits.

    python -m bench.logprobs                                          every implementation that runs here
    python -m bench.logprobs --tokens 4096 --dtype bfloat16 --rows ours naive torch

Each row is a fresh process: the same random hidden states and head, the labels' probabilities spread from 1e-5 to
0.9999, and another upstream gradient for every token, as a preference loss has it. Memory is the peak beyond the
arguments, gradients included. Errors are against float64 on the first tokens: the largest of a log-prob in nats, and
the relative Frobenius norm of the gradients'. On CUDA the size is that of Qwen2.5-7B's head at 16k tokens.

The others come from bench/requirements.txt; a row that cannot run here says why.
"""

import argparse
import ctypes
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from bench.common import environment_line, memory_now, memory_peak, python, report, run, table
from model.logprobs import linear_logps

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
SIZE = {"tokens": 16384, "vocabulary": 152064, "hidden": 3584} if CUDA else {
    "tokens": 1024, "vocabulary": 49152, "hidden": 576,
}  # fmt: skip
EXACT_TOKENS = 256  # of those that are compared with float64


def naive(h, weight, labels):
    return -F.cross_entropy((h @ weight.T).float(), labels, reduction="none")


def torch_chunked(h, weight, labels, **options):
    options = torch.nn.LinearCrossEntropyOptions(**options)  # without any: its own choice for this device and dtype
    return -F.linear_cross_entropy(h, weight, labels, reduction="none", options=options)


def torch_chunks_of_256(h, weight, labels):
    return torch_chunked(h, weight, labels, batch_chunk_size=256, chunking_method=None)


def liger(h, weight, labels, **options):
    if not CUDA:
        raise SystemExit("needs CUDA (Triton)")
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return -LigerFusedLinearCrossEntropyLoss(reduction="none", **options)(weight, h, labels)


def liger_float32(h, weight, labels):
    return liger(h, weight, labels, accum_dtype=torch.float32)


def cut(h, weight, labels, **options):
    if not CUDA:
        raise SystemExit("needs CUDA (Triton); its CPU fallback holds the logits")
    from cut_cross_entropy import linear_cross_entropy

    return -linear_cross_entropy(h, weight, labels, reduction="none", **options)


def cut_exact(h, weight, labels):
    return cut(h, weight, labels, filter_eps=None)


ROWS = {
    "ours": (linear_logps, "ours"),
    "naive": (naive, "full logits"),
    "torch": (torch_chunked, "torch F.linear_cross_entropy, chunked"),
    "torch256": (torch_chunks_of_256, "torch F.linear_cross_entropy, 256 tokens a chunk"),
    "liger": (liger, "Liger fused linear cross-entropy"),
    "liger32": (liger_float32, "Liger fused linear cross-entropy, accum_dtype=float32"),
    "cut": (cut_exact, "cut-cross-entropy, no gradient filter"),
    "cut-filter": (cut, "cut-cross-entropy as it comes (filters gradients)"),
}


def problem(tokens, vocabulary, hidden, dtype):
    """h [T, H], weight [V, H], labels [T], upstream gradient [T] float32, in nats of a loss of order one."""
    made = torch.Generator(DEVICE).manual_seed(0)
    weight = torch.empty(vocabulary, hidden, dtype=dtype, device=DEVICE).normal_(std=hidden**-0.5, generator=made)
    labels = torch.randint(vocabulary, (tokens,), device=DEVICE, generator=made)
    certainty = torch.rand(tokens, 1, device=DEVICE, generator=made) * 25
    h = 2 * torch.randn(tokens, hidden, device=DEVICE, generator=made) + certainty * weight[labels]
    upstream = torch.rand(tokens, device=DEVICE, generator=made) / tokens
    return h.to(dtype), weight, labels, upstream


def forward_backward(function, h, weight, labels, upstream):
    """Seconds of wall clock and of CPU time, log-probs and both gradients."""
    h, weight = h.detach().requires_grad_(), weight.detach().requires_grad_()
    began, cpu = time.perf_counter(), time.process_time()
    logps = function(h, weight, labels)
    logps.backward(upstream.to(logps.dtype))
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - began, time.process_time() - cpu, logps.detach(), h.grad, weight.grad


def errors(function, h, weight, labels, upstream):
    h, labels, upstream = h[:EXACT_TOKENS], labels[:EXACT_TOKENS], upstream[:EXACT_TOKENS]
    ours = forward_backward(function, h, weight, labels, upstream)[2:]
    exact = forward_backward(full_float64, h.double(), weight.double(), labels, upstream.double())[2:]
    logps, grads = (ours[0] - exact[0]).abs().max(), zip(ours[1:], exact[1:], strict=True)
    return [logps.item(), *((a.double() - e).norm().div(e.norm()).item() for a, e in grads)]


def full_float64(h, weight, labels):
    return (h @ weight.T).log_softmax(-1).gather(-1, labels[:, None])[:, 0]


def worker(args):
    function, _ = ROWS[args.worker]
    arguments = problem(args.tokens, args.vocabulary, args.hidden, getattr(torch, args.dtype))
    forward_backward(function, *arguments)  # Triton kernels are compiled here
    runs = [forward_backward(function, *arguments)[:2] for _ in range(args.repeats)]
    wall, cpu = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
    before = start_of_peak()
    forward_backward(function, *arguments)
    peak = memory_peak() - before
    report(wall=wall, cpu=cpu, peak=peak, errors=errors(function, *arguments))


def start_of_peak():
    """Forget earlier peaks. Returns the bytes held now."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    else:
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((-3, 1 << 16), (-2, 0), (-1, 0)):  # M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD:
            libc.mallopt(option, value)  # what is freed goes back to the kernel
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak of resident memory starts again from now
    return memory_now()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in SIZE.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16" if CUDA else "float32")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=10 if CUDA else 2, help="timed passes a process")
    parser.add_argument("--rounds", type=int, default=1 if CUDA else 3, help="processes a row, the rows taking turns")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU")
    parser.add_argument("--worker", choices=ROWS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        return worker(args)

    words = [f"--{name}={getattr(args, name)}" for name in (*SIZE, "dtype", "repeats")]
    found = {name: [] for name in args.rows}
    for _ in range(args.rounds):
        for name, runs in found.items():
            runs.append(run(python("-m", "bench.logprobs", "--worker", name, *words), threads=args.threads))
    print(environment_line("liger-kernel", "cut-cross-entropy"))
    print(f"\nT = {args.tokens}, V = {args.vocabulary}, H = {args.hidden}, {args.dtype}; ", end="")
    print("time and memory as multiples of the first row's\n")
    print(table([row(name, runs, found[args.rows[0]]) for name, runs in found.items()]))
    return 0


def row(name, runs, first):
    label = ROWS[name][1]
    good, base = [r.report for r in runs if r.report], [r.report for r in first if r.report]
    keys = ("ms", "CPU ms", "time ×", "peak MB", "memory ×", "log p", "grad h", "grad W")
    if not good:
        reason = runs[0].tail.strip().splitlines()[-1][:100]
        return {"": f"{label}: {reason}"} | dict.fromkeys(keys)

    def median(reports, key):
        return statistics.median(r[key] for r in reports)

    clock = "wall" if CUDA else "cpu"  # a busy machine stretches the wall clock
    values = (
        1e3 * median(good, "wall"), 1e3 * median(good, "cpu"), median(good, clock) / median(base, clock),
        median(good, "peak") / 1e6, median(good, "peak") / median(base, "peak"), *good[0]["errors"],
    )  # fmt: skip
    return {"": label} | dict(zip(keys, values, strict=True))


if __name__ == "__main__":
    sys.exit(main())
