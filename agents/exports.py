"""From traces to what is trained on: sft.jsonl, pairs.jsonl, the studies' subsets, rejected.jsonl and the report.

Everything here is a function of traces.jsonl and the configuration alone, so it asks nobody and is paid for once.
"""

import math
import random
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from agents.roles import LEVELS
from data.answers import final_answer
from data.pairs import make_pairs
from data.records import GAPS
from data.render import boxed_solution, prompt_messages, response_text


@dataclass(frozen=True)
class Layout:
    """How a problem and a chain become messages; the fields are build_crv.py's, and documented there."""

    response_style: str
    rejected_answer: str
    system: str
    instruction: str | dict[str, str]

    def prompt(self, trace):
        template = self.instruction
        if isinstance(template, dict):
            template = template.get(trace.get("domain"), template["default"])
        return prompt_messages(trace["problem"], self.system, template)

    def response(self, trace, chain):
        """A correct chain and the gold solution behind it."""
        return response_text(chain, self._solution(trace), self.response_style)

    def incorrect_response(self, trace):
        """r~ and what `rejected_answer` puts behind it; None without r~."""
        chain = trace["incorrect"]
        if chain is None:
            return None
        solution = None
        if self.rejected_answer == "gold":
            solution = self._solution(trace)
        elif self.rejected_answer == "from_reasoning" and final_answer(chain) is not None:
            solution = boxed_solution(final_answer(chain))
        return response_text(chain, solution, self.response_style)

    def _solution(self, trace):
        return trace.get("solution") or boxed_solution(trace["answer"])


def sft_row(trace, chain, origin, rounds, layout):
    reply = {"role": "assistant", "content": layout.response(trace, chain)}
    return {
        "id": trace["id"],
        "messages": [*layout.prompt(trace), reply],
        "origin": origin,
        "rounds": rounds,
        "problem": trace["problem"],
        "answer": trace["answer"],
        "reasoning": chain,
    }


def original_row(trace, layout):
    """The original chain under the Critic's first verdict ("unrated" if there is none)."""
    origin = {"medium": "med", None: "unrated"}.get(trace["level"], trace["level"])
    return sft_row(trace, trace["reasoning"], origin, 0, layout)


def kept_chain(trace):
    """What stands for the problem in D_SFT*: r*, or r itself where it was rated medium."""
    return trace["reasoning"] if trace["rewritten"] is None else trace["rewritten"]


def first_rewrite(trace):
    """The first rewrite, verified or not (Table 6, "w. CR"), or None."""
    steps = (s for s in trace["steps"] if s["step"] == "rethinker" and s["mode"] != "incorrect" and s["text"])
    first = next(steps, None)
    return first and first["text"]


# --- the files; each takes an iterable of traces and yields rows ---


def sft_rows(traces, layout):
    """D_SFT* = D_med ∪ D_easy* ∪ D_hard* (§3.2.3)."""
    for trace in traces:
        if trace["outcome"] == "kept":
            yield sft_row(trace, kept_chain(trace), trace["origin"], trace["rounds"], layout)


def pair_rows(traces, layout):
    """The mini-tasks of CogPO (§3.3.2). A rewritten medium chain stands in for its original, which did not hold."""
    for trace in traces:
        if trace["outcome"] == "kept":
            medium = trace["level"] == "medium"
            yield from make_pairs(
                trace["id"],
                layout.prompt(trace),
                trace["level"],
                layout.response(trace, kept_chain(trace) if medium else trace["reasoning"]),
                layout.incorrect_response(trace),
                None if medium else layout.response(trace, trace["rewritten"]),
            )


def rejected_rows(traces):
    for trace in traces:
        if trace["outcome"] != "kept":
            yield {key: trace[key] for key in ("id", "outcome", "reason", "level", "problem", "answer", "reasoning")}


def original_rows(traces, layout):
    """Every input chain as it came: the "SFT" row of Table 2 and Table 6."""
    return (original_row(trace, layout) for trace in traces)


def level_rows(traces, level, chosen, layout):
    """The original chains of one level (Table 5). chosen: ids, or None for all."""
    for trace in traces:
        if trace["level"] == level and (chosen is None or trace["id"] in chosen):
            yield original_row(trace, layout)


def ablation_rows(traces, stages, layout):
    """Table 6. "c": original chains rated medium; "cr": those, and every first rewrite, unverified."""
    for trace in traces:
        if trace["level"] == "medium":
            yield original_row(trace, layout)
        elif stages == "cr" and first_rewrite(trace):
            yield sft_row(trace, first_rewrite(trace), trace["level"] + "*", 1, layout)


def level_sample(ids_by_level, size: int | Literal["min"] | None, seed):
    """{level: ids or None}: equally many ids of each level, drawn with `seed` (Table 5: 10,000). "min": as many as the
    smallest level has; None: all."""
    if size is None:
        return dict.fromkeys(LEVELS)
    size = min(len(ids) for ids in ids_by_level.values()) if size == "min" else size
    draw = {level: random.Random(f"{seed}/{level}") for level in LEVELS}
    return {level: set(draw[level].sample(ids, min(size, len(ids)))) for level, ids in ids_by_level.items()}


# --- the report ---


class Report:
    """Counts over traces; `add` each, then `result()`. Keeps numbers, never texts."""

    def __init__(self):
        self.total = 0
        self.outcomes, self.reasons, self.origins, self.rounds, self.pairs = (Counter() for _ in range(5))
        self.before, self.after, self.conflicts, self.incorrect = (Counter() for _ in range(4))
        self.guards = {mode: Counter() for mode in ("easy", "hard", "incorrect")}
        self.calls = {agent: Counter() for agent in ("critic", "rethinker", "verifier")}
        self.verified_at, self.ids = Counter(), {level: [] for level in LEVELS}
        self.lengths = {name: [] for name in (*LEVELS, "sft", "incorrect")}
        self.ratios = {gap: [] for gap in GAPS}

    def add(self, trace, pairs):
        self.total += 1
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
        self.lengths["sft"].append(len(kept_chain(trace)))
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

    def result(self):
        """The report as a dict. Raises AssertionError if a problem was lost or counted twice."""
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
