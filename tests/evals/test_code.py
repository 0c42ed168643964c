"""LiveCodeBench: both file formats, hidden tests that mean harm, extraction, grading in the sandbox."""

import base64
import json
import os
import pickle
import tracemalloc
import zlib
from pathlib import Path

import pytest

from errors import UserError
from evals import benchmarks
from evals.benchmarks import code
from evals.benchmarks.common import BenchmarkConfig
from grading import hidden_tests
from grading.extraction import extract_code

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "lcb_v2"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/lcb_v2")


def encoded(value):
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def case(given, expected, kind="stdin"):
    return {"input": given, "output": expected, "testtype": kind}


STDIN = {  # as the hub has it
    "question_id": "abc1_a",
    "question_content": "Print twice {N}.",
    "platform": "atcoder",
    "difficulty": "easy",
    "starter_code": "",
    "public_test_cases": json.dumps([case("1\n", "2\n")]),
    "private_test_cases": encoded(json.dumps([case("2\n", "4\n"), case("0.25\n", "0.5\n")])),
    "metadata": "{}",
}
FUNCTION = STDIN | {
    "question_id": "2727",
    "difficulty": "hard",
    "starter_code": "class Solution:\n    def add(self, a: List[int], b: int) -> List[int]:\n        ",
    "public_test_cases": json.dumps([case("[1, 2]\n3", "[4, 5]", "functional")]),
    "private_test_cases": encoded(json.dumps([case("[]\n1", "[]", "functional")])),
    "metadata": json.dumps({"func_name": "add"}),
}
WINDOW = {  # as ../shared/data/lcb_v2/problems_window.jsonl has it
    "question_id": "w",
    "question_content": "Add.",
    "starter_code": FUNCTION["starter_code"],
    "fn_name": "add",
    "public_test_cases": [case("[1]\n3", "[4]", "functional")],
    "extra_test_cases": [case("[5]\n1", "[6]", "functional")],
}


def load(tmp_path, *rows, allow_size=True, **options):
    file = tmp_path / "lcb.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = BenchmarkConfig(kind="livecodebench_v2", file=str(file), **options)
    return benchmarks.load("LCB", cfg, allow_size=allow_size)


def fenced(program, tag="python"):
    return f"<think>Hm.\n```python\nprint('a draft')\n```\n</think>\nSo:\n```{tag}\n{program}\n```\n"


# --- loading ---


def test_both_formats(tmp_path):
    first, second, third = load(tmp_path, STDIN, FUNCTION, WINDOW, split="")
    assert (first.id, first.question, first.gold, first.benchmark) == ("abc1_a", "Print twice {N}.", "", "LCB")
    assert first.kind == "livecodebench_v2"
    assert first.extra["tests"].read() == {
        "fn_name": None, "inputs": ["1\n", "2\n", "0.25\n"], "outputs": ["2\n", "4\n", "0.5\n"],
    }  # fmt: skip
    assert second.extra["tests"].read() == {
        "fn_name": "add", "inputs": [[[1, 2], 3], [[], 1]], "outputs": [[4, 5], []],
    }  # fmt: skip
    assert third.extra["tests"].read()["inputs"] == [[[1], 3], [[5], 1]]
    assert [p.group for p in load(tmp_path, STDIN, FUNCTION, split="difficulty")] == ["easy", "hard"]


def test_grades_depend_on_the_tests(tmp_path):
    (problem,) = load(tmp_path, STDIN)
    (other,) = load(tmp_path, STDIN | {"private_test_cases": encoded("[]")})
    assert problem.extra["tests_sha256"] != other.extra["tests_sha256"]


def test_size_is_that_of_table_7(tmp_path):
    with pytest.raises(UserError, match="holds 2 problems, LiveCodeBench V2 has 511"):
        load(tmp_path, STDIN, FUNCTION, allow_size=False)
    assert len(load(tmp_path, STDIN, FUNCTION, limit=1)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"public_test_cases": "[]", "private_test_cases": encoded("[]")},
            "no tests, so nothing could be right: abc1_a",
        ),
        ({"public_test_cases": None}, ":2: public_test_cases must be a list of tests, not NoneType"),
        ({"public_test_cases": "[1"}, ":2: public_test_cases is not valid JSON"),
        ({"question_content": " "}, ":2: a test problem needs question_content"),
        ({"question_id": "2727"}, ":2: duplicate id '2727', first seen at .*:1"),
        ({"metadata": "func"}, ":2: metadata must be a JSON object"),
        ({"starter_code": "class Solution: …"}, ":2: starter_code and the function's name go together"),
    ],
)
def test_bad_rows_are_one_line(tmp_path, change, message):
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, FUNCTION, STDIN | change)
    assert "\n" not in str(caught.value)


def test_bad_files_are_one_line(tmp_path):
    (tmp_path / "cut.jsonl").write_text(json.dumps(STDIN) + "\n" + json.dumps(FUNCTION)[:100])
    with pytest.raises(UserError, match=r"cut.jsonl:2: not valid JSON"):
        benchmarks.load("LCB", BenchmarkConfig(kind="livecodebench_v2", file=str(tmp_path / "cut.jsonl")))
    with pytest.raises(UserError, match=r"cannot read .*absent.jsonl: No such file"):
        benchmarks.load("LCB", BenchmarkConfig(kind="livecodebench_v2", file=str(tmp_path / "absent.jsonl")))


def test_a_hub_that_cannot_be_reached_names_the_file_that_would_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nonexistent")
    with pytest.raises(UserError, match=r"set benchmarks.LCB.file to one file with the lines of its test.jsonl and"):
        benchmarks.load("LCB", BenchmarkConfig(kind="livecodebench_v2"))


# --- hidden tests that mean harm ---


class Runs:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_a_pickle_that_runs_something_is_refused(tmp_path):
    mark = tmp_path / "was-here"
    bad = STDIN | {"private_test_cases": encoded(["[{", Runs(mark)])}
    with pytest.raises(UserError, match=r"lcb.jsonl:1: private_test_cases cannot be read \(UnpicklingError: it names"):
        code.grade(load(tmp_path, bad | {"public_test_cases": STDIN["public_test_cases"]})[0], fenced("print(2)"), True)
    assert not mark.exists()
    pickle.loads(zlib.decompress(base64.b64decode(bad["private_test_cases"])))
    assert mark.exists()  # so it was a real attack


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # the oldest protocol
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # an extension's code
        b"Pname\n.",  # a persistent id
        b"\x80\x04\x8c\x01xr\xff\xff\xff\x7f\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # much memory in few bytes
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x8d\xff\xff\xff\xff\x00\x00\x00\x00.",
        b"",
    ],
)
def test_hostile_pickles(data):
    with pytest.raises(UserError, match="x:1: private_test_cases cannot be read") as caught:
        hidden_tests.load_strings(base64.b64encode(zlib.compress(data)).decode(), "x:1")
    assert "\n" not in str(caught.value)


def test_a_pickle_allocates_no_size_that_it_only_names():
    byte_array = b"\x80\x05\x96" + (256 << 20).to_bytes(8, "little") + b"x."
    tracemalloc.start()
    with pytest.raises(UserError, match="private_test_cases cannot be read"):
        hidden_tests.load_strings(base64.b64encode(zlib.compress(byte_array)).decode(), "x:1")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_bomb_of_zeros_is_not_unpacked():
    bomb = encoded("0" * (64 << 20))
    assert len(bomb) < 100_000
    with pytest.raises(UserError, match="more than 1048576 bytes"):
        hidden_tests.load_strings(bomb, "x:1", largest=1 << 20)


@pytest.mark.parametrize("text", ["no base64!", base64.b64encode(b"no zlib").decode(), encoded("[{}]" * 9999)[:-60]])
def test_damaged_tests(text):
    with pytest.raises(UserError, match="private_test_cases cannot be read"):
        hidden_tests.load_strings(text, "x:1")


@shared
def test_official_hidden_tests():
    """Of three real problems, in the wrapping of another project: a dict with one text."""
    functions = []
    for line in (SHARED / "official_tests_3problems_sandboxfusion.jsonl").read_text().splitlines():
        tests = json.loads(hidden_tests.load_strings(json.loads(line)["test"], "there")["input_output"])
        assert len(tests["inputs"]) == len(tests["outputs"]) >= 5
        functions.append(tests["fn_name"])
    assert sorted(functions, key=str) == [None, None, "countSeniors"]


@shared
def test_the_public_window(tmp_path):
    """512 problems; the two interactive ones have no tests there."""
    config = BenchmarkConfig(kind="livecodebench_v2", file=str(SHARED / "problems_window.jsonl"))
    with pytest.raises(UserError, match="no tests, so nothing could be right: abc337_e, abc355_e"):
        benchmarks.load("LCB", config)
    rows = [json.loads(line) for line in (SHARED / "problems_window.jsonl").read_text().splitlines()]
    problems = load(tmp_path, *(row for row in rows if row["public_test_cases"]))
    assert len(problems) == 510 and sum(bool(p.extra["tests"].read()["fn_name"]) for p in problems) == 236


# --- asking ---


def test_prompts(tmp_path):
    stdin, function = load(tmp_path, STDIN, FUNCTION)
    asked = benchmarks.instruction(function, "paper").replace("{problem}", function.question)
    assert FUNCTION["starter_code"] in asked and "Print twice {N}." in asked and "stdin" not in asked
    asked = benchmarks.instruction(stdin, "r1")
    assert "{problem}" in asked and "Read the inputs from stdin" in asked and "starter code" not in asked


# --- the program of an answer ---


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nx\n```", "x"),
        ("first\n```python\nx\n```\nthen\n```py\ny\n```\nIts output:\n```\n3\n```", "y"),
        ("```\nx\n```\nand\n```\ny\n```", "y"),
        ("1. So:\n   ```Python3\n   if x:\n       y\n   ```", "if x:\n    y"),
        ("The code is ```python\r\nx\r\n```\r\n", "x"),
        ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''"),
        ("```python\nx", "x"),  # the model ended without closing it
        ("```python\nx\n```\n```python\n\n```", "x"),
        ("print(3)", None),
        ("`print(3)` and ```print(4)```", None),
        ("", None),
    ],
)
def test_extraction(text, program):
    assert extract_code(text) == program


def test_a_response_that_was_cut_has_a_program_only_once_its_block_ends():
    assert extract_code("```python\nx\n```\nIn words", finished=False) == "x"
    assert extract_code("```python\nx\n```\nBetter:\n```python\ny", finished=False) is None


# --- grading ---


def graded(problem, text, finished=True):
    grade = code.grade(problem, text, finished)
    return grade.status, grade.detail


def test_verdicts(tmp_path):
    stdin, function = load(tmp_path, STDIN, FUNCTION)
    double = "n = float(input())\nprint(f'{2 * n:g}')"
    assert graded(stdin, fenced(double)) == ("correct", "exact: 3 tests")
    assert code.grade(stdin, fenced(double), True).extracted == double
    assert graded(stdin, fenced("print(f'{2 * float(input()) + 1e-7:.9f}')")) == (
        "wrong",
        "wrong on test 1 of 3: 2.000000100",
    )
    near = "n = float(input())\nprint(f'{2 * n:g}' if n > 0.5 else 0.5000001)"
    assert graded(stdin, fenced(near)) == ("wrong", "tolerant only: 3 tests")
    assert graded(stdin, fenced("print(2)")) == ("wrong", "wrong on test 2 of 3: 2")
    assert graded(stdin, fenced("import nonsense"))[1].startswith("error on test 1 of 3: ModuleNotFoundError")
    method = "class Solution:\n    def add(self, a: List[int], b):\n        return [x + b for x in a]"
    assert graded(function, fenced(method)) == ("correct", "exact: 2 tests")
    assert graded(function, fenced("def add(a, b):\n    return a"))[1].startswith("wrong on test 1 of 2")


def test_hidden_tests_decide(tmp_path):
    (problem,) = load(tmp_path, FUNCTION)
    assert graded(problem, fenced("def add(a, b): return [4, 5]")) == ("wrong", "wrong on test 2 of 2: [4, 5]")


def test_what_is_no_answer(tmp_path):
    (problem,) = load(tmp_path, STDIN)
    right = "```python\nprint(f'{2 * float(input()):g}')\n```"
    assert graded(problem, f"<think>So\n{right}", False)[0] == "truncated"  # inside an unfinished thought
    assert graded(problem, f"<think>So\n{right}", True)[0] == "truncated"
    assert graded(problem, f"<think>Hm</think>\n{right[:-4]}", False)[0] == "truncated"
    assert graded(problem, f"<think>{right}</think> I do not know.", True)[0] == "no_answer"
    assert graded(problem, f"<think>Hm</think>\n{right} because", False)[0] == "correct"


def test_time_is_a_status_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "LIMITS", code.Limits(seconds=0.5))
    (problem,) = load(tmp_path, STDIN)
    status, detail = graded(problem, fenced("while True: pass"))
    assert status == "timeout" and detail.startswith("timeout on test 1 of 3: after")


def test_the_report_names_the_isolation():
    (line,) = code.notes(["a cell", "another"])
    assert "ran in a cell, or another. 6 s" in line and "exact verdicts" in line
    assert code.notes([])[0].startswith("LiveCodeBench: 6 s")
