"""report.html: what a run did, for a person. One file that needs no network, no server and no other file.

Numbers are of all problems; the browser for single ones holds a seeded sample, so that the page stays small. What
models wrote is data in it: compressed, turned into text nodes by report.js, never into markup. A content security
policy lets nothing run but that script.
"""

import base64
import gzip
import hashlib
import html
import json
import random
from pathlib import Path

from agents import figures
from agents.latex import formulas, mathml

SHOWN = ("id", "problem", "answer", "reasoning", "level", "outcome", "reason", "origin", "rounds", "rewritten",
         "incorrect")  # fmt: skip


def render(report, lengths, samples, title):
    """The page, a str. report: report.json. lengths: {name: [characters]} (agents/tally.py). samples: traces."""
    here = Path(__file__).parent
    script = (here / "report.js").read_text(encoding="utf-8")
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
        "samples": base64.b64encode(gzip.compress(json.dumps(_data(samples)).encode(), mtime=0)).decode(),
        "script": script,
        "script-hash": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    page = (here / "report.html").read_text(encoding="utf-8")
    head, *rest = page.split("[[")  # once over the template: what is filled in is not searched again
    return head + "".join(slots[name] + text for name, text in (piece.split("]]", 1) for piece in rest))


def sample(strata, size, seed):
    """Places of up to `size` problems, taken in turn from all strata, so that rare outcomes are there. Sorted."""
    queues = []
    for kind in sorted(strata, key=str):
        places = list(strata[kind])
        random.Random(f"{seed}/{kind}").shuffle(places)
        queues.append(places)
    chosen = []
    while len(chosen) < size and any(queues):
        for queue in queues:
            if queue and len(chosen) < size:
                chosen.append(queue.pop())
    return sorted(chosen)


def _data(samples):
    """{"problems": […], "maths": {formula: MathML}}: a formula that many chains share is there once."""
    problems, maths = [], {}
    for trace in samples:
        problem = {key: trace[key] for key in SHOWN}
        problem["steps"] = [_step(step) for step in trace["steps"]]
        problems.append(problem)
        texts = [problem[key] for key in ("problem", "answer", "reasoning")] + [s["text"] for s in problem["steps"]]
        for text in texts:
            for key, latex, display in formulas(text or ""):
                if key not in maths:
                    maths[key] = mathml(latex, display)
    return {"problems": problems, "maths": {key: value for key, value in maths.items() if value is not None}}


def _step(step):
    keys = ("step", "mode", "round", "label", "votes", "scores", "text", "answer_check", "guard")
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
            _cell(name.replace("_", " ")),
            _number(count),
            f'<td class="barred"><div class="bar lost" style="width:{count / most:.1%}"></div></td>',
        ]
        for name, count in reasons
    ]
    problems = report["problems"]
    return _table(["reason", ">problems", ""], rows) + (
        f'<p class="soft">{problems["discarded"]} discarded (the agents said no), {problems["quarantined"]} '
        f"quarantined (an agent gave no answer that could be used).</p>"
    )


def _pairs(report):
    rows = []
    for gap, count in report["pairs"].items():
        ratio = report["length_ratio"][gap]
        rows.append(
            [
                _cell(gap),
                _number(count),
                *(_number(ratio.get(k, "–")) for k in ("chosen_over_rejected", "chosen_longer", "abs_log")),
            ]
        )
    return _table(["gap", ">pairs", ">length ratio", ">chosen longer", ">mean |log ratio|"], rows) + (
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
            _cell(agent), _number(count.get("calls", 0)), _number(count.get("prompt_tokens", 0)),
            _number(count.get("completion_tokens", 0)), _number(cost), _cell(failed or "–"),
        ])  # fmt: skip
    return _table(["agent", ">calls", ">prompt tokens", ">answer tokens", ">cost", "without use"], rows)


def _guards(report):
    rows = [
        [
            _cell({"easy": "extending", "hard": "simplifying", "incorrect": "corrupting"}[mode]),
            _cell(name),
            _number(count),
        ]
        for mode, counts in report["guards"].items()
        for name, count in counts.items()
    ]
    rows += [[_cell("Verifier against answer check"), _cell(name.replace("_", " ")), _number(count)]
             for name, count in report["verifier_conflicts"].items()]  # fmt: skip
    rows += [[_cell("incorrect chains"), _cell(INCORRECT.get(name, name)), _number(count)]
             for name, count in report["incorrect_chains"].items()]  # fmt: skip
    return _table(["where", "what", ">times"], rows)


INCORRECT = {
    "made": "made",
    "none": "problems without one",
    "tries_differs": "tries that ended in a wrong answer",
    "tries_agrees": "tries that ended in the right answer",
    "tries_none": "tries without a final answer",
    "tries_unchanged": "tries that changed nothing",
    "tries_unchecked": "tries that could not be checked (code)",
    "tries_timeout": "tries whose check took too long",
}


def _table(heads, rows):
    """heads: a leading > marks a column of numbers. rows: lists of <td>."""
    cells = "".join(f'<th class="n">{h[1:]}</th>' if h.startswith(">") else f"<th>{h}</th>" for h in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _cell(text):
    return f"<td>{html.escape(str(text))}</td>"


def _number(value):
    return f'<td class="n">{f"{value:,}" if isinstance(value, int) else html.escape(str(value))}</td>'


def _short(number):
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
