"""The sandbox on real programs: verdicts, speed, and what starting a program costs.

    python -m bench.sandbox                 all of it; some minutes on two cores
    python -m bench.sandbox --limit N       the first N programs of each kind

With graded programs in --data (problems_window.jsonl, graded_solutions.jsonl): answers of o1-mini and o1-preview to
LiveCodeBench problems, each with LiveCodeBench's own verdict on its hidden tests. Every one that it calls correct must
pass the sample tests here. Where there are further tests of other origin, verdicts are compared with those of another
runner that are in the file. Everything is extracted and graded as evaluate.py does it. Hostile programs are in
tests/grading/test_hostile.py.
"""

import argparse
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.common import ROOT, environment_line, table
from data.records import iter_jsonl
from evals.benchmarks import code
from grading import programs as sandbox
from grading.extraction import extract_code

FOLDER = ROOT.parent / "shared" / "data" / "lcb_v2"


def read_programs(folder):
    """[(id, model, program, official verdict, extra verdict there, sample tests, extra tests)]"""
    rows = {row["question_id"]: row for _, row in iter_jsonl(folder / "problems_window.jsonl")}
    programs = []
    for number, row in iter_jsonl(folder / "graded_solutions.jsonl"):
        problem, where = rows[row["question_id"]], f"graded_solutions.jsonl:{number}"
        samples, extra = (
            code.as_tests(problem[key], problem["fn_name"], where) for key in ("public_test_cases", "extra_test_cases")
        )
        program = extract_code(row["output"] or "") or row["code"]
        programs.append(
            (row["question_id"], row["model"], program, row["graded"], row["local_extra_pass"], samples, extra)
        )
    return programs


def judge(programs, which):
    """(verdicts, in order, on the tests in place `which` of each; seconds on the clock; seconds of processor time)"""
    begin, used = time.monotonic(), _cpu()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        verdicts = list(pool.map(lambda one: sandbox.run_tests(one[2], one[which], code.LIMITS), programs))
    return verdicts, time.monotonic() - begin, _cpu() - used


def _cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def samples(programs, limit):
    rows, wrong = [], []
    for kind in ("functional", "stdin"):
        chosen = [one for one in programs if bool(one[5]["fn_name"]) == (kind == "functional") and one[5]["inputs"]]
        chosen = chosen[:limit]
        verdicts, seconds, cpu = judge(chosen, 5)
        right = [verdict for one, verdict in zip(chosen, verdicts, strict=True) if one[3]]
        others = [verdict for one, verdict in zip(chosen, verdicts, strict=True) if not one[3]]
        tests = sum(
            len(one[5]["inputs"]) if verdict.test is None else verdict.test + 1
            for one, verdict in zip(chosen, verdicts, strict=True)
        )
        rows.append(
            {
                "sample tests": kind,
                "officially correct: accepted": f"{sum(v.exact for v in right)}/{len(right)}",
                "within 1e-6": f"{sum(v.tolerant for v in right)}/{len(right)}",
                "officially wrong: pass the samples": f"{sum(v.exact for v in others)}/{len(others)}",
                "programs/s": len(chosen) / seconds,
                "tests/s": tests / seconds,
                "CPU ms a test": 1000 * cpu / tests,
            }
        )
        wrong += [(one, verdict) for one, verdict in zip(chosen, verdicts, strict=True) if one[3] and not verdict.exact]
    print(table(rows))
    for one, verdict in wrong:
        print(f"officially correct, not accepted: {one[0]} ({one[1]}): {verdict}")


def extras(programs, limit):
    chosen = [one for one in programs if one[6]["inputs"] and one[4] is not None][:limit]
    verdicts, seconds, _ = judge(chosen, 6)
    same = sum(verdict.exact == one[4] for one, verdict in zip(chosen, verdicts, strict=True))
    tests = sum(len(one[6]["inputs"]) for one in chosen)
    print(f"\nextra tests: {same}/{len(chosen)} verdicts as the other runner's ({tests} tests, {seconds:.0f} s)")
    for one, verdict in zip(chosen, verdicts, strict=True):
        if verdict.exact != one[4]:
            print(f"differs: {one[0]} ({one[1]}): there {one[4]}, officially {one[3]}, here {verdict}")


def starting(repeats=20):
    """CPU time from the call to the end of a program that does nothing, and of one that imports numpy."""
    rows = []
    for way in (way for way in sandbox.all_ways() if sandbox.try_way(way)[0]):
        row = {"processor ms (ms on the clock) to start and end": str(way)}
        for kind, program, function in (
            ("stdin", "pass", None),
            ("function", "def f(): pass", "f"),
            ("imports numpy", "import numpy", None),
        ):
            begin, used = time.monotonic(), _cpu()
            outcomes = [sandbox.execute(program, "[]", function=function, way=way) for _ in range(repeats)]
            clock = time.monotonic() - begin
            row[kind] = f"{1000 * (_cpu() - used) / repeats:.0f} ({1000 * clock / repeats:.0f})"
            if outcomes[0].status != "ok":
                row[kind] = outcomes[0].detail
        rows.append(row)
    print("\n" + table(rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="only the first N programs of each kind")
    parser.add_argument("--data", type=Path, help="folder of graded programs")
    args = parser.parse_args()
    folder = args.data or FOLDER
    if args.data and not args.data.is_dir():
        parser.error(f"no such folder: {args.data}")
    print(environment_line())
    print(f"isolation: {sandbox.isolation()}; {len(os.sched_getaffinity(0))} programs at a time\n")
    if folder.is_dir():
        programs = read_programs(folder)
        samples(programs, args.limit)
        extras(programs, args.limit)
    else:
        print(f"no {folder}: only what a start costs")
    starting()


if __name__ == "__main__":
    main()
