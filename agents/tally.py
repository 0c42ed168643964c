"""The numbers of a run: what report.json says of the traces, and what the calls cost.

They are of all problems, and keep no text in memory.
"""

import math
import statistics
from collections import Counter, defaultdict
from pathlib import Path

from agents.limits import cost_of, tokens_of
from agents.roles import LEVELS
from data.records import GAPS
from errors import UserError

AGENTS = ("critic", "rethinker", "verifier")
LENGTHS = (*LEVELS, "sft", "incorrect")  # whose characters are counted: r by its level, what is kept, r~
FITTED = ("original", "rewritten")  # chains that are measured on the student


class Tally:
    """Counts over traces; `add` each, then `result()`. Keeps numbers, never texts."""

    def __init__(self):
        self.total, self.seen = 0, set()
        self.counts = defaultdict(Counter)  # by their names in report.json
        self.guards = {mode: Counter() for mode in ("easy", "hard", "incorrect")}
        self.calls = {agent: Counter() for agent in AGENTS}
        self.rating, self.medium, self.tries = Counter(), Counter(), defaultdict(Counter)
        self.ids = {level: [] for level in LEVELS}
        self.lengths = {name: [] for name in LENGTHS}
        self.ratios = {gap: [] for gap in GAPS}
        self.fits = {(place, level): [] for place in FITTED for level in LEVELS}  # (NLL, RSR) of a chain on the student
        self.strata = defaultdict(list)  # (outcome, level, reason or origin, rounds) -> places in the input

    def add(self, trace: dict, pairs: list[dict]) -> None:
        """Count a trace and the pairs that were made of it."""
        # of every problem
        counts, outcome, level = self.counts, trace["outcome"], trace["level"]
        self.strata[outcome, level, trace["reason"] or trace["origin"], trace["rounds"]].append(self.total)
        self.total += 1
        self.seen.add(trace["id"])
        self._flow(trace)
        counts["problems"].update(["input", outcome] + ["rejected"] * (outcome != "kept"))
        counts["levels_before"][level or "unrated"] += 1
        ratings = [step["label"] for step in trace["steps"] if step["step"] == "critic" and step["label"]]
        counts["levels_after"][ratings[-1] if ratings else "unrated"] += 1
        if level:
            self.ids[level].append(trace["id"])
            self.lengths[level].append(len(trace["reasoning"]))
        count_calls(self.calls, trace)
        for step in trace["steps"]:
            self._step(step)

        # of those that are kept
        if outcome != "kept":
            counts["rejected_by_reason"][trace["reason"]] += 1
            return
        counts["kept_by_origin"][trace["origin"]] += 1
        counts["kept_by_rounds"][trace["rounds"]] += 1
        self.lengths["sft"].append(len(trace["rewritten"] or trace["reasoning"]))
        counts["incorrect_chains"]["made" if trace["incorrect"] else "none"] += 1
        if trace["incorrect"]:
            self.lengths["incorrect"].append(len(trace["incorrect"]))
        for pair in pairs:
            counts["pairs"][pair["gap"]] += 1
            chosen, rejected = (len(pair[side][0]["content"]) for side in ("chosen", "rejected"))
            self.ratios[pair["gap"]].append(math.log(chosen / rejected))

    def _step(self, step):
        """What came of a step: a measured fit, a verdict and whether the answer check agrees, a guard, a try for an
        incorrect chain."""
        if "fit" in step and step["label"]:
            self.fits[FITTED[step["round"] > 0], step["label"]].append((step["fit"]["nll"], step["fit"]["rsr"]))
        check = step.get("answer_check")
        if step["step"] == "verifier" and step["label"]:
            self.counts["verifier"][f"round {step['round']}: {step['label']}"] += 1
            if (step["label"], check) == ("YES", "differs"):
                self.counts["verifier_conflicts"]["yes_but_wrong_answer"] += 1
            if (step["label"], check) == ("NO", "agrees"):
                self.counts["verifier_conflicts"]["no_but_right_answer"] += 1
        if "guard" in step:
            self.guards[step["mode"]][step["guard"]] += 1
        if step.get("mode") == "incorrect" and check:
            self.counts["incorrect_chains"][f"tries_{check}"] += 1

    def _flow(self, trace):
        """Fig. 2 in numbers: where the problem went at each try. A try ends in kept, in lost or in the next one."""
        kept, level = trace["outcome"] == "kept", trace["level"]
        rounds = sorted({s["round"] for s in trace["steps"] if s["step"] == "rethinker" and s["mode"] != "incorrect"})

        # from the first rating: to the Verifier, to the first try, or out
        if level == "medium":
            after = "again" if rounds else "kept" if kept else "lost"
            self.medium.update(["entered", after])
        elif not rounds:
            self.rating["lost"] += 1

        # each try: who was asked about the rewrite tells how far it came
        for round in rounds:
            steps = [s for s in trace["steps"] if s["round"] == round and s.get("mode") != "incorrect"]
            asked = {s["step"]: s for s in steps}  # the last one of each agent
            end = "kept" if kept else "lost"
            self.tries[round].update(["entered", end if round == rounds[-1] else "again"])
            if asked["rethinker"]["text"] is None:
                self.tries[round]["unanswered"] += 1
            elif "guard" in asked["rethinker"]:
                self.tries[round]["guarded"] += 1
            elif "verifier" in asked:  # whoever is rated again has passed
                self.tries[round]["verified" if "critic" in asked else "not_verified"] += 1
            elif not kept or round < rounds[-1]:  # kept without a Verifier: stages=cr
                self.tries[round]["unchanged"] += 1
            if "critic" in asked and asked["critic"]["label"]:
                self.tries[round][f"rated_{asked['critic']['label']}"] += 1

    def check(self, total: int, out: Path) -> None:
        """Raises UserError unless each of `total` problems was added once."""
        if not self.total == len(self.seen) == total:
            raise UserError(
                f"{out}/traces.jsonl holds {self.total} traces of {len(self.seen)} problems, but there are {total}: "
                f"has the input changed? Nothing is exported; run the same command again"
            )

    def result(self) -> dict:
        """Returns what report.json says of the traces."""
        counts, levels = self.counts, (*LEVELS, "unrated")
        kept, rejected = counts["problems"]["kept"], counts["problems"]["rejected"]
        assert self.total == kept + rejected == kept + counts["rejected_by_reason"].total(), (self.total, counts)
        return {
            "problems": _listed(counts["problems"], ("input", "kept", "rejected", "discarded", "quarantined")),
            "rejected_by_reason": _sorted(counts["rejected_by_reason"]),
            "levels_before": _listed(counts["levels_before"], levels),
            "levels_after": _listed(counts["levels_after"], levels),  # the last rating of each
            **{
                name: _sorted(counts[name])
                for name in ("kept_by_origin", "kept_by_rounds", "verifier", "verifier_conflicts", "incorrect_chains")
            },
            "guards": {mode: _sorted(tally) for mode, tally in self.guards.items()},  # failed tries by role
            "flow": {
                "rating": _sorted(self.rating),
                "medium": _sorted(self.medium),
                "tries": {str(round): _sorted(self.tries[round]) for round in sorted(self.tries)},
            },
            "pairs": _listed(counts["pairs"], GAPS),
            "calls": {agent: _sorted(tally) for agent, tally in self.calls.items()},
            "chain_characters": {name: _spread(values) for name, values in self.lengths.items()},
            "length_ratio": {gap: _ratio(values) for gap, values in self.ratios.items()},
            **({"fits": {place: self._fitted(place) for place in FITTED}} if any(self.fits.values()) else {}),
        }

    def _fitted(self, place):
        """Medians of what was measured, by level."""
        found = {}
        for level in LEVELS:
            points = self.fits[place, level]
            medians = [round(statistics.median(values), 3) for values in zip(*points, strict=True)] or [None, None]
            found[level] = {"count": len(points), "nll": medians[0], "rsr": medians[1]}
        return found


def count_calls(calls: dict[str, Counter], trace: dict) -> None:
    """Add the calls of a trace to {agent: calls, tokens and how the calls ended}."""
    for step in trace["steps"]:
        for call in step["calls"]:
            calls[step["step"]].update(["calls", call["status"]])
            calls[step["step"]]["prompt_tokens"] += call["prompt_tokens"]
            calls[step["step"]]["completion_tokens"] += call["completion_tokens"]
            if cached := call.get("cached_tokens"):
                calls[step["step"]]["cached_tokens"] += cached


def _listed(counter, names):
    return {name: counter[name] for name in names}


def _sorted(counter):
    return {str(key): counter[key] for key in sorted(counter, key=str)}


def _spread(values):
    if not values:
        return {"count": 0}
    return {"count": len(values), "mean": round(statistics.fmean(values), 1), "median": statistics.median(values)}


def _ratio(values):
    """Characters of chosen over rejected, as a geometric mean. abs_log: the mean |log ratio|; far from 0, or with
    nearly all or none of the chosen the longer ones, length alone tells chosen from rejected, and preference training
    may learn just that."""
    if not values:
        return {"count": 0}
    return {
        "count": len(values),
        "chosen_over_rejected": round(math.exp(statistics.fmean(values)), 3),
        "median": round(math.exp(statistics.median(values)), 3),
        "chosen_longer": round(sum(v > 0 for v in values) / len(values), 3),
        "abs_log": round(statistics.fmean(abs(v) for v in values), 3),
    }


def cost(calls: dict[str, dict], prices: dict[str, dict]) -> dict[str, float]:
    """Returns {agent: cost so far}; empty where no endpoint has a price."""
    return {
        agent: round(cost_of(prices[agent], *tokens_of(count)), 6)
        for agent, count in calls.items()
        if count and any(prices[agent].values())
    }
