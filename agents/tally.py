"""What a run did, in numbers: problems, verdicts, rewrites, pairs, calls, tokens, and the lengths of chains."""

import math
import statistics
from collections import Counter, defaultdict

from agents.roles import LEVELS
from data.records import GAPS
from errors import UserError
from progress import say


class Tally:
    """Counts over traces; `add` each, then `result()`. Keeps numbers, never texts."""

    def __init__(self):
        self.total, self.seen = 0, set()
        self.outcomes, self.reasons, self.origins, self.rounds, self.pairs = (Counter() for _ in range(5))
        self.before, self.after, self.conflicts, self.incorrect = (Counter() for _ in range(4))
        self.guards = {mode: Counter() for mode in ("easy", "hard", "incorrect")}
        self.calls = {agent: Counter() for agent in ("critic", "rethinker", "verifier")}
        self.verified_at, self.ids = Counter(), {level: [] for level in LEVELS}
        self.lengths = {name: [] for name in (*LEVELS, "sft", "incorrect")}
        self.ratios = {gap: [] for gap in GAPS}
        self.rating, self.medium, self.tries = Counter(), Counter(), defaultdict(Counter)
        self.strata = defaultdict(list)  # (outcome, level, reason or origin, rounds) -> places in the input

    def add(self, trace, pairs):
        kind = (trace["outcome"], trace["level"], trace["reason"] or trace["origin"], trace["rounds"])
        self.strata[kind].append(self.total)
        self.total += 1
        self.seen.add(trace["id"])
        self._flow(trace)
        self.outcomes[trace["outcome"]] += 1
        self.before[trace["level"] or "unrated"] += 1
        ratings = [step["label"] for step in trace["steps"] if step["step"] == "critic" and step["label"]]
        self.after[ratings[-1] if ratings else "unrated"] += 1
        if trace["level"]:
            self.ids[trace["level"]].append(trace["id"])
            self.lengths[trace["level"]].append(len(trace["reasoning"]))
        for step in trace["steps"]:
            self._step(step)
        if trace["outcome"] != "kept":
            self.reasons[trace["reason"]] += 1
            return
        self.origins[trace["origin"]] += 1
        self.rounds[trace["rounds"]] += 1
        self.lengths["sft"].append(len(trace["rewritten"] or trace["reasoning"]))
        self.incorrect["made" if trace["incorrect"] else "none"] += 1
        if trace["incorrect"]:
            self.lengths["incorrect"].append(len(trace["incorrect"]))
        for pair in pairs:
            self.pairs[pair["gap"]] += 1
            chosen, rejected = (len(pair[side][0]["content"]) for side in ("chosen", "rejected"))
            self.ratios[pair["gap"]].append(math.log(chosen / rejected))

    def _step(self, step):
        agent, tally = step["step"], self.calls[step["step"]]
        for call in step["calls"]:
            tally["calls"] += 1
            tally[call["status"]] += 1
            tally["prompt_tokens"] += call["prompt_tokens"]
            tally["completion_tokens"] += call["completion_tokens"]
        if agent == "verifier" and step["label"]:
            self.verified_at[f"round {step['round']}: {step['label']}"] += 1
            disagree = {("YES", "differs"): "yes_but_wrong_answer", ("NO", "agrees"): "no_but_right_answer"}
            conflict = disagree.get((step["label"], step.get("answer_check")))
            self.conflicts.update([conflict] if conflict else [])
        if "guard" in step:
            self.guards[step["mode"]][step["guard"]] += 1
        if agent == "rethinker" and step["mode"] == "incorrect" and "answer_check" in step:
            self.incorrect[f"tries_{step['answer_check']}"] += 1

    def _flow(self, trace):
        """Fig. 2 in numbers: where the problem went at each try. A try ends in kept, in lost or in the next one."""
        kept, level = trace["outcome"] == "kept", trace["level"]
        rounds = sorted({s["round"] for s in trace["steps"] if s["step"] == "rethinker" and s["mode"] != "incorrect"})
        if level == "medium":
            after = "again" if rounds else "kept" if kept else "lost"
            self.medium.update(["entered", after])
        elif not rounds:
            self.rating["lost"] += 1
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

    def check(self, total, out):
        """Raises UserError unless each of `total` problems was added once."""
        if not self.total == len(self.seen) == total:
            raise UserError(
                f"{out}/traces.jsonl holds {self.total} traces of {len(self.seen)} problems, but there are {total}: "
                f"has the input changed? Nothing is exported; run the same command again"
            )

    def result(self):
        """The report as a dict."""
        kept, rejected = self.outcomes["kept"], self.outcomes["discarded"] + self.outcomes["quarantined"]
        assert self.total == kept + rejected == kept + sum(self.reasons.values()), (self.total, self.outcomes)
        return {
            "problems": {
                "input": self.total,
                "kept": kept,
                "rejected": rejected,
                "discarded": self.outcomes["discarded"],
                "quarantined": self.outcomes["quarantined"],
            },
            "rejected_by_reason": _sorted(self.reasons),
            "levels_before": {level: self.before[level] for level in (*LEVELS, "unrated")},
            "levels_after": {level: self.after[level] for level in (*LEVELS, "unrated")},  # the last rating of each
            "kept_by_origin": _sorted(self.origins),
            "kept_by_rounds": _sorted(self.rounds),
            "verifier": _sorted(self.verified_at),
            "verifier_conflicts": _sorted(self.conflicts),
            "incorrect_chains": _sorted(self.incorrect),
            "guards": {mode: _sorted(tally) for mode, tally in self.guards.items()},  # failed tries by role
            "flow": {
                "rating": _sorted(self.rating),
                "medium": _sorted(self.medium),
                "tries": {str(round): _sorted(self.tries[round]) for round in sorted(self.tries)},
            },
            "pairs": {gap: self.pairs[gap] for gap in GAPS},
            "calls": {agent: _sorted(tally) for agent, tally in self.calls.items()},
            "chain_characters": {name: _spread(values) for name, values in self.lengths.items()},
            "length_ratio": {gap: _ratio(values) for gap, values in self.ratios.items()},
        }


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


def show(report, out):
    """The report in a few lines."""
    problems, pairs = report["problems"], report["pairs"]
    levels = ", ".join(f"{n} {level}" for level, n in report["levels_before"].items() if n)
    say(f"rated {levels}")
    say(f"{problems['input']} problems = {problems['kept']} kept + {problems['rejected']} rejected")
    for reason, count in sorted(report["rejected_by_reason"].items(), key=lambda item: -item[1]):
        again = " (the same command asks for these again)" if reason.endswith(("_transport", "_refused")) else ""
        say(f"  {count} {reason}{again}")
    say(f"pairs: {', '.join(f'{n} {gap}' for gap, n in pairs.items())}")
    say(f"wrote {out}/sft.jsonl, pairs.jsonl, traces.jsonl, rejected.jsonl, report.json; look at {out}/report.html")
