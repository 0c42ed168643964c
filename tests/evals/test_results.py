"""Cells of several samples and runs, their votes and their paired tests."""

import itertools

import pytest

from evals.results import Answer, Cell, Table
from evals.stats import bootstrap, holm, sign_flip, wilson

STATUS = {"c": "correct", "w": "wrong", "n": "no_answer", "t": "truncated", "x": "timeout"}


def sampled(*runs):
    """Each run a list with one string a problem, one letter a sample."""
    return Cell(
        {
            f"seed {i}": {f"p{j}": [Answer(STATUS[x], 10) for x in letters] for j, letters in enumerate(run)}
            for i, run in enumerate(runs)
        }
    )


def votes(*answers):
    """A cell of one problem. answers: text, right ones marked with *."""
    samples = [
        Answer("correct" if a.endswith("*") else "wrong" if a else "no_answer", 10, a.rstrip("*") or None)
        for a in answers
    ]
    return Cell({"": {"p": samples}}).majority


def test_avg_at_n_and_its_interval_over_problems():
    cell = sampled(["cccc", "ccww", "wwww", "cwnt"])
    assert (cell.k, cell.n, cell.samples, cell.accuracy) == (7, 16, 4, 7 / 16)
    assert cell.interval == bootstrap([1, 0.5, 0, 0.25])
    assert cell.interval[1] - cell.interval[0] > wilson(7, 16)[1] - wilson(7, 16)[0]  # 16 answers are no 16 problems
    assert sampled(["wwww"] * 8).interval == wilson(0, 8)  # all wrong is not certainly zero
    assert cell.statuses == {"correct": 7, "wrong": 7, "no_answer": 1, "truncated": 1}


def test_samples_of_several_seeds():
    cell = sampled(["cc", "ww"], ["cw", "cw"])
    assert cell.per_run == [0.5, 0.5]
    assert cell.right == {"p0": 3, "p1": 1}
    assert cell.interval == bootstrap([0.75, 0.25])


def test_pass_at_k_is_the_mean_over_problems_within_a_run():
    cell = sampled(["cccc", "cwww", "wwww"])
    assert cell.pass_at(1) == pytest.approx(cell.accuracy)
    assert cell.pass_at(2) == pytest.approx((1 + 0.5 + 0) / 3)
    assert cell.pass_at(4) == pytest.approx(2 / 3)
    assert sampled(["cc"], ["ww"]).pass_at(2) == 0.5  # the seeds are two models: their samples are not pooled


def test_majority():
    assert votes("4*", "4*", "5", "6") == 1
    assert votes("5", "5", "4*") == 0
    assert votes("4*", "5") == 0.5 and votes("5", "6", "4*") == pytest.approx(1 / 3)
    assert votes("5", "6") == 0
    assert votes("4*", "", "", "") == 1  # what did not answer does not vote
    assert votes("\\frac{1}{2}*", "0.5*", "3", "3") == 0.5  # right answers are one, however written
    assert votes("7*", "\\dfrac{1}{2}", "\\frac{1}{2}") == 0  # wrong ones by their normal form
    assert votes("", "") is None


def test_a_tie_counts_what_a_random_choice_among_the_first_would_win():
    answers = ["a*", "a*", "b", "b", "c", "c", "d"]
    wins = []
    for order in set(itertools.permutations("abcd")):  # the first of the tied ones, whatever stands first
        best = max(order, key=lambda letter: (sum(a[0] == letter for a in answers), -order.index(letter)))
        wins.append(best == "a")
    assert votes(*answers) == pytest.approx(sum(wins) / len(wins))


def test_programs_are_not_voted_on():
    assert sampled(["cw"]).majority is None


def table(cells, columns, against=None):
    return Table("t", "T", ["legs", "sums"], list(columns), cells, against or {}, [])


def test_every_pair_of_columns_is_tested_and_corrected_together():
    runs = {"a": "wwwwwwwwcc", "b": "ccccccwwcc", "c": "cccccccccw"}
    cells = {(row, x): sampled(list(run)) for row in ("legs", "sums") for x, run in runs.items()}
    pairs = table(cells, "abc").pairs
    assert set(pairs) == {(row, *two) for row in ("legs", "sums") for two in (("b", "a"), ("c", "a"), ("c", "b"))}
    assert pairs["legs", "b", "a"].p == sign_flip([1] * 6)
    assert (pairs["legs", "c", "b"].gained, pairs["legs", "c", "b"].lost) == (2, 1)
    assert [c.holm for c in pairs.values()] == holm([c.p for c in pairs.values()])


def test_pairs_of_several_samples_flip_whole_problems():
    cells = {("legs", "a"): sampled(["cwww", "wwww", "cccc"]), ("legs", "b"): sampled(["cccc", "ccww", "cccw"])}
    (c,) = table(cells, "ab").pairs.values()
    assert c.p == sign_flip([3, 2, -1])
    assert (c.gained, c.lost) == (2, 1), "problems, whatever the number of responses"
    # other numbers of samples on the two sides: shares, on a common denominator
    cells["legs", "b"] = sampled(["cc", "cw", "cw"])
    (c,) = table(cells, "ab").pairs.values()
    assert c.p == sign_flip([2 * 4 - 1 * 2, 1 * 4, 1 * 4 - 4 * 2]) and (c.gained, c.lost) == (2, 1)
    assert c.difference == pytest.approx(4 / 6 - 5 / 12)


def test_a_reference_to_the_right_turns_the_sign():
    cells = {("legs", "a"): sampled(list("wwwwccc")), ("legs", "b"): sampled(list("cccccww"))}
    shown = table(cells, "ab", {"a": "b", "b": ""})
    (c,) = shown.comparisons
    assert (c.column, c.reference, c.gained, c.lost) == ("a", "b", 2, 4)
    assert c.difference == pytest.approx(-2 / 7)
    assert c.p == shown.pairs["legs", "b", "a"].p
