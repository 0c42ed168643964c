"""From graded answers to the numbers of a table: one Cell per benchmark and column, and the tests between columns."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from data.answers import STATUSES
from evals.stats import bootstrap, sign_flip, wilson


@dataclass(frozen=True)
class Answer:
    """One graded response. status: one of data.answers.STATUSES. tokens: generated."""

    status: str
    tokens: int


@dataclass(frozen=True)
class Cell:
    """runs: {run: {problem id: Answer}}; one run, or one a seed. All runs hold the same problems."""

    runs: dict

    @cached_property
    def answers(self):
        return [answer for run in self.runs.values() for answer in run.values()]

    @cached_property
    def right(self):
        """{problem id: how many runs answered it right}"""
        ids = next(iter(self.runs.values()))
        return {id: sum(run[id].status == "correct" for run in self.runs.values()) for id in ids}

    @property
    def n(self):
        return len(self.answers)

    @property
    def k(self):
        return sum(self.right.values())

    @property
    def accuracy(self):
        return self.k / self.n

    @cached_property
    def interval(self):
        """95 %: Wilson for one run, a bootstrap over problems for several."""
        if len(self.runs) == 1:
            return wilson(self.k, self.n)
        scores = [count / len(self.runs) for count in self.right.values()]
        if set(scores) in ({0.0}, {1.0}):  # nothing to resample, and no certainty either: as if there were one seed
            return wilson(round(sum(scores)), len(scores))
        return bootstrap(scores)

    @property
    def per_run(self):
        """Accuracy of each run, in order."""
        return [sum(a.status == "correct" for a in run.values()) / len(run) for run in self.runs.values()]

    @property
    def statuses(self):
        """{status: count}, those that occur, in the order of STATUSES."""
        counts = Counter(answer.status for answer in self.answers)
        return {status: counts[status] for status in STATUSES if counts[status]}

    @property
    def mean_tokens(self):
        return sum(answer.tokens for answer in self.answers) / self.n


@dataclass(frozen=True)
class Comparison:
    """A paired test of `column` against `reference` on one row. gained, lost: problems (over pairs of runs)."""

    row: str
    column: str
    reference: str
    difference: float
    gained: int
    lost: int
    p: float


@dataclass(frozen=True)
class Table:
    """cells: {(row, column): Cell}; an absent one has not been measured. against: {column: its reference column}."""

    name: str
    title: str
    rows: list
    columns: list
    cells: dict
    against: dict
    notes: list

    def comparisons(self):
        """The paired tests of every row, each column against its reference: the one before it unless said otherwise."""
        previous = dict(zip(self.columns[1:], self.columns, strict=False)) | self.against
        return [
            compare(row, column, previous[column], self.cells[row, column], self.cells[row, previous[column]])
            for row in self.rows
            for column in self.columns
            if column in previous and (row, column) in self.cells and (row, previous[column]) in self.cells
        ]

    def ranks(self, row):
        """{column: 1 for the row's best accuracy, 2 for its second}, ties included; the paper's bold and underlined."""
        scores = {column: self.cells[row, column].accuracy for column in self.columns if (row, column) in self.cells}
        best = sorted(set(scores.values()), reverse=True)[:2]
        return {column: best.index(score) + 1 for column, score in scores.items() if score in best and len(best) > 1}


def compare(row, column, reference, cell, base):
    """Exact: McNemar's test for one run each, else the sign-flip test over problems."""
    ours, theirs = len(cell.runs), len(base.runs)
    differences = [cell.right[id] * theirs - base.right[id] * ours for id in cell.right]
    return Comparison(
        row,
        column,
        reference,
        cell.accuracy - base.accuracy,
        sum(d for d in differences if d > 0) // max(ours, theirs),
        -sum(d for d in differences if d < 0) // max(ours, theirs),
        sign_flip(differences),
    )
