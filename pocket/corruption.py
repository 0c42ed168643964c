"""The scripted teacher as Rethinker (incorrect): one error in a chain of arithmetic, and all that follows from it."""

import random
from typing import NamedTuple

from grading.answers import final_answer
from pocket.arithmetic import Node, combine, parse_number, relations, write, write_number
from pocket.scripted import Number, Reading, read, statements


class Fact(NamedTuple):
    """What one thing of a kind has, as in 13*4: count 13, 4 of each. new: the wrong number put in its place."""

    count: Number
    old: Number
    new: Number


def corrupt(problem: str, reasoning: str, answer: Number | None, rng: random.Random) -> str | None:
    """Put one wrong fact or one slip into a chain and carry it through to a wrong end; None if there is none to put.

    Nothing else changes, neither wording nor length: only the arithmetic differs from the original's.
    """
    # all errors that could be made: a slip in an equation, or a fact about something that the problem counts
    reading = read(problem, reasoning)
    slips = list(range(len(reading.equations)))
    products = [product for equation in reading.equations for product in _products(equation.sides[0])]
    facts = [(p.left.value, p.right.value) for p in products if p.left.value in reading.given]
    facts += [(p.right.value, p.left.value) for p in products if p.left.value not in reading.given]
    facts = [Fact(count, fact, _near(fact, rng)) for count, fact in facts if count in reading.given]

    # in random order, until one of them leads to a wrong end
    rng.shuffle(slips)
    rng.shuffle(facts)
    errors = [(slip, None) for slip in slips], [(None, fact) for fact in facts]
    for slip, fact in errors[0] + errors[1] if rng.random() < 0.5 else errors[1] + errors[0]:
        run = _Corruption(reading, reasoning, answer, rng, slip, fact)
        said = final_answer(run.text)
        if said is not None and parse_number(said) not in (None, answer) and not run.changes_sign:
            return run.text
    return None


def slip_only(reading: Reading, reasoning: str, rng: random.Random) -> str | None:
    """Put one wrong intermediate result into a chain and touch nothing else, so that it still ends right; or None."""
    inner = [equation.sides[-1] for equation in reading.equations[:-1] if equation.value != reading.final]
    inner = [side for side in inner if side.op is None]
    if not inner:
        return None
    side = rng.choice(inner)
    return _edited(reasoning, {side.start: (side, _near(side.value, rng))})


def _products(node):
    """List the products of two numbers in an expression."""
    if node.op is None:
        return []
    mine = [node] if node.op == "*" and node.left.op is None and node.right.op is None else []
    return mine + _products(node.left) + _products(node.right)


def _near(value, rng):
    """Draw a plausible wrong number instead of `value`: near it, or a ten off if it is large, with the same sign."""
    steps = [1, -1, 2, -2] + [10, -10] * (abs(value) >= 20)
    return rng.choice([value + step for step in steps if (value + step >= 0) == (value >= 0)])


def _edited(text, changes):
    """Replace numbers of a text. changes: {start: (Node with its place, new value)}."""
    for start in sorted(changes, reverse=True):
        node, value = changes[start]
        text = text[:start] + write_number(value) + text[node.end :]
    return text


def _replace(node, change, parent=None):
    """Rebuild a tree with the value change(leaf, parent node) at each leaf."""
    if node.op is None:
        return Node(change(node, parent), start=node.start, end=node.end)
    return combine(node.op, _replace(node.left, change, node), _replace(node.right, change, node))


class _Corruption:
    """One pass through a chain: makes the error, in equation `slip` or about `fact`, and lets it run its course.

    text: the chain that comes of it.
    """

    def __init__(self, reading, reasoning, answer, rng, slip, fact):
        self.reading, self.answer, self.rng, self.fact = reading, answer, rng, fact
        self.changes = {}  # place in the text -> (Node, new value)
        self.moved = {}  # old result -> new result
        self.moved_sums = set()  # those of the old results that were sums
        self.again = {}  # left-hand side -> new result, for a step that the chain does twice
        for index, equation in enumerate(reading.equations):
            self._follow(equation, index == slip)
        self._follow_statements(statements(reasoning, relations(reasoning)))
        self.text = _edited(reasoning, self.changes)

    @property
    def changes_sign(self) -> bool:
        """Tell whether a number became negative, which would read oddly, or stopped being so."""
        return any((node.value < 0) != (value < 0) for node, value in self.changes.values())

    def _follow(self, equation, slip):
        """Carry the error through one equation: its left-hand side, the sides that split it up, and its result."""
        # the left-hand side computes with what has become of earlier results
        first, *others = equation.sides
        hit = self.fact is not None and any(self._has_fact(product) for product in _products(first))
        before, after = first, _replace(first, self._input)
        self._note(first, after)

        # a side between follows the one before it; all numbers alone are the result
        result = None
        for side in others:
            if side.op is not None:
                changed = self._split(side, before, after, hit)
            else:
                result = self._result(side.value, first, after, slip) if result is None else result
                changed = Node(result)
            self._note(side, changed)
            before, after = side, changed

    def _input(self, leaf, parent):
        """Return the number that a left-hand side computes with now."""
        if parent is None or parent.op in ("+", "-"):
            return self.moved.get(leaf.value, leaf.value)
        if self.fact is not None and leaf.value == self.fact.old and self._has_fact(parent):
            is_count = leaf is parent.left and parent.left.value == parent.right.value  # in 4*4 the second is the fact
            return leaf.value if is_count else self.fact.new
        # a factor is a count or a fact, and equals an earlier result by accident, unless it is a sum never named else
        named = leaf.value in self.reading.given or leaf.value in self.reading.facts
        return self.moved[leaf.value] if leaf.value in self.moved_sums and not named else leaf.value

    def _split(self, side, before, after, hit):
        """Change a side between: 10*4+3*4 takes over a wrong fact, 40+12 what the terms before it became."""
        terms, known = side.terms(), {}
        if len(terms) == len(before.terms()):
            known = {term.start: new.value for (_, term), (_, new) in zip(terms, after.terms(), strict=True)}

        def change(leaf, parent):
            if parent is None or parent.op in ("+", "-"):
                return known.get(leaf.start, leaf.value)
            return self.fact.new if hit and leaf.value == self.fact.old else leaf.value

        return _replace(side, change)

    def _result(self, old, first, after, slip):
        """Return the value that an equation ends in now."""
        if slip:
            new = _near(old, self.rng)
        elif after.value != first.value:
            new = after.value
        elif old == self.answer:  # however the chain gets there a second time, it stands by its result
            new = self.again.get(write(first), self.moved.get(old, old))
        else:
            new = self.again.get(write(first), old)
        if new != old:
            self.moved[old] = self.again[write(first)] = new
            if first.op in ("+", "-"):
                self.moved_sums.add(old)
        return new

    def _follow_statements(self, leaves):
        """Change results that are said again after the error: "So there are 58"."""
        start = min(self.changes, default=None)
        for leaf in leaves:
            repeats = leaf.value in self.moved and (leaf.value == self.answer or leaf.value not in self.reading.given)
            if repeats and leaf.start > start:
                self.changes[leaf.start] = (leaf, self.moved[leaf.value])

    def _has_fact(self, product):
        return {product.left.value, product.right.value} == {self.fact.count, self.fact.old}

    def _note(self, old, new):
        """Note every number of a side that has changed."""
        for (leaf, _), (changed, _) in zip(old.leaves(), new.leaves(), strict=True):
            if leaf.value != changed.value:
                self.changes[leaf.start] = (leaf, changed.value)
