"""Stand-ins for what a recipe downloads, so that its steps can run offline: `bash runs/table2.sh --smoke`.

    python -m pocket.smoke out/smoke

Writes problems/*.jsonl, the pocket run's problems (pocket/problems.py) under the names of the public datasets, and
benchmarks/*.jsonl, a few questions in the format of each benchmark, made up here.
"""

import argparse
import base64
import json
import pickle
import zlib
from pathlib import Path

from config import run_main
from data.records import write_jsonl
from evals.benchmarks.common import KINDS
from pocket.problems import PocketConfig, build

DATASETS = ("bespoke_stratos_17k", "sky_t1_17k", "openthoughts_114k")
PROBLEMS, QUESTIONS = 24, 4


def main(out: str | Path) -> None:
    """Write all files; the one that the recipes look for comes last."""
    out = Path(out)
    sets = {
        name: build(PocketConfig(train_problems=PROBLEMS, test_problems=QUESTIONS, seed=seed, test_seed=9))
        for seed, name in enumerate(DATASETS)
    }
    _, test = sets[DATASETS[-1]]
    for name, rows in benchmarks(test).items():
        write_jsonl(out / f"benchmarks/{name}.jsonl", rows)
    for name, (train, _) in sets.items():
        write_jsonl(out / f"problems/{name}.jsonl", train)


def benchmarks(test: list[dict]) -> dict[str, list[dict]]:
    """Make {kind of benchmark: rows in its own format}. test: rows with id, problem, answer, a number as text."""
    found = {"livecodebench_v2": [doubling("smoke_stdin", ""), doubling("smoke_call", STARTER)]}
    for kind in [kind for kind in KINDS if kind not in (*found, "local")]:
        found[kind] = []
        for row in test:
            right, wrong = row["answer"], [str(int(row["answer"]) + step) for step in (1, 2, 3)]
            # what stands in its columns of text, by our names for them, and in those of another type
            texts = {"id": row["id"], "question": row["problem"], "subject": "legs", "type": "Numerical", "answer": "3"}
            texts |= {"right": right, **{f"wrong{i}": other for i, other in enumerate(wrong, 1)}}
            texts["gold"] = f"Count the legs.\n#### {right}" if kind == "gsm8k" else right
            others = {"final_answer": [f"${right}$"], "is_multiple_answer": False, "unit": None, "error": None}
            others["choices"] = [*wrong, right]
            columns = {names[0]: texts[ours] for ours, names in KINDS[kind].columns.items()}
            found[kind].append(columns | {name: others[name] for name in KINDS[kind].also})
    return found


STARTER = "class Solution:\n    def double(self, n: int) -> int:\n        "


def doubling(id: str, starter: str) -> dict:
    """Make a programming problem with one public and one hidden test. starter: code to complete, or empty for stdin."""
    kind = "functional" if starter else "stdin"
    public, hidden = ([{"input": str(n), "output": str(2 * n), "testtype": kind}] for n in (2, 21))
    return {
        "question_id": id, "question_title": id, "question_content": "Read a whole number and print twice its value.",
        "platform": "leetcode" if starter else "atcoder", "contest_id": "smoke", "contest_date": "2024-01-01T00:00:00",
        "difficulty": "easy", "starter_code": starter, "public_test_cases": json.dumps(public),
        "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(json.dumps(hidden)))).decode(),
        "metadata": json.dumps({"func_name": "double"} if starter else {}),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder to write into")
    run_main(main, parser.parse_args().out)
