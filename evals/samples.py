"""samples.html and compare.html: the answers of an evaluation, question by question, for a person
(pages/samples.html).

Every response is listed, with its status, extracted answer and the grader's reason; their texts are there up to a size,
drawn from every benchmark and outcome in turn, and the page says how many. Of a private problem nothing is there that
could be read: no question, no text, no reason, and of answers only option letters.

An item is one problem: {"benchmark", "problem_id", "question", "gold", "private", "messages": as they are sent, "runs":
{model: [a sample: {"status", "extracted", "detail", "tokens", "finish_reason", "text" and "prompt": functions that read
them}, …]}}. prompt: what the model's template made of the messages, None where that is a server's affair. A sample may
have a "label".
"""

import re
import statistics
from collections import Counter
from itertools import pairwise
from pathlib import Path

from evals.cells import Evaluation
from evals.stats import sign_flip
from grading import STATUSES
from grading.extraction import split_thought
from pages.page import in_turn, render

MEGABYTES = 24  # of response texts in a page, before compression: about a thousand of 24,000 characters
FEWEST = 5  # responses in a quarter of lengths whose share of right ones is shown
LENGTHS = {True: "right", False: "not"}
LONGEST = 300  # characters of an extracted answer; of a program the beginning will do
SORTS = {"-tokens": "longest first", "tokens": "shortest first"}
SORTS |= {"right": "fewest right first, by who was", "-right": "most right first, by who was"}
READ = "Tokens: medians. By length: how many are right, from the shortest quarter of the responses to the longest."
CHANGES = ("gained", "lost", "both right", "both wrong", "as often")


def collected(run: Evaluation) -> list[dict]:
    """Return the items of what is graded. Several seeds stand one after another, labelled."""
    items, messages = [], {question.problem: question.messages for question in run.questions}
    for problem in run.problems:
        item = {"messages": messages[problem]}
        item |= {key: getattr(problem, key) for key in ("benchmark", "question", "gold", "private")}
        runs = {
            model: [
                response | ({"label": f"{seed}, {at}"} if len(seeds) > 1 else {})
                for seed, place in seeds.items()
                for at, response in enumerate(run.responses[place, problem], 1)
                if response
            ]
            for model, seeds in run.places.items()
        }
        items.append(item | {"problem_id": problem.id, "runs": runs})
    return [item for item in items if any(item["runs"].values())]


def write_samples(path: Path, title: str, items: list[dict], megabytes: float = MEGABYTES) -> None:
    """Show one run: all models, all statuses. megabytes: of texts, in million characters."""
    models = list(dict.fromkeys(model for item in items for model in item["runs"]))
    rows = [
        (benchmark, {model: (_count(own, model), _lengths(own, model)) for model in models}, ())
        for benchmark, own in _grouped(items)
    ]
    _write(path, title, items, megabytes, heading="Right answers", models=models, heads=(), rows=rows)


def write_comparison(path: Path, title: str, items: list[dict], before: str, after: str) -> None:
    """Show two models (names of `runs`) on the problems that both answered: what `after` gained and lost against
    `before`.

    A problem is gained if a larger share of its responses is right, so with one response each: right now, wrong before.
    p: the paired test of evals/stats.py.
    """
    pairs = []
    for item in items:
        runs = {model: item["runs"].get(model) for model in (before, after)}
        if all(runs.values()):
            pairs.append(item | {"runs": runs, "change": _change(*runs.values())})
    seen = {item["change"] for item in pairs}
    names = [name for name in CHANGES if name in seen or name != CHANGES[-1]]

    # a row a benchmark: both models, the difference, how many problems changed in which way, the test
    rows = []
    for benchmark, own in _grouped(pairs):
        old, new = (_count(own, model) for model in (before, after))
        points = 100 * (new["correct"] / new.total() - old["correct"] / old.total())
        changes = Counter(item["change"] for item in own)
        p = sign_flip([_weigh(*item["runs"].values()) for item in own])
        numbers = [f"{points:+.1f}", *((name, changes[name]) for name in names), f"{p:.2g}"]
        counts = {before: (old, _lengths(own, before)), after: (new, _lengths(own, after))}
        rows.append((benchmark, counts, numbers))
    summary = {"heading": f"{after} against {before}", "models": (before, after), "heads": ("points", *names, "p")}
    _write(path, title, pairs, MEGABYTES, **summary, rows=rows, explained=PAIRED, changes=names)


PAIRED = (
    "On the problems that both have answered. Gained, lost: a larger, a smaller share of the responses to a problem is "
    "right than before. p: paired test, McNemar's exact one for one response a problem, else sign flips over problems."
)


def _write(path, title, items, megabytes, changes=(), explained="", **summary):
    """summary: of pages/samples.html. changes: the kinds of a comparison, whose items have a "change"."""
    public = [_public(item) for item in items]
    drawn = _drawn(public, megabytes * 1e6)
    filters = {"benchmark": [benchmark for benchmark, _ in _grouped(items)], "change": changes}
    filters |= {"model": dict.fromkeys(model for item in items for model in item["runs"]), "status": STATUSES}
    page = render(
        "samples.html",
        title=title,
        **summary,
        explained=f"{explained} {READ}".strip(),
        statuses=STATUSES,
        browser={
            "items": [_shown(item, place, drawn) for place, item in enumerate(public)],
            "filters": {name: values for name, values in filters.items() if values},
            "both": bool(changes),
            "sorts": SORTS,
            "note": _note(items, sum(map(len, drawn.values()))),
            "search": "search in ids, questions and responses",
            "answer": "gold ",
            "absent": "This text is not in the page; it is in generations.jsonl.",
        },
    )
    Path(path).write_text(page, encoding="utf-8")


def _note(items, there):
    """What is in the page, and what is not. there: responses whose texts are."""
    notes = [f"{len(items):,} problems."]
    total = sum(len(samples) for item in items if not item["private"] for samples in item["runs"].values())
    if there < total:
        notes.append(f"The texts of {there:,} of {total:,} responses are in this page, drawn at random from every "
                     "benchmark and outcome in turn; all of them are in generations.jsonl.")  # fmt: skip
    if private := sum(item["private"] for item in items):
        notes.append(f"{private:,} problems are private: their authors ask that no example is shown in plain text, so "
                     "only ids, option letters and statuses are here.")  # fmt: skip
    return " ".join(notes)


# --- items of the browser ---


def _public(item):
    """The item without what may not be shown of it."""
    if not item["private"]:
        return item
    runs = {
        model: [sample | {"extracted": _letter(sample["extracted"]), "detail": ""} for sample in samples]
        for model, samples in item["runs"].items()
    }
    return item | {"question": "", "gold": _letter(item["gold"]), "messages": None, "runs": runs}


def _letter(answer):
    return answer if re.fullmatch("[A-Z]", answer or "") else None


def _drawn(items, characters):
    """{(place of item, number of sample): {model: text}} of what goes into the page; only that much is read."""
    strata, drawn, used = {}, {}, 0
    for place, item in enumerate(items):
        for at in range(0 if item["private"] else max(map(len, item["runs"].values()))):
            statuses = [samples[at]["status"] for samples in item["runs"].values() if at < len(samples)]
            strata.setdefault((item["benchmark"], *statuses), []).append((place, at))
    for place, at in in_turn(strata, 0):
        runs = items[place]["runs"]
        texts = {model: samples[at]["text"]() for model, samples in runs.items() if at < len(samples)}
        used += sum(map(len, texts.values()))
        if used > characters:
            break
        drawn[place, at] = texts
    return drawn


def _shown(item, place, drawn):
    """What the browser shows of a public item: a column a model, a card a response (pages/page.py)."""
    columns = []
    for model, samples in item["runs"].items():
        cards = [_card(sample, drawn.get((place, at), {}).get(model)) for at, sample in enumerate(samples)]
        right = sum(sample["status"] == "correct" for sample in samples)
        column = {"title": model, "cards": cards}
        if cards:
            column |= {"right": right / len(cards), "tokens": sum(s["tokens"] for s in samples) / len(cards)}
        if there := [sample for at, sample in enumerate(samples) if (place, at) in drawn]:
            column |= {"prompt": there[0]["prompt"]()} if "prompt" in there[0] else {}
        if len(cards) > 1:
            column |= {"mark": f"{right}/{len(cards)}", "note": f"{right}/{len(cards)} right"}
        columns += [column] if cards else []
    shown = {"id": f"{item['benchmark']}/{item['problem_id']}", "text": item["question"], "answer": item["gold"],
             "why": item["problem_id"], "benchmark": item["benchmark"], "columns": columns}  # fmt: skip
    if item["private"]:
        shown["absent"] = "Not shown: this benchmark is private."
    if messages := item.get("messages"):
        shown["prompt"] = messages
    if change := item.get("change"):
        shown |= {"change": change, "chips": [(change, change)]}
    return shown


def _card(sample, text):
    """text: of the response, or None; the thought and what follows it apart, as the grader reads them."""
    card = {key: sample[key] for key in ("label", "status", "detail") if sample.get(key)}
    card["fact"] = f"{sample['tokens']:,} tokens, finish reason: {sample['finish_reason']}"
    card["answer"] = answer = sample["extracted"]
    if answer and len(answer) > LONGEST:
        card["answer"] = f"{answer[:LONGEST]}… ({len(answer):,} characters)"
    if text is not None:
        thought, said = split_thought(text)
        card |= {"thought": thought, "text": (said or "").strip()}
        # the text as it was written is these two and what stood around them: no character is in the page twice
        before, _, rest = text.partition(thought) if thought else ("", "", text)
        between, _, after = rest.partition(card["text"]) if card["text"] else (rest, "", "")
        if before + thought + between + card["text"] + after == text:
            card["around"] = [before, between, after]
        else:  # tags within the thought, which is shown without them
            card["written"] = text
    return card


# --- counts ---


def _grouped(items):
    """[(benchmark, its items)], in the order in which they occur."""
    groups = {}
    for item in items:
        groups.setdefault(item["benchmark"], []).append(item)
    return list(groups.items())


def _count(items, model):
    """{status: responses of a model}, in the order of STATUSES."""
    seen = Counter(sample["status"] for item in items for sample in item["runs"].get(model, ()))
    return Counter({status: seen[status] for status in STATUSES})


def _lengths(items, model):
    """How long right and other responses of a model are, and how many are right from the shortest quarter to the
    longest, as lines; none without a response."""
    lengths = sorted((s["tokens"], s["status"] == "correct") for item in items for s in item["runs"].get(model, ()))
    of = {kind: [tokens for tokens, right in lengths if right == kind] for kind in (True, False)}
    words = [f"{statistics.median(of[kind]):,.0f}\u00a0{word}" for kind, word in LENGTHS.items() if of[kind]]
    lines = [f"tokens: {', '.join(words)}"] if words else []
    if len(lengths) >= 4 * FEWEST:
        cuts = [len(lengths) * i // 4 for i in range(5)]
        shares = [f"{100 * statistics.fmean(right for _, right in lengths[a:b]):.0f}" for a, b in pairwise(cuts)]
        lines.append(f"by length: {'·'.join(shares)} %")
    return lines


def _weigh(before, after):
    """Right responses of `after` less those of `before`, both the samples of one problem, as an integer: over the
    product of their numbers."""
    old, new = ([sample["status"] == "correct" for sample in samples] for samples in (before, after))
    return sum(new) * len(old) - sum(old) * len(new)


def _change(before, after):
    """One of CHANGES, for the samples of one problem."""
    if difference := _weigh(before, after):
        return "gained" if difference > 0 else "lost"
    right = {sample["status"] == "correct" for sample in before + after}
    return "as often" if len(right) > 1 else "both right" if True in right else "both wrong"
