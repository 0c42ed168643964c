"""What a study says: accuracies, a line a question, and what they rest on, from the grades that evaluate.py left.

A difference is tested twice. Over the problems of a mixture: exact sign-flip test on the number of right answers to a
problem (evals/stats.py), which asks whether these trained models differ. Over the runs: the same test on the difference
of each (mixture, seed), which asks whether another training would differ too; n runs cannot give a p below 2 / 2^n. The
p over runs of all questions are also shown after Holm's correction.
"""

import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path

from data.records import write_text
from evals.models import read_facts
from evals.stats import holm, sign_flip
from evals.store import responses
from evals.tables import markdown_rows
from pocket.study.design import Replicate, StudyConfig, chosen_file, count_records, evaluation_folder

Answers = dict[tuple[str, int], dict[str, int]]  # of a column: {(mixture, seed): {problem id: right answers}}


def read_answers(folder: str | Path, samples: int = 1) -> dict[str, dict[str, int]]:
    """Read {model folder: {problem id: right answers}} from an evaluate.py output folder, which holds the responses of
    equal models once. samples: answers a problem."""
    answers = {}
    for record, status in responses(folder, single=samples == 1):
        if record["sample"] < samples:
            right = answers.setdefault(record["model"], {})
            right[record["problem_id"]] = right.get(record["problem_id"], 0) + (status == "correct")

    # a model whose weights are those of another one has that one's responses
    content = {model: hash for model, (_, hash) in read_facts(folder)["folders"].items()}
    by_content = {content[model]: right for model, right in answers.items() if model in content}
    return answers | {model: by_content[hash] for model, hash in content.items() if hash in by_content}


def read_columns(cfg: StudyConfig, kind: str, names: Iterable[str], samples: int = 1) -> dict[str, Answers]:
    """Read what every column answered in an evaluation, in all mixtures and seeds. kind: evaluation_folder's."""
    graded = {mixture: read_answers(evaluation_folder(cfg, mixture, kind), samples) for mixture in cfg.mixtures}
    places = [(mixture, seed) for mixture in cfg.mixtures for seed in cfg.seeds]
    return {
        name: {
            (mixture, seed): graded[mixture][
                cfg.student if name == "student" else Replicate(cfg, mixture, seed).model(name)
            ]
            for mixture, seed in places
        }
        for name in names
    }


def compare(ours: Answers, theirs: Answers, samples: int = 1) -> dict:
    """Compare two columns.

    Returns {"points": {mixture: difference in percentage points}, "p": {mixture: p over problems}, "runs": [difference
    of each run], "p_runs": p over runs, "visible": what `detectable` says of the runs}.
    """
    found, gains = {"points": {}, "p": {}, "runs": []}, []
    for mixture in dict.fromkeys(mixture for mixture, _ in ours):
        places = [place for place in ours if place[0] == mixture]
        problems = ours[places[0]]
        by_problem = [sum(ours[p][x] - theirs[p][x] for p in places) for x in problems]
        by_run = [sum(ours[p][x] - theirs[p][x] for x in problems) for p in places]
        found["points"][mixture] = 100 * sum(by_run) / len(by_run) / len(problems) / samples
        found["p"][mixture] = sign_flip(by_problem)
        found["runs"] += [100 * gain / len(problems) / samples for gain in by_run]
        gains += by_run
    return found | {"p_runs": sign_flip(gains), "visible": detectable(found["runs"])}


def detectable(differences: list[float]) -> float:
    """Return the true mean difference that so many runs with this spread would find in 80 % of studies, two-sided at
    5 %, not corrected: (t.975 + t.8) s / √n. nan for one run."""
    if len(differences) < 2:
        return math.nan
    # quantiles of t from the normal ones, t = z + (z³ + z) / 4ν: 1 % too small with ten runs
    z = [statistics.NormalDist().inv_cdf(share) for share in (0.975, 0.8)]
    t = sum(x + (x**3 + x) / (4 * (len(differences) - 1)) for x in z)
    return t * statistics.stdev(differences) / math.sqrt(len(differences))


LEGEND = """\
Points: accuracy of the first less that of the second, in percentage points, mean over the seeds. p over problems:
exact, two-sided (the sign of the points says which way), over the problems of one mixture, not corrected. Runs: one is
a mixture and a seed; in how many of them the first was better, equal, worse, and the exact two-sided p of the same
differences. Holm: that p corrected for the {number} questions that have one; the others are exploratory. Visible: the
difference that as many runs with this spread would show in 80 % of studies, before correction; the paper's own step
from CRV+SFT to CogPO is +0.8. The teacher is a script and the student tiny: docs/pocket-study.md says what this can
show.
"""


def write_report(cfg: StudyConfig, *notes: str) -> None:
    """Write NAME.md into the folder of the study. notes: lines for its end."""
    lines = []
    for title, kind, names, samples in (
        ("greedy", "test", ["student", *cfg.columns], 1),
        (f"{cfg.samples} answers a problem at temperature 1", "sampled", cfg.sampled, cfg.samples),
    ):
        if not names:
            continue
        answers = read_columns(cfg, kind, names, samples)
        asked = {question: pair for question, pair in cfg.questions.items() if {*pair} <= answers.keys()}
        results = {question: compare(answers[a], answers[b], samples) for question, (a, b) in asked.items()}

        # what was asked in advance is asked of the greedy answers
        counted = [question for question in asked if question not in cfg.exploratory and kind == "test"]
        lines += [f"## Accuracy, {title}", "", *accuracies(answers, cfg.mixtures, samples), ""]
        lines += ["Percent of the answers that are right: the mean over the seeds, then each seed.", ""]
        lines += [f"## Questions, {title}", "", *question_lines(results, counted, cfg.mixtures), ""]
        lines += [LEGEND.format(number=len(counted))] if counted else []
    lines += ["## Training sets: records, fewest to most of a seed", "", *_sizes(cfg), ""]
    lines += ["## Settings: validation accuracy of each trial, the chosen one bold", "", *_settings(cfg), "", *notes]
    write_text(Path(f"{cfg.out}/{cfg.name}.md"), "\n".join(lines) + "\n")


def accuracies(answers: dict[str, Answers], mixtures: Iterable[str], samples: int) -> list[str]:
    """Make a line a column: the mean accuracy over the seeds, then each of them."""
    rows = [["", *mixtures]]
    for name, places in answers.items():
        cells = []
        for mixture in mixtures:
            seeds = [100 * sum(right.values()) / len(right) / samples for p, right in places.items() if p[0] == mixture]
            each = f" ({' '.join(f'{x:.1f}' for x in seeds)})" if len({*seeds}) > 1 else ""
            cells.append(f"{sum(seeds) / len(seeds):.1f} %{each}")
        rows.append([name, *cells])
    return markdown_rows(rows)


def question_lines(results: dict[str, dict], counted: list[str], mixtures: Iterable[str]) -> list[str]:
    """Make a line a question: points and p over problems for each mixture, in how many runs it holds, p over runs, that
    after Holm's correction if it is counted, and what difference could have been seen. results: {question: what
    `compare` returned}."""
    corrected = dict(zip(counted, holm([results[question]["p_runs"] for question in counted]), strict=True))
    rows = [["question", *mixtures, "runs: better, equal, worse", "p over runs", "Holm", "visible"]]
    for question, answer in results.items():
        cells = [f"{round(answer['points'][m], 1) + 0.0:+.1f} (p {_p(answer['p'][m])})" for m in mixtures]  # no -0.0
        gains = answer["runs"]
        kinds = [sum(gain > 0 for gain in gains), gains.count(0), sum(gain < 0 for gain in gains)]
        tested = [_p(answer["p_runs"]), _p(corrected[question]) if question in corrected else ""]
        rows.append([question, *cells, " : ".join(map(str, kinds)), *tested, f"{answer['visible']:.1f}"])
    return markdown_rows(rows)


def _sizes(cfg):
    """Make a line a training set: how many records it has."""
    rows = [["", *cfg.mixtures]]
    for file in dict.fromkeys(column.limit or column.data for column in cfg.columns.values()):
        cells = []
        for mixture in cfg.mixtures:
            counts = [count_records(Replicate(cfg, mixture, seed).records(file)) for seed in cfg.seeds]
            cells.append(f"{min(counts)}–{max(counts)}")
        rows.append([file, *cells])
    return markdown_rows(rows)


def _settings(cfg):
    """Make a line a column that was tuned: its trials and their accuracies, from what study.choose found."""
    found = {mixture: json.loads(Path(chosen_file(cfg, mixture)).read_text()) for mixture in cfg.mixtures}
    rows = [["", "trials", *cfg.mixtures]]
    for name in next(iter(found.values())):
        cells = []
        for mixture in cfg.mixtures:
            best, scores = found[mixture][name]["chosen"], found[mixture][name]["validation"]
            shown = [f"{100 * score:.1f}" for score in scores]
            cells.append(" · ".join(f"**{x}**" if n == best else x for n, x in enumerate(shown)))
        trials = [" ".join(f"{key}={value}" for key, value in t.items()) for t in found[mixture][name]["trials"]]
        rows.append([name, "; ".join(trials), *cells])
    return markdown_rows(rows)


def _p(p):
    return "< .001" if p < 0.001 else f"= {p:.3f}"
