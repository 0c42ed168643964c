"""How an endpoint is configured, and what holds its requests back: how many at a time (adaptive), how many a minute,
and how much money."""

import asyncio
import contextlib
import math
import random
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Annotated

from errors import UserError
from values import Count, Filled, NotNegative, Positive, Whole

CUT = 0.7  # factor on the limit after one episode of congestion
GROWTH = 0.05  # of the ceiling, regained in the time that one answer takes
LARGEST_FILE = 50_000, 190_000_000  # questions and bytes of one batch: OpenAI takes 200 MB
LONGEST_WAIT = 600.0  # seconds that a Retry-After is obeyed; then it is asked anyway, and a run that gets nothing ends
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between two tries; doubles from one to the other, with jitter


@dataclass
class EndpointConfig:
    base_url: Filled | Annotated[list[Filled], "filled"]
    """Address up to and including /v1, e.g. http://localhost:8000/v1. Several addresses of equal servers: a list;
    the settings below then hold for each of them."""
    model: Filled
    """Model name as the endpoint knows it (GET /v1/models lists it)."""
    api_key_env: str = ""
    """Name of the environment variable that holds the API key; empty for a server that wants none. The key itself is
    never written anywhere."""
    concurrency: Count = 64
    """Requests in flight at most. Congestion (429, 503, a missed deadline) lowers the limit, answers raise it again."""
    requests_per_minute: Count | None = None
    """Cap of the host's plan; null for none."""
    tokens_per_minute: Count | None = None
    """Cap of the host's plan on tokens, prompt and answer together; null for none."""
    timeout: Positive = 300.0
    """Seconds for connecting and for waiting in the server's queue. A call's deadline is this plus max_tokens at 10
    tokens a second, doubled after a miss."""
    retries: Whole = 8
    """Further tries after a failure of the connection or the server, before the question (or the run) is given up. The
    pause between two tries grows from 1 to 60 seconds; a Retry-After of the server goes before it."""
    price_prompt: NotNegative = 0.0
    """Price of a million prompt tokens, in the currency of `max_cost`."""
    price_cached: NotNegative | None = None
    """Price of a million prompt tokens that came from the server's cache, by its own count; null: as others."""
    price_completion: NotNegative = 0.0
    """Price of a million tokens of answers and thoughts."""
    batch: bool = False
    """Ask by OpenAI's Batch API (agents/batches.py): all that waits for an answer goes out as one file, and is answered
    within a day. `concurrency` and the caps of a minute do not hold then."""
    price_batch: NotNegative = 0.5
    """Factor on the prices where `batch` is on."""
    extra_body: dict = field(default_factory=dict)
    """Further fields of every request body, e.g. {chat_template_kwargs: {enable_thinking: true}}; null leaves a field
    out that is otherwise sent (seed, temperature, top_p, max_tokens), for hosts that refuse it."""

    def __post_init__(self):
        urls = [self.base_url] if isinstance(self.base_url, str) else self.base_url
        # the address as other tools want it: openai adds the path itself
        self.base_url = [re.sub(r"(/chat/completions|/completions)?/*$", "", url.strip()) for url in urls]
        if self.batch:  # the host queues whatever waits
            self.concurrency, self.requests_per_minute, self.tokens_per_minute = LARGEST_FILE[0], None, None

    def prices(self) -> dict[str, float]:
        """Returns {kind of tokens: price of a million}, as `cost_of` wants it."""
        cached = {} if self.price_cached is None else {"cached": self.price_cached}
        prices = {"prompt": self.price_prompt, "completion": self.price_completion} | cached
        return {kind: price * (self.price_batch if self.batch else 1) for kind, price in prices.items()}


TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")  # what a call costs, as it is recorded


def tokens_of(record: dict) -> list[int]:
    """Returns the tokens of a call, or of several, in the order of TOKENS."""
    return [record.get(kind) or 0 for kind in TOKENS]


def cost_of(prices: dict[str, float], prompt: int, completion: int, cached: int = 0) -> float:
    """Returns what tokens cost. cached: how many of the prompt's came from a cache."""
    saved = prices["prompt"] - prices.get("cached", prices["prompt"])  # on each of them
    return (prompt * prices["prompt"] - cached * saved + completion * prices["completion"]) / 1e6


def check_endpoints(configs: dict[str, EndpointConfig], max_cost: float | None) -> None:
    """Raises UserError for what is wrong with {name: EndpointConfig} on paper, before anything is asked."""
    import httpx2  # here, so that --help answers at once

    prices = [price for endpoint in configs.values() for price in endpoint.prices().values()]
    if max_cost is not None and prices and not any(prices):
        raise UserError(
            f"config key max_cost={max_cost:g} would stop nothing, as no endpoint has a price; set price_prompt and "
            f"price_completion of those that cost, or leave max_cost out"
        )
    for name, endpoint in configs.items():
        if endpoint.batch and len(endpoint.base_url) > 1:
            raise UserError(f"config key endpoints.{name}.batch needs a single base_url: a batch is at one host")
        if endpoint.batch and endpoint.extra_body.get("stream"):
            raise UserError(
                f"config key endpoints.{name}.batch: answers of a batch are no streams; remove extra_body.stream"
            )
        for url in endpoint.base_url:
            try:
                parts = httpx2.URL(url)
                good = parts.scheme in ("http", "https") and parts.host.encode("idna") and " " not in url
                good = good and (parts.port is None or 0 < parts.port < 2**16)
            except (httpx2.InvalidURL, UnicodeError):  # half an IPv6 address, a name that cannot be one
                good = False
            if not good:
                raise UserError(f"config key endpoints.{name}.base_url must be an http(s) address, not {url}")
            if "@" in url or "?" in url:  # it would be written into config.yaml and shown in messages
                raise UserError(f"config key endpoints.{name}.base_url must not hold a key; name it in api_key_env")


class Signal:
    """`await signal.given()` returns at the next `signal.give()`: all who wait look again whether it is their turn."""

    def __init__(self):
        self.event = asyncio.Event()

    def give(self) -> None:
        self.event.set()
        self.event = asyncio.Event()

    async def given(self) -> None:
        await self.event.wait()


class AdaptiveLimit:
    """Requests in flight at one server: at most `limit`, which moves between 1 and `ceiling`.

    It starts at the ceiling, is cut once per episode of congestion and grows again with every answer. An episode is
    over when a request that was sent after the cut fares badly: what was in flight during the cut says nothing new. So
    a request remembers `cuts` (how many there were when it was sent), and `congested` wants that back. `changed` is
    given whenever a place becomes free.
    """

    def __init__(self, ceiling: int):
        self.ceiling, self.limit, self.in_flight, self.cuts = ceiling, float(ceiling), 0, 0
        self.changed = Signal()

    @property
    def free(self) -> bool:
        return self.in_flight < int(self.limit)

    def enter(self) -> None:
        self.in_flight += 1

    def leave(self) -> None:
        self.in_flight -= 1
        self.changed.give()

    def answered(self) -> None:
        """Additive growth."""
        self.limit = min(self.ceiling, self.limit + max(1.0, GROWTH * self.ceiling) / self.limit)

    def congested(self, cuts: int) -> None:
        """One multiplicative cut, by the first failure of an episode only."""
        if cuts == self.cuts:
            self.limit = max(1.0, CUT * min(self.limit, self.in_flight))
            self.cuts += 1


class RateLimit:
    """At most N units a minute, evenly spread; None is no limit. Units may be tokens, whose number is known only after
    the answer: a guess is taken before it and corrected then."""

    def __init__(self, per_minute: int | None):
        self.seconds = 60 / per_minute if per_minute else 0.0  # of one unit
        self.next_turn = 0.0

    async def take(self, amount: float) -> None:
        """Returns when it is the caller's turn."""
        if self.seconds:
            now = time.monotonic()
            turn = max(now, self.next_turn)
            self.next_turn = turn + amount * self.seconds
            await asyncio.sleep(turn - now)

    def correct(self, more: float) -> None:
        self.next_turn += more * self.seconds


@dataclass
class Spending:
    """On calls of one kind. cost, calls: of those that have ended. open: calls in flight. most: what one may cost."""

    cost: float = 0.0
    calls: int = 0
    open: int = 0
    most: float = 0.0

    @property
    def each(self) -> float:
        return self.cost / self.calls if self.calls else self.most


class Budget:
    """Stops asking when the next call would likely exceed `cap` (in the currency of the prices); None is no cap.

    A call's cost is known only afterwards, so those in flight are reckoned at the mean of their kind so far; until the
    first one has ended, at nothing, or, of a batch, where thousands are in flight by then, at the most that each may
    cost. What is spent may pass the cap by what the calls in flight cost more than that. They are waited for, and their
    answers are kept. Tries that fail are not counted, though a host may charge for them.
    """

    def __init__(self, cap: float | None = None):
        self.cap, self.kinds = cap, defaultdict(Spending)
        self.changed = Signal()

    @property
    def spent(self) -> float:
        return sum(kind.cost for kind in self.kinds.values())

    async def admit(self, kind: str = "", most: float = 0.0) -> None:
        """Returns when one more call fits. Raises UserError when none does and none is in flight any more."""
        kinds, mine = self.kinds.values(), self.kinds[kind]
        mine.most = max(mine.most, most)
        while self.cap is not None and self.spent + sum(k.open * k.each for k in kinds) + mine.each > self.cap:
            if not any(k.open for k in kinds):
                raise UserError(
                    f"max_cost {self.cap:g} is reached: {self.spent:.4g} spent on {sum(k.calls for k in kinds)} calls, "
                    f"and another one may cost {mine.each:.4g}; every answer is kept, run the same command with a "
                    f"higher max_cost to resume"
                )
            await self.changed.given()
        mine.open += 1

    def settle(self, cost: float, kind: str = "") -> None:
        """The call is over; cost 0 if it brought no answer."""
        mine = self.kinds[kind]
        mine.open, mine.cost, mine.calls = mine.open - 1, mine.cost + cost, mine.calls + bool(cost)
        self.changed.give()


class Earlier:
    """What the answers on disk tell a later run. models: those that have answered. tokens: {endpoint: (calls, prompt
    tokens, completion tokens, cached prompt tokens)}, for the budget."""

    def __init__(self):
        self.models, self.tokens = set(), {}

    def add(self, endpoint: str, model: str, answered: bool, prompt: int, completion: int, cached: int = 0) -> None:
        """Count one call and its tokens; a call that cost none was no answer to pay for."""
        if answered:
            self.models.add(model)
        if completion:
            before, more = self.tokens.get(endpoint, (0, 0, 0, 0)), (1, prompt, completion, cached)
            self.tokens[endpoint] = tuple(map(sum, zip(before, more, strict=True)))


def retry_after(headers: dict) -> float | None:
    """Returns the seconds that the server asks to wait, or None. RFC 9110: a number of seconds, or a date."""
    value = headers.get("retry-after") or ""
    for read in (float, lambda text: parsedate_to_datetime(text).timestamp() - time.time()):
        with contextlib.suppress(ValueError, OverflowError):
            seconds = read(value)
            return min(max(0.0, seconds), LONGEST_WAIT) if not math.isnan(seconds) else None
    return None


def pause(failures: int) -> float:
    """Returns the seconds before the next try, where nobody says how many."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** max(failures - 1, 0)) * random.uniform(0.5, 1.0)
