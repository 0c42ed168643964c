"""What holds requests back: how many at a time (adaptive), how many a minute, and how much money."""

import asyncio
import time
from email.utils import parsedate_to_datetime

from errors import UserError

CUT = 0.7  # one congestion episode costs so much of the limit
GROWTH = 0.05  # of the ceiling, regained in the time that one answer takes


class Gate:
    """Requests in flight at one endpoint: at most `limit`, which moves between 1 and `ceiling`.

    It starts at the ceiling, is cut once per congestion episode and grows again with every answer. An episode is over
    when a request that was sent after the cut fares badly: what was in flight during the cut says nothing new.
    """

    def __init__(self, ceiling):
        self.ceiling, self.limit, self.in_flight = ceiling, float(ceiling), 0
        self.episode, self.held = 0, False
        self.waiters = {}  # futures of those who wait for a place here, in order; one may wait at several gates

    @property
    def free(self):
        return self.in_flight < int(self.limit)

    def enter(self):
        """Take a place. Returns the current episode, which `congested` wants back."""
        self.in_flight += 1
        return self.episode

    def leave(self):
        self.in_flight -= 1
        self.wake()

    def answered(self):
        """Additive growth, unless it is held because the server has a queue."""
        if not self.held and self.limit < self.ceiling:
            self.limit = min(self.ceiling, self.limit + max(1.0, GROWTH * self.ceiling) / self.limit)
            self.wake()

    def congested(self, episode):
        """One multiplicative cut, by the first failure of an episode only."""
        if episode == self.episode:
            self.cut_to(CUT * min(self.limit, self.in_flight))

    def cut_to(self, limit):
        self.limit = max(1.0, min(self.limit, limit))
        self.episode += 1

    def wake(self, everyone=False):
        """Let the first of those who wait look again, if there is a place; or everyone, whether there is or not."""
        while self.waiters and (everyone or self.free):
            waiter = next(iter(self.waiters))
            del self.waiters[waiter]
            if not waiter.done():
                waiter.set_result(None)
                if not everyone:
                    break


async def any_place(gates):
    """Returns when one of the gates may have a free place."""
    waiter = asyncio.get_running_loop().create_future()
    for gate in gates:
        gate.waiters[waiter] = None
    try:
        await waiter
    finally:
        for gate in gates:
            gate.waiters.pop(waiter, None)


class Pace:
    """At most so many units a minute, evenly spread; None is no limit."""

    def __init__(self, per_minute):
        self.seconds = 60 / per_minute if per_minute else 0.0
        self.next = 0.0

    async def take(self, amount):
        """Wait for one's turn. `correct` later, where the amount was a guess."""
        if self.seconds:
            now = time.monotonic()
            turn = max(now, self.next)
            self.next = turn + amount * self.seconds
            await asyncio.sleep(turn - now)

    def correct(self, more):
        self.next += more * self.seconds


class Budget:
    """Stops asking when the next call would likely exceed `cap` (in the currency of the prices); None is no cap.

    A call's cost is known only afterwards, so those in flight are reckoned at the mean so far: until the first one has
    ended, at nothing. What is spent may pass the cap by what the calls in flight cost more than that. They are waited
    for, and their answers are kept. Tries that fail are not counted, though a host may charge for them.
    """

    def __init__(self, cap=None, spent=0.0, calls=0):
        self.cap, self.spent, self.calls, self.open = cap, spent, calls, 0
        self.settled = asyncio.Event()

    async def admit(self):
        """Returns when one more call fits. Raises UserError when none does and none is in flight any more."""
        while self.cap is not None and self.spent + self._mean() * (self.open + 1) > self.cap:
            if not self.open:
                raise UserError(
                    f"max_cost {self.cap:g} is reached: {self.spent:.4g} spent on {self.calls} calls; every answer is "
                    f"kept, run the same command with a higher max_cost to go on"
                )
            await self.settled.wait()
        self.open += 1

    def settle(self, cost):
        """The call is over; cost 0 if it brought no answer."""
        self.open -= 1
        self.spent, self.calls = self.spent + cost, self.calls + bool(cost)
        self.settled.set()
        self.settled = asyncio.Event()

    def _mean(self):
        return self.spent / self.calls if self.calls else 0.0


def retry_after(headers):
    """Seconds that the server asks to wait, or None. RFC 9110: a number of seconds, or a date."""
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
