"""Turns of public datasets, whatever they and their columns are called -> messages; what was asked, what was replied.

Nothing is dropped on the way: what a message cannot hold, and a reply without a question of its own, raise LeftOut.
"""

import itertools
import re

from data.messages import NAMES, weight_of

OPENING = re.compile(r"<think>|<\|begin_of_thought\|>")
ODD = "with an unexpected type"


class LeftOut(Exception):
    """Why a row cannot be used."""


class Row(dict):
    """A row that knows which of its columns a format has looked at."""

    def __init__(self, columns: dict):
        super().__init__(columns)
        self.seen = set()

    def get(self, name: str) -> object:
        self.seen.add(name)
        return super().get(name)

    def first(self, kind: str) -> object:
        """Return what stands in the first column of a kind (data/names.yaml) that has a value, or None."""
        return next((self.get(name) for name in NAMES[kind] if self.get(name)), None)

    def unread(self) -> set[str]:
        """Name the columns with a value that nobody has looked at."""
        return {name for name in self.keys() - self.seen if self[name] not in (None, "", [], {}, "[]", "{}")}


def conversation_of(row: Row) -> list[dict]:
    """Return the conversation of a row: its turns, or the question and the reply of its columns."""
    if "completion" in row and row.get("label") is False:  # TRL's data for KTO
        raise LeftOut("with a reply that is labelled as not wanted")
    turns = row.first("turns")
    if turns is not None:
        return _alternating(_with_system(row, _turns_of(turns)))
    said = _turns_of(row.first("reply") or "", "assistant")
    return _alternating(asked(row) + [turn | {"content": _with_thought(row, turn["content"])} for turn in said])


def sides_of(row: Row) -> tuple[list[dict], list[dict], list[dict]]:
    """Return (prompt, chosen, rejected) of a preference, whose sides are replies, or conversations that end in one."""
    # the prompt is in columns, or in turns, or what both sides begin with
    sides = [_turns_of(row.get(name), "assistant") for name in ("chosen", "rejected")]
    if not all(sides):
        raise LeftOut("with an empty side")
    given = asked(row)
    if not any(message["role"] == "user" for message in given + sides[0]):
        given = _with_system(row, _turns_of(row.first("turns") or [], "user"))
        if not given:
            raise LeftOut("without a prompt")
    chosen, rejected = (_alternating(_continued(row, given, side)) for side in sides)
    if chosen[:-1] != rejected[:-1]:
        raise LeftOut("whose sides part before their last reply")
    return chosen[:-1], chosen[-1:], rejected[-1:]


def asked(row: Row) -> list[dict]:
    """Return the messages before a reply, from columns: system prompt, history, the question and its input."""
    parts = [part for part in (row.first("question"), row.get("input"), row.get("context")) if str(part or "").strip()]
    if len(parts) > 1 and not all(isinstance(part, str) for part in parts):
        raise LeftOut(ODD)
    messages = _turns_of(parts[0] if len(parts) == 1 else "\n".join(parts), "user") if parts else []
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise LeftOut(f"{ODD} of history")
    past = [turn for said, reply in history for turn in _turns_of(said, "user") + _turns_of(reply, "assistant")]
    return _with_system(row, past + messages)


def _with_system(row, messages):
    """Put the system prompt of a column in front of messages."""
    own = [*itertools.takewhile(lambda message: message["role"] == "system", messages)]
    texts = {first_text(row, name) for name in NAMES["system"]} | {message["content"] for message in own}
    if len(texts - {""}) > 1:
        raise LeftOut("with two system prompts")
    return [{"role": "system", "content": text} for text in texts - {""}] + messages[len(own) :]


def _turns_of(value, role=None):
    """Return messages of turns, of one turn, or of a text by `role`; a thought beside the content goes into tags."""
    if isinstance(value, str) and role:
        return [{"role": role, "content": value}]
    # columns of turns, as some Parquet files have them
    if isinstance(value, dict) and all(isinstance(column, list) for column in value.values()):
        if len({len(column) for column in value.values()}) > 1:
            raise LeftOut(ODD)
        value = [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
    messages = []
    for turn in value if isinstance(value, list) else [value]:
        if not isinstance(turn, dict):
            raise LeftOut(f"{ODD} of a turn")
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        # content may come in parts; what is no text, and what no record holds, is not dropped but refused
        if isinstance(content, list) and all(isinstance(part, dict) for part in content):
            if not all(isinstance(part.get("text"), str) for part in content):
                raise LeftOut("with a part of a message that is no text")
            content = "".join(part["text"] for part in content)
        if turn.get("tool_calls") or turn.get("function_call"):
            raise LeftOut("with tool calls")
        if isinstance(role, str) and role.lower() not in NAMES["roles"]:
            raise LeftOut(f"with a turn of role {role}")
        if not isinstance(role, str) or not isinstance(content, str):
            raise LeftOut(f"{ODD} of a turn")
        messages.append({"role": NAMES["roles"][role.lower()], "content": _with_thought(turn, content)})
        if messages[-1]["role"] == "assistant" and (weight := weight_of(turn)) != 1:
            messages[-1]["weight"] = int(weight) if isinstance(weight, bool) else weight
    return messages


def _with_thought(place, reply):
    """Put the thought of a column or key in front of a reply, unless it stands there already."""
    thought = first_text(place, *NAMES["thought"]).strip()
    tagged = OPENING.search(reply) or "</think>" in reply
    if tagged and thought not in ("on", "off") and thought not in reply:
        raise LeftOut("with two thoughts")
    if tagged or thought in ("", "on", "off"):
        return reply
    return f"<think>\n{thought}\n</think>\n\n{reply}"


def _alternating(messages):
    """Check that a user and the assistant speak in turn and the assistant ends: every reply has its question."""
    roles = [message["role"] for message in messages if message is not messages[0] or message["role"] != "system"]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise LeftOut("whose turns do not alternate between user and assistant")
    return messages


def _continued(row, given, side):
    """Return the conversation of one side: behind `given`, unless it repeats that from the start."""
    if side[0]["role"] == "assistant":
        return given + side
    asked = [message["content"].strip() for message in given if message["role"] != "system"]
    whole = _with_system(row, given[: len(given) - len(asked)] + side)
    said = [message["content"].strip() for message in whole if message["role"] != "system"]
    if said[: len(asked)] != asked:
        raise LeftOut("whose sides begin with another prompt than their own")
    return whole


def first_text(place: dict, *names: str) -> str:
    """Return the first of these columns or keys that holds a text, or ""; null is missing."""
    for name in names:
        value = place.get(name)
        if not isinstance(value, str | None):
            raise LeftOut(f"{ODD} of {name}")
        if value and value.strip():
            return value
    return ""
