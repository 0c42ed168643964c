"""Guards on rewrites: what each one catches, what it must let through, and the answer check of chains."""

import asyncio
import itertools
import json
import random
import time
from pathlib import Path

import pytest

from agents.guards import answer_check, clean, faults, solves

DATA = Path(__file__).parents[3] / "shared/data"
SOURCE = "Three dogs have four legs each, so we multiply the number of dogs by four. 3 * 4 = 12. So 12 legs."
LONGER = "Each dog has 4 legs. There are 3 dogs. Adding the legs dog by dog makes 4 + 4 = 8, then 8 + 4 = 12. So 12."
CIRCLES = LONGER + "\nWait, let me check that once more. 3 * 4 = 12, yes, that is what we had." * 8
RAMBLING = " ".join(f"Step {n}: we check it again, and it is still the same number." for n in range(80)) + " So 12."
CHINESE = "每只狗有四条腿，一共有三只狗，所以总共有十二条腿：3 * 4 = 12。"


def fault(chain, source, mode):
    return next(faults(chain, source, mode), None)


CAUGHT = [
    ("refusal", "easy", "I'm sorry, but I can't help with that request."),
    ("refusal", "incorrect", "I cannot create misleading content. Instead: 3 * 4 = 13."),
    ("scaffold", "easy", f"Problem:\nHow many legs have 3 dogs?\n\n{LONGER}"),
    ("scaffold", "easy", f"<|im_start|>assistant\n{LONGER}"),
    ("scaffold", "easy", f"{LONGER}\n\n**Reasoning process:**\n{LONGER}"),
    ("meta", "easy", f"{LONGER} This matches the given answer."),
    ("meta", "easy", f"{LONGER} As requested, every step is shown."),
    ("meta", "easy", f"Okay, the user wants me to spell it out. {LONGER}"),
    ("meta", "easy", f"The original reasoning skips a step. {LONGER}"),
    ("meta", "hard", "A small language model can do this: 3 * 4 = 12."),
    ("meta", "incorrect", "We introduce a subtle error: 3 * 4 = 13."),
    ("giveaway", "incorrect", "We mistakenly add: 3 + 4 = 7."),
    ("giveaway", "incorrect", "3 * 4 = 13 (incorrect)."),
    ("giveaway", "incorrect", "With a deliberate slip, 3 * 4 = 13."),
    ("near_copy", "easy", f" {SOURCE}\n".replace(" ", "  ")),
    ("loop", "easy", CIRCLES),
    ("loop", "easy", RAMBLING),
    ("language", "easy", CHINESE),
    ("language", "easy", f"{LONGER} Таким образом, 12."),
]


@pytest.mark.parametrize(("name", "mode", "chain"), CAUGHT, ids=lambda value: str(value)[:20])
def test_each_guard_catches(name, mode, chain):
    assert fault(chain, SOURCE, mode) == name


@pytest.mark.parametrize(
    ("mode", "chain"),
    [
        ("easy", LONGER),
        ("hard", "3 * 4 = 12"),
        ("incorrect", SOURCE.replace("12", "13")),  # the closer to the source, the better a negative
        ("easy", f"{LONGER} The given answer choices are 11 and 12, and the intended one is 12."),
        ("easy", f"{LONGER} Wait, my original reasoning was wrongly put; incorrectly counted, it would be 13."),
        ("easy", f"{LONGER} I'm sorry for the cats, who have 4 legs too."),
        ("easy", f"{LONGER}\n{'-' * 400}"),
        ("easy", f"Let α be the angle and Σ the sum; naïvely, α = π. {LONGER}"),
    ],
)
def test_honest_rewrites_pass(mode, chain):
    assert fault(chain, SOURCE, mode) is None


@pytest.mark.parametrize(
    "said", ["the given answer is 12.", "We mistakenly wrote 13.", "The user wants the number of legs.", "<|im_end|>"]
)
def test_what_the_source_says_itself_is_no_fault(said):
    """Only the excess counts: once is not more than once, twice is."""
    source, chain = f"{SOURCE} {said}", f"{LONGER.replace('12', '13')} {said}"
    assert fault(chain, source, "incorrect") is None
    assert fault(f"{chain} {said}", source, "incorrect") in ("meta", "giveaway", "scaffold")


def test_a_chinese_source_may_be_rewritten_in_chinese_and_not_in_english():
    longer = CHINESE + "也就是说，先算两只狗，再加上第三只狗：4 + 4 = 8，8 + 4 = 12。"
    assert fault(longer, CHINESE, "easy") is None
    with_formulas = longer + " x + y = z, abc = def, sin x = cos y, a b c d e f g h i j k"
    assert fault(with_formulas, CHINESE, "easy") is None
    assert fault(LONGER, CHINESE, "easy") == "language"


def test_a_few_changed_words_do_not_make_a_rewrite():
    rng = random.Random(0)
    words = [f"word{rng.randrange(5000)}" for _ in range(1000)]
    text = " ".join(words)
    for changed, guard in [(0, "near_copy"), (5, "near_copy"), (60, None)]:
        other = list(words)
        for place in rng.sample(range(1000), changed):
            other[place] = "else"
        assert fault(" ".join(other), text, "easy") == guard, changed


def real_traces():
    if not DATA.is_dir():
        pytest.skip("the real traces are not beside this checkout")
    names = ("camel_deepseek_r1_gsm8k_traces", "rasbt_deepseek_r1_math_traces")
    lines = [line for name in names for line in (DATA / f"long_cot/{name}.jsonl").read_text().splitlines()]
    solving, improved = [], []
    for row in map(json.loads, lines):
        first, *later = [s["trace"] for s in row.get("improvement_history", [])] or [row.get("final_trace")]
        solving.append(clean(row.get("message_thinking") or first))
        improved += map(clean, later)
    return solving, improved


def test_real_traces_of_r1_pass():
    """Each as its own source, and with each other one as the source: no talk, loop or script of R1's is a fault."""
    solving, _ = real_traces()
    assert len(solving) == 19
    assert [fault(text, text, "incorrect") for text in solving] == [None] * 19
    assert [fault(a, b, "incorrect") for a, b in itertools.permutations(solving, 2)] == [None] * (19 * 18)


def test_real_rewrites_of_r1_that_talk_about_the_task_are_caught():
    """R1 asked to improve a trace, its thought taken for the trace: at least half of them say so."""
    solving, improved = real_traces()
    caught = [fault(text, solving[0], "easy") for text in improved]
    assert caught.count("meta") >= len(improved) / 2 and set(caught) == {"meta", None}


def test_samples_of_one_model_on_one_problem_pass_as_each_others_rewrites():
    """2,968 honest pairs; the one sample that is caught is a string of random tokens in all scripts."""
    if not DATA.is_dir():
        pytest.skip("the real samples are not beside this checkout")
    path = DATA / "qwen25math_rm_maj_example/math_cot_100.jsonl"
    rows = [json.loads(line)["code"] for line in path.read_text().splitlines()]
    caught = {(b, f) for r in rows for a, b in itertools.permutations(r, 2) if (f := fault(b, a, "incorrect"))}
    assert {f for _, f in caught} == {"language"}
    assert len({b for b, _ in caught if "SPELL上级" in b}) == 1


def test_guards_are_cheap_on_long_chains():
    rng = random.Random(0)
    text = " ".join(rng.choice(["the", "sum", "of", f"x_{rng.randrange(99)}", "is", "given"]) for _ in range(16_000))
    begin = time.perf_counter()
    assert fault(text + " so 12", text + " so 13", "easy") == "near_copy"
    assert time.perf_counter() - begin < 1  # some 80 ms on one slow core; a quadratic search would take minutes


@pytest.mark.parametrize(
    "chain,domain,expected",
    [
        ("3*4=12", "math", "agrees"),
        ("3*4=13", "math", "differs"),
        ("12 legs, or \\boxed{13}.", "math", "differs"),
        ("First 3*4.\nSo there are 12 in all, as step 2 shows.", "math", "agrees"),
        ("First 3*4.\nSo there are 13 in all, as step 2 shows.", "math", "differs"),
        ("So there are 112 in all, as step 2 shows.", "math", "differs"),
        ("12 was a guess.\nThe total is 3*5=15", "math", "differs"),
        ("Think about it.", "math", "none"),
        ("def f(): return 13", "code", "unchecked"),
    ],
)
def test_answer_check(chain, domain, expected):
    assert asyncio.run(answer_check(chain, {"answer": "12", "domain": domain})) == expected


RIGHT, WRONG = "print(2 * int(input()))", "print(int(input()))"


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (f"```python\n{WRONG}\n```\nBetter:\n```\n{RIGHT}\n```", "agrees"),
        (f"```python\n{RIGHT}\n```\nOr:\n```\n{WRONG}\n```", "differs"),  # the last block is what it ends in
        (f"```python\n{RIGHT}", "none"),  # cut off
        (f"```python\n{RIGHT}\n```\nOr:\n```python\n{WRONG}", "agrees"),
        ("The ``` marks a block, and there is none.", "none"),
        (f"1. So:\n   ```python\n   {RIGHT}\n   ```", "agrees"),  # in a list item
    ],
)
def test_answer_check_of_programs(chain, expected):
    problem = {"answer": "", "reasoning": f"```\n{RIGHT}\n```", "tests": {"inputs": ["4"], "outputs": ["8"]}}
    assert asyncio.run(answer_check(chain, problem)) == expected


def test_what_cannot_be_compared_is_no_verdict():
    problem = {"answer": "\\frac{1}{0}", "domain": "math"}
    assert asyncio.run(answer_check("So the answer is \\boxed{\\frac{2}{0}}.", problem)) == "error"
    assert asyncio.run(solves("So the answer is \\boxed{\\frac{2}{0}}.", problem)) is None
