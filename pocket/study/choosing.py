"""Does a good choice of training chains follow the student? Sets of equal size, chosen in five ways, for two students.

    python -m pocket.study.choosing --config configs/pocket/study/choice.yaml

Original chains only, so that nothing but the choice differs. Of every problem file, as many chains as the scripted
Critic rates medium, chosen by

    critic      that rating                         shortest    fewest tokens
    own         the student's own numbers           random      the first ones, for the file is shuffled
    other       the other student's numbers

All else is a study as pocket/study/study.py runs it, whose columns train on STUDENT-WAY.jsonl.
"""

from dataclasses import dataclass, field

from agents.measured import StudentConfig, find_levels
from config import run_cli
from data.records import write_jsonl
from data.render import problem_messages
from data.rows import iter_rows
from pocket.study.design import Replicate, StudyConfig, replicates_of
from pocket.study.jobs import Job
from pocket.study.study import Run, main
from values import FilePath


@dataclass
class ChoiceConfig(StudyConfig):
    students: dict[str, FilePath] = field(default_factory=dict)
    """two model folders by name, which `prepare` leaves"""


def choose_sets(cfg: ChoiceConfig, run: Run) -> None:
    """Measure every chain on both students, and write all training sets."""
    assert len(cfg.students) == 2, "own and other"
    replicates = replicates_of(cfg)
    run("fits", [fit_job(replicate, *student) for replicate in replicates for student in cfg.students.items()])
    for replicate in replicates:
        write_sets(cfg, replicate)


def fit_job(replicate: Replicate, name: str, path: str) -> Job:
    """Return the command that measures the chains of a replicate on a student."""
    files = f"problems={replicate.folder}/data/problems.jsonl", f"out={replicate.folder}/fit-{name}.jsonl"
    return Job(replicate.job(f"fit-{name}"), ("-m", "model.fit", f"model.path={path}", *files))


def write_sets(cfg: ChoiceConfig, replicate: Replicate) -> None:
    """Write each student's five training sets, records of sft_original.jsonl in their order."""
    from model.fit import Student  # here, so that --help answers at once
    from settings import ModelConfig

    rows = [row for _, row in iter_rows(replicate.records("crv/sft_original"))]
    rated = {row["id"] for _, row in iter_rows(replicate.records("crv/sft_medium"))}
    size, order = len(rated), range(len(rows))
    medium, lengths = {}, {}
    for name, folder in cfg.students.items():
        student = Student(ModelConfig(folder), f"{replicate.folder}/fit-{name}.jsonl")
        fits = student.fits([(problem_messages(row, "", "{problem}"), row["reasoning"]) for row in rows])

        # equally many hard and easy ones, and as many medium ones as the Critic has
        hard = (len(rows) - size) // 2
        shares = StudentConfig(hard_share=hard / len(rows), easy_share=(len(rows) - size - hard) / len(rows))
        levels = find_levels(shares, fits)
        medium[name] = {i for i in order if levels.of(fits[i].nll, fits[i].rsr) == "medium"}
        lengths[name] = [fit.tokens for fit in fits]
    for name, other in zip(cfg.students, reversed(cfg.students), strict=True):
        chosen = {
            "critic": {i for i in order if rows[i]["id"] in rated},
            "own": medium[name],
            "other": medium[other],
            "shortest": set(sorted(order, key=lengths[name].__getitem__)[:size]),
            "random": set(order[:size]),
        }
        for way, places in chosen.items():
            assert len(places) == size, (way, len(places), size)
            write_jsonl(replicate.records(f"{name}-{way}"), [rows[i] for i in sorted(places)])


if __name__ == "__main__":
    run_cli(lambda cfg: main(cfg, choose_sets), ChoiceConfig, __doc__)
