"""The life of one problem in the CRV system (§3.2, Fig. 2): Critic, Rethinker, Verifier, and the incorrect chain.

                    medium ──────────────▶ Verifier ── YES ─▶ D_med
    r ─▶ Critic ─┤
                    easy / hard ─▶ Rethinker ─▶ Verifier ── YES ─▶ Critic ── medium ─▶ D_easy*, D_hard*
                                       ▲           │ NO              │ easy / hard
                                       └───────────┴─────────────────┘  three iterations in all, then discarded

Each problem walks alone and at its own pace; `run_problems` keeps a bounded number of them alive.
"""

import asyncio
from dataclasses import dataclass, field

from agents.guards import Guards, answer_check, fault
from agents.roles import Unanswered


@dataclass(frozen=True)
class Rules:
    """What §3.2 leaves open; build_crv.py documents each one."""

    stages: str = "crv"
    max_rounds: int = 3
    recritique: str = "retry"
    medium_failed: str = "discard"
    retry_from: str = "source"
    check_answer: bool = True
    check_incorrect: bool = True
    incorrect_tries: int = 3
    guards: Guards = field(default_factory=Guards)


class Discarded(Exception):
    """The CRV system turned a problem down. reason: machine-readable."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


async def life_of(problem, agents, rules):
    """Walk one problem (x, y, r) through the system. Returns its trace, a dict:

    level            the Critic's first verdict on r, or None
    outcome          "kept", "discarded" (the system said no) or "quarantined" (an agent gave no usable answer)
    reason           why it was not kept, or None
    origin, rounds   "med", "easy*" or "hard*" ("med*" for a rewritten medium); how many rewrites that took
    rewritten        r*, or None where r itself is kept;  incorrect: r~, or None
    steps            every verdict and every rewrite in order, each with its calls (keys of the journal); a rewrite that
                     fails a guard carries the guard's name
    """
    trace = {**problem, "level": None, "outcome": "kept", "reason": None, "origin": None, "rounds": 0,
             "rewritten": None, "incorrect": None, "steps": []}  # fmt: skip
    steps = trace["steps"]
    try:
        trace["level"] = level = await agents.critic(problem, problem["reasoning"], 0, steps)
        if level == "medium" and await _medium_holds(problem, agents, rules, steps):
            trace["origin"] = "med"
        else:
            if rules.stages == "c":
                raise Discarded(f"rated_{level}")
            trace["origin"] = "med*" if level == "medium" else f"{level}*"
            trace["rewritten"], trace["rounds"] = await _rewrite(problem, level, agents, rules, steps)
    except Discarded as no:
        trace |= {"outcome": "discarded", "reason": no.reason, "origin": None}
    except Unanswered as silence:
        trace |= {"outcome": "quarantined", "reason": silence.reason, "origin": None}
    else:
        trace["incorrect"] = await _incorrect(problem, trace["rewritten"], agents, rules, steps)
    return trace


async def _medium_holds(problem, agents, rules, steps):
    """Whether a chain rated medium is kept as it is. False: it is to be rewritten."""
    if rules.stages != "crv":
        return True
    chain = problem["reasoning"]
    check = await answer_check(chain, problem)
    yes = await agents.verifier(problem, chain, 0, steps)
    steps[-1]["answer_check"] = check  # for the record: r was validated when the dataset was made
    if not yes and rules.medium_failed == "discard":
        raise Discarded("medium_failed_verification")
    return yes


async def _rewrite(problem, level, agents, rules, steps):
    """Rethinker, Verifier and Critic in turn until r* holds. Returns (r*, rounds); raises Discarded after the last.

    source: the chain that is rewritten next, in the mode that its level asks for. A medium chain that failed
    verification is extended: it lacks something.
    """
    source, mode = problem["reasoning"], "easy" if level == "medium" else level
    for round in range(1, rules.max_rounds + 1):
        rewritten = await agents.rethinker(mode, problem, source, round, steps)
        if rewritten in (source, problem["reasoning"]):
            failure = "unchanged"
            continue
        if rules.stages == "cr":
            return rewritten, round
        if guard := _guarded(rewritten, source, mode, rules, steps):
            failure = f"guard:{guard}"
            continue
        if not await _verified(problem, rewritten, round, agents, rules, steps):
            failure = "failed_verification"
            source = source if rules.retry_from == "source" else rewritten
            continue
        level = await agents.critic(problem, rewritten, round, steps)
        if level == "medium":
            return rewritten, round
        failure = f"rerated_{level}"
        if rules.recritique == "discard":
            break
        source, mode = rewritten, level
    raise Discarded(failure)


def _guarded(chain, source, mode, rules, steps):
    """The guard that a rewrite fails, or None; it is noted in the trace, and no agent is asked about such a rewrite."""
    guard = fault(chain, source, mode, rules.guards)
    if guard:
        steps[-1]["guard"] = guard
    return guard


async def _verified(problem, chain, round, agents, rules, steps):
    """The Verifier's verdict on r*, and the answer check: a rewrite that ends in another answer than y never passes.

    Language models shown the right answer tend to confirm it, so both are asked and a disagreement stays visible.
    """
    check = await answer_check(chain, problem)
    yes = await agents.verifier(problem, chain, round, steps)
    steps[-1]["answer_check"] = check
    return yes and not (rules.check_answer and check == "differs")


async def _incorrect(problem, rewritten, agents, rules, steps):
    """r~ from r (§3.3.2), or None: then the problem is kept, with fewer pairs.

    It must pass the guards and really be wrong, so its final answer exists and differs from y: the paper's own
    Table 12 shows an "incorrect" chain that ends in the right number.
    """
    for attempt in range(1, rules.incorrect_tries + 1):
        try:
            corrupted = await agents.rethinker("incorrect", problem, problem["reasoning"], attempt, steps)
        except Unanswered:
            continue
        if corrupted in (problem["reasoning"], rewritten):
            steps[-1]["answer_check"] = "unchanged"
            continue
        if _guarded(corrupted, problem["reasoning"], "incorrect", rules, steps):
            continue
        steps[-1]["answer_check"] = check = await answer_check(corrupted, problem)
        if not rules.check_incorrect or check in ("differs", "unchecked"):
            return corrupted
    return None


async def run_problems(problems, agents, rules, window, finished):
    """Walk all problems, `window` of them alive at a time; finished(index, trace) is called in completion order.

    problems: an iterable of (index, problem), read as places become free, so memory does not grow with its length.
    The first error ends the others and is raised.
    """
    shared = iter(problems)

    async def worker():
        for index, problem in shared:
            finished(index, await life_of(problem, agents, rules))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(window):
                group.create_task(worker())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
