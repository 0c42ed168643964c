"""What the study compares, and where each part of it lies: `out`/MIXTURE/seedN/…, trials of the tuning under tune/."""

import itertools
from dataclasses import dataclass, field
from typing import Annotated

from data.rows import iter_rows
from values import Count, FilePath, Finite, Seed

SETS = {  # training sets of the SFT stage: names of build_crv.py's files
    "sft": "sft_original", "crv_sft": "sft", "sft_c": "sft_c", "sft_cr": "sft_cr", "sft_few": "sft_original",
    "sft_easy": "sft_easy", "sft_medium": "sft_medium", "sft_hard": "sft_hard",
}  # fmt: skip
AS_MANY = {"sft_few": "sft_c"}  # only as many examples as that file has: what choosing at random is worth
LOSSES = ("cogpo", "dpo", "beta_dpo", "simpo")
# which of CogPO's β (small, medium, large) the small, medium and large gap get: all but CogPO's own "sml"
ORDERS = [*map("".join, itertools.permutations("sml")), "sss", "mmm", "lll"][1:]
METHODS = [*SETS, *LOSSES, *map("cogpo_{}".format, ORDERS)]  # all trainings of one mixture and seed


@dataclass
class StudyConfig:
    out: FilePath
    """folder of everything"""
    prepare: list[str]
    """commands that make the student, in this order, without `python`"""
    student: FilePath
    """model folder that they leave"""
    mixtures: Annotated[dict[str, FilePath], "filled"]
    """name: config of pocket.problems"""
    trials: dict[str, list[dict[str, Finite | list[Finite]]]]
    """sft, cogpo, dpo, beta_dpo, simpo: the settings to choose from"""
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
    validation_problems: Count = 300
    """problems on which settings are chosen"""
    seeds: Annotated[list[Seed], "filled"] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """of the study"""
    tuning_seeds: Annotated[list[Seed], "filled"] = field(default_factory=lambda: [11, 12])
    """of the choice of settings"""
    test_seed: Seed = 1000
    """of the test problems; the validation problems come from the next one"""
    workers: Count = 2
    """jobs at a time"""
    threads: Count = 1
    """threads of each"""


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
        """Return the path of a file that its CRV pass wrote, e.g. pairs."""
        return f"{self.folder}/crv/{name}.jsonl"

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


def replicates_of(cfg: StudyConfig) -> list[Replicate]:
    """List the replicates of the study, seed by seed."""
    return [Replicate(cfg, mixture, seed) for seed in cfg.seeds for mixture in cfg.mixtures]


def evaluation_folder(cfg: StudyConfig, mixture: str, name: str) -> str:
    """Return evaluate.py's output folder: name is tuning-sft, tuning-prefer or study."""
    return f"{cfg.out}/{mixture}/{name}"


def chosen_file(cfg: StudyConfig, mixture: str, stage: str) -> str:
    """Return the file that says which settings were chosen for a stage, and from which."""
    return f"{cfg.out}/{mixture}/chosen-{stage}.json"


def count_records(file: str) -> int:
    """Count the records of a JSON Lines file."""
    return sum(1 for _ in iter_rows(file))
