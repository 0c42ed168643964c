"""samples.html and compare.html: the answers of an evaluation, question by question, for a person
(pages/samples.html).

Every response is listed, with its status, extracted answer and the grader's reason; their texts are there up to a size,
drawn from every benchmark and outcome in turn, and the page says how many. Of a private problem nothing is there that
could be read: no question, no text, no reason, and of answers only option letters.
"""

import re
import statistics
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from evals.assembly import Evaluation
from evals.benchmarks.common import Problem
from evals.results import Answer, Cell, compare
from grading import STATUSES
from grading.extraction import split_thought
from pages.page import in_turn, render

MEGABYTES = 24  # of response texts in a page, before compression: about a thousand of 24,000 characters
FEWEST = 5  # responses in a quarter of lengths whose share of right ones is shown
LENGTHS = {True: "right", False: "not"}
LONGEST = 300  # characters of an extracted answer; of a program the beginning will do
CHANGES = ("gained", "lost", "both right", "both wrong", "as often")


@dataclass(frozen=True)
class Item:
    """One problem. messages: as they are sent. answers: {model: [Answer, one a sample]}. change: one of CHANGES in a
    comparison."""

    problem: Problem
    messages: list | None
    answers: dict[str, list[Answer]]
    change: str = ""


def collected(run: Evaluation) -> list[Item]:
    """Return the items of what is graded. Several seeds stand one after another, labelled."""
    items, messages = [], {question.problem: question.messages for question in run.questions}
    for problem in run.problems:
        answers = {
            model: [
                replace(answer, label=f"{seed}, {at}" if len(seeds) > 1 else "")
                for seed, place in seeds.items()
                for at, answer in enumerate(run.answers[place, problem], 1)
                if answer
            ]
            for model, seeds in run.places.items()
        }
        if any(answers.values()):
            items.append(Item(problem, messages[problem], answers))
    return items


def write_samples(path: Path, title: str, items: list[Item], megabytes: float = MEGABYTES) -> None:
    """Show one run: all models, all statuses. megabytes: of texts, in million characters."""
    models = list(dict.fromkeys(model for item in items for model in item.answers))
    _write(path, title, items, models, "Right answers", megabytes)


def write_comparison(path: Path, title: str, items: list[Item], before: str, after: str) -> None:
    """Show two models (names of `answers`) on the problems that both answered: what `after` gained and lost against
    `before`.

    A problem is gained if a larger share of its responses is right, so with one response each: right now, wrong before.
    p: the paired test of evals/stats.py.
    """
    pairs = []
    for item in items:
        answers = {model: item.answers.get(model) for model in (before, after)}
        if all(answers.values()):
            pairs.append(replace(item, answers=answers, change=_change(*answers.values())))
    seen = {item.change for item in pairs}
    names = [name for name in CHANGES if name in seen or name != CHANGES[-1]]

    # a benchmark's further columns: the difference, how many problems changed in which way, the test
    columns = {}
    for benchmark, own in _grouped(pairs).items():
        old, new = (Cell({"": {item.problem.id: item.answers[model] for item in own}}) for model in (before, after))
        test, changes = compare(benchmark, after, before, new, old), Counter(item.change for item in own)
        counted = [(name, changes[name]) for name in names]
        columns[benchmark] = [f"{100 * test.difference:+.1f}", *counted, f"{test.p:.2g}"]
    heads = ("points", *names, "p")
    _write(path, title, pairs, (before, after), f"{after} against {before}", MEGABYTES, names, heads, columns)


def _change(before, after):
    """One of CHANGES, for the answers of two models to one problem."""
    old, new = (sum(answer.right for answer in answers) / len(answers) for answers in (before, after))
    if old != new:
        return "gained" if new > old else "lost"
    return {1: "both right", 0: "both wrong"}.get(new, "as often")


def _write(path, title, items, models, heading, megabytes, changes=(), heads=(), columns=None):
    """changes: the kinds of a comparison. heads, columns: what its table has beside the models, {benchmark: cells}."""
    # nothing of a private problem goes beyond this line; of the others as many texts as the page holds
    public, groups = [_public(item) for item in items], _grouped(items)
    drawn = _drawn(public, megabytes * 1e6)
    filters = {"benchmark": list(groups), "change": changes, "model": models, "status": STATUSES}
    # the table at the top, and the browser of single problems
    page = render(
        "samples.html",
        title=title,
        heading=heading,
        models=models,
        heads=heads,
        rows=[
            (benchmark, {model: _summary(own, model) for model in models}, (columns or {}).get(benchmark, ()))
            for benchmark, own in groups.items()
        ],
        statuses=STATUSES,
        problems=len(items),
        private=sum(item.problem.private for item in items),
        responses=sum(len(a) for item in items if not item.problem.private for a in item.answers.values()),
        texts=sum(map(len, drawn.values())),
        browser={
            "items": [_shown(item, place, drawn) for place, item in enumerate(public)],
            "filters": {name: values for name, values in filters.items() if values},
            "both": bool(changes),
            "search": "search in ids, questions and responses",
            "answer": "gold ",
            "absent": "This text is not in the page; it is in generations.jsonl.",
        },
    )
    Path(path).write_text(page, encoding="utf-8")


def _grouped(items):
    """{benchmark: its items}, in the order in which they occur."""
    groups = {}
    for item in items:
        groups.setdefault(item.problem.benchmark, []).append(item)
    return groups


def _summary(items, model):
    """({status: responses of a model}, lines: how long right and other responses are, and how many are right from the
    shortest quarter to the longest)."""
    answers = [answer for item in items for answer in item.answers.get(model, ())]
    seen = Counter(answer.status for answer in answers)
    lengths = sorted((answer.tokens, answer.right) for answer in answers)
    of = {kind: [tokens for tokens, right in lengths if right == kind] for kind in (True, False)}
    words = [f"{statistics.median(of[kind]):,.0f}\u00a0{word}" for kind, word in LENGTHS.items() if of[kind]]
    lines = [f"tokens: {', '.join(words)}"] if words else []
    if len(lengths) >= 4 * FEWEST:
        cuts = [len(lengths) * i // 4 for i in range(5)]
        shares = [f"{100 * statistics.fmean(right for _, right in lengths[a:b]):.0f}" for a, b in pairwise(cuts)]
        lines.append(f"by length: {'·'.join(shares)} %")
    return Counter({status: seen[status] for status in STATUSES}), lines


# --- items of the browser ---


def _public(item):
    """The item without what may not be shown of it."""
    if not item.problem.private:
        return item
    answers = {
        model: [replace(answer, extracted=_letter(answer.extracted), detail="") for answer in answers]
        for model, answers in item.answers.items()
    }
    problem = replace(item.problem, question="", gold=_letter(item.problem.gold))
    return replace(item, problem=problem, messages=None, answers=answers)


def _letter(answer):
    return answer if re.fullmatch("[A-Z]", answer or "") else None


def _drawn(items, characters):
    """{(place of item, number of sample): {model: text}} of what goes into the page; only that much is read."""
    strata, drawn, used = {}, {}, 0
    for place, item in enumerate(items):
        for at in range(0 if item.problem.private else max(map(len, item.answers.values()))):
            statuses = [answers[at].status for answers in item.answers.values() if at < len(answers)]
            strata.setdefault((item.problem.benchmark, *statuses), []).append((place, at))
    for place, at in in_turn(strata, 0):
        answers = items[place].answers
        texts = {model: found[at].made()["text"] for model, found in answers.items() if at < len(found)}
        used += sum(map(len, texts.values()))
        if used > characters:
            break
        drawn[place, at] = texts
    return drawn


def _shown(item, place, drawn):
    """What the browser shows of a public item: a column a model, a card a response (pages/page.py)."""
    columns, problem = [], item.problem
    for model, answers in item.answers.items():
        if not answers:
            continue
        cards = [_card(answer, drawn.get((place, at), {}).get(model)) for at, answer in enumerate(answers)]
        right = sum(answer.right for answer in answers)
        column = {"title": model, "cards": cards, "right": right / len(cards)}
        column["tokens"] = sum(answer.tokens for answer in answers) / len(cards)
        if there := [answer for at, answer in enumerate(answers) if (place, at) in drawn]:
            column["prompt"] = there[0].made().get("prompt")
        if len(cards) > 1:
            column |= {"mark": f"{right}/{len(cards)}", "note": f"{right}/{len(cards)} right"}
        columns.append(column)
    shown = {"id": f"{problem.benchmark}/{problem.id}", "text": problem.question, "answer": problem.gold,
             "why": problem.id, "benchmark": problem.benchmark, "columns": columns}  # fmt: skip
    if problem.private:
        shown["absent"] = "Not shown: this benchmark is private."
    if item.messages:
        shown["prompt"] = item.messages
    if item.change:
        shown |= {"change": item.change, "chips": [(item.change, item.change)]}
    return shown


def _card(answer, text):
    """text: of the response, or None; the thought and what follows it apart, as the grader reads them."""
    card = {key: value for key in ("label", "status", "detail") if (value := getattr(answer, key))}
    card["fact"] = f"{answer.tokens:,} tokens, finish reason: {answer.finish_reason}"
    card["answer"] = said = answer.extracted
    if said and len(said) > LONGEST:
        card["answer"] = f"{said[:LONGEST]}… ({len(said):,} characters)"
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
