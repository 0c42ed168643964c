"""The two protocols: the numbers of their sources, for every kind of benchmark."""

from evals.benchmarks import FAMILIES
from evals.protocols import MAX_NEW_TOKENS, PROTOCOLS


def test_paper_is_one_greedy_response():
    p = PROTOCOLS["paper"]
    assert p == {"temperature": 0, "top_p": 1, "samples": {}} and MAX_NEW_TOKENS == 32768


def test_r1_samples_as_often_as_open_r1():
    p = PROTOCOLS["r1"]
    assert (p["temperature"], p["top_p"]) == (0.6, 0.95) and p["samples"].keys() <= FAMILIES.keys()
    assert p["samples"] == {"aime2024": 64, "math500": 4, "gpqa_diamond": 8, "livecodebench_v2": 16}
