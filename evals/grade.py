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
from evals.store import key_of
from grading import Grade
from grading.programs import isolation
from progress import Progress

UNANSWERED = ("refused", "filtered")  # finish_reason of a question that the server would not answer


def grade_keys(wanted):
    """{(generation's key, problem): its grade's key}, which covers the response, the right answer and the grader.

    Two problems with one prompt share the response; each has its own grade.
    """
    rules = {}  # problem -> what its grade depends on beside the response
    for want in wanted:
        if want.problem not in rules:
            # options, tolerance, the content of tests; not where the tests lie
            extra = {key: value for key, value in want.problem.extra.items() if key != "tests"}
            extra = json.dumps(extra, sort_keys=True).encode()
            rules[want.problem] = {
                "answer": want.problem.gold,
                "extra": hashlib.sha256(extra).hexdigest()[:32],
                "grader": grader_id(want.problem.extra["kind"]),
            }
    return {(want.key, want.problem): key_of(generation=want.key, **rules[want.problem]) for want in wanted if want.key}


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


def outdated(keys: dict, generations, grades) -> int:
    """Return how many responses have a grade, and none by the grader as it is now."""
    missing = {key for (key, problem), graded in keys.items() if key in generations and graded not in grades}
    return len(missing & {grade["generation"] for grade in grades})


def grade_missing(wanted, generations, grades, keys):
    """Grade and append what has no grade yet, each as soon as it is known. keys: of `grade_keys`."""
    there = [want for want in wanted if want.key in generations]
    todo = {key: want for want in there if (key := keys[want.key, want.problem]) not in grades}

    def grade(want):
        made = generations[want.key]
        if made["finish_reason"] in UNANSWERED:
            return Grade("no_answer", None, made["detail"])
        return family(want.problem.extra["kind"]).grade(want.problem, made["text"], made["finish_reason"] == "stop")

    if not todo:
        return
    # threads only wait: comparing and running programs is done in processes of their own
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(len(todo), "grade", unit="answers") as bar:
        running = {pool.submit(grade, want): key for key, want in todo.items()}
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
                    "grader": grader_id(problem.extra["kind"]),
                    "status": verdict.status,
                    "extracted": verdict.extracted,
                    "detail": verdict.detail,
                }
                if runs_programs(problem.extra["kind"]):
                    record["isolation"] = isolation()
                grades.append(record, problem.private)
                bar.update(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
