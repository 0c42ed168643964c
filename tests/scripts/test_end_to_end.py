"""The whole paper through the four command lines, as runs/pocket.sh does it, with a tiny student and a few problems."""

import json
import subprocess
from pathlib import Path

import pytest

from pocket.tiny import make_model
from tests.support.teacher import scripted_teacher
from tests.support.warm_python import python

ROOT = Path(__file__).resolve().parents[2]


def run(*words):
    command = [*python(), *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def teacher():
    with scripted_teacher() as url:
        yield url


@pytest.mark.slow
def test_from_problems_to_the_table(teacher, tmp_path):
    pytest.importorskip("reasoning_gym", reason="the pocket problems need requirements-pocket.txt")
    student = make_model(tmp_path / "student", "qwen2")
    out = tmp_path / "out"
    run(
        "-m",
        "pocket.problems",
        "--config",
        "configs/pocket/problems.yaml",
        f"out={out}",
        "train_problems=24",
        "test_problems=6",
    )

    crv = ["build_crv.py", "--config", "configs/pocket/crv.yaml", f"problems={out}/problems.jsonl", f"out={out}/crv"]
    run(*crv, f"endpoints.teacher.base_url={teacher}")
    report = json.loads((out / "crv" / "report.json").read_text())["problems"]
    assert report["input"] == report["kept"] + report["rejected"] == 24 and report["kept"] > 12

    sft = ["train_sft.py", "--config", "configs/pocket/sft.yaml", f"model.path={student}", "optim.lr=1e-2"]
    run(*sft, f"data.file={out}/crv/sft_original.jsonl", f"out={out}/sft")
    run(*sft, f"data.file={out}/crv/sft.jsonl", f"out={out}/crv_sft")
    cogpo = ["train_cogpo.py", "--config", "configs/pocket/cogpo.yaml", f"model.path={out}/crv_sft/model"]
    run(*cogpo, f"data.file={out}/crv/pairs.jsonl", f"reference_cache={out}/reference", f"out={out}/cogpo")
    gaps = json.loads((out / "cogpo" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"small/loss", "medium/loss", "large/loss"} <= gaps.keys()

    evaluate = ["evaluate.py", "--config", "configs/pocket/eval.yaml", f"out={out}/eval", f"report={out}"]
    evaluate += [f"benchmarks.leg_counting.file={out}/test.jsonl", "max_new_tokens=48", f"models.base={student}"]
    evaluate += [f"models.{name}={out}/{name}/model" for name in ("sft", "crv_sft", "cogpo")]
    done = run(*evaluate)
    for part in ("base", "SFT", "CRV+SFT", "CogPO", "/6)", "scripted teacher"):
        assert part in done.stdout
    assert {"table.md", "table.html", "table.png"} <= {p.name for p in out.iterdir()}
