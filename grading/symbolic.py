"""The process in which answers are compared symbolically: started by grading/workers.py, one JSON line in, one out.

    {"gold": "…", "pred": "…", "tolerance": null, "seconds": 5}  ->  {"equal": true, "differs": false, "failed": []}

`differs`: numbers were found that are not equal; where neither holds, math-verify just did not find them equal.

`failed` holds what sympy raised: in a check of ours, which is then left out, so that math-verify's verdict stands; or
in math-verify itself, and then `equal` is null unless another reading of the two answers is equal. An exception is
never a verdict.

A model may write `10^{10^{10}}`, and sympy will try. So every comparison runs under two timers of the kernel, processor
time and wall time, whose signals have their default action: they end this process even inside a long C call, and also
if the process that started it is gone. The starter reads an empty line then, and starts another one. Memory is limited
too. Imports nothing of the project: starting must be quick, and the file must run on its own.
"""

import json
import logging
import resource
import signal
import sys
from functools import lru_cache, partial
from itertools import permutations, product

from latex2sympy2_extended import NormalizationConfig, latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify import LatexExtractionConfig, parse, parser, verify
from sympy import Abs, Basic, Eq, Expr, FiniteSet, Float, I, Interval, MatrixBase, Rational, Symbol, Tuple, Union
from sympy.core.relational import Relational

MEMORY_BYTES = 4 << 30
OUT_OF_MEMORY = 3  # exit status
WALL_FACTOR = 6  # wall time may be longer than processor time on a loaded machine, but not without end

RELATIVE = 1e-14  # two numbers, one a decimal: it must be exact, or say fifteen digits
DIGITS = 60  # two numbers without a decimal: equal if no digit differs

BOXED = LatexExtractionConfig(
    boxed_match_priority=0,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="last", equations=False
    ),
)

parser.latex2sympy = partial(latex2sympy, conversion_config=ConversionConfig(lowercase_symbols=False))  # n is not N


@lru_cache(maxsize=4096)
def parsed(answer: str) -> list:
    """Return math-verify's readings of one answer: a list of sympy objects, then the text itself."""
    return parse(f"\\boxed{{{answer}}}", [BOXED], parsing_timeout=None, raise_on_error=True)


def compared(gold: str, pred: str, tolerance: float | list[float] | None) -> tuple[bool | None, bool, list[str]]:
    """Return (equal, differs, failed): True, False, or None where an exception left it open; whether a difference was
    found; and the exceptions, a line each."""
    golds, preds, failed = parsed(gold), parsed(pred), []

    def attempt(question, *sides):
        """The answer to a question about two sides, None if sympy cannot tell."""
        try:
            return question(*sides)
        except MemoryError:
            raise
        except Exception as error:  # sympy raises nearly anything
            failed.append(f"{question.__name__}: {type(error).__name__}: {error}"[:200])

    # a tolerance comes first: what it lets pass, exact comparison would refuse
    close = attempt(within, golds, preds, tolerance) if tolerance is not None else False
    if close:
        return True, False, failed
    readings = [(golds, preds)]
    with_i = tuple(attempt(complex_numbers, side) or side for side in readings[0])
    if with_i != readings[0]:
        readings.append(with_i)
    elif attempt(contradict, golds, preds):  # then nothing needs to be simplified
        return False, True, failed
    readings += [sides for form in (solved, positive) if (sides := attempt(form, golds, preds))]
    # math-verify decides, on every pair of readings, unless it takes unequal numbers for equal
    found, differs = [close], False
    for sides in readings:
        same = [attempt(agree, *pair) for pair in product(*sides)]
        differs = attempt(contradict, *sides)
        if True in same and not differs:
            return True, False, failed
        found += [False] if True in same else same
    return None if None in found else False, bool(differs), failed


def agree(gold: Basic | MatrixBase | str, pred: Basic | MatrixBase | str) -> bool:
    """Tell whether math-verify takes one reading of the gold answer and one of the other for equal."""
    return verify(gold, pred, strict=True, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)


def complex_numbers(readings: list) -> list:
    """Return the readings with i as the imaginary unit, which math-verify takes for a name: then e^{i\\pi} is -1."""
    return [
        x.xreplace({s: I for s in x.free_symbols if s.name == "i"}) if isinstance(x, Basic) else x for x in readings
    ]


def solved(golds: list, preds: list) -> tuple[list, list] | None:
    """Return the readings with x < 2 or x > 3 as the set of all such x, if the other side is one."""
    sides = [[_solutions(x) for x in side[:1]] for side in (golds, preds)]
    return tuple(sides) if sides != [golds[:1], preds[:1]] else None


def _solutions(x):
    relations = x.args if isinstance(x, FiniteSet) and x.args and all(isinstance(r, Relational) for r in x.args) else ()
    return Union(*(r.as_set() for r in relations)) if relations and not any(isinstance(r, Eq) for r in relations) else x


def positive(golds: list, preds: list) -> tuple[list, list] | None:
    """Return the readings with all names as positive numbers, as lengths and the like are: \\ln a^2 is 2 \\ln a."""
    sides = [side[0] for side in (golds, preds) if side and isinstance(side[0], Expr) and side[0].free_symbols]
    if len(sides) < 2 or sides[0].has(Abs) != sides[1].has(Abs):
        return None
    names = {s: Symbol(s.name, positive=True) for x in sides for s in x.free_symbols}
    return tuple([x.xreplace(names).doit()] for x in sides)


def contradict(golds: list, preds: list) -> bool:
    """Tell whether numbers are not equal that math-verify takes for equal, to six decimals: 1/2004! and 1/2006!."""
    return bool(golds and preds) and differ(golds[0], preds[0])


def differ(a: object, b: object) -> bool:
    """Tell whether two objects of the same form hold different numbers, element by element. False if that cannot be
    told."""
    if isinstance(a, MatrixBase) and isinstance(b, MatrixBase):
        return a.shape != b.shape or any(map(differ, a, b))
    if not (isinstance(a, Basic) and isinstance(b, Basic)):
        return False
    if isinstance(a, Expr) and isinstance(b, Expr):
        return numbers_differ(a, b)
    if isinstance(a, Tuple) and isinstance(b, Tuple):
        return len(a) == len(b) and any(map(differ, a, b))
    if isinstance(a, FiniteSet | Tuple) and isinstance(b, FiniteSet | Tuple):
        return len(a.args) == len(b.args) and not all(any(not differ(x, y) for y in b.args) for x in a.args)
    if isinstance(a, Interval) and isinstance(b, Interval):
        return differ(a.start, b.start) or differ(a.end, b.end)
    if isinstance(a, Relational) and isinstance(b, Relational) and a.lhs == b.lhs:
        return differ(a.rhs, b.rhs)
    return False


def numbers_differ(a: Expr, b: Expr) -> bool:
    """Compare two expressions, at one point if they hold names: exactly if neither holds a decimal, else relatively."""
    names = sorted({s.name for s in a.free_symbols | b.free_symbols})
    point = {name: Rational(17 + 6 * k, 13 + k) for k, name in enumerate(names)}
    a, b = (x.xreplace({s: point[s.name] for s in x.free_symbols}).doit() for x in (a, b))
    if a == b or not (a.is_number and b.is_number):
        return False
    if a.is_infinite or b.is_infinite:  # oo - oo has no value
        return True
    difference = (a - b).doit()
    if difference == 0:
        return False
    exact = not (a.has(Float) or b.has(Float))
    if exact and difference.is_Rational:
        return True
    size, largest = abs(difference.evalf(DIGITS)), max(abs(x.evalf(DIGITS)) for x in (a, b))
    return bool(size > (Rational(10) ** (10 - DIGITS) if exact else RELATIVE) * largest)


def values(readings: list) -> list | None:
    """Return the numbers of an answer such as `0.003, 5.233`, or None if it holds anything else."""
    first = readings[0] if readings else None
    items = list(getattr(first, "_unsorted_args", first.args)) if isinstance(first, FiniteSet | Tuple) else [first]
    numbers = [item.doit().evalf(15) for item in items if isinstance(item, Basic)]  # in the order written
    return numbers if len(numbers) == len(items) and all(n.is_real and n.is_number for n in numbers) else None


def within(golds: list, preds: list, tolerance: float | list[float]) -> bool:
    """Tell whether two lists of numbers agree in some order. tolerance: absolute, for all or one per gold value."""
    golds, preds = values(golds), values(preds)
    if golds is None or preds is None or len(golds) != len(preds) or len(golds) > 6:
        return False
    limits = tolerance if isinstance(tolerance, list) else [tolerance] * len(golds)
    slack = 1 + 1e-9  # 0.003 - 0.002 is a little more than 0.001 in binary
    orders = permutations(zip(golds, limits, strict=True))
    return any(all(abs(g - p) <= t * slack for (g, t), p in zip(order, preds, strict=True)) for order in orders)


def main() -> None:
    """Answer one line after the other until the input is closed."""
    if sys.platform != "darwin":  # which refuses this limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable(logging.WARNING)  # math-verify warns that its own timers are off, as they should be
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the starter, who closes our input
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        # under both timers, whose default action ends the process
        task = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, task["seconds"])
        signal.setitimer(signal.ITIMER_REAL, task["seconds"] * WALL_FACTOR)
        try:
            equal, differs, failed = compared(task["gold"], task["pred"], task["tolerance"])
        except MemoryError:
            sys.exit(OUT_OF_MEMORY)
        except Exception as error:  # while reading an answer
            equal, differs, failed = None, False, [f"{type(error).__name__}: {error}"[:200]]
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"equal": equal, "differs": differs, "failed": failed}), flush=True)


if __name__ == "__main__":
    main()
