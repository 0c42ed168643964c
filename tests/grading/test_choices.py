"""Multiple choice: the letter that a response names, in the styles that models use, and never the article."""

import time

import pytest

from grading import choices as letters
from grading import workers
from grading.choices import choice
from grading.workers import Undecided

OPTIONS = ["40 m/s", "42 m/s", "\\frac{1}{2}", "the speed of light"]
NAMED = [
    ("\\boxed{C}. This is a standard result.", "C"), ("\\boxed{\\text{(C)}}", "C"), ("Answer: C", "C"), ("C)", "C"),
    ("The answer is (C)", "C"), ("**C**", "C"), ("So option C", "C"), ("$\\boxed{\\mathrm{B}}$", "B"), ("(B)", "B"),
    ("\\boxed{\\textbf{(D) } 12}", "D"), ("\\boxed{c}", "C"), ("\\boxed{\\text{Option B}}", "B"), ("\\(C\\)", "C"),
    ("The correct answer is **B) 12**.", "B"), ("Option A is incorrect. Option B is correct.", "B"), ("C", "C"),
    ("**Answer:** D", "D"), ("**Final Answer**: $\\boxed{D}$", "D"), ("ANSWER: D", "D"), ("Answer: $B$", "B"),
    ("Option B is wrong, so the correct one is A.", "A"),
    ("The correct option is:\n\n**(D)** light", "D"), ("The answer is: C. Hydrogen", "C"), ("I would choose C.", "C"),
    ("The answer is A because of symmetry.", "A"), ("The best choice is C, since A is wrong.", "C"),
    ("The answer is A. A common mistake is to pick B.", "A"), ("The answer is B.\n\nWait. The answer is C.", "C"),
    ("First A, but \\boxed{A} was wrong: \\boxed{D}", "D"), ("Thus the answer is \\text{C}.", "C"),
    ("C) Hydrogen\n\nIt is the lightest. A heavier gas sinks.", "C"), ("<think>B?</think>A", "A"),
    ("Answer: B\n\nWait, actually C is correct.", "C"), ("The correct answer is not B, it is C.", "C"),
    ("Option B is correct. So the answer is D", "D"), ("The answer is B. Therefore, option A.", "A"),
    ("Answer: C. This rules out option B.", "C"), ("The answer is not B but C.", "C"),
    ("**The correct choice is D**, because of x.", "D"), ("The answer is option (B).", "B"),
]  # fmt: skip
UNNAMED = [
    "", "A common mistake is to think so.", "Answer: A standard result", "The answer is B or C.", "answer: B, C",
    "The answer is not C.", "(A) foo\n(B) bar", "Vitamin C is best.", "The answer is Vitamin C.", "I don't know",
    "Answer: C-reactive protein", "<think>so \\boxed{B}", "<think>\\boxed{B}</think>I ran out of time.", "A + B = 5",
    "Option A is plausible but option B fails", "\\boxed{A: false, B: true}", "\\boxed{(A) is false}",
    "A) no, B) maybe, C) yes, D) never", "Option B is a distractor.", "(A) is false",
    "Option B is incorrect.", "Let A = 3 and B = 4.", "\\boxed{42}", "\\boxed{B and C}", "I think that is it.",
]  # fmt: skip


@pytest.mark.parametrize(("text", "letter"), NAMED)
def test_named(text, letter):
    assert choice(text) == letter


@pytest.mark.parametrize("text", UNNAMED)
def test_unnamed(text):
    assert choice(text) is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("\\boxed{42\\text{ m/s}}", "B"),
        ("\\boxed{0.5}", "C"),
        ("\\boxed{\\text{The speed of light}}", "D"),
        ("The answer is the speed of light.", "D"),
        ("The answer is 42 m/s, as shown.", "B"),
        ("\\boxed{43}", None),
    ],
)
def test_an_options_own_text(text, letter):
    assert choice(text, options=OPTIONS) == letter
    assert choice(text) is None


def test_what_cannot_be_compared_is_no_answer_unless_it_is_another_option(monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 0.5)
    with pytest.raises(Undecided) as no:
        choice("\\boxed{9^{9^9}}", options=OPTIONS)
    assert no.value.status == "timeout"
    options = ["\\frac{0}{0}", "2\\sqrt{2}", "3", "4"]
    with pytest.raises(Undecided) as no:
        choice("\\boxed{\\sqrt{2}}", options=options)
    assert no.value.status == "error"
    assert choice("\\boxed{\\sqrt{8}}", options=options) == "B"
    assert choice("\\boxed{\\sqrt{2}}. The answer is C.", options=options) == "C"


def test_the_same_text_is_compared_once(monkeypatch):
    asked = []
    monkeypatch.setattr(letters, "compare", lambda said, option: asked.append(option) or "different")
    assert choice("The answer is 43\n\\boxed{43}", options=OPTIONS) is None
    assert choice("The answer is 44", options=OPTIONS) is None
    assert len(asked) <= 3 * len(OPTIONS)


def test_two_equal_options_decide_nothing():
    assert choice("\\boxed{0.5}", options=["1/2", "\\frac{2}{4}", "3", "4"]) is None


def test_other_letters():
    assert choice("\\boxed{J}") is None
    assert choice("\\boxed{J}", letters="ABCDEFGHIJ") == "J"
    assert choice("Answer: E", letters="ABCDE") == "E"


def test_only_a_box_counts_in_an_unfinished_response():
    assert choice("The answer is C", finished=False) is None  # it may have gone on: "C or D"
    assert choice("\\boxed{C}. Now", finished=False) == "C"


@pytest.mark.parametrize(
    "piece", ["\n", " ", "*", "(", "answer is ", "answer is *", "A ", "A) ", "\nA", "option ", "\\text{", "\\boxed{A"]
)
def test_endless_repetition_is_read_quickly(piece):
    start = time.process_time()
    choice(piece * 30_000, options=OPTIONS)
    choice(f"\\boxed{{{piece * 3000}}}", options=OPTIONS)
    assert time.process_time() - start < 3
