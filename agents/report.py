"""report.html: what a run did, for a person (pages/page.py).

Numbers are of all problems; the browser for single ones holds a seeded sample, so that the page stays small.
"""

import html
from itertools import islice
from pathlib import Path

from agents import figures
from pages.page import cell, fill, in_turn, number, pack, table

SHOWN = ("id", "problem", "answer", "reasoning", "level", "outcome", "reason", "origin", "rounds", "rewritten",
         "incorrect")  # fmt: skip


def render(report, lengths, samples, title):
    """The page, a str. report: report.json. lengths: {name: [characters]} (agents/tally.py). samples: traces."""
    problems = report["problems"]
    total_cost = sum(report["cost"].values())
    tokens = sum(c.get("prompt_tokens", 0) + c.get("completion_tokens", 0) for c in report["calls"].values())
    facts = [
        (f"{problems['input']:,}", "problems"),
        (f"{problems['kept']:,}", f"kept ({problems['kept'] / max(1, problems['input']):.0%})"),
        (f"{problems['rejected']:,}", "not kept"),
        (f"{sum(report['pairs'].values()):,}", "pairs"),
        (f"{sum(c.get('calls', 0) for c in report['calls'].values()):,}", "calls"),
        (_short(tokens), "tokens"),
        *([(f"{total_cost:,.2f}", "cost")] if total_cost else []),
    ]
    models = report["made_with"]["models"]
    slots = {
        "title": html.escape(f"CRV: {title}"),
        "subtitle": html.escape(
            "; ".join(f"{agent} {model}" for agent, model in models.items()) + f". {report['made_with']['sampling']}"
        ),
        "facts": "".join(f'<div class="fact"><b>{value}</b><span>{name}</span></div>' for value, name in facts),
        "flow": figures.flow(report),
        "levels": figures.levels(report["levels_before"], report["levels_after"]),
        "lengths": _lengths(lengths),
        "reasons": _reasons(report),
        "pairs": _pairs(report),
        "calls": _calls(report),
        "guards": _guards(report),
        "sample-note": f"{len(samples)} of {problems['input']:,} problems, drawn at random with the run's seed, from "
        "every outcome, reason and level alike. All of them are in traces.jsonl.",
        "samples": _packed(samples),
    }
    here = Path(__file__).parent
    return fill(here / "report.html", here / "report.js", slots)


def sample(strata, size, seed):
    """Places of up to `size` problems, taken in turn from all strata, so that rare outcomes are there. Sorted."""
    return sorted(islice(in_turn(strata, seed), size))


def _packed(samples):
    problems, texts = [], []
    for trace in samples:
        problem = {key: trace[key] for key in SHOWN} | {"steps": [_step(step) for step in trace["steps"]]}
        problems.append(problem)
        texts += [problem[key] for key in ("problem", "answer", "reasoning")] + [s["text"] for s in problem["steps"]]
    return pack({"problems": problems}, filter(None, texts))


def _step(step):
    keys = ("step", "mode", "round", "label", "votes", "text", "answer_check", "guard")
    kept = {key: step.get(key) for key in keys}
    failed = [call["status"] for call in step["calls"] if call["status"] != "ok"]
    return kept | ({"asked": f"asked again: {', '.join(failed)}"} if failed else {})


def _lengths(lengths):
    titles = {
        "easy": "rated easy", "medium": "rated medium", "hard": "rated hard",
        "sft": "kept for SFT", "incorrect": "incorrect",
    }  # fmt: skip
    tones = {"sft": "kept", "incorrect": "lost"}
    drawn = figures.lengths({titles[name]: (tones.get(name, name), values) for name, values in lengths.items()})
    return f'{drawn}<p class="soft">Characters, on a logarithmic axis. The first three are the input\'s own chains.</p>'


def _reasons(report):
    reasons = sorted(report["rejected_by_reason"].items(), key=lambda item: -item[1])
    if not reasons:
        return '<p class="soft">Every problem was kept.</p>'
    most = reasons[0][1]
    rows = [
        [
            cell(name.replace("_", " ")),
            number(count),
            f'<td class="barred"><div class="bar lost" style="width:{count / most:.1%}"></div></td>',
        ]
        for name, count in reasons
    ]
    problems = report["problems"]
    return table(["reason", ">problems", ""], rows) + (
        f'<p class="soft">{problems["discarded"]} discarded (the agents said no), {problems["quarantined"]} '
        f"quarantined (an agent gave no answer that could be used).</p>"
    )


def _pairs(report):
    rows = []
    for gap, count in report["pairs"].items():
        ratio = report["length_ratio"][gap]
        rows.append(
            [
                cell(gap),
                number(count),
                *(number(ratio.get(k, "–")) for k in ("chosen_over_rejected", "chosen_longer", "abs_log")),
            ]
        )
    return table(["gap", ">pairs", ">length ratio", ">chosen longer", ">mean |log ratio|"], rows) + (
        '<p class="soft">Length ratio: characters of chosen over rejected, geometric mean. Where nearly all or nearly '
        "none of the chosen are the longer ones, length alone tells the sides apart, and training may learn that.</p>"
    )


def _calls(report):
    rows = []
    for agent, count in report["calls"].items():
        failed = ", ".join(
            f"{n} {status}"
            for status, n in count.items()
            if status not in ("ok", "calls", "prompt_tokens", "completion_tokens")
        )
        cost = f"{report['cost'][agent]:,.2f}" if agent in report["cost"] else "–"
        rows.append([
            cell(agent), number(count.get("calls", 0)), number(count.get("prompt_tokens", 0)),
            number(count.get("completion_tokens", 0)), number(cost), cell(failed or "–"),
        ])  # fmt: skip
    return table(["agent", ">calls", ">prompt tokens", ">answer tokens", ">cost", "without use"], rows)


def _guards(report):
    rows = [
        [
            cell({"easy": "extending", "hard": "simplifying", "incorrect": "corrupting"}[mode]),
            cell(name),
            number(count),
        ]
        for mode, counts in report["guards"].items()
        for name, count in counts.items()
    ]
    rows += [[cell("Verifier against answer check"), cell(name.replace("_", " ")), number(count)]
             for name, count in report["verifier_conflicts"].items()]  # fmt: skip
    rows += [[cell("incorrect chains"), cell(INCORRECT.get(name, name)), number(count)]
             for name, count in report["incorrect_chains"].items()]  # fmt: skip
    return table(["where", "what", ">times"], rows)


INCORRECT = {
    "made": "made",
    "none": "problems without one",
    "tries_differs": "tries that ended in a wrong answer",
    "tries_agrees": "tries that ended in the right answer",
    "tries_none": "tries without a final answer",
    "tries_unchanged": "tries that changed nothing",
    "tries_unchecked": "tries that could not be checked (code)",
    "tries_timeout": "tries whose check took too long",
    "tries_error": "tries whose check failed",
}


def _short(number):
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
