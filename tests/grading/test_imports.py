"""Names that a program uses without importing them are there; no others are touched."""

import pytest

from grading.cell import add_imports
from grading.programs import execute, importable_names


def names_after(program: str) -> dict:
    """Return what is defined once a program has run."""
    scope = {"__name__": "__main__"}
    add_imports(program.encode(), importable_names(), scope)
    exec(compile(program, "main.py", "exec", dont_inherit=True), scope)
    return scope


def test_names_that_are_used_are_imported():
    program = "x: List[int] = [gcd(4, 6), reduce(lambda a, b: a + b, [1, 2])]\ny = defaultdict(list)\nz = math.pi\n"
    scope = names_after(program + "w = f'{lcm(4, 6)}'  # Counter\nv = y.copy()")
    assert (scope["x"], scope["w"]) == ([2, 3], "12") and scope["z"] > 3
    assert "Counter" not in scope and "copy" not in scope


def test_nothing_is_imported_for_a_program_that_needs_nothing():
    assert names_after("x = 1").keys() == {"__name__", "__builtins__", "x"}


def test_builtins_stay_and_a_programs_own_names_win():
    program = "a = pow(2, 3, 5)\ndef gcd(a, b): return 'mine'\nb = gcd(1, 2)\nc = datetime.datetime(2024, 5, 1)"
    scope = names_after(program)
    assert (scope["a"], scope["b"], scope["c"].year) == (3, "mine", 2024)  # operator.pow takes two numbers


def test_future_imports_stay_first():
    program = (
        '"""Doc."""\nfrom __future__ import annotations\ndef f(x: Nonsense) -> List[int]: return gcd(x, 2)\ny = f(1)'
    )
    assert names_after(program)["y"] == 1
    assert "SyntaxError" in execute("x = gcd(4, 6)\nfrom __future__ import annotations", "").detail


@pytest.mark.parametrize(
    "program", ["-" * 10**5 + "1", "x" + ".x" * 10**5, "lambda:" * 10**5 + "1", "\0", "def f(:", "'''", "  x\n y"]
)
def test_programs_that_cannot_be_compiled_are_errors(program):
    assert execute(program, "").status == "error"


def test_an_empty_program_and_one_that_is_not_utf_8_are_run():
    assert execute("", "").status == "ok"
    assert execute("print('\ud800')", "").stdout == "?\n"
