"""From graded answers to the numbers of a table: one Cell per benchmark and column, and the tests between columns."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

from evals.published import Printed, Published
from evals.stats import bootstrap, holm, pass_at_k, percent, sign_flip, span, wilson
from grading import STATUSES
from grading.notation import normalise


@dataclass(frozen=True, eq=False)
class Answer:
    """One graded response. status: one of grading.STATUSES. tokens: generated. extracted: the answer as text, None if
    there is none. detail: the grader's reason. program: the answer is one, so there is no vote (of wrong ones no two
    are the same). isolation: what it ran in. label: which of several seeds and samples. made: reads the generation's
    record, with its text and prompt (evals/store.py)."""

    status: str
    tokens: int
    extracted: str | None = None
    detail: str = ""
    finish_reason: str = "stop"
    dtype: str | None = None
    program: bool = False
    isolation: str | None = None
    label: str = ""
    made: Callable[[], dict] = dict

    @property
    def right(self) -> bool:
        return self.status == "correct"


@dataclass(frozen=True)
class Cell:
    """runs: {run: {problem id: [Answer, one a sample]}}; one run, or one a seed, over the same problems."""

    runs: dict

    @cached_property
    def groups(self) -> list[list[Answer]]:
        """Return the samples of every run and problem: the responses of one model to one problem."""
        return [samples for run in self.runs.values() for samples in run.values()]

    @cached_property
    def problems(self) -> dict[str, list[Answer]]:
        """Return {problem id: [Answer of every run and sample]}"""
        return {id: [a for run in self.runs.values() for a in run[id]] for id in next(iter(self.runs.values()))}

    @cached_property
    def right(self) -> dict[str, int]:
        """Return {problem id: how many of its responses, over all runs, are right}"""
        return {id: sum(a.right for a in answers) for id, answers in self.problems.items()}

    @property
    def samples(self) -> int:
        """Count the responses a problem within one run: n of avg@n."""
        return len(self.groups[0])

    @cached_property
    def n(self) -> int:
        return sum(map(len, self.groups))

    @property
    def k(self) -> int:
        return sum(self.right.values())

    @property
    def accuracy(self) -> float:
        """Return the share of right answers of all; with several samples, avg@n."""
        return self.k / self.n

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval: Wilson for one response a problem, else a bootstrap over problems."""
        if self.n == len(self.right):
            return wilson(self.k, self.n)
        scores = [count / len(self.problems[id]) for id, count in self.right.items()]
        if len(set(scores)) == 1:  # nothing to resample, and no certainty either: as if there were one sample
            return wilson(round(sum(scores)), len(scores))
        return bootstrap(scores)

    @property
    def text(self) -> str:
        return f"{percent(self.accuracy)} %"

    @property
    def basis(self) -> str:
        """Say what the accuracy stands on: 60/96 [52.5, 71.5]."""
        return f"{self.k}/{self.n} {span(self.interval)}" + (f" avg@{self.samples}" if self.samples > 1 else "")

    @property
    def per_run(self) -> list[float]:
        """Return the accuracy of each run, in order."""
        return [Cell({name: run}).accuracy for name, run in self.runs.items()]

    def pass_at(self, k: int) -> float:
        """Estimate, without bias, the chance that at least one of k responses is right; the mean over problems and
        runs."""
        return sum(pass_at_k(len(group), sum(a.right for a in group), k) for group in self.groups) / len(self.groups)

    @cached_property
    def majority(self) -> float | None:
        """Return maj@n: how often the most frequent answer is right; the mean over problems and runs. None if no answer
        can be voted on. Right answers are one candidate, however written; wrong ones are counted by `normalise`. Of
        tied candidates each is as likely to win, so a tie counts for one over their number."""
        if not any(a.extracted and not a.program for group in self.groups for a in group):
            return None
        wins = 0.0
        for group in self.groups:
            votes = Counter(True if a.right else normalise(a.extracted) for a in group if a.right or a.extracted)
            first = [answer for answer, count in votes.items() if count == max(votes.values())]
            wins += (True in first) / max(1, len(first))
        return wins / len(self.groups)

    @property
    def statuses(self) -> dict[str, int]:
        """Return {status: count}, those that occur, in the order of STATUSES."""
        counts = Counter(answer.status for group in self.groups for answer in group)
        return {status: counts[status] for status in STATUSES if counts[status]}

    @property
    def mean_tokens(self) -> float:
        return sum(answer.tokens for group in self.groups for answer in group) / self.n


@dataclass(frozen=True)
class Comparison:
    """A paired test of `column` against `reference` on one row. difference: of the accuracies, in [-1, 1]. gained,
    lost: problems of which a larger, a smaller share of the responses is right. holm: p corrected for all pairs of the
    table, once known; None for a part of a benchmark."""

    row: str
    column: str
    reference: str
    difference: float
    gained: int
    lost: int
    p: float
    holm: float | None = None

    def turned(self) -> "Comparison":
        """Return the test of `reference` against `column`."""
        sides = {"column": self.reference, "reference": self.column, "difference": -self.difference}
        return replace(self, **sides, gained=self.lost, lost=self.gained)


@dataclass(frozen=True)
class Table:
    """cells: {(row, column): Cell or Count}; an absent one has not been measured. against: {column: its reference
    column, or empty for none}. published: the paper's table (evals/published.py) whose layout and numbers are shown.
    parts: the rows that are parts of another row (a benchmark's `split`); they are tested, and count in no
    correction."""

    name: str
    title: str
    rows: list
    columns: list
    cells: dict
    against: dict
    notes: list
    published: Published | None = None
    parts: frozenset = frozenset()

    @property
    def printed(self) -> dict[tuple[str, str], Printed]:
        """Return what the paper prints in each cell; nothing for a figure or a table of your own."""
        return self.published.cells if self.published else {}

    @property
    def counts(self) -> bool:
        """Tell whether the cells are counts (Table 1), which are no contest."""
        return self.published is not None and self.published.counts

    @cached_property
    def pairs(self) -> dict[tuple[str, str, str], Comparison]:
        """Return {(row, column, reference): Comparison} of every pair of columns of a row, the later column first."""
        found = [
            compare(row, later, earlier, self.cells[row, later], self.cells[row, earlier])
            for row in self.rows
            for earlier, later in combinations(self.columns, 2)
            if isinstance(self.cells.get((row, later)), Cell) and isinstance(self.cells.get((row, earlier)), Cell)
        ]
        # Holm's family is the benchmarks: a part holds the problems of its total again, so it would be tested twice
        corrected = iter(holm([c.p for c in found if c.row not in self.parts]))
        tested = [c if c.row in self.parts else replace(c, holm=next(corrected)) for c in found]
        return {(c.row, c.column, c.reference): c for c in tested}

    def comparison(self, row: str, column: str) -> Comparison | None:
        """Return the paired test of a cell against its reference column: the one before it unless `against` says
        otherwise. None without one."""
        reference = (dict(zip(self.columns[1:], self.columns, strict=False)) | self.against).get(column)
        to_the_right = self.pairs.get((row, reference, column))
        return to_the_right.turned() if to_the_right else self.pairs.get((row, column, reference))

    @property
    def comparisons(self) -> list[Comparison]:
        """Return the paired tests of every row, each column against its reference."""
        return [c for row in self.rows for column in self.columns if (c := self.comparison(row, column))]


def compare(row: str, column: str, reference: str, cell: Cell, base: Cell) -> Comparison:
    """Test two cells exactly: McNemar's test for one response each, else the sign-flip test over problems
    (evals/stats.py)."""
    # of each problem, the difference of the shares of right responses, on a common denominator
    ours, theirs = cell.problems, base.problems
    differences = [cell.right[id] * len(theirs[id]) - base.right[id] * len(ours[id]) for id in ours]
    gained, lost = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return Comparison(row, column, reference, cell.accuracy - base.accuracy, gained, lost, sign_flip(differences))
