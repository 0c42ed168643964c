"""How an endpoint is configured, and what holds its requests back: how many at a time (adaptive), how many a minute,
and how much money."""

import asyncio
import contextlib
import math
import random
import re
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Annotated

from errors import UserError
from values import Count, Filled, NotNegative, Positive, Whole

CUT = 0.7  # factor on the limit after one episode of congestion
GROWTH = 0.05  # of the ceiling, regained in the time that one answer takes
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
    price_completion: NotNegative = 0.0
    """Price of a million tokens of answers and thoughts."""
    extra_body: dict = field(default_factory=dict)
    """Further fields of every request body, e.g. {chat_template_kwargs: {enable_thinking: true}}; null leaves a field
    out that is otherwise sent (seed, temperature, top_p, max_tokens), for hosts that refuse it."""

    def __post_init__(self):
        urls = [self.base_url] if isinstance(self.base_url, str) else self.base_url
        # the address as other tools want it: openai adds the path itself
        self.base_url = [re.sub(r"(/chat/completions|/completions)?/*$", "", url.strip()) for url in urls]


def check_endpoints(configs: dict[str, EndpointConfig]) -> None:
    """Raises UserError for what is wrong with {name: EndpointConfig} on paper, before anything is asked."""
    for name, endpoint in configs.items():
        for url in endpoint.base_url:
            if not url.startswith(("http://", "https://")):
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


class Budget:
    """Stops asking when the next call would likely exceed `cap` (in the currency of the prices); None is no cap.

    A call's cost is known only afterwards, so those in flight are reckoned at the mean so far: until the first one has
    ended, at nothing. What is spent may pass the cap by what the calls in flight cost more than that. They are waited
    for, and their answers are kept. Tries that fail are not counted, though a host may charge for them.
    """

    def __init__(self, cap: float | None = None, spent: float = 0.0, calls: int = 0):
        self.cap, self.spent, self.calls, self.open = cap, spent, calls, 0
        self.changed = Signal()

    async def admit(self) -> None:
        """Returns when one more call fits. Raises UserError when none does and none is in flight any more."""
        while self.cap is not None and self.spent + self._mean() * (self.open + 1) > self.cap:
            if not self.open:
                raise UserError(
                    f"max_cost {self.cap:g} is reached: {self.spent:.4g} spent on {self.calls} calls; every answer is "
                    f"kept, run the same command with a higher max_cost to resume"
                )
            await self.changed.given()
        self.open += 1

    def settle(self, cost: float) -> None:
        """The call is over; cost 0 if it brought no answer."""
        self.open -= 1
        self.spent, self.calls = self.spent + cost, self.calls + bool(cost)  # free ones would lower the mean
        self.changed.give()

    def _mean(self) -> float:
        return self.spent / self.calls if self.calls else 0.0


class Tally:
    """What the answers on disk tell a later run. models: those that have answered. tokens: {endpoint: (calls, prompt
    tokens, completion tokens)}, for the budget."""

    def __init__(self):
        self.models, self.tokens = set(), {}

    def add(self, endpoint: str, model: str, answered: bool, prompt_tokens: int, completion_tokens: int) -> None:
        """Count one call; a call that cost no tokens was no answer to pay for."""
        if answered:
            self.models.add(model)
        if completion_tokens:
            calls, asked, spent = self.tokens.get(endpoint, (0, 0, 0))
            self.tokens[endpoint] = calls + 1, asked + prompt_tokens, spent + completion_tokens


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
