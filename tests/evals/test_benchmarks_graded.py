"""Benchmark families: the prompts of both protocols, and what a response is graded as."""

import pytest

from evals import benchmarks
from evals.benchmarks import olympiad
from grading import STATUSES
from tests.support.benchmark_rows import GPQA, MMLU, OLYMPIAD, ROWS, one

# --- prompts ---


def prompt(problem, protocol):
    template = benchmarks.instruction(problem, protocol)
    assert template.count("{problem}") == 1
    return template.replace("{problem}", problem.question)


SKYTHOUGHT = "Return your final response within \\boxed{}. "
STEP = "\nPlease reason step by step, and put your final answer within \\boxed{}."
SIMPLE_EVALS = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering.\n\n"
)
CHOICES = "2 + 2?\nAnswer Choices: (A) 3 (B) 4 (C) 5 (D) 6"


@pytest.mark.parametrize(
    ("kind", "paper", "r1"),
    [
        ("aime2024", SKYTHOUGHT + "1+1?", "1+1?" + STEP),
        ("math500", SKYTHOUGHT + "p", "p" + STEP),
        (
            "gsm8k",
            "Given the following problem, reason and give a final answer to the problem.\nProblem: How many eggs?\n"
            'Your response should end with "The final answer is [answer]" where [answer] is the response to the '
            "problem.",
            "How many eggs?" + STEP,
        ),
        ("mmlu", SKYTHOUGHT + CHOICES, SIMPLE_EVALS + CHOICES),
    ],
)
def test_prompts(tmp_path, kind, paper, r1):
    problem = one(tmp_path, kind, ROWS[kind][0])
    assert (prompt(problem, "paper"), prompt(problem, "r1")) == (paper, r1)


def test_prompts_of_gpqa(tmp_path):
    problem = one(tmp_path, "gpqa_diamond", GPQA)
    only = (
        "within \\boxed{} and only include the letter choice (A, B, C, or D) as your final response. SECRET question?\n"
    )
    assert prompt(problem, "paper").startswith("Return your final response " + only + "A) ")
    assert prompt(problem, "r1") == SIMPLE_EVALS + problem.question


def test_prompts_of_olympiadbench_say_type_number_and_unit(tmp_path):
    several = one(tmp_path, "olympiadbench", OLYMPIAD)
    assert prompt(several, "paper") == SKYTHOUGHT + "Which $n$?"
    asked = prompt(several, "r1")
    assert "The problem has multiple answers, each of them should be a numerical value. Please calc" in asked
    assert 'with "So the final answer is \\boxed{multiple answers connected with commas}." and give' in asked
    assert asked.endswith("result explicitly.\nWhich $n$?")

    single = OLYMPIAD | {"is_multiple_answer": False, "unit": "km", "answer_type": "Expression"}
    asked = prompt(one(tmp_path, "olympiadbench", single), "r1")
    assert "competition. The answer of The problem should be an expression. Please" in asked
    assert '\\boxed{answer}(unit)."' in asked and "unit of the answer should not be included in \\boxed{}.\n" in asked

    mixed = OLYMPIAD | {"answer_type": "Numerical,Interval"}
    assert "in order being a numerical value, an interval. " in prompt(one(tmp_path, "olympiadbench", mixed), "r1")
    assert "competition. Please" in prompt(one(tmp_path, "olympiadbench", OLYMPIAD | {"answer_type": "Tuple"}), "r1")


def test_local_problems_are_asked_as_they_stand(tmp_path):
    problem = one(tmp_path, "local", {"id": "a", "problem": "1+1?", "answer": "2"})
    assert prompt(problem, "paper") == prompt(problem, "r1") == "1+1?"


# --- grading ---


def statuses(problem, cases):
    family = benchmarks.family(problem.kind)
    verdicts = [family.grade(problem, text, finished) for text, finished in cases]
    assert all(v.status in STATUSES and "\n" not in v.detail for v in verdicts)
    return [v.status for v in verdicts]


@pytest.mark.parametrize("kind", [*ROWS, "local"])
def test_statuses_of_every_family(tmp_path, kind):
    row = ROWS[kind][0] if kind in ROWS else {"id": "a", "problem": "1+1?", "answer": "2"}
    problem = one(tmp_path, kind, row)
    wrong = "ABCD"["ABCD".index(problem.gold) - 1] if problem.gold in "ABCD" else "777"
    box = f"\\boxed{{{problem.gold}}}"
    cases = {
        (f"<think>Hm.</think>So {box}.", True): "correct",
        (f"<|begin_of_thought|>\\boxed{{{wrong}}}<|end_of_thought|>So {box}", True): "correct",
        (f"<think>{box}</think>So \\boxed{{{wrong}}}.", True): "wrong",
        (f"The final answer is {problem.gold}.", True): "correct",
        (f"<think>It is {box}", False): "truncated",
        (f"<think>It is {box}", True): "truncated",
        ("<think>Hm.</think>So we", False): "truncated",
        (f"<think>Hm.</think>So {box} and", False): "correct",
        (f"<think>Hm.</think>The final answer is {problem.gold}.", False): "truncated",
        ("<think>Hm.</think>I do not know.", True): "no_answer",
        ("", True): "no_answer",
    }
    assert statuses(problem, cases) == list(cases.values())


def test_aime_and_gsm8k_golds_are_numbers(tmp_path):
    aime = one(tmp_path, "aime2024", ROWS["aime2024"][1])  # gold 033
    assert statuses(aime, [("\\boxed{33}", True), ("\\boxed{033}", True), ("\\boxed{3300}", True)]) == [
        "correct",
        "correct",
        "wrong",
    ]
    gsm8k = one(tmp_path, "gsm8k", ROWS["gsm8k"][0])  # 1,018
    ends = ["The final answer is 1,018.", "The final answer is $1018", "The final answer is 18."]
    assert statuses(gsm8k, [(text, True) for text in ends]) == ["correct", "correct", "wrong"]


def test_olympiadbench_several_answers_in_any_order_in_one_box_or_in_several(tmp_path):
    several = one(tmp_path, "olympiadbench", OLYMPIAD)  # 69 and 84
    cases = {
        "\\boxed{84, 69}": "correct",
        "\\boxed{69\\text{ and }84}": "correct",
        "\\boxed{69}": "wrong",
        "\\boxed{69, 84, 85}": "wrong",
        "\\boxed{69} and \\boxed{84}": "correct",
        "First \\boxed{69}, then \\boxed{84}. So \\boxed{84} and \\boxed{69}.": "correct",
        "\\boxed{69} or \\boxed{84} or \\boxed{85}": "wrong",
        "<think>\\boxed{69}</think>\\boxed{84}": "wrong",
        "\\boxed{69} " * 10_000: "wrong",
    }
    assert statuses(several, [(text, True) for text in cases]) == list(cases.values())
    single = OLYMPIAD | {"is_multiple_answer": False, "answer_type": "Tuple", "final_answer": ["$(6,5)$"]}
    cases = {"\\boxed{6} and \\boxed{5}": "wrong", "\\boxed{(5,6)}, no, \\boxed{(6,5)}": "correct"}
    assert statuses(one(tmp_path, "olympiadbench", single), [(text, True) for text in cases]) == list(cases.values())


def test_olympiadbench_tolerance(tmp_path):
    near = OLYMPIAD | {"is_multiple_answer": False, "final_answer": ["4.2"], "error": "1e-1", "unit": "%"}
    texts = ["\\boxed{4.25}", "\\boxed{4.2\\%}", "\\boxed{4.4}"]
    cases = [(text, True) for text in texts]
    assert statuses(one(tmp_path, "olympiadbench", near), cases) == ["correct", "correct", "wrong"]
    exact = near | {"error": None}
    assert statuses(one(tmp_path, "olympiadbench", exact), cases) == ["wrong", "correct", "wrong"]
    assert olympiad.tolerance("1e-1, 2e-2", "here") == [0.1, 0.02]


def test_mmlu_takes_an_option_by_its_text(tmp_path):
    problem = one(tmp_path, "mmlu", MMLU)  # (B) 4
    cases = {
        "\\boxed{4}": "correct",
        "\\boxed{5}": "wrong",
        "\\boxed{B}. This is a standard result.": "correct",
        "\\boxed{(B) 4}": "correct",
        "Answer: B": "correct",
        "Answer: C": "wrong",
        "\\boxed{17}": "no_answer",
    }
    assert statuses(problem, [(text, True) for text in cases]) == list(cases.values())
