"""Responses of served models, for the evaluation: each one a request of its own, with its own seed.

    lost = asyncio.run(draw(questions, configs, keep, earlier))

Every answer goes to `keep` before its worker sends the next question; what is kept is not asked again. Refusals wait in
memory until a server of the endpoint has answered once: until then it may be the request that is wrong. A server that
answers as another model than it was asked for stops the run.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Iterable

from agents.client import TOKEN_KEYS, Endpoint
from agents.complaints import CallError
from agents.journal import call_seed
from agents.limits import Earlier, EndpointConfig
from agents.pool import Pool, open_endpoints, run_together
from agents.replies import ANSWERED, Reply
from errors import UserError
from evals.questions import Question
from progress import Progress

REASONS = {"truncated": "length", "filtered": "filtered", "too_long": "refused", "refused": "refused"}


async def draw(
    questions: list[Question],
    configs: dict[str, EndpointConfig],
    keep: Callable[[Question, dict], None],
    earlier: Iterable[dict],
    prober: Callable | None = None,
    max_cost: float | None = None,
) -> list[tuple[Question, str]]:
    """Ask all questions, several endpoints at a time; keep(question, made) is called as each answer arrives.

    made: what a generation's record (evals/store.py) says of the response; text is thought and answer as they came, the
    thought in <think> tags; finish_reason is stop, length, refused (the server will not take this question; detail says
    why) or filtered.

    configs: {name: EndpointConfig}. earlier: the generations on disk. prober, max_cost: as in build_crv. Returns
    [(question, why)] of those that failed again and again while others were answered: they are to be asked in another
    run. Raises UserError when an endpoint is broken, serves another model or costs too much; the others then finish
    what they have begun.
    """
    waiting, lost, begin, tokens = {}, [], time.monotonic(), 0
    for question in questions:
        waiting.setdefault(question.place.endpoint, deque()).append(question)
    # what is known of the endpoints, and what they have cost
    tally = Earlier()
    for made in earlier:
        if "endpoint" in made:
            answered = made["finish_reason"] in ("stop", "length")
            used = made["prompt_tokens"], made["tokens"], made.get("cached_tokens", 0)
            tally.add(made["endpoint"], made["served"], answered, *used)
    endpoints, pools = open_endpoints(configs, {name: [name] for name in waiting}, tally, prober, max_cost)

    async def ask_one_by_one(name: str, unconfirmed: list) -> None:
        """Ask one question after the other, and keep each answer before the next. unconfirmed: what was said before the
        endpoint's first answer; until then a refusal may mean that the request is wrong."""
        nonlocal tokens
        pool = pools[name]
        while waiting[name]:
            question = waiting[name].popleft()
            reply = await pool.chat(request(pool.cfg.model, question))
            tokens += reply.completion_tokens
            bar.update(1, tokens_per_s=tokens / max(time.monotonic() - begin, 1e-9))
            if reply.status == "transport":
                lost.append((question, reply.detail))
                continue
            check_answered_as(pool.cfg.model, reply, pool)
            unconfirmed.append((question, made_of(reply, name, pool.cfg.model)))
            while pool.has_answered and unconfirmed:
                keep(*unconfirmed.pop(0))

    async def ask_all(name: str) -> None:
        """Ask all questions of one endpoint, which may be several servers."""
        pool, unconfirmed = pools[name], []
        for endpoint in pool.endpoints:
            await check_listed(endpoint)
        # as many workers as the servers take questions at a time
        workers = min(len(waiting[name]), sum(e.cfg.concurrency for e in pool.endpoints))
        await run_together([ask_one_by_one(name, unconfirmed) for _ in range(workers)], [pool])
        pool.check_served()

    try:
        with Progress(len(questions), "sample", unit="responses") as bar:
            await run_together(map(ask_all, waiting), pools.values())
    finally:
        for endpoint in endpoints:
            await endpoint.close()
    return lost


def request(model: str, question: Question) -> dict:
    """Return the body that asks a question."""
    asked = question.settings
    body = {"model": model, "messages": question.messages, "temperature": asked.sampling["temperature"],
            "top_p": asked.sampling["top_p"]}  # fmt: skip
    if asked.sampling["top_k"]:  # the hosts that do not know it refuse it
        body["top_k"] = asked.sampling["top_k"]
    return body | {TOKEN_KEYS[0]: asked.max_new_tokens, "seed": call_seed(question.key)}


def made_of(reply: Reply, endpoint: str, model: str) -> dict:
    """Return what a generation's record says of a reply."""
    made = {
        "text": reply.whole if reply.status in ANSWERED else "",
        "tokens": reply.completion_tokens,
        "prompt_tokens": reply.prompt_tokens,
        "finish_reason": REASONS.get(reply.status, "stop"),
        "detail": reply.detail,
        "seconds": reply.seconds,
        "endpoint": endpoint,
        "served": model,
    }
    return made | {name: said for name in ("left_out", "cached_tokens") if (said := getattr(reply, name))}


async def check_listed(endpoint: Endpoint) -> None:
    """Raise UserError if GET /models lists models, and not the one that is asked for. Servers that do not tell pass:
    their answers are looked at (check_answered_as)."""
    try:
        listed = [str(model["id"]) for model in await endpoint.look_up()]
    except CallError:  # not there yet: the first question waits for it
        return
    if listed and not any(same_model(name, endpoint.cfg.model) for name in listed):
        shown = ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
        raise UserError(
            f"{endpoint.where} does not serve {endpoint.cfg.model} but {shown}; correct endpoints.{endpoint.name}.model"
        )


def check_answered_as(model: str, reply: Reply, pool: Pool) -> None:
    """Raise UserError for an answer of another model than was asked for."""
    if reply.model and not same_model(reply.model, model):
        raise UserError(
            f"{pool.where} answers as {reply.model}, but {model} was asked for; "
            f"correct endpoints.{reply.endpoint}.model"
        )


def same_model(a: str, b: str) -> bool:
    """Tell whether two names are of one model: hosts add dates, tags (:latest), revisions (@main), owners (Qwen/)."""
    a, b = (re.sub(r"[@:][^/]*$", "", name.lower().rstrip("/")) for name in (a, b))
    if ("/" in a) != ("/" in b):
        a, b = a.rsplit("/", 1)[-1], b.rsplit("/", 1)[-1]
    return a == b or a.startswith(b + "-20") or b.startswith(a + "-20")
