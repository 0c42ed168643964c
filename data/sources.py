"""Public chain-of-thought datasets -> problem records, the input of build_crv.py.

    python -m data.sources name=bespoke out=problems/bespoke_stratos_17k.jsonl
    python -m data.sources name=openthoughts out=problems/openthoughts_114k.jsonl
    python -m data.sources name=sky_t1 path=Sky-T1_data_17k.json out=problems/sky_t1_17k.jsonl

`path` overrides the hub id with a local .json, .jsonl or .parquet file of the same shape. Rows that cannot be used are
counted by reason and written to no file: the counts are printed.

Shapes. Bespoke-Stratos-17k and Sky-T1-data-17k hold two-turn conversations whose assistant text wraps the reasoning and
the solution in tags; they have no answer column, so y is the last box of the solution block (code: the solution
itself). OpenThoughts-114k's `metadata` configuration has columns, y and tests.
"""

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.answers import extract_boxed
from data.errors import UserError
from data.records import check_record, write_jsonl

HUB = {
    "bespoke": ("bespokelabs/Bespoke-Stratos-17k", None),
    "sky_t1": ("NovaSky-AI/Sky-T1_data_17k", None),
    "openthoughts": ("open-thoughts/OpenThoughts-114k", "metadata"),
}
MATH_PREFIX = "Return your final response within \\boxed{}."
CODE_PREFIX = "Generate an executable Python function"
TAGGED = re.compile(
    r"<\|begin_of_thought\|>(?P<reasoning>.*?)<\|end_of_thought\|>\s*"
    r"<\|begin_of_solution\|>(?P<solution>.*?)<\|end_of_solution\|>",
    re.DOTALL,
)


@dataclass
class Config:
    name: Literal["bespoke", "sky_t1", "openthoughts"]
    """which dataset, and so which shape of row"""
    out: str
    """the problem file to write"""
    path: str | None = None
    """local .json, .jsonl or .parquet file instead of the hub"""
    limit: int | None = None
    """only the first N rows"""


def main(cfg):
    hub_id, subset = HUB[cfg.name]
    problem = problem_from_metadata if cfg.name == "openthoughts" else problem_from_conversation
    problems, reasons = {}, Counter()
    for row in read_rows(cfg.path, hub_id, subset, cfg.limit):
        record = problem(row)
        if isinstance(record, str):
            reasons[record] += 1
        elif not _is_valid(record):
            reasons["with an empty text or damaged LaTeX"] += 1
        elif record["id"] in problems:
            reasons["duplicate"] += 1
        else:
            problems[record["id"]] = record
    if not problems:
        raise UserError(f"no usable row in {cfg.path or hub_id}: {dict(reasons)}")
    write_jsonl(cfg.out, problems.values())
    left_out = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()) or "none"
    print(f"{len(problems)} problems in {cfg.out}; left out: {left_out}")


def read_rows(path, hub_id, subset, limit):
    """Yields rows as dicts, from a local file or the hub."""
    from datasets import load_dataset

    if path is None:
        try:
            rows = load_dataset(hub_id, subset, split="train", streaming=limit is not None)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot load {hub_id}: {' '.join(str(error).split())[:200]}; or set path=…") from None
    elif not Path(path).is_file():
        raise UserError(f"no such file: {path}")
    else:
        kind = "parquet" if path.endswith(".parquet") else "json"
        rows = load_dataset(kind, data_files=path, split="train", streaming=True)
    for number, row in enumerate(rows):
        if number == limit:
            return
        yield row


def problem_from_conversation(row):
    """A problem record from {"conversations": [{"from", "value"}, …]}, or why there is none (str)."""
    turns = {
        turn.get("from", turn.get("role")): turn.get("value", turn.get("content")) for turn in row["conversations"]
    }
    user = turns.get("user", turns.get("human"))
    found = TAGGED.search(turns.get("assistant", turns.get("gpt")) or "")
    if user is None or found is None:
        return "without a tagged thought and solution"
    reasoning, solution = found["reasoning"].strip(), found["solution"].strip()
    if user.startswith(CODE_PREFIX):
        return _record(user, solution, reasoning, solution, "code")
    answer = extract_boxed(solution)
    if answer is None:
        return "without a box in the solution"
    return _record(user.removeprefix(MATH_PREFIX).strip(), answer, reasoning, solution, "math")


def problem_from_metadata(row):
    """A problem record from a row of OpenThoughts-114k's metadata configuration, or why there is none (str)."""
    reasoning, solution = row["deepseek_reasoning"] or "", row["deepseek_solution"] or ""
    domain = row["domain"]
    truth = row["ground_truth_solution"] or ""
    answer = solution if domain == "code" else extract_boxed(truth) or extract_boxed(solution) or truth
    if not answer or not reasoning:
        return "without an answer or reasoning"
    problem = row["problem"]
    if domain == "code" and row.get("starter_code"):
        problem = f"{problem}\n\n{row['starter_code']}"
    record = _record(problem, answer, reasoning, solution, domain)
    if row.get("test_cases"):
        tests = row["test_cases"]
        record["tests"] = json.loads(tests) if isinstance(tests, str) else tests
    return record


def _is_valid(record):
    """Whether build_crv.py will take the record: it refuses a whole file for one bad line."""
    try:
        check_record(record, "problem", "row")
    except UserError:
        return False
    return True


def _record(problem, answer, reasoning, solution, domain):
    identity = hashlib.sha256(f"{problem}\0{reasoning}".encode()).hexdigest()[:16]
    return {
        "id": identity,
        "problem": problem.strip(),
        "answer": answer.strip(),
        "reasoning": reasoning.strip(),
        "solution": solution.strip(),
        "domain": domain,
    }


if __name__ == "__main__":
    from config import run_cli

    run_cli(main, Config, __doc__)
