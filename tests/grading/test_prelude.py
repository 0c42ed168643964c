"""Names that a program uses without importing them are there; no others are touched."""

import sys

import pytest

from grading.prelude import RECURSION, with_imports

LIMIT = f"__import__('sys').setrecursionlimit({RECURSION})\n"


def names_after(program):
    """What is defined once a program has run."""
    scope, limit = {"__name__": "__main__"}, sys.getrecursionlimit()
    try:
        exec(with_imports(program), scope)
    finally:
        sys.setrecursionlimit(limit)
    return scope


def test_names_that_are_used_are_imported():
    program = "x: List[int] = [gcd(4, 6), reduce(lambda a, b: a + b, [1, 2])]\ny = defaultdict(list)\nz = math.pi\n"
    scope = names_after(program + "w = f'{lcm(4, 6)}'  # Counter\nv = y.copy()")
    assert (scope["x"], scope["w"]) == ([2, 3], "12") and scope["z"] > 3
    assert "Counter" not in scope and "copy" not in scope


def test_nothing_is_imported_for_a_program_that_needs_nothing():
    assert with_imports("print(1)") == LIMIT + "print(1)"


def test_builtins_stay_and_a_programs_own_names_win():
    program = "a = pow(2, 3, 5)\ndef gcd(a, b): return 'mine'\nb = gcd(1, 2)\nc = datetime.datetime(2024, 5, 1)"
    scope = names_after(program)
    assert (scope["a"], scope["b"], scope["c"].year) == (3, "mine", 2024)  # operator.pow takes two numbers


def test_future_imports_stay_first():
    program = '"""Doc."""\nfrom __future__ import annotations\ndef f(x: Nonsense) -> List[int]: return x\ny = f(1)'
    assert names_after(program)["y"] == 1
    line = "from __future__ import annotations"
    assert with_imports(line) == f"{line}\n{LIMIT}"
    assert (
        names_after("from __future__ import (\n    annotations,\n)\ndef f(x: Nonsense): return x\ny = f(1)")["y"] == 1
    )


@pytest.mark.parametrize("program", ["x = (", "'''", "  x\n y"])
def test_what_cannot_be_read_is_left_alone(program):
    assert with_imports(program) == program


@pytest.mark.parametrize(
    "program", ["-" * 10**5 + "1", "x" + ".x" * 10**5, "lambda:" * 10**5 + "1", "\0", "", "\ud800", "def f(:"]
)
def test_hostile_programs_do_no_harm_here(program):
    assert with_imports(program).endswith(program)
