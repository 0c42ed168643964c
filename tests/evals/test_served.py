"""What a reply keeps of a thought, and when two names are of one model. evaluate.py's tests do the rest over HTTP."""

import pytest

from agents.replies import read_reply
from evals.served import same_model
from tests.support.scripted_endpoint import reply


@pytest.mark.parametrize(
    ("given", "prefilled", "whole"),
    [
        (reply("4"), False, "4"),
        (reply("4", reasoning="2+2"), False, "<think>2+2</think>4"),
        (reply("4", reasoning_content="2+2"), False, "<think>2+2</think>4"),
        (reply("<think>2+2</think>4"), False, "<think>2+2</think>4"),
        (reply("2+2</think>4"), False, "<think>2+2</think>4"),
        (reply("2+2</think>4"), True, "<think>2+2</think>4"),
        (reply("2+2 is \\boxed{4}, or", finish="length"), True, "<think>2+2 is \\boxed{4}, or"),
        (reply("2+2 is \\boxed{4}, or", finish="length"), False, "2+2 is \\boxed{4}, or"),
        (reply(None, finish="length", reasoning="2+2 is"), False, "<think>2+2 is"),
        (reply("it is", finish="length", reasoning="2+2"), False, "<think>2+2</think>it is"),
        (reply(None, reasoning="2+2"), False, "<think>2+2</think>"),
        (reply(""), True, ""),
    ],
)
def test_all_that_was_generated_is_kept(given, prefilled, whole):
    assert read_reply(given, prefilled=prefilled).whole == whole


@pytest.mark.parametrize(
    ("asked", "other", "same"),
    [
        ("m", "m", True),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b-instruct", True),
        ("llama3", "llama3:latest", True),
        ("/models/student", "/models/student@main", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("Qwen2.5-7B-Instruct", "Qwen2.5-7B-Instruct-AWQ", False),
        ("out/sft_7b/model", "out/cogpo_7b/model", False),
        ("a/model", "b/model", False),
        ("m", "other", False),
    ],
)
def test_names_of_one_model(asked, other, same):
    assert same_model(asked, other) is same_model(other, asked) is same
