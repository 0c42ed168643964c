"""Cells, comparisons and what the reader sees of them."""

import html.parser
import random
import re
from xml.etree import ElementTree

import pytest

from evals.charts import chart
from evals.results import Answer, Cell, Table
from evals.stats import bootstrap, p_value, points, sign_flip, wilson
from evals.tables import measured_grid, ranking, rendered


def cell(*runs):
    """Each run a string with one letter a problem: c correct, w wrong, n no answer, t truncated, x timeout, e error."""
    status = {"c": "correct", "w": "wrong", "n": "no_answer", "t": "truncated", "x": "timeout", "e": "error"}
    return Cell(
        {f"seed {i}": {f"p{j}": [Answer(status[x], 10 * j)] for j, x in enumerate(run)} for i, run in enumerate(runs)}
    )


def table(cells, columns, rows=("legs",), against=None, **kwargs):
    return Table("table2", "A title", list(rows), list(columns), cells, against or {}, ["a note"], **kwargs)


def test_cell_of_one_run():
    one = cell("c" * 60 + "w" * 30 + "t" * 6)
    assert (one.k, one.n) == (60, 96)
    assert one.interval == wilson(60, 96)
    assert measured_grid(table({("legs", "a"): one}, "a")).rows[0][1][0].lines == ["62.5 % (60/96) [52.5, 71.5]"]
    assert one.statuses == {"correct": 60, "wrong": 30, "truncated": 6}
    assert one.mean_tokens == pytest.approx(10 * 95 / 2)


def test_cell_of_three_seeds_bootstraps_over_problems():
    seeds = cell("ccww", "cwww", "cccw")
    assert (seeds.k, seeds.n) == (6, 12)
    assert seeds.per_run == [0.5, 0.25, 0.75]
    assert seeds.interval == bootstrap([1, 2 / 3, 1 / 3, 0])
    assert cell("wwww", "wwww").interval == wilson(0, 4)  # all wrong is not certainly zero
    assert cell("cccc", "cccc").interval == wilson(4, 4)


def test_comparison_is_mcnemar_on_the_same_problems():
    cells = {("legs", "a"): cell("cccwwwww"), ("legs", "b"): cell("wccccccc")}
    (c,) = table(cells, ["a", "b"]).comparisons
    assert (c.column, c.reference, c.gained, c.lost) == ("b", "a", 5, 1)
    assert c.difference == pytest.approx(4 / 8)
    assert c.p == sign_flip([-1] + [1] * 5)


def test_comparison_of_three_seeds_with_one():
    cells = {("legs", "base"): cell("wwwwwwww"), ("legs", "sft"): cell("ccccccww", "ccccccww", "ccccccww")}
    (c,) = table(cells, ["base", "sft"]).comparisons
    assert c.difference == pytest.approx(6 / 8)
    assert c.p == sign_flip([1] * 6)  # three equal seeds are no more evidence than one
    assert (c.gained, c.lost) == (6, 0)


def test_against_replaces_the_previous_column_and_gaps_are_left_out():
    cells = {("legs", x): cell("cw") for x in ("a", "b", "d")}
    pairs = [(c.column, c.reference) for c in table(cells, "abcd", against={"d": "a"}).comparisons]
    assert pairs == [("b", "a"), ("d", "a")]


def test_best_and_second_of_a_row():
    cells = {("legs", x): cell(run) for x, run in zip("abcd", ("cccw", "ccww", "cccw", "cwww"), strict=True)}
    assert ranking(table(cells, "abcd"), cells) == {("legs", "a"): 1, ("legs", "c"): 1, ("legs", "b"): 2}
    cells = {("legs", x): cell("cw") for x in "ab"}
    assert ranking(table(cells, "ab"), cells) == {}  # where all are equal


@pytest.mark.parametrize(("p", "text"), [(1 / 32, "p = .031"), (1.0, "p = 1"), (0.0002, "p < .001"), (0.5, "p = .500")])
def test_p_value(p, text):
    assert p_value(p) == text


def example(rows=("legs", "sums"), columns=("base", "SFT", "CRV+SFT", "CogPO"), seeds=1):
    rng = random.Random(0)
    cells = {
        (row, column): cell(*("".join(rng.choice("cwwt"[: 4 - place % 3]) for _ in range(96)) for _ in range(seeds)))
        for row in rows
        for place, column in enumerate(columns)
    }
    return table(cells, columns, rows)


def test_markdown():
    text = rendered("md", [example()], speeds={"out/sft": "220 tokens/s"})
    lines = text.splitlines()
    assert lines[0] == "## A title"
    assert lines[2] == "|  | base | SFT | CRV+SFT | CogPO |"
    assert lines[4].startswith("| legs | ") and lines[4].count("%") == 4 and lines[4].count("**") == 2
    assert sum(line.startswith("- legs: CogPO − CRV+SFT: ") for line in lines) == 1
    assert sum(line.startswith("| CRV+SFT |  |  | ") for line in lines) == 2  # of every pair: a matrix a row
    assert "> a note  " in lines
    assert "220 tokens/s" in text
    assert "Pairs of columns tested in this table: 12;" in text  # 2 rows of 4 columns
    assert "seeds " in rendered("md", [example(seeds=3)])


def test_a_bar_in_a_name_is_no_column():
    text = rendered("md", [example(rows=("p | q",), columns=("a|b", "c"))])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == r"|  | a\|b | c |" and rows[2].startswith(r"| p \| q | ")
    first = [len(re.split(r"(?<!\\)\|", row)) for row in rows[:3]]
    assert first == [5, 5, 5]


def test_an_empty_table_says_so():
    empty = table({}, ["a", "b"])
    assert "| legs | – | – |" in rendered("md", [empty])
    assert rendered("html", [empty], "t").count(">–</span></td>") == 2


def test_what_became_of_the_answers():
    text = rendered("md", [table({("legs", "a"): cell("cwtttnnxxe")}, "a")])
    assert "| truncated | no answer | grader timeout | grader error |" in text
    assert "3 truncated, 2 timeout, 1 error | 30.0 % | 20.0 % | 20.0 % | 10.0 % | 45 |" in text
    several = Cell({"": {i: [Answer("correct", 5, "1"), Answer("wrong", 5, "2")] for i in range(4)}})
    text = rendered("md", [table({("legs", "a"): several}, "a")])
    assert "50.0 % (4/8) [15.0, 85.0] avg@2" in text and "pass@2 100.0 · maj@2 50.0" in text


def test_the_difference_that_is_none_has_no_sign():
    cells = {("legs", "a"): cell("cw"), ("legs", "b"): cell("wc")}
    assert (points(-0.0004), points(-0.0006), points(-0.1)) == ("+0.0", "−0.1", "−10.0")
    assert "b − a: +0.0 (1 gained, 1 lost, p = 1)" in rendered("md", [table(cells, "ab")])


def test_html_is_well_formed_escaped_and_self_contained():
    shown = example(columns=("<base>", "A&B"))
    text = rendered("html", [shown], "a < b", {"m": "1 tokens/s"}, [chart(shown)[1]])
    assert "<base>" not in text and "&lt;base&gt;" in text and "A&amp;B" in text

    class Check(html.parser.HTMLParser):
        open, links = [], []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img"):
                self.open.append(tag)
            self.links += [value for name, value in attrs if name in ("src", "href")]

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    check = Check()
    check.feed(text)
    assert check.open == []
    assert not check.links and set(re.findall(r'xlink:href="(.)', text)) == {"#"}


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("rows", [("legs",), ("legs", "sums"), tuple(f"MMLU: subject_{i}" for i in range(57))])
def test_a_chart_has_a_line_for_every_cell_and_the_pages_own_colours(rows, seeds):
    png, svg = chart(example(rows, ("base", "A&$B^"), seeds=seeds))
    assert png.startswith(b"\x89PNG") and svg.startswith("<svg") and "<style" not in svg
    drawing = ElementTree.fromstring(svg)
    texts = [node.text for node in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert all(row in texts for row in rows) and "A&$B^" in texts  # a name is no formula
    assert svg.count('<g id="LineCollection') == len(rows)  # an interval of each cell, in one collection a panel
    assert not re.search('#[0-9a-f]{6}[;"]', svg) and "currentColor" in svg and "var(--medium)" in svg
    width, height = (float(drawing.get(name).removesuffix("pt")) for name in ("width", "height"))
    assert (
        width <= 936 and height >= 0.25 * 72 * 2 * len(rows) / 4
    )  # points: the page's width; a line is never squeezed


def test_parts_of_a_benchmark_are_tested_outside_the_family():
    """12 tests stay 12, and each keeps its corrected p, however many parts `split` shows beside the totals."""
    rows, columns = ["legs", "sums"], ("base", "SFT", "CRV+SFT", "CogPO")
    cells = {(row, c): cell("c" * (10 + 9 * i) + "w" * (86 - 9 * i)) for row in rows for i, c in enumerate(columns)}
    parts = [f"sums: {i}" for i in range(7)]
    more = cells | {(part, c): cell("cw" * 8) for part in parts for c in columns}
    whole = table(cells, columns, rows)
    split = table(more, columns, [*rows, *parts], parts=frozenset(parts))
    assert len(whole.pairs) == 12 and len(split.pairs) == 54
    assert {key: split.pairs[key].holm for key in whole.pairs} == {key: c.holm for key, c in whole.pairs.items()}
    assert {c.holm for key, c in split.pairs.items() if key not in whole.pairs} == {None}
    before, after = rendered("md", [whole]), rendered("md", [split])
    said = re.search(r"tested in this table: 12; below \.05 after Holm's correction: (\d+)", before)
    assert said[0] in after and int(said[1]) == after.count(" * |") == 12
    assert "The 42 of parts of a benchmark hold its problems again" in after and "of parts" not in before
