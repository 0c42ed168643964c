"""samples.html and compare.html: numbers, what is drawn, what must not be there; and both in a headless browser."""

import base64
import gzip
import json
import re

import pytest

from evals.benchmarks.common import Problem
from evals.results import Answer
from evals.samples import Item, write_comparison, write_samples
from evals.stats import sign_flip
from tests.support.browser import Browser, needs_browser

EVIL = "</script><script>document.body.dataset.pwned = 1</script><img src=x onerror='document.body.dataset.pwned = 1'>"
SECRET = "Which quokka of Rottnest lactonises \\tfrac{7}{91} of its ylide? A) wombat B) numbat C) dunnart D) bilby"


def sample(status, text="so \\boxed{7}", prompt=None, **more):
    extracted = None if status in ("no_answer", "truncated") else "7"
    finish = "length" if status == "truncated" else "stop"
    return Answer(status, **{"tokens": 12, "extracted": extracted, "finish_reason": finish} | more,
                  made=lambda: {"text": text, "prompt": prompt})  # fmt: skip


def problem(benchmark, id, runs, question=None, gold="7", private=False, messages=()):
    """runs: {model: statuses, or samples}"""
    answers = {m: [sample(s) if isinstance(s, str) else s for s in samples] for m, samples in runs.items()}
    question = f"question {id}" if question is None else question
    if messages == ():
        messages = [{"role": "user", "content": f"Please: question {id}"}]
    return Item(Problem(benchmark, id, question, gold, private=private), messages, answers)


THOUGHT = sample("correct", "<think>first $\\frac{1}{2}$, needle42</think>then $\\frac{2}{3}$ is \\boxed{7}")
UNFINISHED = sample("truncated", "<think>it goes on and on")
CODE = sample(
    "wrong", "```python\nprint('$a$ $b$')\n```\nand $c$", extracted="\\frac{1}{7}", detail="not equal: why not"
)
ITEMS = [
    problem("AIME", "a1", {"sft": ["wrong"], "cogpo": [THOUGHT]}, question="Solve \\(\\frac{1}{2}x=3\\)."),
    problem("AIME", "a2", {"sft": [UNFINISHED], "cogpo": ["correct"]}),
    problem("AIME", "a3", {"sft": ["correct"], "cogpo": ["no_answer"]}),
    problem("AIME", "a4", {"sft": ["correct"], "cogpo": ["correct"]}),
    problem("MATH", "m1", {"sft": ["correct", "wrong", "correct", "timeout"], "cogpo": ["correct"] * 4}),
    problem("MATH", "m2", {"sft": ["wrong"] * 4, "cogpo": [CODE, *["wrong"] * 3]}),
    problem("MATH", "m3", {"sft": ["correct", "wrong"] * 2, "cogpo": ["wrong", "correct"] * 2}),
    problem("MATH", "m4", {"sft": [], "cogpo": ["correct"] * 4}),
    problem("Evil", "e1", {"sft": [sample("wrong", EVIL, extracted=EVIL, detail=EVIL)], "cogpo": ["wrong"]},
            question=f"{EVIL} $\\href{{javascript:1}}{{x^2}}$"),
    problem("GPQA", "rec1", {"sft": [sample("wrong", SECRET, extracted="B", detail=SECRET)],
                             "cogpo": [sample("correct", f"<think>{SECRET}</think>{SECRET}", extracted="C")]},
            question=SECRET, gold="C", private=True, messages=[{"role": "user", "content": SECRET}]),
    problem("GPQA", "rec2", {"sft": [sample("wrong", SECRET, extracted=SECRET, prompt=SECRET)]},
            question=SECRET, gold=SECRET, private=True),
]  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    write_samples(folder / "samples.html", f"Samples {EVIL}", ITEMS)
    write_comparison(folder / "compare.html", "Comparison", ITEMS, "sft", "cogpo")
    return folder


def unpacked(path):
    packed = re.search(r'<script id="samples" type="text/plain">([^<]*)</script>', path.read_text())[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_counts_are_those_of_the_answers(pages):
    html = (pages / "samples.html").read_text()
    said = re.findall(r'<a href="#benchmark=(\w+)&amp;model=(\w+)">(\d+/\d+)</a> <span class="soft">([\d.]+) %', html)
    assert said == [
        ("AIME", "sft", "2/4", "50.0"), ("AIME", "cogpo", "3/4", "75.0"),
        ("MATH", "sft", "4/12", "33.3"), ("MATH", "cogpo", "10/16", "62.5"),
        ("Evil", "sft", "0/1", "0.0"), ("Evil", "cogpo", "0/1", "0.0"),
        ("GPQA", "sft", "0/2", "0.0"), ("GPQA", "cogpo", "1/1", "100.0"),
    ]  # fmt: skip
    assert re.search(r"model=sft&amp;status=timeout\">1 timeout", html) and "11 problems." in html
    parts = re.findall(r'<div class="bars "><i (.*?)</div>', html)[2]  # of MATH and sft, in the order of the legend
    assert re.findall(r'class="(\w+)" style="flex:(\d+)"', parts) == [
        ("correct", "4"),
        ("wrong", "7"),
        ("timeout", "1"),
    ]


def test_the_comparison_says_what_was_gained_and_lost(pages):
    html = (pages / "compare.html").read_text()
    rows = {row[0]: row[1:] for row in (re.findall(r">([^<>]+)<", line) for line in html.split("<tr>")[2:])}
    assert rows["AIME"][-7:-1] == ["+25.0", "2", "1", "1", "0", "0"] and f"{sign_flip([-1] + [1] * 2):.2g}" == "1"
    assert rows["MATH"][-7:-1] == ["+16.7", "1", "0", "0", "1", "1"]  # m4 has no answer of sft: not compared
    uneven = [problem("AIME", "u", {"sft": ["correct"], "cogpo": ["correct", "correct", "wrong"]})]
    write_comparison(pages / "uneven.html", "Uneven", uneven, "sft", "cogpo")
    assert unpacked(pages / "uneven.html")["items"][0]["change"] == "lost"
    six = [problem("AIME", f"s{i}", {"sft": ["wrong"], "cogpo": ["correct"]}) for i in range(6)]
    write_comparison(pages / "six.html", "Six", six, "sft", "cogpo")
    html = (pages / "six.html").read_text()
    assert '<td class="n">0.031</td></tr>' in html and "as often" not in html.split("<script")[0]


def test_a_third_model_is_not_counted_in_a_comparison(tmp_path):
    items = [problem("AIME", f"t{i}", {"a": ["wrong"], "b": ["correct"], "c": ["correct"]}) for i in range(3)]
    items.append(problem("AIME", "t3", {"a": ["correct"], "b": ["wrong"], "c": ["correct"]}))
    write_comparison(tmp_path / "two.html", "Two", items, "b", "c")
    assert [item["change"] for item in unpacked(tmp_path / "two.html")["items"]] == ["both right"] * 3 + ["gained"]
    assert "as often" not in (tmp_path / "two.html").read_text().split("<script")[0]


def test_of_a_private_problem_nothing_can_be_read(pages):
    for name in ("samples.html", "compare.html"):
        everything = (pages / name).read_text() + json.dumps(unpacked(pages / name))
        for text in (SECRET, json.dumps(SECRET)):
            pieces = {text[at : at + 8] for at in range(len(text) - 8)}
            assert not [piece for piece in pieces if piece in everything]
        assert "are private: their authors ask" in everything
    kept = {item["id"]: item for item in unpacked(pages / "samples.html")["items"] if item["benchmark"] == "GPQA"}
    first, second = kept["GPQA/rec1"], kept["GPQA/rec2"]
    assert first["answer"] == "C" and second["answer"] is None  # a letter says nothing, a text would
    (card,) = first["columns"][0]["cards"]
    assert card == {"status": "wrong", "answer": "B", "fact": "12 tokens, finish reason: stop"}
    assert second["columns"][0]["cards"][0]["answer"] is None


def test_a_page_has_a_size_and_says_what_it_leaves_out(tmp_path):
    items = [problem("AIME", f"r{i}", {"sft": [sample("correct", "x" * 1000)]}) for i in range(100)]
    items += [problem("MATH", f"w{i}", {"sft": [sample("wrong", "x" * 1000)]}) for i in range(3)]
    items += [problem("MATH", "many", {"sft": [sample("correct", "x" * 1000) for _ in range(64)]})]
    write_samples(tmp_path / "a.html", "A", items, megabytes=0.02)
    write_samples(tmp_path / "b.html", "A", items, megabytes=0.02)
    a, b = (unpacked(tmp_path / f"{name}.html")["items"] for name in "ab")
    there = [(item["why"], "text" in card) for item in a for card in item["columns"][0]["cards"]]
    assert len(there) == 167 and sum(has for _, has in there) == 20  # every response is listed
    assert all(has for id, has in there if id[0] == "w")  # rare outcomes first
    assert 7 <= sum(has for id, has in there if id[0] == "r") <= 9
    assert "The texts of 20 of 167 responses are in this page" in (tmp_path / "a.html").read_text()
    assert a == b


# --- in the browser ---


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def opened(pages, browser):
    """(page, view) -> the browser with that page, which asked for nothing else and has nothing on its console."""

    def opened(name, view=""):
        browser.open(pages / name, view)
        return browser

    yield opened
    assert len(browser.asked) == 1 and browser.asked[0].startswith("file://") and not browser.said


def listed(browser):
    return browser.run("[...document.querySelectorAll('#list button')].map(b => b.item?.why)")


def at(browser):
    return browser.run("document.querySelector('#list [aria-current]')?.item.why")


def texts(browser, selector):
    return browser.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)")


@needs_browser
@pytest.mark.parametrize(
    ("name", "view", "ids"),
    [
        ("samples.html", "", [item.problem.id for item in ITEMS]),
        ("samples.html", "benchmark=AIME", ["a1", "a2", "a3", "a4"]),
        ("samples.html", "benchmark=MATH&model=sft", ["m1", "m2", "m3"]),
        ("samples.html", "status=wrong&benchmark=AIME", ["a1"]),
        ("samples.html", "status=wrong&model=cogpo&benchmark=MATH", ["m2", "m3"]),
        ("samples.html", "status=truncated", ["a2"]),
        ("samples.html", "status=no_answer", ["a3"]),
        ("samples.html", "status=timeout", ["m1"]),
        ("samples.html", "search=NEEDLE42", ["a1"]),
        ("samples.html", "search=question+m3", ["m3"]),
        ("samples.html", "search=nowhere", []),
        ("samples.html", "status=wrong&benchmark=GPQA", ["rec1", "rec2"]),
        ("compare.html", "change=gained", ["a1", "a2", "m1", "rec1"]),
        ("compare.html", "change=lost", ["a3"]),
        ("compare.html", "change=both+right", ["a4"]),
        ("compare.html", "change=both+wrong", ["m2", "e1"]),
        ("compare.html", "change=as+often", ["m3"]),
        ("compare.html", "change=gained&benchmark=MATH", ["m1"]),
    ],
)
def test_filters(opened, name, view, ids):
    browser = opened(name, view)
    assert listed(browser) == ids
    assert browser.run("document.getElementById('count').textContent").startswith(f"{len(ids)} of ")


@needs_browser
def test_links_of_the_table_and_of_a_problem(opened):
    browser = opened("samples.html", "at=MATH/m2")
    assert at(browser) == "m2" and len(listed(browser)) == len(ITEMS)
    browser.run("document.querySelector('td a[href*=timeout]').click()")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert listed(browser) == ["m1"] and texts(browser, ".chain > header > b") == ["sft"]


@needs_browser
def test_keys_go_to_the_next_and_the_previous(opened):
    browser = opened("samples.html", "benchmark=AIME")
    seen = [at(browser)]
    for key in "jjjjk":
        browser.press(key)
        seen.append(at(browser))
    assert seen == ["a1", "a2", "a3", "a4", "a4", "a3"]
    browser.press("/")
    for key in "j/k":
        browser.press(key)
    assert browser.run("document.getElementById('search').value") == "j/k" and listed(browser) == []


@needs_browser
def test_formulas_thought_and_answer(opened):
    browser = opened("samples.html", "at=AIME/a1&model=cogpo")
    assert browser.run("document.querySelector('.problem math mfrac') !== null")
    assert texts(browser, ".chain summary") == ["thought, 29 characters", "as written, 75 characters"]
    assert browser.run("document.querySelectorAll('.text math').length") == 2  # of the answer; the thought is folded
    assert "needle42" not in texts(browser, ".text")[0] and "think>" not in texts(browser, ".text")[0]
    browser.run("document.querySelector('.chain summary').click(); new Promise(done => setTimeout(done, 100))")
    assert browser.run("document.querySelectorAll('.text math').length") == 3
    browser = opened("samples.html", "search=needle42")
    assert texts(browser, "details[open] mark") == ["needle42"]  # found in a thought: it is open
    browser = opened("samples.html", "at=AIME/a2&model=sft")
    assert texts(browser, "details[open]") == ["thought, 17 characters, unfinishedit goes on and on"]
    assert texts(browser, ".chain .answer") == ["extracted nothing"]


@needs_browser
def test_code_keeps_its_dollars_and_a_bare_answer_is_a_formula(opened):
    browser = opened("samples.html", "at=MATH/m2&model=cogpo")
    assert texts(browser, ".text code") == ["```python\nprint('$a$ $b$')\n```"]
    assert browser.run("document.querySelectorAll('.text math').length") == 1
    assert browser.run("document.querySelectorAll('.chain .answer mfrac').length") == 1
    assert texts(browser, ".chain .answer code") == ["\\frac{1}{7}"]  # as it was extracted, beside the formula
    assert texts(browser, ".chain .answer")[1] == "not equal: why not"


@needs_browser
@pytest.mark.parametrize(
    "text",
    [
        " <think>\nfirst $\\frac{1}{2}$\n</think>\n\nso 7 \n",
        "<think>7</think>7",
        "<think>one</think>two</think>three",
        "<think>it goes on",
        "no 𝒳 thought\u00a0",
        "",
    ],
)
def test_text_and_prompt_stand_there_as_they_were(browser, tmp_path, text):
    prompt = "<|im_start|>user\n$\\frac{1}{2}$ <b>?<|im_end|>\n"
    items = [problem("AIME", "x", {"sft": [sample("wrong", text, prompt=prompt)]}, question="$\\frac{1}{2}$")]
    items += [problem("AIME", "y", {"sft": [sample("wrong", "other")]}, messages=None)]
    write_samples(tmp_path / "raw.html", "Raw", items)
    browser.open(tmp_path / "raw.html", "at=AIME/x")
    browser.run("document.querySelectorAll('details:not([open]) > summary').forEach(s => s.click())")
    browser.run("new Promise(done => setTimeout(done, 100))")
    assert texts(browser, ".written code") == [text]
    assert texts(browser, ".prompt code") == [prompt]
    assert texts(browser, ".sent") == ["messages as sentuser Please: question x"]
    browser.press("j")  # what is open stays open, from one problem to the next
    assert texts(browser, ".written[open] code") == ["other"]
    assert texts(browser, ".sent[open]") == ["as written question y"] and not browser.said


@needs_browser
@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("12", "12"),
        ("\\text{12}", "\\text{12}12"),
        ("x\u20111", "x\\u{2011}1"),
        ("1\u00a0000\u200b", "1\\u{a0}000\\u{200b}"),
        ("-3 a", "-3 a"),
        ("```python\nx\n```", "```python\nx\n```"),
    ],
)
def test_gold_and_extracted_are_told_apart_where_they_look_alike(browser, tmp_path, written, shown):
    items = [problem("AIME", "x", {"sft": [sample("wrong", extracted=written)]}, gold=written)]
    write_samples(tmp_path / "alike.html", "Alike", items)
    browser.open(tmp_path / "alike.html")
    said = [text.replace(" ", "", 1) for text in texts(browser, ".answer")]
    assert [text.replace("} 12", "}12") for text in said] == [f"gold{shown}", f"extracted{shown}"]


@needs_browser
def test_order_by_length_and_by_who_was_right(browser, tmp_path):
    statuses = {"a": "wc", "b": "cw", "c": "ww", "d": "wc", "e": "cc"}
    kinds, tokens = {"w": "wrong", "c": "correct"}, {"a": 5, "b": 40, "c": 3, "d": 2000, "e": 100}
    items = [
        problem("AIME", id, {"sft": [sample(kinds[old])], "cogpo": [sample(kinds[new], tokens=tokens[id])]})
        for id, (old, new) in statuses.items()
    ]
    write_samples(tmp_path / "sorted.html", "Sorted", items)
    for view, order in (
        ("", "abcde"), ("sort=right", "cadbe"), ("sort=-right", "ebadc"), ("sort=-tokens", "debac"),
        ("sort=tokens&model=sft", "abcde"), ("sort=tokens&model=cogpo", "cabed"), ("sort=right&model=sft", "acdbe"),
        ("sort=-tokens&status=wrong", "dbac"),
    ):  # fmt: skip
        browser.open(tmp_path / "sorted.html", view)
        assert "".join(listed(browser)) == order, view
    browser.run("document.getElementById('sort').value = 'right', document.getElementById('sort').oninput()")
    assert browser.run("new URLSearchParams(location.hash.slice(1)).get('sort')") == "right"  # in the link, as filters


def test_length_against_correctness(tmp_path):
    """40 responses of 10, 20, … tokens; the shortest quarter right, of the second a half, then none."""
    items = [
        problem("AIME", f"q{i}", {"sft": [sample("correct" if i < 15 else "wrong", tokens=10 * i + 10)]})
        for i in range(40)
    ]
    write_samples(tmp_path / "length.html", "Length", [*items, problem("MATH", "m", {"sft": ["truncated"]})])
    lines = re.findall('<small class="small">([^<]*)</small>', (tmp_path / "length.html").read_text())
    assert lines == ["tokens: 80\u00a0right, 280\u00a0not", "by length: 100·50·0·0 %", "tokens: 12\u00a0not"]


@needs_browser
def test_disputed_verdicts_are_listed_as_json_lines(opened):
    browser = opened("samples.html", "at=MATH/m2")
    assert browser.run("document.getElementById('disputed').hidden")
    dispute = "document.querySelectorAll('header button:not(.tabs *)')"
    browser.run(f"{dispute}[1].click()")
    browser.press("j")
    browser.run(f"{dispute}[0].click()")
    browser.press("k")
    area = "document.querySelector('#disputed textarea').value"
    first, second = [json.loads(line) for line in browser.run(area).splitlines()]
    assert first == {"id": "MATH/m2", "model": "cogpo", "sample": "1", "status": "wrong", "gold": "7",
                     "extracted": "\\frac{1}{7}"}  # fmt: skip
    assert (second["id"], second["model"], second["status"]) == ("MATH/m3", "sft", "correct")
    assert browser.run(f"{dispute}[1].ariaPressed") == "true"
    browser.run(f"{dispute}[1].click()")
    assert [json.loads(line)["id"] for line in browser.run(area).splitlines()] == ["MATH/m3"]


@needs_browser
def test_many_responses_to_one_problem(opened):
    browser = opened("samples.html", "at=MATH/m1")
    assert texts(browser, ".chain > header > .soft") == ["2/4 right", "4/4 right"]
    tabs = "[...document.querySelectorAll('.chain:first-child .tabs button')]"
    assert browser.run(f"{tabs}.map(b => b.className + b.textContent)") == [
        "correct1",
        "wrong2",
        "correct3",
        "timeout4",
    ]
    browser.run(f"{tabs}[3].click()")
    assert browser.run("document.querySelector('.chain').className") == "chain timeout"
    assert browser.run(f"{tabs}.map(b => b.ariaPressed)") == ["false", "false", "false", "true"]
    browser = opened("samples.html", "at=MATH/m1&model=sft&status=timeout")  # the one that was asked for is in front
    assert browser.run(f"{tabs}.map(b => b.ariaPressed)") == ["false", "false", "false", "true"]


@needs_browser
@pytest.mark.parametrize("name", ["samples.html", "compare.html"])
def test_model_text_stays_text(opened, name):
    browser = opened(name, "benchmark=Evil")
    assert browser.run("document.body.dataset.pwned === undefined && document.querySelector('img, [onerror]') === null")
    assert browser.run("document.scripts.length") == 2 and EVIL in texts(browser, ".text")[0]
    assert EVIL in texts(browser, ".problem")[0] and EVIL in texts(browser, ".chain .answer")[1]
    assert browser.run("document.querySelectorAll('.problem msup').length") == 1
    browser.run("document.querySelectorAll('summary').forEach(s => s.click()); new Promise(d => setTimeout(d, 100))")
    assert EVIL in texts(browser, ".written div")[0] and browser.run(
        "document.querySelector('img, [onerror]') === null"
    )
    assert browser.run("document.querySelector('[href^=javascript]')") is None


@needs_browser
@pytest.mark.parametrize("name", ["samples.html", "compare.html"])
def test_narrow_and_dark(opened, browser, name):
    colours = []
    for dark in (False, True):
        browser.screen(400, 900, dark)
        opened(name, "at=MATH/m1")
        assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        colours.append(browser.run("['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name])"))
    assert colours[0] != colours[1] and all(page != ink for page, ink in colours)
