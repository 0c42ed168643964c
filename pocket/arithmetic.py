"""Equations in a text, what they come to, and how a product is worked out in small steps.

>>> equations("Let x be the total. Tigers: 13*4=10*4+3*4=52, so x = 52 + 6 = 58.")
[['13*4', '10*4+3*4', '52'], ['52+6', '58']]
"""

import ast
import operator
import re
from fractions import Fraction
from itertools import accumulate

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
SPELLINGS = {"\\times": "*", "\\cdot": "*", "\\div": "/", "×": "*", "·": "*", "÷": "/", "−": "-"}
BULLET = re.compile(r"^[ \t]*[-*+•][ \t]+", re.MULTILINE)  # "- 5*4=20" is not minus five
COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")  # 1,200
RUN = re.compile(r"(?:\d+(?:\.\d+)?|[-+*/=()]|(?<![A-Za-z])[A-Za-z](?![A-Za-z]))+")


def equations(text: str) -> list[list[str]]:
    """List the equations of a text: of each one the sides that have a value, two at least (`13a+6` has none)."""
    for spelling, sign in SPELLINGS.items():
        text = text.replace(spelling, sign)
    text = re.sub(r"[ \t]*([-+*/=()])[ \t]*", r"\1", COMMA.sub("", BULLET.sub("", text)))
    found = []
    for run in RUN.findall(text):
        # a parenthesis that opens or closes elsewhere belongs to the sentence: (13*4=52)
        sides = run.split("=")
        for place, side in enumerate(sides):
            if side.count("(") != side.count(")"):
                sides[place] = side.removeprefix("(") if side.count("(") > side.count(")") else side.removesuffix(")")
        found.append([side for side in sides if evaluate(side) is not None])
    return [sides for sides in found if len(sides) > 1]


def holds(sides: list[str]) -> bool:
    """Tell whether all sides of an equation are worth the same."""
    return len({evaluate(side) for side in sides}) == 1


def operands(expression: str) -> list[Fraction]:
    """List the numbers of an expression, a sign only in front of the first."""
    return [Fraction(number) for number in re.findall(r"^-?\d+(?:\.\d+)?|\d+(?:\.\d+)?", expression)]


def evaluate(expression: str) -> Fraction | None:
    """Evaluate +, -, *, / and parentheses exactly; None for anything else."""

    def value(node):
        if isinstance(node, ast.Constant):
            return Fraction(str(node.value))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        raise ValueError

    try:
        return value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def add_up(values: list[int], sign: str = "+") -> list[str]:
    """Add up, or with "*" multiply, step by step: [52, 48, -6] -> ["52+48=100", "100-6=94"]."""
    totals = list(accumulate(values, operator.mul if sign == "*" else operator.add))
    texts = [f"*{value}" if sign == "*" else f"{value:+d}" for value in values[1:]]
    return [f"{total}{text}={after}" for total, text, after in zip(totals, texts, totals[1:], strict=False)]


def product_steps(a: int, b: int) -> str:
    """Split a product: 13, 4 -> "13*4=10*4+3*4=40+12=52"; 12, 14 -> "12*14=10*14+2*14=140+20+8=160+8=168"."""
    sides = [f"{a}*{b}"]
    if beyond_tables(a, b):
        tens, ones = parts = _tens_and_ones(a, b)
        sides.append("+".join(f"{left}*{right}" for left, right in parts))
        # where both factors are above ten, the ones are split in turn and added up one by one
        parts = [tens, *_tens_and_ones(*ones)] if beyond_tables(*ones) else parts
        values = [left * right for left, right in parts]
        sides.append("+".join(map(str, values)))
        if len(values) > 2:
            sides.append(f"{values[0] + values[1]}+{values[2]}")
    return "=".join([*sides, str(a * b)])


def beyond_tables(a: int | Fraction, b: int | Fraction) -> bool:
    """Tell whether a product is too much for one step: a factor above 10 that is not round, and no trivial one."""
    low, high = sorted((abs(a), abs(b)))
    return low > 1 and high > 10 and high % 10 != 0 and low != 10


def _tens_and_ones(a, b):
    """Split the first factor, or a second one where the first is small or round: 13, 4 -> (10, 4), (3, 4)."""
    if a > 10 and a % 10:
        return [(a - a % 10, b), (a % 10, b)]
    return [(a, b - b % 10), (a, b % 10)]
