"""What a server answers: a `Reply`, read from the JSON or the stream of a chat completion.

Its status is one of

ok           an answer
truncated    finish_reason "length": never an answer, however good its beginning looks
filtered     the host's content filter cut it
misrouted    reasoning, but no answer after it
empty        neither
too_long     the server says that the prompt does not fit its context
refused      any other question that it will not take
transport    this question failed `retries` times while the endpoint answered others
"""

import json
from dataclasses import dataclass

from agents.complaints import SERVERS, parse, valid

ANSWERED = ("ok", "truncated", "filtered", "misrouted", "empty")  # the server did what it could: worth keeping

THOUGHTS, FINISH, CACHED = SERVERS["thoughts"], SERVERS["finish"], SERVERS["cached"]


@dataclass(frozen=True)
class Reply:
    """What one question led to.

    text: the answer without its thought. Tokens as the server counts them, thought included. seconds: of the try that
    succeeded. detail: the server's own words, when there is no answer. endpoint: the name of who answered. whole: all
    that was generated, whatever the status, the thought in <think> tags. model: as the server names it. left_out:
    fields of the request that the server refuses, so that it went without them. cached_tokens: how many of the prompt's
    came from the server's cache.
    """

    status: str
    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    detail: str = ""
    endpoint: str = ""
    whole: str = ""
    model: str = ""
    left_out: tuple[str, ...] = ()
    cached_tokens: int = 0


def read_completion(content: bytes) -> dict:
    """Returns the chat completion in a response, sent whole or as a stream, whichever was asked for.

    Raises ValueError, KeyError and the like where there is none."""
    body = parse(content)
    if isinstance(body, str) and any(line.startswith("data:") for line in body.split("\n")):
        body = join_chunks(body)
    if body.get("error") or not body["choices"] or not body["choices"][0].get("message"):
        raise ValueError("no choices")
    return body


def join_chunks(text: str) -> dict:
    """Returns the completion that the events of a stream add up to. Raises ValueError if it breaks off, or holds an
    error."""
    thought, said, refusal, finish, usage, model = "", "", "", None, None, ""
    for line in text.split("\n"):
        kind, _, data = line.partition(":")
        data = data.strip()
        if kind == "error" or (kind == "data" and data.startswith("{") and json.loads(data).get("error")):
            raise StreamError(data)
        if kind != "data" or not data.startswith("{"):  # comments that keep the line open, [DONE]
            continue
        chunk = json.loads(data)
        usage, model = chunk.get("usage") or usage, chunk.get("model") or model
        for choice in chunk.get("choices") or []:
            if choice.get("index", 0) == 0:
                delta = choice.get("delta") or {}
                more_thought, more = split_thought(delta)
                thought, said = thought + more_thought, said + more
                refusal, finish = refusal + (delta.get("refusal") or ""), choice.get("finish_reason") or finish
    if finish is None:
        raise StreamError("the stream broke off")
    message = {"content": said, "reasoning": thought, "refusal": refusal}
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage, "model": model}


class StreamError(ValueError):
    """What a server says in the middle of a stream."""


def read_reply(completion: dict, seconds: float = 0.0, prefilled: bool = False, endpoint: str = "") -> Reply:
    """Returns the Reply in the JSON of a chat completion; the thought is taken off wherever the server put it.

    vLLM names the field `reasoning` (older ones and DeepSeek `reasoning_content`); Mistral sends a list of parts;
    without a reasoning parser the thought stands in the text, often without its opening tag, because the chat template
    has already written that. prefilled: the server is known to do so, and a text without the closing tag is then a
    thought that never ends. Raises ValueError where the server itself says that it did not finish.
    """
    choice = completion["choices"][0]
    message, finish = choice["message"], str(choice.get("finish_reason")).lower()
    if finish in FINISH["broke_off"]:
        raise StreamError(choice.get("error") or f"the server broke off ({finish})")

    # the answer is what follows the last thought; a thought that never ends leaves none
    whole = _with_thought(message, prefilled, finish)
    text = whole.rpartition("</think>")[2].strip()
    if "<think>" in text:
        text = ""

    # how it ended decides before what was said
    if finish in FINISH["cut"]:
        status, text = "truncated", ""
    elif finish in FINISH["filtered"] or message.get("refusal"):
        status, text = "filtered", ""
    elif text:
        status = "ok"
    else:
        status = "misrouted" if "<think>" in whole else "empty"

    model = str(completion.get("model") or "")
    tokens, said = tokens_in(completion), {"endpoint": endpoint, "whole": whole, "model": model}
    return Reply(status, text, *tokens, round(seconds, 3), **said, cached_tokens=cached_in(completion))


def tokens_in(completion: dict) -> tuple[int, int]:
    """Returns (prompt tokens, completion tokens) as the server counts them, 0 where it does not."""
    usage = _usage(completion)
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def cached_in(completion: dict) -> int:
    """Returns how many prompt tokens came from the server's cache; 0 where it does not say, or says what cannot be."""
    usage = _usage(completion)
    places = [place for place in (usage, *map(usage.get, CACHED["inside"])) if isinstance(place, dict)]
    counts = [_count(place.get(key)) for place in places for key in CACHED["keys"]]
    return min(tokens_in(completion)[0], max(counts, default=0))


def _usage(completion):
    return completion["usage"] if isinstance(completion.get("usage"), dict) else {}


def _count(value):
    """Return a number of tokens, 0 for what is none: an answer is worth more than what its server says of it."""
    try:
        return max(0, int(value))
    except (TypeError, ValueError, OverflowError):  # null, "many", NaN, infinity
        return 0


def _with_thought(message: dict, prefilled: bool, finish: str) -> str:
    """The thought, wherever the server put it, as `<think>…</think>` before the answer; not closed if it was cut."""
    thought, content = map(valid, split_thought(message))
    if thought:
        return f"<think>{thought}" + (f"</think>{content}" if content.strip() or finish not in FINISH["cut"] else "")
    unopened = "<think>" not in content and (prefilled or "</think>" in content)
    return f"<think>{content}" if content and unopened else content


def split_thought(message: dict) -> tuple[str, str]:
    """Returns (thought, text) of a message, or of a part of a stream: fields beside the content, or parts of it."""
    thought = next((text for key in THOUGHTS if (text := _text(message.get(key)))), "")
    content = message.get("content")
    if not isinstance(content, list):
        return thought, _text(content)
    kinds = [str(part.get("type")) if isinstance(part, dict) else "text" for part in content]
    thinks = ["think" in kind or "reason" in kind for kind in kinds]
    inner = [_text(part) for part, aside in zip(content, thinks, strict=True) if aside]
    return thought or "".join(inner), "".join(_text(p) for p, aside in zip(content, thinks, strict=True) if not aside)


def _text(part: object) -> str:
    """All text in a part of a message, however deep."""
    if isinstance(part, list):
        return "".join(map(_text, part))
    if isinstance(part, dict):
        return next((text for key in ("text", "content", *THOUGHTS, "summary") if (text := _text(part.get(key)))), "")
    return part if isinstance(part, str) else ""
