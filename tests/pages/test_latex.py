"""Formulas in model texts: found, converted, and nothing let through that is no formula."""

import re
import time

import pytest

from pages.latex import formulas, mathml


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$a$ and $$b\nc$$ and \\(d\\) and \\[e\\]", ["inline a", "block b\nc", "inline d", "block e"]),
        ("so \\boxed{12}.", ["inline \\boxed{12}"]),
        ("\\begin{align*}\na&=b\n\\end{align*}", ["block \\begin{align*}\na&=b\n\\end{align*}"]),
        ("it costs $5", []),
        ("```\n$a = $b\n``` and $c$", ["inline c"]),
        ("\\[" + "x" * 3000 + "\\] and $d$", ["inline d"]),
    ],
)
def test_formulas_are_found(text, found):
    assert [key for key, _, _ in formulas(text)] == found


@pytest.mark.parametrize(
    "latex",
    [
        r"\text{<script>alert(1)</script>}",
        r"\text{</mtext></math><img src=x onerror=y>}",
        r"\href{javascript:y}{x}",
        r"\style{background:url(y)}{x}",
        r"\text{&lt;img src=x&gt;}",
    ],
)
def test_mathml_lets_nothing_through(latex):
    made = mathml(latex, "inline") or ""
    assert not re.search(r"<(?!/?m)", made) and "href" not in re.sub(r">[^<]*<", "><", made) and "style" not in made


def test_mathml_of_what_is_no_latex():
    assert "mfrac" in mathml(r"\frac{1}{2}", "inline") and 'class="boxed"' in mathml(r"\boxed{7}", "block")
    assert mathml(r"\multicolumn{2}{r}{5}", "inline") is None  # shown as written, not as a product of letters
    assert mathml(r"\frac", "inline") is None


@pytest.mark.parametrize("length", ["1000000em", "101em", "99999pt", "-9999mu"])
def test_a_formula_whose_own_lengths_are_beyond_a_page_is_shown_as_written(length):
    for latex in (
        r"\hspace{%s}y",
        r"\kern %s y",
        r"\rule{%s}{1em}",
        r"\rule{1em}{%s}",
        r"x\hskip %s y",
        r"\lower%s{x}",
    ):
        assert mathml(latex % length, "inline") is None, latex % length
    assert mathml(r"\quad" * 300, "inline") is None  # nor many small ones
    columns = r"\begin{align*}" + " & ".join("a&=b" for _ in range(10)) + r"\end{align*}"
    for latex in (r"\hspace{2em}x\quad y\qquad z", r"\rule{0pt}{12pt}x", r"x\;y\,z\!", columns):
        assert mathml(latex, "block"), latex


def test_a_bracket_repeated_without_end_is_no_long_search():
    began = time.process_time()
    assert not list(formulas(r"\[ " * 30_000))  # 0.1 MB; a search to the end of the text from each would take minutes
    assert time.process_time() - began < 10
