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

from data.records import write_jsonl
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
    wrong = [[str(int(row["answer"]) + step) for step in (1, 2, 3)] for row in test]
    return {
        "aime2024": [{"id": i, "problem": row["problem"], "answer": row["answer"]} for i, row in enumerate(test)],
        "math500": [
            {"unique_id": row["id"], "problem": row["problem"], "answer": row["answer"], "subject": "legs", "level": 1}
            for row in test
        ],
        "gsm8k": [{"question": row["problem"], "answer": f"Count the legs.\n#### {row['answer']}"} for row in test],
        "olympiadbench": [
            {
                "id": i,
                "question": row["problem"],
                "final_answer": [f"${row['answer']}$"],
                "is_multiple_answer": False,
                "unit": None,
                "answer_type": "Numerical",
                "error": None,
                "subfield": "legs",
                "context": None,
            }
            for i, row in enumerate(test)
        ],
        "mmlu": [
            {"question": row["problem"], "choices": [*others, row["answer"]], "answer": 3, "subject": "legs"}
            for row, others in zip(test, wrong, strict=True)
        ],
        "gpqa_diamond": [
            {"Record ID": row["id"], "Question": row["problem"], "Correct Answer": row["answer"]}
            | {f"Incorrect Answer {i + 1}": other for i, other in enumerate(others)}
            for row, others in zip(test, wrong, strict=True)
        ],
        "livecodebench_v2": [doubling("smoke_stdin", ""), doubling("smoke_call", STARTER)],
    }


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
    main(parser.parse_args().out)
