"""The folders are floors: a room imports from the floors below it, and from its own; nothing imports the leaves."""

import ast
from collections import Counter

import pytest

from tests.support.scripts import ROOT

FLOORS = [  # from the ground up; a name is a folder or a file of the root
    {"losses", "errors"},
    {"values", "progress"},
    {"config"},
    {"pages", "settings", "lock"},
    {"data", "grading"},
    {"model", "agents"},
    {"evals"},
    {"build_crv", "train_sft", "train_cogpo", "evaluate"},
    {"pocket", "bench"},
]
ROOMS = {room: floor for floor, rooms in enumerate(FLOORS) for room in sorted(rooms)}
TOGETHER = {"data", "grading"}  # records hold what is graded, and the other way round


def imported(file):
    """The project's rooms that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".")[0] for name in names if name.split(".")[0] in ROOMS)


def files_of(room):
    files = [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else sorted((ROOT / room).rglob("*.py"))
    assert files
    return files


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_the_floors_below(room):
    wrong = [
        (str(file.relative_to(ROOT)), other)
        for file in files_of(room)
        for other in imported(file)
        if other != room and ROOMS[other] >= ROOMS[room] and {room, other} != TOGETHER
    ]
    assert wrong == []


def test_no_two_files_bear_one_name():
    names = Counter(file.name for room in ROOMS for file in files_of(room) if file.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []
