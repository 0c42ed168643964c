"""docs/interchange.md: its TRL recipe for CogPO trains as train_cogpo.py does. Needs bench/requirements.txt."""

import re

import pytest

from pocket.tiny import make_model
from tests.support.scripts import ROOT, cogpo_words, metrics, run

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGE = (ROOT / "docs/interchange.md").read_text(encoding="utf-8")


def test_cogpo_in_trl_is_ours(files, tmp_path):
    pytest.importorskip("trl", reason="pip install -r bench/requirements.txt")
    (recipe,) = (block for block in BLOCK.findall(PAGE) if "CogPOTrainer" in block)
    model = make_model(tmp_path / "model", "llama")  # its template ends with the turn: the same tokens on both sides
    pairs = files / "pairs.jsonl"
    count = len(pairs.read_text().splitlines())
    for old, new in (
        ('"out/pocket/seed0/crv_sft/model"', repr(model)),
        ('"out/pocket/crv/pairs.jsonl"', repr(str(pairs))),
        ('"out/trl_cogpo"', repr(str(tmp_path / "trl"))),
        ("learning_rate=5e-7", "learning_rate=1e-3, num_train_epochs=3, logging_steps=1, report_to='none'"),
        ("warmup_steps=0.1", "warmup_steps=0, use_cpu=True, bf16=False, save_strategy='no', optim='adamw_torch_fused'"),
        ("gradient_accumulation_steps=96", f"gradient_accumulation_steps={count}"),
    ):
        assert old in recipe, old
        recipe = recipe.replace(old, new)
    names = {}
    exec(recipe, names)
    theirs = [line["loss"] for line in names["trainer"].state.log_history if "loss" in line]
    extra = {"batch.size": count, "epochs": 3, "optim.warmup": 0}
    run("train_cogpo.py", *cogpo_words(model, files, tmp_path / "ours", **extra))
    ours = [line["loss"] for line in metrics(tmp_path / "ours")]
    print(theirs, ours)
    assert theirs == pytest.approx(ours, abs=2e-4) and min(ours) < 0.6
