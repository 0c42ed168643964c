"""The paper's tables and figures: printed exactly, filled from measurements, and configured in configs/paper."""

import html
import json
import re
from pathlib import Path

import matplotlib.image
import pytest

from config import read_yaml
from errors import UserError
from evals.assembly import PAPERS, TableConfig, assemble, check, check_rows, levels
from evals.charts import chart
from evals.published import FIGURES, TABLES
from evals.results import Answer, Cell
from evals.tables import grids, rendered, write
from tests.support.browser import Browser, needs_browser
from values import build

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT.parent / "shared" / "paper" / "paper.txt"
CONFIGS = [file for what in ("table*", "figure*") for file in sorted((ROOT / "configs/paper").glob(what))]


def bare(name, cells=None, **config):
    return assemble(name, TableConfig(paper=name, **config), [], cells or {}, ["a note"])


def answers(letters):
    status = {"c": "correct", "w": "wrong", "t": "truncated"}
    return Cell({"": {i: [Answer(status[x], 100)] for i, x in enumerate(letters)}})


def words(line):
    """A Markdown row as the paper's text has it: cells apart by one space, no marks."""
    return " ".join(re.sub(r"\*\*|</?u>", "", line).strip("| ").split(" | "))


def rows_of(page):
    """The cells of every row of the first table of an HTML page."""
    rows = re.findall(r"<tr>.*?</tr>", page[: page.index("</table>")], re.S)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row, re.S) for row in rows]
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row) for row in cells]


@pytest.mark.parametrize("name", TABLES)
def test_with_nothing_measured_the_table_is_the_papers(name):
    if not PAPER.exists():
        pytest.skip("the paper's text is not here")
    lines = PAPER.read_text(encoding="utf-8").replace("β\\beta", "β").splitlines()
    caption = next(i for i, line in enumerate(lines) if line.startswith(f"Table {name.removeprefix('table')}: "))
    _, _, head, _, *body = rendered("md", [bare(name)]).split("\n\n### ")[0].splitlines()
    ours = [words(line) for line in (head, *body)]
    assert lines[caption - len(ours) : caption] == ours
    assert rows_of(rendered("html", [bare(name)], "t")) == ours
    text = rendered("tex", [bare(name)]).replace("$\\beta$", "β").split("\\bottomrule")[0]
    plain = re.sub(r"\\(?:textbf|underline)\{([^}]*)\}", r"\1", text).splitlines()
    assert [line.removesuffix(" \\\\").replace(" & ", " ") for line in plain if line.endswith("\\\\")] == ours


def test_bold_and_underlined_by_the_rule_of_the_caption():
    lines = rendered("md", [bare("table2")]).splitlines()
    assert "| AIME2024 | 10.0 | 20.0 | <u>26.7</u> | 23.3 | 23.3 | <u>26.7</u> | **30.0** |" in lines
    assert "| GPQA Diamond | 33.3 | 37.4 | **40.9** | <u>40.0</u> | 37.4 | **40.9** | **40.9** |" in lines
    row = r"MMLU & 71.9 & \underline{76.1} & \textbf{76.5} & \underline{76.1} & 76.0 & \textbf{76.5} & \textbf{76.5} \\"
    assert row in rendered("tex", [bare("table2")])
    # transposed: the best of a benchmark is the best of a column
    assert "| Qwen2.5-7B-Instruct | 13.3 | 80.2 | **40.9** | 92.3 | 30.5 | 43.9 |" in rendered("md", [bare("table4")])
    assert "**" not in rendered("md", [bare("table1")])  # levels are no contest


def test_every_printed_cell_has_its_interval_or_its_footnote():
    lines = rendered("md", [bare("table2")])
    assert "30.0<br>9/30 [16.7, 47.9]" in lines and "40.0<br>no k/198 †" in lines and "≈10743/14042" in lines
    assert "> † GPQA Diamond, DPO cannot be k/198: 40.0 lies between 79/198 = 39.9 and 80/198 = 40.4.  " in lines
    assert "195<br>39.0 % of 500 [34.8, 43.3]" in rendered("md", [bare("table1")])
    for name, table in TABLES.items():
        (_, (_, grid)) = grids(bare(name))
        shown = [entry.lines[1] for _, entries in grid.rows for entry in entries if len(entry.lines) > 1]
        assert len(shown) == len(table.cells) and all("[" in text or text.endswith("†") for text in shown)


def test_measured_beside_printed():
    cells = {
        ("AIME2024", "SFT"): answers("c" * 6 + "w" * 24),
        ("AIME2024", "CRV+SFT"): answers("c" * 12 + "w" * 17 + "t"),
        ("MATH-500", "CRV+SFT"): answers("c" * 425 + "w" * 75),
    }
    table = bare("table2", cells, against={"CRV+SFT": "SFT"})
    text = rendered("md", [table])
    ours, theirs = "**40.0 %**<br>12/30 [24.6, 57.7]", "paper 26.7 (+13.3)<br>8/30 [14.2, 44.4]"
    assert f"| {ours}<br>{theirs}<br>+20.0 on SFT, p = .031 |" in text
    assert "| <u>20.0 %</u><br>6/30 [9.5, 37.3]<br>paper 20.0 (+0.0)<br>6/30 [9.5, 37.3] |" in text
    assert "| –<br>paper 30.0<br>9/30 [16.7, 47.9] |" in text
    assert "85.0 %<br>425/500" in text
    shown = rendered("html", [table], "t")
    assert '<span class="value rank1">40.0 %</span>' in shown and "+20.0 on SFT, p = .031" in shown
    assert '<span class="small theirs">paper 26.7 (+13.3)</span>' in shown
    tex = rendered("tex", [table])
    assert r"\textbf{40.0 \%}" in tex and r"\scriptsize paper 26.7 (+13.3)" in tex
    assert tex.count(r"\begin{tabular}") == 2  # as printed, and measured


def test_levels_are_counted_by_the_runs_of_build_crv(tmp_path):
    (tmp_path / "7b").mkdir()
    counts = {"easy": 70, "medium": 399, "hard": 30, "unrated": 1}
    (tmp_path / "7b/report.json").write_text(json.dumps({"levels_before": counts}))
    folders = {"7B": str(tmp_path / "7b"), "32B": str(tmp_path / "not there yet")}
    text = rendered("md", [bare("table1", levels=folders)])
    assert "| 70<br>14.0 % of 500 [11.2, 17.3]<br>paper 80 (−10)<br>16.0 % of 500 [13.0, 19.5] |" in text
    assert "| –<br>paper 19<br>3.8 % of 500 [2.4, 5.9] |" in text
    (tmp_path / "7b/report.json").write_text('{"levels": 3}')
    with pytest.raises(UserError, match=r"report\.json is damaged; run build_crv\.py there again"):
        levels(folders)


def test_a_figure_has_only_what_was_measured():
    empty = bare("figure6")
    text = rendered("md", [empty])
    assert "The paper's text has no numbers for Figure 6" in text and "| AIME2024 | – | – | – | – |" in text
    drawn = bare("figure6", {("AIME2024", "β = 0.1"): answers("cw")})
    assert "50.0 %<br>1/2 [9.5, 90.5]" in rendered("md", [drawn])
    assert chart(drawn) != chart(empty)


@pytest.mark.parametrize(("name", "column"), [("figure6", "tailored"), ("table9", "Ours")])
def test_charts_show_what_was_measured(name, column):
    charts = [chart(bare(name, {("AIME2024", column): answers(letters)})) for letters in ("cwww", "cccw")]
    assert charts[0] != charts[1]


def test_files(tmp_path):
    text = write(tmp_path / "new", "Figures", [bare("figure4a"), bare("figure4b")], {"m": "5 tokens/s"})
    names = {file.name for file in (tmp_path / "new").iterdir()}
    assert names == {"table.md", "table.html", "table.tex", "table.png", "table-figure4b.png"}
    assert (tmp_path / "new/table.md").read_text(encoding="utf-8") == text
    assert (tmp_path / "new/table.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"paper": "table7"}, "no 'table7'; there are table1, table2"),
        ({"paper": "table2", "columns": {"CogP": "cogpo"}}, "'CogP', not a column of the paper's table2; .* 'CogPO'"),
        ({"paper": "table2", "columns": {"CogPO": "cog"}}, "column CogPO shows model 'cog', which is not in models"),
        ({"columns": {"a": "cogpo"}, "against": {"a": "b"}}, "'b', not a column of that table"),
        ({"columns": {"a": "cogpo"}, "levels": {"a": "x"}}, "levels are for paper: table1"),
        ({}, "tables.t needs columns, or paper"),
    ],
)
def test_bad_tables(config, message):
    with pytest.raises(UserError, match=message):
        check("t", TableConfig(**config), {"cogpo"})


def test_a_tables_name_is_a_part_of_a_files_name():
    with pytest.raises(UserError, match=r"tables\.a/b: .* cannot have a slash"):
        check("a/b", TableConfig(columns={"a": "cogpo"}), {"cogpo"})


def test_benchmarks_that_no_table_would_show():
    """They would be generated, paid for and dropped."""
    paper, own = TableConfig(paper="table2"), TableConfig(columns={"a": "m"})
    check_rows({"t": paper}, {"gsm8k": "GSM8K", "MATH-500": "MATH-500"})
    check_rows({"t": own, "u": paper}, {"mine": None, "GSM8K": "GSM8K"})
    check_rows({"t": own}, {"a": "GSM8K", "b": "GSM8K"})
    with pytest.raises(UserError, match=r"benchmarks.mine is a row of no table: table2 has AIME2024, .*; leave it out"):
        check_rows({"t": paper}, {"GSM8K": "GSM8K", "mine": None})
    with pytest.raises(UserError, match=r"benchmarks.MMLU is a row of no table: table9 has"):
        check_rows({"t": TableConfig(paper="table9")}, {"MMLU": "MMLU"})
    with pytest.raises(UserError, match="benchmarks a and b are both the row GSM8K"):
        check_rows({"t": own, "u": paper}, {"a": "GSM8K", "b": "GSM8K"})


def test_there_is_a_config_for_every_table_and_figure():
    assert {name for file in CONFIGS for name in read_yaml(file)["tables"]} == set(TABLES | FIGURES)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_configs_fit_the_paper(file):
    raw, shared = read_yaml(file), read_yaml(ROOT / "configs/paper/models.yaml")
    assert {key: raw[key] for key in shared} == shared  # one folder of generations, one protocol
    assert raw["report"] == f"out/paper/{file.stem}"
    for name, section in raw["tables"].items():
        table = build(TableConfig, section)
        check(name, table, raw["models"])
        assert table.paper == name
        paper = PAPERS[name]
        assert list(table.columns or table.levels) == paper.columns
        assert list(raw["benchmarks"]) == ([] if paper.counts else list(paper.benchmarks))


def test_models_are_where_the_training_configs_write_them():
    models = read_yaml(ROOT / "configs/paper/models.yaml")["models"]
    for name, config in (("sft", "sft_7b"), ("crv_sft", "crv_sft_7b"), ("cogpo", "cogpo_7b")):
        assert models[name] == read_yaml(ROOT / f"configs/paper/{config}.yaml")["out"] + "/model"
    assert len(set(models.values())) == len(models)


# --- in the browser ---


@needs_browser
def test_table_2_is_seen_whole_on_a_laptop_and_scrolls_in_its_box_on_a_phone(tmp_path):
    places = [(row, column) for row in TABLES["table2"].rows for column in TABLES["table2"].columns]
    cells = {place: answers("c" * (400 + 9 * i) + "w" * (900 - 9 * i)) for i, place in enumerate(places)}
    path = tmp_path / "table.html"
    path.write_text(rendered("html", [bare("table2", cells)], "t"))
    browser = Browser(tmp_path / "profile")
    try:
        colours = []
        for width, dark in ((1344, False), (400, False), (400, True)):
            browser.screen(width, 900, dark)
            browser.open(path)
            assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            boxes = browser.run("[...document.querySelectorAll('.wide')].map(e => e.scrollWidth <= e.clientWidth)")
            assert all(boxes[:2]) == (width == 1344)
            # at the right edge of the measured grid a shade where columns are hidden; none once they show
            edge, box = tmp_path / "edge.png", "document.querySelectorAll('.wide')[1]"
            shades = []
            for scrolled in (0, 9999):
                at = browser.run(
                    f"{box}.scrollLeft = {scrolled}, {box}.scrollIntoView(), [{box}.getBoundingClientRect().right, "
                    f"{box}.getBoundingClientRect().top]"
                )
                browser.screenshot(edge)
                x, y = int(at[0]) - 1, int(at[1]) + 20
                pixels = matplotlib.image.imread(edge)[y, x - 12 : x + 1, :3]
                shades.append(bool(abs(pixels[-1] - pixels[0]).max() > 0.02))
            assert shades == [width == 400, False]
            colours.append(browser.run("getComputedStyle(document.body).backgroundColor"))
        assert colours[0] == colours[1] != colours[2] and not browser.said
    finally:
        browser.close()
