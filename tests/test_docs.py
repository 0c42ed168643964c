"""README.md and docs/: links, files, commands and config keys exist, and code blocks print what stands under them."""

import contextlib
import dataclasses
import importlib
import io
import itertools
import re
import shlex
import typing

import pytest

from pocket.study.design import StudyConfig
from pocket.tiny import FAMILIES
from tests.support.scripts import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# a file of another project is named with its line: `dpo_trainer.py:801`
ROOMS = (
    "agents",
    "bench",
    "configs",
    "data",
    "docs",
    "evals",
    "grading",
    "losses",
    "model",
    "pages",
    "pocket",
    "runs",
    "tests",
)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCED = re.compile(r"^```(\w+)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
FILE = re.compile(rf"(?<![\w./-])((?:{'|'.join(ROOMS)})/[\w./-]*\w\.(?:py|md|yaml|sh|html|txt)|\w+\.py)\b(?!:\d)")
MODULE = re.compile(rf"python -m ((?:{'|'.join(ROOMS)})(?:\.\w+)+)")
CODE = re.compile(r"`([^`\n]+)`|^ {4}(\S.*)$", re.MULTILINE)
KEY = re.compile(r"(?<![\w.$/{'\"<–-])([a-z]\w*(?:\.\w+)*)=")
SCRIPTS = ("build_crv", "train_sft", "train_cogpo", "evaluate", "data.sources", "agents.outputs", "model.card")


def prose(page):
    """The page without fenced blocks, which are code of their own."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def known_keys():
    keys = set()

    def walk(schema, prefix):
        for name, kind in typing.get_type_hints(schema).items():
            keys.update([prefix + name, name])  # prose may leave the section out
            options = [option for option in typing.get_args(kind) if dataclasses.is_dataclass(option)]
            if dataclasses.is_dataclass(kind):
                walk(kind, f"{prefix}{name}.")
            elif options and type(None) in typing.get_args(kind):  # the words behind --plan
                walk(options[0], "")
            elif typing.get_origin(kind) is dict:
                keys.add(f"{name}.*")
                if dataclasses.is_dataclass(inner := typing.get_args(kind)[1]):
                    walk(inner, f"{prefix}{name}.*.")

    for script in SCRIPTS:
        walk(importlib.import_module(script).Config, "")
    walk(StudyConfig, "")
    return keys | {"key"} | set(FAMILIES)  # `key=value`, and the words of pocket.tiny


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page):
    text = prose(page)
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    # a bare name.py stands in a list after its room, or in the root
    places = [ROOT, *(ROOT / room for room in ROOMS)]
    files = {name for name in FILE.findall(text) if not any((place / name).is_file() for place in places)}
    assert files == set()
    assert {name for name in MODULE.findall(text) if not (ROOT / (name.replace(".", "/") + ".py")).is_file()} == set()


def test_config_keys_exist():
    known, used, unknown = known_keys(), 0, []
    for page in PAGES:
        for inline, line in CODE.findall(prose(page)):
            for key in KEY.findall(inline or line):
                if f'{key}="' in line:
                    continue  # a variable of the shell
                used += 1
                anonymous = re.sub(r"^(endpoints|benchmarks|models)\.\w+", r"\1.*", key)
                if anonymous not in known:
                    unknown.append(f"{page.name}: {key}")
    assert unknown == [] and used > 50


def test_commands_of_the_shell_are_taken_by_their_scripts():
    """Those for Python are tried in test_commands.py."""
    pages = []
    for page in PAGES:
        for line in re.findall(r"^ {4}bash (.*)$", prose(page).replace("\\\n", " "), re.MULTILINE):
            script, *words = shlex.split(re.split(r" &|\s#", line)[0])
            pages.append(page.name)
            texts = [(ROOT / name).read_text(encoding="utf-8") for name in (script, "runs/recipe.sh")]
            assert all(any(word in text for text in texts) for word in words), (page, line)
    assert pages.count("README.md") >= 3 and len(pages) > 5


def test_a_documented_server_adds_no_settings_of_its_own_and_is_not_waited_for_when_it_died():
    """Without the flag vLLM takes the model's max_new_tokens, and what a client does not send, from its files."""
    folders = ("docs", "configs", "runs", "model", "agents", "evals")
    files = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".md", ".yaml", ".sh", ".py")
    ]
    files += [*ROOT.glob("*.md"), *ROOT.glob("*.py")]
    served = 0
    for path in files:
        for line in re.sub(r"\\\n[# ]*", "", path.read_text(encoding="utf-8")).splitlines():
            served += "vllm serve" in line
            assert "vllm serve" not in line or "--generation-config vllm" in line, (path, line)
            assert "launch_server" not in line or "--sampling-defaults openai" in line, (path, line)
            assert "until curl" not in line, (path, line)
    assert served >= 9


def examples():
    for page in PAGES:
        blocks = FENCED.findall(page.read_text(encoding="utf-8"))
        for (kind, code), (following, printed) in itertools.pairwise(blocks):
            if (kind, following) == ("python", "text"):
                yield pytest.param(code, printed, id=f"{page.name}: {printed.splitlines()[0][:30]}")


@pytest.mark.parametrize("code,printed", examples())
def test_code_prints_what_stands_under_it(code, printed):
    assert len(code.splitlines()) <= 15
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    assert out.getvalue() == printed


def test_there_are_examples():
    assert len(list(examples())) >= 1
