"""A grade: its status, what was extracted, why."""

import pytest

from grading.answers import grade


@pytest.mark.parametrize(
    ("text", "gold", "finished", "status"),
    [
        (r"<think>maybe \boxed{12}</think> I could not finish.", "12", True, "no_answer"),
        (r"<think>maybe \boxed{12}</think> It is 12", "12", True, "correct"),
        ("3 + 9 = 12", "12", False, "truncated"),  # cut: 12 may be the start of 123
        (r"\boxed{12", "12", False, "truncated"),
        (r"\boxed{1} and \boxed{2}", "2,1", True, "correct"),
        (r"\boxed{1} and \boxed{2}", "1,3", True, "wrong"),
        (r"\boxed{6}, \boxed{5}", "6,5", True, "correct"),
        (r"\boxed{6}, \boxed{5}", "(6,5)", True, "wrong"),
        (r"Step 1, \boxed{1}, then the final, \boxed{2}", "1,2", True, "wrong"),
        ("#### 18", "She has 16 - 4 = 12.\n#### 18", True, "correct"),  # GSM8K's answers are whole solutions
        ("#### 12", "She has 16 - 4 = 12.\n#### 18", True, "wrong"),
    ],
)
def test_status(text, gold, finished, status):
    assert grade(text, gold, finished).status == status


def test_what_is_extracted_is_the_box_and_no_more():
    assert grade("Two and two: \\boxed{4}. A standard result.", "4").extracted == "4"
    assert grade("\\boxed{4}", "4").extracted == "4"
    assert grade("2 \\le x < 5", "2 \\le x < 5").extracted == "2 \\le x < 5"  # without a box, all of it


def test_every_grade_says_why():
    for text, gold in [("12", "12"), ("\\boxed{13}", "12"), ("none", "12"), ("<think>", "12"), ("\\boxed{x}", "x+0")]:
        detail = grade(text, gold).detail
        assert detail and "\n" not in detail
    assert grade("\\boxed{13}", "12").detail != grade("\\boxed{x}", "y").detail
