"""samples.html and compare.html: the answers of an evaluation, question by question, for a person (pages/page.py).

Every response is listed, with its status, extracted answer and the grader's reason; their texts are there up to a size,
drawn from every benchmark and outcome in turn, and the page says how many. Of a private problem nothing is there that
could be read: no question, no text, no reason, and of answers only option letters.

An item is one problem: {"benchmark", "problem_id", "question", "gold", "private", "runs": {model: [a sample: {"status",
"extracted", "detail", "tokens", "finish_reason", "text": a function that reads it}, …]}}. A sample may have a "label".
"""

import html
import re
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode

from evals.stats import sign_flip
from grading import STATUSES
from grading.extraction import split_thought
from pages.page import cell, fill, in_turn, number, pack, table

MEGABYTES = 24  # of response texts in a page, before compression: about a thousand of 24,000 characters
LONGEST = 300  # characters of an extracted answer; of a program the beginning will do
SHOWN = ("label", "status", "extracted", "detail", "tokens", "finish_reason")
CHANGES = ("gained", "lost", "both right", "both wrong", "as often")


def collected(problems, places, wanted, keys, generations, grades):
    """The items of what is graded; arguments as in evals/cells.py. Several seeds stand one after another, labelled."""
    graded = {}  # (place, problem) -> its samples
    for want in wanted:
        if want.key in generations and (key := keys[want.key, want.problem]) in grades:
            made, grade = generations[want.key], grades[key]
            about = {key: made[key] for key in ("tokens", "finish_reason")}
            about |= {key: grade[key] for key in ("status", "extracted", "detail")}
            about["text"] = lambda key=want.key: generations[key]["text"]
            graded.setdefault((want.place, want.problem), []).append((want.sample + 1, about))
    items = []
    for problem in problems:
        item = {key: getattr(problem, key) for key in ("benchmark", "question", "gold", "private")}
        runs = {
            model: [
                about | ({"label": f"{seed}, {at}"} if len(seeds) > 1 else {})
                for seed, place in seeds.items()
                for at, about in graded.get((place, problem), ())
            ]
            for model, seeds in places.items()
        }
        items.append(item | {"problem_id": problem.id, "runs": runs})
    return [item for item in items if any(item["runs"].values())]


def write_samples(path, title, items, megabytes=MEGABYTES, seed=0):
    """One run: all models, all statuses. megabytes: of texts, in million characters; seed: of which texts."""
    benchmarks, models = _names(items)
    rows = [
        [cell(benchmark), *(_right(_count(items, benchmark, model), benchmark, model) for model in models)]
        for benchmark in benchmarks
    ]
    _write(path, title, "Right answers", table(["", *map(html.escape, models)], rows), items, megabytes, seed)


def write_comparison(path, title, items, before, after, megabytes=MEGABYTES, seed=0):
    """Two models (names of `runs`) on the problems that both answered: what `after` gained and lost against `before`.

    A problem is gained if a larger share of its responses is right, so with one response each: right now, wrong before.
    p: the paired test of evals/stats.py.
    """
    pairs = [
        item
        | {"runs": {model: item["runs"][model] for model in (before, after)}, "change": _change(item, before, after)}
        for item in items
        if item["runs"].get(before) and item["runs"].get(after)
    ]
    changes = Counter((item["benchmark"], item["change"]) for item in pairs)
    names = CHANGES if any(change == CHANGES[-1] for _, change in changes) else CHANGES[:-1]
    rows = []
    for benchmark in _names(pairs)[0]:
        old, new = (_count(pairs, benchmark, model) for model in (before, after))
        points = 100 * (new["correct"] / new.total() - old["correct"] / old.total())
        p = sign_flip([_weigh(item, before, after) for item in pairs if item["benchmark"] == benchmark])
        rows.append(
            [cell(benchmark), _right(old, benchmark, before), _right(new, benchmark, after), number(f"{points:+.1f}")]
            + [_changed(changes[benchmark, name], benchmark, name) for name in names]
            + [number(f"{p:.2g}")]
        )
    heads = ["", *map(html.escape, (before, after)), ">points", *(f">{name}" for name in names), ">p"]
    _write(path, title, f"{after} against {before}", table(heads, rows), pairs, megabytes, seed, PAIRED)


PAIRED = (
    "On the problems that both have answered. Gained, lost: a larger, a smaller share of the responses to a problem is "
    "right than before. p: paired test, McNemar's exact one for one response a problem, else sign flips over problems."
)


def _write(path, title, heading, summary, items, megabytes, seed, explained=""):
    """explained: what the numbers of a comparison mean; its items have a "change"."""
    benchmarks, models = _names(items)
    public, texts = [_public(item) for item in items], []
    drawn = _drawn(public, megabytes * 1e6, seed)
    for place, item in enumerate(public):
        item["runs"] = {
            model: [_response(sample, drawn.get((place, at), {}).get(model)) for at, sample in enumerate(samples)]
            for model, samples in item["runs"].items()
            if samples
        }
        responses = [response for samples in item["runs"].values() for response in samples]
        texts += [item["question"], *(response.get(key) for response in responses for key in ("thought", "text"))]
        answers = {item["gold"], *(response["extracted"] for response in responses)} - {None}
        texts += [f"${answer}$" for answer in answers if re.search(r"[\\^_]", answer)]  # written without dollars
    notes = [f"{len(items):,} problems."]
    there = sum(map(len, drawn.values()))
    total = sum(len(samples) for item in items if not item["private"] for samples in item["runs"].values())
    if there < total:
        notes.append(f"The texts of {there:,} of {total:,} responses are in this page, drawn with seed {seed} from "
                     "every benchmark and outcome in turn; all of them are in generations.jsonl.")  # fmt: skip
    if private := sum(item["private"] for item in items):
        notes.append(f"{private:,} problems are private: their authors ask that no example is shown in plain text, so "
                     "only ids, option letters and statuses are here.")  # fmt: skip
    data = {"items": public, "benchmarks": benchmarks, "models": models, "statuses": STATUSES}
    data |= {"changes": CHANGES} if explained else {}
    filters = ["benchmark", *(["change"] if explained else []), "model", "status"]
    slots = {
        "title": html.escape(title),
        "heading": html.escape(heading),
        "summary": summary,
        "explained": explained,
        "legend": "".join(f'<span class="chip {name}">{name.replace("_", " ")}</span>' for name in STATUSES),
        "note": html.escape(" ".join(notes)),
        "filters": "".join(f'<select id="{name}" aria-label="{name}"></select>' for name in filters),
        "samples": pack(data, filter(None, texts)),
    }
    here = Path(__file__).parent
    Path(path).write_text(fill(here / "samples.html", here / "samples.js", slots), encoding="utf-8")


def _public(item):
    """What of an item may be shown."""
    shown = {key: item[key] for key in ("benchmark", "problem_id", "private", "change") if key in item}
    if not item["private"]:
        return shown | {key: item[key] for key in ("question", "gold", "runs")}
    runs = {
        model: [sample | {"extracted": _letter(sample["extracted"]), "detail": ""} for sample in samples]
        for model, samples in item["runs"].items()
    }
    return shown | {"question": "", "gold": _letter(item["gold"]), "runs": runs}


def _letter(answer):
    return answer if re.fullmatch("[A-Z]", answer or "") else None


def _drawn(items, characters, seed):
    """{(place of item, number of sample): {model: text}} of what goes into the page; only that much is read."""
    strata, drawn, used = {}, {}, 0
    for place, item in enumerate(items):
        for at in range(0 if item["private"] else max(map(len, item["runs"].values()))):
            statuses = [samples[at]["status"] for samples in item["runs"].values() if at < len(samples)]
            strata.setdefault((item["benchmark"], *statuses), []).append((place, at))
    for place, at in in_turn(strata, seed):
        runs = items[place]["runs"]
        texts = {model: samples[at]["text"]() for model, samples in runs.items() if at < len(samples)}
        used += sum(map(len, texts.values()))
        if used > characters:
            break
        drawn[place, at] = texts
    return drawn


def _response(sample, text):
    """What the page holds of a sample: the thought and what follows it apart, as the grader reads them."""
    response = {key: sample[key] for key in SHOWN if key in sample}
    response["extracted"] = sample["extracted"] and sample["extracted"][:LONGEST]
    if text is not None:
        thought, said = split_thought(text)
        response |= {"thought": thought, "text": (said or "").strip()}
    return response


def _names(items):
    """Benchmarks and models, in the order in which they occur."""
    models = dict.fromkeys(model for item in items for model in item["runs"])
    return list(dict.fromkeys(item["benchmark"] for item in items)), list(models)


def _count(items, benchmark, model):
    """{status: responses}"""
    of_it = (item["runs"].get(model, ()) for item in items if item["benchmark"] == benchmark)
    return Counter(sample["status"] for samples in of_it for sample in samples)


def _right(count, benchmark, model):
    """A cell: k/n, the percentage, a bar of the statuses, and what became of the others. All of it links to them."""
    n = count.total()
    if not n:
        return cell("–")
    view = {"benchmark": benchmark, "model": model}
    bar = "".join(f'<i class="{s}" style="width:{count[s] / n:.2%}"></i>' for s in STATUSES if count[s])
    others = ", ".join(_link(f"{count[s]:,} {s.replace('_', ' ')}", **view, status=s) for s in STATUSES[1:] if count[s])
    right = _link(f"{count['correct']:,}/{n:,}", **view)
    percent = f"<span>{100 * count['correct'] / n:.1f} %</span>"
    return f'<td>{right} {percent}<div class="bars">{bar}</div><small>{others}</small></td>'


def _changed(count, benchmark, change):
    return f'<td class="n">{_link(f"{count:,}", benchmark=benchmark, change=change)}</td>'


def _link(text, **view):
    return f'<a href="#{html.escape(urlencode(view))}">{html.escape(str(text))}</a>'


def _weigh(item, before, after):
    """Right responses of `after` less those of `before`, as an integer: over the product of their numbers."""
    old, new = ([sample["status"] == "correct" for sample in item["runs"][model]] for model in (before, after))
    return sum(new) * len(old) - sum(old) * len(new)


def _change(item, before, after):
    """One of CHANGES."""
    difference = _weigh(item, before, after)
    if difference:
        return "gained" if difference > 0 else "lost"
    right = {sample["status"] == "correct" for samples in item["runs"].values() for sample in samples}
    return "as often" if len(right) > 1 else "both right" if True in right else "both wrong"
