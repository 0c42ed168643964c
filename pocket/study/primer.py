"""What the micro student of the pocket study learns before the study: single steps of arithmetic, and counting.

    python -m pocket.study.primer out=out/study/student/primer.jsonl

A model trained from scratch knows nothing. From these sheets it learns what a pretrained one knows: to read numbers,
to add, subtract and multiply in one step, to split a number, how many legs an animal has, and the form of a final
answer. No sheet holds a problem of the study's tasks. A third are exercises that have nothing to do with one another, a
third want their results repeated at the end, a third count up or down. Records are sft.jsonl's (data/records.py).

    Do: 345+87; 27 in tens and ones; legs of crabs; 12*9; results        Count from 345 by 87, 3 times
    345+87=432                                                           345+87=432
    27=20+7                                                              432+87=519
    crabs: 10                                                            519+87=606
    12*9=108
    Results: 432, 7, 10, 108

    The final answer is \\boxed{108}.                                     The final answer is \\boxed{606}.
"""

import random
from dataclasses import dataclass
from functools import partial

from config import run_cli
from data.records import write_jsonl
from data.render import boxed_solution, prompt_messages, response_text
from values import Count, FilePath, Seed


@dataclass
class PrimerConfig:
    out: FilePath
    """file to write"""
    sheets: Count = 80_000
    """number of sheets, one record each"""
    most: Count = 6
    """most exercises or steps on a sheet"""
    seed: Seed = 0
    """which exercises"""


def main(cfg: PrimerConfig) -> None:
    """Write the sheets."""
    rng = random.Random(f"primer {cfg.seed}")
    write_jsonl(cfg.out, (sheet(f"primer-{i}", rng, rng.randint(1, cfg.most)) for i in range(cfg.sheets)))


def sheet(id: str, rng: random.Random, length: int) -> dict:
    """Make an sft record of `length` lines; the last line's result is the final answer."""
    asked, lines, result = rng.choice([exercises, partial(exercises, recall=True), counting])(rng, length)
    response = response_text("\n".join(lines), boxed_solution(result), "plain")
    return {"id": id, "messages": [*prompt_messages(asked), {"role": "assistant", "content": response}]}


# --- kinds of sheets: (what is asked, lines, result) ---


def counting(rng: random.Random, length: int) -> tuple[str, list[str], int]:
    """Add or take away the same number several times."""
    value, step = _size(rng), rng.choice([1, 1, -1]) * rng.choice([rng.randint(1, 99), _size(rng)])
    asked, lines = f"Count from {value} by {step}, {length} times", []
    for _ in range(length):
        lines.append(f"{value}{step:+d}={value + step}")
        value += step
    return asked, lines, value


def exercises(rng: random.Random, length: int, recall: bool = False) -> tuple[str, list[str], int]:
    """Take single steps that have nothing to do with one another. recall: and repeat their results at the end."""
    asked, lines, results = zip(*(exercise(rng) for _ in range(length)), strict=True)
    if recall:
        asked, lines = (*asked, "results"), (*lines, f"Results: {', '.join(map(str, results))}")
    return "Do: " + "; ".join(asked), lines, results[-1]


def exercise(rng: random.Random) -> tuple[str, str, int]:
    """Draw one step: (how it is asked, the line that does it, its result)."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS  # here, so that --help answers at once

    kind = rng.choices(["sum", "difference", "product", "split", "legs"], [4, 4, 6, 1, 2])[0]
    if kind == "legs":
        animal, legs = rng.choice(list(ANIMALS.items()))
        return f"legs of {animal}s", f"{animal}s: {legs}", legs  # plurals as reasoning-gym writes them
    if kind == "split":
        a = rng.randint(11, 99)
        return f"{a} in tens and ones", f"{a}={a - a % 10}+{a % 10}", a % 10
    if kind == "product":
        a, b = _factors(rng)
        text, value = f"{a}*{b}", a * b
    else:
        a, b = _size(rng), _size(rng)
        text, value = (f"{a}+{b}", a + b) if kind == "sum" else (f"{a}-{b}", a - b)
    return text, f"{text}={value}", value


def _size(rng):
    """Draw a whole number of one to three digits, mostly two or three."""
    return rng.randint(0, rng.choices([9, 99, 999], [1, 4, 4])[0])


def _factors(rng):
    """Draw a digit or a multiple of ten, and a number to multiply it with in one step; in either order."""
    pair = rng.choice(
        [
            (rng.randint(0, 10), rng.randint(0, 15)),
            (rng.randint(0, 9), rng.randint(1, 9) * 10),
            (rng.randint(2, 9), rng.randint(1, 99) * 10),
        ]
    )
    return rng.sample(pair, 2)


if __name__ == "__main__":
    run_cli(main, PrimerConfig, __doc__)
