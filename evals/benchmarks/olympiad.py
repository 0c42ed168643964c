"""OlympiadBench, mathematics in English, text only: 674 problems in Table 7, open-ended, one or several answers.

Data. `final_answer` is a list of one text, in which several answers stand separated by commas; `error` is the absolute
tolerance where there is one. The first public file has 675 problems, the release on the hub one fewer.

Asked. `paper`: SkyThought's template, as for the other mathematics. `r1`: OlympiadBench's own prompt, with its sentence
on the type of the answer and, where there are several, how to write them; "tuple" is never said, as its authors found
that it confuses.

Graded by grading/answers.py: several answers in any order, all of them and no other; the tolerance for each. Where a
response boxes several answers one by one, the boxes together are the answer (the rule of OlympiadBench's own judge).
"""

import re

from errors import UserError
from evals.benchmarks import common
from evals.benchmarks.common import BenchmarkConfig, Problem
from grading import Grade, answers
from grading.extraction import extract_boxes, strip_thought

TYPES = {
    "Numerical": "a numerical value",
    "Expression": "an expression",
    "Equation": "an equation",
    "Interval": "an interval",
}
MOST_BOXES = 30  # of one response; what repeats itself ten thousand times is not read to the end


def load(kind: str, name: str, cfg: BenchmarkConfig) -> list[Problem]:
    """Read all problems, each with the type, number, unit and tolerance of its answer. Raises UserError."""

    def parse(number, texts, row, where):
        extra = {
            "type": texts["type"],
            "multiple": row.get("is_multiple_answer"),
            "unit": row.get("unit") or "",
            "tolerance": tolerance(row.get("error"), where),
        }
        if not isinstance(extra["multiple"], bool):
            raise UserError(f"{where}: a test problem needs is_multiple_answer, true or false")
        return Problem(name, texts["id"], texts["question"], gold(row.get("final_answer"), where), extra=extra)

    return common.read(kind, name, cfg, parse)


def gold(final_answer: object, where: str) -> str:
    r"""Return the answers as one formula, ["$69$,$84$"] -> "69,84": the delimiters of a dozen golds are not
    balanced."""
    if not (isinstance(final_answer, list) and len(final_answer) == 1):
        raise UserError(f"{where}: a test problem needs final_answer, a list of one text")
    answer = common.text({"final_answer": final_answer[0]}, ("final_answer",), where)
    return re.sub(r"(?<!\\)\$", "", answer).strip().rstrip(".").strip()


def tolerance(error: object, where: str) -> float | list[float] | None:
    """Read "1e-1" as 0.1; "1e-1,1e-2" as [0.1, 0.01], one for each answer; None or empty as None, exact."""
    if error is None or error == "":
        return None
    try:
        values = [float(part) for part in str(error).split(",")]
    except ValueError:
        raise UserError(f"{where}: error must be a number, or numbers separated by commas") from None
    return values if len(values) > 1 else values[0]


def instruction(problem: Problem, prompt: str) -> str:
    """Fill in what OlympiadBench's own prompt says of the answer."""
    multiple, unit = problem.extra["multiple"], problem.extra["unit"]
    kinds = list(dict.fromkeys(TYPES.get(part.strip()) for part in problem.extra["type"].split(",")))
    if None in kinds:
        sentence = ""
    elif not multiple:
        sentence = f"The answer of The problem should be {kinds[0]}. "  # sic
    elif len(kinds) == 1:
        sentence = f"The problem has multiple answers, each of them should be {kinds[0]}. "
    else:
        sentence = f"The problem has multiple answers, with the answers in order being {', '.join(kinds)}. "
    box = "\\boxed{multiple answers connected with commas}" if multiple else "\\boxed{answer}"
    fields = {
        "{type}": sentence,
        "{box}": box + ("(unit)" if unit else ""),
        "{unit}": ", note that the unit of the answer should not be included in \\boxed{}" if unit else "",
    }
    return re.sub("|".join(fields), lambda match: fields[match.group()], prompt)


def grade(problem: Problem, text: str, finished: bool) -> Grade:
    """Grade the answer of a response; where several are wanted and it is not right, all its boxes together."""
    percent = "\\%" * (problem.extra["unit"].strip("\\$ ") == "%" and "%" not in problem.gold)
    gold = problem.gold + percent  # with or without the sign, it is the same answer
    verdict = answers.grade(text, gold, finished, problem.extra["tolerance"])
    if verdict.status not in ("wrong", "error") or not problem.extra["multiple"]:
        return verdict
    together = extract_boxes(strip_thought(text), MOST_BOXES)
    if len(together) < 2:
        return verdict
    joined = ", ".join(together)
    if joined == verdict.extracted:
        return verdict
    outcome = answers.compare(joined, gold, problem.extra["tolerance"])
    if outcome == "different":
        return verdict
    return Grade("correct" if outcome == "equal" else outcome, joined, f"all {len(together)} boxes together")
