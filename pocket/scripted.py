"""What the scripted teacher can do with an arithmetic chain: judge it, extend it, simplify it, verify it.

It stands in for a large model in the pocket run, so it works as such a model would have to: from the problem, the
answer and the chain as text, whoever wrote them. Everything rests on one question: which of the equations lead to the
answer? Corrupting a chain is in pocket/corruption.py.
"""

import functools
import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from grading.answers import final_answer
from pocket.arithmetic import Equation, Node, combine, numbers, parse_number, relations, write, write_number

ITEM = re.compile(r"\b(\d+) ([a-z]+(?: [a-z]+)?)(?=[,.;?!]| and )")  # "3 sea slugs, 4 dogs and 1 cat."
SPARE_STEPS = 2  # this many that lead nowhere make a chain convoluted; a single one is no trouble
Number = int | Fraction


@dataclass(frozen=True)
class Reading:
    """A problem and a chain, read. given: how often the problem says which number. items: its (count, noun)s. facts:
    numbers that the chain states without calculating them ("tigers have 4 legs"). final: what it ends in, or None."""

    equations: list[Equation]
    num_algebra: int
    given: Counter
    items: list[tuple[int, str]]
    facts: frozenset[Number]
    final: Number | None


@dataclass(frozen=True)
class Derivation:
    """How a chain gets to a value. tree: the whole calculation as one expression; used: indices of its equations."""

    tree: Node
    used: frozenset[int]


def read(problem: str, reasoning: str) -> Reading:
    """Read a problem and a chain."""
    found = relations(reasoning)
    said = final_answer(reasoning)
    return Reading(
        equations=[relation for relation in found if len(relation.sides) > 1],
        num_algebra=sum(relation.algebra for relation in found),
        given=Counter(value for value, _, _ in numbers(problem)),
        items=[(int(count), noun) for count, noun in ITEM.findall(problem)],
        facts=frozenset(leaf.value for leaf in statements(reasoning, found)),
        final=None if said is None else parse_number(said),
    )


def statements(text: str, found: list[Equation]) -> list[Node]:
    """List the numbers outside of calculations: of sentences, and of assignments such as `x=58`.

    found: the text's relations.
    """
    assigned = [relation.sides[0] for relation in found if len(relation.sides) == 1 and relation.sides[0].op is None]
    inside = [(relation.start, relation.end) for relation in found]
    plain = []
    for value, start, end in numbers(text):
        if not any(a <= start < b for a, b in inside):
            minus = text[:start].endswith("-") and not text[: start - 1][-1:].strip()
            plain.append(Node(-value if minus else value, start=start - minus, end=end))
    return assigned + plain


# --- which equations lead to a value ---


def derive(reading: Reading, target: Number | None, thorough: bool = False) -> Derivation | None:
    """Find the best derivation of `target`; None if there is none.

    The best one uses as many of the problem's numbers as possible, then the fewest products of intermediate results and
    the fewest operations (thorough: the most steps); of equals it is the last one, which the text settles on.
    """
    ways = []
    for index in range(len(reading.equations)):
        # everything that leads to this equation, as one expression
        used = set()
        tree = _trace(reading, index, used)
        if tree.value == target:
            ignored = (reading.given - Counter(abs(leaf.value) for leaf, _ in tree.leaves())).total()
            effort = (-len(used),) if thorough else (_num_nested(tree), tree.num_ops)
            rank = (ignored, *effort, -len(used), -index)
            ways.append((rank, Derivation(tree, frozenset(used))))
    return min(ways, key=lambda way: way[0])[1] if ways else None


def _num_nested(node):
    """Count products and quotients with a factor that has to be worked out first."""
    if node.op is None:
        return 0
    nested = node.op in "*/" and bool(node.left.op or node.right.op)
    return nested + _num_nested(node.left) + _num_nested(node.right)


def _trace(reading, index, used):
    """Return an equation's left-hand side, with every result of an earlier equation replaced by that equation's own.

    The numbers of a sum come from earlier steps wherever one ends in them. Those of a product are mostly counts and
    facts and equal an earlier result by accident; they are traced only if they are neither.
    """
    used.add(index)

    def resolve(node, parent):
        if node.op is not None:
            return combine(node.op, resolve(node.left, node.op), resolve(node.right, node.op))
        product = parent in ("*", "/")
        if product and (node.value in reading.given or node.value in reading.facts):
            return node
        for j in range(index - 1, -1, -1):
            earlier = reading.equations[j]
            # where things are counted, a factor may be a fact that nobody states ("3 dogs: 3*4"), elsewhere it is not
            accident = product and reading.items and earlier.sides[0].op in ("*", "/")
            if j in used or earlier.value != node.value or accident:
                continue
            if _grounded(reading, j):
                return _trace(reading, j, used)
        return node

    return resolve(reading.equations[index].sides[0], None)


def _grounded(reading, index):
    """Tell whether an equation computes with anything that is known by then; 70+14=84 out of nowhere does not."""
    known = {*reading.given, *reading.facts, *(equation.value for equation in reading.equations[:index])}
    return any(leaf.value in known for leaf, _ in reading.equations[index].sides[0].leaves())


# --- Critic ---


def judge(reading: Reading) -> str:
    """Rate a chain. easy: a step asks too much at once, or none is shown. hard: much is not needed. Else medium."""
    way = derive(reading, reading.final, thorough=True)
    if way is None:
        return "easy"
    if len(reading.equations) - len(way.used) + reading.num_algebra >= SPARE_STEPS:
        return "hard"
    return "easy" if any(_leaps(reading.equations[index]) for index in way.used) else "medium"


def _leaps(equation):
    """Tell whether somewhere from one side to the next more than one small calculation has to be done in the head."""
    for left, right in zip(equation.sides, equation.sides[1:], strict=False):
        # a whole expression, or a product beyond the tables, becomes a number at once
        if right.op is None and (left.num_ops > 1 or needs_splitting(left)):
            return True

        # or it does as one term of a sum
        terms, kept = left.terms(), {write(term) for _, term in right.terms()}
        if 1 < len(terms) == len(right.terms()) and any(
            needs_splitting(term) and write(term) not in kept for _, term in terms
        ):
            return True
    return False


def needs_splitting(node: Node) -> bool:
    """Tell whether a product is beyond the tables: a factor above 10 that is not round, and no trivial one."""
    if node.op != "*" or node.left.op or node.right.op:
        return False
    low, high = sorted((abs(node.left.value), abs(node.right.value)))
    return low > 1 and high > 10 and high % 10 != 0 and low != 10


# --- Rethinker ---


def extend(reading: Reading, answer: Number | None) -> str | None:
    """Write every step of the chain in small steps; None if it cannot be brought to the answer."""
    way = _way(reading, answer, thorough=True)
    if way is None:
        return None
    if len(way.used) == len(reading.equations):
        return lay_out(way.tree, reading.items)
    return "\n".join(
        lay_out(equation.sides[0], reading.items) for equation in reading.equations if equation.sides[0].op
    )


def simplify(reading: Reading, answer: Number | None) -> str | None:
    """Write only what leads to the answer, in small steps; None if nothing does."""
    way = _way(reading, answer)
    return lay_out(way.tree, reading.items) if way else None


def _way(reading, answer, thorough=False):
    """Derive the answer; where the chain stops short of it, the sum of its loose ends may still be it."""
    way = derive(reading, answer, thorough)
    if way or not reading.equations:
        return way

    # from the back, what no later equation has used
    total, used = None, set()
    for index in range(len(reading.equations) - 1, -1, -1):
        if index not in used:
            tree = _trace(reading, index, used)
            total = combine("+", tree, total) if total else tree
    return Derivation(total, frozenset(used)) if total.value == answer else None


def lay_out(tree: Node, items: list[tuple[int, str]]) -> str:
    """Write an expression as a chain of small steps: a line for each product and its splitting, then running totals."""
    lines, items = [], list(items)

    def work_out(node, outermost):
        if node.op is None:
            return

        # a product: its factors first, then itself
        if node.op in "*/":
            work_out(node.left, False)
            work_out(node.right, False)
            lines.append(_label(node, items) + product_steps(node.op, node.left.value, node.right.value))
            return

        # a sum: its terms first, in the order of the source, then the running total
        (_, first), *others = terms = node.terms()
        for _, term in sorted(terms, key=lambda term: term[1].leaves()[0][0].start):
            work_out(term, False)
        steps, total = [], first.value
        for sign, term in others:
            step = combine("+" if sign > 0 else "-", Node(total), Node(term.value))
            steps.append(f"{write(step)}={write_number(step.value)}")
            total = step.value
        if outermost and lines:
            lines.append("Total: " + ", ".join(steps))
        else:
            lines.extend(steps)

    work_out(tree, True)
    return "\n".join(lines)


def _label(product, items):
    """Name a product after the first item with that count, "3 sea slugs: ", which is then used up."""
    for factor in (product.left, product.right):
        for item in items:
            if factor.op is None and item[0] == factor.value:
                items.remove(item)
                return f"{item[0]} {item[1]}: "
    return ""


def product_steps(op: str, a: Number, b: Number) -> str:
    """Split a product: 13, 4 -> "13*4=10*4+3*4=40+12=52"; 12, 14 -> "12*14=10*14+2*14=140+20+8=160+8=168"."""
    product = combine(op, Node(a), Node(b))
    sides = [product]
    if needs_splitting(product):
        split_left = abs(a) > 10 and a % 10 != 0
        tens, ones = _tens_and_ones(a if split_left else b)
        parts = [(tens, b), (ones, b)] if split_left else [(a, tens), (a, ones)]
        sides.append(_sum_of(combine("*", Node(left), Node(right)) for left, right in parts))
        if needs_splitting(sides[1].right):  # both factors are above ten
            values = [tens * b, *(ones * part for part in _tens_and_ones(b))]
            sides += [_sum_of(map(Node, values)), _sum_of(map(Node, [values[0] + values[1], values[2]]))]
        else:
            sides.append(_sum_of(Node(left * right) for left, right in parts))
    return "=".join([*map(write, sides), write_number(product.value)])


def _tens_and_ones(value):
    return value - value % 10, value % 10


def _sum_of(nodes):
    return functools.reduce(lambda left, right: combine("+", left, right), nodes)


# --- Verifier ---


def verify(reading: Reading, answer: Number | None) -> bool:
    """Tell whether every equation holds and the chain derives the answer and ends in it."""
    sound = all(side.value == equation.value for equation in reading.equations for side in equation.sides)
    return sound and reading.final == answer and derive(reading, answer) is not None
