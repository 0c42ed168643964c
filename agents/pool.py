"""The endpoints that one agent may ask: the least busy one gets the question, failures are tried again elsewhere.

An endpoint that fails again and again while others answer is set aside, and tried with one question at a time until
it is well again. The run stops with a UserError that names the addresses only when none is left.
"""

import asyncio
import random
import time
from dataclasses import replace

from agents.client import SUSPECT, Endpoint, Failed
from agents.limits import Budget, any_place
from agents.reply import Reply
from errors import UserError
from progress import say

DOUBTFUL = ("refused", "too_long")  # it may be the server that is wrong: another one must agree
LOST = 8  # so many questions given up in a row: the endpoints are broken, not the questions


def open_endpoints(configs, bindings, journal, prober=None, max_cost=None):
    """(endpoints, pools): a list of all Endpoints in use, one an address, and {agent: Pool}.

    configs: {name: EndpointConfig}. bindings: {agent: name or list of names}. Raises UserError where the endpoints of
    one agent do not serve the same model: its answers must not depend on who was free.
    """
    by_name, pools, budget = {}, {}, Budget(max_cost)
    for agent, names in bindings.items():
        names = (names,) if isinstance(names, str) else tuple(names)
        kinds = {(configs[name].model, str(configs[name].extra_body)) for name in names}
        if len(kinds) > 1:
            raise UserError(
                f"agents.{agent} is bound to {', '.join(names)}, which differ in model or extra_body; endpoints that "
                f"share an agent must be alike"
            )
        for name in names:
            if name not in by_name:
                cfg = configs[name]
                urls = [cfg.base_url] if isinstance(cfg.base_url, str) else cfg.base_url
                known = cfg.model in journal.models
                by_name[name] = [Endpoint(name, replace(cfg, base_url=url), known, prober) for url in urls]
                calls, asked, spent = journal.tokens.get(name, (0, 0, 0))
                budget.spent += by_name[name][0].price(asked, spent)
                budget.calls += calls
        shared = next((pools[a] for a in pools if bindings[a] == bindings[agent]), None)
        pools[agent] = shared or Pool([endpoint for name in names for endpoint in by_name[name]], budget)
    return [endpoint for group in by_name.values() for endpoint in group], pools


class Pool:
    """`chat(body) -> Reply` from any of its endpoints. cfg: what they have in common, model and extra_body."""

    def __init__(self, endpoints, budget=None):
        self.endpoints, self.budget = endpoints, budget or Budget()
        self.cfg = endpoints[0].cfg
        self.lost = 0

    async def chat(self, body):
        """The Reply to one question, however often it must be asked. Raises UserError when there is nobody to ask."""
        await self.budget.admit()
        cost = 0.0
        try:
            endpoint, reply = await self._until_answered(body)
            if endpoint is not None:
                cost = endpoint.price(reply.prompt_tokens, reply.completion_tokens)
            return reply
        finally:
            self.budget.settle(cost)

    def check_served(self):
        """Raises UserError if every question was refused, however few there were."""
        if any(endpoint.refusals for endpoint in self.endpoints) and not any(e.proven for e in self.endpoints):
            where = "; ".join(endpoint.where for endpoint in self.endpoints)
            raise UserError(f"{where} refused every request; look at `detail` in the journal")

    async def close(self):
        for endpoint in self.endpoints:
            await endpoint.close()

    async def _until_answered(self, body):
        """(who answered, Reply), or (None, Reply of status "transport") for a question that nobody can answer."""
        failures = late = 0
        since, doubted, words = time.monotonic(), None, ""
        while True:
            endpoint = await self._place(doubted)
            try:
                reply = await endpoint.ask(body, late)
            except Failed as error:
                failure = error
            else:
                self.lost = 0
                if reply.status not in DOUBTFUL:
                    self._back(endpoint)
                    if doubted is not None and endpoint is not doubted:
                        doubted.troubles += 1
                        self._set_aside(doubted, Failed(f"refuses what others answer: {words}"))
                elif doubted is None and len(self._alive()) > 1:
                    doubted, words = endpoint, reply.detail
                    continue
                return endpoint, reply
            finally:
                endpoint.gate.leave()
            failures, late = failures + 1, late + failure.late
            self._set_aside(endpoint, failure)
            if failures > self.cfg.retries:
                await self._give_up(failure, failures, since)
                if not failure.congested:
                    return None, Reply("transport", detail=failure.why)
                failures, since = 0, time.monotonic()  # being busy says nothing about this question
            await asyncio.sleep(self._pause(failure, failures, endpoint))

    async def _place(self, avoid=None):
        """The least busy endpoint that has a free place, with the place taken. avoid: one to ask only if there is no
        other."""
        while True:
            alive = self._alive()
            alive = [endpoint for endpoint in alive if endpoint is not avoid] or alive
            healthy = [endpoint for endpoint in alive if self._may_ask(endpoint)] or alive
            free = [endpoint for endpoint in healthy if endpoint.gate.free]
            if free:
                best = min(free, key=lambda endpoint: endpoint.gate.in_flight / endpoint.gate.limit)
                best.gate.enter()
                for endpoint in free:
                    endpoint.gate.wake()  # who was woken takes one place only, and perhaps not the one it was woken for
                return best
            await any_place([endpoint.gate for endpoint in healthy])

    def _alive(self):
        """Endpoints that are not broken for good. Raises UserError if there are none."""
        alive = [endpoint for endpoint in self.endpoints if not endpoint.broken]
        if not alive:
            reasons = "; ".join(f"{endpoint.where} {endpoint.broken}" for endpoint in self.endpoints)
            raise UserError(f"{reasons}; every answer so far is kept")
        return alive

    def _may_ask(self, endpoint):
        """Whether it is well, or at least due for a trial question."""
        well = endpoint.troubles < SUSPECT
        return well or (endpoint.gate.in_flight == 0 and time.monotonic() >= endpoint.away_until)

    def _set_aside(self, endpoint, failure):
        """Note what a failure says about its endpoint. Raises UserError if no endpoint is left."""
        if failure.fatal and not endpoint.broken:
            endpoint.broken = failure.why
            endpoint.gate.wake(everyone=True)
            self._alive()
            say(f"{endpoint.where} {failure.why}; the others go on without it")
        if endpoint.troubles >= SUSPECT and not endpoint.broken and len(self.endpoints) > 1:
            if not endpoint.away_until:
                say(f"{endpoint.where} is set aside, and tried again later: {failure.why}")
            doubled = endpoint.cfg.backoff * 2 ** min(endpoint.troubles, 16)
            endpoint.away_until = time.monotonic() + min(endpoint.cfg.max_backoff, doubled)

    def _back(self, endpoint):
        if endpoint.away_until:
            endpoint.away_until = 0.0
            say(f"{endpoint.where} answers again")

    def _pause(self, failure, failures, endpoint):
        """Seconds before the next try: what the server asks for, none if another one is well, else a growing pause."""
        cfg = self.cfg
        if failure.pause is not None:
            if failure.pause > 60:
                say(f"{endpoint.where} asks to wait {failure.pause:.0f} s")
            return failure.pause
        others = (e for e in self.endpoints if e is not endpoint and not e.broken and e.troubles == 0)
        if not failure.congested and any(others):
            return 0.0
        return min(cfg.max_backoff, cfg.backoff * 2 ** max(failures - 1, 0)) * random.uniform(0.5, 1.0)

    async def _give_up(self, failure, tries, since):
        """Returns if the failure is this question's own; raises UserError if it is the endpoints'."""
        alive = self._alive()
        if any(endpoint.last_answer > since for endpoint in alive):
            return
        self.lost += 1
        proven = any(endpoint.proven for endpoint in alive)
        if proven and self.lost < LOST and any([await endpoint.is_there() for endpoint in alive]):
            return
        where = "; ".join(endpoint.where for endpoint in alive)
        raise UserError(
            f"{where} does not answer: {failure.why} ({tries} tries in {time.monotonic() - since:.0f} s); every answer "
            f"so far is kept, run the same command again to go on"
        )
