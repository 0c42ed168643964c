"""The start-up probe: a few test questions that tell how a server wants to be asked and what it really honours.

Servers answer 200 to options that they ignore, so each one is tried with a question whose answer shows its effect:
top_k = 1 at a temperature at which nothing else repeats itself, a prompt whose length is known. What is found is saved
and used (`RequestQuirks`); a question that the server refuses leaves its line at "refused", and only an option that the
run itself needs stops it.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from agents.client import TOKEN_KEYS, CallError, Endpoint, RequestQuirks, room_left
from data.records import write_text
from errors import UserError
from progress import say

WORD = "Reply with exactly one word: alpha"
LIST = "Write a list of twelve random words."
LONG = 6000  # words, each of them one token to any tokenizer in use; Ollama cuts at 4,096 and says nothing
SHORT_ANSWER, THOUGHTFUL_ANSWER = 24, 2048  # max_tokens
SECONDS = 120  # for one of these answers, on top of what the endpoint allows for its queue


class Prober:
    """`await prober(endpoint, body) -> RequestQuirks`; asks only what `path` (probe.json) does not tell already.

    body: a question of the run, whose model and sampling the test questions share. long: try a long prompt, too; a
    server that cuts it in silence is a UserError, for it would cut the long chains of the run as well.
    """

    def __init__(self, path: Path, long: bool = False):
        self.path, self.long = Path(path), long
        self.known = json.loads(self.path.read_text()) if self.path.exists() else {}

    async def __call__(self, endpoint: Endpoint, body: dict) -> RequestQuirks:
        cfg = endpoint.cfg
        place = " ".join([endpoint.url, cfg.model, *([json.dumps(cfg.extra_body)] if cfg.extra_body else [])])
        found = self.known.get(place)
        if found is None or (self.long and "long_prompt" not in found):
            found = await probe(endpoint, body, self.long)
            if "cut" in found.get("long_prompt", ""):  # not remembered: it is to be tried again after the repair
                raise UserError(
                    f"{endpoint.where} cuts long prompts and says nothing (a test prompt of {LONG} words was "
                    f"{found['long_prompt']}): raise its context (Ollama: num_ctx), or set probe=false if its count is "
                    f"wrong"
                )
            self.known[place] = found
            write_text(self.path, json.dumps(self.known, indent=2) + "\n")
        say(f"{endpoint.where}: {summary(found)}")
        if found["top_k"] == "refused" and body.get("top_k") is not None:
            raise UserError(f"{endpoint.where} refuses top_k; set sampling.top_k=null ({found['top_k_words']})")
        return RequestQuirks(found["token_key"], found["stream"], found["thought"] == "prefilled")


async def probe(endpoint: Endpoint, body: dict, long: bool = False) -> dict:
    """Returns what the server is like, JSON-able. Raises what `Endpoint.post` does when it does not answer."""
    quirks = RequestQuirks()

    async def ask(question: dict, read: Callable) -> object:
        return await endpoint.post(endpoint.adapted(question, quirks), endpoint.cfg.timeout + SECONDS, read)

    thought = await _first_answer(ask, body, quirks)
    found = {"thought": thought, "token_key": quirks.token_key, "stream": quirks.stream}
    tests = [_top_k(ask, body)] + ([_long_prompt(ask, body)] if long else [])
    for part in await asyncio.gather(*tests):
        found |= part
    return found


def summary(found: dict) -> str:
    """Returns one line for the person watching."""
    thought = {"none": "no thoughts", "inline": "thoughts in <think> tags", "unknown": "test question refused"}
    parts = [thought.get(found["thought"], f"thoughts: {found['thought']}"), f"top_k {found['top_k']}"]
    parts += ["streaming only"] if found["stream"] else []
    parts += [found["token_key"]] if found["token_key"] == TOKEN_KEYS[1] else []
    parts += [f"long prompt {found['long_prompt']}"] if "long_prompt" in found else []
    return "; ".join(parts)


def _question(body, text, max_tokens, **options):
    """A test question with the run's own model and sampling."""
    kept = {key: body[key] for key in ("model", "temperature", "top_p", "seed") if key in body}
    return kept | {"messages": [{"role": "user", "content": text}], TOKEN_KEYS[0]: max_tokens} | options


async def _first_answer(ask, body, quirks):
    """Where thoughts come back. Changes `quirks` as the server's complaints say."""
    question = _question(body, WORD, THOUGHTFUL_ANSWER)
    for _ in range(3):
        thought, words = await _try(ask, question, lambda completion: where_thought_is(_message(completion)))
        if not words:
            return thought
        if "stream" in words.lower() and not quirks.stream:
            quirks.stream = True
        elif TOKEN_KEYS[1] in words and not quirks.token_key:
            quirks.token_key = TOKEN_KEYS[1]
        else:
            break
    return "unknown"


def _message(completion):
    return completion["choices"][0]["message"]


def where_thought_is(message: dict) -> str:
    """Returns "reasoning" or "reasoning_content" (a field), "inline" or "prefilled" (in the text), or "none"."""
    for name in ("reasoning", "reasoning_content"):
        if message.get(name):
            return name
    thought, closed, _ = (message.get("content") or "").rpartition("</think>")
    if closed:
        return "inline" if "<think>" in thought else "prefilled"
    return "none"


async def _try(ask, question, read):
    """(read(completion), ""), or (None, the words of the refusal)."""
    try:
        return await ask(question, read), ""
    except CallError as error:
        if not 400 <= error.status < 500 or error.status in (401, 408, 429):
            raise
        return None, str(error)


async def _top_k(ask, body):
    """At temperature 2 two samples differ, unless top_k = 1 leaves nothing to choose."""
    hot = {"temperature": 2.0, "top_p": 1.0}
    seeds = [{"seed": seed} if "seed" in body else {} for seed in (1, 2)]
    asked = [_question(body, LIST, SHORT_ANSWER, **hot | seed, top_k=1) for seed in seeds]
    asked += [_question(body, LIST, SHORT_ANSWER, **hot | seed) for seed in seeds]
    read = [_try(ask, question, lambda completion: str(_message(completion))) for question in asked]
    (one, words), (two, _), (free_one, free_words), (free_two, _) = await asyncio.gather(*read)
    if words and not free_words:
        return {"top_k": "refused", "top_k_words": words}
    if None in (one, two, free_one, free_two):
        return {"top_k": "unknown"}
    if one != two:
        return {"top_k": "ignored"}
    return {"top_k": "honoured" if free_one != free_two else "unknown"}


async def _long_prompt(ask, body):
    """Whether the server counts all the tokens of a prompt of known length, as `found` wants it."""
    question = _question(body, "one" + " word" * LONG, SHORT_ANSWER)
    seen, words = await _try(
        ask, question, lambda completion: int((completion.get("usage") or {}).get("prompt_tokens") or 0)
    )
    if words:
        room = room_left(words)
        return {"long_prompt": "refused" if room is None else f"refused, {room} tokens of room"}
    if not seen:
        return {"long_prompt": "not counted"}
    return {"long_prompt": "whole" if seen >= LONG else f"cut silently to {seen} tokens"}
