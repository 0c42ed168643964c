r"""Notation: one spelling for what is only typography, and the form that math-verify 0.9.0 knows for what it misses.

normalise("√3⁄2 ≤ 𝑥") == normalise("\\dfrac{\\sqrt3}{2} \\le\\mathbf{x}")
"""

import re
import unicodedata
from fractions import Fraction

# --- Unicode ---

SYMBOLS = {
    "×": "\\times ", "·": "\\cdot ", "∙": "\\cdot ", "⋅": "\\cdot ", "∗": "*", "÷": "/", "∕": "/", "∞": "\\infty ",
    "°": "^\\circ ", "≤": "\\le ", "⩽": "\\le ", "≦": "\\le ", "≥": "\\ge ", "⩾": "\\ge ", "≧": "\\ge ", "≠": "\\ne ",
    "∅": "\\emptyset ", "∪": "\\cup ", "∩": "\\cap ", "±": "\\pm ", "∓": "\\mp ", "∈": "\\in ", "≈": "\\approx ",
    "≡": "\\equiv ", "∠": "\\angle ", "△": "\\triangle ", "→": "\\to ", "〈": "\\langle ", "〉": "\\rangle ",
    "⟨": "\\langle ", "⟩": "\\rangle ", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "。": ".", "、": ",",
    "∶": ":", "−": "-", "∣": "|", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ",
}  # fmt: skip
SYMBOL = re.compile("|".join(SYMBOLS))
RAISED, LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₐₑₒₓₕₖₗₘₙₚₛₜᵢⱼ"
SETS = {"ℝ": "R", "ℤ": "Z", "ℚ": "Q", "ℕ": "N", "ℂ": "C"}
BRACKETED = r"\([^()]*\)|\{[^{}]*\}|\d+(?:\.\d+)?|[A-Za-z]|\\[A-Za-z]+"


def ascii_math(text: str) -> str:
    """Return a text with the characters of Unicode that stand for mathematics written as LaTeX."""
    # what NFKC would make a plain digit or letter
    text = re.sub(rf"([{RAISED}]+)\s*[⁄/∕]\s*([{LOWERED}]+)", r"\\frac{\1}{\2}", text)
    text = re.sub(rf"(?<=[\w)}}\]])[{RAISED}]+", r"^{\g<0>}", text)
    text = re.sub(rf"(?<=[\w)}}\]])[{LOWERED}]+", r"_{\g<0>}", text)
    text = re.sub(r"[¼-¾⅐-⅞↉]", r" \g<0> ", text)
    text = re.sub(r"[㎀-㏟]", lambda m: f"\\text{{{unicodedata.normalize('NFKC', m.group())}}}", text)  # ㎡
    text = re.sub("[ℝℤℚℕℂ]", lambda m: f"\\mathbb{{{SETS[m.group()]}}}", text).replace("º", "°")
    text = re.sub(r"(?:\d\u0305)+", lambda m: f"\\overline{{{m.group()[::2]}}}", text)
    # full-width and styled forms, fractions with their slash (U+2044), spaces, dashes, Greek, roots
    text = unicodedata.normalize("NFKC", text)
    for sign, degree in ("√", ""), ("∛", "[3]"), ("∜", "[4]"):
        text = re.sub(rf"{sign}\s*({BRACKETED})", lambda m: f"\\sqrt{degree}{{{m[1].strip('(){}')}}}", text)  # noqa: B023
    text = re.sub(r"(\d+)\s*⁄\s*(\d+)", r"\\frac{\1}{\2}", text).replace("⁄", "/")
    text = "".join(map(_one, SYMBOL.sub(lambda m: SYMBOLS[m.group()], text)))
    return text


def _one(char):
    """A character as LaTeX: a dash, a space, nothing for what is invisible, or the name of a Greek letter."""
    kind = unicodedata.category(char)
    if kind in ("Pd", "Zs"):
        return "-" if kind == "Pd" else " "
    if kind == "Cf":
        return ""
    case, _, name = unicodedata.name(char, "").removeprefix("GREEK ").partition(" LETTER ")
    if "GREEK" in unicodedata.name(char, "") and name.isalpha():
        return f"\\{name.lower() if case == 'SMALL' else name.title()} "
    return char


# --- fonts ---

NESTED = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"  # a group, and what its content is, up to two groups deep
UPRIGHT = r"text|textrm|textnormal|mathrm|mbox|hbox|operatorname\*?"
FONT = re.compile(
    rf"\\(?:(?P<upright>{UPRIGHT})|text(?:bf|it|sf|tt|sl|sc|up|md)|math(?:bf|it|sf|tt|normal|bfit)|boldsymbol|bm|pmb"
    rf"|underline|emph|ensuremath)\s*{NESTED}"
)
NAMES = set(re.findall(r"\w+", "sqrt sin cos tan cot sec csc log ln exp pi inf arcsin arccos arctan max min gcd lcm"))


def is_prose(text: str) -> bool:
    """Tell whether a word stands in it that is neither a name of mathematics nor wrapped as text, such as a unit."""
    text = re.sub(r"\\(?:text|mathrm|textbf|mbox)\s*\{[^{}]*\}|\\begin\{\w+\}|\\end\{\w+\}|\\[a-zA-Z]+", " ", text)
    return any(word not in NAMES for word in re.findall(r"[^\W\d_]{2,}|[\u3040-\u9fff\uac00-\ud7af]", text))


def _font(match):
    """What a font is set on: mathematics without it, and words as \\text{…}; an upright letter may be a unit."""
    content, upright = match[match.lastindex], match["upright"]
    letter = content.strip()
    if letter in NAMES and upright in ("mathrm", "operatorname") and letter != "min":  # which may be minutes
        return f"\\{letter} "
    prose = is_prose(content) and not re.search(r"[+=^_<>]", content)
    if prose or letter in NAMES or (upright and re.fullmatch(r"[A-Za-z]\d?", letter) and letter not in "ei"):
        return f"\\text{{{content}}}"
    before = match.string[match.start() - 1 : match.start()]
    return f"{{{content}}}" if before in ("^", "_") else " " * before.isalpha() + content


# --- LaTeX ---

LONE = r"(?<!\\)\\"  # a backslash that is not the second one of a row break
SWITCHES = (
    "displaystyle|textstyle|scriptstyle|m?left|m?right|[bB]ig+[lrm]?|limits|tiny|small|normalsize|large|Large|LARGE"
    "|huge|Huge|bf|rm|it|sf|tt|bfseries|boldmath|mathstrut|nonumber|hfill"
)
SPACED = re.compile(r"\s+")
REWRITES = [
    (
        re.compile(rf"\\(?:{SWITCHES})(?![a-zA-Z])|\\(?:text)?color\s*(?:\[\w+\])?\s*\{{\w+\}}|\\tag\*?\{{[^{{}}]*\}}"),
        "",
    ),
    (re.compile(r"\\(?:[dtcs]|nice)frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![a-zA-Z])"), r"\\binom"),
    (re.compile(r"\\overrightarrow(?![a-zA-Z])"), r"\\vec"),
    (re.compile(r"\^\s*(-\d+)"), r"^{\1}"),  # 10^-4
    (re.compile(r"(\\sqrt\s*\[[^\[\]]*\])\s*(\w)"), r"\1{\2}"),
    (re.compile(r"\\frac\s*(\\(?!sqrt|frac|text)[a-zA-Z]+)\s*(?=\w|\{|\\)"), r"\\frac{\1}"),  # \frac\pi2
    (re.compile(r"(\\frac\s*(?:\{[^{}]*\}|\d))\s*(\d|\\(?!sqrt|frac|text)[a-zA-Z]+)"), r"\1{\2}"),
    # the points of an angle and of a segment, from either end
    (
        re.compile(r"\\(angle|overline)\s*(\{?)\s*([A-Z]{2,3})(?![A-Za-z])"),
        lambda m: f"\\{m[1]} {m[2]}{min(m[3], m[3][::-1])}",
    ),
    (re.compile(LONE + r"!\s*"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(rf"(?<=\d)(?:{LONE}[,;: ]|~|\s)(?=\d{{3}}(?!\d))"), ""),  # 10\,000
    (re.compile(LONE + r"[,;: ]|~|\\q?quad(?![a-zA-Z])|\\[hv]space\*?\{[^{}]*\}"), " "),
    (re.compile(r"\\(?:%|text\s*\{\s*(?:%|percent(?:age)?)\s*\})|(?<=\d)\s*percent\b"), "%"),
    (
        re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))|\\degree(?![a-zA-Z])|\\textdegree(?![a-zA-Z])"),
        r"^\\circ",
    ),
    (  # an angle in degrees has a value only inside a function
        re.compile(r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{?\d\}?)?)\s*(\(\s*)?(\d[\d.]*)\s*\^\\circ(?(2)\s*\))"),
        r"\1(\\frac{\3\\pi}{180})",
    ),
    (
        re.compile(r"\\varnothing(?![a-zA-Z])|^\W*(?:\\text\s*\{)?\s*no (?:real )?solutions?\s*\}?\W*$", re.I),
        r"\\emptyset",
    ),
    (re.compile(r"^\W*(?:\\text\s*\{)?\s*all real(?:s| numbers)\s*\}?\W*$", re.I), r"\\mathbb{R}"),
    (re.compile(r"\\text\s*\{\s*infinity\s*\}|(?<![a-zA-Z\\])infinity\b", re.I), r"\\infty"),
    (re.compile(r"\*\*(?=[\w(])"), "^"),  # 2**(1/4)
    (re.compile(r"\\?(?<![a-zA-Z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\\?(?<![a-zA-Z])exp\s*(?:\(([^()]*)\)|\{([^{}]*)\})"), lambda m: f"e^{{{m[1] or m[2]}}}"),
    (re.compile(r"(?<![\\a-zA-Z])(sqrt|pi|sin|cos|tan|log|ln)(?![a-zA-Z])"), r"\\\1"),
    (re.compile(r"\\(max|min|gcd|lcm)\s*\\\{([^{}]*)\\\}"), r"\\\1(\2)"),
    # 10 choose 3: C_{10}^{3}, C(10, 3), {10 \choose 3}, {}_{10}C_3
    (re.compile(r"(?<![\w\\])C_\{?(\d+)\}?\^\{?(\d+)\}?|(?<![\w\\])C\((\d+),\s*(\d+)\)"), lambda m: _binomial(m)),
    (re.compile(r"\{\s*(\w+)\s*\\choose\s*(\w+)\s*\}|(?:\{\})?[_^]\{?(\d+)\}?C_\{?(\d+)\}?"), lambda m: _binomial(m)),
    (re.compile(r"^\s*(?:=|\\(?:therefore|implies|Rightarrow)(?![a-zA-Z]))\s*"), ""),
    (re.compile(r"^(-?[\d.]+)\s*=\s*([a-zA-Z])$"), r"\2=\1"),
    (re.compile(r"\^\s*(?:\{\s*(?:\\prime\s*)+\}|\\prime)"), lambda m: "'" * m[0].count("prime")),
    # sets: {x : 1 < x < 2} is what x is; ]2, 5[ is (2, 5); a vector in angle brackets
    (re.compile(r"^\\\{\s*[a-z]\s*(?:\\in\s*\\mathbb\s*\{R\}\s*)?(?::|\\mid|\||\\colon)\s*(.*)\\\}$"), r"\1"),
    (re.compile(r"\](\s*[^\s\[\](){},;][^\[\](){},;]*,[^\[\]()]+)([\[\]])"), lambda m: f"({m[1]}" + ")]"[m[2] == "]"]),
    (re.compile(r"(?<!\S)\[([^\[\](),;]+,[^\[\](),;]+)\["), r"[\1)"),
    (re.compile(r"\\langle\s*(.*?)\\rangle"), r"(\1)"),
    (re.compile(r"(?<![\w^_{}.])(\d{1,30})\s+(\d{1,30})/(\d{1,30})"), r"\1\\frac{\2}{\3}"),  # 1 1/2
    (
        re.compile(r"(?<![\w^_{}.])(\d{1,30})\s*\\frac\s*(?:\{(\d{1,30})\}|(\d))\s*(?:\{(\d{1,30})\}|(\d))"),
        lambda m: _mixed(m[0], int(m[1]), int(m[2] or m[3]), int(m[4] or m[5])),
    ),
    (re.compile(r"^([^ij]*\d)j$"), r"\1i"),  # an engineer's 3+4j
    (SPACED, " "),
]
REPEATING = re.compile(r"(-?)(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{?(\d+)\}?")


def _mixed(text, whole, numerator, denominator):
    """1\\frac{1}{2} -> \\frac{3}{2}"""
    return f"\\frac{{{whole * denominator + numerator}}}{{{denominator}}}" if numerator < denominator else text


def _binomial(match):
    return "\\binom{%s}{%s}" % tuple(group for group in match.groups() if group)  # noqa: UP031


def normalise(answer: str) -> str:
    """Give one spelling to what is only typography."""
    answer = (answer if answer.isascii() else ascii_math(answer)).strip().strip("*")
    answer = re.sub(r"^\$(?=[-+\d.,\s]+$)", r"\\$", answer)  # $50 alone is money
    answer = re.sub(r"^\$+|(?<!\\)\$+$", "", answer).strip()
    answer = re.sub(r"^\\[(\[]|\\[)\]]$", "", answer)
    for pattern, form in REWRITES[:1]:
        answer = pattern.sub(form, answer)
    before = None
    while answer != before:  # nested fonts
        before, answer = answer, FONT.sub(_font, answer)
    for pattern, form in REWRITES[1:]:
        answer = pattern.sub(form, answer)
    answer = re.sub(r"^\\text\{\s*(-?[\d.,/]*\d)\s+", r"\1\\text{ ", answer)  # \text{12 cm}
    answer = REPEATING.sub(_fraction, answer).strip().rstrip(".,;").strip()
    while match := re.fullmatch(NESTED, answer):  # braces are invisible in print
        answer = match[1].strip()
    return answer


def _fraction(match):
    """0.1\\overline{6} -> \\frac{15}{90}"""
    sign, whole, head, tail = match.groups()
    numerator = int(whole + head + tail or 0) - int(whole + head or 0)
    return f"{sign}\\frac{{{numerator}}}{{{(10 ** len(tail) - 1) * 10 ** len(head)}}}"


# --- plain numbers ---

FRACTION = re.compile(
    r"(?P<sign>[+-]?)\s*(?:\\frac\s*(?:\{\s*(?P<a>-?\d{1,30})\s*\}|(?P<x>\d))\s*(?:\{\s*(?P<b>\d{1,30})\s*\}|(?P<y>\d))"
    r"|(?P<n>\d{1,30})\s*/\s*(?P<d>\d{1,30}))"
)


def plain_number(text: str) -> Fraction | None:
    """Return the exact value of a plain numeral (12, 012, 1,234, -0.5, +3, 1.5e3) or fraction (3/4, 1\\frac{1}{2}).
    None for anything else.

    Length-limited: int() is quadratic.
    """
    text = text.strip()
    if fraction := FRACTION.fullmatch(text):
        n = int(fraction["n"] or fraction["a"] or fraction["x"])
        d = int(fraction["d"] or fraction["b"] or fraction["y"])
        return None if d == 0 else Fraction(-n if fraction["sign"] == "-" else n, d)
    if re.fullmatch(r"[+-]?\d{1,40}(?:\.\d{1,40})?[eE][+-]?\d{1,2}", text):
        return Fraction(text)
    if len(text) > 400 or not re.fullmatch(r"[+-]?(?:\d+|\d{1,3}(?:,\d{3})+)?(?:\.\d+|(?<=\d)\.)?", text):
        return None
    return Fraction(text.replace(",", "").rstrip(".")) if re.search(r"\d", text) else None
