"""What the scripted teacher can do with an arithmetic chain: judge it, extend it, simplify it, corrupt it, verify it.

It stands in for a large model in the pocket run, so it works as one would have to: from the problem, the answer and the
chain as text, whoever wrote them. Everything rests on one question: which of the equations lead to the answer?
"""

import functools
import re
from collections import Counter
from dataclasses import dataclass

from agents.arithmetic import Node, combine, numbers, parse_number, relations, write, write_number
from data.answers import final_answer

ITEM = re.compile(r"\b(\d+) ([a-z]+(?: [a-z]+)?)(?=[,.;?!]| and )")  # "3 sea slugs, 4 dogs and 1 cat."
SPARE_STEPS = 2  # this many that lead nowhere make a chain convoluted; a single one is no trouble


@dataclass(frozen=True)
class Reading:
    """A problem and a chain, read. given: how often the problem says which number. items: its (count, noun)s. facts:
    numbers that the chain states without calculating them ("tigers have 4 legs"). final: what it ends in, or None."""

    equations: list
    num_algebra: int
    given: Counter
    items: list
    facts: frozenset
    final: object


@dataclass(frozen=True)
class Derivation:
    """How a chain gets to a value. tree: the whole calculation as one expression; used: indices of its equations."""

    tree: Node
    used: frozenset


def read(problem, reasoning):
    found = relations(reasoning)
    said = final_answer(reasoning)
    return Reading(
        equations=[relation for relation in found if len(relation.sides) > 1],
        num_algebra=sum(relation.algebra for relation in found),
        given=Counter(value for value, _, _ in numbers(problem)),
        items=[(int(count), noun) for count, noun in ITEM.findall(problem)],
        facts=frozenset(leaf.value for leaf in _statements(reasoning, found)),
        final=None if said is None else parse_number(said),
    )


def _statements(text, found):
    """The numbers outside of calculations as Nodes: of sentences, and of assignments such as `x=58`."""
    assigned = [relation.sides[0] for relation in found if len(relation.sides) == 1 and relation.sides[0].op is None]
    inside = [(relation.start, relation.end) for relation in found]
    plain = []
    for value, start, end in numbers(text):
        if not any(a <= start < b for a, b in inside):
            minus = text[:start].endswith("-") and not text[: start - 1][-1:].strip()
            plain.append(Node(-value if minus else value, start=start - minus, end=end))
    return assigned + plain


# --- which equations lead to a value ---


def derive(reading, target, thorough=False):
    """The best derivation of `target`: from as many of the problem's numbers as possible, then in the fewest operations
    (thorough: in the most steps), then the last one, which the text settles on. None if there is none."""
    ways = []
    for index in range(len(reading.equations)):
        used = set()
        tree = _trace(reading, index, used)
        if tree.value == target:
            ignored = (reading.given - Counter(abs(leaf.value) for leaf, _ in tree.leaves())).total()
            rank = (ignored, -len(used) if thorough else tree.num_ops, -len(used), -index)
            ways.append((rank, Derivation(tree, frozenset(used))))
    return min(ways, key=lambda way: way[0])[1] if ways else None


def _trace(reading, index, used):
    """Left-hand side of an equation, with every number that an earlier equation yields replaced by that equation's own.

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
            if j in used or earlier.value != node.value or (product and earlier.sides[0].op in ("*", "/")):
                continue
            if _grounded(reading, j):
                return _trace(reading, j, used)
        return node

    return resolve(reading.equations[index].sides[0], None)


def _grounded(reading, index):
    """Whether an equation computes with anything that is known by then; 70+14=84 out of nowhere does not."""
    known = {*reading.given, *reading.facts, *(equation.value for equation in reading.equations[:index])}
    return any(leaf.value in known for leaf, _ in reading.equations[index].sides[0].leaves())


# --- Critic ---


def judge(reading):
    """easy: a step asks too much at once, or none is shown. hard: much of it isn't needed. Otherwise medium."""
    way = derive(reading, reading.final, thorough=True)
    if way is None:
        return "easy"
    if len(reading.equations) - len(way.used) + reading.num_algebra >= SPARE_STEPS:
        return "hard"
    return "easy" if any(_leaps(reading.equations[index]) for index in way.used) else "medium"


def _leaps(equation):
    """Whether somewhere from one side to the next more than one small calculation has to be done in the head."""
    for left, right in zip(equation.sides, equation.sides[1:], strict=False):
        if right.op is None and (left.num_ops > 1 or needs_splitting(left)):
            return True
        terms, kept = left.terms(), {write(term) for _, term in right.terms()}
        if 1 < len(terms) == len(right.terms()) and any(
            needs_splitting(term) and write(term) not in kept for _, term in terms
        ):
            return True
    return False


def needs_splitting(node):
    """Whether a product is beyond the tables: a factor above 10 that isn't round, and none that makes it trivial."""
    if node.op != "*" or node.left.op or node.right.op:
        return False
    low, high = sorted((abs(node.left.value), abs(node.right.value)))
    return low > 1 and high > 10 and high % 10 != 0 and low != 10


# --- Rethinker ---


def extend(reading, answer):
    """Every step of the chain in small steps; None if it can't be brought to the answer."""
    way = _way(reading, answer, thorough=True)
    if way is None:
        return None
    if len(way.used) == len(reading.equations):
        return lay_out(way.tree, reading.items)
    return "\n".join(
        lay_out(equation.sides[0], reading.items) for equation in reading.equations if equation.sides[0].op
    )


def simplify(reading, answer):
    """Only what leads to the answer, in small steps; None if nothing does."""
    way = _way(reading, answer)
    return lay_out(way.tree, reading.items) if way else None


def _way(reading, answer, thorough=False):
    """A derivation of the answer; if the chain stops short of it, the sum of its loose ends may still be it."""
    way = derive(reading, answer, thorough)
    if way or not reading.equations:
        return way
    total, used = None, set()
    for index in range(len(reading.equations) - 1, -1, -1):
        if index not in used:
            tree = _trace(reading, index, used)
            total = combine("+", tree, total) if total else tree
    return Derivation(total, frozenset(used)) if total.value == answer else None


def lay_out(tree, items):
    """An expression as a chain of small steps, one line for each product and its splitting, then running totals."""
    lines, items = [], list(items)

    def work_out(node, outermost):
        if node.op is None:
            return
        if node.op in "*/":
            work_out(node.left, False)
            work_out(node.right, False)
            lines.append(_label(node, items) + _product_steps(node.op, node.left.value, node.right.value))
            return
        (_, first), *others = terms = node.terms()
        for _, term in sorted(terms, key=lambda term: term[1].leaves()[0][0].start):  # in the order of the source
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
    """ "3 sea slugs: " for the first item with that count, which is then used up."""
    for factor in (product.left, product.right):
        for item in items:
            if factor.op is None and item[0] == factor.value:
                items.remove(item)
                return f"{item[0]} {item[1]}: "
    return ""


def _product_steps(op, a, b):
    """13, 4 -> "13*4=10*4+3*4=40+12=52"; 12, 14 -> "12*14=10*14+2*14=140+20+8=160+8=168"."""
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


def verify(reading, answer):
    """Whether every equation holds and the chain derives the answer and ends in it."""
    sound = all(side.value == equation.value for equation in reading.equations for side in equation.sides)
    return sound and reading.final == answer and derive(reading, answer) is not None


# --- Rethinker (incorrect) ---


def corrupt(problem, reasoning, answer, rng):
    """The chain with one wrong fact or one slip, carried through to a wrong end; None if there is nothing to corrupt.

    Nothing else changes, neither wording nor length: only the arithmetic tells it from the original.
    """
    reading = read(problem, reasoning)
    slips = [("slip", index, None) for index in range(len(reading.equations))]
    facts = [
        ("fact", index, product)
        for index, equation in enumerate(reading.equations)
        for product in _products(equation.sides[0])
        if product.left.value in reading.given or product.right.value in reading.given
    ]
    rng.shuffle(slips)
    rng.shuffle(facts)
    for kind, index, product in slips + facts if rng.random() < 0.5 else facts + slips:
        wrong = _Corruption(reading, reasoning, answer, rng).apply(kind, index, product)
        said = final_answer(wrong)
        if said is not None and parse_number(said) not in (None, answer):
            return wrong
    return None


def slip_only(reading, reasoning, rng):
    """The chain with one wrong intermediate result and nothing else touched, so that it still ends right; or None."""
    inner = [equation.sides[-1] for equation in reading.equations[:-1] if equation.value != reading.final]
    if not inner:
        return None
    side = rng.choice(inner)
    return _edited(reasoning, [(side, _near(side.value, rng))])


def _products(node):
    if node.op is None:
        return []
    mine = [node] if node.op == "*" and node.left.op is None and node.right.op is None else []
    return mine + _products(node.left) + _products(node.right)


def _near(value, rng, steps=(1, -1, 2, -2)):
    """A plausible wrong number instead of `value`: near it, or a ten off if it is large, and with the same sign."""
    steps = [*steps, 10, -10] if abs(value) >= 20 else steps
    return rng.choice([value + step for step in steps if (value + step >= 0) == (value >= 0)])


def _edited(text, changes):
    """text with numbers replaced. changes: [(Node with its place, new value)]."""
    for node, value in sorted(changes, key=lambda change: -change[0].start):
        text = text[: node.start] + write_number(value) + text[node.end :]
    return text


class _Corruption:
    """One pass through a chain that makes one error and lets everything after it follow from it."""

    def __init__(self, reading, reasoning, answer, rng):
        self.reading, self.reasoning, self.answer, self.rng = reading, reasoning, answer, rng
        self.moved = {}  # old result -> new result
        self.moved_sums = set()  # the old results that were sums
        self.results = {}  # left-hand side as text -> new result, for a step that is done again
        self.changes = []
        self.fact = None  # (factor, old, new): that product is computed with the wrong number

    def apply(self, kind, index, product):
        if kind == "fact":
            left, right = product.left.value, product.right.value
            count, fact = (left, right) if left in self.reading.given else (right, left)
            self.fact = (count, fact, _near(fact, self.rng, (1, -1, 2, -2, 4)))
        for i, equation in enumerate(self.reading.equations):
            self._follow(equation, slip=kind == "slip" and i == index)
        for leaf in _statements(self.reasoning, relations(self.reasoning)):
            started = self.changes and leaf.start > self.changes[0][0].start
            if (
                started
                and leaf.value in self.moved
                and (leaf.value not in self.reading.given or leaf.value == self.answer)
            ):
                self.changes.append((leaf, self.moved[leaf.value]))
        return _edited(self.reasoning, self.changes)

    def _follow(self, equation, slip):
        first, *others = equation.sides
        hit = self.fact is not None and any(self._has_fact(product) for product in _products(first))
        previous, current = first, self._rebuilt(first, hit)
        new_first = current
        for side in others[:-1] if others[-1].op is None else others:
            before, after = previous.terms(), current.terms()
            rebuilt = self._rebuilt(side, hit, splitting=True)
            if len(before) == len(side.terms()):  # 10*4+3*4 -> 40+12: term for term
                changed = {
                    term.start: new.value
                    for (_, old), (_, new), (_, term) in zip(before, after, side.terms(), strict=True)
                    if term.op is None and old.value != new.value
                }
                rebuilt = (
                    _replace(side, lambda leaf, _, at=changed: at.get(leaf.start, leaf.value)) if changed else rebuilt
                )
            previous, current = side, rebuilt
            self._note(side, rebuilt)
        self._note(first, new_first)
        if others[-1].op is not None:
            return
        last, key = others[-1], write(first)
        if slip:
            value = _near(last.value, self.rng)
        elif new_first.value != first.value:
            value = new_first.value
        else:
            value = self.results.get(
                key, self.moved.get(last.value, last.value) if last.value == self.answer else last.value
            )
        if value != last.value:
            self.changes.append((last, value))
            self.moved[last.value] = self.results[key] = value
            if first.op in ("+", "-"):
                self.moved_sums.add(last.value)

    def _has_fact(self, product):
        return sorted((product.left.value, product.right.value)) == sorted(self.fact[:2])

    def _rebuilt(self, side, hit, splitting=False):
        """The side with what has changed so far. hit: the equation computes with the wrong fact."""

        def change(leaf, parent):
            if parent is not None and parent.op in "*/":
                if hit and leaf.value == self.fact[1] and (splitting or self._is_fact_in(parent, leaf)):
                    return self.fact[2]
                return (
                    self.moved[leaf.value]
                    if leaf.value in self.moved_sums - self.reading.facts - set(self.reading.given)
                    else leaf.value
                )
            return self.moved.get(leaf.value, leaf.value) if not splitting else leaf.value

        return _replace(side, change)

    def _is_fact_in(self, product, leaf):
        """In 4*4 the second factor is the fact."""
        return self._has_fact(product) and (product.left.value != product.right.value or leaf is product.right)

    def _note(self, old, new):
        for (before, _), (after, _) in zip(old.leaves(), new.leaves(), strict=True):
            if before.value != after.value:
                self.changes.append((before, after.value))


def _replace(node, change, parent=None):
    """The tree with the value change(leaf, parent node) at each leaf."""
    if node.op is None:
        return Node(change(node, parent), start=node.start, end=node.end)
    return combine(node.op, _replace(node.left, change, node), _replace(node.right, change, node))
