"""Benchmark families on small files: columns of the hub and of local copies, sizes, bad rows, options."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from errors import UserError
from evals import benchmarks
from evals.benchmarks import choice
from evals.benchmarks.common import KINDS, BenchmarkConfig
from evals.published import SIZES, TABLES
from tests.support.benchmark_rows import GPQA, MMLU, ROWS, load, one, write

ROOT = Path(__file__).resolve().parents[2]

# --- which benchmark ---


def test_the_names_of_the_papers_tables_are_kinds():
    assert {kind.title for kind in KINDS.values()} - {""} == set(SIZES)
    for name, kind in benchmarks.NAMES.items():
        assert benchmarks.kind_of(name, BenchmarkConfig()) == kind
    printed = {benchmark for table in TABLES.values() for benchmark, _ in table.cells} - {"Easy", "Medium", "Hard"}
    assert printed <= set(benchmarks.NAMES)
    assert benchmarks.kind_of("gsm8k", BenchmarkConfig()) == "gsm8k"
    assert benchmarks.kind_of("my own", BenchmarkConfig(file="a.jsonl")) == "local"
    assert benchmarks.kind_of("GSM8K", BenchmarkConfig(file="a.jsonl", kind="local")) == "local"


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("mine", {}, "benchmarks.mine needs a file"),
        ("mine", {"kind": "mmlux"}, "did you mean mmlu?"),
        ("GSM8K", {"kind": "local"}, "benchmarks.GSM8K needs a file"),
        ("GSM8K", {"file": "absent.jsonl"}, "no such file: absent.jsonl"),
        ("GSM8K", {"file": "absent.csv"}, "no such file: absent.csv"),
        ("GSM8K", {"file": "absent.parquet"}, "no such file: absent.parquet"),
    ],
)
def test_a_config_that_cannot_be_meant(name, keys, message):
    with pytest.raises(UserError, match=message) as error:
        benchmarks.load(name, BenchmarkConfig(**keys))
    assert "\n" not in str(error.value)


# --- reading ---


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", "hub"])
def test_rows_of_the_hub_and_of_local_copies(tmp_path, kind, suffix, monkeypatch):
    for number, row in enumerate(ROWS[kind]):
        if suffix == "hub":  # the same call as for the hub: `datasets` takes a folder for a repository
            folder = tmp_path / f"repo{number}"
            folder.mkdir()
            write(folder / "train.parquet", [row])
            here = replace(KINDS[kind], repo=str(folder), subset=None, split="train")
            monkeypatch.setitem(KINDS, kind, here)
            monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
            (problem,) = benchmarks.load("bench", BenchmarkConfig(kind=kind), allow_size=True)
        else:
            (problem,) = load(tmp_path, kind, [row], suffix)
        golds = {"aime2024": ("33", "033"), "math500": "\\pi", "gsm8k": "1018", "olympiadbench": "69,84", "mmlu": "B"}
        assert problem.gold in golds.get(kind, "ABCD") and problem.gold
        assert problem.benchmark == "bench" and problem.kind == kind
        assert isinstance(problem.id, str) and problem.private == (kind == "gpqa_diamond")


def test_gpqa_from_the_csv_of_its_authors(tmp_path):
    rows = [GPQA | {"Record ID": f"rec{i}", "Question": f'Line "one",\nline {i}'} for i in range(3)]
    assert load(tmp_path, "gpqa_diamond", rows, ".csv") == load(tmp_path, "gpqa_diamond", rows)
    rows[2]["Correct Answer"] = " "
    with pytest.raises(UserError, match=r"rows.csv:8: a test problem needs Correct Answer, which is empty"):
        load(tmp_path, "gpqa_diamond", rows, ".csv")


def test_ids_where_a_benchmark_has_none(tmp_path):
    rows = [MMLU, MMLU | {"subject": "logic"}, MMLU]
    assert [p.id for p in load(tmp_path, "mmlu", rows)] == ["arithmetic/1", "logic/1", "arithmetic/2"]
    assert [p.id for p in load(tmp_path, "gsm8k", ROWS["gsm8k"] * 2)] == ["1", "2"]


def test_an_empty_file_and_a_column_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="holds no problems"):
        load(tmp_path, "local", [])
    with pytest.raises(UserError, match=r"rows\.jsonl:1: a test problem needs task, which is missing"):
        load(tmp_path, "math500", ROWS["math500"], split="task")


def test_groups_come_from_any_column(tmp_path):
    assert load(tmp_path, "math500", ROWS["math500"][:1], split="level")[0].group == "2"
    assert load(tmp_path, "gpqa_diamond", [GPQA], split="High-level domain")[0].group == "Physics"
    assert load(tmp_path, "mmlu", [MMLU])[0].group == ""


ABSENT = object()


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("local", {"answer": ""}, "needs answer, which is empty"),
        ("local", {"id": "a"}, "duplicate id 'a', first seen at .*:1"),
        ("aime2024", {"Answer": None}, "needs Answer or answer, which is missing"),
        ("aime2024", {"Problem": " "}, "needs Problem, which is empty"),
        ("aime2024", {"Answer": 2.5}, "needs Answer to be text, not float"),
        ("math500", {"answer": ABSENT}, "needs answer, which is missing"),
        ("math500", {"problem": ["p"]}, "needs problem to be text, not list"),
        ("gsm8k", {"answer": "It is 18."}, "answer must end with a line `#### number`"),
        ("olympiadbench", {"final_answer": []}, "needs final_answer, a list of one text"),
        ("olympiadbench", {"final_answer": [""]}, "needs final_answer, which is empty"),
        ("olympiadbench", {"is_multiple_answer": ABSENT}, "needs is_multiple_answer, true or false"),
        ("olympiadbench", {"error": "about 1"}, "error must be a number"),
        ("mmlu", {"choices": ["3", "4", "5"]}, "needs choices, a list of 4; there are 3"),
        ("mmlu", {"choices": ["3", "4", "5", ""]}, "needs choices, which is empty"),
        ("mmlu", {"choices": ABSENT}, "needs choices, a list of 4; there are none"),
        ("mmlu", {"answer": 4}, "answer must be 0 to 3 or A to D"),
        ("mmlu", {"answer": "AB"}, "answer must be 0 to 3 or A to D"),
        ("gpqa_diamond", {"Incorrect Answer 3": ABSENT}, "needs Incorrect Answer 3, which is missing"),
        ("gpqa_diamond", {"Question": ["SECRET"]}, "needs Question to be text, not list"),
        ("gpqa_diamond", {"Record ID": ""}, "needs Record ID, which is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path, kind, change, message):
    good = ROWS[kind][0] if kind in ROWS else {"id": "b", "problem": "1+1?", "answer": "2"}
    first = good | ({"Record ID": "rec0"} if kind == "gpqa_diamond" else {"id": "a"} if kind == "local" else {})
    bad = {key: value for key, value in (good | change).items() if value is not ABSENT}
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path, kind, [first, bad])
    assert f"{tmp_path / 'rows.jsonl'}:2: " in str(error.value)
    assert "SECRET" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_damaged_files_are_named_and_not_quoted(tmp_path, suffix):
    file = tmp_path / f"bad{suffix}"
    file.write_bytes(b'Record ID,Question,"SECRET\xff\n"SECRET\n\xff')
    with pytest.raises(UserError, match=f"bad{suffix}.*not (valid|UTF-8|a parquet)") as error:
        benchmarks.load("GPQA-D", BenchmarkConfig(file=str(file)))
    assert "SECRET" not in str(error.value) and "\n" not in str(error.value)


def test_duplicated_ids(tmp_path):
    with pytest.raises(UserError, match=r"rows.jsonl:2: duplicate id 'rec1', first seen at .*rows.jsonl:1"):
        load(tmp_path, "gpqa_diamond", [GPQA, GPQA | {"Question": "another"}])


def test_without_a_hub_each_benchmark_says_which_file_would_do(tmp_path):
    """In a process of its own: what is cached on this machine must not be found."""
    script = """
from errors import UserError
from evals import benchmarks
from evals.benchmarks.common import BenchmarkConfig
for name in ("AIME2024", "MATH-500", "GSM8K", "OlympiadBench", "GPQA Diamond", "MMLU"):
    try:
        benchmarks.load(name, BenchmarkConfig())
    except UserError as error:
        print(error)
"""
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        env.pop(name, None)
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, cwd=tmp_path)
    messages = done.stdout.splitlines()
    assert len(messages) == 6, done.stderr
    for message, (repo, columns) in zip(
        messages,
        [
            ("Maxwell-Jia/AIME_2024", "ID, Problem, Answer"),
            ("HuggingFaceH4/MATH-500", "unique_id, problem, answer"),
            ("openai/gsm8k", "question, answer"),
            ("Hothan/OlympiadBench", "id, question, answer_type, final_answer, is_multiple_answer, unit, error"),
            ("Idavidrein/gpqa", "Record ID, Question, Correct Answer, Incorrect Answer 1"),
            ("cais/mmlu", "subject, question, answer, choices"),
        ],
        strict=True,
    ):
        assert f"no {repo} from the hub (" in message and columns in message and ".file to a local file" in message
    assert "accept its terms on the hub and log in" in messages[4] and "accept" not in messages[5]


# --- sizes ---


def test_the_number_of_problems_is_table_7s_or_is_allowed_and_shown(tmp_path):
    rows = [{"id": i, "problem": f"{i}+1?", "answer": i + 1} for i in range(31)]
    whole = BenchmarkConfig(file=write(tmp_path / "whole.jsonl", rows[:30]))
    problems = benchmarks.load("AIME2024", whole)
    assert len(problems) == 30 and benchmarks.notes("AIME2024", whole, problems) == []

    for number in (29, 31):
        other = BenchmarkConfig(file=write(tmp_path / "other.jsonl", rows[:number]), limit=5)
        message = rf"holds {number} problems, AIME2024 has 30 .*set allow_size=true"
        with pytest.raises(UserError, match=message):
            benchmarks.load("AIME2024", other)  # a limit does not make a wrong file right
        allowed = replace(other, limit=0)
        problems = benchmarks.load("AIME2024", allowed, allow_size=True)
        note = f"AIME2024: {number} problems (allow_size); the paper's Table 7 has 30."
        assert len(problems) == number and benchmarks.notes("AIME2024", allowed, problems) == [note]

    cut = replace(whole, limit=5)
    problems = benchmarks.load("AIME2024", cut)
    note = "AIME2024: 5 problems (limit: 5); the paper's Table 7 has 30."
    assert [p.id for p in problems] == list("01234") and benchmarks.notes("AIME2024", cut, problems) == [note]

    own = replace(whole, kind="local", limit=5)
    (note,) = benchmarks.notes("mine", own, benchmarks.load("mine", own))
    assert "the first 5 problems of" in note
    own = replace(own, limit=0)
    assert benchmarks.notes("mine", own, benchmarks.load("mine", own)) == []


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_checks_its_size(tmp_path, kind):
    cfg = BenchmarkConfig(file=write(tmp_path / "rows.jsonl", ROWS[kind][:1]))
    with pytest.raises(UserError, match=rf"holds 1 problems, .* has {SIZES[KINDS[kind].title]} in"):
        benchmarks.load(KINDS[kind].title, cfg)


# --- the order of GPQA's options ---


def test_the_order_of_options_is_recorded_and_the_same_everywhere(tmp_path):
    rows = [GPQA | {"Record ID": f"rec{i}"} for i in range(400)]
    problems = load(tmp_path, "gpqa_diamond", rows)
    assert load(tmp_path, "gpqa_diamond", rows[::-1]) == problems[::-1]  # of the question, not of its place
    plain = [GPQA[KINDS["gpqa_diamond"].columns[option][0]].strip() for option in choice.OPTIONS]
    for problem in problems:
        order = problem.record["order"]
        assert [plain[i] for i in order] == problem.extra["options"]
        assert problem.extra["options"]["ABCD".index(problem.gold)] == "SECRET right"
        shown = problem.question.split("\n")[1]
        assert shown == "A) {}, B) {}, C) {}, D) {}".format(*problem.extra["options"])
    counts = Counter(tuple(p.record["order"]) for p in problems)
    assert len(counts) == 24 and max(counts.values()) < 35, "all orders, none preferred"
    golds = Counter(p.gold for p in problems)
    assert all(70 < golds[letter] < 130 for letter in "ABCD")

    # pinned: with another order, results would no longer compare
    assert [p.record["order"] for p in problems[:3]] == [[2, 0, 1, 3], [1, 2, 0, 3], [0, 2, 1, 3]]


def test_a_private_problem_shows_nothing_of_itself(tmp_path):
    problem = one(tmp_path, "gpqa_diamond", GPQA)
    assert "SECRET" in problem.question and "SECRET" not in repr(problem) and "SECRET" not in f"{[problem]}"
    for text in ("\\boxed{SECRET one}", "The answer is SECRET right.", "SECRET", "\\boxed{A}"):
        verdict = choice.grade(problem, text, True)
        assert "SECRET" not in f"{verdict.extracted} {verdict.detail}"
