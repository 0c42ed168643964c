"""Mathematics with one final answer: AIME 2024 (30), MATH-500 (500), GSM8K (1319), and `local`, a file of your own.

Data. AIME 2024: the dataset of the paper's footnote 11. MATH-500: the `answer` column, which is the last box of the
solution. GSM8K: the number after `####`. local: {"id", "problem", "answer", …}, as reasoning-gym's are stored here.

Asked. `paper`: SkyThought's templates, the harness that the paper's numbers point to (n = 1, its zero-shot row is close
to SkyThought's own of the same model): the instruction before the problem, and for GSM8K a closing sentence instead of
a box. `r1`: the sentence that DeepSeek-R1's model card advises for mathematics, after the problem. local: as it stands.

Graded by grading/answers.py on what follows the thought: integers first (AIME's 073 is 73), then mathematical equality.
Stricter than SkyThought, which takes 100 times the answer as right, and more lenient than its text comparison of GSM8K.
"""

import re

from errors import UserError
from evals.benchmarks import common
from evals.benchmarks.common import BenchmarkConfig, Problem
from grading import Grade, answers


def load(kind: str, name: str, cfg: BenchmarkConfig) -> list[Problem]:
    def parse(number, texts, row, where):
        gold = solution_end(texts["gold"], where) if kind == "gsm8k" else texts["gold"]
        return Problem(name, texts.get("id", str(number)), texts["question"], gold)

    return common.read(kind, name, cfg, parse)


def solution_end(solution: str, where: str) -> str:
    """Return the number after `####`: "… <<16-3-4=9>>9 … #### 1,234" -> "1234" """
    match = re.search(r"####\s*(-?[\d.,]+)\s*$", solution)
    if not match:
        raise UserError(f"{where}: answer must end with a line `#### number`")
    return match[1].replace(",", "")


def grade(problem: Problem, text: str, finished: bool) -> Grade:
    return answers.grade(text, problem.gold, finished)
