"""The life of one problem in the CRV system (§3.2, Fig. 2): Critic, Rethinker, Verifier, and the incorrect chain.

                    medium ──────────────▶ Verifier ── YES ─▶ D_med
    r ─▶ Critic ─┤
                    easy / hard ─▶ Rethinker ─▶ Verifier ── YES ─▶ Critic ── medium ─▶ D_easy*, D_hard*
                                       ▲           │ NO              │ easy / hard
                                       └───────────┴─────────────────┘  three iterations in all, then discarded

Each problem walks alone and at its own pace; `run_problems` keeps a bounded number of them alive.
"""

from collections.abc import Callable, Iterable

from agents.guards import answer_check, faults
from agents.pool import run_together
from agents.roles import Agents


class NotKept(Exception):
    """A problem ends here. outcome: "discarded" (the system said no) or "quarantined" (an agent gave no usable answer).
    reason: machine-readable, e.g. "rerated_hard", "critic_invalid"."""

    def __init__(self, outcome: str, reason: str):
        super().__init__(outcome, reason)
        self.outcome, self.reason = outcome, reason


class Walk:
    """One problem on its way. `steps`: what each agent did so far; only this class writes there."""

    def __init__(self, problem: dict, agents: Agents):
        self.problem, self.agents, self.cfg, self.steps = problem, agents, agents.cfg, []

    def record(self, step: dict) -> str:
        """Keep a step. Returns what the agent said; raises NotKept if it said nothing usable."""
        self.steps.append(step)
        said = step["text" if step["step"] == "rethinker" else "label"]
        if said is None:  # votes that do not agree, or no reply that could be used
            reason = "unresolved" if step.get("votes") else step["calls"][-1]["status"]
            raise NotKept("quarantined", f"{step['step']}_{reason}")
        return said

    def note(self, **notes: str) -> None:
        """Add to the last step what was found out about its chain without an agent."""
        self.steps[-1] |= notes

    async def rate(self, chain: str, round: int) -> str:
        """Returns the Critic's level of a chain."""
        return self.record(await self.agents.critic(self.problem, chain, round))

    async def verify(self, chain: str, round: int) -> tuple[bool, str]:
        """Returns (whether the Verifier says YES, how the chain's final answer compares with y)."""
        check = await answer_check(chain, self.problem)
        verdict = self.record(await self.agents.verifier(self.problem, chain, round))
        self.note(answer_check=check)
        return verdict == "YES", check

    async def rewrite(self, mode: str, chain: str, round: int) -> str:
        """Returns the Rethinker's version of a chain."""
        return self.record(await self.agents.rethinker(mode, self.problem, chain, round))

    def guarded(self, chain: str, source: str, mode: str) -> str | None:
        """Returns the guard that a rewrite fails, or None; no agent is asked about such a rewrite."""
        guard = next(faults(chain, source, mode), None) if self.cfg.guards else None
        if guard:
            self.note(guard=guard)
        return guard


async def life_of(problem: dict, agents: Agents) -> dict:
    """Walk one problem (x, y, r) through the system. Returns its trace:

    level            the Critic's first verdict on r, or None
    outcome          "kept", "discarded" or "quarantined" (NotKept)
    reason           why it was not kept, or None
    origin, rounds   "med", "easy*" or "hard*" ("med*" for a rewritten medium); how many rewrites that took
    rewritten        r*, or None where r itself is kept;  incorrect: r~, or None
    steps            every verdict and every rewrite in order, each with its calls (keys of the journal); a rewrite that
                     fails a guard carries the guard's name
    """
    walk = Walk(problem, agents)
    trace = {**problem, "level": None, "outcome": "kept", "reason": None, "origin": None, "rounds": 0,
             "rewritten": None, "incorrect": None, "steps": walk.steps}  # fmt: skip
    try:
        trace["level"] = level = await walk.rate(problem["reasoning"], 0)
        if level == "medium" and await _medium_holds(walk):
            trace["origin"] = "med"
        else:
            if walk.cfg.stages == "c":
                raise NotKept("discarded", f"rated_{level}")
            trace["origin"] = "med*" if level == "medium" else f"{level}*"
            trace["rewritten"], trace["rounds"] = await _rewrite(walk, level)
    except NotKept as end:
        trace |= {"outcome": end.outcome, "reason": end.reason, "origin": None}
    else:
        trace["incorrect"] = await _incorrect(walk, trace["rewritten"])
    return trace


async def _medium_holds(walk: Walk) -> bool:
    """Whether a chain rated medium is kept as it is. False: it is to be rewritten."""
    if walk.cfg.stages != "crv":
        return True
    yes, _ = await walk.verify(walk.problem["reasoning"], 0)  # r was validated when the dataset was made
    if not yes and walk.cfg.medium_failed == "discard":
        raise NotKept("discarded", "medium_failed_verification")
    return yes


async def _rewrite(walk: Walk, level: str) -> tuple[str, int]:
    """Rethinker, Verifier and Critic in turn until r* holds. Returns (r*, rounds); raises NotKept after the last.

    source: the chain that is rewritten next, in the mode that its level asks for. A medium chain that failed
    verification is extended: it lacks something.
    """
    cfg, original = walk.cfg, walk.problem["reasoning"]
    source, mode = original, "easy" if level == "medium" else level
    for round in range(1, cfg.max_rounds + 1):
        # what costs the round without asking anybody: nothing was changed, or a guard fires
        rewritten = await walk.rewrite(mode, source, round)
        if rewritten in (source, original):
            failure = "unchanged"
            continue
        if cfg.stages == "cr":
            return rewritten, round
        if guard := walk.guarded(rewritten, source, mode):
            failure = f"guard:{guard}"
            continue

        # the Verifier, and the answer check: language models shown the right answer tend to confirm it, so both are
        # asked, and a rewrite that ends in another answer than y never passes
        yes, check = await walk.verify(rewritten, round)
        if not yes or (cfg.check_answer and check == "differs"):
            failure = "failed_verification"
            source = source if cfg.retry_from == "source" else rewritten
            continue

        # the Critic again: done if the rewrite suits, else it is rewritten further, in the mode of its new level
        level = await walk.rate(rewritten, round)
        if level == "medium":
            return rewritten, round
        failure = f"rerated_{level}"
        if cfg.recritique == "discard":
            break
        source, mode = rewritten, level
    raise NotKept("discarded", failure)


async def _incorrect(walk: Walk, rewritten: str | None) -> str | None:
    """Returns r~ from r (§3.3.2), or None: then the problem is kept, with fewer pairs.

    It must pass the guards and really be wrong, so its final answer exists and is shown to differ from y: the paper's
    own Table 12 shows an "incorrect" chain that ends in the right number.
    """
    original = walk.problem["reasoning"]
    for attempt in range(1, walk.cfg.incorrect_tries + 1):
        try:
            corrupted = await walk.rewrite("incorrect", original, attempt)
        except NotKept:  # no usable reply
            continue
        if corrupted in (original, rewritten):
            walk.note(answer_check="unchanged")
            continue
        if walk.guarded(corrupted, original, "incorrect"):
            continue
        check = await answer_check(corrupted, walk.problem)
        walk.note(answer_check=check)
        if not walk.cfg.check_incorrect or check in ("differs", "unchecked"):
            return corrupted
    return None


async def run_problems(
    problems: Iterable[tuple[int, dict]],
    agents: Agents,
    window: int,
    finished: Callable[[int, dict], None],
) -> None:
    """Walk all problems, `window` of them alive at a time; finished(index, trace) is called in completion order.

    problems: (index, problem), read as places become free, so memory does not grow with their number. The first error
    is raised, once the calls in flight are in the journal.
    """
    shared = iter(problems)

    async def worker() -> None:
        for index, problem in shared:
            finished(index, await life_of(problem, agents))

    await run_together([worker() for _ in range(window)], agents.pools.values())
