"""Benchmarks, one readable module a family: what the problems are, how they are asked, how an answer is graded.

    problems = load("MATH-500", BenchmarkConfig())        # name in the config, section of the config
    module = family(problems[0].kind)                     # mathematics
    module.instruction(problems[0], "paper")              # the template around {problem}
    module.grade(problems[0], "… \\\\boxed{7}", True)       # a grading.Grade; True: generation was not cut

How to add a benchmark. If it has one final answer each, a file with id, problem and answer is enough: kind `local`.
Else, to a family: a Source in its KINDS (hub id, and which columns hold id, question and gold) and what is special in
its `load`. Else, a new module here with

    load(kind, name, cfg) -> [Problem]        all of them; common.read reads, checks and groups
    instruction(problem, protocol) -> str     with {problem} where the question goes
    grade(problem, text, finished) -> Grade   called from several threads
    PROGRAMS = True                           only where answers are programs, which are run; then also
    notes(isolations) -> [line]               what a reader of the tables must know

and a line in FAMILIES. The number of problems and the limit are looked after by `load` below, for all. State the source
of each convention in the module's docstring; test it on a few rows and on its own golds (tests/evals/test_benchmarks.py
and test_benchmarks_real.py).
"""

import difflib
import os
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from types import ModuleType

from errors import UserError
from evals.benchmarks.common import BenchmarkConfig
from evals.problem import Problem
from evals.published import ALIASES, SIZES

FAMILIES = {  # kind: module
    "aime2024": "mathematics",
    "math500": "mathematics",
    "gsm8k": "mathematics",
    "olympiadbench": "olympiad",
    "gpqa_diamond": "choice",
    "mmlu": "choice",
    "livecodebench_v2": "code",
    "local": "mathematics",
}
NAMES = {  # as the paper's tables print them: kind
    "AIME2024": "aime2024",
    "MATH-500": "math500",
    "GSM8K": "gsm8k",
    "GPQA Diamond": "gpqa_diamond",
    "LiveCodeBench V2": "livecodebench_v2",
    "MMLU": "mmlu",
    "OlympiadBench (math-en)": "olympiadbench",
}
TITLES = {kind: title for title, kind in NAMES.items()}  # kind: its name in Table 7, evals/published.SIZES
NAMES |= {alias: NAMES[name] for alias, name in ALIASES.items()}


def kind_of(name: str, cfg: BenchmarkConfig) -> str:
    """Return the kind of a benchmark: as configured, else by its name, else local, which needs a file. Raises
    UserError."""
    kind = cfg.kind or NAMES.get(name) or (name if name in FAMILIES else "local")
    if kind not in FAMILIES:
        near = difflib.get_close_matches(kind, FAMILIES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"benchmarks.{name}.kind is {kind!r}; it can be {', '.join(FAMILIES)}{hint}")
    if kind == "local" and not cfg.file:
        raise UserError(
            f"benchmarks.{name} needs a file (JSON Lines with id, problem, answer), a kind ({', '.join(FAMILIES)}), "
            f"or a name from the paper's Table 7 ({', '.join(NAMES)})"
        )
    return kind


def row_of(name: str, cfg: BenchmarkConfig) -> str | None:
    """Return the row of the paper's tables that a benchmark fills: by its name, else by its kind; None if there is
    none."""
    return ALIASES.get(name, name) if name in NAMES else TITLES.get(kind_of(name, cfg))


def family(kind: str) -> ModuleType:
    """Import the module of a kind."""
    return import_module(f"evals.benchmarks.{FAMILIES[kind]}")


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
    place, title = cfg.file or f"the hub's {name}", TITLES.get(kind)
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
    title, limited = TITLES.get(kind), len(problems) == cfg.limit
    if title and len(problems) != SIZES[title]:
        why = f"limit: {cfg.limit}" if limited else "allow_size"
        return [f"{name}: {len(problems)} problems ({why}); the paper's Table 7 has {SIZES[title]}.", *own]
    return [f"{name}: the first {cfg.limit} problems of {cfg.file}.", *own] if limited and not title else own
