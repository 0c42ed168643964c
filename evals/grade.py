"""Grading: every response that is there and has no grade by this version of its family's grader."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed

from evals.benchmarks import family, runs_programs
from evals.store import key_of
from grading.answers import Grade
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
                "grader": grader(want.problem).VERSION,
            }
    return {(want.key, want.problem): key_of(generation=want.key, **rules[want.problem]) for want in wanted if want.key}


def grader(problem):
    """The module of its family."""
    return family(problem.extra["kind"])


def grade_missing(wanted, generations, grades, keys):
    """Grade and append what has no grade yet, each as soon as it is known. keys: of `grade_keys`."""
    there = [want for want in wanted if want.key in generations]
    todo = {key: want for want in there if (key := keys[want.key, want.problem]) not in grades}

    def grade(want):
        made = generations[want.key]
        if made["finish_reason"] in UNANSWERED:
            return Grade("no_answer", None, made["detail"])
        return grader(want.problem).grade(want.problem, made["text"], made["finish_reason"] == "stop")

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
                    "grader": grader(problem).VERSION,
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
