"""The sandbox on real programs: are the officially right ones accepted, and how many programs a second does it run?

    python -m bench.programs_speed                 some minutes on two cores
    python -m bench.programs_speed --limit 50      only the first N programs of each kind

--data, not distributed with the project, holds answers of o1-mini and o1-preview to LiveCodeBench problems, each with
LiveCodeBench's own verdict on its hidden tests: what it calls correct must pass the samples here. On further tests of
other origin, verdicts are compared with another runner's. All is extracted and graded as evaluate.py does it.
"""

import argparse
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.harness import ROOT, environment_line, table
from data.rows import iter_rows
from evals.benchmarks import code
from grading.extraction import extract_code
from grading.programs import Verdict, isolation, run_tests


def read_programs(folder: Path, tests_key: str) -> list[tuple[dict, str, dict]]:
    """Read (the graded row, its program, the tests under `tests_key` of its problem), where there are such tests."""
    problems, programs = {row["question_id"]: row for _, row in iter_rows(folder / "problems_window.jsonl")}, []
    for where, row in iter_rows(folder / "graded_solutions.jsonl"):
        problem = problems[row["question_id"]]
        tests = code.as_tests(problem[tests_key], problem["fn_name"], where)
        if tests["inputs"]:
            programs.append((row, extract_code(row["output"] or "") or row["code"], tests))
    return programs


def judge(programs: list[tuple[dict, str, dict]]) -> tuple[list[tuple[dict, Verdict]], dict]:
    """Run programs on their tests, one a core. Returns ([(graded row, verdict)], columns of the table)."""
    begin, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        verdicts = list(pool.map(lambda one: run_tests(one[1], one[2], code.LIMITS), programs))
    seconds, now = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    judged = list(zip(programs, verdicts, strict=True))
    tests = sum(len(one[2]["inputs"]) if v.test is None else v.test + 1 for one, v in judged)
    speed = {"programs/s": len(programs) / seconds, "tests/s": tests / seconds, "CPU ms a test": 1000 * cpu / tests}
    return [(one[0], verdict) for one, verdict in judged], speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="only the first N programs of each kind")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/lcb_v2", help="graded programs")
    args = parser.parse_args()
    if not args.data.is_dir():
        sys.exit(f"no graded programs in {args.data}: --data FOLDER")
    print(environment_line())
    print(f"isolation: {isolation()}; {len(os.sched_getaffinity(0))} programs at a time\n")
    samples, extras = (read_programs(args.data, key) for key in ("public_test_cases", "extra_test_cases"))
    suites = {
        "samples, functional": [one for one in samples if one[2]["fn_name"]],
        "samples, stdin": [one for one in samples if not one[2]["fn_name"]],
        "extra tests": [one for one in extras if one[0]["local_extra_pass"] is not None],
    }
    rows = []
    for name, programs in suites.items():
        judged, speed = judge(programs[: args.limit])
        right, wrong = ([v for row, v in judged if row["graded"] is graded] for graded in (True, False))
        same = sum(v.exact == row["local_extra_pass"] for row, v in judged)
        rows.append({
            "tests": name, "officially correct: accepted": f"{sum(v.exact for v in right)}/{len(right)}",
            "within 1e-6": f"{sum(v.tolerant for v in right)}/{len(right)}",
            "officially wrong: pass": f"{sum(v.exact for v in wrong)}/{len(wrong)}",
            "as another runner": f"{same}/{len(judged)}" if name == "extra tests" else None,
        } | speed)  # fmt: skip
        for row, verdict in judged:
            if row["graded"] and not verdict.exact:
                print(f"{name}, officially correct, not accepted: {row['question_id']} ({row['model']}): {verdict}")
    print(table(rows))


if __name__ == "__main__":
    main()
