"""What the code computed when the golden files were written: losses, training records and grades are still those.

    python -m pytest tests/scripts/test_golden.py                  compares
    python -m tests.scripts.test_golden [losses] [crv] [grades]    writes tests/golden/<name>.json anew; else all

A difference is a defect, or it is meant: then write the file anew and say in the commit what moved and why.

losses    20 steps of configs/tiny by SFT, CogPO, DPO and SimPO; one rank and two (gloo) give the same
crv       SHA-256 of the records of the pocket run's first stages: configs/pocket/{problems,crv}.yaml, scripted teacher;
          also without the records' provenance, which no training reads
grades    a letter for every answer of the labelled corpora in ../shared/data
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

import train_cogpo
import train_sft
from config import load
from data.rows import iter_rows
from grading.answers import grade
from grading.choices import choice
from pocket.tiny import make_model
from tests.support.small_runs import on_ranks
from tests.support.teacher import free_port, scripted_teacher
from tests.support.warm_python import python

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden"
CORPORA = ROOT.parent / "shared/data"

# -- losses

RUNS = {  # name: (script, its config in configs/tiny, its data there, further words)
    "sft": (train_sft, "sft.yaml", "sft.jsonl", []),
    "cogpo": (train_cogpo, "cogpo.yaml", "pairs.jsonl", []),
    "dpo": (train_cogpo, "cogpo.yaml", "pairs.jsonl", ["loss.name=dpo"]),
    "simpo": (train_cogpo, "cogpo.yaml", "pairs.jsonl", ["loss.name=simpo"]),
}
# With SSE4, AVX2 and AVX-512 kernels, one and two threads, one and two ranks, no loss of the 20 steps differed by more
# than 6e-6 (rounding, amplified by the steps). β 0.1 -> 0.101 moves CogPO's by up to 5e-4.
TOLERANCE = 5e-5


def losses(folder):
    """`losses_of` runs made on one rank"""
    make_model(folder / "student")
    train_all(None, folder)
    return losses_of(folder, 1)


def losses_of(folder, ranks):
    """{run: the loss of each step}, in which one rank and two may not differ, from the metrics that `train_all` left"""
    rows = {name: (folder / f"{name}-{ranks}/metrics.jsonl").read_text().splitlines() for name in RUNS}
    return {name: [round(json.loads(line)["loss"], 6) for line in lines] for name, lines in rows.items()}


def train_all(ranks, folder, ports=None):
    """Make every run in this process, alone or as one of several ranks. ports: of each run's process group."""
    for number, (name, (script, config, data, words)) in enumerate(RUNS.items()):
        if ports:
            os.environ["MASTER_PORT"] = str(ports[number])
        out = folder / f"{name}-{ranks.count if ranks else 1}"
        words = [f"model.path={folder}/student", f"data.file={ROOT}/configs/tiny/{data}", f"out={out}", *words]
        words += [f"reference_cache={out}-reference"] if script is train_cogpo else []
        script.main(load(script.Config, ["--config", f"{ROOT}/configs/tiny/{config}", *words]))


def differences(found):
    """Every loss that is not the golden one."""
    golden = read("losses")
    assert found.keys() == golden.keys()
    return [
        f"{name}, step {step}: {now}, was {before}"
        for name in golden
        for step, (now, before) in enumerate(zip(found[name], golden[name], strict=True))
        if abs(now - before) > TOLERANCE
    ]


# -- crv

RECORDS = ("sft_original.jsonl", "sft.jsonl", "pairs.jsonl")


def crv(folder):
    """{file: SHA-256}; "<file> without provenance" is of its records without that key."""

    def run(*words):
        done = subprocess.run([*python(), *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]

    run("-m", "pocket.problems", "--config", "configs/pocket/problems.yaml", f"out={folder}")
    with scripted_teacher() as url:
        words = [f"problems={folder}/problems.jsonl", f"out={folder}/crv", f"endpoints.teacher.base_url={url}"]
        run("build_crv.py", "--config", "configs/pocket/crv.yaml", *words)
    found = {"problems.jsonl": sha256((folder / "problems.jsonl").read_bytes())}
    for name in RECORDS:
        found[name] = sha256((folder / "crv" / name).read_bytes())
        rows = [{k: v for k, v in row.items() if k != "provenance"} for _, row in iter_rows(folder / "crv" / name)]
        found[f"{name} without provenance"] = sha256(json.dumps(rows, sort_keys=True).encode())
    return found


def sha256(content):
    return hashlib.sha256(content).hexdigest()


# -- grades

BOMBS = "math_cases-bm"  # answers of field_cases/math.jsonl that take seconds to compare: whether in time, varies
LETTERS = {"correct": "c", "wrong": "w", "no_answer": "n", "truncated": "u", "timeout": "t", "error": "e"}


def by_box(row):
    tolerance = row.get("precision")
    tolerance = json.loads(tolerance) if isinstance(tolerance, str) else tolerance
    return [partial(grade, f"\\boxed{{{row['pred']}}}", row["gold"], tolerance=tolerance)]


def by_text(row):
    return [partial(grade, row["pred_text"], row["gold"])]


def by_response(row):
    return [] if row["id"].startswith(BOMBS) else [partial(grade, row["response"], row["gold"])]


def by_option(row):
    letters = "ABCDEFGHIJ"[: len(row["options"])] if row["options"] else "ABCD"
    return [partial(choice, row["response"], letters, row["options"])]


LABELLED = {  # file: what is to be graded in one of its rows
    "field_cases/choice.jsonl": by_option,
    "field_cases/math.jsonl": by_response,
    "grader_pairs/handmade_nasty.jsonl": by_text,
    "grader_pairs/inspect_ai_math_cases.jsonl": by_text,
    "grader_pairs/math_verify_own_tests.jsonl": by_text,
    "grader_pairs/nemo_skills_test_math_equal.jsonl": by_box,
    "grader_pairs/olympiadbench_multi_answer_derived.jsonl": by_box,
    "grader_pairs/olympiadbench_scoring_examples.jsonl": by_box,
    "grader_pairs/thought_anchors_r1distill_answers.jsonl": by_box,
    "gsm8k/example_model_solutions.jsonl": lambda row: [
        partial(grade, solution["solution"], row["ground_truth"].rpartition("A:")[2].strip())
        for solution in row.values()
        if isinstance(solution, dict)
    ],
    "long_cot/camel_deepseek_r1_gsm8k_traces.jsonl": lambda row: [partial(grade, row["final_trace"], row["solution"])],
    "mr_gsm8k_subset/mr_gsm8k_subset.jsonl": lambda row: [
        partial(grade, "\n".join(row["model_output_steps"]), str(row["ground_truth_answer"]))
    ],
    "qwen25math_rm_maj_example/math_cot_100.jsonl": lambda row: [
        partial(grade, c, str(row["gt"])) for c in row["code"]
    ],
}


def grades(_=None):
    """{file: {"counts": {letter: how many}, "letters": one per answer, in the file's order}}"""
    found = {}
    with ThreadPoolExecutor(2) as pool:  # threads only wait
        for file, questions in LABELLED.items():
            asked = [question for _, row in iter_rows(CORPORA / file) for question in questions(row)]
            verdicts = [future.result() for future in [pool.submit(question) for question in asked]]
            letters = "".join(v or "-" if isinstance(v, str | None) else LETTERS[v.status] for v in verdicts)
            found[file] = {"counts": dict(sorted(Counter(letters).items())), "letters": letters}
    return found


# -- compare, or write anew


def read(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def test_losses_on_one_rank(tmp_path):
    assert differences(losses(tmp_path)) == []


def test_losses_on_two_ranks(tmp_path):
    make_model(tmp_path / "student")
    on_ranks(2, train_all, tmp_path, [free_port() for _ in RUNS])
    assert differences(losses_of(tmp_path, 2)) == []


def test_records_of_the_pocket_run(tmp_path):
    pytest.importorskip("reasoning_gym", reason="the pocket problems need requirements-pocket.txt")
    found, golden = crv(tmp_path), read("crv")
    assert found.keys() == golden.keys()
    differ = [name for name in golden if found[name] != golden[name]]
    assert not differ, f"other records than before: {', '.join(differ)}"


@pytest.mark.slow
@pytest.mark.skipif(not CORPORA.is_dir(), reason="the labelled corpora are not here")
def test_grades_of_the_labelled_corpora():
    found, golden = grades(), read("grades")
    assert found.keys() == golden.keys()
    differ = []
    for file in golden:
        pairs = enumerate(zip(found[file]["letters"], golden[file]["letters"], strict=True))
        differ += [f"{file}, answer {n}: {now}, was {before}" for n, (now, before) in pairs if now != before]
    assert not differ, f"{len(differ)} grades differ:\n" + "\n".join(differ)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for maker in [globals()[name] for name in sys.argv[1:]] or [losses, crv, grades]:
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(maker(Path(folder)), indent=1)
        (GOLDEN / f"{maker.__name__}.json").write_text(text + "\n")
