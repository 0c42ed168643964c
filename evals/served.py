"""Many samples from endpoints, for the evaluation: each one a request of its own, with its own seed.

    lost = asyncio.run(draw(samples, configs, keep, earlier))

Every answer goes to `keep` before its worker sends the next question; what is kept is not asked again. Refusals wait in
memory until a server of the endpoint has answered once: until then it may be the request that is wrong. A server that
answers as another model than it was asked for stops the run.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agents.client import ANSWERED, TOKEN_KEYS, CallError, Endpoint, Reply
from agents.journal import call_seed
from agents.limits import EndpointConfig
from agents.pool import Pool, open_endpoints
from errors import UserError
from progress import Progress

REASONS = {"truncated": "length", "filtered": "filtered", "too_long": "refused", "refused": "refused"}


@dataclass(frozen=True)
class Sample:
    """One response to ask for. key: unique; the seed that is sent is a function of it. endpoint: its name in the
    config. sampling: fields of the request, e.g. {"temperature": 0.6, "top_p": 0.95}."""

    key: str
    endpoint: str
    messages: list
    sampling: dict
    max_tokens: int


@dataclass(frozen=True)
class Response:
    """text: thought and answer as they came, the thought in <think> tags. tokens, prompt_tokens: as the server counts.
    finish_reason: stop, length, refused (the server will not take this question; detail says why) or filtered."""

    text: str
    tokens: int
    prompt_tokens: int
    finish_reason: str
    detail: str
    seconds: float


@dataclass
class Earlier:
    """What earlier runs leave behind. models: served names that have answered. tokens: {endpoint: (calls, prompt
    tokens, completion tokens)}, for the budget."""

    models: set = field(default_factory=set)
    tokens: dict = field(default_factory=dict)


async def draw(
    samples: list[Sample],
    configs: dict[str, EndpointConfig],
    keep: Callable[[Sample, Response], None],
    earlier: Earlier,
    prober: Callable | None = None,
    max_cost: float | None = None,
) -> list[tuple[Sample, str]]:
    """Ask for all samples, several endpoints at a time; keep(sample, Response) is called as each arrives.

    configs: {name: EndpointConfig}. prober, max_cost: as in build_crv. Returns [(sample, why)] of those that failed
    again and again while others were answered: they are to be asked in another run. Raises UserError when an endpoint
    is broken, serves another model or costs too much; the others then finish what they have begun.
    """
    by_endpoint = {}
    for sample in samples:
        by_endpoint.setdefault(sample.endpoint, deque()).append(sample)
    endpoints, pools = open_endpoints(configs, {name: [name] for name in by_endpoint}, earlier, prober, max_cost)
    try:
        with Progress(len(samples), "sample", unit="responses") as bar:
            begin, tokens = time.monotonic(), 0

            def count(reply: Reply) -> None:
                nonlocal tokens
                tokens += reply.completion_tokens
                bar.update(1, tokens_per_s=tokens / max(time.monotonic() - begin, 1e-9))

            queues = [_Queue(pools[name], waiting, keep, count) for name, waiting in by_endpoint.items()]
            ends = await asyncio.gather(*[queue.run(queues) for queue in queues], return_exceptions=True)
    finally:
        for endpoint in endpoints:
            await endpoint.close()
    for error in ends:
        if error is not None:
            raise error
    return [loss for queue in queues for loss in queue.lost]


class _Queue:
    """All samples of one endpoint (which may be several servers). lost: those that nobody answered, and why.
    unconfirmed: what was said before the first answer; until then a refusal may mean that the request is wrong."""

    def __init__(self, pool: Pool, waiting: deque, keep: Callable, count: Callable[[Reply], None]):
        self.pool, self.waiting, self.keep, self.count = pool, waiting, keep, count
        self.lost, self.unconfirmed = [], []

    async def run(self, queues: list["_Queue"]) -> None:
        """Raises the first error of its workers, after telling the other queues to begin nothing more."""
        try:
            for endpoint in self.pool.endpoints:
                await check_listed(endpoint)
            async with asyncio.TaskGroup() as group:
                for _ in range(min(len(self.waiting), sum(e.cfg.concurrency for e in self.pool.endpoints))):
                    group.create_task(self._work())
            if self.unconfirmed:
                said = self.unconfirmed[-1][1].detail
                raise UserError(f"{self.pool.where} refused every request; the last time it said {said}")
        except BaseException as error:
            for queue in queues:
                queue.waiting.clear()
            raise (error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error) from None

    async def _work(self) -> None:
        """Ask for one sample after the other, and keep each answer before the next question."""
        while self.waiting:
            sample = self.waiting.popleft()
            body = {"model": self.pool.cfg.model, "messages": sample.messages, **sample.sampling,
                    TOKEN_KEYS[0]: sample.max_tokens, "seed": call_seed(sample.key)}  # fmt: skip
            reply = await self.pool.chat(body)
            self.count(reply)
            if reply.status == "transport":
                self.lost.append((sample, reply.detail))
                continue
            check_answered_as(self.pool.cfg.model, reply, self.pool)
            text, reason = reply.whole if reply.status in ANSWERED else "", REASONS.get(reply.status, "stop")
            tokens = reply.completion_tokens, reply.prompt_tokens
            self.unconfirmed.append((sample, Response(text, *tokens, reason, reply.detail, reply.seconds)))
            if self.pool.has_answered:
                for confirmed in self.unconfirmed:
                    self.keep(*confirmed)
                self.unconfirmed = []


async def check_listed(endpoint: Endpoint) -> None:
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


def check_answered_as(model: str, reply: Reply, pool: Pool) -> None:
    """Raises UserError for an answer of another model than was asked for."""
    if reply.model and not same_model(reply.model, model):
        raise UserError(
            f"{pool.where} answers as {reply.model}, but {model} was asked for; "
            f"correct endpoints.{reply.endpoint}.model"
        )


def same_model(a: str, b: str) -> bool:
    """Whether two names are of one model: hosts add dates, tags (:latest), revisions (@main) and owners (Qwen/)."""
    a, b = (re.sub(r"[@:][^/]*$", "", name.lower().rstrip("/")) for name in (a, b))
    if ("/" in a) != ("/" in b):
        a, b = a.rsplit("/", 1)[-1], b.rsplit("/", 1)[-1]
    return a == b or a.startswith(b + "-20") or b.startswith(a + "-20")
