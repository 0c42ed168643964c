"""What a study compares, and where each part of it lies: `out`/MIXTURE/seedN/…, trials of the tuning under tune/.

Studies with one `out` share what they have in common: problems, CRV passes, trainings, answers.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from data.rows import iter_rows
from errors import UserError
from values import Count, FilePath, Filled, Finite, Seed

PAIRS = "crv/pairs"  # what train_cogpo.py trains on; all else is for train_sft.py

Settings = dict[str, float | list[float]]  # key=value of a training, e.g. {"optim.lr": 1e-3}


@dataclass
class ColumnConfig:
    """A column of the tables: one training for every mixture and seed."""

    data: Filled
    """what it is trained on: a file of the replicate's folder, without .jsonl, e.g. crv/sft or crv/pairs"""
    start: str = ""
    """column whose model it starts from, or a model folder; empty: the student"""
    trials: str = ""
    """name in `trials`: settings of which the best is chosen, by validation accuracy; empty: none to choose"""
    like: str = ""
    """or the column whose choice it takes over"""
    settings: dict = field(default_factory=dict)
    """further keys of the training"""
    limit: str = ""
    """only as many records as this file of the replicate has: what choosing at random is worth"""
    tokens_of: str = ""
    """as many epochs as train the response tokens of this file of pairs, each response once, or just fewer: the control
    of a preference run, which passes these tokens forward and backward"""


@dataclass
class StudyConfig:
    out: FilePath
    """folder of everything"""
    name: Filled
    """of this study: the report is `out`/NAME.md, its tables are in `out`/MIXTURE/report-NAME"""
    prepare: list[str]
    """commands that make the student, in this order, without `python`"""
    student: FilePath
    """model folder that they leave"""
    mixtures: Annotated[dict[str, FilePath], "filled"]
    """name: config of pocket.problems"""
    columns: Annotated[dict[str, ColumnConfig], "filled"]
    """what is trained, in this order; a column stands behind the one that it starts from or is like"""
    questions: dict[str, tuple[str, str]]
    """what is asked: a column, the one that it is compared with"""
    train_problems: Count
    """training problems of a seed"""
    test_problems: Count
    """test problems of a mixture"""
    sft: FilePath
    """config of train_sft.py"""
    prefer: FilePath
    """config of train_cogpo.py"""
    evaluate: FilePath
    """config of evaluate.py: how to generate"""
    crv: FilePath = "configs/pocket/study/crv.yaml"
    """config of build_crv.py"""
    trials: dict[str, list[dict[str, Finite | list[Finite]]]] = field(default_factory=dict)
    """name: settings to choose from, equally many for all preference losses"""
    tables: dict = field(default_factory=dict)
    """of evaluate.py, over the columns"""
    sampled: list[str] = field(default_factory=list)
    """columns that also answer at temperature 1"""
    samples: Count = 2
    """answers a problem at temperature 1"""
    exploratory: list[str] = field(default_factory=list)
    """questions that Holm's correction leaves out"""
    validation_problems: Count = 300
    """problems on which settings are chosen"""
    seeds: Annotated[list[Seed], "filled"] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """of the study"""
    tuning_seeds: list[Seed] = field(default_factory=lambda: [11])
    """of the choice of settings"""
    test_seed: Seed = 1000
    """of the test problems; the validation problems come from the next one"""
    workers: Count = 2
    """jobs at a time"""
    threads: Count = 1
    """threads of each"""


def check(cfg: StudyConfig) -> None:
    """Raise UserError for a study that names what it does not have, or would not be a fair comparison."""
    # the configs of its commands, of which the last would be read after hours
    files = {key: getattr(cfg, key) for key in ("crv", "sft", "prefer", "evaluate")}
    for key, file in (files | {f"mixtures.{name}": file for name, file in cfg.mixtures.items()}).items():
        if not Path(file).is_file():
            raise UserError(f"{key}: there is no file {file}")

    earlier = []
    for name, column in cfg.columns.items():
        for key, known in (("trials", cfg.trials), ("like", earlier)):
            if getattr(column, key) and getattr(column, key) not in known:
                raise UserError(f"columns.{name}.{key}: there is no {getattr(column, key)!r} (before it)")
        if "/" not in column.start and column.start not in ("", *earlier):
            raise UserError(f"columns.{name}.start: no column {column.start!r} before it; a model folder has a /")
        if column.start in cfg.columns and cfg.columns[column.start].start in cfg.columns:
            raise UserError(f"columns.{name}.start: {column.start} itself starts from another column")
        earlier.append(name)
    counts = {len(cfg.trials[c.trials]) for c in cfg.columns.values() if c.data == PAIRS and c.trials}
    if len(counts) > 1 or not all(cfg.trials.values()):
        raise UserError("trials: every preference loss needs an equal number of trials, and none may be empty")
    asked = [*cfg.sampled, *(column for pair in cfg.questions.values() for column in pair)]
    asked += [column for table in cfg.tables.values() for column in table.get("columns", {}).values()]
    if unknown := set(asked) - {*cfg.columns, "student"} | set(cfg.exploratory) - set(cfg.questions):
        raise UserError(f"questions, tables, sampled, exploratory: there is no {sorted(unknown)[0]!r}")
    if not cfg.tuning_seeds and any(len(trials_of(cfg, name)) > 1 for name in cfg.columns):
        raise UserError("tuning_seeds: at least one is needed to choose between trials")
    if set(cfg.seeds) & set(cfg.tuning_seeds):
        raise UserError("seeds and tuning_seeds have one in common; settings must be chosen on other seeds")


@dataclass(frozen=True)
class Replicate:
    """One repetition of the experiment: a mixture with a seed, which has problems, a CRV pass and trainings of its own.

    tuning: of the choice of settings, not of the study.
    """

    cfg: StudyConfig
    mixture: str
    seed: int
    tuning: bool = False

    @property
    def folder(self) -> str:
        """Its problems are in data/, its training sets in crv/, its trainings beside them."""
        return f"{self.cfg.out}/{self.mixture}/seed{self.seed}"

    @property
    def test_file(self) -> str:
        """Its test problems; of a tuning seed the validation problems."""
        return f"{self.folder}/data/test.jsonl"

    def records(self, name: str) -> str:
        """Return the path of a file of records, e.g. crv/pairs."""
        return f"{self.folder}/{name}.jsonl"

    def inside(self, name: str) -> str:
        """Return the output folder of a training, relative to `folder`."""
        return f"tune/{name}" if self.tuning else name

    def output(self, name: str) -> str:
        """Return the output folder of a training."""
        return f"{self.folder}/{self.inside(name)}"

    def model(self, name: str) -> str:
        """Return the folder of the model that a training leaves."""
        return f"{self.output(name)}/model"

    def job(self, name: str) -> str:
        """Return the name of a job."""
        return f"{self.mixture}/seed{self.seed}/{self.inside(name)}"


def replicates_of(cfg: StudyConfig, tuning: bool = False) -> list[Replicate]:
    """List the replicates of the study, or of the tuning, seed by seed."""
    seeds = cfg.tuning_seeds if tuning else cfg.seeds
    return [Replicate(cfg, mixture, seed, tuning) for seed in seeds for mixture in cfg.mixtures]


def trials_of(cfg: StudyConfig, name: str) -> list[Settings]:
    """List the settings that a column can have; one, empty, for a column with nothing to choose."""
    return cfg.trials[cfg.columns[name].trials] if cfg.columns[name].trials else [{}]


def evaluation_folder(cfg: StudyConfig, mixture: str, kind: str) -> str:
    """Return evaluate.py's output folder: kind is validation, test or sampled. Studies with one `out` share it."""
    return f"{cfg.out}/{mixture}/{kind}"


def chosen_file(cfg: StudyConfig, mixture: str) -> str:
    """Return the file that says which settings were chosen, and from which."""
    return f"{cfg.out}/{mixture}/chosen-{cfg.name}.json"


def count_records(file: str) -> int:
    """Count the records of a JSON Lines file."""
    return sum(1 for _ in iter_rows(file))
