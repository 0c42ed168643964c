"""The servers that one agent may ask: the least busy one gets the question, failures are tried again elsewhere.

A server that fails again and again while others answer is set aside, and tried with one question at a time until it is
well again. The run stops with a UserError that names the addresses only when none is left.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable

from agents import limits
from agents.client import Endpoint, letters_in, max_tokens_of
from agents.complaints import CallError
from agents.limits import Budget, Earlier, EndpointConfig, cost_of, tokens_of
from agents.replies import Reply
from errors import UserError
from progress import say

NEEDS_SECOND_OPINION = ("refused", "too_long")  # it may be the server that is wrong: another one must agree
SET_ASIDE_AFTER = 5  # failures in a row and no answer: the server is in trouble, not the questions
MAX_GIVEN_UP = 8  # questions given up in a row: the servers are broken, not the questions


def open_endpoints(
    configs: dict[str, EndpointConfig],
    bindings: dict[str, list[str]],
    earlier: Earlier,
    prober: Callable | None = None,
    max_cost: float | None = None,
) -> tuple[list[Endpoint], dict[str, "Pool"]]:
    """Returns (endpoints, pools): all Endpoints in use, one an address, and {agent: Pool}.

    configs: {name: EndpointConfig}. bindings: {agent: names}. earlier: what former runs have asked. Raises UserError
    where the endpoints of one agent do not serve the same model: its answers must not depend on who was free.
    """
    by_name, pools, budget = {}, {}, Budget(max_cost)
    before = budget.kinds[""]
    for agent, names in bindings.items():
        # one model an agent
        kinds = {(configs[name].model, str(configs[name].extra_body), configs[name].batch and name) for name in names}
        if len(kinds) > 1:
            raise UserError(
                f"agents.{agent} is bound to {', '.join(names)}, which differ in model or extra_body, or batch; "
                f"endpoints that share an agent must be alike, and one with batch=true stands alone"
            )
        # open each name once, and count what earlier runs spent there
        for name in names:
            if name not in by_name:
                cfg = configs[name]
                has_answered = cfg.model in earlier.models
                by_name[name] = [Endpoint(name, cfg, url, has_answered, prober) for url in cfg.base_url]
                calls, *tokens = earlier.tokens.get(name, (0, 0, 0, 0))
                cost = cost_of(cfg.prices(), *tokens)
                before.cost, before.calls = before.cost + cost, before.calls + (calls if cost else 0)
        shared = next((pools[a] for a in pools if bindings[a] == names), None)
        pools[agent] = shared or Pool([endpoint for name in names for endpoint in by_name[name]], budget)
    return [endpoint for group in by_name.values() for endpoint in group], pools


class Pool:
    """`chat(body) -> Reply` from any of its endpoints. cfg: what they have in common, model and extra_body."""

    def __init__(self, endpoints: list[Endpoint], budget: Budget | None = None):
        self.endpoints, self.budget = endpoints, budget or Budget()
        self.cfg = endpoints[0].cfg
        self.given_up = 0  # questions in a row
        self.stopped = asyncio.Event()
        for endpoint in endpoints:  # pools may share endpoints, and all of a run share the budget
            endpoint.limit.changed = self.budget.changed

    async def chat(self, body: dict, name: str = "", kind: str = "") -> Reply:
        """Returns the Reply to one question, however often it must be asked. name: its key in the journal. kind: its
        prompt, for questions of one kind cost about the same. Raises UserError when there is nobody to ask."""
        kind, most = kind if self.cfg.batch else "", 0.0
        if self.cfg.batch:  # thousands are in flight before the first has ended
            most = cost_of(self.cfg.prices(), letters_in(body) // 2, max_tokens_of(body))
        await self.budget.admit(kind, most)
        cost = 0.0
        try:
            endpoint, reply = await self._until_answered(body, name)
            if endpoint is not None:
                cost = cost_of(endpoint.cfg.prices(), *tokens_of(vars(reply)))
            return reply
        finally:
            self.budget.settle(cost, kind)

    @property
    def has_answered(self) -> bool:
        return any(endpoint.has_answered for endpoint in self.endpoints)

    @property
    def where(self) -> str:
        return "; ".join(endpoint.where for endpoint in self.endpoints)

    def check_served(self) -> None:
        """Raises UserError if every question was refused, however few there were."""
        if any(endpoint.refusals for endpoint in self.endpoints) and not self.has_answered:
            said = next(endpoint.last_refusal for endpoint in self.endpoints if endpoint.refusals)
            raise UserError(f"{self.where} refused every request; the last time it said {said}")

    def stop(self) -> None:
        """Begin no call any more; those in flight go on, but for those of batches, which the next run finds."""
        self.stopped.set()
        for endpoint in self.endpoints:
            if endpoint.batches:
                endpoint.batches.stop()
        self.budget.changed.give()

    async def close(self) -> None:
        for endpoint in self.endpoints:
            await endpoint.close()

    async def _until_answered(self, body: dict, name: str) -> tuple[Endpoint | None, Reply]:
        """Returns (who answered, Reply); (None, Reply of status "transport") for a question that nobody can answer."""
        failures = late = 0
        since, first_to_refuse, words = time.monotonic(), None, ""
        while True:
            endpoint = await self._place(first_to_refuse)
            try:
                reply = await endpoint.ask(body, late, name)
            except CallError as error:
                failure = error
            else:
                self.given_up = 0
                # a refusal counts if a second server refuses as well, or there is none
                if reply.status not in NEEDS_SECOND_OPINION:
                    self._note_recovery(endpoint)
                    if first_to_refuse is not None and endpoint is not first_to_refuse:
                        first_to_refuse.failures_in_row += 1
                        self._note_failure(first_to_refuse, CallError(f"refuses what others answer: {words}"))
                elif first_to_refuse is None and len(self._alive()) > 1:
                    first_to_refuse, words = endpoint, reply.detail
                    continue
                return endpoint, reply
            finally:
                endpoint.limit.leave()

            # try again, elsewhere or later; a server that is busy says nothing about this question
            failures, late = failures + 1, late + failure.late
            self._note_failure(endpoint, failure)
            if failures > self.cfg.retries:
                await self._give_up(failure, failures, since)
                if not failure.congested:
                    return None, Reply("transport", detail=str(failure))
                failures, since = 0, time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), self._pause(failure, failures, endpoint))

    async def _place(self, avoid: Endpoint | None = None) -> Endpoint:
        """Returns the least busy endpoint that has a free place, with the place taken. avoid: one to ask only if there
        is no other."""
        while True:
            alive = self._alive()
            alive = [endpoint for endpoint in alive if endpoint is not avoid] or alive
            healthy = [endpoint for endpoint in alive if self._may_ask(endpoint)] or alive
            # one question alone waits for what is found out about a server before its first answer
            free = [e for e in healthy if e.limit.free and (e.ready or not e.limit.in_flight)]
            if free:
                best = min(free, key=lambda endpoint: endpoint.limit.in_flight / endpoint.limit.limit)
                best.limit.enter()
                return best
            await self.budget.changed.given()

    def _alive(self) -> list[Endpoint]:
        """Returns the endpoints that are not broken for good. Raises UserError if there are none."""
        if self.stopped.is_set():
            raise UserError("stopped; every answer so far is kept")
        alive = [endpoint for endpoint in self.endpoints if not endpoint.broken]
        if not alive:
            reasons = "; ".join(f"{endpoint.where} {endpoint.broken}" for endpoint in self.endpoints)
            raise UserError(f"{reasons}; every answer so far is kept")
        return alive

    def _may_ask(self, endpoint: Endpoint) -> bool:
        """Whether it is well, or at least due for a trial question."""
        well = endpoint.failures_in_row < SET_ASIDE_AFTER
        return well or (endpoint.limit.in_flight == 0 and time.monotonic() >= endpoint.away_until)

    def _note_failure(self, endpoint: Endpoint, failure: CallError) -> None:
        """Set an endpoint aside, for a while or for good, if that is what a failure says. Raises UserError if none is
        left."""
        if failure.fatal and not endpoint.broken:
            endpoint.broken = str(failure)
            self._alive()
            say(f"{endpoint.where} {failure}; the others continue without it")
        if endpoint.failures_in_row >= SET_ASIDE_AFTER and not endpoint.broken and len(self.endpoints) > 1:
            if not endpoint.away_until:
                say(f"{endpoint.where} is set aside, and tried again later: {failure}")
            doubled = limits.FIRST_PAUSE * 2 ** min(endpoint.failures_in_row, 16)
            endpoint.away_until = time.monotonic() + min(limits.LONGEST_PAUSE, doubled)

    def _note_recovery(self, endpoint: Endpoint) -> None:
        # an answer to a question from before it was set aside says nothing: the trial question comes after `away_until`
        if 0 < endpoint.away_until <= time.monotonic():
            endpoint.away_until = 0.0
            say(f"{endpoint.where} answers again")

    def _pause(self, failure: CallError, failures: int, endpoint: Endpoint) -> float:
        """Returns the seconds before the next try: what the server asks for, none if another one is well, else a
        growing pause."""
        if failure.wait is not None:
            if failure.wait > 60:
                say(f"{endpoint.where} asks to wait {failure.wait:.0f} s")
            return failure.wait
        others = (e for e in self.endpoints if e is not endpoint and not e.broken and e.failures_in_row == 0)
        if not failure.congested and any(others):
            return 0.0
        return limits.pause(failures)

    async def _give_up(self, failure: CallError, tries: int, since: float) -> None:
        """Returns if the failure is this question's own; raises UserError if it is the endpoints'."""
        alive = self._alive()
        if any(endpoint.last_answer > since for endpoint in alive):
            return
        self.given_up += 1
        has_answered = any(endpoint.has_answered for endpoint in alive)
        own = failure.kind != "locked" and has_answered and self.given_up < MAX_GIVEN_UP
        if own and any([await endpoint.is_there() for endpoint in alive]):
            return
        where = "; ".join(endpoint.where for endpoint in alive)
        said = str(failure) if failure.kind == "locked" else f"does not answer: {failure}"
        raise UserError(
            f"{where} {said} ({tries} tries in {time.monotonic() - since:.0f} s); every answer "
            f"so far is kept, run the same command to resume"
        )


async def run_together(workers: Iterable[Coroutine], pools: Iterable[Pool]) -> None:
    """Run coroutines that ask these pools. After the first error the others begin no further call, finish (and keep)
    those in flight, and the error is raised."""
    errors = []

    async def run(worker: Coroutine) -> None:
        try:
            await worker
        except Exception as error:
            in_flight = sum(e.limit.in_flight for e in {e for pool in pools for e in pool.endpoints} if not e.batches)
            if not errors and in_flight:
                say(f"an error ends the run; {in_flight} questions in flight are waited for (Ctrl-C drops them)")
            errors.append(error)
            for pool in pools:
                pool.stop()

    pools = set(pools)
    await asyncio.gather(*map(run, workers))
    if errors:
        raise errors[0]
