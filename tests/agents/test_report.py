"""report.html: its numbers, its sample, and the page itself in a headless browser."""

import html
import re
from collections import Counter
from dataclasses import replace

import pytest
from test_outputs import MADE, PLAIN, judged, rethought, trace

from agents.limits import EndpointConfig
from agents.outputs import pair_rows
from agents.report import render_report, sample
from agents.tally import Tally, cost
from tests.support.browser import Browser, needs_browser

EVIL = "</script><script>document.body.dataset.pwned = 1</script><img src=x onerror='document.body.dataset.pwned = 1'>"
HREF = r"$\href{javascript:document.body.dataset.pwned=1}{x^2}$"
EVERY_FORM = r"""Solve \(\frac{1}{2}x=3\), $\frac{1}{3}$, needle42, \[\frac{1}{4}\] $$\frac{1}{5}$$
\begin{align*}y&=\frac{1}{6}\\z&=1\end{align*} \boxed{7}"""
PRICES = {agent: {"prompt": 1.0, "completion": 2.0} for agent in ("critic", "rethinker", "verifier")}


def life(id, level, *, tries, kept, reason=None, **more):
    """A trace whose rewrites ended like this: tries is a list of "NO", "guard", "unchanged" or a level."""
    steps = [judged("critic", 0, level)]
    for round, end in enumerate(tries, 1):
        steps.append(rethought(level, round, f"try {round} of {id}") | ({"guard": "meta"} if end == "guard" else {}))
        if end not in ("guard", "unchanged"):
            steps.append(judged("verifier", round, "NO" if end == "NO" else "YES", answer_check="agrees"))
        if end in ("easy", "medium", "hard"):
            steps.append(judged("critic", round, end))
    outcome = {"origin": f"{level}*", "rounds": len(tries), "rewritten": f"try {len(tries)} of {id}"} if kept else {
        "outcome": "discarded", "reason": reason}  # fmt: skip
    return trace(id, level, steps=steps, **outcome) | more


TRACES = [
    trace("m1", "medium", origin="med", steps=[judged("critic", 0, "medium"), judged("verifier", 0, "YES")]),
    trace("m2", "medium", "discarded", "medium_failed_verification",
          steps=[judged("critic", 0, "medium"), judged("verifier", 0, "NO")]),
    life("e1", "easy", tries=["medium"], kept=True),
    life("e2", "easy", tries=["NO", "medium"], kept=True, problem=f"Evil {EVIL} {HREF}", reasoning=EVIL, answer=EVIL),
    life("h1", "hard", tries=["guard", "hard", "medium"], kept=True, problem=EVERY_FORM),
    life("h2", "hard", tries=["NO", "easy", "unchanged"], kept=False, reason="unchanged"),
    trace("u1", None, "quarantined", f"critic_{EVIL}", steps=[judged("critic", 0, None)])
    | {"problem": EVIL, "reasoning": f"{HREF} {EVIL}"},
]  # fmt: skip


def counted(traces):
    tally = Tally()
    for item in traces:
        tally.add(item, pair_rows(item, PLAIN, MADE))
    report = {"input": {"problems": len(traces)}, "made_with": MADE | {"prices": PRICES}} | tally.result()
    report["cost"] = cost(report["calls"], PRICES)
    return tally, report


def test_every_arrow_of_the_flow_adds_up():
    flow = counted(TRACES)[1]["flow"]
    assert flow["medium"] == {"entered": 2, "kept": 1, "lost": 1} and flow["rating"] == {"lost": 1}
    assert flow["tries"] == {
        "1": {"again": 3, "entered": 4, "guarded": 1, "kept": 1, "not_verified": 2, "rated_medium": 1, "verified": 1},
        "2": {"again": 2, "entered": 3, "kept": 1, "rated_easy": 1, "rated_hard": 1, "rated_medium": 1, "verified": 3},
        "3": {"entered": 2, "kept": 1, "lost": 1, "rated_medium": 1, "unchanged": 1, "verified": 1},
    }
    for count, following in zip(flow["tries"].values(), [*list(flow["tries"].values())[1:], {}], strict=True):
        assert count["entered"] == count["kept"] + count.get("lost", 0) + count.get("again", 0)
        assert count.get("again", 0) == following.get("entered", 0)


def drawn(traces):
    """The words of the flow."""
    tally, report = counted(traces)
    page = render_report(report, tally, [], "")
    return re.findall(r"<text[^>]*>([^<]*)</text>", page[page.index('<svg id="flow"') :])


def test_the_drawing_says_the_counts():
    said = drawn(TRACES)
    for words in (
        "2 medium", "1 as they were", "2 easy", "2 hard", "try 2: 3", "1 stopped by a guard", "2 not verified",
        "1 rated hard", "1 unchanged", "3 again", "1 given up", "4", "kept", "not kept", "1 at once",
    ):  # fmt: skip
        assert words in said, (words, said)


def test_a_rewrite_that_nobody_could_rate_stands_on_an_arrow():
    silent = life("q1", "hard", tries=["medium"], kept=False, reason="critic_invalid")
    silent["steps"][-1]["label"] = None
    assert "1 no rating" in drawn([*TRACES, silent | {"outcome": "quarantined"}])
    assert "1 no rating" not in drawn(TRACES)


def test_a_run_that_kept_nothing_is_drawn_too():
    steps = [judged("critic", 0, None)]
    said = drawn([trace(f"x{i}", None, "quarantined", f"reason_{i}", steps=steps) for i in range(7)])
    assert said[-3:] == ["1 reason 0, 1 reason 1, 1 reason 2", "1 reason 3, 1 reason 4, 1 reason 5, …", "7 at once"]
    assert "Rethinker" not in said and "Verifier" not in said


def test_cost_is_tokens_times_price():
    report = counted(TRACES)[1]
    count = report["calls"]["rethinker"]
    assert report["cost"]["rethinker"] == (count["prompt_tokens"] * 1.0 + count["completion_tokens"] * 2.0) / 1e6
    free = {agent: {"prompt": 0.0, "completion": 0.0} for agent in PRICES}
    assert cost(report["calls"], free) == {}


def test_prompt_tokens_from_a_cache_have_a_price_of_their_own():
    calls = {"critic": {"prompt_tokens": 1000, "completion_tokens": 10, "cached_tokens": 800}}
    endpoint = EndpointConfig("http://h/v1", "m", price_prompt=10, price_completion=100)
    assert cost(calls, {"critic": endpoint.prices()}) == {"critic": 0.011}
    cheaper = replace(endpoint, price_cached=1)
    assert cost(calls, {"critic": cheaper.prices()}) == {"critic": (200 * 10 + 800 * 1 + 10 * 100) / 1e6}
    assert cost(calls, {"critic": replace(cheaper, batch=True).prices()}) == {"critic": 0.0019}
    assert cost(calls, {"critic": replace(cheaper, batch=True, price_batch=0.2).prices()}) == {"critic": 0.00076}


def test_the_sample_has_something_of_everything():
    strata = {("kept", "medium"): range(1000), ("kept", "easy"): range(1000, 1990), ("discarded", "x"): [1990, 1991]}
    chosen = sample(strata, 20, 0)
    assert len(chosen) == 20 == len(set(chosen)) and chosen == sorted(chosen) == sample(strata, 20, 0)
    assert {1990, 1991} < set(chosen) and chosen != sample(strata, 20, 1)
    assert Counter(place < 1000 for place in chosen if place < 1990) == {True: 9, False: 9}
    assert sample({"a": [3, 1]}, 20, 0) == [1, 3]


# --- in the browser ---


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    tally, report = counted(TRACES)
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(report, tally, TRACES, f"problems {EVIL}"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def opened(page, tmp_path_factory):
    """view -> the page's elements after its script has run, and what it said on the console."""
    browser = Browser(tmp_path_factory.mktemp("profile"))

    def opened(view=""):
        browser.open(page, view)
        assert browser.asked == [page.as_uri()]  # nothing from elsewhere
        return browser.run("document.documentElement.outerHTML"), browser.said

    yield opened
    browser.close()


def listed(dom):
    return re.findall(r'<span class="why">(\w+) ·', dom)


@needs_browser
def test_the_page_in_a_browser(opened):
    dom, console = opened()
    assert not console
    assert len(listed(dom)) == len(TRACES) and "7 of 7" in dom
    assert "://" not in dom and not re.search(r"<link|<script[^>]* src|url\((?!#tip)", dom)  # nothing from elsewhere
    assert re.search(r'class="chain medium".*Original.*Critic: medium', dom, re.S)  # the first problem is open


@needs_browser
@pytest.mark.parametrize(("view", "id"), [("search=evil", "e2"), ("outcome=quarantined", "u1")])
def test_model_text_stays_text(opened, view, id):
    dom, console = opened(view)
    assert listed(dom) == [id] and not console
    assert "pwned" in dom and "data-pwned" not in dom and "<img" not in dom  # shown, and never run
    assert dom.count("<script") == 2 and "<msup>" in dom  # ours; and the rest of that formula is rendered
    assert html.escape(EVIL, quote=False) in dom


@needs_browser
@pytest.mark.parametrize(
    ("view", "ids"),
    [
        ("outcome=kept", ["m1", "e1", "e2", "h1"]),
        ("outcome=kept&level=easy", ["e1", "e2"]),
        ("reason=unchanged", ["h2"]),
        ("search=NEEDLE42", ["h1"]),
        ("search=try+3&outcome=discarded", ["h2"]),
        ("search=nowhere", []),
    ],
)
def test_filters(opened, view, ids):
    assert listed(opened(view)[0]) == ids


@needs_browser
def test_every_try_is_beside_the_others(opened):
    dom = opened("search=needle42")[0]
    columns = re.findall(r'<div class="chain [^"]*"><header><b>([^<]*)</b>', dom)
    assert columns == ["Original", "Try 1: simplified", "Try 2: simplified", "Try 3: simplified, kept"]
    chips = re.findall(r'<span class="chip[^"]*">([^<]*)</span>', dom)
    for chip in ("Critic: hard", "guard: meta", "Verifier: YES", "answer agrees", "Critic: medium", "kept as hard*"):
        assert chip in chips
    problem = re.search(r'<div class="problem">(.*?)</div>', dom, re.S)[1]
    assert problem.count("<mfrac>") == 5 and problem.count("boxed") == 1 and "\\frac" not in problem
    assert "<mark>needle42</mark>" in problem
