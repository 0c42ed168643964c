"""Grade every response that is there and has no grade by its grader as it is now.

No version is kept by hand: what stands for the grader in a grade's key is a hash of its own files (`grader_id`).
"""

import ast
import functools
import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

import grading
from evals.benchmarks import family, runs_programs
from evals.benchmarks.common import Problem
from evals.questions import Question
from evals.store import Ledgers, key_of
from grading import Grade
from grading.programs import isolation
from progress import Progress

UNANSWERED = ("refused", "filtered")  # finish_reason of a question that the server would not answer


def grade_keys(questions: list[Question]) -> dict[tuple[str, Problem], str]:
    """Return {(generation's key, problem): its grade's key}: a hash of the response, the right answer and the grader.

    Two problems with one prompt share the response; each has its own grade.
    """
    rules = {}  # problem -> what its grade depends on beside the response
    for problem in dict.fromkeys(question.problem for question in questions):
        # options, tolerance, the content of tests; not where the tests lie
        extra = {key: value for key, value in problem.extra.items() if key != "tests"}
        rules[problem] = {
            "answer": problem.gold,
            "extra": hashlib.sha256(json.dumps(extra, sort_keys=True).encode()).hexdigest()[:32],
            "grader": grader_id(problem.kind),
        }
    return {(q.key, q.problem): key_of(generation=q.key, **rules[q.problem]) for q in questions if q.key}


@functools.cache
def grader_id(kind: str) -> str:
    """Return a hash of all that decides a verdict on this kind of benchmark: the module of its family, what that module
    reaches in grading/, the versions of the packages that those files import, and for programs the interpreter's."""
    room = Path(grading.__file__).parent
    rooms = {path.stem for path in room.parent.iterdir() if path.is_dir() or path.suffix == ".py"}
    scripts = {file.name for file in room.glob("*.py")}
    digests, packages, waiting = {}, {}, [Path(family(kind).__file__)]
    while waiting:
        file = waiting.pop()
        if file.name in digests:
            continue
        source = file.read_bytes()
        digests[file.name] = hashlib.sha256(source).hexdigest()
        for node in ast.walk(ast.parse(source)):
            # a script that is run as a process of its own is not imported: its file's name stands in the source
            if isinstance(node, ast.Constant) and node.value in scripts:
                waiting.append(room / node.value)
            for name in _imported(node):
                top, _, module = name.partition(".")
                if top == grading.__name__:
                    waiting += [room / script for script in {f"{module or '__init__'}.py"} & scripts]
                elif file.parent == room and top not in rooms | sys.stdlib_module_names:
                    packages[top] = version(top)
    python = sys.version_info[:2] if runs_programs(kind) else None
    return key_of(files=digests, packages=packages, python=python)


def _imported(node: ast.AST) -> list[str]:
    """Names that an import statement may load, modules and what is taken from them alike; none of another statement."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def outdated(keys: dict, generations: Ledgers, grades: Ledgers) -> int:
    """Return how many responses have a grade, and none by the grader as it is now."""
    missing = {key for (key, problem), graded in keys.items() if key in generations and graded not in grades}
    return len(missing & {grade["generation"] for grade in grades})


def grade_missing(questions: list[Question], generations: Ledgers, grades: Ledgers, keys: dict) -> None:
    """Grade and append what has no grade yet, each as soon as it is known. keys: of `grade_keys`."""
    # what there is to grade
    answered = [question for question in questions if question.key in generations]
    todo = {key: q for q in answered if (key := keys[q.key, q.problem]) not in grades}
    if not todo:
        return

    # a question that the server would not answer needs no grader
    def grade(question):
        made, problem = generations[question.key], question.problem
        if made["finish_reason"] in UNANSWERED:
            return Grade("no_answer", None, made["detail"])
        return family(problem.kind).grade(problem, made["text"], made["finish_reason"] == "stop")

    # threads only wait: comparing and running programs is done in processes of their own
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(len(todo), "grade", unit="answers") as bar:
        running = {pool.submit(grade, question): key for key, question in todo.items()}
        try:
            for future in as_completed(running):
                key, verdict = running[future], future.result()
                problem = todo[key].problem
                record = {
                    "key": key,
                    "generation": todo[key].key,
                    "benchmark": problem.benchmark,
                    "problem_id": problem.id,
                    "sample": todo[key].sample,
                    "grader": grader_id(problem.kind),
                    **vars(verdict),
                }
                if runs_programs(problem.kind):
                    record["isolation"] = isolation()
                grades.append(record, problem.private)
                bar.update(1)
        except BaseException:  # what is not begun is not waited for, after Ctrl-C above all
            pool.shutdown(wait=False, cancel_futures=True)
            raise
