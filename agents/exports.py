"""From traces to what is trained on: sft.jsonl, pairs.jsonl, the studies' subsets, rejected.jsonl and the report.

Everything here is a function of traces.jsonl and the configuration alone, so it asks nobody and is paid for once.
"""

import contextlib
import functools
import json
import random
from dataclasses import dataclass
from pathlib import Path

from agents.provenance import kept_step, of_incorrect, of_original, of_rewrite
from agents.report import render, sample
from agents.roles import LEVELS
from agents.tally import Tally
from data.pairs import make_pairs
from data.records import iter_jsonl, jsonl_writer, write_text
from data.render import boxed_solution, prompt_messages, response_text
from grading.answers import final_answer

SAMPLES = 200  # problems that can be looked at in report.html


@dataclass(frozen=True)
class Layout:
    """How a problem and a chain become messages; the fields are build_crv.py's, and documented there."""

    response_style: str
    rejected_answer: str
    system: str
    instruction: str | dict[str, str]
    made: dict
    """agents.provenance.made_with: what all chains of the run have in common"""

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


def sft_row(trace, chain, origin, rounds, layout, provenance):
    reply = {"role": "assistant", "content": layout.response(trace, chain)}
    return {
        "id": trace["id"],
        "messages": [*layout.prompt(trace), reply],
        "origin": origin,
        "rounds": rounds,
        "problem": trace["problem"],
        "answer": trace["answer"],
        "reasoning": chain,
        "provenance": provenance,
    }


def original_row(trace, layout):
    """The original chain under the Critic's first verdict ("unrated" if there is none)."""
    origin = {"medium": "med", None: "unrated"}.get(trace["level"], trace["level"])
    return sft_row(trace, trace["reasoning"], origin, 0, layout, of_original(trace))


def kept_chain(trace):
    """What stands for the problem in D_SFT*: r*, or r itself where it was rated medium."""
    return trace["reasoning"] if trace["rewritten"] is None else trace["rewritten"]


def kept_provenance(trace, layout):
    return of_original(trace) if trace["rewritten"] is None else of_rewrite(trace, kept_step(trace), layout.made)


def first_rewrite(trace):
    """The step of the first rewrite that changed anything, verified or not (Table 6, "w. CR"), or None."""
    steps = (s for s in trace["steps"] if s["step"] == "rethinker" and s["mode"] != "incorrect")
    return next((s for s in steps if s["text"] not in (None, trace["reasoning"])), None)


# --- the files; each takes an iterable of traces and yields rows ---


def sft_rows(traces, layout):
    """D_SFT* = D_med ∪ D_easy* ∪ D_hard* (§3.2.3)."""
    for trace in traces:
        if trace["outcome"] == "kept":
            where = kept_provenance(trace, layout)
            yield sft_row(trace, kept_chain(trace), trace["origin"], trace["rounds"], layout, where)


def pair_rows(traces, layout):
    """The mini-tasks of CogPO (§3.3.2). A rewritten medium chain stands in for its original, which did not hold."""
    for trace in traces:
        if trace["outcome"] != "kept":
            continue
        medium = trace["level"] == "medium"
        pairs = make_pairs(
            trace["id"],
            layout.prompt(trace),
            trace["level"],
            layout.response(trace, kept_chain(trace) if medium else trace["reasoning"]),
            layout.incorrect_response(trace),
            None if medium else layout.response(trace, trace["rewritten"]),
        )
        best = kept_provenance(trace, layout)
        worst = of_incorrect(trace, layout.made) if trace["incorrect"] is not None else None
        sides = {"small": (best, of_original(trace)), "medium": (of_original(trace), worst), "large": (best, worst)}
        for pair in pairs:
            chosen, rejected = sides[pair["gap"]]
            yield pair | {"provenance": {"chosen": chosen, "rejected": rejected}}


def rejected_rows(traces):
    for trace in traces:
        if trace["outcome"] != "kept":
            yield {key: trace[key] for key in ("id", "outcome", "reason", "level", "problem", "answer", "reasoning")}


def original_rows(traces, layout):
    """Every input chain as it came: the "SFT" row of Table 2 and Table 6."""
    return (original_row(trace, layout) for trace in traces)


def level_rows(traces, layout, level, chosen):
    """The original chains of one level (Table 5). chosen: ids, or None for all."""
    for trace in traces:
        if trace["level"] == level and (chosen is None or trace["id"] in chosen):
            yield original_row(trace, layout)


def ablation_rows(traces, layout, stages):
    """Table 6. "c": original chains rated medium; "cr": those, and every first rewrite, unverified."""
    for trace in traces:
        if trace["level"] == "medium":
            yield original_row(trace, layout)
        elif stages == "cr" and (step := first_rewrite(trace)):
            where = of_rewrite(trace, step, layout.made)
            yield sft_row(trace, step["text"], trace["level"] + "*", step["round"], layout, where)


def level_sample(ids_by_level, size, seed):
    """{level: ids or None}: equally many ids of each level, drawn with `seed` (Table 5: 10,000). "min": as many as the
    smallest level has; None: all."""
    if size is None:
        return dict.fromkeys(LEVELS)
    size = min(len(ids) for ids in ids_by_level.values()) if size == "min" else size
    draw = {level: random.Random(f"{seed}/{level}") for level in LEVELS}
    return {level: set(draw[level].sample(ids, min(size, len(ids)))) for level, ids in ids_by_level.items()}


def write_outputs(out, cfg, made, source):
    """Everything that follows from out/traces.jsonl, in its order. Returns the report.

    cfg: build_crv.py's configuration. made: provenance.made_with. source: {"problems": N, "sha256": …}, for the report.
    Raises UserError unless there is one trace for each of the N problems.
    """
    layout = Layout(cfg.response_style, cfg.rejected_answer, cfg.system, cfg.instruction, made)

    def traces():
        return (trace for _, trace in iter_jsonl(out / "traces.jsonl"))

    tally = Tally()
    for trace in traces():
        tally.add(trace, list(pair_rows([trace], layout)))
    tally.check(source["problems"], out)
    report = {"input": source, "made_with": made} | tally.result()
    report["cost"] = cost(report["calls"], made["prices"])
    chosen = level_sample(tally.ids, cfg.level_size, cfg.seed)
    files = {
        "sft": sft_rows,
        "pairs": pair_rows,
        "rejected": lambda traces, layout: rejected_rows(traces),
        "sft_original": original_rows,
        **{f"sft_{level}": functools.partial(level_rows, level=level, chosen=chosen[level]) for level in LEVELS},
        "sft_c": functools.partial(ablation_rows, stages="c"),
    }
    if cfg.stages != "c":
        files["sft_cr"] = functools.partial(ablation_rows, stages="cr")
    places, samples = set(sample(tally.strata, SAMPLES, cfg.seed)), []
    with contextlib.ExitStack() as stack:  # all files in one pass: the traces of a large run are tens of gigabytes
        writers = {name: stack.enter_context(jsonl_writer(out / f"{name}.jsonl")) for name in files}
        for place, trace in enumerate(traces()):
            samples += [trace] if place in places else []
            for name, rows in files.items():
                for row in rows([trace], layout=layout):
                    writers[name](row)
    write_text(out / "report.html", render(report, tally.lengths, samples, Path(cfg.problems).stem))
    write_text(out / "report.json", json.dumps(report, indent=2) + "\n")  # the last one: with it, a run is finished
    return report


def cost(calls, prices):
    """{agent: cost so far}; empty where no endpoint has a price."""
    return {
        agent: round(sum(count[f"{kind}_tokens"] * price for kind, price in prices[agent].items()) / 1e6, 6)
        for agent, count in calls.items()
        if count and any(prices[agent].values())
    }
