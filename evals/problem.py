"""A test problem, as every benchmark family loads, asks and grades it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Problem:
    """benchmark: its name in the config, a row of the tables. question: what {problem} stands for in the instruction.
    gold: the right answer as text; empty where tests decide. group: the part of the benchmark that it belongs to, or
    empty. kind: as evals/benchmarks.yaml has it. extra: what only its family knows (options, tests, tolerance,
    …). record: what belongs into every record of a generation (the order of the options). private: its text must not
    appear in anything that is shown or shared, nor does it in the repr."""

    benchmark: str
    id: str
    question: str = field(repr=False)
    gold: str = field(repr=False)
    group: str = ""
    kind: str = ""
    extra: dict = field(default_factory=dict, compare=False, repr=False)
    record: dict = field(default_factory=dict, compare=False, repr=False)
    private: bool = False
