"""Today's students: one file each, and the recipe that walks them."""

import re

import pytest

import build_crv
import evaluate
import train_cogpo
import train_sft
from config import load
from data.render import Renderer
from pocket.tiny import FAMILIES, make_tokenizer
from tests.scripts.test_recipes import needs_venv, run, warm
from tests.support.scripts import ROOT

FOLDER = ROOT / "configs/students"
STUDENTS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in ("crv", "cogpo", "eval"))
RECIPE = (ROOT / "runs/students.sh").read_text()
USER = {"role": "user", "content": "2 birds?"}
REPLY = {"role": "assistant", "content": "<think>\n2*2=4\n</think>\n\n\\boxed{4}"}


def family(name):
    return next(f for f in sorted(FAMILIES, key=len, reverse=True) if name.startswith(f))


@pytest.mark.parametrize("name", STUDENTS)
def test_a_students_switches_are_read_and_its_chains_are_trained_whole(name):
    cfg = load(train_sft.Config, ["--config", str(FOLDER / f"{name}.yaml")])
    text = Renderer(make_tokenizer(family(name)), cfg.data.chat_template_kwargs).text([USER, REPLY])
    assert text.response.startswith("<think>") and text.response.endswith("\\boxed{4}")
    assert "2 birds?" in text.prompt and "think>" not in text.prompt
    # phase 2 has the same switches and lengths, and the paper's keys
    words = ["--config", str(FOLDER / f"{name}.yaml"), "--config", str(FOLDER / "cogpo.yaml")]
    second, paper = (
        load(train_cogpo.Config, words),
        load(train_cogpo.Config, ["--config", "configs/paper/cogpo_7b.yaml"]),
    )
    assert second.data.chat_template_kwargs == cfg.data.chat_template_kwargs
    assert second.data.max_length == cfg.data.max_length and second.data.file == "out/students/crv/pairs.jsonl"
    assert (second.optim, second.batch, second.epochs, second.loss) == (
        paper.optim,
        paper.batch,
        paper.epochs,
        paper.loss,
    )


def test_the_recipe_its_tiny_models_and_the_table_are_of_the_same_students():
    evaluated = load(evaluate.Config, ["--config", str(FOLDER / "eval.yaml")])
    listed = re.search(r'all="(.*)"', RECIPE)[1].split()
    assert sorted(listed) == STUDENTS == sorted(name for name in evaluated.models if f"{name}_sft" in evaluated.models)
    for name in STUDENTS:
        cfg = load(train_sft.Config, ["--config", str(FOLDER / f"{name}.yaml")])
        assert evaluated.models[name] == cfg.model.path and evaluated.models[f"{name}_sft"] == f"{cfg.out}/model"
        assert cfg.data.chat_template_kwargs.items() <= evaluated.chat_template_kwargs.items()
    crv = load(build_crv.Config, ["--config", str(FOLDER / "crv.yaml")])
    assert crv.response_style == "think" and crv.journal == "out/paper/crv_bespoke/journal.jsonl"


@pytest.mark.slow
@needs_venv
def test_smoke(tmp_path):
    """One student of each family, from the problems to the table; the second CRV run asks nothing."""
    one_each = "qwen3_1.7b smollm3_3b llama3.2_3b olmo2_1b"
    done = run("students", "--smoke", tmp_path, STUDENTS=one_each, **warm(launcher=False))
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (tmp_path / "out/students/crv/journal.jsonl").exists()
    text = (tmp_path / "out/students/eval/table.md").read_text()
    for name in one_each.split():
        assert all(f"{name}{phase}" in text for phase in ("", "_sft", "_cogpo"))
        card = (tmp_path / f"out/students/{name}/cogpo/model/README.md").read_text()
        assert "train_sft.py on `out/students/crv/sft.jsonl`" in card
