"""How long batch plans take, how full their rows are, and how long GPUs would wait for each other.

    python -m bench.planning                     1k … 114k problems, a minute or two on one core
    python -m bench.planning --problems 1000     only so many

Lengths: with --lengths (JSON: {model: tokens of each response}), the responses of R1-Distill-Qwen 1.5B, 14B and 32B to
the same 100 problems, drawn again and again with ±5 % of noise; without it, log-normal ones (median 7,000, σ 0.6, the
three of a problem within ±20 %). Both are stretched or cut so that the longest has 16,384 tokens. An SFT example is one
response, a CogPO triad three of one problem, which travel together. "Before" is a plan that knows no costs: best-fit
decreasing, dealt to ranks by length. Time is linear + attention cost of Qwen2.5-7B (model/flops.py).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from transformers import Qwen2Config

from bench.common import ROOT, environment_line, table
from data.packing import Unit, _best_fit, _split, plan_epoch, plan_micro_batches, plan_stats
from model.flops import quadratic, shape_of

RECORDED = ROOT.parent / "shared" / "data" / "long_cot" / "token_lengths.json"
LONGEST = 16384
BATCH = 96  # Table 8: examples, or pairs, a step
QWEN_7B = Qwen2Config(
    vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
    num_key_value_heads=4, tie_word_embeddings=False,
)  # fmt: skip


def triad_lengths(problems, recorded_file=RECORDED):
    """(tokens of three responses to each problem [problems, 3], where they are from)"""
    rng = np.random.default_rng(0)
    if recorded_file.is_file():
        models = [f"deepseek-r1-distill-qwen-{size}" for size in ("1.5b", "14b", "32b")]
        recorded = np.array([json.loads(recorded_file.read_text())[name] for name in models]).T
        drawn = recorded[rng.integers(0, len(recorded), problems)] * rng.uniform(0.95, 1.05, (problems, 3))
        drawn, source = drawn * LONGEST / recorded.max(), f"{recorded_file.name}, {len(recorded)} problems, stretched"
    else:
        drawn = rng.lognormal(np.log(7000), 0.6, (problems, 1)) * rng.uniform(0.8, 1.2, (problems, 3))
        source = "log-normal"
    return np.clip(drawn.round().astype(int), 1, LONGEST), source


def units_of(kind, lengths):
    """(units, tokens of each sequence)"""
    if kind == "SFT":
        return [Unit((i,)) for i in range(len(lengths))], lengths[:, 0].tolist()
    return [Unit((3 * i, 3 * i + 1, 3 * i + 2), items=3) for i in range(len(lengths))], lengths.ravel().tolist()


def before(step, units, lengths, max_tokens, num_ranks):
    """Micro-batches by length alone: what costs and levelling are compared with."""
    sizes = {u: sum(lengths[s] for s in units[u].seqs) for u in step}
    rows = _best_fit(step, sizes, max_tokens)
    rows = _split(rows, sizes, -(-len(rows) // num_ranks) * num_ranks)
    rows.sort(key=lambda row: -sum(sizes[u] for u in row))
    return [rows[rank::num_ranks] for rank in range(num_ranks)]


def mean_stats(plans, units, lengths, max_tokens, attention):
    stats = [plan_stats(plan, units, lengths, max_tokens, attention) for plan in plans]
    return {key: float(np.mean([s[key] for s in stats])) for key in ("fill", "idle")}


def best_fill(step, units, lengths, max_tokens, num_ranks):
    """The fill of a plan without any gap but the one that equal numbers of rows leave."""
    sizes = [sum(lengths[s] for s in units[u].seqs) for u in step]
    over = [size for size in sizes if size > max_tokens]
    rows = len(over) - (-(sum(sizes) - sum(over)) // max_tokens)
    return sum(sizes) / (sum(over) + (-(-rows // num_ranks) * num_ranks - len(over)) * max_tokens)


def growth(counts, lengths, attention, max_tokens=32768):
    for kind in ("SFT", "CogPO"):
        for problems in counts:
            units, tokens = units_of(kind, lengths[:problems])
            began = time.perf_counter()
            steps = plan_epoch(units, BATCH, 0, 0)
            row = {"units": kind, "problems": problems, "steps": len(steps), "epoch, s": time.perf_counter() - began}
            for ranks in (1, 8):
                began = time.perf_counter()
                plans = [plan_micro_batches(step, units, tokens, max_tokens, ranks, attention) for step in steps]
                row[f"micro-batches on {ranks}, s"] = time.perf_counter() - began
                stats = mean_stats(plans[:-1] or plans, units, tokens, max_tokens, attention)
                row[f"fill on {ranks}"] = f"{stats['fill']:.1%}"
            row[f"idle on {ranks}"] = f"{stats['idle']:.1%}"
            yield row


def settings(lengths, attention, number=40):
    for kind in ("SFT", "CogPO"):
        units, tokens = units_of(kind, lengths)
        for batch in (BATCH, 10 * BATCH):
            steps = plan_epoch(units, batch, 0, 0)[:-1][:number]
            for max_tokens in (16384, 32768, 65536, 131072):
                row = {"units": kind, "batch": batch, "max_tokens": max_tokens}
                for ranks in (1, 8):
                    run = (units, tokens, max_tokens)
                    new = mean_stats([plan_micro_batches(s, *run, ranks, attention) for s in steps], *run, attention)
                    old = mean_stats([before(s, *run, ranks) for s in steps], *run, attention)
                    best = np.mean([best_fill(s, *run, ranks) for s in steps])
                    row[f"fill on {ranks} (before; gapless)"] = f"{new['fill']:.1%} ({old['fill']:.1%}; {best:.1%})"
                    if ranks > 1:
                        row[f"idle on {ranks} (before)"] = f"{new['idle']:.1%} ({old['idle']:.1%})"
                yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, nargs="+", default=[1000, 4000, 17000, 57000, 114000])
    parser.add_argument("--lengths", type=Path, help="recorded lengths")
    args = parser.parse_args()
    if args.lengths and not args.lengths.is_file():
        parser.error(f"no such file: {args.lengths}")
    counts = args.problems
    lengths, source = triad_lengths(max(*counts, 15000), args.lengths or RECORDED)
    attention = quadratic(shape_of(QWEN_7B))
    print(environment_line("numpy"))
    print(f"lengths: {source}; mean {lengths.mean():.0f}, longest {lengths.max()} tokens\n")
    print(f"Batch {BATCH}, rows of 32,768 tokens, on 1 and on 8 ranks:\n")
    print(table(list(growth(counts, lengths, attention))))
    print("\nBy setting (40 steps each):\n")
    print(table(list(settings(lengths, attention))))
    print(
        "\nFill is low where a step has few rows: their number is rounded up, to a whole one and to a multiple of the "
        "ranks\n(gapless: the same rounding and no other gap), and where units are so large that no two share a row. "
        "Rows are not\npadded, so a gap costs no computation; idle does."
    )


if __name__ == "__main__":
    main()
