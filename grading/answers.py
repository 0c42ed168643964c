"""Final answers: compare the one in a response with the gold one. The one grading function of the project.

    grade("… so \\\\boxed{12}.", "12").status == "correct"

Evaluation, the agents' guards and the scripted teacher all grade here. Most answers are numbers or equal as text and
are settled in this process; the others go to math-verify in a worker process (grading/workers.py) with a hard limit,
because math-verify's own limit needs the main thread and cannot interrupt a long C call. Safe to call from any thread.
"""

import itertools
import re
from fractions import Fraction

from grading import Grade
from grading.extraction import EQUALS, LONGEST, extract_boxed, extract_list, final_answer, split_top, strip_thought
from grading.notation import is_prose, normalise, plain_number
from grading.quantities import split
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
    short = len(said) <= min(LONGEST, 4 * len(gold) + 40)
    if boxed is None and finished and short and normalise(said) == normalise(gold):
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


def compare(pred: str, gold: str, tolerance: float | list[float] | None = None, shown: bool = False) -> str:
    """Return "equal", "different", or one of UNDECIDED. tolerance: absolute, for benchmarks that state one (a list: one
    per value). shown: "different" only where numbers, words or units differ; else "unshown" instead.

    Integers first (leading zeros, thousands separators), then equal text, then math-verify: strict, both sides boxed.
    """
    verdict, why = _verdict(pred, gold, tolerance)
    return "unshown" if shown and why == UNSHOWN else verdict


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
    raw = pred, gold = _joined(pred, gold) or extract_boxed(pred) or pred, _unboxed(gold)
    pred, gold = normalise(pred), normalise(gold)
    if SPACES.sub("", pred) == SPACES.sub("", gold):
        return "equal", "the same text"
    # an option with its letter: the letter decides where both have one, else what both have
    options = [LABELLED.fullmatch(side) for side in (pred, gold)]
    if any(options):
        letters = [m[1] or m[2] if m else _word(s)[0] for m, s in zip(options, (pred, gold), strict=True)]
        if all(letter and re.fullmatch("[A-Z]", letter) for letter in letters):
            return ("equal" if letters[0] == letters[1] else "different"), "the letter of an option"
        pred, gold = (m[3] if m else side for m, side in zip(options, (pred, gold), strict=True))
    # a value with its unit; the pairs of values of which one must be equal
    (pred, said), (gold, meant) = split(pred), split(gold)
    if said and meant and not said.matches(meant):
        return "different", "another unit" if said.powers and meant.powers else UNSHOWN  # ways may be arrangements
    pairs = [(_scaled(pred, said, meant), gold)] if not _percents(said, meant) else list(_shares(pred, gold, said))
    pred, gold = pairs[0]
    for one, other in pairs:
        a, b = plain_number(one), plain_number(other)
        if a is not None and a == b:
            return "equal", "the same number"
    if None not in map(plain_number, pairs[0]) and tolerance is None and not ("," in pred and "," in gold):
        return "different", "another number"
    if re.fullmatch(r"-?\d+,\d+", pred) and not THOUSANDS.fullmatch(pred) and pred.replace(",", ".") == gold:
        return "equal", "the same number, with a decimal comma"
    if all(LIST.fullmatch(side) for side in (pred, gold)) and tolerance is None:  # 120,180 may be two answers
        same = sorted(map(int, pred.split(","))) == sorted(map(int, gold.split(",")))
        return ("equal", "the same numbers") if same else ("different", "other numbers")
    # words, and notation that math-verify does not look at
    words = _word(pred)[0], _word(gold)[0]
    if _same_word(pred, gold):
        return "equal", "the same word"
    if clash := _clash(pred, gold):
        return "different", clash
    bare = pred, gold
    pred, gold, why = _without_names(pred, gold)
    if why:
        return "different", why
    # math-verify on one pair after the other: an exception does not keep the next one from being equal
    pairs = [*_readings(pred, gold), *pairs[1:]]
    if not (said or meant or any(options)) and bare == (pred, gold):  # as they came: what it does, it does
        pairs.append(raw)
    undecided, shown = None, True
    for one, other in dict.fromkeys(pairs):
        try:
            equal, differs, failed = WORKERS.compare(other, one, tolerance)
        except Undecided as no:
            if no.status == "timeout":
                raise  # a second look would take as long
            undecided = no
        else:
            if equal:
                return "equal", "mathematically equal" + f" ({failed})" * bool(failed)
            shown = shown and differs
    if undecided:
        raise undecided
    if any(word and len(word) > 2 for word in words):  # a word read as a product of letters proves nothing
        starts = [{part[:3].lower() for part in word.split()} if word else None for word in words]
        shown = None not in starts and starts[0].isdisjoint(starts[1])  # Mon. may be Monday
    return "different", "another value" if shown and not (is_prose(pred) and None in words) else UNSHOWN


UNSHOWN = "not found to be equal"
SPACES = re.compile(r"(?<=\W) | (?=\W)")  # that separate no two letters or digits
THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+")
LIST = re.compile(r"-?\d+(?:,\s*-?\d+)+")
LABELLED = re.compile(
    r"(?:\((?:\\text\{)?([A-Z])\}?\)|([A-Z])[.:)](?=\s|\\)) *(?!\\(?:cup|cap|times|cdot|in|to|subset)\b)([\w\\$(.-].*)"
)
TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
BOUND = re.compile(r"\b(?:or (?:more|less|fewer)|at (?:least|most)|than|not|except)\b|\d")
BASE = re.compile(r"[\dA-Z]+_\{?(\d+)\}?")
PRIMED = re.compile(r"([A-Za-z])(?:_(?:\w|\{[^{}]*\}))?\s*('+)")
LINE = re.compile(r"\\(angle|overline|overrightarrow|vec)\s*\{?\s*([A-Z]{2,})(?![a-z])")


def _scaled(pred, said, meant):
    """The value of pred in the unit of gold; a number word counts even where the other side has none."""
    ratio = Fraction(said.count if said else 1, meant.count if meant else 1)
    return _times(pred, ratio * (said.size / meant.size if said and meant else 1))


def _times(value, ratio):
    number = plain_number(value)
    if ratio == 1 or number is not None:
        return value if ratio == 1 else f"{number * ratio}"
    return f"\\frac{{{ratio.numerator}({value})}}{{{ratio.denominator}}}"


def _percents(said, meant):
    """Whether one side is in percent and the other has no unit."""
    one, other = (unit and unit.powers for unit in (said, meant))
    return (one or other) == PERCENT and not (one and other)


PERCENT = (("percent", 1),)


def _shares(pred, gold, said):
    """The pairs of values where one side is in percent: its share, or the same number, the sign left out.

    Below 1 a number without a sign is a share: 0.5 is 50%, not 0.5%.
    """
    value = plain_number(gold)
    if said and said.powers:
        yield _times(pred, Fraction(1, 100)), gold
        if value is not None and abs(value) >= 1:
            yield pred, gold
    else:
        yield pred, gold
        yield pred, _times(gold, Fraction(1, 100))


def _clash(pred, gold):
    """What of a notation that math-verify drops differs between two answers, or None: a base, a derivative, the order
    of the points of an angle, a bound or an alternative set as text."""
    bounds = ["".join(BOUND.findall(" ".join(TEXT.findall(side)))) for side in (pred, gold)]
    if bounds[0] != bounds[1]:
        return "another bound"
    bases = BASE.fullmatch(pred), BASE.fullmatch(gold)
    if all(bases) and bases[0][1] != bases[1][1]:
        return "another base"
    lines = LINE.findall(pred), LINE.findall(gold)
    if len(lines[0]) == len(lines[1]) and lines[0] != lines[1]:
        return "other points"
    sides = pred, gold
    if ("=" in pred) != ("=" in gold):  # y' = 2x for 2x
        sides = pred.rpartition("=")[2], gold.rpartition("=")[2]
    a, b = (sorted((m[1], m[2]) for m in PRIMED.finditer(side)) for side in sides)
    return "another derivative" if a != b else None


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


MATRIX = re.compile(
    r"(?:\\left)?\(?\\begin\{(?:[pbv]?matrix|array)\}(?:\{\w+\})?([^&]*?)\\end\{(?:[pbv]?matrix|array)\}\)?"
)


def _readings(pred, gold):
    """Yield (pred, gold), and what they are where the two sides follow different conventions, which math-verify does
    not see."""
    yield pred, gold
    # a quantity that is named in the gold answer only
    if "=" in gold and "=" not in pred:
        sides = split_top(gold, EQUALS)
        if len(sides) == 2 and QUANTITY.fullmatch(sides[0]):
            yield pred, sides[1]
    # \log without a base is 10 for math-verify, where the other says \ln
    if bool(NATURAL.search(pred)) != bool(NATURAL.search(gold)) and "\\log" in pred + gold:
        yield COMMON.sub(r"\\ln", pred), COMMON.sub(r"\\ln", gold)
    # (1, 2) for a column
    if column := MATRIX.fullmatch(gold):
        yield pred, f"({column[1]})".replace("\\\\", ",")
    # P(2, 3) for (2, 3)
    if pred.startswith("(") != gold.startswith("("):
        yield tuple(re.sub(r"^[A-Z](?=\()", "", side) for side in (pred, gold))
    # \pm 3 for 3, -3
    if ("\\pm" in pred) != ("\\pm" in gold):
        yield _signs(pred), _signs(gold)
    # [1,3], [5,7] for a union
    if "\\cup" in gold and "\\cup" not in pred:
        yield "\\cup ".join(split_top(pred)), gold
    # ABD for A, B, D
    if re.fullmatch(r"[A-J](?:,\s*[A-J])+", gold) and re.fullmatch(r"[A-J]{2,}", pred):
        yield ",".join(pred), gold


def _signs(text):
    """Every choice of the signs of a text as a list: (\\pm 3, \\pm 2) -> (+3, +2), (+3, -2), …"""
    pieces = re.split(r"\\pm(?![a-zA-Z])", text)
    if not 1 < len(pieces) < 5:
        return text
    return ", ".join(
        pieces[0] + "".join(s + piece for s, piece in zip(signs, pieces[1:], strict=True))
        for signs in itertools.product("+-", repeat=len(pieces) - 1)
    )


FUNCTION_WORDS = {"a", "an", "the", "on", "in", "at", "it", "is", "they", "are"}
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
    if not re.fullmatch(r"[^\W\d_]+(?:,?[ '-][^\W\d_]+)*", text):
        dated = is_prose(text) and re.fullmatch(r"[^\W_]+(?:,? [^\W_]+)+", text)  # June 5
        return (text, marked) if dated else (None, False)
    said = [word for word in re.split(r"[, ]+", text) if word.lower() not in FUNCTION_WORDS]  # yes, it is; on Monday
    return " ".join(said) if said and " " in text else text, marked
