"""Every recipe of runs/ walked whole with --smoke, and --plan as a person reads it."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from pocket import smoke
from tests.support.warm_python import python

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.stem for path in ROOT.glob("runs/*.sh") if re.match(r"(table|figure)\d|own_pairs", path.stem))
TOGETHER = {  # recipes that share runs walk in one folder, as they do in out/paper
    "bespoke": ["table2", "table6", "figure6", "table4", "own_pairs"],
    "others": ["table5", "table10", "table3", "table9"],
    "models": ["figure4", "figure5", "table1"],
}

needs_venv = pytest.mark.skipif(
    not (ROOT / ".venv/installed").exists(), reason="recipes run in .venv; bash runs/setup.sh makes it"
)


def warm(launcher):
    """A recipe's environment with a shell function `python` that starts no interpreter (tests/support/warm_python.py).

    In a subshell the command takes its place, so that $! is the command's own process. launcher: whether the first
    training of the recipe runs under torchrun.
    """
    line = f'{shlex.join(python())} "$@"'
    functions = {"python": f'if [ "$BASHPID" = "$$" ]; then {line}; else exec {line}; fi'}
    if not launcher:
        functions["torchrun"] = 'shift 3; python "$@"'  # --standalone --nproc_per_node 1
    return {f"BASH_FUNC_{name}%%": f"() {{ {body}; }}" for name, body in functions.items()}


def run(name, mode, folder, **environment):
    env = {**os.environ, "SMOKE": str(folder), "OMP_NUM_THREADS": "1", **environment}
    words = ["bash", f"runs/{name}.sh", mode]
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500)


def test_every_recipe_is_walked():
    assert sorted(name for names in TOGETHER.values() for name in names) == RECIPES
    assert {f"table{n}" for n in (1, 2, 3, 4, 5, 6, 9, 10)} | {f"figure{n}" for n in (4, 5, 6)} < set(RECIPES)


@pytest.mark.slow
@needs_venv
@pytest.mark.parametrize("group", TOGETHER)
def test_smoke(group, tmp_path):
    for name in TOGETHER[group]:
        done = run(name, "--smoke", tmp_path, **warm(launcher=name == "table2"))
        assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
        folder = tmp_path / "out/paper" / name
        assert {"table.md", "table.html", "table.tex", "table.png"} <= {path.name for path in folder.iterdir()}
        text = (folder / "table.md").read_text()
        config = yaml.safe_load((ROOT / f"configs/paper/{name}.yaml").read_text())
        for table in config.get("tables", {}).values():
            for column in table.get("columns", ()):  # each benchmark of each model was measured
                for benchmark in config["benchmarks"]:
                    assert re.search(rf"\| {re.escape(benchmark)} \| {re.escape(column)} \| \d", text), (
                        benchmark,
                        column,
                    )
    if group == "others":  # Table 5 rated OpenThoughts: its ratings are in the journal that the larger run shares
        first, second = (
            json.loads((tmp_path / "out/paper" / name / "report.json").read_text())
            for name in ("crv_table5", "crv_openthoughts")
        )
        assert not (tmp_path / "out/paper/crv_table5/journal.jsonl").exists()
        lines = (tmp_path / "out/paper/crv_openthoughts/journal.jsonl").read_text().splitlines()
        assert len({json.loads(line)["key"] for line in lines}) == len(lines)
        assert first["problems"]["input"] == second["problems"]["input"] > 0
    if group == "models":
        report = json.loads((tmp_path / "out/paper/crv_table1_1.5b/report.json").read_text())
        assert report["problems"]["input"] > 0
    kept = {path.parent.parent.name for path in (tmp_path / "out/paper").glob("*/model/config.json")}
    before = {name: (tmp_path / "out/paper" / name / "model/model.safetensors").stat().st_mtime_ns for name in kept}
    done = run(TOGETHER[group][0], "--smoke", tmp_path, **warm(launcher=False))  # what is there is not made again
    assert done.returncode == 0, done.stderr[-3000:]
    after = {name: (tmp_path / "out/paper" / name / "model/model.safetensors").stat().st_mtime_ns for name in kept}
    assert before == after and "responses to generate" not in done.stderr


QWEN_7B = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584,
    "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
}  # fmt: skip


@pytest.mark.slow
@needs_venv
def test_plan(tmp_path):
    """The hub's config.json is all that it needs; here it lies in the hub's cache."""
    cache = tmp_path / "hub/models--Qwen--Qwen2.5-7B-Instruct"
    for file, text in {"refs/main": "0" * 40, f"snapshots/{'0' * 40}/config.json": json.dumps(QWEN_7B)}.items():
        (cache / file).parent.mkdir(parents=True, exist_ok=True)
        (cache / file).write_text(text)
    done = run("table2", "--plan", tmp_path, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1", GPUS="8")
    assert done.returncode == 0, done.stderr[-3000:]
    runs = re.findall(r"^time: ([\d.]+) h: \d+ steps", done.stdout, re.MULTILINE)
    assert len(runs) == 6 and "16710 problems" in done.stdout and "120,918 responses" in done.stdout
    hours, shown = re.search(r"training together: (\d+) GPU-hours \(6 runs, ([\d.]+) h on 8 GPUs", done.stdout).groups()
    assert float(shown) == pytest.approx(sum(map(float, runs)), abs=0.1)
    assert int(hours) == pytest.approx(8 * float(shown), abs=1)
    assert done.stdout.count("of 80: fits") == 6


def sourced(commands, folder, used):
    """Run a recipe's commands with an nvidia-smi that shows so many MiB in use; trainings only say that they start."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho \"$@\" >> {folder}/asked\nprintf '{used}'\n")
    tool.chmod(0o755)
    script = f"source runs/recipe.sh; PATH={folder}:$PATH; torchrun() {{ echo started; }}; {commands}"
    env = {**os.environ, "GPUS": "2", "CUDA_VISIBLE_DEVICES": "4,5"}
    return subprocess.run(["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


@needs_venv
def test_no_training_beside_the_teacher(tmp_path):
    done = sourced("sft sft_7b", tmp_path, "120\\n71000\\n")
    assert done.returncode == 3 and "started" not in done.stdout
    assert "error: the next step needs the GPUs, but 71000 MiB of one are in use; stop the teacher's" in done.stderr
    assert "-i 4,5" in (tmp_path / "asked").read_text()
    done = sourced("sft sft_7b", tmp_path, "120\\n3\\n71000\\n")  # the third one is not ours
    assert done.returncode == 0 and done.stdout == "started\n"


@needs_venv
def test_served_models_reach_the_evaluation_and_the_chains(tmp_path):
    served = "models.32B=endpoint:big endpoints.big.model=big"
    commands = f'python() {{ echo "$*"; }}; EVALUATE="{served}"; table chains batch_size=2; '
    commands += "chains MATH-500 7B org/seven a.jsonl; chains MATH-500 32B org/big b.jsonl"
    evaluated, seven, big = sourced(commands, tmp_path, "0").stdout.splitlines()
    assert evaluated.endswith(f"configs/paper/chains.yaml {served} batch_size=2")
    assert "model=org/seven out=a.jsonl" in seven and "model=endpoint:big out=b.jsonl" in big


def test_all_crv_comes_before_the_trainings():
    for name in RECIPES:
        steps = re.findall(r"^ *(crv|sft|prefer|students) ", (ROOT / f"runs/{name}.sh").read_text(), re.MULTILINE)
        assert steps == sorted(steps, key=lambda step: step != "crv"), name


def test_a_killed_preparation_of_smoke_starts_over(tmp_path):
    """A model folder is there whole or not at all, and the file that is looked for is written last."""
    (tmp_path / "one.partial").mkdir()
    (tmp_path / "one.partial/config.json").write_text("{")
    command = [*python(), "-m", "pocket.tiny", f"qwen2={tmp_path / 'one'}"]
    slow = "import pocket.tiny as t, os, sys; os.rename = lambda *_: sys.exit(9); "
    slow += "import runpy; sys.argv[0] = 'x'; runpy.run_module('pocket.tiny', run_name='__main__')"
    assert subprocess.run([*python(), "-c", slow, command[-1]], cwd=ROOT).returncode == 9
    assert not (tmp_path / "one").exists() and (tmp_path / "one.partial").exists()
    subprocess.run(command, cwd=ROOT, check=True)
    assert (tmp_path / "one/model.safetensors").exists() and not (tmp_path / "one.partial").exists()

    smoke.main(tmp_path)
    files = sorted(tmp_path.glob("*/*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    assert len(files) == 10 and files[-1] == tmp_path / "problems/openthoughts_114k.jsonl"
    assert "[ -e problems/openthoughts_114k.jsonl ] ||" in (ROOT / "runs/recipe.sh").read_text()


@needs_venv
@pytest.mark.parametrize(("words", "name"), [("--full no_such=1", "micro"), ("--full smollm2 no_such=1", "smollm2")])
def test_the_study_takes_words_without_a_name(words, name):
    done = subprocess.run(["bash", "runs/pocket.sh", *words.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "no_such" in done.stderr and "Traceback" not in done.stderr


@needs_venv
def test_unknown_word(tmp_path):
    done = run("table2", "--smok", tmp_path)
    assert done.returncode == 2 and "unknown word --smok; use --plan, --smoke or nothing" in done.stderr
