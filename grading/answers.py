"""Final answers: compare the one in a response with the gold one. The one grading function of the project.

    grade("… so \\\\boxed{12}.", "12").status == "correct"

Evaluation, the agents' guards and the scripted teacher all grade here. Most answers are numbers or equal as text and
are settled in this process; the others go to math-verify in a worker process (grading/workers.py) with a hard limit,
because math-verify's own limit needs the main thread and cannot interrupt a long C call. Safe to call from any thread.
"""

import re
from fractions import Fraction

from grading import Grade
from grading.extraction import EQUALS, LONGEST, extract_boxed, extract_list, final_answer, split_top, strip_thought
from grading.workers import WORKERS, Undecided

WHOLE = re.compile(r"####|\banswer is\b")  # a gold answer that is a whole solution, as GSM8K's


def grade(text: str, gold: str, finished: bool = True, tolerance: float | list[float] | None = None) -> Grade:
    """Grade a response. finished: False when generation hit its length limit.

    correct | wrong    the answer was compared
    no_answer          a finished response without an answer
    truncated          no box, and the thought or the response is unfinished: what stands there is no final answer
    timeout | error    the comparison took too long, or sympy failed: not counted as wrong, not counted as correct
    """
    said = strip_thought(text)
    if said is None:
        return Grade("truncated", None, "the thought does not end")
    if WHOLE.search(gold):
        gold = final_answer(gold, equation=True) or gold
    boxed = extract_boxed(said)
    if boxed is None and finished and len(said) <= LONGEST and normalise(said) == normalise(gold):
        return Grade("correct", said.strip(), "all of the response is the gold answer")
    answer = final_answer(said, equation="=" in gold) if finished else boxed
    if answer is None and finished:
        return Grade("no_answer", None, 'no box, no "answer is", no value in the last line')
    if answer is None:
        return Grade("truncated", None, "cut at the length limit, and no box before it")
    verdict, why = _verdict(answer, gold, tolerance)
    if verdict in ("different", "error") and (several := _joined(said, gold)):
        answer, (verdict, why) = several, _verdict(several, gold, tolerance)
    return Grade({"equal": "correct", "different": "wrong"}.get(verdict, verdict), answer, why)


# --- comparing two answers ---


def compare(pred: str, gold: str, tolerance: float | list[float] | None = None) -> str:
    """Return "equal", "different", or one of UNDECIDED. tolerance: absolute, for benchmarks that state one (a list: one
    per value).

    Integers first (leading zeros, thousands separators), then equal text, then math-verify: strict, both sides boxed.
    """
    return _verdict(pred, gold, tolerance)[0]


def _joined(text, gold):
    """The last boxes of a text as a list, if the gold answer is a list of as many values and not a tuple; else None."""
    gold = _unboxed(gold)
    while gold.startswith("{") and gold.endswith("}"):  # invisible in print
        gold = gold[1:-1].strip()
    several = extract_list(text)
    return ", ".join(several) if len(several) == len(split_top(gold)) > 1 else None


def _unboxed(answer):
    several = extract_list(answer)
    return re.sub(r"^\$+|(?<!\\)\$+$", "", ", ".join(several) or answer.strip()).strip()


def _verdict(pred, gold, tolerance):
    """Return (what `compare` returns, why in a few words)."""
    try:
        return _decided(pred, gold, tolerance)
    except Undecided as no:
        return no.status, str(no)


def _decided(pred, gold, tolerance):
    """Return ("equal" or "different", why in a few words). Raises Undecided."""
    # what is too long for the patterns below, and what needs none of them
    if max(len(pred), len(gold)) > LONGEST:
        same = pred.strip() == gold.strip()
        return ("equal" if same else "different"), f"longer than {LONGEST} characters: compared as text"
    pred, gold = normalise(_joined(pred, gold) or extract_boxed(pred) or pred), normalise(_unboxed(gold))
    if pred == gold:
        return "equal", "the same text"
    # numbers, with and without a percent sign
    if gold.endswith("%") and not pred.endswith("%"):
        gold = gold.removesuffix("%").rstrip()  # 6.17 for 6.17%: the unit was left out, the number is the same
    elif gold.endswith("%"):
        pred, gold = pred.removesuffix("%").rstrip(), gold.removesuffix("%").rstrip()
    a, b = _plain_number(pred), _plain_number(gold)
    if pred.endswith("%") and b is not None and abs(b) >= 1 and _plain_number(pred[:-1].rstrip()) == b:
        return "equal", "the same number, the percent sign left out"  # below 1 it is a share: 0.5 is 50%, not 0.5%
    if a is not None and b is not None:
        if a == b:
            return "equal", "the same number"
        if tolerance is None and not ("," in pred and "," in gold):  # 120,180 may also be two answers
            return "different", "another number"
    if re.fullmatch(r"-?\d+,\d+", pred) and not THOUSANDS.fullmatch(pred) and pred.replace(",", ".") == gold:
        return "equal", "the same number, with a decimal comma"
    # words, and notation that math-verify does not look at
    if _same_word(pred, gold):
        return "equal", "the same word"
    if clash := _clash(pred, gold):
        return "different", clash
    pred, gold, why = _without_names(pred, gold)
    if why:
        return "different", why
    # math-verify, at most twice: an exception at the first look does not keep the second from saying "equal"
    undecided = None
    for pair in ((gold, pred), *_other_readings(pred, gold)):
        try:
            equal, failed = WORKERS.compare(*pair, tolerance)
        except Undecided as no:
            if no.status == "timeout":
                raise  # a second look would take as long
            undecided = no
        else:
            if equal:
                return "equal", "mathematically equal" + f" ({failed})" * bool(failed)
    if undecided:
        raise undecided
    return "different", "not mathematically equal"


THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+")
BASE = re.compile(r"[\dA-Z]+_\{?(\d+)\}?")
UNIT = re.compile(r"\\(?:text\w*|mbox|mathrm)\s*\{([^{}]*)\}[^\w]*\d?\}?$")
PRIMED = re.compile(r"([A-Za-z])(?:_(?:\w|\{[^{}]*\}))?\s*('+)")


def _clash(pred, gold):
    """What of a notation that math-verify drops differs between two answers, or None: a base, a unit, a derivative."""
    bases = BASE.fullmatch(pred), BASE.fullmatch(gold)
    if all(bases) and bases[0][1] != bases[1][1]:
        return "another base"
    units = UNIT.search(pred), UNIT.search(gold)
    if all(units) and not _same_unit(*(re.sub(r"[^a-z]", "", unit[1].lower()).removesuffix("s") for unit in units)):
        return "another unit"
    sides = pred, gold
    if ("=" in pred) != ("=" in gold):  # y' = 2x for 2x
        sides = pred.rpartition("=")[2], gold.rpartition("=")[2]
    a, b = (sorted((m[1], m[2]) for m in PRIMED.finditer(side)) for side in sides)
    return "another derivative" if a != b else None


def _same_unit(a, b):
    """Whether one word is the other, its beginning, or its abbreviation: cm, centimeter."""
    short, long = sorted((a, b), key=len)
    letters = iter(long)
    return a == b or (long[:1] == short[:1] and len(long) > 3 and all(letter in letters for letter in short))


# the name of one quantity: x, x_1, f(x), f'(x), AB, \angle ABC, \theta, \text{area}, (x, y)
NAME = r"(?:[A-Za-z]|[A-Z]{2,4}|[A-Za-z]{3,}|\\(?!frac|sqrt)[a-z]+|\\text\s*\{[^{}=]*\})"
NAME = rf"(?:\\(?:angle|triangle|overline|Delta|vec)\s*)?(?:{NAME}|\{{{NAME}\}})'*"
NAME += r"(?:_(?:\w|\{[^{}]*\}))?(?:\([^()=+]*\))?"
QUANTITY = re.compile(rf"\s*(?:{NAME}|\(\s*{NAME}(?:\s*,\s*{NAME})+\s*\))\s*")
NATURAL, COMMON = re.compile(r"\\ln(?![a-zA-Z])"), re.compile(r"\\log(?![a-zA-Z_]|\s*_)")


def _without_names(pred, gold):
    """(pred, gold, None) with the names of quantities removed where only one side has them; else why that fails.

    x = 5 says 5, and x = 3, y = 4 says (3, 4). An equation such as x^2 + y^2 = 4 does not say 4.
    """
    equations = [len(split_top(side, EQUALS)) > 1 for side in (pred, gold)]
    if equations == [False, True] and (values := _in_order(split_top(gold))):
        return pred if pred.startswith("(") else f"({pred})", f"({', '.join(values)})", None
    if equations != [True, False]:
        return pred, gold, None
    parts = split_top(pred)
    if (values := _in_order(parts)) and split_top(gold) == [gold]:
        return f"({', '.join(values)})", gold, None
    values = [_value(part) for part in parts]
    if None in values:
        return pred, gold, "an equation, and no value of a quantity"
    return ", ".join(values) if len(values) > 1 else values[0], gold, None


def _in_order(parts):
    """The values of x = 3, y = 4 and the like: each of another letter. None for anything else, as x_1 = 3, x_2 = 4."""
    sides = [split_top(part, EQUALS) for part in parts]
    if len(sides) < 2 or any(len(s) != 2 or not re.fullmatch(r"[A-Za-z]", s[0]) for s in sides):
        return None
    return [value for _, value in sides] if len({name for name, _ in sides}) == len(sides) else None


def _value(part):
    """What follows the last equals sign, if a name stands before the first one or an equal number does; else None.
    Raises Undecided."""
    sides = split_top(part, EQUALS) or [part]
    if len(sides) == 1 or QUANTITY.fullmatch(sides[0]):
        return sides[-1]
    numeric = not re.search(r"(?<![\\a-zA-Z])[a-zA-Z]", sides[0])
    return sides[-1] if numeric and WORKERS.compare(sides[0], sides[-1], None)[0] else None


def _other_readings(pred, gold):
    """At most one (gold, pred) for a second look, where the two sides follow different conventions.

    A quantity named in the gold answer only; a \\log without a base, 10 for math-verify, where the other says \\ln.
    """
    if "=" in gold and "=" not in pred:
        name, *values = split_top(gold, EQUALS)
        other = (values[0] if len(values) == 1 and QUANTITY.fullmatch(name) else gold), pred
    elif bool(NATURAL.search(pred)) != bool(NATURAL.search(gold)):
        other = COMMON.sub(r"\\ln", gold), COMMON.sub(r"\\ln", pred)
    else:
        return ()
    return (other,) if other != (gold, pred) else ()


SYMBOLS = {
    "−": "-", "–": "-", "×": "\\times ", "·": "\\cdot ", "÷": "/", "π": "\\pi ", "∞": "\\infty ", "°": "^\\circ ",
    "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "∅": "\\emptyset ", "∪": "\\cup ", "∩": "\\cap ", "±": "\\pm ",
    "∈": "\\in ", "²": "^2", "³": "^3", "½": "\\frac{1}{2}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "θ": "\\theta ",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "，": ",", "％": "%",
}  # fmt: skip
SYMBOL = re.compile("|".join(map(re.escape, SYMBOLS)))

LONE = r"(?<!\\)\\"  # a backslash that is not the second one of a row break
REWRITES = [  # what math-verify 0.9.0 misses, each with the form that it knows
    (re.compile(r"\\(?:displaystyle|left|right|bigl|bigr|limits)(?![a-zA-Z])"), ""),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (
        re.compile(r"\\varnothing(?![a-zA-Z])|^\W*(?:\\text\s*\{)?\s*no (?:real )?solutions?\s*\}?\W*$", re.I),
        r"\\emptyset",
    ),
    (re.compile(LONE + r"(?:\$|!\s*)"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(rf"(?<=\d)(?:{LONE}[,;: ]|~|\s)(?=\d{{3}}(?!\d))"), ""),  # 10\,000
    (re.compile(LONE + r"[,;: ]|~"), " "),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])|\\textdegree(?![a-zA-Z])"), r"^\\circ"),
    (  # an angle in degrees has a value only inside a function
        re.compile(r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{?\d\}?)?)\s*(\(\s*)?(\d[\d.]*)\s*\^\\circ(?(2)\s*\))"),
        r"\1(\\frac{\3\\pi}{180})",
    ),
    (re.compile(r"^\W*(?:\\text\s*\{)?\s*all real(?:s| numbers)\s*\}?\W*$", re.I), r"\\mathbb{R}"),
    (re.compile(r"\*\*(?=[\w(])"), "^"),  # 2**(1/4)
    (re.compile(r"\\?(?<![a-zA-Z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\a-zA-Z])(sqrt|pi|sin|cos|tan|log|ln)(?![a-zA-Z])"), r"\\\1"),
    (re.compile(r"^(-?[\d.]+)\s*=\s*([a-zA-Z])$"), r"\2=\1"),
    (re.compile(r"\^\s*\{?\s*((?:\\prime\s*)+)\}?"), lambda m: "'" * m[1].count("prime")),
    (re.compile(r"\s+"), " "),
]
REPEATING = re.compile(r"(-?)(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{?(\d+)\}?")


def normalise(answer: str) -> str:
    """Give one spelling to what is only typography."""
    answer = SYMBOL.sub(lambda m: SYMBOLS[m.group()], answer.strip())
    answer = re.sub(r"^\$+|(?<!\\)\$+$", "", answer).strip()
    answer = re.sub(r"^\\[(\[]|\\[)\]]$", "", answer)
    for pattern, form in REWRITES:
        answer = pattern.sub(form, answer)
    answer = REPEATING.sub(_fraction, answer)
    return answer.strip().rstrip(".,;").strip()


def _fraction(match):
    """0.1\\overline{6} -> \\frac{15}{90}"""
    sign, whole, head, tail = match.groups()
    numerator = int(whole + head + tail or 0) - int(whole + head or 0)
    return f"{sign}\\frac{{{numerator}}}{{{(10 ** len(tail) - 1) * 10 ** len(head)}}}"


FRACTION = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<whole>\d{0,30})\s*\\frac\s*(?:\{(?P<a>-?\d{1,30})\}|(?P<x>\d))\s*(?:\{(?P<b>\d{1,30})\}|(?P<y>\d))"
    r"|(?P<n>-?\d{1,30})\s*/\s*(?P<d>\d{1,30})"
)


def _plain_number(text):
    """The exact value of a plain numeral (12, 012, 1,234, -0.5, +3) or fraction (3/4, 1\\frac{1}{2}), or None.

    Length-limited: int() is quadratic.
    """
    text = text.lstrip("$").strip()
    if fraction := FRACTION.fullmatch(text):
        n = fraction["n"] or fraction["a"] or fraction["x"]
        d = fraction["d"] or fraction["b"] or fraction["y"]
        if int(d) == 0 or (fraction["whole"] and int(n) < 0):
            return None
        value = int(fraction["whole"] or 0) + Fraction(int(n), int(d))
        return -value if fraction["sign"] == "-" else value
    if len(text) > 400 or not re.fullmatch(r"[+-]?(?:\d+|\d{1,3}(?:,\d{3})+)?(?:\.\d+|(?<=\d)\.)?", text):
        return None
    return Fraction(text.replace(",", "").rstrip(".")) if re.search(r"\d", text) else None


WRAPPED = re.compile(r"^\\(?:text\w*|math\w+|mbox|operatorname)\s*\{([^{}]*)\}$")


def _same_word(a, b):
    """Whether both are the same word, name or option letter, however wrapped: \\text{(C)} is C, even is Even.

    Capitals are the same only in words of three letters, words set as text (Yes), and options: x is not X.
    """
    (a, a_marked), (b, b_marked) = _word(a), _word(b)
    if a is None or b is None:
        return False
    if min(len(a), len(b)) < 3:
        marked = a_marked or b_marked
        a, b = ((w[:1].lower() + w[1:]) if marked and (len(w) > 1 or w.upper() in "ABCDEFGHIJ") else w for w in (a, b))
        return a == b
    return a.lower() == b.lower()


def _word(text):
    """(text without its wrapping, whether it was set as text or in brackets); (None, False) if not only letters."""
    previous, marked = None, False
    while text != previous:
        previous = text
        text = WRAPPED.sub(r"\1", text.strip())
        text = re.sub(r"^\(([^()]*)\)$|^\*\*([^*]*)\*\*$", lambda m: m[1] or m[2] or "", text)
        marked = marked or text != previous
    text = text.strip().rstrip(".")
    return (text, marked) if re.fullmatch(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*", text) else (None, False)
