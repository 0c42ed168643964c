"""The paper's numbers: each is k/N but for the known exceptions, and each stands in the paper's text."""

from pathlib import Path

import pytest

from evals.published import FIGURES, SIZES, TABLES, Count, Printed
from evals.stats import wilson

PAPER = Path(__file__).resolve().parents[3] / "shared" / "paper" / "paper.txt"


def test_every_cell_is_k_of_n_but_for_the_known_ones():
    for name, table in TABLES.items():
        odd = {place for place, cell in table.cells.items() if not table.counts and not cell.ks}
        assert odd == {(benchmark, column) for benchmark, column, _ in table.not_k_of_n}, name


def test_table1_counts_math500_responses():
    for column in range(3):
        assert sum(row[column] for row in TABLES["table1"].rows.values()) == SIZES["MATH-500"]


def test_the_same_result_is_the_same_number_everywhere():
    cells = {name: {place: cell.value for place, cell in table.cells.items()} for name, table in TABLES.items()}
    for benchmark in ("AIME2024", "MATH-500", "GPQA Diamond", "LiveCodeBench V2"):
        ours = cells["table2"][benchmark, "CogPO"], cells["table2"][benchmark, "CRV+SFT"]
        assert ours == (cells["table3"][benchmark, "Ours (17K)"], cells["table6"][benchmark, "w. CRV"])
        assert cells["table4"][benchmark, "DeepSeek-R1-Distill-Qwen-32B"] == ours[1]
        assert cells["table10"][benchmark, "Ours"] == cells["table3"][benchmark, "Ours (114K)"]


def test_digits_against_the_papers_text():
    if not PAPER.exists():
        pytest.skip("the paper's text is not here")
    lines = PAPER.read_text(encoding="utf-8").splitlines()
    for name, table in TABLES.items():
        # the rows of a table stand above its caption
        caption = next(i for i, line in enumerate(lines) if line.startswith(f"Table {name.removeprefix('table')}: "))
        above = lines[max(0, caption - 12) : caption]
        rows = table.rows
        if table.transposed:
            rows = dict(zip(table.columns, zip(*rows.values(), strict=True), strict=True))
        for row, values in rows.items():
            assert f"{row} {' '.join(map(str, values))}" in above, (name, row)
    for benchmark, size in SIZES.items():
        assert f"{benchmark} {size}" in lines


def test_a_printed_cell_knows_its_k():
    assert (Printed(30.0, 30).k, Printed(30.0, 30).interval) == (9, wilson(9, 30))
    assert (Printed(40.0, 198).k, Printed(40.0, 198).interval) == (None, None)
    assert list(Printed(76.5, 14042).ks) == [k for k in range(14043) if f"{100 * k / 14042:.1f}" == "76.5"]
    assert (Count(195, 500).accuracy, Count(195, 500).interval) == (0.39, wilson(195, 500))
    for table in TABLES.values():
        for place, cell in [] if table.counts else table.cells.items():
            assert (cell.k is None) == bool(cell.note), place
            if cell.k is not None:
                assert round(100 * cell.k / cell.n, 1) == cell.value
                assert cell.interval[0] < cell.value / 100 < cell.interval[1]


def test_figures_are_of_benchmarks_that_there_are():
    for figure in FIGURES.values():
        assert set(figure.benchmarks) <= set(SIZES) and figure.cells == {}
