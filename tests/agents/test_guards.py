"""The answer check of chains: what a chain ends in against y, where the end is plain and where it is not."""

import asyncio

import pytest

from agents.guards import answer_check


@pytest.mark.parametrize(
    "chain,domain,expected",
    [
        ("3*4=12", "math", "agrees"),
        ("3*4=13", "math", "differs"),
        ("12 legs, or \\boxed{13}.", "math", "differs"),
        ("First 3*4.\nSo there are 12 in all, as step 2 shows.", "math", "agrees"),
        ("First 3*4.\nSo there are 13 in all, as step 2 shows.", "math", "differs"),
        ("So there are 112 in all, as step 2 shows.", "math", "differs"),
        ("12 was a guess.\nThe total is 3*5=15", "math", "differs"),
        ("Think about it.", "math", "none"),
        ("def f(): return 13", "code", "unchecked"),
    ],
)
def test_answer_check(chain, domain, expected):
    assert asyncio.run(answer_check(chain, {"answer": "12", "domain": domain})) == expected
