"""What a grade is known by: the files that decide it, and no others."""

import json
import shutil
import subprocess
import sys

import pytest

from evals.benchmarks.common import KINDS
from evals.grade import grader_id
from pocket.tiny import make_model
from tests.support.evaluate_cli import ROOT, lines

ROOMS = ("agents", "data", "evals", "grading", "losses", "model", "pages")
NAMED = f"import json; from evals.grade import *; print(json.dumps({{k: grader_id(k) for k in {list(KINDS)}}}))"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project, to edit."""
    folder = tmp_path_factory.mktemp("copy")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.glob("*.py"):
        shutil.copy(file, folder)
    return folder


def ids(folder):
    """{kind: the grader_id of the project in this folder}"""
    done = subprocess.run([sys.executable, "-c", NAMED], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


TEXT = {"aime2024", "math500", "gsm8k", "olympiadbench", "gpqa_diamond", "mmlu", "local"}


@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("grading/symbolic.py", TEXT),  # run as a process of its own
        ("grading/answers.py", TEXT),
        ("grading/workers.py", TEXT),
        ("grading/choices.py", {"gpqa_diamond", "mmlu"}),
        ("grading/cell.py", {"livecodebench_v2"}),
        ("grading/compare_output.py", {"livecodebench_v2"}),
        ("grading/extraction.py", set(KINDS)),
        ("evals/benchmarks/olympiad.py", {"olympiadbench"}),
        ("pages/page.py", set()),
        ("evals/tables.py", set()),
        ("agents/crv.py", set()),
    ],
)
def test_an_edit_counts_where_it_can_change_a_verdict(copy, file, kinds):
    before, text = ids(copy), (copy / file).read_text()
    (copy / file).write_text(text + "# edited\n")
    after = ids(copy)
    (copy / file).write_text(text)
    assert {kind for kind in KINDS if before[kind] != after[kind]} == kinds


def test_it_is_the_content_that_counts(copy):
    assert ids(copy) == {kind: grader_id(kind) for kind in KINDS}
    assert len(set(ids(copy).values())) == len({kind.family for kind in KINDS.values()})


def test_an_edited_grader_grades_anew_what_is_kept(copy, tmp_path):
    rows = [{"id": f"p{i}", "problem": f"{i}+{i}", "answer": str(2 * i)} for i in range(3)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, model = tmp_path / "out", make_model(tmp_path / "model")
    command = [sys.executable, "evaluate.py", f"out={out}", f"models.m={model}", "max_new_tokens=4"]
    command.append(f"benchmarks.sums.file={tmp_path}/sums.jsonl")

    def evaluate(*more):
        done = subprocess.run([*command, *more], cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done, len(lines(out / "grades.jsonl"))

    first, count = evaluate()
    assert count == 3 and "/3)" in first.stdout
    with (copy / "pages/page.py").open("a") as file:
        file.write("# edited\n")
    assert evaluate()[1] == 3
    with (copy / "grading/symbolic.py").open("a") as file:
        file.write("# edited\n")
    rendered, count = evaluate("--render-only")
    assert (
        count == 3 and "/3)" not in rendered.stdout and "3 responses have grades of another grader" in rendered.stderr
    )
    again, count = evaluate("--grade-only")
    assert count == 6 and again.stdout == first.stdout
