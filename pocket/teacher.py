"""The pocket run's teacher: a scripted one, behind a real HTTP server that speaks OpenAI's chat completions.

    python -m pocket.teacher --port 8799 --error-rate 0.1 --seed 0

It stands in for DeepSeek-R1-Distill-Qwen-32B where no large model can run; its model id, "scripted-teacher", says so.
It is a separate process that knows only what the messages say: it recognises its role by the prompt (Table 13), parses
the problem, the answer and the reasoning out of the text, and computes its reply from the arithmetic that it finds
there (pocket/scripted.py, pocket/corruption.py). It errs at a configured rate, so that every branch of the pipeline
runs: a wrong level, a rewrite that loses the answer, a "corruption" that is still right, a verdict that follows a
thought and stands in a sentence.

Endpoints: POST /v1/chat/completions (seed, max_tokens; one choice, no streaming), GET /v1/models.
The same request always gets the same reply, whatever the order of requests; another `seed` in it may get another.
"""

import argparse
import hashlib
import json
import random
import re
import time
from dataclasses import dataclass
from fractions import Fraction

from aiohttp import web

from pocket import scripted
from pocket.arithmetic import parse_number
from pocket.corruption import corrupt, slip_only

MODEL = "scripted-teacher"

ROLES = {  # what Table 13's prompts alone say
    "highly capable evaluator": "critic",
    "extending reasoning processes": "extend",
    "simplifying reasoning processes": "simplify",
    "converting correct reasoning processes to incorrect": "corrupt",
    "highly capable verifier": "verifier",
}
SECTIONS = re.compile(r"Problem:\n(.+?)\n\nAnswer:\n(.+?)\n\nReasoning process:\n(.+)", re.DOTALL)
PROMPT_STARTS = re.compile(r"\n\nYou are an? ")  # where the prompt follows the sections in one turn
TOKEN = re.compile(r"\d|[^\W\d]+|[^\w\s]")  # a stand-in for a tokenizer: usage and max_tokens count these


class BadRequest(ValueError):
    """The request cannot be answered. The message goes back to the client with status 400."""


@dataclass(frozen=True)
class Task:
    """What a request asks for. role: a value of ROLES. answer: None if y is no number."""

    role: str
    problem: str
    answer: int | Fraction | None
    reasoning: str


def understand(messages: list[dict]) -> Task:
    """Read the Task that the messages set. Raises BadRequest if they set none that this teacher knows."""
    texts = [message["content"] for message in messages]
    words = " ".join("\n".join(texts).lower().split())
    roles = [role for phrase, role in ROLES.items() if phrase in words]
    if len(roles) != 1:
        raise BadRequest(f"the prompt must name one role of Table 13 ({', '.join(ROLES)}); found {len(roles)}")
    found = [match for text in texts if (match := SECTIONS.search(text))]
    if not found:
        raise BadRequest('no message holds the sections "Problem:", "Answer:" and "Reasoning process:"')
    problem, answer, reasoning = found[-1].groups()
    return Task(roles[0], problem, parse_number(answer), PROMPT_STARTS.split(reasoning)[0].strip())


def reply(task: Task, rng: random.Random, error_rate: float) -> str:
    """Write the assistant's text for a Task. rng decides whether it errs, and how."""
    errs = rng.random() < error_rate

    # the Rethinker: an error in a rewrite is that it does not reach the answer
    if task.role == "corrupt":
        return _corrupted(task, rng, errs)
    reading = scripted.read(task.problem, task.reasoning)
    if task.role in ("extend", "simplify"):
        rewritten = (scripted.extend if task.role == "extend" else scripted.simplify)(reading, task.answer)
        rewritten = rewritten or task.reasoning  # it leads nowhere: nothing to build on
        return _without_answer(task, rewritten, rng) if errs else rewritten

    # the Verifier errs in form alone, the Critic in form or with another level
    if task.role == "verifier":
        verdict = "YES" if scripted.verify(reading, task.answer) else "NO"
        return _wordy(verdict, rng) if errs else verdict
    level = scripted.judge(reading)
    if not errs:
        return level
    if rng.random() < 0.5:
        return _wordy(level, rng)
    return rng.choice([other for other in ("easy", "medium", "hard") if other != level])


def _corrupted(task, rng, errs):
    """Corrupt the reasoning; where it errs, the answer stays right."""
    wrong = corrupt(task.problem, task.reasoning, task.answer, rng)
    if errs:  # as in the paper's own Table 12: an error in the middle, the right number in the end
        reading = scripted.read(task.problem, task.reasoning)
        return slip_only(reading, task.reasoning, rng) or scripted.simplify(reading, task.answer) or task.reasoning
    return wrong or task.reasoning


def _without_answer(task, rewritten, rng):
    """Spoil a rewrite: without its last line, or with another result."""
    lines = rewritten.splitlines()
    wrong = corrupt(task.problem, rewritten, task.answer, rng)
    if len(lines) > 1 and (wrong is None or rng.random() < 0.5):
        return "\n".join(lines[:-1])
    return wrong or "It can be worked out step by step."


def _wordy(verdict, rng):
    """Wrap a verdict in a thought and a sentence, as reasoning models do although they were told to say one word."""
    thought = rng.choice(
        [
            "Let me go through the reasoning step by step and see what a small model would make of it.",
            "First impression: it could be either way. I compare every step with the problem.",
        ]
    )
    sentences = [
        f"After checking each step:\nVerdict: {verdict}",
        f"**{verdict}**",
        f"The verdict is {verdict}, I think.",
    ]
    sentence = rng.choice(sentences)
    return f"<think>\n{thought}\n</think>\n\n{sentence}"


def complete(body: object, seed: int, error_rate: float) -> dict:
    """Answer the body of a chat completion request as OpenAI would. Raises BadRequest."""
    messages, max_tokens = _checked(body)
    # what decides the reply: the request and nothing else
    key = json.dumps([seed, body.get("seed"), 0, messages])
    digest = hashlib.sha256(key.encode()).digest()
    text = reply(understand(messages), random.Random(int.from_bytes(digest[:8])), error_rate)

    # cut at max_tokens, as a server would
    tokens, reason = list(TOKEN.finditer(text)), "stop"
    if max_tokens is not None and len(tokens) > max_tokens:
        text, tokens, reason = text[: tokens[max_tokens - 1].end()], tokens[:max_tokens], "length"
    message = {"role": "assistant", "content": text}
    asked = sum(len(TOKEN.findall(message["content"])) for message in messages)
    return {
        "id": f"chatcmpl-{digest.hex()[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}],
        "usage": {"prompt_tokens": asked, "completion_tokens": len(tokens), "total_tokens": asked + len(tokens)},
    }


def _checked(body):
    """Read (messages, max_tokens) from a request. Raises BadRequest."""
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    messages, most = body.get("messages"), body.get("max_completion_tokens") or body.get("max_tokens")
    good = isinstance(messages, list) and messages
    if not good or not all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages):
        raise BadRequest("messages must be a list that is not empty of {role, content} with text as content")
    if most is not None and (not isinstance(most, int) or most < 1):
        raise BadRequest("max_tokens must be a whole number of at least 1")
    if body.get("stream") or body.get("n") not in (None, 1):
        raise BadRequest("streaming, and more than one choice (n), are not offered here")
    return messages, most


def make_app(seed: int, error_rate: float) -> web.Application:
    """Build the server."""

    async def chat(request):
        try:
            return web.json_response(complete(await request.json(), seed, error_rate))
        except (BadRequest, json.JSONDecodeError, UnicodeDecodeError) as error:
            problem = str(error) if isinstance(error, BadRequest) else f"the body is not valid JSON: {error}"
            details = {"message": problem, "type": "invalid_request_error", "param": None, "code": None}
            return web.json_response({"error": details}, status=400)

    async def models(request):
        return web.json_response(
            {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "pocket run"}]}
        )

    app = web.Application(client_max_size=16 * 2**20)
    app.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", models)])
    return app


def main() -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8799)
    parser.add_argument("--error-rate", type=float, default=0.1, help="share of replies with an error in them")
    parser.add_argument("--seed", type=int, default=0, help="decides which replies")
    args = parser.parse_args()
    if not 0 <= args.error_rate <= 1:
        parser.error(f"--error-rate must lie between 0 and 1, not {args.error_rate}")
    try:
        web.run_app(make_app(args.seed, args.error_rate), host=args.host, port=args.port, access_log=None)
    except OSError as error:
        parser.exit(1, f"error: cannot listen on {args.host}:{args.port}: {error.strerror}\n")


if __name__ == "__main__":
    main()
