"""Benchmarks: what the problems are, how they are asked, how an answer is graded. One module a family; what is only
particular to one benchmark stands in evals/benchmarks.yaml.

    problems = load("MATH-500", BenchmarkConfig())        # name in the config, section of the config
    instruction(problems[0], "paper")                     # the template around {problem}
    family(problems[0].kind).grade(problems[0], "… \\\\boxed{7}", True)  # a grading.Grade; True: generation was not cut

How to add a benchmark. If it has one final answer each, a file with id, problem and answer is enough: kind `local`.
Else, a block in benchmarks.yaml, of the family that reads and grades it the right way. Else, a new module here with

    load(kind, name, cfg) -> [Problem]        all of them; common.read reads, checks and groups
    grade(problem, text, finished) -> Grade   called from several threads
    instruction(problem, prompt) -> str       only where something is to be filled into a prompt of benchmarks.yaml
    PROGRAMS = True                           only where answers are programs, which are run; then also
    notes(isolations) -> [line]               what a reader of the tables must know

The number of problems and the limit are looked after by `load` below, for all. State the source of each convention in
the module's docstring; test it on a few rows and on its own golds (tests/evals/test_benchmarks.py and
test_benchmarks_real.py).
"""

import difflib
import os
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from types import ModuleType

from errors import UserError
from evals.benchmarks.common import KINDS, BenchmarkConfig, Problem
from evals.published import ALIASES, SIZES

# names of the paper's tables: kinds
NAMES = {kind.title: name for name, kind in KINDS.items() if kind.title}
NAMES |= {alias: NAMES[name] for alias, name in ALIASES.items()}


def kind_of(name: str, cfg: BenchmarkConfig) -> str:
    """Return the kind of a benchmark: as configured, else by its name, else local, which needs a file. Raises
    UserError."""
    kind = cfg.kind or NAMES.get(name) or (name if name in KINDS else "local")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"benchmarks.{name}.kind is {kind!r}; it can be {', '.join(KINDS)}{hint}")
    if kind == "local" and not cfg.file:
        raise UserError(
            f"benchmarks.{name} needs a file (JSON Lines with id, problem, answer), a kind ({', '.join(KINDS)}), "
            f"or a name from the paper's Table 7 ({', '.join(NAMES)})"
        )
    return kind


def row_of(name: str, cfg: BenchmarkConfig) -> str | None:
    """Return the row of the paper's tables that a benchmark fills: by its name, else by its kind; None if there is
    none."""
    return KINDS[NAMES.get(name) or kind_of(name, cfg)].title or None


def family(kind: str) -> ModuleType:
    """Import the module of a kind."""
    return import_module(f"evals.benchmarks.{KINDS[kind].family}")


def instruction(problem: Problem, protocol: str) -> str:
    """Return the template around {problem} that a problem is asked with under a protocol; empty: as paper."""
    prompt = KINDS[problem.kind].prompts[protocol or "paper"]
    fill = getattr(family(problem.kind), "instruction", None)
    return fill(problem, prompt) if fill else prompt


def runs_programs(kind: str) -> bool:
    """Tell whether answers of this kind are programs: they are run, and there is no majority among them."""
    return getattr(family(kind), "PROGRAMS", False)


def load(name: str, cfg: BenchmarkConfig, folder: str = "", allow_size: bool = False) -> list[Problem]:
    """Read the problems of one benchmark of the config; their number is checked, then limited. Raises UserError.

    folder: of local copies, KIND.jsonl, for benchmarks that name no file. allow_size: take another number of problems
    than Table 7 has; the tables say so.
    """
    kind = kind_of(name, cfg)
    copy = cfg.file or (os.path.join(folder, f"{kind}.jsonl") if folder else "")
    cfg = replace(cfg, file=copy)
    problems = [replace(problem, kind=kind) for problem in family(kind).load(kind, name, cfg)]
    place, title = cfg.file or f"the hub's {name}", KINDS[kind].title
    if not problems:
        raise UserError(f"{place} holds no problems")
    if title and len(problems) != SIZES[title] and not allow_size:
        raise UserError(
            f"{place} holds {len(problems)} problems, {title} has {SIZES[title]} in the paper's Table 7; "
            f"set allow_size=true to continue (the tables will say so)"
        )
    return problems[: cfg.limit] if cfg.limit else problems


def notes(name: str, cfg: BenchmarkConfig, problems: list[Problem], isolations: Iterable[str] = ()) -> list[str]:
    """Return lines for under the tables: where `load` gave other problems than Table 7 has, and what the family has to
    say. isolations: what its programs ran in, as their grades say."""
    kind = kind_of(name, cfg)
    own = family(kind).notes(isolations) if runs_programs(kind) else []
    title, limited = KINDS[kind].title, len(problems) == cfg.limit
    if title and len(problems) != SIZES[title]:
        why = f"limit: {cfg.limit}" if limited else "allow_size"
        return [f"{name}: {len(problems)} problems ({why}); the paper's Table 7 has {SIZES[title]}.", *own]
    return [f"{name}: the first {cfg.limit} problems of {cfg.file}.", *own] if limited and not title else own
