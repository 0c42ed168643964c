"""The mini-tasks of CogPO (§3.3.2, Fig. 3): up to three gap-tagged pairs over the three responses of a problem.

    origin of r       small β_S    medium β_M    large β_L
    easy or hard      (r*, r)      (r, r~)       (r*, r~)
    medium            –            –             (r, r~)

r* is the verified rewrite that the Critic re-rated medium, r the original reasoning, r~ the incorrect one.
"""


def make_pairs(
    problem_id: str,
    prompt: list[dict],
    level: str,
    original: str,
    incorrect: str | None,
    rewritten: str | None = None,
) -> list[dict]:
    """Make the pair records of one problem.

    prompt: messages. level: "easy", "medium" or "hard", the Critic's first verdict on r. original, incorrect,
    rewritten: assistant texts of r, r~ and r*; incorrect is None when no incorrect chain could be made (then only the
    small-gap pair remains), rewritten is None for level medium.
    """
    assert (level == "medium") == (rewritten is None), (level, rewritten)
    if level == "medium":
        tasks = [("large", original, incorrect, "med>~med")]
    else:
        tasks = [
            ("small", rewritten, original, f"{level}*>{level}"),
            ("medium", original, incorrect, f"{level}>~{level}"),
            ("large", rewritten, incorrect, f"{level}*>~{level}"),
        ]
    return [
        {
            "id": f"{problem_id}/{gap}",
            "problem_id": problem_id,
            "prompt": prompt,
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "gap": gap,
            "origin": origin,
        }
        for gap, chosen, rejected, origin in tasks
        if rejected is not None
    ]
