"""Every command of this project that a page, recipe, config, docstring or program spells is taken by its own parser."""

import argparse
import ast
import importlib
import re
import runpy
import shlex
import sys
from collections import Counter

import pytest

from config import load
from errors import UserError
from tests.support.scripts import ROOT

FILES = [
    path
    for path in sorted({*ROOT.glob("*.*"), *ROOT.glob("*/**/*.*")})
    if path.suffix in (".md", ".sh", ".yaml", ".py")
    and not {"out", ".venv", "tests"} & set(path.relative_to(ROOT).parts)  # those of the tests run there
]
SCRIPTS = ("build_crv", "train_sft", "train_cogpo", "evaluate")
ROOMS = ("agents", "bench", "data", "evals", "grading", "model", "pages", "pocket")
# in backticks, or the first on its line: in the middle of a sentence what follows is no word of it
TEXT = re.compile(
    r"(?:`|^[ \t#>-]*(?:[^\s#`]+ \|\| |exec |\[[^]\n]*\] \|\| )?)"
    rf"(?:python3? |torchrun [^`\n]*?)?((?:-m (?:{'|'.join(ROOMS)})(?:\.\w+)+|(?<=python )(?:{'|'.join(SCRIPTS)})\.py)"
    r"[^`\n]*)",
    re.MULTILINE,
)
FILLED = re.compile(r"[$…]|^\{|^[A-Z]+$|=ipo$")  # by a reader, or by the shell
OPEN = re.compile(rf"{FILLED.pattern}|^computed$")


class Taken(Exception):
    """The words were parsed."""


def in_text(text):
    """The words of the commands in a page, a script of the shell, a config or a docstring."""
    text = re.sub(r"\[(--[^]\n]*)\]", r"\1", re.sub(r"\\\n[ #]*", "", text))
    for found in TEXT.findall(text):
        lexer = shlex.shlex(re.split(r"\s{2,}| #| ·", found)[0], posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        words = []
        try:
            for word in lexer:
                if set(word) <= set("();<>|&"):
                    break
                words.append(word)
        except ValueError:  # a quotation mark of the sentence
            pass
        yield words


def in_program(tree):
    """The words of the commands that a program builds, "-m" and so on; what is computed reads `computed`, or $."""
    for node in ast.walk(tree):
        parts = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
        at = [n for n, part in enumerate(parts) if isinstance(part, ast.Constant) and part.value == "-m"]
        for start in at:
            words = []
            for part in parts[start:]:
                if isinstance(part, ast.Constant):
                    words.append(str(part.value))
                elif isinstance(part, ast.JoinedStr):
                    words.append("".join(str(v.value) if isinstance(v, ast.Constant) else "$" for v in part.values))
                elif not isinstance(part, ast.Starred):
                    words.append("computed")
            yield words


def commands():
    """{(module, words): where it is spelled first}"""
    found = {}
    for path in FILES:
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        spelled = []
        if path.suffix == ".py":
            tree = ast.parse(text)
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
            docs = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
            spelled += [*in_program(tree), *(words for doc in docs for words in in_text(doc))]
        else:
            spelled += in_text(text)
        for words in spelled:
            words = words[1:] if words[0] == "-m" else [words[0].removesuffix(".py"), *words[1:]]
            if words and words[0].split(".")[0] in (*ROOMS, *SCRIPTS):
                found.setdefault(tuple(words), name)
    return found


COMMANDS = commands()


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: f"{COMMANDS[words]}: {' '.join(words)[:60]}")
def test_its_own_parser_takes_it(words, monkeypatch, capsys):
    module, *words = words
    file, left_open = ROOT / f"{module.replace('.', '/')}.py", any(map(OPEN.search, words))
    assert file.is_file()
    monkeypatch.chdir(ROOT)
    if schema := getattr(importlib.import_module(module), "Config", None):
        # what is left open may be required, or not have its type yet; but every key must be there
        for at in reversed(range(len(words))):
            if words[at] == "--config" and (at + 1 == len(words) or OPEN.search(words[at + 1])):
                del words[at : at + 2]
        words = [word for word in words if ("=" in word and "=ipo" not in word) or not FILLED.search(word)]
        try:
            load(schema, words)
        except UserError as error:
            assert left_open and not re.search("unknown config|unexpected word", str(error)), error
    elif "ArgumentParser" in file.read_text():
        parse = argparse.ArgumentParser.parse_args

        def taken(parser, args=None, namespace=None):
            parse(parser, args, namespace)
            raise Taken

        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", taken)
        monkeypatch.setattr(sys, "argv", [module, *words])
        monkeypatch.delitem(sys.modules, module)  # it is run anew
        with pytest.raises((Taken, SystemExit)) as end:
            runpy.run_module(module, run_name="__main__")
        said = capsys.readouterr().err
        assert end.type is Taken or (left_open and "unrecognized arguments" not in said), said


def test_commands_are_found_wherever_they_are_spelled():
    places = Counter(place.split("/")[0] for place in COMMANDS.values())
    assert {"README.md", "docs", "runs", "configs", "bench", "evals", "pocket"} <= places.keys() and len(COMMANDS) > 80
    assert COMMANDS["pocket.student", "out=$/student"] == "bench/real_server.py"


def test_help_is_an_answer_of_all_that_is_started_by_hand():
    """A command without a parser takes --help for nothing and runs."""
    by_programs = {"other_graders.py", "symbolic.py", "cell.py"}
    files = [path for room in ROOMS for path in ROOT.glob(f"{room}/**/*.py")]
    started = [path for path in files if '"__main__"' in path.read_text() and path.name not in by_programs]
    assert len(started) > 20
    knows = re.compile(r"ArgumentParser|run_cli|--help")
    assert [path.name for path in started if not knows.search(path.read_text())] == []
