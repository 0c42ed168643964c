"""Agreement with labelled answers: (false negatives, false positives), the best other grader's errors in comments."""

import json

import pytest

from grading import workers
from grading.answers import compare, grade
from grading.choices import choice
from tests.support.labelled import corpus


def is_equal(pred, gold, tolerance=None):
    return compare(pred, gold, tolerance) == "equal"


def errors(items):
    """(false negatives, false positives) of (verdict, label) pairs; a timeout counts as not accepted."""
    items = list(items)
    return sum(label and not said for said, label in items), sum(said and not label for said, label in items)


def by_text(items):
    return errors((grade(row["pred_text"], row["gold"]).status == "correct", row["equal"]) for row in items)


def by_pair(items):
    return errors((is_equal(row["pred"], row["gold"]), row["equal"]) for row in items)


def test_gsm8k_solutions():
    items = [
        (grade(solution["solution"], row["ground_truth"].rpartition("A:")[2].strip()).status == "correct", solution)
        for row in corpus("gsm8k/example_model_solutions.jsonl")
        for solution in row.values()
        if isinstance(solution, dict)
    ]
    assert len(items) > 2000
    assert errors((said, solution["is_correct"]) for said, solution in items) == (0, 0)


def test_olympiadbench_pairs_with_their_tolerances():
    rows = corpus("grader_pairs/olympiadbench_scoring_examples.jsonl")  # best other: 4
    tolerances = [json.loads(p) if isinstance(p := row["precision"], str) else p for row in rows]
    said = [is_equal(row["pred"], row["gold"], t) for row, t in zip(rows, tolerances, strict=True)]
    assert errors(zip(said, (row["equal"] for row in rows), strict=True)) == (0, 0)


def test_several_answers():
    assert by_pair(corpus("grader_pairs/olympiadbench_multi_answer_derived.jsonl")) == (0, 0)  # best other: 1


def test_nemo_pairs():
    assert by_pair(corpus("grader_pairs/nemo_skills_test_math_equal.jsonl")) == (0, 0)  # best other: 2


def test_r1_distill_answers():
    rows = corpus("grader_pairs/thought_anchors_r1distill_answers.jsonl")
    assert by_pair(rows) == (0, 1)  # `y = x^2/4 - 1` for `x^2/4 - 1`: their checker says no; best other: 1 / 1


def test_handmade_nasty_cases():
    assert by_text(corpus("grader_pairs/handmade_nasty.jsonl")) == (0, 0)  # best other: 11 of 96


def test_inspect_cases():
    assert by_text(corpus("grader_pairs/inspect_ai_math_cases.jsonl")) == (0, 0)


def test_math_verifys_own_cases():
    rows = corpus("grader_pairs/math_verify_own_tests.jsonl")
    assert by_text(rows) == (2, 2)  # rounded values, and line breaks between dollar signs; math-verify itself: 2 / 2


def test_qwen_solutions():
    rows = corpus("qwen25math_rm_maj_example/math_cot_100.jsonl")
    items = [
        (grade(code, str(row["gt"])).status == "correct", bool(score))
        for row in rows
        for code, score in zip(row["code"], row["score"], strict=True)
    ]
    assert errors(items) == (0, 1)  # 10000 for 10{,}000: their label is wrong


@pytest.mark.slow
def test_handmade_hangs(monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 0.5)
    for row in corpus("grader_pairs/handmade_hang.jsonl"):
        assert grade(row["pred_text"], row["gold"]).status in ("timeout", "wrong")


AMBIGUOUS = {("12,100", "\\boxed{12100}")}  # 58,500 is a gold of MATH-500 and one number; 221,8 is two of OlympiadBench


def test_reported_faults_of_other_graders(monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 2.0)  # three hang
    found = [row for row in corpus("field_cases/math.jsonl") if row["accept"] is not None]
    wrong = [row for row in found if (grade(row["response"], row["gold"]).status == "correct") != row["accept"]]
    assert {(row["gold"], row["response"]) for row in wrong} == AMBIGUOUS


def test_reported_faults_of_other_readers_of_letters():
    for row in corpus("field_cases/choice.jsonl"):
        assert choice(row["response"], options=row["options"]) == row["letter"], row
