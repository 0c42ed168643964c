"""Exports on the way: what they hold, that a killed run leaves none half-written and none of other data."""

import json

import pytest
from safetensors.torch import load_file

from tests.support.scripts import cogpo_words, inside, run, sft_words, weights

HALF = {"checkpoint__export_every_steps": 2, "epochs": 2}  # 6 steps of 20 examples


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_export_on_the_way_is_the_model_of_that_step(tiny_qwen, files, tmp_path, monkeypatch):
    """… to the last bit that of the same run killed right then; resumed, it is the run that nobody stopped."""
    out, stopped = tmp_path / "whole", tmp_path / "stopped"
    inside("train_sft.py", *sft_words(tiny_qwen, files, out, **HALF))
    assert sorted(p.name for p in (out / "exports").iterdir()) == [
        "step-000002", "step-000002.json", "step-000004", "step-000004.json",
    ]  # fmt: skip
    two, four = (load_file(out / f"exports/step-00000{n}/model.safetensors") for n in (2, 4))
    last, norm = weights(out), "model.norm.weight"
    assert len({float(w[norm].sum()) for w in (two, four, last)}) == 3
    record = json.loads((out / "exports/step-000004.json").read_text())
    assert record["step"] == 4 and record["export"]["kept"] == 1.0
    card = (out / "exports/step-000004/README.md").read_text()
    assert "| steps | 4 of 8 examples" in card and "(3) |" in card and "(4) |" not in card and "(5) |" not in card

    # stopped after the third step, with a later export that is not its own any more
    import model.session as session

    save = session.Saver.after_step

    def killed(self, step, *args):
        save(self, step, *args)
        if step == 3:
            self.wait()
            raise KeyboardInterrupt

    words = sft_words(tiny_qwen, files, stopped, **HALF, checkpoint__every_steps=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(session.Saver, "after_step", killed)
        inside("train_sft.py", *words)
    assert not (stopped / "model").exists()
    (stopped / "exports/step-000004.partial").mkdir()
    (stopped / "exports/step-000004").mkdir()
    (stopped / "exports/step-000004/model.safetensors").write_text("of other data")
    before = (stopped / "exports/step-000002/model.safetensors").stat().st_mtime_ns
    inside("train_sft.py", *words)
    assert (stopped / "exports/step-000002/model.safetensors").stat().st_mtime_ns == before
    assert tree(stopped / "exports") == tree(out / "exports")
    for name in ("exports/step-000002", "exports/step-000004", "model"):
        file = f"{name}/model.safetensors"
        assert (stopped / file).read_bytes() == (out / file).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
def test_ranks_export_together_and_train_on_as_if_they_had_not(tiny_qwen, files, tmp_path, rank):
    words = {"checkpoint__export_every_steps": 3, "epochs": 1, "lora__rank": rank}
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "o", **words), ranks=2)
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "none", epochs=1, lora__rank=rank), ranks=2)
    last = [(tmp_path / out / "model/model.safetensors").read_bytes() for out in ("o", "none")]
    assert last[0] == last[1] and not (tmp_path / "none/exports").exists()
    names = sorted(p.name for p in (tmp_path / "o/exports").glob("step-*[0-9]"))
    assert names == ["step-000003", "step-000006"]
    assert all((tmp_path / f"o/exports/{name}/README.md").is_file() for name in names)
