"""One row of every benchmark, as the hub has it and as local copies do, and reading it through a file."""

import csv
import json

import pyarrow
import pyarrow.parquet

from evals import benchmarks
from evals.benchmarks.common import BenchmarkConfig

GPQA = {
    "Record ID": "rec1",
    "Question": "SECRET question?\n",
    "Correct Answer": "SECRET right\n",
    "Incorrect Answer 1": "SECRET one",
    "Incorrect Answer 2": "SECRET two, or so",
    "Incorrect Answer 3": " SECRET three",
    "High-level domain": "Physics",
}
OLYMPIAD = {
    "id": 1606,
    "subfield": "Algebra",
    "context": None,
    "question": "Which $n$?",
    "solution": ["Several."],
    "final_answer": ["$69$,$84$."],
    "is_multiple_answer": True,
    "unit": None,
    "answer_type": "Numerical",
    "error": None,
}
MMLU = {"question": "2 + 2?", "subject": "arithmetic", "choices": ["3", " 4", "5", "6"], "answer": 1}
ROWS = {  # kind: rows as the hub has them, and as local copies do
    "aime2024": [
        {"ID": "2024-II-4", "Problem": "1+1?", "Solution": "Two.", "Answer": 33},
        {"id": 60, "url": "…", "problem": "1+1?", "answer": "033", "solution": "Two."},
        {"id": "a", "problem": "1+1?", "answer": "033"},
    ],
    "math500": [
        {
            "problem": "p",
            "solution": "s",
            "answer": "\\pi",
            "subject": "Algebra",
            "level": 2,
            "unique_id": "test/1.json",
        },
        {"id": "a", "problem": "p", "answer": "\\pi"},
    ],
    "gsm8k": [{"question": "How many eggs?", "answer": "9*2 = $<<9*2=18>>18\n#### 1,018"}],
    "olympiadbench": [OLYMPIAD],
    "gpqa_diamond": [GPQA],
    "mmlu": [MMLU, MMLU | {"answer": "B"}],
}


def write(path, rows):
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8-sig", newline="") as opened:
            writer = csv.DictWriter(opened, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def load(tmp_path, kind, rows, suffix=".jsonl", **keys):
    cfg = BenchmarkConfig(kind=kind, file=write(tmp_path / f"rows{suffix}", rows), **keys)
    return benchmarks.load("bench", cfg, allow_size=True)


def one(tmp_path, kind, row):
    (problem,) = load(tmp_path, kind, [row])
    return problem
