"""Where the thought of a response ends."""

import pytest

from evals.chains import thought
from grading.extraction import split_thought


@pytest.mark.parametrize(
    "text,parts,chain",
    [
        ("just an answer ", ("", "just an answer "), "just an answer"),
        ("<think>\na b</think>\n\\boxed{1}", ("a b", "\n\\boxed{1}"), "a b"),
        ("a b</think>c", ("a b", "c"), "a b"),  # the prompt opened it
        ("<|begin_of_thought|>a<|end_of_thought|>c", ("a", "c"), "a"),
        ("<think>a</think>b</think>c", ("ab", "c"), "ab"),
        ("<think>never ends", ("never ends", None), "never ends"),
        ("a thought alone</think>", ("a thought alone", ""), "a thought alone"),
        ("<think>\n</think>none", ("", "none"), "none"),
    ],
)
def test_split_thought(text, parts, chain):
    assert split_thought(text) == parts
    assert thought(text) == chain
