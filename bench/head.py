"""Token log-probs from hidden states, forward and backward: ours against the other ways not to hold the logits.

    python -m bench.head                                          every implementation that runs here
    python -m bench.head --tokens 4096 --dtype bfloat16 --rows ours naive torch

Each row is a fresh process: the same random hidden states and head, labels of probability 1e-5 to 0.9999, and another
upstream gradient for every token, as a preference loss has it. Time is processor time on a CPU. Memory is the peak
beyond the arguments, gradients included. Errors are against float64: the largest of a log-prob in nats, and the
relative Frobenius norm of the gradients'. On CUDA the size is that of Qwen2.5-7B's head at 16k tokens.
"""

import argparse
import ctypes
import functools
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from bench.harness import environment_line, memory_now, memory_peak, report, run, table
from model.logprobs import linear_logps

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
SIZE = dict(zip(("tokens", "vocabulary", "hidden"), (16384, 152064, 3584) if CUDA else (1024, 49152, 576), strict=True))
EXACT_TOKENS = 256  # of those that are compared with float64
COLUMNS = ("", "ms", "time ×", "peak MB", "memory ×", "log p", "grad h", "grad W")
UNITS = {"seconds": 1e-3, "peak": 1e6}  # of the table: ms, MB
CHUNKS_OF_256 = {"batch_chunk_size": 256, "chunking_method": None}


def full_logits(h, weight, labels):
    return -F.cross_entropy((h @ weight.T).float(), labels, reduction="none")


def torch_chunked(h, weight, labels, **options):
    options = torch.nn.LinearCrossEntropyOptions(**options)  # without any: its own choice for this device and dtype
    return -F.linear_cross_entropy(h, weight, labels, reduction="none", options=options)


def liger(h, weight, labels, **options):
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return -LigerFusedLinearCrossEntropyLoss(reduction="none", **options)(weight, h, labels)


def cut(h, weight, labels, **options):
    from cut_cross_entropy import linear_cross_entropy

    return -linear_cross_entropy(h, weight, labels, reduction="none", **options)


ROWS = {  # function of (h [T, H], weight [V, H], labels [T]) -> log-probs [T]; its options; its name in the table
    "ours": (linear_logps, {}, "ours"),
    "naive": (full_logits, {}, "full logits"),
    "torch": (torch_chunked, {}, "torch F.linear_cross_entropy, chunked"),
    "torch256": (torch_chunked, CHUNKS_OF_256, "torch F.linear_cross_entropy, 256 tokens a chunk"),
    "liger": (liger, {}, "Liger fused linear cross-entropy"),
    "liger32": (liger, {"accum_dtype": torch.float32}, "Liger fused linear cross-entropy, accum_dtype=float32"),
    "cut": (cut, {"filter_eps": None}, "cut-cross-entropy, no gradient filter"),
    "cut-filter": (cut, {}, "cut-cross-entropy as it comes (filters gradients)"),
}


def problem(tokens: int, vocabulary: int, hidden: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Draw h [T, H], weight [V, H], labels [T] and the upstream gradient [T] (float32, of a mean over the tokens)."""
    made = torch.Generator(DEVICE).manual_seed(0)
    weight = torch.empty(vocabulary, hidden, dtype=dtype, device=DEVICE).normal_(std=hidden**-0.5, generator=made)
    labels = torch.randint(vocabulary, (tokens,), device=DEVICE, generator=made)
    certainty = torch.rand(tokens, 1, device=DEVICE, generator=made) * 25
    h = 2 * torch.randn(tokens, hidden, device=DEVICE, generator=made) + certainty * weight[labels]
    upstream = torch.rand(tokens, device=DEVICE, generator=made) / tokens
    return h.to(dtype), weight, labels, upstream


def forward_backward(function, h, weight, labels, upstream):
    """Return seconds (on a CPU of processor time), log-probs [T] and the gradients of h and weight."""
    h, weight = h.detach().requires_grad_(), weight.detach().requires_grad_()
    clock = time.perf_counter if CUDA else time.process_time  # a busy machine stretches the wall clock
    began = clock()
    logps = function(h, weight, labels)
    logps.backward(upstream.to(logps.dtype))
    if CUDA:
        torch.cuda.synchronize()
    return clock() - began, logps.detach(), h.grad, weight.grad


def errors(function, h, weight, labels, upstream):
    """Compare with float64: the largest error of a log-prob in nats, and the relative ones of both gradients."""

    def float64(h, weight, labels):
        return (h @ weight.T).log_softmax(-1).gather(-1, labels[:, None])[:, 0]

    h, labels, upstream = h[:EXACT_TOKENS], labels[:EXACT_TOKENS], upstream[:EXACT_TOKENS]
    found = forward_backward(function, h, weight, labels, upstream)[1:]
    exact = forward_backward(float64, h.double(), weight.double(), labels, upstream.double())[1:]
    grads = zip(found[1:], exact[1:], strict=True)
    worst = (found[0] - exact[0]).abs().max().item()
    return [worst, *((a.double() - e).norm().div(e.norm()).item() for a, e in grads)]


def measure(args):
    """Measure one implementation; this process does nothing else."""
    function, options, _ = ROWS[args.worker]
    if function in (liger, cut) and not CUDA:
        raise SystemExit("needs CUDA (Triton)")
    function = functools.partial(function, **options)
    arguments = problem(args.tokens, args.vocabulary, args.hidden, getattr(torch, args.dtype))
    forward_backward(function, *arguments)  # Triton kernels are compiled here
    seconds = statistics.median(forward_backward(function, *arguments)[0] for _ in range(args.repeats))

    # the peak of one more pass; on a CPU what is freed must go back to the kernel (M_MMAP_THRESHOLD, M_TOP_PAD,
    # M_TRIM_THRESHOLD), whose own record of the peak is then cleared
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    else:
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((-3, 1 << 16), (-2, 0), (-1, 0)):
            libc.mallopt(option, value)
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    before = memory_now()
    forward_backward(function, *arguments)
    report(seconds=seconds, peak=memory_peak() - before, errors=errors(function, *arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in SIZE.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16" if CUDA else "float32")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="the first is what 1 stands for")
    parser.add_argument("--repeats", type=int, default=10 if CUDA else 5, help="timed passes")
    parser.add_argument("--worker", choices=ROWS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return measure(args)
    print(environment_line("liger-kernel", "cut-cross-entropy"))
    print(f"\nT = {args.tokens}, V = {args.vocabulary}, H = {args.hidden}, {args.dtype}, one CPU thread; ", end="")
    print("time and memory as multiples of the first row's\n")

    words = [f"--{name}={getattr(args, name)}" for name in (*SIZE, "dtype", "repeats")]
    first, rows = None, []
    for name in args.rows:
        found, said, _ = run("-m", "bench.head", "--worker", name, *words, OMP_NUM_THREADS="1")
        label, values, first = ROWS[name][2], [None] * 7, first or found
        if found:
            sizes = [found[key] / unit for key in UNITS for unit in (UNITS[key], first[key])]
            values = [*sizes, *found["errors"]]
        else:
            label += ": " + said.strip().splitlines()[-1][:100]
        rows.append(dict(zip(COLUMNS, [label, *values], strict=True)))
    print(table(rows))


if __name__ == "__main__":
    main()
