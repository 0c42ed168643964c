"""The paper's numbers: each is k/N but for the known exceptions, and each stands in the paper's text."""

from pathlib import Path

import pytest

from evals.published import NOT_K_OF_N, SIZES, TABLES
from evals.stats import is_k_of_n

PAPER = Path(__file__).resolve().parents[3] / "shared" / "paper" / "paper.txt"


def test_every_cell_is_k_of_n_but_for_the_known_ones():
    odd = {
        (name, *place)
        for name, table in TABLES.items()
        if name != "table1"
        for place, value in table.cells().items()
        if not is_k_of_n(value, SIZES[place[0]])
    }
    assert odd == set(NOT_K_OF_N)


def test_table1_counts_math500_responses():
    for column in range(3):
        assert sum(row[column] for row in TABLES["table1"].rows.values()) == SIZES["MATH-500"]


def test_the_same_result_is_the_same_number_everywhere():
    cells = {name: table.cells() for name, table in TABLES.items()}
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
        for row, values in table.rows.items():
            assert f"{row} {' '.join(map(str, values))}" in above, (name, row)
    for benchmark, size in SIZES.items():
        assert f"{benchmark} {size}" in lines
