"""Every key of every command: its number has limits, its default lies within them, and what lies outside is refused in
one line before anything is loaded or written."""

import dataclasses
import importlib
import re
import typing
from typing import Annotated

import pytest

from config import help_text, load, run_cli
from errors import UserError
from tests.support.scripts import ROOT
from values import convert, default_of, hints_of, keys_of, nesting, type_name

ROOMS = ("agents", "data", "evals", "grading", "model", "pages", "pocket")
FILES = [*ROOT.glob("*.py"), *(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))]
CALL = re.compile(r"^    run_cli\(main, (\w+), ", re.MULTILINE)
SCHEMAS = {}  # every command's, by module; one that several share once
for module, found in sorted(
    (".".join(f.relative_to(ROOT).with_suffix("").parts), CALL.search(f.read_text())) for f in FILES
):
    if found and (schema := getattr(importlib.import_module(module), found[1])) not in SCHEMAS.values():
        SCHEMAS[module] = schema
NEEDED = {  # the least that a command wants
    "train_sft": ["out=o", "model.path=m", "data.file=f"],
    "train_cogpo": ["out=o", "model.path=m", "data.file=f"],
    "build_crv": ["out=o", "problems=p", "endpoints.NAME={base_url: http://x, model: m}"],
    "evaluate": ["out=o", "models.m=x", "benchmarks.NAME={}", "endpoints.NAME={base_url: http://x, model: m}",
                 "tables.NAME={}"],
    "data.sources": ["out=o"],
    "model.fit": ["out=o", "problems=p", "model.path=m"],
    "model.card": ["model=m"],
    "evals.own_pairs": ["out=o", "eval=e", "model=m", "sft=s"],
    "agents.outputs": ["run=r"],
    "evals.chains": ["out=o", "eval=e", "model=m", "benchmark=b"],
    "pocket.problems": ["tasks.NAME={}"],
    "pocket.student": ["out=o"],
    "pocket.study.primer": ["out=o"],
    "pocket.study.micro": ["out=o", "text=[t]"],
    "pocket.study.study": ["out=o", "name=n", "prepare=[]", "student=s", "mixtures={m: x}", "columns.NAME.data=d",
                            "questions={}", "train_problems=1", "test_problems=1", "sft=s", "prefer=p", "evaluate=e"],
}  # fmt: skip
NEEDED["pocket.study.choosing"] = NEEDED["pocket.study.study"]


def numbers(kind, limits=()):
    """[(int or float, its limits)] of all numbers in a type."""
    if typing.get_origin(kind) is Annotated:
        return numbers(typing.get_args(kind)[0], kind.__metadata__)
    if kind in (int, float):
        return [(kind, limits)]
    return [found for inner in typing.get_args(kind) for found in numbers(inner)]


def value_of(kind, number):
    """The YAML of a value of `kind` with `number` in the place of its numbers; None if it holds none."""
    if typing.get_origin(kind) is Annotated or kind in (int, float):
        return number if numbers(kind) else None
    inner = [found for found in (value_of(k, number) for k in typing.get_args(kind)) if found is not None]
    if not inner:
        return None
    origin = typing.get_origin(kind)
    return f"[{', '.join(inner)}]" if origin in (list, tuple) else f"{{x: {inner[0]}}}" if origin is dict else inner[0]


def outside(kind, limits):
    """Values that a number must not have: what is no number of its type, and what lies beyond each limit or on it."""
    bounded = "finite" in limits or any(limit.startswith(("at most", "below")) for limit in limits)
    yield from (["nan", "-.inf"] + [".inf"] * bounded) if kind is float else ["1.5", "nan", "inf"]
    yield from ("true", "{}", "x", "1:30")
    for words, _, number in (limit.rpartition(" ") for limit in limits):
        if words:
            yield f"{int(number) + {'at least': -1, 'above': 0, 'below': 0, 'at most': 1}[words]}"


def keys(schema):
    """[(dotted key, type)] of the keys that hold values."""
    return [(key, kind) for key, kind, *_ in keys_of(schema) if not dataclasses.is_dataclass(nesting(kind))]


def cases():
    for module, schema in SCHEMAS.items():
        for key, kind in keys(schema):
            for number, limits in numbers(kind):
                for value in dict.fromkeys(outside(number, limits)):
                    yield pytest.param(module, key, value_of(kind, value), id=f"{module} {key}={value}")


@pytest.mark.parametrize("module", SCHEMAS)
def test_every_number_has_limits_and_its_default_lies_within(module):
    bare = [key for key, kind in keys(SCHEMAS[module]) if not all(limits for _, limits in numbers(kind))]
    assert bare == [], "values.py has the types: Count, Whole, Share, …"

    def walk(schema, base=dataclasses.MISSING):
        hints = hints_of(schema)
        for field in dataclasses.fields(schema):
            kind, default = hints[field.name], default_of(field, base)
            if dataclasses.is_dataclass(kind):
                walk(kind, default)
            elif default is not dataclasses.MISSING and not dataclasses.is_dataclass(nesting(kind)):
                plain = {k: vars(v) if dataclasses.is_dataclass(v) else v for k, v in default.items()} \
                    if isinstance(default, dict) else default  # fmt: skip
                assert convert(plain, kind, field.name) == default

    walk(SCHEMAS[module])


@pytest.mark.parametrize("module, key, value", cases())
def test_a_number_outside_its_limits_is_one_line(module, key, value):
    with pytest.raises(UserError) as error:
        load(SCHEMAS[module], [*NEEDED[module], f"{key}={value}"])
    said = str(error.value)
    assert key in said.replace('"', "") and "must " in said and "\n" not in said and len(said) < 300


def test_there_are_cases():
    assert len(list(cases())) > 700
    assert (
        len(SCHEMAS) >= 14
        and len({key for module in SCHEMAS for key, kind in keys(SCHEMAS[module]) if numbers(kind)}) > 60
    )


@pytest.mark.parametrize("module", SCHEMAS)
def test_what_is_needed_is_enough(module):
    assert load(SCHEMAS[module], NEEDED[module])


@pytest.mark.parametrize("module", SCHEMAS)
def test_help_names_every_key_with_what_it_takes(module):
    lines = help_text(SCHEMAS[module], "")
    for key, kind in keys(SCHEMAS[module]):
        assert f" {key}: {type_name(kind)} " in lines


@pytest.mark.parametrize("module", SCHEMAS)
def test_a_wrong_number_ends_the_command_before_it_begins(module, monkeypatch, capsys, tmp_path):
    """Exit status 2, one line, `main` is never called and no file is made."""
    counted = [key for key, kind in keys(SCHEMAS[module]) if numbers(kind)]
    key = counted[0] if counted else NEEDED[module][0].partition("=")[0]  # of a command without numbers: no path at all
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["script", *NEEDED[module], f"{key}=" + "nan" * bool(counted)])
    with pytest.raises(SystemExit) as stop:
        run_cli(lambda cfg: pytest.fail("main was called"), SCHEMAS[module], "")
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith(f"error: config key {key}") and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
