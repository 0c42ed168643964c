"""Problems with one final answer each, from a file of your own: {"id", "problem", "answer", …}.

This is the format that reasoning-gym's test problems are stored in, and any mathematics benchmark fits it. Asked as it
stands under every protocol: set `instruction` to the template of training. Graded by grading/answers.py.
"""

from evals.benchmarks import common
from evals.benchmarks.common import Source
from evals.problem import Problem
from grading import answers

KINDS = {"local": Source("", None, "", {"id": ("id",), "question": ("problem",), "gold": ("answer",)})}


def load(kind, name, cfg):
    def parse(number, texts, row, where):
        return Problem(name, texts["id"], texts["question"], texts["gold"])

    return common.read(KINDS[kind], name, cfg, parse)


def instruction(problem, protocol):
    return "{problem}"


def grade(problem, text, finished):
    return answers.grade(text, problem.gold, finished)
