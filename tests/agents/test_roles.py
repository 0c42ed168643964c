"""Prompts, labels, cleaning and votes."""

import re
import shutil
from pathlib import Path

import pytest

from agents.guards import clean
from agents.prompts import DEFAULT_DIR, NAMES, OURS, load_prompts, question
from agents.roles import LEVELS, VERDICTS, parse_label
from errors import UserError
from tests.support.scripted_endpoint import parse

PAPER = Path(__file__).parents[3] / "shared/paper/paper.txt"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("medium", "medium"),
        ("Medium", "medium"),
        ("**HARD**.", "hard"),
        ('"easy"', "easy"),
        ('{"verdict": "easy"}', "easy"),
        ('{\n  "verdict": "easy"\n}', "easy"),
        ('{"verdict": "easy"} or {"verdict": "hard"}', None),
        ("The chain skips two steps.\n\nEasy.", "easy"),
        ("Some thoughts.\n**medium**\n\n", "medium"),
        ("My rating: hard", "hard"),
        ("Rating: **medium**, because it is balanced.", "medium"),
        ("I conclude \\boxed{easy} here", "easy"),
        ("I conclude \\boxed{\\text{easy}} here", "easy"),
        ("It is medium.", None),
        ("not hard and not easy", None),
        ("This is hard to say, but I think it is medium", None),
        ("Rating: easy. Or level: hard?", None),
        ("easy, medium, or hard", None),
        ("Rating:\n\n**medium**\n\nIt is balanced.", "medium"),
        ("Rating: `hard` (it skips steps)", "hard"),
        ("The required output: easy, medium, or hard. I cannot tell.", None),
        ("Possible output:\n- easy\n- medium\n- hard\n\nI cannot tell.", None),
        ("Rating: medium-hard", None),
        ("Level: easy to medium", None),
        ("Rating: hard to say", None),
        ('{"x":"easy",\n"hard"}', None),  # broken
        ('{"difficulty": "hard"}', "hard"),
        ('{"difficultyLevel": "easy", "reason": "short"}', "easy"),
        ('{"previous": "hard"}', None),
        ('{"level": "easy",}\nhard', None),
        ('{"level": easy}', None),
        ('{"label": "hard", "level": "hard"}', "hard"),
        ('{"level": "easy", "level": "hard"}', None),
        ('{"level": "easy", "initial level": "hard"}', None),
        ("Options: easy, medium, hard.\nRating: easy, medium, or hard.\n\nMedium", "medium"),
        ("Rating: easy\n\nhard", None),
        ("~~easy~~\nhard", None),
        ("I would say:\n\n__Hard__", "hard"),
        ("_easy_\nhard", None),
        ("It is terse.\u2028easy", "easy"),
        ('{"level":' * 20_000, None),
        ("YES", None),
        ("", None),
        ("...", None),
    ],
)
def test_levels(text, label):
    assert parse_label(text, LEVELS) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("YES", "YES"),
        ("no.", "NO"),
        ("It leads to 12.\nYES", "YES"),
        ("Verdict: NO", "NO"),
        ('{"verdict":"NO"}', "NO"),
        ("Verdict: YES. There is no error.", "YES"),
        ("Verdict: YES if rounding is allowed", None),
        ("Output: YES or NO. I cannot tell.", None),
        ("Answer: yes. There is NO other.\nI cannot tell.", None),
        ("The answer: no, as the problem says. I cannot tell.", None),
        ("There is NO error in this reasoning", None),
        ("YES and NO", None),
        ('[\n"YES",\n"NO"\n]', None),
        ('{"verdict": "YES"}\nNO', None),
        ('{"verdict": "YES"}\nYES', "YES"),
        ('{"not": "YES"}', None),
        ('{"not_correct": "YES"}', None),
        ('{"incorrect": "YES"}', None),
        ('{"is_correct": "YES"}', "YES"),
        ('{"final_answer": "NO"}', "NO"),
        ('{"not": "YES"}\nYES', None),
        ('[{"verdict": "YES"}, {"verdict": "NO"}]', None),
        ('[{"verdict": "NO"}]', "NO"),
        ('```json\n{"verdict": "NO"}\n```', "NO"),
        ("```\nNO\n```", "NO"),
        ('{"reason": "It leads to 12.", "Verdict": "yes"}', "YES"),
        ('{"result": {"verdict": "YES"}}', None),  # of what, it does not say
        ('{"verdict": "NO", "steps": {"first": "YES"}}', "NO"),
        ('{"verdict": ["YES"]}', None),
        ('{"verdict": "YES, if 12 is meant"}', None),
        ('{"verdict": "YES"} would hold for 13, but NO.', None),
        ('The program returns {"a": 1} for {"b"}.\n\nYES', "YES"),
        ("Verdict: NO\n\nYES", None),
        ("Verdict: NO\n\nNO", "NO"),
        ("The verdict is certainly not:\nYES", None),
        ("!YES", None),
        ("NO!", "NO"),
        ("<s>YES</s> NO", None),
    ],
)
def test_verdicts(text, label):
    assert parse_label(text, VERDICTS) == label


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("First, 2 + 3 = 5.", "First, 2 + 3 = 5."),
        ("Here is the extended reasoning process:\n\nFirst, 2 + 3 = 5.", "First, 2 + 3 = 5."),
        ("Sure! Here's a simplified version:\nFirst, 2 + 3 = 5.", "First, 2 + 3 = 5."),
        ("**Extended reasoning process:**\nFirst, 2 + 3 = 5.", "First, 2 + 3 = 5."),
        ("Reasoning process:\n(-3) + 5 = 2", "(-3) + 5 = 2"),
        ("<|begin_of_thought|>\n\nFirst\n\n<|end_of_thought|>", "First"),
        ("<think>\nFirst", "First"),
        ("Here is how: 2 + 3 = 5.", "Here is how: 2 + 3 = 5."),
        ("Okay, so 2 + 3 = 5.\nThen 5 + 1 = 6.", "Okay, so 2 + 3 = 5.\nThen 5 + 1 = 6."),
        ("Here is the extended reasoning process:\n\n", None),
        ("<think></think>", None),
    ],
)
def test_a_rewrite_is_cleaned(text, chain):
    assert clean(text) == chain


def test_prompts_are_table_13_word_for_word():
    if not PAPER.is_file():
        pytest.skip("the paper's text is not beside this checkout")
    table = PAPER.read_text().split("Role Prompt Template\n")[1].split("Table 13:")[0]
    # the table's left column stands between the lines
    printed = re.sub(r"^(Critic|Rethinker|Verifier|\(easy\)|\(hard\)|\(incorrect\)) ", "", table, flags=re.MULTILINE)
    printed = " ".join(printed.split())
    ours = [
        " ".join(load_prompts()[name].split()) for name in ("critic", "rethinker_easy", "rethinker_hard", "verifier")
    ]
    ours.append(" ".join(load_prompts()["rethinker_incorrect"].split()))
    assert printed == " ".join(ours)


def test_a_question_holds_the_three_sections():
    system, user = question("PROMPT", "what?\n\nreally?", "12", "a\n\nb")
    assert system == {"role": "system", "content": "PROMPT"}
    assert user["content"] == "Problem:\nwhat?\n\nreally?\n\nAnswer:\n12\n\nReasoning process:\na\n\nb"
    (only,) = question("PROMPT", "what?", "12", "a", role="user")
    assert only["content"].startswith("Problem:\nwhat?") and only["content"].endswith("\n\nPROMPT")
    assert question("PROMPT", "what?", None, "a")[1]["content"] == "Problem:\nwhat?\n\nReasoning process:\na"


ROLES = ["critic", "easy", "hard", "incorrect", "verifier", "solve"]


@pytest.mark.parametrize(("name", "role"), zip(NAMES + OURS, ROLES, strict=True))
def test_the_prompts_can_be_told_apart(name, role):
    messages = question(load_prompts()[name], "x", "y", "r")
    asked = parse({"messages": messages}, {}, 0)
    assert (asked.role, asked.problem, asked.answer, asked.reasoning) == (role, "x", "y", "r")


def test_prompts_are_replaced_as_a_folder(tmp_path):
    for name in NAMES:
        (tmp_path / f"{name}.txt").write_text(f"{name}!\n")
    assert load_prompts(tmp_path)["critic"] == "critic!"
    (tmp_path / "verifier.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"verifier\.txt is empty"):
        load_prompts(tmp_path)
    (tmp_path / "critic.txt").unlink()
    with pytest.raises(UserError, match=r"critic\.txt"):
        load_prompts(tmp_path)
    assert set(load_prompts(DEFAULT_DIR)) == set(NAMES + OURS)


def test_the_prompt_of_our_own_may_be_replaced_too(tmp_path):
    shutil.copytree(DEFAULT_DIR, tmp_path, dirs_exist_ok=True)
    (tmp_path / "ours/verifier_solve.txt").write_text("Go on.")
    theirs, default = load_prompts(tmp_path), load_prompts()
    assert theirs == default | {"verifier_solve": "Go on."}
    (tmp_path / "ours/verifier_solve.txt").unlink()
    assert load_prompts(tmp_path) == default
