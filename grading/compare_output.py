"""Compare the output of a program with the expected one: to the letter, and with a tolerance for floats.

Everything here is text or JSON that came out of another process: no object of the program's own is ever compared.
"""

import json
import math
from decimal import Decimal, InvalidOperation
from typing import Any

TOLERANCE = 1e-6  # relative, absolute below 1


def as_text(value: Any) -> str:
    """Return the input or output of a program as a text; it may be a list of lines as some datasets have it."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def same_text(got: str, expected: str) -> tuple[bool, bool]:
    """Return (exact, tolerant) for printed output: line by line without surrounding blanks; a line of numbers by value.

    Whole numbers and words have no tolerance: only an expected word with a decimal point is compared as a float.
    """
    got, expected = ([line.strip() for line in text.strip().splitlines()] for text in (got, expected))
    if len(got) != len(expected):
        return False, False
    lines = list(zip(got, expected, strict=True))
    exact = all(a == b or _same_numbers(a.split(), b.split()) for a, b in lines)
    return exact, exact or all(_close_words(a.split(), b.split()) for a, b in lines)


def _same_numbers(got: list[str], expected: list[str]) -> bool:
    try:
        return list(map(Decimal, got)) == list(map(Decimal, expected))
    except InvalidOperation:  # no numbers; or a signalling NaN, which raises when it is compared
        return False


def _close_words(got: list[str], expected: list[str]) -> bool:
    return len(got) == len(expected) and all(
        a == b or ("." in b and _close(a, b)) for a, b in zip(got, expected, strict=True)
    )


def _close(got: str | float, expected: str | float) -> bool:
    try:
        return math.isclose(float(got), float(expected), rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    except (ValueError, OverflowError):  # no number; a whole one beyond all floats
        return False


def same_value(got: str, expected: Any, wrapped: bool) -> tuple[bool, bool]:
    """Return (exact, tolerant) for a function's result, which is JSON text.

    wrapped: `expected` may be a list that holds the value alone. Raises TypeError if it is nothing that JSON has.
    """
    try:
        got = json.loads(got)
    except (ValueError, RecursionError):  # a program may well print ten million brackets
        return False, False
    # both through JSON, which makes lists of tuples and texts of keys
    expected = [expected] + ([expected[0]] if wrapped and isinstance(expected, list) and len(expected) == 1 else [])
    expected = [json.loads(json.dumps(value)) for value in expected]
    return got in expected, any(_close_values(got, value) for value in expected)


def _close_values(got: Any, expected: Any) -> bool:
    if isinstance(got, list) and isinstance(expected, list):
        return len(got) == len(expected) and all(map(_close_values, got, expected))
    if isinstance(got, dict) and isinstance(expected, dict):
        return got.keys() == expected.keys() and all(_close_values(got[key], expected[key]) for key in got)
    if isinstance(expected, float) and isinstance(got, int | float):
        return _close(got, expected)
    return got == expected
