"""The pocket run's problems, from the PyPI library reasoning-gym, with original reasoning of mixed verbosity.

    python -m pocket.problems --config configs/pocket/problems.yaml

Writes `problems.jsonl` (problem records: x, y and r_orig) and `test.jsonl` ({"id", "problem", "answer", "task"}).

r_orig stands in for what large models write about such problems (§3.2): some of it terse, one compound equation; some
balanced, small steps and running totals; some convoluted, with a roundabout method, needless algebra and checks. All of
it is correct. Nothing in the files says which is which: that is for the Critic to find out. The response's last line,
the answer in a box, is not part of r_orig; data/render.py adds it.

Train and test problems come from disjoint seeds, and no test problem's text occurs in training: both are checked.
"""

import hashlib
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

from config import run_cli
from data.records import write_jsonl
from data.rows import iter_rows
from errors import UserError
from pocket.arithmetic import add_up, product_steps
from pocket.hands import Hands, hand_balanced, hand_convoluted, hand_terse, read_hand
from values import Count, FilePath, NotNegative, Seed, Whole

SPAN = 100_000  # reasoning-gym seeds problem i of a dataset with seed + i, so neighbouring seeds share problems
Animal = tuple[int, str, int]  # how many, what, legs of each


@dataclass
class TaskConfig:
    """One task in the mixture."""

    weight: NotNegative = 1.0
    """Share of the problems, relative to the other tasks' weights."""
    params: dict[str, Whole] = field(default_factory=dict)
    """Passed to reasoning_gym.create_dataset; of hands, to pocket.hands.Hands."""


@dataclass
class StyleShares:
    """How much of r_orig is written in which style; relative weights."""

    terse: NotNegative = 0.35
    """One compound equation."""
    balanced: NotNegative = 0.30
    """Small steps, products split into tens and ones, running totals."""
    convoluted: NotNegative = 0.35
    """A roundabout method, needless algebra, repeated checks; the direct way somewhere among them."""


@dataclass
class PocketConfig:
    out: FilePath = "out/pocket"
    """Folder of problems.jsonl and test.jsonl."""
    train_problems: Count = 192
    """Number of training problems, all tasks together."""
    test_problems: Count = 96
    """Number of test problems, all tasks together."""
    seed: Seed = 0
    """Which training problems, and the style of each one's reasoning."""
    test_seed: Seed = 1
    """Which test problems; must differ from seed."""
    avoid: list[FilePath] = field(default_factory=list)
    """Files of problems that are left out, such as the test problems of another seed."""
    tasks: Annotated[dict[str, TaskConfig], "filled"] = field(
        default_factory=lambda: {"leg_counting": TaskConfig(params={"min_animals": 2, "max_animals": 4})}
    )
    """The mixture: leg_counting, chain_sum, products, hands."""
    styles: StyleShares = field(default_factory=StyleShares)
    """Verbosity of the original reasoning."""


def main(cfg: PocketConfig) -> None:
    """Write problems.jsonl and test.jsonl."""
    train, test = build(cfg)
    out = Path(cfg.out)
    write_jsonl(out / "test.jsonl", test)
    write_jsonl(out / "problems.jsonl", train)
    print(f"{len(train)} training and {len(test)} test problems: {out}/problems.jsonl, {out}/test.jsonl")


def build(cfg: PocketConfig) -> tuple[list[dict], list[dict]]:
    """Make (train, test), lists of records; a pure function of the config. Raises UserError for tasks or seeds that
    cannot be used."""
    if cfg.seed == cfg.test_seed:
        raise UserError(
            f"seed and test_seed are both {cfg.seed}: training and test problems must come from different seeds"
        )
    unknown = [name for name in cfg.tasks if name not in WRITERS]
    if unknown:
        raise UserError(f"no reasoning can be written for the task {unknown[0]!r}; use {', '.join(WRITERS)}")
    for key, weights in (
        ("tasks", [task.weight for task in cfg.tasks.values()]),
        ("styles", vars(cfg.styles).values()),
    ):
        if not any(weights):
            raise UserError(f"{key}: one of the weights must be above 0")

    # the test problems first: what they say is out of bounds for training
    rng = random.Random(f"pocket {cfg.seed}")
    seen, train, test = {row["problem"] for file in cfg.avoid for _, row in iter_rows(file)}, [], []
    for name, count in _split(cfg.test_problems, {name: task.weight for name, task in cfg.tasks.items()}).items():
        for problem, _ in _draw(name, cfg.tasks[name].params, cfg.test_seed, count, seen):
            test.append({"id": _id("test", problem), **problem, "task": name})

    # the training problems, their styles dealt out in the wanted shares, then all of them shuffled
    tested = {row["problem"] for row in test}
    for name, count in _split(cfg.train_problems, {name: task.weight for name, task in cfg.tasks.items()}).items():
        styles = [style for style, share in _split(count, vars(cfg.styles)).items() for _ in range(share)]
        rng.shuffle(styles)
        for (problem, facts), style in zip(
            _draw(name, cfg.tasks[name].params, cfg.seed, count, seen), styles, strict=True
        ):
            train.append({"id": _id("train", problem), **problem, "reasoning": WRITERS[name][style](facts, rng)})
    rng.shuffle(train)
    overlap = tested & {row["problem"] for row in train}
    assert not overlap, f"test problems among the training problems: {sorted(overlap)[:3]}"
    return train, test


def _split(total, weights):
    """Divide `total` into {key: count}, in proportion to the weights."""
    whole, counts, left = sum(weights.values()), {}, total
    for key, weight in weights.items():
        counts[key] = round(left * weight / whole) if whole else 0
        left, whole = left - counts[key], whole - weight
    return counts


def _draw(name, params, seed, count, seen):
    """Draw [({problem, answer}, facts)], the first `count` of a seed whose text is not in `seen`; adds the texts."""
    import reasoning_gym  # here, so that --help answers at once

    make = Hands if name == "hands" else partial(reasoning_gym.create_dataset, name)
    try:
        dataset = make(seed=seed * SPAN, size=SPAN, **params)
    except (AssertionError, TypeError) as error:  # how it refuses values, and names that it does not know
        raise UserError(f"tasks.{name}.params: {error}") from None
    drawn = []
    for index in range(SPAN):
        if len(drawn) == count:
            break
        entry = dataset[index]
        text = _question(entry["question"])
        if (found := read_facts(text)) and text not in seen:
            seen.add(text)
            drawn.append(({"problem": text, "answer": str(entry["answer"])}, found[1]))
    if len(drawn) < count:
        raise UserError(f"{name} has only {len(drawn)} different problems with {params}; {count} are needed")
    return drawn


def _question(text):
    """Return the question itself, without the introduction that is the same for all problems of a task."""
    text = text.strip().split("\n\n")[-1].removeprefix("Now, ")
    text = text.removesuffix(" Give only the result as your final answer.")  # reasoning is what is asked for here
    return text[0].upper() + text[1:]


def _id(kind, problem):
    return f"{kind}-{hashlib.sha256(problem['problem'].encode()).hexdigest()[:10]}"


def read_facts(problem: str) -> tuple[str, list] | None:
    """Read (task, facts) out of a problem's text: its animals, signed terms, factors or cards. None if it is of no
    task here, and for a product with a factor of zero, which needs no reasoning."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    if "legs" in problem:
        found = re.findall(r"(\d+) ((?:sea |praying )?[a-z]+)", problem)
        names = [name if name in ANIMALS else name.removesuffix("s") for _, name in found]
        animals = [(int(count), name, ANIMALS.get(name)) for (count, _), name in zip(found, names, strict=True)]
        return ("leg_counting", animals) if animals and all(name in ANIMALS for name in names) else None
    if listed := re.search(r": (\d+(?: [-+] \d+)*) =$", problem):
        return "chain_sum", [int(term) for term in re.sub(r"([-+]) ", r"\1", listed[1]).split()]
    if listed := re.search(r": (\d+(?: \* \d+)*)\.$", problem):
        factors = [int(factor) for factor in listed[1].split(" * ")]
        return ("products", factors) if all(factors) else None
    cards = read_hand(problem)
    return ("hands", cards) if cards else None


# --- leg_counting: r_orig in each style, from (how many, what, legs of each) ---


def _plural(count, animal):
    return f"{count} {animal}{'s' if count > 1 else ''}"  # as reasoning-gym writes it


def legs_terse(animals: list[Animal], rng: random.Random) -> str:
    """Write one compound equation."""
    equation = "+".join(f"{count}*{legs}" for count, _, legs in animals) + f"={_total(animals)}"
    return rng.choice([equation, f"Total legs: {equation}", f"Legs: {equation}."])


def legs_balanced(animals: list[Animal], rng: random.Random) -> str:
    """Write a line a kind of animal, then the running total."""
    lines = [f"{_plural(count, animal)}: {product_steps(count, legs)}" for count, animal, legs in animals]
    total = ", ".join(add_up([count * legs for count, _, legs in animals]))
    return "\n".join([*lines, f"Total: {total}"] if total else lines)


def legs_convoluted(animals: list[Animal], rng: random.Random) -> str:
    """Write a roundabout way, a doubt, the direct way, and mostly the way back."""
    roundabout = rng.choice([_legs_by_supposing, _legs_by_algebra])(animals, rng)

    # the direct way, and everything taken away again
    values = [count * legs for count, _, legs in animals]
    pieces = ", ".join(f"{count}*{legs}={count * legs}" for count, _, legs in animals)
    check = f"Piece by piece: {pieces}. Then {', '.join(add_up(values))}."
    undo, rest = [], _total(animals)
    for value in reversed(values):
        undo.append(f"{rest}-{value}={rest - value}")
        rest -= value
    undo = f"Taking them away again: {', '.join(undo)}, nothing is left."
    doubts = rng.choice(["Hmm, is that right? ", "Wait, let me check it another way. ", "Let me make sure. "])
    return f"{roundabout} {doubts}{check} {undo if len(animals) < 4 else ''}".strip() + f" So it is {_total(animals)}."


def _legs_by_supposing(animals, rng):
    """Suppose that all have the same number of legs, and correct it animal by animal."""
    most = max(legs for _, _, legs in animals)
    heads = sum(count for count, _, _ in animals)
    text = (
        f"Let me suppose that all {'+'.join(str(count) for count, _, _ in animals)}={heads} animals have {most} legs: "
    )
    left = heads * most
    text += f"{heads}*{most}={left}."
    for count, animal, legs in animals:
        if legs < most:
            gap, excess = most - legs, count * (most - legs)
            text += f" But a {animal} has {legs}, so {count}*{gap}={excess} too many: {left}-{excess}={left - excess}."
            left -= excess
    return text


def _legs_by_algebra(animals, rng):
    """Introduce a letter for everything before anything is computed."""
    letters = "abcdefgh"[: len(animals)]
    general = "+".join(f"{count}{letter}" for (count, _, _), letter in zip(animals, letters, strict=True))
    known = ", ".join(f"{letter}={legs}" for (_, _, legs), letter in zip(animals, letters, strict=True))
    equation = "+".join(f"{count}*{legs}" for count, _, legs in animals)
    return (
        f"Let T be the total and {', '.join(letters)} the legs of one of each kind. Then T={general}, that is "
        f"T-{general.replace('+', '-')}=0. Here {known}. Inserting: T={equation}={_total(animals)}."
    )


def _total(animals):
    return sum(count * legs for count, _, legs in animals)


# --- chain_sum: from signed terms ---


def sum_terse(terms: list[int], rng: random.Random) -> str:
    """Write one equation."""
    return f"{_chain(terms)}={sum(terms)}"


def sum_balanced(terms: list[int], rng: random.Random) -> str:
    """Write the running total, a step a line."""
    return "\n".join(add_up(terms))


def sum_convoluted(terms: list[int], rng: random.Random) -> str:
    """Write needless algebra, what is added and taken away apart, the direct way as a check, and a step back."""
    plus, minus = [term for term in terms if term > 0] or [0], [-term for term in terms if term < 0]
    gained, lost = "+".join(map(str, plus)), "+".join(map(str, minus))
    text = f"Let S be the result, so S={_chain(terms)} and S-{plus[0]}={_chain(terms[1:]).lstrip('+')}. "
    text += f"What is added: {gained}={sum(plus)}. " if len(plus) > 1 else f"Only {plus[0]} counts up. "
    text += f"What is taken away: {lost}={sum(minus)}. " if len(minus) > 1 else ""
    text += f"S={sum(plus)}-{sum(minus)}={sum(terms)}. " if minus else ""
    text += f"Let me check it in the given order: {', '.join(add_up(terms))}. "
    undo = f"{sum(terms)}{-terms[-1]:+d}={sum(terms) - terms[-1]}"
    return f"{text}And back: {undo}, as before the last step. So S={sum(terms)}."


def _chain(terms):
    return "".join(f"{term:+d}" for term in terms).lstrip("+")


# --- products: from factors ---


def product_terse(factors: list[int], rng: random.Random) -> str:
    """Write one equation."""
    equation = f"{'*'.join(map(str, factors))}={math.prod(factors)}"
    return rng.choice([equation, f"Product: {equation}", f"{equation}."])


def product_balanced(factors: list[int], rng: random.Random) -> str:
    """Multiply one factor at a time, what is beyond the tables in tens and ones."""
    lines, value = [], factors[0]
    for factor in factors[1:]:
        lines.append(product_steps(value, factor))
        value *= factor
    return "\n".join(lines)


def product_convoluted(factors: list[int], rng: random.Random) -> str:
    """Introduce a letter for each factor, multiply from the back, and again from the front."""
    letters = "abcd"[: len(factors)]
    known = ", ".join(f"{letter}={factor}" for letter, factor in zip(letters, factors, strict=True))
    doubt = rng.choice(["Hmm, is that right? ", "Wait, let me check it another way. ", "Let me make sure. "])
    return (
        f"Let P be the product and {', '.join(letters)} the factors, so P={'*'.join(letters)} with {known}. "
        f"The order does not matter, so from the back: {', '.join(add_up(factors[::-1], '*'))}. "
        f"{doubt}In the given order: {', '.join(add_up(factors, '*'))}. So P={math.prod(factors)}."
    )


WRITERS: dict[str, dict[str, Callable[..., str]]] = {
    "leg_counting": {"terse": legs_terse, "balanced": legs_balanced, "convoluted": legs_convoluted},
    "chain_sum": {"terse": sum_terse, "balanced": sum_balanced, "convoluted": sum_convoluted},
    "products": {"terse": product_terse, "balanced": product_balanced, "convoluted": product_convoluted},
    "hands": {"terse": hand_terse, "balanced": hand_balanced, "convoluted": hand_convoluted},
}


if __name__ == "__main__":
    run_cli(main, PocketConfig, __doc__)
