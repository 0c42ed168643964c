"""What the study says: accuracies, a line a question, and what they rest on, from the grades that evaluate.py left.

A difference is tested twice. Over the problems of a mixture: exact sign-flip test on the number of seeds that got a
problem right (evals/stats.py), which asks whether these trained models differ. Over the runs: the same test on the
difference of each (mixture, seed), which asks whether another training would differ too; n runs cannot give a p below
2 / 2^n. The p over runs of all questions are also shown after Holm's correction.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from evals.models import read_facts
from evals.stats import holm, sign_flip
from evals.store import responses
from evals.tables import markdown_rows
from pocket.study.design import (
    AS_MANY,
    LOSSES,
    METHODS,
    ORDERS,
    SETS,
    Replicate,
    StudyConfig,
    chosen_file,
    count_records,
    evaluation_folder,
)

Answers = dict[tuple[str, int], dict[str, bool]]  # of a method: {(mixture, seed): {problem id: is it right?}}

QUESTIONS = [  # what is asked, a run, the run it is compared with
    ("CRV+SFT beats SFT", "crv_sft", "sft"),
    ("C adds (to SFT)", "sft_c", "sft"),
    ("C beats as many at random", "sft_c", "sft_few"),
    ("R adds (to C)", "sft_cr", "sft_c"),
    ("V adds (to CR)", "crv_sft", "sft_cr"),
    ("medium beats easy", "sft_medium", "sft_easy"),
    ("medium beats hard", "sft_medium", "sft_hard"),
    ("DPO beats CRV+SFT", "dpo", "crv_sft"),
    ("β-DPO beats CRV+SFT", "beta_dpo", "crv_sft"),
    ("SimPO beats CRV+SFT", "simpo", "crv_sft"),
    ("CogPO beats CRV+SFT", "cogpo", "crv_sft"),
    ("CogPO beats DPO", "cogpo", "dpo"),
    ("CogPO beats β-DPO", "cogpo", "beta_dpo"),
    ("CogPO beats SimPO", "cogpo", "simpo"),
]


def read_answers(folder: str | Path) -> dict[str, dict[str, bool]]:
    """Read {model folder: {problem id: is it right?}} from an evaluate.py output folder, which holds the responses of
    equal models once."""
    answers = {}
    for record, status in responses(folder, single=True):
        answers.setdefault(record["model"], {})[record["problem_id"]] = status == "correct"

    # a model whose weights are those of another one has that one's responses
    content = {model: hash for model, (_, hash) in read_facts(folder)["folders"].items()}
    by_content = {content[model]: right for model, right in answers.items() if model in content}
    return answers | {model: by_content[hash] for model, hash in content.items() if hash in by_content}


def read_methods(cfg: StudyConfig, name: str, methods: Iterable[str], **fixed: str) -> dict[str, Answers]:
    """Read what every method answered in an evaluation, in all mixtures and seeds. name: evaluation_folder's. fixed:
    {method: its model folder} of those that are not trained here."""
    graded = {mixture: read_answers(evaluation_folder(cfg, mixture, name)) for mixture in cfg.mixtures}
    places = [(mixture, seed) for mixture in cfg.mixtures for seed in cfg.seeds]
    trained = {method: {p: graded[p[0]][Replicate(cfg, *p).model(method)] for p in places} for method in methods}
    return {method: {(m, 0): graded[m][path] for m in graded} for method, path in fixed.items()} | trained


def compare(ours: Answers, theirs: Answers) -> dict:
    """Compare two methods.

    Returns {"points": {mixture: difference in percentage points}, "p": {mixture: p over problems}, "runs": [difference
    of each run], "p_runs": p over runs}.
    """
    found = {"points": {}, "p": {}, "runs": [], "p_runs": 1.0}
    gains = []
    for mixture in dict.fromkeys(mixture for mixture, _ in ours):
        places = [place for place in ours if place[0] == mixture]
        problems = ours[places[0]]
        by_problem = [sum(ours[p][x] - theirs[p][x] for p in places) for x in problems]
        by_run = [sum(ours[p][x] - theirs[p][x] for x in problems) for p in places]
        found["points"][mixture] = 100 * sum(by_run) / len(by_run) / len(problems)
        found["p"][mixture] = sign_flip(by_problem)
        found["runs"] += [100 * gain / len(problems) for gain in by_run]
        gains += by_run
    return found | {"p_runs": sign_flip(gains)}


LEGEND = """\
Points: accuracy of the first less that of the second, in percentage points, mean over the seeds. p over problems:
exact, two-sided (the sign of the points says which way), over the problems of one mixture, not corrected. Runs: one is
a mixture and a seed; in how many of them the first was better, equal, worse, and the exact two-sided p of the same
differences. Holm: that p corrected for all {number} questions. The orders of β are exploratory, and run with CogPO's
settings. The teacher is a script and the student tiny: docs/pocket-study.md says what this can show.
"""


def write_report(cfg: StudyConfig) -> None:
    """Write answers.md into the study's folder."""
    answers = read_methods(cfg, "study", METHODS, base=cfg.student)

    # the questions, and those about the orders of β
    orders = [(f"s/m/l beats {'/'.join(order)}", "cogpo", f"cogpo_{order}") for order in ORDERS]
    questions = [*QUESTIONS, *orders]
    found = [compare(answers[ours], answers[theirs]) for _, ours, theirs in questions]
    text = [
        "## Accuracy",
        "",
        *accuracies(answers, cfg.mixtures),
        "",
        "Percent of the test problems, greedy: the mean over the seeds, then each seed.",
        "",
        "## Questions",
        "",
        *question_lines(questions, found, cfg.mixtures),
        "",
        LEGEND.format(number=len(questions)),
        "## Training sets: examples, fewest to most of a seed",
        "",
        *_sizes(cfg),
        "",
        "## Settings: mean validation accuracy of each trial, the chosen one bold",
        "",
        *_settings(cfg),
    ]
    (Path(cfg.out) / "answers.md").write_text("\n".join(text) + "\n")


def accuracies(answers: dict[str, Answers], mixtures: Iterable[str]) -> list[str]:
    """Make a line a method: the mean accuracy over the seeds, then each of them."""
    rows = [["", *mixtures]]
    for name, places in answers.items():
        cells = []
        for mixture in mixtures:
            seeds = [100 * sum(right.values()) / len(right) for (m, _), right in places.items() if m == mixture]
            each = f" ({' '.join(f'{x:.1f}' for x in seeds)})" if len(seeds) > 1 else ""
            cells.append(f"{sum(seeds) / len(seeds):.1f} %{each}")
        rows.append([name, *cells])
    return markdown_rows(rows)


def question_lines(questions: list[tuple], found: list[dict], mixtures: Iterable[str]) -> list[str]:
    """Make a line a question: points and p over problems for each mixture, in how many runs it holds, p over runs, and
    that after Holm's correction. found: what `compare` returned for each."""
    corrected = holm([answer["p_runs"] for answer in found])
    rows = [["question", *mixtures, "runs: better, equal, worse", "p over runs", "Holm"]]
    for (question, _, _), answer, p_holm in zip(questions, found, corrected, strict=True):
        cells = [f"{round(answer['points'][m], 1) + 0.0:+.1f} (p {_p(answer['p'][m])})" for m in mixtures]  # no -0.0
        gains = answer["runs"]
        kinds = [sum(gain > 0 for gain in gains), gains.count(0), sum(gain < 0 for gain in gains)]
        rows.append([question, *cells, " : ".join(map(str, kinds)), _p(answer["p_runs"]), _p(p_holm)])
    return markdown_rows(rows)


def _sizes(cfg):
    """Make a line a training set of the SFT stage: how many examples it has."""
    rows = [["", *cfg.mixtures]]
    for name, file in (SETS | AS_MANY).items():
        cells = []
        for mixture in cfg.mixtures:
            counts = [count_records(Replicate(cfg, mixture, seed).records(file)) for seed in cfg.seeds]
            cells.append(f"{min(counts)}–{max(counts)}")
        rows.append([name, *cells])
    return markdown_rows(rows)


def _settings(cfg):
    """Make a line a method: its trials and their accuracies, from what study.choose wrote."""
    rows = [["", "trials", *cfg.mixtures]]
    for stage, methods in (("sft", SETS), ("prefer", LOSSES)):
        found = {mixture: json.loads(Path(chosen_file(cfg, mixture, stage)).read_text()) for mixture in cfg.mixtures}
        for name in methods:
            cells = []
            for mixture in cfg.mixtures:
                choice = found[mixture][name]
                best = choice["trials"].index(choice["chosen"])
                scores = [f"{100 * score:.1f}" for score in choice["validation"]]
                cells.append(" · ".join(f"**{x}**" if n == best else x for n, x in enumerate(scores)))
            trials = found[mixture][name]["trials"]
            shown = "; ".join(" ".join(f"{key}={json.dumps(value)}" for key, value in t.items()) for t in trials)
            rows.append([name, shown, *cells])
    return markdown_rows(rows)


def _p(p):
    return "< .001" if p < 0.001 else f"= {p:.3f}"
