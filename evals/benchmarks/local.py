"""Problems with one final answer each, from a file of your own: {"id", "problem", "answer", …}.

This is the format that reasoning-gym's test problems are stored in, and any mathematics benchmark fits it. Asked as it
stands under every protocol: set `instruction` to the template of training. Graded by grading/answers.py.
"""

from evals.benchmarks import common
from evals.benchmarks.common import BenchmarkConfig, Source
from evals.problem import Problem
from grading import Grade, answers

KINDS = {"local": Source("", None, "", {"id": ("id",), "question": ("problem",), "gold": ("answer",)})}


def load(kind: str, name: str, cfg: BenchmarkConfig) -> list[Problem]:
    def parse(number, texts, row, where):
        return Problem(name, texts["id"], texts["question"], texts["gold"])

    return common.read(KINDS[kind], name, cfg, parse)


def instruction(problem: Problem, protocol: str) -> str:
    return "{problem}"


def grade(problem: Problem, text: str, finished: bool) -> Grade:
    return answers.grade(text, problem.gold, finished)
