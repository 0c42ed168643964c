"""Many samples from endpoints, for the evaluation: each one a request of its own, with its own seed.

    lost = asyncio.run(draw(asks, configs, keep, known))

Every answer goes to `keep` before its worker sends the next question; what is kept is not asked again. Refusals wait in
memory until a server of the endpoint has answered once: until then it may be the request that is wrong. A server that
answers as another model than it was asked for stops the run.
"""

import asyncio
import re
import time
from collections import deque
from dataclasses import dataclass, field

from agents.client import ANSWERED, TOKEN_KEYS, CallError
from agents.journal import call_seed
from agents.pool import open_endpoints
from errors import UserError
from progress import Progress

REASONS = {"truncated": "length", "filtered": "filtered", "too_long": "refused", "refused": "refused"}


@dataclass(frozen=True)
class Ask:
    """One sample to draw. key: unique; the seed that is sent is a function of it. endpoint: its name in the config.
    sampling: fields of the request, e.g. {"temperature": 0.6, "top_p": 0.95}."""

    key: str
    endpoint: str
    messages: list
    sampling: dict
    max_tokens: int


@dataclass(frozen=True)
class Drawn:
    """text: thought and answer as they came, the thought in <think> tags. tokens, prompt_tokens: as the server counts.
    finish_reason: stop, length, refused (the server will not take this question; detail says why) or filtered."""

    text: str
    tokens: int
    prompt_tokens: int
    finish_reason: str
    detail: str
    seconds: float


@dataclass
class Known:
    """What earlier runs leave behind. models: served names that have answered. tokens: {endpoint: (calls, prompt
    tokens, completion tokens)}, for the budget."""

    models: set = field(default_factory=set)
    tokens: dict = field(default_factory=dict)


async def draw(asks, configs, keep, known, prober=None, max_cost=None):
    """Ask for all samples, several endpoints at a time; keep(ask, Drawn) is called as each arrives.

    configs: {name: EndpointConfig}. prober, max_cost: as in build_crv. Returns [(ask, why)] of those that failed again
    and again while others were answered: they are to be asked in another run. Raises UserError when an endpoint is
    broken, serves another model or costs too much; the others then finish what they have begun.
    """
    waiting = {}
    for ask in asks:
        waiting.setdefault(ask.endpoint, deque()).append(ask)
    endpoints, pools = open_endpoints(configs, {name: [name] for name in waiting}, known, prober, max_cost)
    try:
        with Progress(len(asks), "sample", unit="responses") as bar:
            speed = Speed(bar)
            parts = [_Part(pools[name], queue, keep, speed) for name, queue in waiting.items()]
            ends = await asyncio.gather(*[part.run(parts) for part in parts], return_exceptions=True)
    finally:
        for endpoint in endpoints:
            await endpoint.close()
    for error in ends:
        if error is not None:
            raise error
    return [loss for part in parts for loss in part.lost]


class Speed:
    """Counts tokens for the bar."""

    def __init__(self, bar):
        self.bar, self.start, self.tokens = bar, time.monotonic(), 0

    def add(self, tokens):
        self.tokens += tokens
        self.bar.update(1, tokens_per_s=self.tokens / max(time.monotonic() - self.start, 1e-9))


class _Part:
    """All questions to one endpoint (which may be several servers)."""

    def __init__(self, pool, queue, keep, speed):
        self.pool, self.queue, self.keep, self.speed = pool, queue, keep, speed
        self.lost, self.doubtful = [], []

    async def run(self, parts):
        """Raises the first error of its workers, after telling the other parts to begin nothing more."""
        try:
            for endpoint in self.pool.endpoints:
                await check_listed(endpoint)
            async with asyncio.TaskGroup() as group:
                for _ in range(min(len(self.queue), sum(e.cfg.concurrency for e in self.pool.endpoints))):
                    group.create_task(self._work())
            if self.doubtful:
                raise UserError(
                    f"{self.pool.where} refused every request; the last time it said {self.doubtful[-1][1].detail}"
                )
        except BaseException as error:
            for part in parts:
                part.queue.clear()
            raise (error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error) from None

    async def _work(self):
        while self.queue:
            ask = self.queue.popleft()
            reply = await self.pool.chat(request(self.pool.cfg.model, ask))
            if reply.status == "transport":
                self.lost.append((ask, reply.detail))
            else:
                check_answered_as(self.pool.cfg.model, reply, self.pool)
                self._take(ask, reply)
            self.speed.add(reply.completion_tokens)

    def _take(self, ask, reply):
        """Keep an answer. A refusal waits for the first answer: until then it may be the request that is wrong."""
        text = reply.whole if reply.status in ANSWERED else ""
        reason = REASONS.get(reply.status, "stop")
        self.doubtful.append(
            (ask, Drawn(text, reply.completion_tokens, reply.prompt_tokens, reason, reply.detail, reply.seconds))
        )
        if self.pool.has_answered:
            for item in self.doubtful:
                self.keep(*item)
            self.doubtful = []


def request(model, ask):
    """The body of one request."""
    return {
        "model": model,
        "messages": ask.messages,
        **ask.sampling,
        TOKEN_KEYS[0]: ask.max_tokens,
        "seed": call_seed(ask.key),
    }


async def check_listed(endpoint):
    """Raises UserError if GET /models lists models, and not the one that is asked for. Servers that do not tell pass:
    their answers are looked at (check_answered_as)."""
    try:
        found = await endpoint.models()
    except (CallError, TimeoutError):
        return
    data = found.get("data") if isinstance(found, dict) else None
    listed = [str(model["id"]) for model in data or [] if isinstance(model, dict) and "id" in model]
    if listed and not any(same_model(name, endpoint.cfg.model) for name in listed):
        shown = ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
        raise UserError(
            f"{endpoint.where} does not serve {endpoint.cfg.model} but {shown}; correct endpoints.{endpoint.name}.model"
        )


def check_answered_as(model, reply, pool):
    if reply.model and not same_model(reply.model, model):
        raise UserError(
            f"{pool.where} answers as {reply.model}, but {model} was asked for; "
            f"correct endpoints.{reply.endpoint}.model"
        )


def same_model(a, b):
    """Whether two names are of one model: hosts add dates, tags (:latest), revisions (@main) and owners (Qwen/)."""
    a, b = (re.sub(r"[@:][^/]*$", "", name.lower().rstrip("/")) for name in (a, b))
    if ("/" in a) != ("/" in b):
        a, b = a.rsplit("/", 1)[-1], b.rsplit("/", 1)[-1]
    return a == b or a.startswith(b + "-20") or b.startswith(a + "-20")
