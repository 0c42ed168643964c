"""Quantities: a value and its unit. 5 cm is 0.05 m, but neither 5 cm^2 nor 5 miles; 12 apples are no 12 oranges.

split("864 \\\\text{ inches}^2") == ("864", unit("square inches"))
"""

import itertools
import re
from dataclasses import dataclass
from fractions import Fraction

# of each kind of quantity: the names of a unit (symbol, word), and its size in the first of them
KINDS = {
    "length": "m meter metre 1, in inch 127/5000, ft foot feet 381/1250, yd yard 1143/1250, mi mile 201168/125",
    "mass": "g gram gm 1, lb pound 45359237/100000, oz ounce 45359237/1600000, ton tonne 1000000",
    "time": "s sec second 1, min minute 60, h hr hour 3600, d day 86400, wk week 604800",
    "months": "mo month 1, yr year 12",
    "money": "dollar $ usd 1, cent ¢ 1/100",
    "percent": "% percent percentage pct 1",
    "angle": "° degree deg 1",
    "celsius": "°C celsius 1",
    "fahrenheit": "°F fahrenheit 1",
    "energy": "J joule 1, cal calorie 523/125",
    "half": "am 1",
    "other half": "pm 1",
}
# units of one size: newtons are no watts
for names in (
    "N newton", "W watt", "V volt", "A ampere amp", "Hz hertz", "eV electronvolt", "Pa pascal", "mol mole", "K kelvin",
    "rad radian", "€ eur euro", "£ gbp", "¥ yen yuan rmb 元", "₹ rs rupee", "₽ руб рублей ruble",
):  # fmt: skip
    KINDS[names.split()[-1]] = f"{names} 1"
PRODUCTS = {  # a unit written as one word, as the phrase it stands for
    "mph": "miles per hour", "kph": "km per hour", "kmh": "km per hour", "kmph": "km per hour", "sqft": "square foot",
    "l": "cubic dm", "liter": "cubic dm", "litre": "cubic dm", "ml": "cubic cm", "milliliter": "cubic cm",
    "millilitre": "cubic cm", "cc": "cubic cm", "gal": "231 cubic inches", "gallon": "231 cubic inches",
    "mpg": "miles per gallon", "fps": "feet per second", "mps": "m per second", "acre": "4840 square yards",
    "hectare": "10000 square meters", "quart": "57.75 cubic inches", "pint": "28.875 cubic inches",
}  # fmt: skip
PREFIXES = {"k": 3, "M": 6, "G": 9, "d": -1, "c": -2, "m": -3, "µ": -6, "μ": -6, "u": -6, "n": -9}
PREFIXES |= {"kilo": 3, "mega": 6, "giga": 9, "deci": -1, "centi": -2, "milli": -3, "micro": -6, "nano": -9}
NUMBERS = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
NUMBERS |= {"百": 100, "千": 1000, "万": 10**4, "만": 10**4, "亿": 10**8, "억": 10**8}
SILENT = set(
    re.findall(r"\w+", "of a an the in each total exactly unit approximately about approx long wide tall high")
)

SIZES = {}
for kind, units in KINDS.items():
    for unit in units.split(", "):
        *names, size = unit.split()
        SIZES |= dict.fromkeys(names, (Fraction(size), kind))
METRIC = set(
    re.findall(r"\w+", "m g s J N W V A Hz eV Pa mol meter metre gram second joule newton watt volt ampere hertz cal")
)
LETTERS = r"[^\W\d_]"
WORD = re.compile(
    rf"\^\\circ\s*[CF]?(?![A-Za-z])|°[CF]?|[%¢$€£¥₹₽百千万만亿억]|{LETTERS}\.(?:{LETTERS}\.?)+|{LETTERS}+|[/^]|-?\d+(?:\.\d+)?"
)


@dataclass(frozen=True)
class Unit:
    """size: in the units of KINDS. powers: ((kind, exponent), …), sorted. words: what else is said, in the singular."""

    size: Fraction
    powers: tuple
    words: frozenset
    count: int = 1  # a number word: 12 million

    def matches(self, other: "Unit") -> bool:
        """Tell whether both measure the same: 5 apples are 5 red apples, 5 cm are 5 centimeters of cloth."""
        same = self.words & other.words or not (self.words and other.words)
        return self.powers == other.powers and bool(same or self.powers)


def _known(word):
    """(size, kind) of a unit's name, in the plural or with a metric prefix; None if it is no unit that we know."""
    for name in (word, word.lower()):
        for singular in (name, name.removesuffix("s"), name.removesuffix("es")):
            if singular in SIZES:
                return SIZES[singular]
            for cut in (1, 4, 5):
                if singular[:cut] in PREFIXES and singular[cut:] in METRIC:
                    size, kind = SIZES[singular[cut:]]
                    return size * Fraction(10) ** PREFIXES[singular[:cut]], kind
    return None


def unit(phrase: str) -> Unit:
    """Read a phrase such as `square inches`, `km/h`, `miles per hour`, `cm^3`, `million dollars`, `red apples`."""
    size, powers, words, count, sign, power, last = Fraction(1), {}, set(), 1, 1, 1, None
    phrase = re.sub(
        r"\bdegrees? (C|F|celsius|fahrenheit)\b", lambda m: f"°{m[1][0].upper()}", phrase, flags=re.IGNORECASE
    )
    tokens = WORD.findall(phrase)[::-1]
    while tokens:
        token = tokens.pop()
        word = token.replace(".", "") if token[0].isalpha() else token.replace("^\\circ", "°").replace(" ", "")
        low = word.lower()
        exponent = {"squared": 2, "cubed": 3}.get(low) or (int(word) if re.fullmatch(r"-?[1-9]", word) else None)
        # what acts on other words: a unit spelt out, a fraction bar, a power before or after the unit, a number
        known = PRODUCTS.get(low) or PRODUCTS.get(low.removesuffix("s"))
        if known:
            tokens += WORD.findall(known if sign == 1 else known.replace(" per ", " "))[::-1]
        elif low in ("per", "/"):
            sign, last = -1, None
        elif low in ("square", "sq", "cubic", "cu"):
            power = 2 if low[0] == "s" else 3
        elif exponent and last:
            kind, one, before = last
            size *= one ** (before * (exponent - 1))
            powers[kind] += before * (exponent - 1)
        elif re.fullmatch(r"[1-9]\d*(?:\.\d+)?", word) and not exponent:
            size *= Fraction(word) ** sign
        elif low.removesuffix("s") in NUMBERS and sign == 1:
            count *= NUMBERS[low.removesuffix("s")]
        # a unit that we know, or another word
        elif found := None if low == "in" and tokens and tokens[-1][0].isalpha() else _known(word):  # 12 in all
            one, kind = found
            size *= one ** (sign * power)
            powers[kind] = powers.get(kind, 0) + sign * power
            last, power = (kind, one, sign * power), 1
        elif word[0].isalpha() and low not in SILENT and low.removesuffix("s") not in SILENT:
            words.add(low if len(low) < 4 else low.removesuffix("s"))
    return Unit(size, tuple(sorted(p for p in powers.items() if p[1])), frozenset(words), count)


CURRENCY = re.compile(r"(?P<sign>[+-]?)\s*\\?(?P<unit>[$€£¥₹₽])\s*(?P<value>[^$€£¥₹₽]+)")
# the end of an answer, from its first unit on: text, a word, a sign; then powers, fractions, further words
TEXT = r"\\text\s*\{[^{}]*\}"
FIRST = rf"{TEXT}|(?<![\\A-Za-z^_]){LETTERS}{{2,}}\.?|(?<=[\d)] ){LETTERS}\.?(?![A-Za-z])|(?![\x00-\x7f]){LETTERS}"
FIRST += r"|[¢€£¥₹₽%]|\\\$|\^\\circ"
QUANTITY = re.compile(
    rf"(?P<value>.*?[\w)}}.'|])(?P<unit>\s*(?:{FIRST})"
    rf"(?:{TEXT}|\^\{{?-?\d\}}?|\\cdot|\^\\circ|[\s/.%¢()-]|{LETTERS}|(?<={LETTERS})\d)*+)",
    re.DOTALL,
)
RATIO = re.compile(rf"\\frac\s*\{{\s*({TEXT}[^{{}}]*)\}}\s*\{{\s*({TEXT}[^{{}}]*)\}}\s*$")
PART = re.compile(rf"(\d+(?:\.\d+)?)\s*(?:\\text\s*\{{)?\s*({LETTERS}+)\s*(?:and)?\s*\}}?")  # of 3 hours and 5 minutes
JOINS = set(re.findall(r"\w+", "and or if for where when mod not to"))  # no unit: 3 hours and 5 minutes, n if n is even


def split(answer: str) -> tuple[str, Unit | None]:
    """Return (the value, its unit or None) of a normalised answer. A product of letters is no unit: 12x, 3ab."""
    answer = RATIO.sub(r"\1/\2", answer)
    # parts in falling units are one quantity: 5 ft 3 in; a currency stands in front
    parts = PART.findall(answer)
    if len(parts) > 1 and not re.sub(r"[\s,]|and", "", PART.sub("", answer)):
        units = [unit(name) for _, name in parts]
        falling = all(a.size > b.size and a.powers == b.powers for a, b in itertools.pairwise(units))
        if units[0].powers and falling:
            total = sum(Fraction(n) * u.size for (n, _), u in zip(parts, units, strict=True)) / units[0].size
            return f"{total}", units[0]
    if money := CURRENCY.fullmatch(answer):
        value, more = split(money["value"])
        found = unit(money["unit"])
        return money["sign"] + value.strip(), Unit(found.size, found.powers, frozenset(), more.count if more else 1)
    # the value ends where the first unit begins
    match = QUANTITY.fullmatch(answer)
    if not match or not re.search(r"\d|\\pi", match["value"]):
        return answer, None
    phrase = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", match["unit"]).replace("\\cdot", " ")
    found = unit(re.sub(r"(?<![A-Za-z])(?:\^)?\{(-?\d)\}", r"^\1", phrase))
    value = re.sub(rf"{TEXT}(?=\s*[,;)])", "", match["value"]).strip()  # 3 \text{ cm}, 4 \text{ cm}
    balanced = all(value.count(a) == value.count(b) for a, b in ("()", "{}"))  # (45^\circ, 60^\circ) is no angle
    # a word that is no unit we know must stand apart, or be set as text, or in another script; 2 x is a product
    foreign, apart = not match["unit"].isascii(), match["unit"][0].isspace() and len(match["unit"].strip()) > 1
    known = found.powers or found.count > 1 or foreign or apart or "\\text" in match["unit"]
    whole = balanced and "\\text" not in value and not found.words & JOINS
    return (value, found) if known and whole else (answer, None)
