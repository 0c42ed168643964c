"""Small training data for tests: sums, with chains of different length."""

import random


def sums(n=12, seed=0):
    """n small problems with three chains of different length each: (id, prompt messages, r*, r, r~, answer)."""
    rng = random.Random(seed)
    for i in range(n):
        a, b = rng.randint(2, 99), rng.randint(2, 99)
        suitable = f"{a} + {b // 10 * 10} = {a + b // 10 * 10}. {a + b // 10 * 10} + {b % 10} = {a + b}."
        prompt = [{"role": "user", "content": f"What is {a} + {b}?"}]
        yield f"p{i}", prompt, suitable, f"{a} + {b} = {a + b}.", f"{a} + {b} = {a + b + 3}.", str(a + b)


def sft_rows(n=12, seed=0):
    return [
        {"id": pid, "messages": [*prompt, {"role": "assistant", "content": f"{good}\n\nThe final answer is {answer}."}]}
        for pid, prompt, good, _, _, answer in sums(n, seed)
    ]


def pair_rows(n=12, seed=0):
    """Every third problem is of level medium (one pair), the others have three."""
    from data.pairs import make_pairs

    rows = []
    for i, (pid, prompt, good, terse, wrong, _) in enumerate(sums(n, seed)):
        if i % 3 == 0:
            rows += make_pairs(pid, prompt, "medium", good, wrong)
        else:
            rows += make_pairs(pid, prompt, "easy", terse, wrong, rewritten=good)
    return rows
