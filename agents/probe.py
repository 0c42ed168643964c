"""The start-up probe: a few test questions that tell how a server wants to be asked and what it really honours.

Servers answer 200 to options that they ignore, so each one is tried with a question whose answer shows its effect:
top_k = 1 at a temperature at which nothing else repeats itself, a prompt whose length is known. They are asked one
after the other, within the endpoint's limits, and again after a passing failure. What is found is saved, and told to
the endpoint; a question that the server refuses leaves its line at "refused", and only an option that the run
itself needs stops it.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from agents.client import DECIDED, TOKEN_KEYS, Endpoint, one_of
from agents.complaints import CallError, room_left
from agents.limits import pause
from agents.replies import THOUGHTS, split_thought, tokens_in
from data.records import write_text
from errors import UserError, read_json
from progress import say

WORD = "Reply with exactly one word: alpha"
LIST = "Write a list of twelve random words."
LONG = 6000  # words, each of them one token to any tokenizer in use; Ollama cuts at 4,096 and says nothing
SHORT_ANSWER, THOUGHTFUL_ANSWER = 24, 2048  # max_tokens
TRIES = 4  # of one test question in a row; then the run's own question has failed once, and is tried again


class Prober:
    """`await prober(endpoint, body)` tells the endpoint what it is like; asks only what `path` (probe.json) does not
    tell already.

    body: a question of the run, whose model and sampling the test questions share. long: try a long prompt, too; a
    server that cuts it in silence is a UserError, for it would cut the long chains of the run as well. choice: try
    whether it keeps to the words that it is left.
    """

    def __init__(self, path: Path, long: bool = False, choice: bool = False):
        self.path, self.long, self.choice = Path(path), long, choice
        self.known = read_json(self.path, "delete it and run again", _answers) if self.path.exists() else {}
        self.heard = {}  # Endpoint: answers of a probe that has failed before its end

    async def __call__(self, endpoint: Endpoint, body: dict) -> None:
        cfg = endpoint.cfg
        place = " ".join([endpoint.url, cfg.model, *([json.dumps(cfg.extra_body)] if cfg.extra_body else [])])
        wanted = {"thought", "top_k", "token_key", "stream", *(["long_prompt"] if self.long else [])}
        found = self.known.get(place, {})
        if not wanted <= found.keys():  # nothing is known, or an earlier run asked for less
            found = await probe(endpoint, body, self.long, self.choice, self.heard.setdefault(endpoint, []))
            if "cut" in found.get("long_prompt", ""):  # not remembered: it is to be tried again after the repair
                raise UserError(
                    f"{endpoint.where} cuts long prompts and says nothing (a test prompt of {LONG} words was "
                    f"{found['long_prompt']}): raise its context (Ollama: num_ctx), or set probe=false if its count is "
                    f"wrong"
                )
            self.known[place] = found
            write_text(self.path, json.dumps(self.known, indent=2) + "\n")
        endpoint.token_key, endpoint.stream = found["token_key"], found["stream"]
        endpoint.prefilled, endpoint.left_out = found["thought"] == "prefilled", list(found.get("left_out", []))
        endpoint.choices = found.get("choice") == "honoured"
        window = f"; window {endpoint.window:,} tokens" if endpoint.window else ""
        say(f"{endpoint.where}: {summary(found)}{window}")
        if found["top_k"] == "refused" and body.get("top_k") is not None:
            key = f"endpoints.{endpoint.name}.extra_body.top_k=null"
            raise UserError(f"{endpoint.where} refuses top_k; set {key} to leave it out ({found['top_k_words']})")


async def probe(endpoint: Endpoint, body: dict, long: bool, choice: bool, heard: list) -> dict:
    """Returns what the server is like, JSON-able. heard: what it has answered already, in order; extended. Raises
    CallError when it does not answer."""
    before = iter(list(heard))

    async def ask(question: dict, read: Callable) -> tuple:
        """(what `read` makes of the answer, ""), or (None, the words of the refusal)."""
        if said := next(before, None):
            return said
        for failures in range(1, TRIES + 1):
            try:
                said = await endpoint.send(question, lambda completion, _: read(completion), failures - 1), ""
            except CallError as error:
                if error.kind in DECIDED:
                    said = None, str(error)
                elif failures == TRIES or error.kind == "locked" or error.fatal:
                    raise
                else:
                    await asyncio.sleep(pause(failures) if error.wait is None else error.wait)
            if said:
                heard.append(said)
                return said

    thought, words = await ask(_question(body, WORD, THOUGHTFUL_ANSWER), where_thought_is)
    found = {"thought": "unknown" if words else thought} | await _top_k(ask, body)
    if long:
        found |= await _long_prompt(ask, body)
    if choice and found["thought"] not in ("inline", "prefilled", "unknown"):  # it would cut such a thought off
        endpoint.choices = True  # else it is not sent
        found |= await _choice(ask, body, endpoint)
    return found | {"token_key": endpoint.token_key, "stream": endpoint.stream, "left_out": endpoint.left_out}


def summary(found: dict) -> str:
    """Returns one line for the person watching."""
    thought = {"none": "no thoughts", "inline": "thoughts in <think> tags", "unknown": "test question refused"}
    parts = [thought.get(found["thought"], f"thoughts: {found['thought']}"), f"top_k {found['top_k']}"]
    parts += ["streaming only"] if found["stream"] else []
    parts += [found["token_key"]] if found["token_key"] == TOKEN_KEYS[1] else []
    parts += [f"without {', '.join(found['left_out'])}"] if found.get("left_out") else []
    parts += [f"long prompt {found['long_prompt']}"] if "long_prompt" in found else []
    parts += [f"choice {found['choice']}"] if "choice" in found else []
    return "; ".join(parts)


def _question(body, text, max_tokens, **options):
    """A test question with the run's own model and sampling."""
    kept = {key: body[key] for key in ("model", "temperature", "top_p", "seed") if key in body}
    return kept | {"messages": [{"role": "user", "content": text}], TOKEN_KEYS[0]: max_tokens} | options


def _message(completion):
    return completion["choices"][0]["message"]


def where_thought_is(completion: dict) -> str:
    """Returns "reasoning" or another field, "parts" (of the content), "inline" or "prefilled" (in its text), "none"."""
    message = _message(completion)
    aside, content = split_thought(message)
    if aside:
        return next((name for name in THOUGHTS if message.get(name)), "parts")
    thought, closed, _ = content.rpartition("</think>")
    if closed:
        return "inline" if "<think>" in thought else "prefilled"
    return "none"


async def _top_k(ask, body):
    """At temperature 2 two samples differ, unless top_k = 1 leaves nothing to choose."""
    hot = {"temperature": 2.0, "top_p": 1.0}
    seeds = [{"seed": seed} if "seed" in body else {} for seed in (1, 2)]
    asked = [_question(body, LIST, SHORT_ANSWER, **hot | seed, top_k=1) for seed in seeds]
    asked += [_question(body, LIST, SHORT_ANSWER, **hot | seed) for seed in seeds]
    read = [await ask(question, lambda completion: str(_message(completion))) for question in asked]
    (one, words), (two, _), (free_one, free_words), (free_two, _) = read
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
    seen, words = await ask(question, lambda completion: tokens_in(completion)[0])
    if words:
        room = room_left(words)
        return {"long_prompt": "refused" if room is None else f"refused, {room} tokens of room"}
    if not seen:
        return {"long_prompt": "not counted"}
    return {"long_prompt": "whole" if seen >= LONG else f"cut silently to {seen} tokens"}


async def _choice(ask, body, endpoint):
    """Whether the server says one of two words that it was not asked for, when it is left no others."""
    question = _question(body, WORD, THOUGHTFUL_ANSWER, **one_of(("beta", "gamma")))
    try:
        said, words = await ask(question, lambda completion: split_thought(_message(completion))[1])
    except CallError as error:  # at this question alone, by a server that is there: the run can do without a choice
        alone = error.status == 404 or (error.kind == "passing" and (error.status or await endpoint.is_there()))
        if error.fatal or not alone:
            raise
        words = str(error)
    if words:
        return {"choice": "refused"}
    return {"choice": "honoured" if '"beta"' in said or '"gamma"' in said else "ignored"}


def _answers(known):
    return {place: dict(found) for place, found in known.items()}
