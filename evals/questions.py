"""What is to be generated: every model, problem and sample with its prompt, its sampling and the key of its content."""

from collections.abc import Iterable
from dataclasses import dataclass

from data.render import prompt_messages
from errors import UserError
from evals.benchmarks import instruction, kind_of
from evals.benchmarks.common import KINDS, PROTOCOLS, Problem
from evals.models import Place, identity
from evals.published import SIZES
from evals.store import key_of

ASSUMED = 3000  # tokens of a response, where --plan must guess
CHARS = 3.3  # bytes of reasoning a token
GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 0}  # what does not matter then is not in the key


@dataclass(frozen=True)
class Settings:
    """How one benchmark is asked. template: around {problem}; empty: the family's own. sampling: temperature, top_p,
    top_k and seed."""

    system: str
    template: str | None
    sampling: dict
    max_new_tokens: int
    samples: int


@dataclass(frozen=True)
class Question:
    """One response that is asked for. key: of the generation, a hash of all that it depends on; None if nothing is
    known of the model."""

    key: str | None
    place: Place
    problem: Problem
    sample: int
    messages: list
    settings: Settings


def settings_of(cfg) -> dict[str, Settings]:
    """Return {benchmark: Settings}, with the protocol's numbers where the config says nothing else.

    Raises UserError for numbers that cannot be meant."""
    protocol, found = PROTOCOLS[cfg.protocol or "paper"], {}
    for name, benchmark in cfg.benchmarks.items():
        # a benchmark's own value before the config's, and that before the protocol's
        own = {key: value for key, value in vars(cfg.sampling).items() if value is not None}
        sampling = {key: protocol.get(key, default) for key, default in GREEDY.items()} | own
        greedy = sampling["temperature"] == 0
        kind = KINDS[kind_of(name, benchmark)]
        samples = benchmark.samples or cfg.samples or kind.samples.get(cfg.protocol, 1)
        if greedy and samples > 1:
            raise UserError(
                f"{samples} samples of {name} at temperature 0 would be one answer {samples} times; set "
                f"sampling.temperature, or samples=1"
            )
        template = benchmark.instruction or cfg.instruction
        longest = benchmark.max_new_tokens or cfg.max_new_tokens or protocol["max_new_tokens"]
        found[name] = Settings(cfg.system or "", template, dict(GREEDY) if greedy else sampling, longest, samples)
    return found


def questions(
    cfg, places: Iterable[Place], problems: list[Problem], settings: dict[str, Settings], contents: dict
) -> list[Question]:
    """Return a Question for every place (each once), problem and sample. problems: of all benchmarks. contents: cache
    of what model folders hold (evals.models.model_content), updated."""
    prompts, found, given = {}, [], cfg.chat_template_kwargs
    for problem in problems:
        asked = settings[problem.benchmark]
        template = asked.template or instruction(problem, cfg.protocol)
        prompts[problem] = prompt_messages(problem.question, asked.system, template)
    # what a response also depends on where it is computed in this process; with a server that is the server's affair
    here = {"dtype": cfg.dtype} | ({"chat_template_kwargs": given} if given else {})
    for place in places:
        model = identity(place, cfg.endpoints, contents)
        for problem, messages in prompts.items():
            asked = settings[problem.benchmark]
            parts = {"model": model, "messages": messages, "sampling": asked.sampling}
            parts |= {"max_new_tokens": asked.max_new_tokens} | ({} if place.endpoint else here)
            for sample in range(asked.samples):
                key = key_of(**parts, sample=sample) if model else None
                found.append(Question(key, place, problem, sample, messages, asked))
    return found


def show_plan(cfg, tables: dict, settings: dict[str, Settings]) -> str:
    """Return the text that --plan prints: responses and tokens for the models of `tables` and of `compare`."""
    counts = {}
    for name, benchmark in cfg.benchmarks.items():
        size = SIZES.get(KINDS[kind_of(name, benchmark)].title)
        size = min(filter(None, (size, benchmark.limit)), default=None)
        if size is None:
            raise UserError(
                f"--plan knows the sizes of Table 7; say how many problems {name} has: benchmarks.{name}.limit"
            )
        counts[name] = size * settings[name].samples
    models = {model for table in tables.values() for model in table.columns.values()} | set(cfg.compare)
    places = sum(len(cfg.runs) if "{run}" in cfg.models[model] else 1 for model in models)
    responses = places * sum(counts.values())
    tokens = responses * ASSUMED
    return "\n".join(
        [
            f"{places} models, each with",
            *(f"  {name:<26}{count:>8,} responses" for name, count in counts.items()),
            f"{responses:,} responses together; with {ASSUMED:,} tokens each (assumed) {tokens / 1e6:,.0f} M tokens, "
            f"{tokens * CHARS / 1e9:.1f} GB of disk; what is there already is not made again",
        ]
    )
