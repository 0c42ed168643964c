"""The pocket run's teacher: a scripted one, behind a real HTTP server that speaks OpenAI's chat completions.

    python -m pocket.teacher --port 8799 --error-rate 0.1 --seed 0

It stands in for DeepSeek-R1-Distill-Qwen-32B where no large model can run; its model id, "scripted-teacher", says so.
It is a separate process that knows only what the messages say: it recognises its role by the prompt (Table 13) and the
problem, if it is one of pocket/problems.py's, by its text. The Critic and the Verifier judge any text by its equations;
the Rethinker knows the pocket tasks only, and returns a chain for another problem as it is. It errs at a configured
rate, so that every branch of the pipeline runs: a wrong level, a rewrite that loses the answer, a "corruption" that
still ends right, a verdict that follows a thought and stands in a sentence.

Endpoints: POST /v1/chat/completions (seed, max_tokens; one choice, no streaming), GET /v1/models.
The same request always gets the same reply, whatever the order of requests; another `seed` in it may get another.
"""

import argparse
import hashlib
import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product

from aiohttp import web

from grading.answers import compare, final_answer
from pocket.arithmetic import beyond_tables, equations, evaluate, holds, operands
from pocket.hands import hand_balanced, read_hand, wrong_hands
from pocket.problems import WRITERS, read_facts

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
THOUGHTS = (
    "Let me go through the reasoning step by step and see what a small model would make of it.",
    "First impression: it could be either way. I compare every step with the problem.",
)
SENTENCES = ("After checking each step:\nVerdict: {}", "**{}**", "The verdict is {}, I think.")
ALGEBRA = re.compile(r"\b[A-Za-z] ?[-+*/] ?(?:\d|[A-Za-z]\b)")  # S-52, a*b
SPARE_STEPS = 2  # this many that lead nowhere make a chain convoluted; a single one is no trouble
SEEDS = 64  # a writer has at most six wordings, so that one of so many seeds chooses any of them
SIGN = re.compile(r"(?<=[\d)])[-+*/]")
SUM = r"-?\d+(?:[-+*]\d+)*"
CALCULATION = re.compile(rf"(?<![\w+*-]){SUM}(?:={SUM})*(?!\w)")  # as pocket/problems.py writes them; or a lone number
TOKEN = re.compile(r"\d|[^\W\d]+|[^\w\s]")  # a stand-in for a tokenizer: usage and max_tokens count these


class BadRequest(ValueError):
    """The request cannot be answered. The message goes back to the client with status 400."""


@dataclass(frozen=True)
class Task:
    """What a request asks for. role: a value of ROLES."""

    role: str
    problem: str
    answer: str
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
    return Task(roles[0], problem, answer, PROMPT_STARTS.split(reasoning)[0].strip())


def reply(task: Task, rng: random.Random, error_rate: float) -> str:
    """Write the assistant's text for a Task. rng decides whether it errs, and how."""
    errs = rng.random() < error_rate

    # the Rethinker: a rewrite that errs stops before the answer
    if task.role in ("extend", "simplify"):
        lines = rewrite(task).splitlines()
        return "\n".join(lines[:-1] if errs else lines) or "It can be worked out step by step."

    # a corruption that errs has the right number in the end, as the paper's own in Table 12
    if task.role == "corrupt":
        wrong = corrupt(task.problem, task.reasoning, rng)
        if wrong and errs:
            before, _, after = wrong.rpartition(final_answer(wrong))
            return before + final_answer(task.reasoning) + after
        return wrong or task.reasoning

    # the Verifier errs in form alone, the Critic in form or with another level
    if task.role == "verifier":
        verdict = "YES" if verify(task.reasoning, task.answer) else "NO"
        return _wordy(verdict, rng) if errs else verdict
    level = judge(task.reasoning, task.problem)
    if not errs:
        return level
    if rng.random() < 0.5:
        return _wordy(level, rng)
    return rng.choice([other for other in ("easy", "medium", "hard") if other != level])


def _wordy(verdict, rng):
    """Wrap a verdict in a thought and a sentence, as reasoning models do although they were told to say one word."""
    return f"<think>\n{rng.choice(THOUGHTS)}\n</think>\n\n{rng.choice(SENTENCES).format(verdict)}"


# --- the Critic and the Verifier: what a chain's equations say ---


def judge(reasoning: str, problem: str = "") -> str:
    """Rate a chain. easy: a step asks too much at once, or none is shown. hard: it calculates with letters, or much is
    not needed, or a hand of cards is scored in a way that does not suit it. Else medium."""
    # from the final answer back through all that it rests on; every number that is wanted needs one step
    steps, spare = equations(reasoning), 0
    wanted = Counter({evaluate(final_answer(reasoning) or ""): 1})
    for first, *_, result in reversed(steps):
        if wanted[evaluate(result)] > 0:
            wanted[evaluate(result)] -= 1
            wanted.update(operands(first))
        else:
            spare += 1
    if spare == len(steps):
        return "easy"
    if spare >= SPARE_STEPS or ALGEBRA.search(reasoning):
        return "hard"

    # from one side to the next: a whole expression, or a product beyond the tables, becomes a number at once
    for left, right in (sides for step in steps for sides in pairwise(step)):
        signs = SIGN.findall(left)
        if not SIGN.search(right) and (len(signs) > 1 or (signs == ["*"] and beyond_tables(*operands(left)))):
            return "easy"
    cards = read_hand(problem)
    return "medium" if not cards or _words(reasoning) == _words(hand_balanced(cards, None)) else "hard"


def verify(reasoning: str, answer: str) -> bool:
    """Tell whether the chain has equations, all of them hold, and it ends in the answer."""
    steps, end = equations(reasoning), final_answer(reasoning)
    return bool(steps) and all(map(holds, steps)) and end is not None and compare(end, answer) == "equal"


# --- the Rethinker: the problem's own writers ---


def rewrite(task: Task) -> str:
    """Write the balanced chain of a pocket problem; return the reasoning of another one, or where y is wrong."""
    found = read_facts(task.problem)
    balanced = WRITERS[found[0]]["balanced"](found[1], None) if found else ""
    return balanced if verify(balanced, task.answer) else task.reasoning


def corrupt(problem: str, reasoning: str, rng: random.Random) -> str | None:
    """Write a pocket problem's chain from one wrong fact, or with one slip that is carried through to a wrong end.

    Nothing else changes, neither wording nor length; but a hand of cards is written with one mistake of wrong_hands,
    which may leave out a rule. None for another problem, or where no error fits.
    """
    found = read_facts(problem)
    if is_hand := found is not None and found[0] == "hands":
        kinds = [_writings(*found, reasoning, wrong) for wrong in wrong_hands(found[1]).values()]
    else:
        kinds = [_wrong_facts(*found, reasoning), _slips(reasoning)] if found else [[], []]
    for errors in kinds:
        rng.shuffle(errors)
    rng.shuffle(kinds)
    texts = (write() for errors in kinds for write in errors)
    wrong = (text for text in texts if final_answer(text) != final_answer(reasoning))
    return next((text for text in wrong if is_hand or _is_carried_through(reasoning, text)), None)


def _words(text):
    """Return a text without its numbers."""
    return re.sub(r"\d+", "#", text)


def _is_carried_through(old, new):
    """Tell whether a corruption has its source's words, no more than one false step, and everywhere one wrong end."""
    if _words(old) != _words(new):
        return False
    end, wrong_end = (evaluate(final_answer(text) or "") for text in (old, new))
    steps = list(zip(equations(old), equations(new), strict=True))
    ends = {evaluate(after[-1]) for before, after in steps if evaluate(before[-1]) == end}
    return ends == {wrong_end} and len({after[0] for _, after in steps if not holds(after)}) <= 1


def _near(value):
    """List plausible wrong numbers instead of `value`: near it, or a ten off if it is large, with the same sign."""
    steps = [1, -1, 2, -2] + [10, -10] * (abs(value) >= 20)
    return [value + step for step in steps if value + step and (value + step > 0) == (value >= 0)]


def _wrong_facts(task, facts, reasoning):
    """List what writes a chain with a wrong number of legs, or with a miscopied term or factor."""
    wrong = []
    for place, fact in enumerate(facts):
        others = [(*fact[:2], n) for n in _near(fact[2])] if task == "leg_counting" else _near(fact)
        wrong += [[*facts[:place], other, *facts[place + 1 :]] for other in others]
    return _writings(task, facts, reasoning, wrong)


def _writings(task, facts, reasoning, wrong):
    """List what writes a chain from each of the `wrong` facts as it was written from the right ones."""
    for write, seed in product(WRITERS[task].values(), range(SEEDS)):
        if write(facts, random.Random(seed)) == reasoning:
            return [partial(write, other, random.Random(seed)) for other in wrong]
    return []


def _slips(reasoning):
    """List what writes a chain with a slip in one of its calculations, wherever it makes that one."""
    calculations = [match.group().split("=") for match in CALCULATION.finditer(reasoning)]
    results = {sides[0]: sides[-1] for sides in calculations if len(sides) > 1}
    return [
        partial(_with_slip, reasoning, first, str(n)) for first, result in results.items() for n in _near(int(result))
    ]


def _with_slip(reasoning, slip, wrong):
    """Let `slip` come to `wrong`, and carry that through the sums and the conclusion of a chain."""
    end, moved = final_answer(reasoning), {}

    def carry(calculation):
        first, *others = sides = calculation.group().split("=")
        if not others:  # a number in a sentence, or an expression
            return moved.get(first, first) if first == end else first
        # factors are facts; the terms of a sum are earlier results
        after = first if "*" in first else re.sub(r"^-?\d+|\d+", lambda n: moved.get(n.group(), n.group()), first)
        result = wrong if first == slip else str(evaluate(after)) if after != first else sides[-1]
        moved[sides[-1]] = result
        return "=".join([after, *sides[1:-1], result])

    return CALCULATION.sub(carry, reasoning)


# --- the server ---


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
    except (OSError, OverflowError) as error:  # the latter: no such port
        parser.exit(1, f"error: cannot listen on {args.host}:{args.port}: {getattr(error, 'strerror', error)}\n")


if __name__ == "__main__":
    main()
