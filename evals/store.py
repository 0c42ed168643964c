"""What was generated and how it was graded: append-only JSON Lines files, keyed by content.

generations.jsonl   {"key", "model", "benchmark", "problem_id", "sample", "text", "tokens", "finish_reason", "seconds",
                    "dtype" and "prompt" (as the model's template made it), or "endpoint"}, and {"detail",
                    "prompt_tokens", "served"} from endpoints
grades.jsonl        {"key", "generation", "benchmark", "problem_id", "sample", "grader", "status", "extracted",
                    "detail"}, and {"isolation"} where the answer is a program that was run

A generation's key covers everything that it depends on: prompt, sampling, the content of the model, sample index. A
grade's key covers the generation, the gold answer and the files of the grader. So running again computes only what is
missing, whatever else changed, and a killed run loses only the responses that had not ended.

Benchmarks whose text must not spread (GPQA) have files of their own, generations-private.jsonl and
grades-private.jsonl, that only their owner may read.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from data.ledger import Ledger
from errors import UserError


def key_of(**parts) -> str:
    """Return a hash of JSON-serialisable parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


class Ledgers:
    """A file for what anyone may see and one, readable by its owner alone, for private benchmarks, as one mapping."""

    def __init__(self, folder: str | Path, name: str):
        self.open = Ledger(Path(folder) / f"{name}.jsonl")
        self.private = Ledger(Path(folder) / f"{name}-private.jsonl", private=True)

    def __contains__(self, key: str) -> bool:
        return key in self.open or key in self.private

    def __getitem__(self, key: str) -> dict:
        return self.open[key] if key in self.open else self.private[key]

    def __iter__(self) -> Iterator[dict]:
        yield from self.open
        yield from self.private

    def append(self, record: dict, private: bool) -> None:
        (self.private if private else self.open).append(record)


def responses(
    folder: str | Path, model: str = "", benchmark: str = "", graded: bool = True, single: bool = False
) -> Iterator[tuple[dict, str | None]]:
    """Yield (generation, status of its grade) of an evaluation, of one model and benchmark where they are named.

    Raises UserError for a second generation of one sample (single: of one problem), as it is not clear which one
    counts, and, if they must be graded, for one without a grade.
    """
    status, seen = {grade["generation"]: grade["status"] for grade in Ledgers(folder, "grades")}, set()
    for record in Ledgers(folder, "generations"):
        of, problem = (record["model"], record["benchmark"]), record["problem_id"]
        if model and (model, benchmark) != of:
            continue
        if graded and record["key"] not in status:
            raise UserError(f"{folder}: the response to {problem} has no grade; run evaluate.py --grade-only there")
        place = (*of, problem, None if single else record["sample"])
        if place in seen:
            raise UserError(
                f"{folder} holds several responses of {of[0]} to {problem} of {of[1]}, of other weights or settings; "
                f"evaluate the model into a folder of its own"
            )
        seen.add(place)
        yield record, status.get(record["key"])
