"""What a run does and did, for a person: the line while it runs (Live), the last lines (show), and report.html.

Numbers (agents/tally.py) are of all problems; the page's browser for single ones holds a seeded sample, so that it
stays small.
"""

import math
import time
from collections import Counter
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from agents.measured import Levels
from agents.roles import LEVELS
from agents.tally import AGENTS, Tally, cost, count_calls
from pages.page import in_turn, render
from progress import Progress, say

FORECAST = 100  # problems
LOOKS = {  # {name in tally.LENGTHS: (title, colour)}
    **{level: (f"rated {level}", level) for level in LEVELS},
    "sft": ("kept for SFT", "kept"),
    "incorrect": ("incorrect", "lost"),
}
RESULTS = {"easy": "rewritten", "hard": "rewritten", "incorrect": "incorrect"}  # where a trace holds what was kept
BINS = 40
DOTS = 500  # at most, of originals and rewrites of each level that were measured on the student


def render_report(report: dict, tally: Tally, samples: list[dict], title: str) -> str:
    """The page. report: report.json. samples: traces."""
    flow, made = report["flow"], report["made_with"]
    calls = sum(map(Counter, report["calls"].values()), Counter())
    items = [_item(trace) for trace in samples]
    return render(
        "report.html",
        title=f"CRV: {title}",
        subtitle="; ".join(f"{agent} {model}" for agent, model in made["models"].items()) + f". {made['sampling']}",
        calls=calls,
        cost=sum(report["cost"].values()),
        report=report,
        reasons=sorted(report["rejected_by_reason"].items(), key=lambda item: -item[1]),
        flow={  # as Counters, for what did not occur is not in the report
            "medium": Counter(flow["medium"]),
            "tries": {name: Counter(count) for name, count in flow["tries"].items()},
            "unrated": flow["rating"].get("lost", 0),
        },
        lengths=_histograms(tally.lengths),
        fits=_dots(tally.fits, made.get("student")),
        browser={
            "items": items,
            "filters": {name: sorted({item[name] for item in items}) for name in ("outcome", "level", "reason")},
            "note": f"{len(samples)} of {report['problems']['input']:,} problems, drawn at random with the run's seed, "
            "from every outcome, reason and level alike. All of them are in traces.jsonl.",
            "search": "search in problems and chains",
            "answer": "y = ",
            "absent": "no usable reply",
        },
    )


def sample(strata: dict[tuple, list[int]], size: int, seed: int) -> list[int]:
    """Places of up to `size` problems, taken in turn from all strata, so that rare outcomes are there. Sorted."""
    return sorted(islice(in_turn(strata, seed), size))


def _histograms(lengths):
    """Over one logarithmic axis; heights and places are shares of its height and width."""
    everything = [max(1, n) for values in lengths.values() for n in values] or [1]
    low, high = math.log2(min(everything)), math.log2(max(everything) + 1)
    groups = []
    for name, values in lengths.items():
        counts = [0] * BINS
        for n in values:
            counts[min(BINS - 1, int(BINS * (math.log2(max(1, n)) - low) / (high - low)))] += 1
        title, tone = LOOKS[name]
        note = f"{len(values):,}, median {sorted(values)[len(values) // 2]:,}" if values else "none"
        heights = [count / (max(counts) or 1) for count in counts]
        groups.append({"name": title, "tone": tone, "note": note, "heights": heights})
    powers = range(math.ceil(low), math.floor(high) + 1, max(1, round((high - low) / 6)))
    return {"groups": groups, "ticks": [((power - low) / (high - low), 2**power) for power in powers]}


def _dots(fits, student):
    """Chains as dots over NLL and RSR, an even choice of DOTS of each kind; None if nothing was measured.

    Places are shares of width and height, on logarithmic axes that hold 99 % of the chains.
    """
    everything = [point for points in fits.values() for point in points]
    if not everything:
        return None

    def axis(values, threshold):
        ordered = sorted(max(value, 1e-3) for value in values)
        low, high = (math.log(ordered[round(q * (len(ordered) - 1))]) for q in (0.005, 0.995))
        width = max(high - low, 1e-9)

        def place(value):
            return min(1.02, max(-0.02, (math.log(max(value, 1e-3)) - low) / width))

        shown = [float(f"{math.exp(low + width * part):.2g}") for part in (0, 0.25, 0.5, 0.75, 1)]
        return place, {"ticks": [(place(value), value) for value in shown], "threshold": place(threshold)}

    (x, across), (y, up) = (
        axis(values, student[name])
        for values, name in zip(zip(*everything, strict=True), ("easy_nll", "hard_rsr"), strict=True)
    )
    dots = [
        (kind, level, x(nll), y(rsr))
        for (kind, level), points in fits.items()
        for nll, rsr in points[:: -(-len(points) // DOTS) or 1]
    ]
    levels = Levels(student["hard_rsr"], student["easy_nll"])
    originals = [levels.of(*point) == level for level in LEVELS for point in fits["original", level]]
    return {"across": across, "up": up, "dots": dots, "same": sum(originals), "originals": len(originals)}


# --- single problems ---


def _item(trace):
    """A trace as an item of the browser: its chains side by side, each with what the agents said of it."""
    steps, kept = trace["steps"], trace["outcome"] == "kept"
    level, reason = trace["level"] or "unrated", trace["reason"] or trace["origin"]
    columns = [_column("Original", level, trace["reasoning"], [s for s in steps if s["round"] == 0])]
    rewrites = [s for s in steps if s["step"] == "rethinker"]
    for step in sorted(rewrites, key=lambda s: s["mode"] == "incorrect"):  # incorrect chains stand last
        final = step["text"] is not None and step["text"] == trace[RESULTS[step["mode"]]]
        title, tone, about = "Incorrect", "lost", [step]
        if step["mode"] != "incorrect":
            title = f"Try {step['round']}: {'simplified' if step['mode'] == 'hard' else 'extended'}"
            tone = "kept" if final else ""
            # with it, what was said of it: the verdicts of its round
            about += [s for s in steps if s["round"] == step["round"] and s["step"] != "rethinker"]
        columns.append(_column(title + ", kept" * final, tone, step["text"], about))
    return {
        "id": trace["id"],
        "text": trace["problem"],
        "answer": trace["answer"],
        "why": f"{trace['id']} · {level} · {reason}",
        "tone": "kept" if kept else "lost",
        "chips": [(f"kept as {reason}" if kept else f"{trace['outcome']}: {reason}", "kept" if kept else "lost")],
        "columns": columns,
        "outcome": trace["outcome"],
        "level": level,
        "reason": reason,
    }


def _column(title, tone, text, steps):
    note = f"{len(text):,} characters" if text else ""
    return {"title": title, "note": note, "cards": [{"tone": tone, "text": text, "chips": list(_chips(steps))}]}


def _chips(steps):
    """(text, colour) of what the agents and the checks said."""
    for step in steps:
        votes = step.get("votes") or {}
        several = f" ({', '.join(f'{label} {n}' for label, n in votes.items())})" if sum(votes.values()) > 1 else ""
        if step["step"] == "critic":
            yield f"Critic: {step['label'] or 'no verdict'}{several}", step["label"] or ""
            if fit := step.get("fit"):
                yield f"fit: NLL {fit['nll']:.2f}, RSR {fit['rsr']:.2f}, {fit['tokens']} tokens", ""
        if step["step"] == "verifier":
            yield f"Verifier: {step['label'] or 'no verdict'}{several}", "kept" if step["label"] == "YES" else "lost"
        if check := step.get("answer_check"):
            yield f"answer {check}", {"agrees": "kept", "differs": "lost"}.get(check, "")
        if guard := step.get("guard"):
            yield f"guard: {guard}", "lost"
        if failed := [call["status"] for call in step["calls"] if call["status"] != "ok"]:
            yield f"asked again: {', '.join(failed)}", ""


def show(report: dict, out: Path) -> None:
    """Say the report in a few lines."""
    problems, pairs = report["problems"], report["pairs"]
    levels = ", ".join(f"{n} {level}" for level, n in report["levels_before"].items() if n)
    say(f"rated {levels}")
    say(f"{problems['input']} problems = {problems['kept']} kept + {problems['rejected']} rejected")
    for reason, count in sorted(report["rejected_by_reason"].items(), key=lambda item: -item[1]):
        again = " (the same command asks for these again)" if reason.endswith(("_transport", "_refused")) else ""
        say(f"  {count} {reason}{again}")
    say(f"pairs: {', '.join(f'{n} {gap}' for gap, n in pairs.items())}")
    say(f"wrote {out}/sft.jsonl, pairs.jsonl, traces.jsonl, rejected.jsonl, report.json; look at {out}/report.html")


# --- while it runs ---


class Live:
    """with Progress(…) as bar: live = Live(bar, total, endpoints, prices); then live.finished(trace) for each problem.

    endpoints: those that are asked (agents/client.py). prices: see made_with in agents/outputs.py. Cost and forecast
    are of the finished problems, whether their answers came from an endpoint or from the journal; speed is of the
    endpoints, since the start.
    """

    def __init__(self, bar: Progress, total: int, endpoints: list, prices: dict):
        self.bar, self.total, self.endpoints, self.prices = bar, total, endpoints, prices
        self.outcomes, self.calls = Counter(), {agent: Counter() for agent in AGENTS}
        self.start = time.monotonic()

    def finished(self, trace: dict) -> None:
        self.outcomes["kept" if trace["outcome"] == "kept" else "rejected"] += 1
        count_calls(self.calls, trace)
        spent, seconds = sum(cost(self.calls, self.prices).values()), max(time.monotonic() - self.start, 1e-9)
        self.bar.update(
            1,
            kept=self.outcomes["kept"],
            rejected=self.outcomes["rejected"],
            tokens_per_s=float(f"{sum(e.completion_tokens for e in self.endpoints) / seconds:.3g}"),
            in_flight=sum(e.limit.in_flight for e in self.endpoints),
            retries=sum(e.retried for e in self.endpoints),
            **({"cost": spent} if spent else {}),
        )
        if self.outcomes.total() == FORECAST < self.total:
            say(self.forecast())

    def forecast(self) -> str:
        """Returns one line: what all problems will be and take, if they are like the finished ones. Short chains finish
        first, so it is rather too low at the beginning."""
        done, count = self.outcomes.total(), sum(self.calls.values(), Counter())
        asked, scale = sum(e.calls for e in self.endpoints), self.total / done
        parts = [
            f"{self.outcomes['kept'] / done:.0%} kept",
            f"{count['calls'] * scale:,.0f} calls",
            f"{(count['prompt_tokens'] + count['completion_tokens']) * scale:,.0f} tokens",
        ]
        if asked:  # else all came from the journal, which says nothing about the time that the others take
            left = count["calls"] / done * (self.total - done)
            parts.append(f"{tqdm.format_interval((time.monotonic() - self.start) / asked * left)} from now")
        if spent := sum(cost(self.calls, self.prices).values()):
            parts.append(f"cost {spent * scale:.4g}")
        return f"forecast for all {self.total:,} problems from the first {done}: {', '.join(parts)}"
