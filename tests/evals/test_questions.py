"""What is asked for: settings from protocol and overrides; what is in a generation's key and what is not."""

from dataclasses import dataclass, field

import pytest

from errors import UserError
from evals.assembly import TableConfig
from evals.benchmarks.common import BenchmarkConfig, Problem
from evals.models import Place, resolve
from evals.questions import questions, settings_of, show_plan
from evals.store import key_of


@dataclass
class Sampling:
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int = 0


@dataclass
class Served:
    model: str = "m"
    extra_body: dict = field(default_factory=dict)


@dataclass
class Cfg:
    """The part of evaluate.py's Config that a plan reads."""

    protocol: str = ""
    system: str | None = None
    instruction: str | None = None
    samples: int | None = None
    max_new_tokens: int | None = None
    dtype: str = "auto"
    chat_template_kwargs: dict = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    benchmarks: dict = field(default_factory=lambda: {"sums": BenchmarkConfig(file="x")})
    endpoints: dict = field(default_factory=lambda: {"e": Served()})
    models: dict = field(default_factory=dict)
    runs: dict = field(default_factory=dict)
    compare: list = field(default_factory=list)


PROBLEM = Problem("sums", "p1", "1+1?", "2", kind="local")
HERE = Place("folder")
CONTENT = {"folder": [[], "hash"]}  # as evals.models.model_content remembers a folder that is gone


def keys(cfg, place=HERE):
    return [row.key for row in questions(cfg, [place], [PROBLEM], settings_of(cfg), CONTENT)]


def test_protocols_and_what_overrides_them():
    cfg = Cfg("r1", benchmarks={"AIME2024": BenchmarkConfig(), "MATH-500": BenchmarkConfig(samples=2)})
    found = settings_of(cfg)
    assert (found["AIME2024"].samples, found["MATH-500"].samples) == (64, 2)
    assert found["AIME2024"].sampling == {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "seed": 0}
    assert found["AIME2024"].max_new_tokens == 32768 and found["AIME2024"].template is None
    cfg.samples, cfg.sampling.top_k, cfg.max_new_tokens, cfg.instruction = 3, 20, 100, "Q: {problem}"
    cfg.benchmarks["MATH-500"].max_new_tokens, cfg.benchmarks["MATH-500"].instruction = 50, "M: {problem}"
    found = settings_of(cfg)
    assert [(s.samples, s.max_new_tokens, s.template) for s in found.values()] == [
        (3, 100, "Q: {problem}"),
        (2, 50, "M: {problem}"),
    ]
    assert found["AIME2024"].sampling == {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "seed": 0}
    cfg.sampling.temperature = 0.0
    with pytest.raises(UserError, match="3 samples of AIME2024 at temperature 0"):
        settings_of(cfg)


def test_a_greedy_response_keeps_its_key_whatever_does_not_matter_to_it():
    (first,) = keys(Cfg())
    greedy = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 0}
    prompt = [{"role": "user", "content": "1+1?"}]
    assert first == key_of(model="hash", messages=prompt, sampling=greedy, max_new_tokens=32768, dtype="auto", sample=0)
    assert keys(Cfg("paper", sampling=Sampling(top_p=0.5, top_k=3, seed=9))) == [first]
    assert keys(Cfg(benchmarks={"sums": BenchmarkConfig(file="other", limit=3, instruction="{problem}")})) == [first]


def test_what_matters_is_in_the_key():
    hot = Sampling(temperature=1.0)
    others = [
        Cfg(),
        Cfg(system="be brief"),
        Cfg(instruction="Q: {problem}"),
        Cfg(max_new_tokens=5),
        Cfg(dtype="float32"),
        Cfg(chat_template_kwargs={"enable_thinking": False}),
        Cfg(sampling=hot),
        Cfg(sampling=Sampling(temperature=1.0, seed=1)),
        Cfg(sampling=Sampling(temperature=1.0, top_p=0.5)),
        Cfg(benchmarks={"sums": BenchmarkConfig(file="x", max_new_tokens=7)}),
    ]
    assert len({keys(cfg)[0] for cfg in others}) == len(others)
    assert keys(Cfg(sampling=hot, samples=4))[:2] == keys(Cfg(sampling=hot, samples=2))
    assert len(set(keys(Cfg(sampling=hot, samples=4)))) == 4


def test_a_served_model_is_its_name_its_label_and_its_extra_fields():
    plain = Place("endpoint:e", "e")
    (first,) = keys(Cfg(), plain)
    assert keys(Cfg(endpoints={"e": Served()}, dtype="float32"), plain) == [first]
    assert keys(Cfg(), Place("endpoint:e@new", "e", "new")) != [first]
    assert keys(Cfg(endpoints={"e": Served("other")}), plain) != [first]
    assert keys(Cfg(endpoints={"e": Served(extra_body={"thinking": True})}), plain) != [first]
    assert keys(Cfg()) != [first]


def test_two_endpoints_of_one_served_name_need_labels():
    two = {"e": Served(), "f": Served()}
    with pytest.raises(UserError, match=r"endpoint:f and endpoint:e serve the same name 'm' .* give them labels"):
        resolve({"a": "endpoint:e", "b": "endpoint:f"}, {}, "ab", two, offline=True)
    for models, endpoints in (
        ({"a": "endpoint:e", "b": "endpoint:f@other"}, two),
        ({"a": "endpoint:e", "b": "endpoint:e"}, two),  # one model under two names
        ({"a": "endpoint:e", "b": "endpoint:f"}, two | {"f": Served("n")}),
        ({"a": "endpoint:e", "b": "endpoint:f"}, two | {"f": Served(extra_body={"thinking": True})}),
    ):
        assert resolve(models, {}, "ab", endpoints, offline=True).keys() == {"a", "b"}


def test_a_plan_counts_all_that_is_generated():
    cfg = Cfg(benchmarks={"AIME2024": BenchmarkConfig()}, runs={"1": "x", "2": "y"}, compare=["a", "b"])
    cfg.models = {"a": "A", "b": "B", "c": "{run}/C"}
    plan = show_plan(cfg, {"t": TableConfig(columns={"A": "a", "C": "c"})}, settings_of(cfg))
    assert plan.startswith("4 models") and "120 responses together" in plan  # b, which no table shows, is compared
