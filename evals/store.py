"""What was generated and how it was graded: two append-only JSON Lines files, keyed by content.

generations.jsonl   {"key", "folder", "benchmark", "problem_id", "text", "tokens", "finish_reason", "dtype"}
grades.jsonl        {"key", "generation", "grader", "status", "extracted"}

A generation's key covers everything that it depends on: prompt, sampling, the content of the model folder, sample
index. A grade's key covers the generation, the gold answer and the grader's version. So running again computes only
what is missing, whatever else changed, and a killed run loses only the responses that had not ended.
"""

import hashlib
import json
from pathlib import Path

from data.errors import UserError
from data.records import iter_jsonl

MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model", "*.txt")  # weights, config, tokenizer


def key_of(**parts):
    """A hash of JSON-serialisable parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


class Ledger:
    """One append-only file as {key: record}. A last line that a kill cut short is dropped; its record is missing."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_torn_line()
        self.records = {}
        for number, record in iter_jsonl(self.path):
            if "key" not in record:
                raise UserError(f"{self.path}:{number}: no key in this record; evaluate.py did not write this file")
            self.records[record["key"]] = record
        self.file = self.path.open("a", encoding="utf-8")

    def _drop_torn_line(self):
        self.path.touch()
        with self.path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)

    def __contains__(self, key):
        return key in self.records

    def __getitem__(self, key):
        return self.records[key]

    def append(self, record):
        self.records[record["key"]] = record
        self.file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self.file.flush()


def model_content(folder, cache):
    """Content hash of a model folder. cache: dict {path: [stamp, hash]}, updated in place, so that an unchanged folder
    is not read again; an absent folder has the hash that it had when it was evaluated (None if it never was)."""
    folder = Path(folder)
    if not folder.is_dir():
        return cache.get(str(folder), [None, None])[1]
    files = sorted(file for pattern in MODEL_FILES for file in folder.glob(pattern))
    stamp = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    known = cache.get(str(folder))
    if known is None or known[0] != stamp:
        total = hashlib.sha256()
        for file in files:
            total.update(file.name.encode() + b"\0" + str(file.stat().st_size).encode() + b"\0")
            with file.open("rb") as content:
                while block := content.read(1 << 22):
                    total.update(block)
        cache[str(folder)] = [stamp, total.hexdigest()[:32]]
    return cache[str(folder)][1]
