"""The record types of this project, and the checks that a file of them (data/rows.py) passes before anything uses it.

problem   {"id", "problem", "answer", "reasoning", "solution"?, "domain"?, "tests"?}      input of build_crv.py
sft       {"id", "messages", "origin", "rounds", "problem", "answer", "reasoning"}        what train_sft.py reads
pair      {"id", "problem_id", "prompt", "chosen", "rejected", "gap", "origin"}           what train_cogpo.py reads

`messages`, `prompt`, `chosen`, `rejected` are lists of messages (data/messages.py), with "tools" and
"chat_template_kwargs" beside them where a template takes them. x = problem, y = answer, r = reasoning.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from data.messages import NAMES, NEUTRAL, check_messages, content_of, leaves, lost, readable, texts_of
from data.rows import iter_rows
from errors import UserError

GAPS = ("small", "medium", "large")  # the index is the gap tag of losses/cogpo.py

# JSON reads "\b" and "\f" as control characters, so LaTeX written with one backslash too few arrives damaged.
ESCAPES = {"\b": ("backspace", "\\boxed or \\begin"), "\f": ("form feed", "\\frac"), "\v": ("vertical tab", "\\vec")}
DAMAGED = re.compile(r"[\b\f\v](?=[a-z])")  # before anything else it is meant: form feeds between the pages of code

MESSAGES = ("messages", "prompt", "chosen", "rejected")  # the keys that hold lists of messages
REQUIRED = {
    "problem": ("id", "problem", "answer", "reasoning"),
    "sft": ("id", "messages"),
    "pair": ("id", "problem_id", "prompt", "chosen", "rejected", "gap"),
}


def read_records(path: str | Path, kind: str) -> Iterator[dict]:
    """Yield the records of a file, checked. kind: "problem", "sft", "pair". Raises UserError on the first bad one."""
    return (row for _, row in numbered_records(path, kind))


def numbered_records(path: str | Path, kind: str) -> Iterator[tuple[str, dict]]:
    """Yield (file:line, record), as `read_records`. Two records with one id, or none at all, are an error too."""
    seen = {}
    for where, row in iter_rows(path):
        named = "" if kind == "problem" or "id" not in row else f": record {row['id']!r}"
        check_record(row, kind, where + named)
        if row["id"] in seen:
            raise UserError(f"{where}: duplicate id {row['id']!r}, first seen at {seen[row['id']]}")
        seen[row["id"]] = where
        yield where, row
    if not seen:
        raise UserError(f"{path} holds no records")


def check_record(row: dict, kind: str, where: str) -> None:
    """Raise UserError if `row` is not a valid record of this kind; `where` names it in the message."""
    # of any kind: its keys are there, no LaTeX is damaged, what must be text is text that is not empty
    missing = [key for key in REQUIRED[kind] if key not in row]
    if missing:
        raise UserError(
            f"{where}: a record of kind {kind} lacks {', '.join(missing)}; python -m data.sources path=… out=… makes "
            "records of other formats (docs/data.md)"
        )
    for key, value in row.items():
        for text in leaves(value):
            _check_text(text, f"{where}: {key}")
    for key in ("id", "problem_id", "problem", "answer", "reasoning"):
        if key in REQUIRED[kind] and not (isinstance(row[key], str) and row[key].strip()):
            raise UserError(f"{where}: {key} must be a string that is not empty, not {row[key]!r}")
    if kind == "problem":
        return
    for key in MESSAGES:
        if key in REQUIRED[kind]:
            check_messages(row[key], f"{where}: {key}")
    _check_columns(row, kind, where)
    if not isinstance(row.get("chat_template_kwargs"), dict | None):
        raise UserError(f"{where}: chat_template_kwargs must be an object, not {row['chat_template_kwargs']!r}")

    # of one kind: what is trained is the assistant's, and a pair says how far apart its two sides are
    if kind == "sft":
        if row["messages"][-1]["role"] != "assistant":
            raise UserError(f"{where}: the last message must be the assistant's")
        if row["messages"][0]["role"] == "assistant":
            raise UserError(f"{where}: the first message is the assistant's, which answers nothing")
        if all(message.get("weight") == 0 for message in row["messages"] if message["role"] == "assistant"):
            raise UserError(f"{where}: every turn of the assistant has the weight 0")
    if kind == "pair":
        if row["prompt"][-1]["role"] == "assistant":
            raise UserError(f"{where}: the prompt ends with a message of the assistant, which chosen cannot go on with")
        for side in ("chosen", "rejected"):
            if len(row[side]) != 1 or row[side][0]["role"] != "assistant" or row[side][0].get("weight") == 0:
                raise UserError(f"{where}: {side} must be one message of the assistant, the answer to prompt")
        if row["gap"] not in GAPS:
            raise UserError(f"{where}: gap is {row['gap']!r}; it must be one of {', '.join(GAPS)}")
        if list(texts_of(readable(row["chosen"][0]))) == list(texts_of(readable(row["rejected"][0]))):
            raise UserError(f"{where}: chosen and rejected are the same")


def _check_columns(row, kind, where):
    """Raise UserError for a column that would change what is trained, unless its texts stand in the messages."""
    said = " ".join(content_of(message) for key in MESSAGES if key in REQUIRED[kind] for message in row[key])
    for key in sorted(key for key in {*NAMES["unread"], "weight"} & row.keys() if row[key] not in NEUTRAL):
        texts = list(leaves(row[key])) if key in NAMES["in_messages"] else []
        if not texts or lost(texts, said, anywhere=True) is not None:
            raise UserError(f"{where}: the column {key} would not be trained; put it into the messages, or take it out")


def _check_text(text, where):
    """Raise UserError if a text is no UTF-8 or has lost a backslash of its LaTeX."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where} holds half a surrogate pair, which no UTF-8 file can hold; repair it") from None
    if found := DAMAGED.search(text):
        name, latex = ESCAPES[found[0]]
        raise UserError(
            f"{where} contains a {name} character before {text[found.end() : found.end() + 7]!r}: LaTeX such as "
            f"{latex} was written with one backslash in JSON; write two"
        )


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Write all rows or nothing: a reader never sees half a file."""
    with jsonl_writer(path) as write:
        for row in rows:
            write(row)


def write_text(path: Path, text: str) -> None:
    """Write all of a text or nothing."""
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


@contextlib.contextmanager
def jsonl_writer(path: str | Path) -> Iterator[Callable[[dict], None]]:
    """Open a file for `with jsonl_writer(path) as write: write(row)`.

    The file appears when the block ends without an error; after an error, what was there before is left.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = partial.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    try:
        with opened as file:
            if path.is_dir():
                raise UserError(f"cannot write {path}: it is a folder; name a file")
            yield lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())  # on disk before it takes the name: a power cut leaves no empty file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
