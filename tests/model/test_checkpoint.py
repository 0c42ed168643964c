"""Checkpoints and the export on small modules: snapshots, atomic writes, resharding, full disks, kills at any time."""

import json
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from errors import UserError
from model.checkpoint import on_main
from model.export import export
from model.logprobs import LogProbModel
from model.parallel import Ranks
from pocket.tiny import make_model
from tests.support.small_runs import (
    FORKS,
    assert_equal,
    config,
    files_up_to,
    full_disk_on_rank_1,
    make,
    on_ranks,
    saver,
    train_and_save,
    train_step,
    train_to,
    whole,
)  # fmt: skip


def listing(out):
    return sorted(p.name for p in (Path(out) / "checkpoints").iterdir())


def test_a_save_is_a_snapshot(tmp_path):
    """Weights and moments are those of the moment of `save`, whatever training does while the thread writes."""
    model, optimizer = make(width=512)
    train_step(model, optimizer, 0)
    before, moments = whole(model), [s["exp_avg"].clone() for s in optimizer.state.values()]
    saving = saver(tmp_path)
    saving.save(1, model, optimizer, {"inputs": {}, "more": [1, 2]})
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(7.0)
            optimizer.state[p]["exp_avg"].fill_(7.0)
    assert not (tmp_path / "checkpoints" / "step-000001").exists(), "training had to wait for the file"
    saving.wait()

    other, other_optimizer = make(width=512)
    extra = saver(tmp_path).load_latest(other, other_optimizer, {})
    assert extra == {"inputs": {}, "more": [1, 2], "step": 1}
    assert_equal(before, whole(other))
    assert_equal(moments, [s["exp_avg"] for s in other_optimizer.state.values()])


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    model, optimizer = make()
    saving = saver(tmp_path)
    for step in range(6):
        train_step(model, optimizer, step)
        if step == 2:
            saving.save(3, model, optimizer, {"inputs": {}})
    saving.wait()
    other, other_optimizer = make()
    start = saver(tmp_path).load_latest(other, other_optimizer, {})["step"]
    for step in range(start, 6):
        train_step(other, other_optimizer, step)
    assert_equal(whole(model), whole(other))


def test_the_last_ones_are_kept_and_leftovers_go(tmp_path):
    model, optimizer = make()
    saving = saver(tmp_path, keep=2)
    for step in (1, 2, 3, 10):
        saving.save(step, model, optimizer, {"inputs": {}})
    saving.wait()
    assert listing(tmp_path) == ["step-000003", "step-000010"]
    shutil.copytree(tmp_path / "checkpoints" / "step-000010", tmp_path / "checkpoints" / "step-000011.partial")
    assert saver(tmp_path).load_latest(model, optimizer, {})["step"] == 10
    assert listing(tmp_path) == ["step-000003", "step-000010"]


def test_only_what_is_trained_is_saved(tmp_path):
    model, optimizer = make(frozen=True, width=256)
    train_step(model, optimizer, 0)
    saving = saver(tmp_path)
    saving.save(1, model, optimizer, {"inputs": {}})
    saving.wait()
    (file,) = (tmp_path / "checkpoints" / "step-000001").glob("*.distcp")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert file.stat().st_size < 4 * 3 * trained + 100_000  # weight and two moments; the frozen part is 500 kB

    other, other_optimizer = make(frozen=True, width=256)
    with torch.no_grad():
        other[0].weight.fill_(5.0)
    saver(tmp_path).load_latest(other, other_optimizer, {})
    assert_equal(whole(model[2]), whole(other[2]))
    assert (other[0].weight == 5.0).all()


def test_a_full_disk_is_one_line_and_costs_nothing(tmp_path):
    model, optimizer = make()
    saving = saver(tmp_path, every_steps=1)
    saving.after_step(1, 9, model, optimizer, {"inputs": {}})
    saving.wait()
    with files_up_to(100_000):
        saving.after_step(2, 9, model, optimizer, {"inputs": {}})
        while not saving.pending.done():
            time.sleep(0.01)
        assert saving.failed
        with pytest.raises(UserError, match=r"cannot write .*checkpoints/step-000002: File too large"):
            saving.after_step(3, 9, model, optimizer, {"inputs": {}})
    assert listing(tmp_path) == ["step-000001"]
    assert saver(tmp_path).load_latest(model, optimizer, {})["step"] == 1


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "extra.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_checkpoint_is_one_line_and_the_one_before_serves(tmp_path, name, damage):
    model, optimizer = make()
    saving = saver(tmp_path)
    for step in (1, 2):
        saving.save(step, model, optimizer, {"inputs": {}})
    saving.wait()
    file = tmp_path / "checkpoints/step-000002" / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2]) if damage == "cut" else file.unlink()
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*step-000002 .* delete that folder"):
        saver(tmp_path).load_latest(model, optimizer, {})
    shutil.rmtree(file.parent)
    assert saver(tmp_path).load_latest(model, optimizer, {})["step"] == 1


# -- many ranks: processes with gloo, as torchrun would start them


def test_resume_on_another_number_of_ranks(tmp_path):
    model, optimizer = make()
    for i, count in enumerate((4, 2, 1, 2), start=1):
        on_ranks(count, train_to, tmp_path, 3 * i)
        for step in range(3 * i - 3, 3 * i):
            train_step(model, optimizer, step)
        assert_equal(whole(model), torch.load(tmp_path / f"at-{3 * i}.pt"), 1e-5)


def test_a_full_disk_on_one_rank_is_told_to_all(tmp_path):
    on_ranks(2, full_disk_on_rank_1, tmp_path)
    assert listing(tmp_path) == ["step-000001"]


# -- kills


def test_killed_again_and_again_is_bit_identical(tmp_path):
    """SIGKILL at random moments, most of them during a save, until a run comes through."""
    rng, kills, torn = random.Random(0), 0, 0
    (tmp_path / "whole").mkdir()
    train_and_save(tmp_path / "whole")
    out = tmp_path / "killed"
    out.mkdir()
    while not (out / "final.pt").exists():
        process = FORKS.Process(target=train_and_save, args=(out,))
        process.start()
        while process.is_alive() and not (out / "alive").exists():
            time.sleep(0.002)
        process.join(rng.uniform(0.0, 0.15) if kills < 15 else 60)
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
            torn += any((out / "checkpoints").glob("*.partial"))
        else:
            assert process.exitcode == 0, "what a kill left behind stopped the next run"
        (out / "alive").unlink(missing_ok=True)
    assert kills >= 3 and torn >= 1, (kills, torn)
    assert_equal(torch.load(tmp_path / "whole" / "final.pt"), torch.load(out / "final.pt"))


# -- export


def load(folder):
    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return LogProbModel(lm), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("tie", [False, True])
def test_the_export_comes_in_files_that_transformers_opens(tmp_path, tie):
    model, tokenizer = load(make_model(tmp_path / "from", "qwen2", tie=tie))
    export(config(tmp_path), model, tokenizer, Ranks(), {}, shard_bytes=50_000)
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(files) > 2 and files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    for file in files:
        with safe_open(file, "pt") as opened:
            assert {index["weight_map"][name] for name in opened.keys()} == {file.name}  # noqa: SIM118
            assert file.stat().st_size < 52_000 or len(list(opened.keys())) == 1
    assert ("lm_head.weight" in index["weight_map"]) == (not tie)
    assert index["metadata"]["total_size"] == sum(4 * p.numel() for p in model.lm.parameters())
    again, _ = load(tmp_path / "model")
    for name, value in model.lm.state_dict().items():
        assert torch.equal(value, again.lm.state_dict()[name]), name


def test_a_full_disk_is_one_line_from_every_library_that_writes(tmp_path):
    _, tokenizer = load(make_model(tmp_path / "from"))
    for write in (tokenizer.backend_tokenizer.save, lambda full: Path(full).write_text("x")):
        with pytest.raises(UserError, match=r"cannot write the target: No space left on device"):
            on_main(Ranks(), "the target", lambda write=write: write("/dev/full"))
    with pytest.raises(ZeroDivisionError):
        on_main(Ranks(), "the target", lambda: 1 / 0)


def test_a_full_disk_during_the_export_leaves_the_checkpoints(tmp_path):
    model, tokenizer = load(make_model(tmp_path / "from"))
    (tmp_path / "checkpoints").mkdir()
    with files_up_to(20_000), pytest.raises(UserError, match=r"cannot write .*model-00001-of-.*File too large"):
        export(config(tmp_path), model, tokenizer, Ranks(), {}, shard_bytes=50_000)
    assert not (tmp_path / "model").exists() and (tmp_path / "checkpoints").exists()
    export(config(tmp_path), model, tokenizer, Ranks(), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["from", "model", "run.json"]
