"""Where a response says its answer, and where it says something else with a number in it; where its thought ends."""

import time

import pytest

from evals.chains import thought
from grading.answers import extract_boxed, extract_list, final_answer, grade, strip_thought
from grading.extraction import split_thought


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{12}.", "12"),
        (r"\boxed{3}. Wait, no. So the answer is \boxed{4}.", "4"),
        (r"\boxed{\frac{1}{\sqrt{2}}} done", r"\frac{1}{\sqrt{2}}"),
        (r"\fbox{7}", "7"),
        (r"\boxed {8}", "8"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"first \boxed{5}, then \boxed{6", "5"),  # the last one is not closed
        (r"put it in \boxed{}: \boxed{9} as \boxed{ }", "9"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{x = \fbox{5} + \boxed{6}}", "x = 5 + 6"),
        (r"\boxed{\boxed{5} or \boxed{", "5"),  # the outer one is not closed
        ("nothing", None),
        (r"\boxed{", None),
    ],
)
def test_extract_boxed(text, expected):
    assert extract_boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1} and \boxed{2} and \boxed{3}", ["1", "2", "3"]),
        (r"\boxed{1},\boxed{2}", ["1", "2"]),
        (r"$$\boxed{(98, 2)} \quad \text{and} \quad \boxed{(99, 503)}$$", ["(98, 2)", "(99, 503)"]),
        (r"\boxed{1} pens and \boxed{2} bins", ["1", "2"]),
        (r"\( y_1 = \boxed{x} \) and \( y_2 = \boxed{2x} \)", ["x", "2x"]),
        (r"no: \boxed{9}. So \boxed{1}, \boxed{2}", ["1", "2"]),
        (r"\boxed{7}, \boxed{7}", ["7"]),
        (r"\boxed{3}. Wait, no. So the answer is \boxed{4}.", ["4"]),
        (r"\boxed{3}, then \boxed{4}", ["4"]),
        (r"Step 1, \boxed{1}, then the final, \boxed{2}", ["2"]),
        (r"\boxed{3} no no no \boxed{4}", ["4"]),
        (r"\boxed{1}", ["1"]),
        ("none", []),
    ],
)
def test_a_list_of_boxes(text, expected):
    assert extract_list(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 dogs: 3 × 4 = 12.\ntotal: 12 + 8 = 20.", "20"),
        ("So in total = 20 legs.", "20"),
        ("= 20 (for 2 days)", "20"),
        ("So there are 3 dogs and 12 legs.", "12"),
        ("The final answer is 42. I hope it is correct.", "42"),
        ("The answer is 3.14.", "3.14"),
        ("**Final Answer:** **73**", "73"),
        ("Answer: B", "B"),
        ("The answer is (C).", "(C)"),
        ("Final answer: 1,234 dollars", "1,234"),
        ("The answer is that she makes 18 dollars in 2 days", "18"),
        ("A: 26", "26"),
        ("she has 5\n#### 5", "5"),
        ("Thus $x = \\frac{1}{2}$ holds.", "\\frac{1}{2}"),
        ("\\[\nx = 7\n\\]", "7"),
        ("-1 + sqrt(3)", "-1 + sqrt(3)"),
        ("the temperature is -5", "-5"),
        ("from 7-5", "5"),
        ("Thus $x \\geq 5$", "x \\geq 5"),  # no equals sign
        ("so $$x = \\frac{2}{1}.$$ Therefore, it grows by 100%.", "100"),  # the last sentence that holds a value
        ("Thus $x = 5$. This holds.", "5"),
        ("<|begin_of_solution|>\n\nThe answer is 6.\n\n<|end_of_solution|>", "6"),
        (r"so the answer is \boxed{", None),
        ("The answer is not 3", None),
        ("The answer isn't 3", None),
        ("The answer is between 4 and 6.", None),
        ("The answer is 12 or 13 dogs", None),
        ("The answer is 12 dogs", "12"),
        ("The answer is 2 + \\sqrt{3}, which is about 3.7", "2 + \\sqrt{3}"),
        ("The answer is 2 + \\sqrt{3} meters", "2 + \\sqrt{3} meters"),
        ("The answer is 3!", "3!"),
        ("The answer is 4 dollars * 3 = 12 dollars", "12"),
        ("I give up.", None),
        ("", None),
    ],
)
def test_final_answer(text, expected):
    assert final_answer(text) == expected


def test_final_answer_can_keep_an_equation():
    assert final_answer("so $y = 2x + 1$") == "2x + 1"
    assert final_answer("so $y = 2x + 1$", equation=True) == "y = 2x + 1"


SAID = [  # a response without a box, the gold answer that it gives
    ("The answer is 12 million.", "12000000"), ("The answer is 12.", "12"), ("So the total is 12.", "12"),
    ("Therefore she has 12 apples left.", "12"), ("It is not 10, so it's 12.", "12"), ("It is not 10 but 12.", "12"),
    ("Answer: 12 apples", "12"), ("Ответ: 12", "12"), ("Ответ: 12 рублей.", "12"), ("Лёша собрал 12 яблок.", "12"),
    ("答えは12です。", "12"), ("정답은 12입니다.", "12"), ("La respuesta es 12.", "12"), ("Die Antwort ist 12.", "12"),
    ("La réponse est 12 euros.", "12"), ("所以小明有12个苹果。", "12"), ("<answer>\\frac{1}{2}</answer>", "\\frac12"),
    ("Final answer: $\\frac{1}{2}$", "\\frac12"), ("So $\\boxed\\frac12$.", "\\frac12"), ("$\\boxed 5$", "5"),
    ("$\\boxed7$", "7"),
    ("\\[ \\boxed \\frac{1}{2} \\]", "\\frac12"), ("so \\boxed 25.", "25"), ("The answer is 2 1/2.", "2.5"),
    ("It takes 1 1/2 hours", "1.5"), ("the answer, 12, is right", "12"), ("Thus the answer is therefore 12", "12"),
    ("The final answer is: $12$ (twelve)", "12"), ("We conclude that n = 12.", "12"),
    ("The answer must be 12.", "12"), ("The answer should be 12", "12"), ("The answer is \\$12.", "12"),
    ("The answer is $12.", "12"), ("Answer: $$12$$", "12"), ("The temperature is −12 degrees", "-12"),
    ("(answer: 12)", "12"), ("The answer is 12%", "12"), ("The answer is 12%", "0.12"),
    ("The answer to problem 5 is 12.", "12"), ("The answer is 12, not 13.", "12"), ("I think it's 12.", "12"),
    ("The answer was 12.", "12"), ("My answer would be 12", "12"), ("Since 3 + 4 = 7, the answer is 7 dollars.", "7"),
    ("The answer is 1,200.", "1,200"), ("The answer is <12>", "12"), ("The answer is **12**", "12"),
    ("The answer is 12°.", "12"), ("The answer is 3√2.", "3\\sqrt{2}"), ("The answer is 3√2 cm.", "3\\sqrt{2}"),
    ("The answer is x+1.", "x+1"), ("The difference between x and y is 12.", "12"),
    ("The largest number that could be in the set is 12.", "12"), ("If he buys three then the total is 12.", "12"),
    ("The smallest number greater than all of these is 12.", "12"),
    ("She does not have enough so she needs 12 more.", "12"), ("He needs at least 12 coins", "12"),
    ("There are 12 in all, as shown in step 5", "12"), ("It could be shown that there are 12.", "12"),
    ("Hence $x = 12$.", "12"), ("The remaining number of apples is not known, but 12", "12"),
]  # fmt: skip
NOT_SAID = [  # a denial, a doubt, a bound, a supposition, a part, a name: the number stands there, and is no answer
    ("The answer is not 12.", "12"), ("The answer isn't 12.", "12"), ("It can't be 12.", "12"),
    ("So x is less than 12.", "12"), ("There are more than 12.", "12"), ("The answer is at least 12.", "12"),
    ("The answer is less than 12.", "12"), ("If x = 12, we are done.", "12"), ("Suppose the answer is 12.", "12"),
    ("It might be 12.", "12"), ("The answer may be 12.", "12"), ("The answer could be 12", "12"),
    ("Perhaps 12.", "12"), ("Is the answer 12?", "12"), ("The answer is 12 billion.", "12"),
    ("The answer is between 10 and 12.", "12"), ("I'm sorry, I can't solve problem 12.", "12"),
    ("I was unable to find it. See equation 12.", "12"), ("The answer is wrong: 12", "12"), ("答案不是12。", "12"),
    ("Ответ не 12.", "12"), ("\\boxed{5", "5"), ("The answer can be 12 or 13", "12"),
    ("The answer is approximately 12.3", "12"), ("The answer to problem 5 is 12.", "5"),
    ("It is impossible that x = 12", "12"), ("There is no way that the answer is 12.", "12"), ("x ≠ 12", "12"),
    ("x > 12", "12"), ("x \\neq 12", "12"), ("The answer is 12, not 13.", "13"),
    ("The answer is neither 12 nor 13.", "12"), ("12 is wrong.", "12"), ("12 is not the answer.", "12"),
    ("The answer is twelve.", "12"), ("It lies between 10 and 12.", "12"),
    ("There are 12 in all, as shown in step 5", "5"), ("We cannot have $12$.", "12"),
    ("The number is not $12$.", "12"), ("So $x$ is less than $12$.", "12"), ("I doubt that the answer is 12", "12"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "gold"), SAID)
def test_said(text, gold):
    assert grade(text, gold).status == "correct"


@pytest.mark.parametrize(("text", "gold"), NOT_SAID)
def test_not_said(text, gold):
    assert grade(text, gold).status in ("wrong", "no_answer")


@pytest.mark.parametrize("text", ["The answer is{}", "The answer{}", "{}A:", "####{}", "answer is **{}", "A:{}"])
def test_blanks_without_end_are_read_quickly(text):
    start = time.process_time()
    final_answer(text.format(" " * 100_000))
    final_answer(text.format("\n" * 100_000))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "text,parts,chain",
    [
        ("just an answer ", ("", "just an answer "), "just an answer"),
        ("<think>\na b</think>\n\\boxed{1}", ("a b", "\n\\boxed{1}"), "a b"),
        ("a b</think>c", ("a b", "c"), "a b"),  # R1's template opens the thought itself
        ("<think>a</think>b<think>c</think>d", ("abc", "d"), "abc"),
        ("<|begin_of_thought|> still", ("still", None), "still"),
        ("<|begin_of_thought|>a<|end_of_thought|>c", ("a", "c"), "a"),
        ("<think>a</think>b</think>c", ("ab", "c"), "ab"),
        ("<think>never ends", ("never ends", None), "never ends"),
        ("a thought alone</think>", ("a thought alone", ""), "a thought alone"),
        ("<think>\n</think>none", ("", "none"), "none"),
    ],
)
def test_split_thought(text, parts, chain):
    assert split_thought(text) == parts and strip_thought(text) == parts[1]
    assert thought(text) == chain
