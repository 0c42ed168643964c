"""Golds of real benchmarks, written as models write them, and golds that are changed: what is equal is accepted, what
is not is rejected. Own text against own text cannot find a fault of notation."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from grading.answers import grade
from tests.support.labelled import corpus

INTEGER = re.compile(r"-?\d{1,3}(?:,\d{3})+|-?\d+")
SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
FULL_WIDTH = str.maketrans("0123456789()[],.+-:", "０１２３４５６７８９（）［］，．＋－：")


def golds():
    """The gold answers of four benchmarks, each once."""
    found = [row["answer"] for row in corpus("math500/test.jsonl")]
    found += [row["final_answer"][0].strip("$") for row in corpus("olympiadbench_math_en/OE_TO_maths_en_COMP.jsonl")]
    found += [str(row["answer"]) for row in corpus("aime2024/test.jsonl")]
    found += [row["answer"].rpartition("####")[2].strip() for row in corpus("gsm8k/test.jsonl")]
    return list(dict.fromkeys(found))


def named(pattern, unicode, tail=""):
    """A mutation that writes commands of LaTeX as characters of Unicode."""
    return lambda gold: re.sub(pattern + tail, unicode, gold)


def number(form):
    """A mutation of integer golds alone."""
    return lambda gold: form(gold.replace(",", "")) if INTEGER.fullmatch(gold) else gold


def plain(form):
    """A mutation of golds without text, which may be set in any font."""
    return lambda gold: gold if re.search(r"\\(?:text|mbox)|[$%]", gold) else form(gold)


SAME = {
    # spacing, brackets, sizes
    "spaces": plain(lambda g: re.sub(r"([=+]|,(?!\\|\d{3}))", r" \1 ", g)),
    "thin spaces": plain(lambda g: re.sub(r"(?<=[=+])", r"\\,", g)),
    "left, right": lambda g: re.sub(r"(?<!\\)([(\[])", r"\\left\1", re.sub(r"(?<!\\)([)\]])", r"\\right\1", g)),
    "dfrac": lambda g: g.replace("\\frac", "\\dfrac"),
    "tfrac": lambda g: g.replace("\\frac", "\\tfrac"),
    "display": lambda g: f"\\displaystyle {g}",
    "large": lambda g: f"\\large {g}",
    "braces": plain(lambda g: f"{{{g}}}"),
    "period": lambda g: f"{g}.",
    "dollars": lambda g: g if "$" in g else f"${g}$",
    "parentheses": lambda g: g if "$" in g else f"\\({g}\\)",
    # fonts and colours
    **{
        font: plain(lambda g, f=font: f"\\{f}{{{g}}}") for font in ("mathbf", "boldsymbol", "mathrm", "bm", "underline")
    },
    **{font: number(lambda g, f=font: f"\\{f}{{{g}}}") for font in ("text", "textbf", "mathit", "mbox", "textit")},
    "colour": plain(lambda g: f"\\color{{red}}{{{g}}}"),
    "text colour": plain(lambda g: f"\\textcolor{{blue}}{{{g}}}"),
    # Unicode
    "minus": plain(lambda g: g.replace("-", "−")),
    "hyphen": plain(lambda g: g.replace("-", "‑")),
    "pi": named(r"\\pi", "π", r"(?![a-z])"),
    "root": lambda g: re.sub(r"\\sqrt\{(\d+)\}", r"√\1", g),
    "root of a letter": lambda g: re.sub(r"\\sqrt\{([^{}]+)\}", r"√(\1)", g),
    "infinity": lambda g: g.replace("\\infty", "∞"),
    "union": lambda g: g.replace("\\cup", "∪"),
    "degree": lambda g: re.sub(r"\^\{?\\circ\}?", "°", g),
    "powers": lambda g: re.sub(r"\^(?:\{(-?\d+)\}|(\d))", lambda m: (m[1] or m[2]).translate(SUPERSCRIPT), g),
    "times": lambda g: re.sub(r"\\times(?![a-z])", "×", re.sub(r"\\cdot(?![a-z])", "·", g)),
    "full width": plain(lambda g: g if "\\" in g else g.translate(FULL_WIDTH)),
    # numbers, units, words
    "commas": number(lambda g: f"{int(g):,}"),
    "braced commas": number(lambda g: f"{int(g):,}".replace(",", "{,}")),
    "thin thousands": number(lambda g: f"{int(g):,}".replace(",", "\\,")),
    "decimals": number(lambda g: f"{g}.0"),
    "dollar sign": number(lambda g: f"\\${g}"),
    "euro": number(lambda g: f"€{g}"),
    "metres": number(lambda g: f"{g}\\text{{ m}}"),
    "square": number(lambda g: f"{g}\\text{{ cm}}^2"),
    "word": number(lambda g: f"{g} apples"),
    "text and word": number(lambda g: f"\\text{{{g} apples}}"),
    "Chinese": number(lambda g: f"{g}个"),
    "percent": number(lambda g: f"{g}\\%" if abs(int(g)) >= 1 else g),
    "named": number(lambda g: f"x = {g}"),
    "option": number(lambda g: f"\\textbf{{(B)}}\\ {g}"),
}
SENTENCES = {  # a whole response that says an integer without a box
    "is": "The answer is {}.",
    "bold": "**Answer:** {}",
    "tagged": "<answer>{}</answer>",
    "Chinese": "因此，答案是 {}。",
    "Russian": "Ответ: {}",
    "French": "La réponse est {}.",
    "unbraced": "so $\\boxed {}$.",
}


def graded(pairs):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda pair: grade(*pair).status, pairs))


@pytest.mark.parametrize("name", SAME)
def test_the_same_answer_in_another_notation_is_accepted(name):
    pairs = [(f"\\boxed{{{SAME[name](gold)}}}", gold) for gold in golds() if SAME[name](gold) != gold]
    assert pairs
    missed = [pair for pair, status in zip(pairs, graded(pairs), strict=True) if status != "correct"]
    assert missed == []


@pytest.mark.parametrize("name", SENTENCES)
def test_a_sentence_that_says_it_is_accepted(name):
    integers = [gold for gold in golds() if INTEGER.fullmatch(gold)]
    pairs = [(SENTENCES[name].format(gold), gold) for gold in integers]
    assert len(pairs) > 500 and set(graded(pairs)) == {"correct"}


@pytest.mark.parametrize("unit", ["%", "\\%", "\\text{ percent}"])
def test_a_gold_in_percent_is_its_share(unit):
    for gold in [gold for gold in golds() if INTEGER.fullmatch(gold) and 0 < abs(int(gold.replace(",", ""))) < 1000][
        :50
    ]:
        share = int(gold.replace(",", "")) / 100
        assert grade(f"\\boxed{{{share:g}}}", gold + unit).status == "correct"
        assert grade(f"\\boxed{{\\frac{{{gold}}}{{100}}}}", gold + unit).status == "correct"
        assert grade(f"\\boxed{{{share:g}{unit}}}", gold + unit).status == "wrong"


def test_another_digit_or_sign_is_rejected():
    other = lambda m: str((int(m[0]) + 1) % 10)  # noqa: E731
    last = re.compile(r"\d(?=\D*$)")
    pairs = [(f"\\boxed{{{last.sub(other, gold)}}}", gold) for gold in golds() if last.search(gold)]
    pairs += [(f"\\boxed{{-{gold}}}", gold) for gold in golds() if INTEGER.fullmatch(gold) and gold != "0"]
    accepted = [pair for pair, status in zip(pairs, graded(pairs), strict=True) if status == "correct"]
    assert accepted == []


@pytest.mark.parametrize(
    "said", ["cannot be {}", "is less than {}", "is {} million", "is between 0 and {}", "might be {}"]
)
def test_what_is_denied_or_bounded_is_no_answer(said):
    pairs = [("The answer " + said.format(gold) + ".", gold) for gold in golds() if re.fullmatch(r"[1-9]\d*", gold)]
    assert "correct" not in graded(pairs)
