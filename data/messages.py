"""What a conversation holds, and which of it a chat template has left out.

A message is {"role", "content"}; an assistant's may have "reasoning_content", "tool_calls" and "weight" too (0: the
turn is not trained), a tool's "tool_call_id" and "name". Content is a text, or a list of text parts.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from errors import UserError

NAMES = yaml.safe_load(Path(__file__).with_name("names.yaml").read_text(encoding="utf-8"))
ROLES = ("system", "developer", "user", "assistant", "tool")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # servers' and datasets' names for what precedes the answer
THINK_TAG = re.compile(r"</?(?:think|thought)>")
# what some templates take out of the texts that they are given: these tags, and the switches of SmolLM3 and Nemotron
SWITCH = re.compile(THINK_TAG.pattern + "|/(?:no_)?think")

KEYS = {"role", "content", "tool_calls", "tool_call_id", "name", "weight", *THOUGHTS}  # of a message, that are read

NEUTRAL = (None, 1, "", [], {})  # what a key that nothing reads may hold: nothing, or the weight of every record


def check_messages(messages: object, where: str) -> None:
    """Raise UserError unless this is a list of messages that is not empty, each of a kind that can be trained."""
    good = isinstance(messages, list) and messages
    if not good or not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
        raise UserError(f'{where} must be a list of {{"role": …, "content": …}}')
    for number, message in enumerate(messages, 1):
        problem = _problem(message)
        if problem:
            raise UserError(f"{where}: message {number} {problem}")


def _problem(message):
    """Say what is wrong with a message, or return None."""
    role, content, thoughts = message["role"], message.get("content"), _thoughts(message)
    calls, weight = message.get("tool_calls") or [], message.get("weight")
    if role not in ROLES:
        return f"has the role {role!r}; roles are {', '.join(ROLES)}"
    # texts: content, in parts or not, and one thought
    for part in content if isinstance(content, list) else []:
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            return f"has a part of type {kind!r}; only text can be trained"
    if not isinstance(content, str | list | None) or not all(isinstance(thought, str) for thought in thoughts):
        return 'must hold texts: {"role": …, "content": …}'
    if len(set(thoughts)) > 1 or (thoughts and THINK_TAG.search(content_of(message))):
        return f"gives its reasoning twice; leave one of {', '.join(THOUGHTS)} and the <think> tags of the content"
    # what only an assistant has
    if role != "assistant" and (thoughts or calls or weight is not None):
        return f"is the {role}'s and has reasoning, tool_calls or a weight, which are an assistant's"
    if not isinstance(calls, list) or not all(isinstance(_function(call).get("name"), str) for call in calls):
        return 'has tool_calls that are not a list of {"function": {"name": …, "arguments": …}}'
    if weight not in (None, 0, 1):
        return f"has the weight {weight!r}; a turn is trained (1) or not (0)"
    if not content_of(message).strip() and (role == "user" or (role == "assistant" and not thoughts and not calls)):
        return f"is the {role}'s and empty"
    if role == "assistant" and weight is None and weight_of(message) != 1:
        flag = next(key for key in NAMES["flags"] + NAMES["masks"] if message.get(key) is not None)
        return f"has the key {flag}, which is not read; what leaves a turn untrained is weight: 0"
    unread = {*NAMES["unread"]} - {*NAMES["flags"], *NAMES["masks"]}
    unread = next((key for key in message if key in unread and message[key] not in NEUTRAL), None)
    return unread and f"has the key {unread}, which would not be trained; take it out"


def weight_of(message: dict) -> object:
    """Return the weight of an assistant's turn (1: trained, 0: not) by whatever name other trainers give it."""
    given = [message[key] for key in NAMES["flags"] if message.get(key) is not None]
    given += [not message[key] for key in NAMES["masks"] if message.get(key) is not None]
    return next((value for value in given if value != 1), 1)


def content_of(message: dict) -> str:
    """Return a message's content as one text, "" for none."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def readable(message: dict) -> dict:
    """Bring a checked message into the form that chat templates read: texts, one thought by all its names, arguments of
    tool calls as objects."""
    kept = {k: v for k, v in message.items() if v is not None and k not in ("weight", "tool_calls", *THOUGHTS)}
    kept["content"] = content_of(message)
    for thought in _thoughts(message):
        kept |= dict.fromkeys(THOUGHTS, thought)
    if message.get("tool_calls"):
        kept["tool_calls"] = [{"type": "function"} | call | {"function": _function(call)}
                              for call in message["tool_calls"]]  # fmt: skip
    return kept


def _thoughts(message):
    return [message[name] for name in THOUGHTS if message.get(name) not in (None, "")]


def _function(call):
    """Return {"name", "arguments"} of a tool call, {} if it is none. Arguments that are JSON in a text become what they
    say: templates write them as JSON themselves."""
    call = call.get("function", call) if isinstance(call, dict) else {}
    if isinstance(call, dict) and isinstance(call.get("arguments"), str):
        try:
            return call | {"arguments": json.loads(call["arguments"])}
        except ValueError:
            return call
    return call if isinstance(call, dict) else {}


def texts_of(message: dict, visible: bool = False) -> Iterator[str]:
    """Yield the texts of a readable message in the order in which they are written. visible: without the thought."""
    content = message["content"]
    if not visible:
        yield message.get(THOUGHTS[0], "")
        yield from (THINK_TAG if message["role"] == "assistant" else SWITCH).split(content)
    else:
        yield THINK_TAG.split(content)[-1]
    for call in message.get("tool_calls", ()):
        yield call["function"]["name"]
        yield from leaves(call["function"].get("arguments"))


def texts_of_tools(schema: object) -> Iterator[str]:
    """Yield names and descriptions in a list of tools (JSON Schema), those of their parameters among them."""
    if isinstance(schema, list):
        for inner in schema:
            yield from texts_of_tools(inner)
    elif isinstance(schema, dict):
        yield from (schema[key] for key in ("name", "description") if isinstance(schema.get(key), str))
        for key, inner in schema.items():
            if key == "properties" and isinstance(inner, dict):
                yield from inner
                inner = list(inner.values())
            yield from texts_of_tools(inner)


def leaves(value: object) -> Iterator[str]:
    """Yield every text in a value, however deep, and the keys of its objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from leaves(inner)


def lost(texts: Iterable[str], rendered: str, anywhere: bool = False) -> str | None:
    """Return the first of `texts` that is not in `rendered` behind the one before it (anywhere: at all), or None.

    White space does not count (templates trim), and a text may be written as in JSON (tool calls and results).
    """
    rendered, at = _squeezed(rendered), 0
    for text in texts:
        for form in _forms(text):
            place = rendered.find(form, at)
            if place >= 0:
                at = 0 if anywhere else place + len(form)
                break
        else:
            return text
    return None


def _forms(text):
    yield _squeezed(text)
    for ascii_only in (False, True):
        yield _squeezed(json.dumps(text, ensure_ascii=ascii_only)[1:-1])


def _squeezed(text):
    return "".join(text.split())
