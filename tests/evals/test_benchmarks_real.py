"""The real files, where they are here: their sizes, and their own answers under the grader that they will meet."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data.rows import iter_rows
from errors import UserError
from evals import benchmarks
from evals.benchmarks.common import BenchmarkConfig
from grading.answers import extract_boxed

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = {  # name: (file, problems, how a response ends that says this row's answer, every how many-th shifted gold)
    "AIME2024": ("aime2024/test.jsonl", 30, lambda row: f"\\boxed{{{row['answer']}}}", 1),
    "MATH-500": ("math500/test.jsonl", 500, lambda row: row["solution"], 1),
    "GSM8K": ("gsm8k/test.jsonl", 1319, lambda row: f"The final answer is {row['answer'].split('#### ')[1]}.", 1),
    "OlympiadBench": (
        "olympiadbench_math_en/OE_TO_maths_en_COMP.jsonl",
        675,
        lambda row: f"So the final answer is \\boxed{{{row['final_answer'][0]}}}.",
        7,
    ),
    "MMLU": ("mmlu/test.jsonl", 14042, lambda row: f"\\boxed{{{'ABCD'[row['answer']]}}}", 1),
}
# A shifted gold that is right, by question: `x=5` answers a question whose gold is 5.
SHIFTED_AND_RIGHT = {"test/algebra/1837.json"}
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the public benchmark files are not here")


@pytest.fixture(scope="module", params=FILES)
def real(request):
    """(name, problems, rows, sentence, step) of one benchmark."""
    file, _, sentence, step = FILES[request.param]
    cfg = BenchmarkConfig(file=str(DATA / file))
    rows = [row for _, row in iter_rows(DATA / file)]
    return request.param, benchmarks.load(request.param, cfg, allow_size=True), rows, sentence, step


def grade_all(problems, texts):
    module = benchmarks.family(problems[0].kind)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda item: module.grade(*item, True), zip(problems, texts, strict=True)))


def test_sizes(real):
    name, problems, _, _, _ = real
    file, expected, _, _ = FILES[name]
    assert len(problems) == expected
    cfg = BenchmarkConfig(file=str(DATA / file))
    if name == "OlympiadBench":  # the first public file: one problem more than Table 7
        with pytest.raises(UserError, match=r"holds 675 problems, OlympiadBench \(math-en\) has 674"):
            benchmarks.load(name, cfg)
        assert "675" in benchmarks.notes(name, BenchmarkConfig(), problems)[0]
    else:
        assert benchmarks.load(name, cfg) == problems
        assert benchmarks.notes(name, cfg, problems) == []


def test_every_own_answer_is_right(real):
    _, problems, rows, sentence, _ = real
    verdicts = grade_all(problems, [f"<think>Hm: \\boxed{{-17}}.</think>{sentence(row)}" for row in rows])
    assert {p.id: v for p, v in zip(problems, verdicts, strict=True) if v.status != "correct"} == {}


def test_the_next_problems_answer_is_not(real):
    _, problems, _, _, step = real
    pairs = zip(problems[::step], [*problems[1:], problems[0]][::step], strict=True)
    pairs = [(problem, other.gold) for problem, other in pairs if problem.gold != other.gold]
    verdicts = grade_all([problem for problem, _ in pairs], [f"\\boxed{{{gold}}}" for _, gold in pairs])
    right = {problem.id for (problem, _), v in zip(pairs, verdicts, strict=True) if v.status != "wrong"}
    assert right <= SHIFTED_AND_RIGHT and len(pairs) >= 30


def test_an_unfinished_thought_is_never_right(real):
    _, problems, rows, sentence, _ = real
    verdicts = grade_all(problems, [f"<think>{sentence(row)}" for row in rows])
    assert {v.status for v in verdicts} == {"truncated"}


def test_mmlu_options_by_their_own_text():
    """A box may hold the text of an option instead of its letter. Not always told: options that name other options
    ("(A) and (C)"), begin like one ("B. F. Skinner"), or differ in the case of a letter only ("Gab", "gAB")."""
    problems = benchmarks.load("MMLU", BenchmarkConfig(file=str(DATA / "mmlu/test.jsonl")))[::40]
    texts = [f"\\boxed{{{p.extra['options']['ABCD'.index(p.gold)]}}}" for p in problems]
    verdicts = grade_all(problems, texts)
    assert sum(v.status == "correct" for v in verdicts) >= 0.99 * len(problems)


def test_math500_answers_are_the_last_boxes_of_their_solutions():
    for _, row in iter_rows(DATA / "math500/test.jsonl"):
        assert re.sub(r"\s", "", extract_boxed(row["solution"])) == re.sub(r"\s", "", row["answer"])
