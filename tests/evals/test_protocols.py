"""The two protocols: the numbers of their sources, for every kind of benchmark."""

from evals.benchmarks.common import KINDS, PROTOCOLS


def test_paper_is_one_greedy_response():
    assert PROTOCOLS["paper"] == {"temperature": 0, "top_p": 1, "max_new_tokens": 32768}
    assert not any("paper" in kind.samples for kind in KINDS.values())


def test_r1_samples_as_often_as_open_r1():
    assert PROTOCOLS["r1"] == {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 32768}
    samples = {name: kind.samples["r1"] for name, kind in KINDS.items() if kind.samples}
    assert samples == {"aime2024": 64, "math500": 4, "gpqa_diamond": 8, "livecodebench_v2": 16}
