"""The imports that programs for LeetCode and its kin leave out, for those that need them and no others.

LeetCode has its library's names in reach, so models write `List[int]` and `defaultdict(int)` and import neither; the
graders of LiveCodeBench, APPS and TACO therefore put star imports of half the standard library, and a higher limit of
recursion, before every program. Here a program gets only the names that it mentions: a fresh interpreter is started
for every test, and importing them all would cost it as much time again.
"""

import builtins
import functools
import importlib
import io
import re
import tokenize

# LiveCodeBench's, in its order (lcb_runner/evaluation/testing_util.py): of two names that are equal the later one holds
MODULES = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "typing",
)  # fmt: skip
RECURSION = 50_000  # as there; Python's own 1,000 fails right programs that search a graph in depth


def with_imports(program):
    """A program's text with what it needs before it. One that Python could not read is left as it is."""
    try:
        mentioned, future = _read(program)
    except (tokenize.TokenError, SyntaxError):
        return program
    lines = sorted(line for name, line in _names().items() if name in mentioned)
    lines.append(f"__import__('sys').setrecursionlimit({RECURSION})")
    first, rest = _cut(program, future)
    return first + "\n".join(lines) + "\n" + rest


def _read(program):
    """(names that a program mentions, not as an attribute; number of the line where its last future import ends, or 0).

    By its tokens: hostile nesting can bring down Python's parser, and with it this process.
    """
    mentioned, future, before, ahead = set(), 0, "", False
    for token in tokenize.generate_tokens(io.StringIO(program).readline):
        if token.type == tokenize.NAME and before != ".":
            mentioned.add(token.string)
            ahead = ahead or (before == "from" and token.string == "__future__")
        elif token.type == tokenize.STRING and re.match(r"[rR]?[fF]", token.string):
            mentioned.update(re.findall(r"[^\W\d]\w*", token.string))
        elif token.type == tokenize.NEWLINE and ahead:
            future, ahead = token.end[0], False  # nothing may stand before these
        before = token.string
    return mentioned, future


def _cut(text, lines):
    parts = text.splitlines(keepends=True)
    head = "".join(parts[:lines])
    return head + "\n" * bool(head and not head.endswith("\n")), "".join(parts[lines:])


@functools.cache
def _names():
    """{name: the line that imports it}. No name of the builtins: `from operator import *` must not replace pow."""
    lines = {}
    for module in MODULES:
        loaded = importlib.import_module(module)
        public = getattr(loaded, "__all__", None) or [name for name in vars(loaded) if not name.startswith("_")]
        lines |= {name: f"from {module} import {name}" for name in public}
    lines |= {module: f"import {module}" for module in MODULES}
    return {name: line for name, line in lines.items() if not hasattr(builtins, name)}
