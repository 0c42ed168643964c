"""What a person sees while a run is under way: speed, cost, and after the first hundred problems what all will take."""

import time
from collections import Counter, deque

from tqdm import tqdm

from agents.exports import cost
from progress import say

FORECAST = 100  # problems
SPAN = 60.0  # seconds over which speeds are taken


class Live:
    """with Progress(…) as bar: live = Live(bar, total, endpoints, prices); then live.finished(trace) for each problem.

    endpoints: those that are asked (agents/client.py). prices: see agents/provenance.py. Cost and forecast are of the
    finished problems, whether their answers came from an endpoint or from the journal; speeds are of the endpoints.
    """

    def __init__(self, bar, total, endpoints, prices):
        self.bar, self.total, self.endpoints, self.prices = bar, total, endpoints, prices
        self.outcomes, self.calls = Counter(), {agent: Counter() for agent in prices}
        self.start = time.monotonic()
        self.marks = deque([(self.start, 0, 0)])  # (time, calls, tokens), a second apart or more

    def finished(self, trace):
        self.outcomes["kept" if trace["outcome"] == "kept" else "rejected"] += 1
        for step in trace["steps"]:
            for call in step["calls"]:
                for key in ("prompt_tokens", "completion_tokens"):
                    self.calls[step["step"]][key] += call[key]
                self.calls[step["step"]]["calls"] += 1
        self.bar.update(1, **self._notes())
        if self.outcomes.total() == FORECAST < self.total:
            say(self.forecast())

    def _notes(self):
        now, asked = time.monotonic(), sum(e.calls for e in self.endpoints)
        tokens = sum(e.completion_tokens for e in self.endpoints)
        if now - self.marks[-1][0] >= 1:
            self.marks.append((now, asked, tokens))
        while len(self.marks) > 2 and now - self.marks[1][0] > SPAN:
            self.marks.popleft()
        since, asked_then, tokens_then = self.marks[0]
        seconds = max(now - since, 1e-9)
        spent = sum(cost(self.calls, self.prices).values())
        return {
            "kept": self.outcomes["kept"],
            "rejected": self.outcomes["rejected"],
            "calls/s": float(f"{(asked - asked_then) / seconds:.3g}"),
            "tokens/s": float(f"{(tokens - tokens_then) / seconds:.3g}"),
            "in flight": sum(e.limit.in_flight for e in self.endpoints),
            "retries": sum(e.retried for e in self.endpoints),
            **({"cost": spent} if spent else {}),
        }

    def forecast(self):
        """One line: what all problems will be and take, if they are like the finished ones. Short chains finish first,
        so it is rather too low at the beginning."""
        done = self.outcomes.total()
        scale = self.total / done
        calls = sum(c["calls"] for c in self.calls.values())
        tokens = sum(c["prompt_tokens"] + c["completion_tokens"] for c in self.calls.values())
        asked = sum(e.calls for e in self.endpoints)
        parts = [
            f"{self.outcomes['kept'] / done:.0%} kept",
            f"{calls * scale:,.0f} calls",
            f"{tokens * scale:,.0f} tokens",
        ]
        if asked:  # else all came from the journal, which says nothing about the time that the others take
            left = calls / done * (self.total - done)
            parts.append(f"{tqdm.format_interval((time.monotonic() - self.start) / asked * left)} from now")
        if spent := sum(cost(self.calls, self.prices).values()):
            parts.append(f"cost {spent * scale:.4g}")
        return f"forecast for all {self.total:,} problems from the first {done}: {', '.join(parts)}"
