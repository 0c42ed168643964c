"""The renderer by itself: hostile names and texts, the browser of single items, its size, and what rooms it knows."""

import re
from pathlib import Path

import pytest

from pages.page import in_turn, render
from tests.support.browser import Browser, needs_browser

ROOM = Path(__file__).resolve().parents[2] / "pages"
EVIL = "</script><script>document.body.dataset.pwned = 1</script><img src=x onerror='document.body.dataset.pwned = 1'>"
LINK = r"$\href{javascript:document.body.dataset.pwned=1}{x^2}$"
WIDE = [  # formulas that are wider or higher than a page, deep nesting, and no formulas at all
    "$" + "x+" * 900 + "x$", r"$\hspace{1000000em} y$", r"$\rule{1000000em}{1000000em}$", r"$\kern 99999pt x$",
    r"$\Huge{\Huge{\Huge x}}$", r"$\lower9999em{x}$", "$" + r"\quad" * 390 + "$", r"$\text{" + "W" * 1900 + "}$",
    "$" + "{" * 990 + "x" + "}" * 990 + "$", "$" + r"\overset{" * 150 + "x" + "}{y}" * 150 + "$", "{" * 10_000,
    "W" * 1_000_000, "$$" + r"\begin{matrix}" + "a&" * 900 + r"\end{matrix}$$", r"\[ " * 30_000,
]  # fmt: skip


def item(id, text="so", **more):
    card = {"status": "wrong", "text": text, "answer": text, "detail": text}
    columns = [{"title": model, "cards": [card]} for model in ("a", "b")]
    return {"id": id, "text": text, "answer": text, "why": id, "kind": text, "columns": columns} | more


def page(items, **more):
    kinds = dict.fromkeys(item["kind"] for item in items)
    filters = {"kind": kinds, "model": ["a", "b"], "status": ["wrong"]}
    words = {"search": "search", "answer": "gold ", "absent": "not here"}
    summary = {"heading": "h", "models": [], "heads": [], "rows": [], "statuses": ["wrong"]}
    summary |= {"problems": len(items), "private": 0, "responses": 0, "texts": 0}
    return render("samples.html", {"items": items, "filters": filters} | words, title="t", **summary | more)


def test_the_renderer_knows_no_other_room():
    imports = [re.findall(r"^(?:from|import) (\w+)", file.read_text(), re.M) for file in ROOM.glob("*.py")]
    names = {name for found in imports for name in found}
    assert "pages" in names and not {"agents", "evals", "grading", "data", "model"} & names


def test_names_are_escaped_and_nothing_else_may_run():
    shown = page([item("1", EVIL)], heading=EVIL, models=[EVIL], heads=[EVIL], rows=[(EVIL, {}, [EVIL])])
    assert shown.count("<script") == 2 and "<img" not in shown
    assert shown.count("&lt;img") == 7  # those five, and a filter's value, which stands there twice
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', shown)[1]
    assert policy.startswith("default-src &#39;none&#39;;") and "script-src &#39;sha256-" in policy


def test_rare_kinds_come_early():
    strata = {"many": range(100), "few": [100, 101]}
    found = list(in_turn(strata, 0))
    assert sorted(found) == list(range(102)) and {100, 101} < set(found[:4])
    assert found == list(in_turn(strata, 0)) != list(in_turn(strata, 1))


# --- in the browser ---


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """(items, view) -> the browser with their page; it asked for nothing else and has nothing on its console."""

    def opened(items, view=""):
        (tmp_path / "page.html").write_text(page(items), encoding="utf-8")
        browser.open(tmp_path / "page.html", view)
        return browser

    yield opened
    assert len(browser.asked) == 1 and not browser.said


@needs_browser
def test_model_text_stays_text(opened):
    browser = opened([item("1"), item("2", f"{EVIL} {LINK}")], "at=2")
    assert browser.run("document.body.dataset.pwned === undefined && document.querySelector('img, [onerror]') === null")
    assert browser.run("document.scripts.length") == 2 and browser.run("document.querySelector('[href]')") is None
    for place in (".problem", ".text", "p.answer", ".chain .answer", "#kind option:last-child"):
        assert EVIL in browser.run(f"document.querySelector({place!r}).textContent")
    assert browser.run("document.querySelectorAll('.problem msup').length") == 1


@needs_browser
def test_a_formula_that_is_too_wide_scrolls_in_its_own_box(opened):
    browser = opened(
        [item(str(i), text, prompt=[{"role": text, "content": text}]) for i, text in enumerate(WIDE)], "at=0"
    )
    assert browser.run("document.querySelector('.text math').getBoundingClientRect().width") > 5000
    browser.run("document.querySelectorAll('summary').forEach(s => s.click())")
    for width in (1440, 400):
        browser.screen(width, 900)
        for i in range(len(WIDE)):
            browser.run(f"document.querySelectorAll('#list button')[{i}].click()")
            assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), WIDE[i][
                :40
            ]
            assert browser.run("document.documentElement.scrollHeight") < 6000, WIDE[i][:40]
            for box in (".problem", ".text", "p.answer", ".chain .answer"):
                assert browser.run(f"document.querySelector('{box}').clientWidth") < width


@needs_browser
def test_a_text_of_a_hundred_thousand_formulas_is_shown_whole(opened):
    text = "$x$ e " * 100_000
    browser = opened([item("1", text)], "search=e")
    assert browser.run(f"document.querySelector('.chain .text').textContent.startsWith({'x e ' * 1000!r})")
    assert browser.run("document.querySelector('.chain .text').textContent.includes('$x$ e '.repeat(90_000))")
    assert 1000 < browser.run("document.querySelectorAll('.chain .text math').length") < 10_000


@needs_browser
def test_ten_thousand_items(opened):
    browser = opened([item(f"q{i}", f"problem {i}", kind=("even", "odd")[i % 2]) for i in range(10_000)])
    rows, count = "document.querySelectorAll('#list button').length", "document.getElementById('count').textContent"
    assert browser.run(rows) == 301 and browser.run("document.querySelector('.more').textContent") == "9700 more …"
    browser.run("document.querySelector('.more').click()")
    assert browser.run(rows) == 601
    browser.press("/")
    for letter in "problem 999":
        browser.press(letter)
    assert browser.run(count) == "11 of 10,000"
    browser.run("document.getElementById('kind').value = 'odd', document.getElementById('kind').oninput()")
    assert browser.run(count) == "6 of 10,000"


@needs_browser
def test_a_link_to_an_item_opens_it_wherever_it_stands(opened):
    browser = opened([item(f"q{i}") for i in range(1000)], "at=q999")
    assert browser.run("document.querySelector('#list [aria-current]').item.id") == "q999"
    assert browser.run("document.querySelector('.more')") is None
    browser.press("k")
    assert browser.run("location.hash") == "#at=q998"
