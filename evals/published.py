"""The paper's own numbers, out of published.yaml beside this file: tables as printed, figures without their values."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from evals.stats import k_of_n, percent, span, wilson

PAPER = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
SIZES: dict[str, int] = PAPER["sizes"]
ALIASES: dict[str, str] = PAPER["aliases"]


@dataclass(frozen=True)
class Printed:
    """A published accuracy. value: in percent, as printed. n: the problems behind it. note: why it is no k/n, empty if
    it is."""

    value: float
    n: int
    note: str = ""

    @property
    def text(self) -> str:
        return str(self.value)

    @property
    def accuracy(self) -> float:
        return self.value / 100

    @property
    def ks(self) -> range:
        """Return all numbers of right answers that are printed so."""
        return k_of_n(self.value, self.n)

    @property
    def k(self) -> int | None:
        """Return the one in the middle, or None."""
        return self.ks[len(self.ks) // 2] if self.ks else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the 95 % Wilson at one response a problem, or None."""
        return wilson(self.k, self.n) if self.ks else None

    @property
    def basis(self) -> str:
        """Say what the value stands on at one response a problem: 9/30 [16.7, 47.9], ≈ where several k round to it."""
        return f"{'≈' * (len(self.ks) > 1)}{self.k}/{self.n} {span(self.interval)}" if self.ks else f"no k/{self.n} †"


class Count(Printed):
    """A cell of Table 1, printed or measured: `value` of n chains were rated so."""

    @property
    def accuracy(self) -> float:
        return self.value / self.n

    @property
    def ks(self) -> range:
        return range(self.value, self.value + 1)

    @property
    def basis(self) -> str:
        return f"{percent(self.accuracy)} % of {self.n} {span(self.interval)}"


@dataclass(frozen=True)
class Published:
    """A table, or a panel of a figure. rows: {benchmark (Table 1: level) as printed: one value a column, none in a
    figure}. not_k_of_n: [(benchmark, column, why)]. published.yaml explains the other fields."""

    number: str
    caption: str
    columns: list
    rows: dict
    corner: str = "Dataset/Model"
    heads: list = ()
    second: list = ()
    transposed: bool = False
    not_k_of_n: list = ()

    @property
    def benchmarks(self) -> dict[str, str]:
        """Return {name in SIZES (Table 1: level): as printed}, in order."""
        return {ALIASES.get(label, label): label for label in self.rows}

    @property
    def counts(self) -> bool:
        return self.number == "Table 1"

    @cached_property
    def cells(self) -> dict[tuple[str, str], Printed]:
        """Return {(benchmark, column): what is printed there} with the names of SIZES."""
        odd = {(benchmark, column): why for benchmark, column, why in self.not_k_of_n}
        printed = {  # a figure has no values
            (benchmark, column): value
            for benchmark, label in self.benchmarks.items()
            for column, value in zip(self.columns, self.rows[label], strict=False)
        }
        if self.counts:  # all of them of the responses to MATH-500
            return {place: Count(value, SIZES["MATH-500"]) for place, value in printed.items()}
        return {place: Printed(value, SIZES[place[0]], odd.get(place, "")) for place, value in printed.items()}


TABLES = {name: Published(**block) for name, block in PAPER["tables"].items()}
FIGURES = {name: Published(**block) for name, block in PAPER["figures"].items()}
