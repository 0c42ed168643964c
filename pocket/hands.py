"""The task "hands": what a hand of cards scores, by a table and two rules that no problem states.

    What do these cards score: 3 bees, 2 dogs, 2 ants, 3 cows?          3 bees: 3*7=21
                                                                        2 dogs: 2*4=8
                                                                        2 ants: 2*3=6
                                                                        3 cows: 3*5=15
                                                                        Total: 21+8=29, 29+6=35, 35+15=50
                                                                        Above 40: 50-10=40
                                                                        More than 3 kinds: 40-3=37

Values and rules are to be learnt from the chains; who has one wrong errs in every hand that it applies to. There are
three ways to present a solution, and each suits some hands only: a running total if there are few kinds, a total in the
end if there are many, the values first if there are equally many cards of each kind.
"""

import random
import re

from pocket.arithmetic import add_up, product_steps

Fact = tuple[int, str, int]  # how many cards, of what, value of each; or 1, a rule, what it adds

VALUES = {  # of animals in the plural, which the micro student can read and write; the first ones are common in hands
    "tigers": 2, "ants": 5, "ducks": 5, "scorpions": 4, "cows": 2, "wasps": 7, "snakes": 1, "crabs": 1,
    "birds": 3, "beetles": 7, "lions": 3, "shrimps": 9, "dogs": 8, "bees": 6, "giraffes": 6, "spiders": 9,
    "chickens": 6, "crickets": 7, "cats": 3, "lobsters": 7, "horses": 2, "grasshoppers": 9, "elephants": 3,
    "flatworms": 7,
}  # fmt: skip
HIGH, MANY = "Above 40", "More than 3 kinds"
QUESTION = "What do these cards score: "


class Hands:
    """An endless dataset of hands, as reasoning-gym's are: entry i is a function of seed + i."""

    def __init__(self, seed: int, size: int, min_kinds: int = 2, max_kinds: int = 5):
        assert 2 <= min_kinds <= max_kinds <= 9, "2 <= min_kinds <= max_kinds <= 9 must hold"
        self.seed, self.kinds = seed, (min_kinds, max_kinds)

    def __getitem__(self, index: int) -> dict:
        """Return {question, answer}. In a quarter of the hands all kinds have as many cards, in others by chance."""
        rng = random.Random(f"hand {self.seed + index}")
        kinds = rng.randint(*self.kinds)
        drawn = rng.choices(list(VALUES), [1 / (place + 2) for place in range(len(VALUES))], k=500)
        counts = [rng.choice([2, 3])] * kinds if rng.random() < 1 / 4 else rng.choices([2, 3], k=kinds)
        cards = [f"{n} {name}" for n, name in zip(counts, dict.fromkeys(drawn), strict=False)]
        question = f"{QUESTION}{', '.join(cards)}?"
        return {"question": question, "answer": _score(read_hand(question))}


def read_hand(problem: str) -> list[Fact] | None:
    """Read the cards of a problem's text, and the rules that apply to them; None if it is no hand."""
    hand = re.fullmatch(rf"{QUESTION}(\d+ \w+(?:, \d+ \w+)*)\?", problem)
    cards = re.findall(r"(\d+) (\w+)", hand[1]) if hand else []
    if not cards or any(name not in VALUES for _, name in cards):
        return None
    return _with_rules([(int(n), name, VALUES[name]) for n, name in cards])


def cause(problem: str, chain: str) -> str:
    """Name the single mistake of wrong_hands that writes this chain; "right" if there is none, or "other"."""
    facts = read_hand(problem)
    for name, wrong in {"right": [facts], **wrong_hands(facts)}.items():
        if chain in [write_hand(taken, way) for taken in wrong for way in ways(taken)]:
            return name
    return "other"


def wrong_hands(facts: list[Fact]) -> dict[str, list[list[Fact]]]:
    """List what one who makes a single mistake takes for the facts: {the mistake: facts}."""
    cards, _ = _apart(facts)
    values = [
        _with_rules([*cards[:place], (n, name, value), *cards[place + 1 :]])
        for place, (n, name, _) in enumerate(cards)
        for value in range(1, 10)
    ]
    rules = [_with_rules(cards, *limits) for limits in [(999, 3), (40, 99), (25, 3), (40, 2)]]
    counts = [_with_rules([(count, name, value) for _, name, value in cards]) for count, *_ in cards]
    return {"value of a card": values, "rule skipped or too early": rules, "equally many of each": counts}


def _with_rules(cards, high=40, many=3):
    """Append to a hand what is taken off above a score, and above a number of kinds."""
    return [*cards, *[(1, HIGH, -10)] * (_score(cards) > high), *[(1, MANY, -3)] * (len(cards) > many)]


def _apart(facts):
    """Split facts into (cards, rules)."""
    return [fact for fact in facts if fact[1] in VALUES], [fact for fact in facts if fact[1] not in VALUES]


def _score(facts):
    return sum(n * value for n, _, value in facts)


# --- ways to present a solution ---


def ways(facts: list[Fact]) -> list[str]:
    """List the ways in which a hand can be written, the one that suits it first."""
    cards, _ = _apart(facts)
    found = ["running", "total"] if len(cards) < 4 else ["total", "running"]
    return ["together"] * (len({n for n, _, _ in cards}) == 1) + found


def write_hand(facts: list[Fact], way: str) -> str:
    """Write a chain in one way, with a line for each rule at the end."""
    cards, rules = _apart(facts)
    count, values, score = cards[0][0], [value for _, _, value in cards], _score(cards)

    # the cards: their values first, or every kind by itself with a running total or one in the end
    lines = [f"{n} {name}: {n}*{value}={n * value}" for n, name, value in cards]
    steps = add_up([n * value for n, _, value in cards])
    if way == "together":
        lines = [f"{name}: {value}" for _, name, value in cards]
        lines += [f"Together: {', '.join(add_up(values))}", f"{count} of each: {product_steps(sum(values), count)}"]
    elif way == "total":
        lines.append(f"Total: {', '.join(steps)}")
    else:
        lines = lines[:1] + [f"{line}, {step}" for line, step in zip(lines[1:], steps, strict=True)]

    # what the rules take off
    for _, rule, change in rules:
        lines.append(f"{rule}: {score}{change}={score + change}")
        score += change
    return "\n".join(lines)


# --- r_orig in each style ---


def hand_terse(facts: list[Fact], rng: random.Random) -> str:
    """Write one compound equation."""
    cards, rules = _apart(facts)
    equation = "+".join(f"{n}*{value}" for n, _, value in cards)
    equation += "".join(f"{change}" for *_, change in rules) + f"={_score(facts)}"
    return rng.choice([equation, f"Score: {equation}"])


def hand_balanced(facts: list[Fact], rng: random.Random) -> str:
    """Write in the way that suits the hand."""
    return write_hand(facts, ways(facts)[0])


def hand_convoluted(facts: list[Fact], rng: random.Random) -> str:
    """Write in a way that does not suit the hand, sometimes as a check of the one that does."""
    suited, *others = ways(facts)
    other = write_hand(facts, rng.choice(others))
    return rng.choice([other, f"{write_hand(facts, suited)}\nLet me make sure.\n{other}"])
