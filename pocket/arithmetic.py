"""The arithmetic in a free text: every equation with its sides as small expression trees, and every number.

    >>> text = "Let x be the total. Tigers: 13*4=10*4+3*4=52, so x = 52 + 6 = 58."
    >>> [[str(side) for side in equation.sides] for equation in relations(text)]
    [['13*4', '10*4+3*4', '52'], ['52+6', '58']]

It knows +, -, *, /, their typographic forms and parentheses. A side with a letter in it (`13a`, `x`) is algebra: it has
no value, so it is not among `sides`. The scripted teacher has nothing but such text to go by.
"""

import ast
import re
from dataclasses import dataclass, field
from fractions import Fraction

TOKEN = re.compile(
    r"""(?P<number> \d{1,3}(?:,\d{3})+(?!\d) | \d+(?:\.\d+)? )
      | (?P<op>     \\times | \\cdot | \\div | [-+*/×·÷−] )
      | (?P<paren>  [()] )
      | (?P<equals> = )
      | (?P<letter> (?<![A-Za-z\\]) [A-Za-z] (?![A-Za-z]) )
      | (?P<stop>   \n | \\?[A-Za-z]+ | \S )""",
    re.VERBOSE,
)
BULLET = re.compile(r"^[ \t]*(?:[-*+•]|\d+[.)])[ \t]+", re.MULTILINE)  # "- 5*4=20" isn't minus five
SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
OPERATORS = {"\\times": "*", "\\cdot": "*", "\\div": "/", "×": "*", "·": "*", "÷": "/", "−": "-"}


@dataclass(slots=True, eq=False)
class Node:
    """A number (`op` is None) or `left op right`. value: int or Fraction. start, end: a number's place."""

    value: int | Fraction
    op: str | None = None
    left: "Node | None" = None
    right: "Node | None" = None
    start: int = -1
    end: int = -1

    def __str__(self):
        return write(self)

    @property
    def num_ops(self) -> int:
        return 0 if self.op is None else 1 + self.left.num_ops + self.right.num_ops

    def leaves(self) -> "list[tuple[Node, str | None]]":
        """List the numbers from left to right, each with the operator above it (None if it stands alone)."""
        if self.op is None:
            return [(self, None)]
        return [(leaf, op or self.op) for side in (self.left, self.right) for leaf, op in side.leaves()]

    def terms(self) -> "list[tuple[int, Node]]":
        """List (sign, node) of the outermost sum: a-b*c+d has three terms."""
        if self.op not in ("+", "-"):
            return [(1, self)]
        flip = -1 if self.op == "-" else 1
        return self.left.terms() + [(sign * flip, term) for sign, term in self.right.terms()]


@dataclass(slots=True, eq=False)
class Equation:
    """`a = b = c` in a text. sides: those with a value, in order. algebra: whether a side calculates with letters."""

    sides: list[Node] = field(default_factory=list)
    algebra: bool = False
    start: int = -1
    end: int = -1

    @property
    def value(self) -> int | Fraction:
        return self.sides[-1].value


def combine(op: str, left: Node, right: Node) -> Node:
    """Make the node `left op right`. Raises ZeroDivisionError."""
    a, b = left.value, right.value
    value = a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else Fraction(a, b)
    return Node(int(value) if value.denominator == 1 else value, op, left, right)


def parse_number(text: str) -> int | Fraction | None:
    """Read a number such as "1,234.5"; None if `text` is anything else."""
    if text.isdecimal():  # nearly all of them
        return int(text)
    try:
        value = Fraction(text.strip().strip("$").replace(",", "").replace("−", "-"))
    except (ValueError, ZeroDivisionError):
        return None
    return int(value) if value.denominator == 1 else value


def write_number(value: int | Fraction) -> str:
    """Write a number as text: a decimal if it has a short one, else a fraction."""
    if value.denominator == 1:
        return str(int(value))
    decimal = str(float(value))
    return decimal if Fraction(decimal) == value else str(value)


def write(node: Node, parent: str | None = None, is_right: bool = False) -> str:
    """Write an expression without spaces, with parentheses where they are needed.

    parent: the operator above it. is_right: it stands on that operator's right.
    """
    if node.op is None:
        text = write_number(node.value)
        return f"({text})" if node.value < 0 and is_right else text

    # a sum inside a product, and what is divided by or subtracted as a whole
    text = write(node.left, node.op) + node.op + write(node.right, node.op, True)
    wrap = parent in ("*", "/") if node.op in "+-" else is_right and parent == "/"
    wrap = wrap or (node.op in "+-" and is_right and parent == "-")
    return f"({text})" if wrap else text


def numbers(text: str) -> list[tuple[int | Fraction, int, int]]:
    """List (value, start, end) of every number, unsigned, in order."""
    return [
        (parse_number(match.group()), *match.span()) for match in TOKEN.finditer(text) if match.lastgroup == "number"
    ]


def relations(text: str) -> list[Equation]:
    """List every run of numbers, operators and letters around `=` signs as an Equation, also `T=58` or `13a+6=58`."""
    found, run = [], []
    text = BULLET.sub(lambda match: " " * len(match.group()), text)  # blanks keep the places of what follows
    for match in TOKEN.finditer(text):
        if match.lastgroup != "stop":
            run.append(match)
        elif run:
            _close(run, found)
            run = []
    if run:
        _close(run, found)
    return found


def _close(run, found):
    """Split a run of tokens at its `=` signs and add the Equation, if it has any, to `found`."""
    if not any(token.lastgroup == "equals" for token in run):
        return
    equation = Equation(start=run[0].start(), end=run[-1].end())
    side = []
    for token in [*run, None]:
        if token is not None and token.lastgroup != "equals":
            side.append(token)
            continue
        if any(t.lastgroup == "letter" for t in side):
            equation.algebra |= len(side) > 1
        elif (node := _parse(_balanced(side))) is not None:
            equation.sides.append(node)
        side = []
    found.append(equation)


def _balanced(side):
    """Leave out the parentheses that belong to the sentence: `(13*4=52)`."""
    depth, unmatched = [], []
    for i, token in enumerate(side):
        if token.group() == "(":
            depth.append(i)
        elif token.group() == ")":
            if depth:
                depth.pop()
            else:
                unmatched.append(i)
    drop = {*depth, *unmatched}
    return [token for i, token in enumerate(side) if i not in drop]


def _parse(side):
    """Read the tokens of a whole side as a Node; None if it is no expression, in Python's grammar."""
    # every number as a name, so that Python's own parser finds the tree and `places` the token; one blank apart
    text, places = "", {}
    for token in side:
        places[len(text)] = token
        text += ("n" if token.lastgroup == "number" else OPERATORS.get(token.group(), token.group())) + " "
    try:
        return _node(ast.parse(text.strip(), mode="eval").body, places)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _node(tree, places):
    """Turn a tree of Python's into a Node. Raises ValueError for what is no +, -, * or /."""
    place = places.get(tree.col_offset)
    if isinstance(tree, ast.Name):
        return Node(parse_number(place.group()), start=place.start(), end=place.end())
    if isinstance(tree, ast.BinOp) and type(tree.op) in SIGNS:
        return combine(SIGNS[type(tree.op)], _node(tree.left, places), _node(tree.right, places))
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        node = _node(tree.operand, places)
        if node.op is None:  # a negative number is one number, its sign included
            return Node(-node.value, start=place.start(), end=node.end)
        return combine("-", Node(0), node)
    raise ValueError
