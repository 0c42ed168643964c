"""Does a good choice of training chains follow the student? Sets of equal size, chosen in five ways, for two students.

    python -m pocket.study.choosing --config configs/pocket/study/choice.yaml

Original chains only, so that nothing but the choice differs. Of every problem file, as many chains as the scripted
Critic rates medium, chosen by

    critic      that rating                         shortest    fewest tokens
    own         the student's own numbers           random      the first ones, for the file is shuffled
    other       the other student's numbers

Every student is trained on each of the five, and answers the same test problems; choice.md holds accuracies and the
paired tests of docs/pocket-study.md. Killed at any point, run the same command to resume.
"""

from dataclasses import dataclass, field
from pathlib import Path

from agents.measured import StudentConfig, find_levels
from config import claim_output, run_cli
from data.records import write_jsonl
from data.render import problem_messages
from data.rows import iter_rows
from pocket.study.design import Replicate, StudyConfig, replicates_of
from pocket.study.findings import accuracies, compare, question_lines, read_methods
from pocket.study.jobs import Job
from pocket.study.study import FREE, data_jobs, evaluation, student_jobs, teacher
from progress import say
from values import FilePath

WAYS = ("critic", "own", "other", "shortest", "random")
QUESTIONS = [("own", "random"), ("own", "shortest"), ("own", "critic"), ("own", "other")]  # is the first better?


@dataclass
class ChoiceConfig(StudyConfig):
    students: dict[str, FilePath] = field(default_factory=dict)
    """two model folders by name, which `prepare` leaves"""
    settings: list[str] = field(default_factory=list)
    """further arguments of every training"""


def main(cfg: ChoiceConfig) -> None:
    """Run all of it, or what is left."""
    assert len(cfg.students) == 2, "own and other"
    claim_output(cfg, cfg.out, FREE)
    replicates = replicates_of(cfg)
    with teacher(cfg) as run:
        # the students, the problems with their ratings, and every chain measured on both students
        run("students", student_jobs(cfg))
        run("problems and CRV", [job for replicate in replicates for job in data_jobs(cfg, replicate)])
        run("fits", [fit_job(replicate, *student) for replicate in replicates for student in cfg.students.items()])

        # the sets, the trainings, the evaluation
        for replicate in replicates:
            write_sets(cfg, replicate)
        places = [(r, student, way) for r in replicates for student in cfg.students for way in WAYS]
        run("trainings", [training_job(cfg, *place) for place in places])
        models = {f"{s}-{way}": f"{{run}}/{s}-{way}/model" for s in cfg.students for way in WAYS}
        for mixture in cfg.mixtures:
            of_it = [r for r in replicates if r.mixture == mixture]
            run("evaluation", [evaluation(cfg, "choice", of_it, models, {}, f"Choice of chains, {mixture}")])
    report = Path(cfg.out) / "choice.md"
    report.write_text("\n".join(answers(cfg)) + "\n")
    say(f"written: {report}")


def fit_job(replicate: Replicate, name: str, path: str) -> Job:
    """Return the command that measures the chains of a replicate on a student."""
    files = f"problems={replicate.folder}/data/problems.jsonl", f"out={replicate.folder}/fit-{name}.jsonl"
    return Job(replicate.job(f"fit-{name}"), ("-m", "model.fit", f"model.path={path}", *files))


def write_sets(cfg: ChoiceConfig, replicate: Replicate) -> None:
    """Write each student's five training sets, records of sft_original.jsonl in their order."""
    from model.fit import Student  # here, so that --help answers at once
    from settings import ModelConfig

    rows = [row for _, row in iter_rows(replicate.records("sft_original"))]
    rated = {row["id"] for _, row in iter_rows(replicate.records("sft_medium"))}
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
            write_jsonl(f"{replicate.folder}/{name}-{way}.jsonl", [rows[i] for i in sorted(places)])


def training_job(cfg: ChoiceConfig, replicate: Replicate, student: str, way: str) -> Job:
    """Return the training of a student on one of its sets."""
    name = f"{student}-{way}"
    arguments = (
        "train_sft.py", "--config", cfg.sft, f"model.path={cfg.students[student]}", f"out={replicate.output(name)}",
        f"data.file={replicate.folder}/{name}.jsonl", f"seed={replicate.seed}", *cfg.settings,
    )  # fmt: skip
    return Job(replicate.job(name), arguments)


def answers(cfg: ChoiceConfig) -> list[str]:
    """Make the lines of choice.md: accuracies, every question for each student, Holm-corrected over all, and how much
    the two students' choices have in common."""
    found = read_methods(cfg, "choice", [f"{student}-{way}" for student in cfg.students for way in WAYS])
    asked = [
        (f"{student}: {ours} beats {theirs}", f"{student}-{ours}", f"{student}-{theirs}")
        for student in cfg.students
        for ours, theirs in QUESTIONS
    ]
    results = [compare(found[ours], found[theirs]) for _, ours, theirs in asked]

    files = [[f"{r.folder}/{s}-own.jsonl" for s in cfg.students] for r in replicates_of(cfg)]
    sets = [[{row["id"] for _, row in iter_rows(file)} for file in pair] for pair in files]
    size, shared = [len(a) for a, _ in sets], [len(a & b) / len(a) for a, b in sets]
    note = f"{min(size)} to {max(size)} chains a set; {sum(shared) / len(shared):.0%} of them chosen by both students."
    return [*accuracies(found, cfg.mixtures), "", *question_lines(asked, results, cfg.mixtures), "", note]


if __name__ == "__main__":
    run_cli(main, ChoiceConfig, __doc__)
