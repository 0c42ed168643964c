"""Two trainers on one step over the same records: search each one's settings, then the best of both in turns.

The step is repeated, so the losses of both sides must agree step by step; where they do not, the comparison is void and
the benchmark stops. Rates are medians over repeats of the steps after the first.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import is_flash_attn_2_available

from bench.common import environment_line, python, run, table
from bench.workload import SHAPES, write_first

LR = 1e-5
CPU_CASES = ["tiny:1024", "135m:384"]
CUDA_CASES = [f"{shape}:{length}" for shape in ("1.5b", "7b") for length in (2048, 4096, 8192, 16384)]


def main(doc, prepare, argv):
    """The command line of a comparison.

    prepare(model, file or None, problems, length, steps, folder, cuda) returns (what the records are, our Candidates,
    the other trainer's, items a step, their unit); it writes random records into `folder` if there is no file.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", help="MODEL:LENGTH; MODEL a shape of bench/workload.py or a folder")
    parser.add_argument("--file", help="take the first records of this file instead of random ones")
    parser.add_argument("--records", type=int, default=24, help="how many records of --file")
    parser.add_argument("--problems", type=int, help="random problems a step, three responses each (8; 2 with 135m)")
    parser.add_argument("--steps", type=int, default=2, help="steps that are timed, after the first")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the best settings of each side, in turns")
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of both sides")
    parser.add_argument("--timeout", type=float, help="seconds after which a run counts as failed")
    args = parser.parse_args(argv)
    cuda = torch.cuda.is_available()
    print(environment_line("trl", "peft", "liger-kernel", "flash-attn"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in args.cases or (CUDA_CASES if cuda else CPU_CASES):
            shape, length = case.rsplit(":", 1)
            model = shape
            if shape in SHAPES:
                model = f"{folder}/{shape}"
                if not Path(model).exists():
                    made = run(python("-m", "bench.workload", model, shape))  # elsewhere, to hold no GPU memory here
                    assert made.status == 0, made.tail
            file = write_first(f"{folder}/records.jsonl", args.file, args.records) if args.file else None
            problems = args.problems or (2 if shape == "135m" else 8)
            what, ours, theirs, items, unit = prepare(model, file, problems, int(length), args.steps, folder, cuda)
            rows, ratios = compare(
                f"{case}, {what}", ours, theirs, items, unit, args.repeats, args.threads, args.timeout
            )
            lines = [f"{name}: ours / TRL = {value:.2f}" for name, value in ratios.items()]
            print("\n" + (table(rows) if rows else f"{case}: nothing ran"), "", *lines, sep="\n", flush=True)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One side with one choice of settings. side: bench.worker's. name: the side in the table. same: it optimises the
    very same objective as the others; if not, it is shown, and neither checked nor compared."""

    name: str
    settings: str
    side: str
    spec: dict
    same: bool = True


def compare(case, ours, theirs, items, unit, repeats, threads, timeout):
    """Search, check, repeat. Returns (table rows, {"name of a ratio": value}).

    ours, theirs: lists of Candidates. items: how many `unit` (pairs, supervised tokens) a step holds. The first step of
    a run is not timed.
    """
    found = {}
    for candidate in [*ours, *theirs]:
        done = measure(candidate, threads, timeout)
        if done:
            found[candidate] = [done]
    agree(found)
    sides = [[c for c in side if c in found and c.same] for side in (ours, theirs)]
    for _ in range(repeats - 1):  # A B A B: what disturbs the machine disturbs both
        for side in filter(None, sides):
            best = fastest(side, found)
            again = measure(best, threads, timeout)
            found[best] += [again] if again else []
    return summary(case, found, sides, items, unit)


def summary(case, found, sides, items, unit):
    """(table rows, ratios) of all runs; no ratios if one side never ran.

    found: {Candidate: [report]}. sides: [our Candidates, the other trainer's], those that are compared.
    """
    fast = [fastest(side, found) for side in sides if side]
    lean = [min(side, key=lambda c: found[c][0]["memory"]) for side in sides if side]
    rows = []
    for candidate, reports in found.items():
        marks = "fastest" * (candidate in fast), "leanest" * (candidate in lean), "differs" * (not candidate.same)
        rows.append(
            {
                "case": case,
                "trainer": candidate.name,
                "settings": candidate.settings,
                f"{unit}/s": rate(reports, items, "seconds"),
                f"{unit}/CPU-s": rate(reports, items, "cpu_seconds"),
                "reference, s": statistics.median(r["reference"] for r in reports) or None,
                "memory, GB": memory(reports) / 1e9,
                "runs": len(reports),
                "": ", ".join(filter(None, marks)),
            }
        )

    if len(fast) < 2:  # one of them did not fit
        return rows, {}

    def ratio(value, candidates):
        return value(found[candidates[0]]) / value(found[candidates[1]])

    ratios = {f"{unit}/s": ratio(lambda r: rate(r, items, "seconds"), fast)}
    if found[fast[0]][0]["reference"]:
        ratios[f"{unit}/s of one epoch with its reference pass"] = ratio(lambda r: 1 / epoch(r), fast)
    ratios |= {
        f"{unit}/CPU-s": ratio(lambda r: rate(r, items, "cpu_seconds"), fast),
        "memory, fastest settings": ratio(memory, fast),
        "memory, leanest settings": ratio(memory, lean),
    }
    return rows, ratios


def measure(candidate, threads, timeout):
    """One run's report, None if it failed (out of memory, say)."""
    done = run(python("-m", "bench.worker", candidate.side, json.dumps(candidate.spec)), threads, timeout)
    what = f"{candidate.name} ({candidate.settings})"
    if done.report is None:
        print(f"{what} failed: {'out of memory' if 'OutOfMemory' in done.tail else done.tail}", file=sys.stderr)
    else:
        steps = " ".join(f"{seconds:.1f}" for seconds in done.report["seconds"])
        print(f"{what}: steps of {steps} s", file=sys.stderr)
    return done.report


def agree(found):
    """Stop unless all candidates report the same losses, and losses that moved. found: {Candidate: [report]}.

    Under bfloat16 two sets of kernels drift apart as training goes on, so the tolerance grows with the way covered.
    """
    tolerance, drift = (2e-2, 0.1) if torch.cuda.is_available() else (1e-3, 0.0)
    losses = {c: reports[0]["losses"] for c, reports in found.items() if c.same}
    if not losses:
        return
    want = next(iter(losses.values()))
    allowed = [tolerance + drift * abs(loss - want[0]) for loss in want]
    for candidate, values in losses.items():
        if len(values) != len(want) or any(abs(a - b) > c for a, b, c in zip(values, want, allowed, strict=True)):
            raise SystemExit(f"void: {candidate.name} ({candidate.settings}) reports losses {values}, not {want}")
    if abs(want[-1] - want[0]) < 3 * tolerance:
        raise SystemExit(f"void: the losses {want} do not move, so that they agree says nothing")


def our_modes(cuda):
    """(parallel.activation_checkpointing, parallel.compile, what the table says) of our side's candidates."""
    modes = [("none", False, ""), ("selective", False, ", selective recomputation"), ("full", False, ", checkpointing")]
    return modes + [(name, True, text + ", compiled") for name, _, text in modes if cuda]


def attention(cuda):
    """Model arguments for the fastest kernel that TRL can use here: flash-attn if it is installed, else torch's."""
    flash = cuda and is_flash_attn_2_available()
    return {"attn_implementation": "flash_attention_2" if flash else "sdpa"}


def fastest(side, found):
    """The Candidate with the shortest timed step in its first run; among those within 5 % of it, the leanest."""
    best = {c: min(found[c][0]["seconds"][1:]) for c in side}
    return min((c for c in side if best[c] <= 1.05 * min(best.values())), key=lambda c: found[c][0]["memory"])


def rate(reports, items, clock):
    return items / statistics.median(seconds for r in reports for seconds in r[clock][1:])


def memory(reports):
    return statistics.median(r["memory"] for r in reports)


def epoch(reports):
    """Seconds of one pass over the records, the reference pass included."""
    return statistics.median(r["reference"] + s for r in reports for s in r["seconds"][1:])
