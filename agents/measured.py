"""The student as Critic: a chain's level by how well it fits the student, measured (model/fit.py), not judged in words.

    hard     RSR above hard_rsr: the student would have said many other things first (detours, asides)
    easy     else, NLL above easy_nll: it does not foresee the steps (too terse for it)
    medium   else

The paper has no π_base as Critic because a small model does not judge well (A.5); its log-probs need no judgement.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from values import Count, MaybePath, NotNegative, Share


@dataclass
class StudentConfig:
    path: MaybePath = ""
    """Folder or hub id of the student whose fit is measured: by it critic_mode=student rates, and under critic_mode=llm
    report.html shows the Critic's levels beside it. Empty: nothing is measured."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """As model.compute_dtype in training."""
    max_tokens: Count = 16384
    """Tokens packed into one row."""
    fits: MaybePath = ""
    """File of what was measured, e.g. by `python -m model.fit` on GPUs; empty for fit.jsonl in `out`."""
    hard_share: Share = 0.33
    """hard_rsr is set so that this share of the input's chains lies above it …"""
    easy_share: Share = 0.33
    """… and easy_nll so that this share of them is easy."""
    hard_rsr: NotNegative | None = None
    """A fixed threshold instead of hard_share, e.g. report.json's of another run."""
    easy_nll: NotNegative | None = None
    """A fixed threshold instead of easy_share."""


@dataclass(frozen=True)
class Levels:
    """The thresholds. hard_rsr: ranks a nat; easy_nll: nats a token."""

    hard_rsr: float
    easy_nll: float

    def of(self, nll: float, rsr: float) -> str:
        """Return the level of a chain that fits so well (model.fit.Fit)."""
        if rsr > self.hard_rsr:
            return "hard"
        return "easy" if nll > self.easy_nll else "medium"


def find_levels(cfg: StudentConfig, fits: list) -> Levels:
    """Return the thresholds of a run. fits: of all chains of the input."""

    def exceeded(values, share):
        """The threshold that this share of all chains lies above, as far as there are so many values."""
        count = round(share * len(fits))
        return sorted(values, reverse=True)[count] if count < len(values) else 0.0

    hard_rsr = exceeded([fit.rsr for fit in fits], cfg.hard_share) if cfg.hard_rsr is None else cfg.hard_rsr
    others = [fit.nll for fit in fits if fit.rsr <= hard_rsr]
    return Levels(hard_rsr, exceeded(others, cfg.easy_share) if cfg.easy_nll is None else cfg.easy_nll)


class StudentCritic:
    """Measures chains for many problems at a time: what is asked while the model computes makes the next batch.

    measure: [(messages before the chain, chain)] -> their fits (model.fit.Student.fits); it runs in a thread. prompt:
    problem -> the messages. rates: whether its levels count, or are only noted beside a Critic's. weights: a digest.
    """

    def __init__(
        self,
        measure: Callable[[list], list],
        levels: Levels,
        prompt: Callable[[dict], list[dict]],
        rates: bool,
        weights: str,
    ):
        self.measure, self.levels, self.prompt, self.rates, self.weights = measure, levels, prompt, rates, weights
        self.waiting, self.turn = [], asyncio.Lock()

    async def fit(self, problem: dict, chain: str) -> Any:
        """Return the fit of a chain (model.fit.Fit)."""
        found = asyncio.get_running_loop().create_future()
        self.waiting.append(((self.prompt(problem), chain), found))
        async with self.turn:
            batch, self.waiting = self.waiting, []
            if batch:  # else this one was in the batch before
                try:
                    fits = await asyncio.to_thread(self.measure, [text for text, _ in batch])
                except Exception as error:  # of memory, of the disk: whoever waits for a fit gets it
                    fits = [error] * len(batch)
                for fit, (_, its) in zip(fits, batch, strict=True):
                    its.set_exception(fit) if isinstance(fit, Exception) else its.set_result(fit)
        return await found
