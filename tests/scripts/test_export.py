"""The exported model holds what was learnt, whatever its dtype, and other libraries read it as this project does."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

import model.session
from errors import UserError
from model.export import export
from model.load import WeightFiles
from pocket.tiny import make_model
from tests.support.scripts import cogpo_words, inside, run, sft_words, weights


def exported(out):
    return json.loads((Path(out) / "run.json").read_text())["export"]


def edit_json(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("script, words", [("train_sft.py", sft_words), ("train_cogpo.py", cogpo_words)])
def test_both_phases_export_float32_and_say_that_all_is_kept(tiny_qwen, files, tmp_path, capsys, script, words):
    line = [word for word in words(tiny_qwen, files, tmp_path / "o", epochs=1) if "export_dtype" not in word]
    inside(script, *line)
    assert {w.dtype for w in weights(tmp_path / "o").values()} == {torch.float32}
    assert exported(tmp_path / "o")["dtype"] == "float32" and exported(tmp_path / "o")["kept"] == 1.0
    assert f"saved as float32: 100.0% of the change since {tiny_qwen} (rms " in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_round_the_trained_weights_to_their_neighbours(tiny_qwen, files, tmp_path, dtype):
    for name in (dtype, "float32"):
        words = sft_words(tiny_qwen, files, tmp_path / name, model__export_dtype=name, epochs=1, optim__lr=1e-3)
        inside("train_sft.py", *words)
    exact, rounded = weights(tmp_path / "float32"), weights(tmp_path / dtype)
    eps, away = torch.finfo(getattr(torch, dtype)).eps, 0
    for name, value in exact.items():
        assert rounded[name].dtype == getattr(torch, dtype)
        error = (rounded[name].float() - value).abs()
        assert (error <= eps * value.abs() + 6e-8).all(), name
        away += (error > 0.51 * eps * value.abs()).sum()
    assert away > 0, "to nearest"
    assert exported(tmp_path / dtype)["kept"] == pytest.approx(1, abs=0.1)


def test_a_rounding_that_spoils_the_change_is_said_and_costs_nothing(tiny_qwen, files, tmp_path, capsys):
    """A rate of 1e-8 on weights of 0.2: the noise of rounding so few weights is larger than all that they learnt."""
    out = tmp_path / "o"
    words = cogpo_words(tiny_qwen, files, out, optim__lr=1e-8, epochs=1)
    inside("train_cogpo.py", *words, "model.export_dtype=bfloat16")
    assert abs(1 - exported(out)["kept"]) > 0.1
    said = capsys.readouterr().err
    assert f"delete {out}/model and run the same command again with model.export_dtype=float32" in said
    with pytest.raises(UserError, match=r"model\.export_dtype: 'bfloat16' there, 'float32' now"):
        inside("train_cogpo.py", *words)
    shutil.rmtree(out / "model")
    inside("train_cogpo.py", *words)
    assert exported(out)["kept"] == 1.0 and not (out / "checkpoints").exists()
    assert "resuming after step" in capsys.readouterr().err


def test_the_random_numbers_do_not_depend_on_ranks(tiny_qwen, files, tmp_path):
    """A rate at which float32 itself stands still: all runs hold the same weights."""
    words = {"model__export_dtype": "bfloat16", "optim__lr": 1e-60, "epochs": 1}
    run("train_sft.py", *sft_words(tiny_qwen, files, tmp_path / "one", **words))
    run("train_sft.py", *sft_words(tiny_qwen, files, tmp_path / "two", **words), ranks=2)
    assert exported(tmp_path / "two")["kept"] is None and exported(tmp_path / "two")["rms_change"] == 0.0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(w, one[name].float()) for name, w in load_file(f"{tiny_qwen}/model.safetensors").items())


def test_tied_weights_and_two_ranks(files, tmp_path):
    model = make_model(tmp_path / "tied", "llama", tie=True)
    run("train_sft.py", *sft_words(model, files, tmp_path / "o", model__export_dtype="bfloat16"), ranks=2)
    assert exported(tmp_path / "o")["kept"] == pytest.approx(1, abs=0.02)
    assert "lm_head.weight" not in weights(tmp_path / "o")


def test_adapters_are_merged_into_the_weights_of_the_file(tiny_qwen, files, tmp_path):
    """Frozen weights lie in the compute dtype during training; what an earlier phase learnt is in the file."""
    words = {"lora__rank": 2, "lora__targets": "[q_proj]", "epochs": 1, "model__compute_dtype": "bfloat16"}
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "o", **words), ranks=2)
    before, after = load_file(f"{tiny_qwen}/model.safetensors"), weights(tmp_path / "o")
    for name, value in before.items():
        if "q_proj.weight" in name:
            change = (after[name] - value).double()
            assert 0 < torch.linalg.matrix_rank(change, rtol=1e-3) <= 2 and change.abs().max() < 0.05
        else:
            assert torch.equal(after[name], value), name
    assert exported(tmp_path / "o")["kept"] == 1.0


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("target, module", [("embed_tokens", "model.embed_tokens"), ("lm_head", "lm_head")])
def test_adapters_of_the_embedding_or_the_head_are_refused_by_name(files, tmp_path, target, module, tie):
    base = make_model(tmp_path / "base", tie=tie)
    words = sft_words(base, files, tmp_path / "o", lora__rank=2, lora__targets=f"[q_proj, {target}]")
    with pytest.raises(UserError, match=rf"lora\.targets=.*: {module} cannot have an adapter"):
        inside("train_sft.py", *words)
    assert not (tmp_path / "o").exists()


def test_a_pattern_of_targets_that_is_none_is_refused(tiny_qwen, files, tmp_path):
    with pytest.raises(UserError, match=r"lora\.targets=q_\(proj: "):
        inside("train_sft.py", *sft_words(tiny_qwen, files, tmp_path / "o", lora__rank=2, lora__targets="q_(proj"))


def test_a_weight_that_float16_cannot_hold_is_refused_and_the_run_exported_otherwise(files, tmp_path):
    base = Path(make_model(tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    tensors["model.embed_tokens.weight"][300] = 1e5  # a token that occurs nowhere
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    words = sft_words(base, files, tmp_path / "o", epochs=1)
    with pytest.raises(UserError, match=r"model\.embed_tokens\.weight holds 1\d{5}, which float16 cannot"):
        inside("train_sft.py", *words, "model.export_dtype=float16")
    assert not (tmp_path / "o/model").exists()
    inside("train_sft.py", *words, "model.export_dtype=bfloat16")
    assert exported(tmp_path / "o")["dtype"] == "bfloat16"


def test_a_start_that_cannot_be_read_costs_the_measure_not_the_model(tiny_qwen, files, tmp_path, monkeypatch, capsys):
    """A hub's cache that was cleaned during the training, say."""

    def gone(*args):
        raise FileNotFoundError("model.safetensors")

    def trained_by_now(*args):
        monkeypatch.setattr(WeightFiles, "rows", gone)
        export(*args)

    monkeypatch.setattr(model.session, "export", trained_by_now)
    inside("train_sft.py", *sft_words(tiny_qwen, files, tmp_path / "o", epochs=1))
    assert "warning: no share of the change of model.embed_tokens.weight since" in capsys.readouterr().err
    assert weights(tmp_path / "o") and exported(tmp_path / "o")["kept"] is None


def test_settings_of_generation_that_cannot_be_saved_are_refused_before_training(files, tmp_path):
    base = Path(make_model(tmp_path / "base"))
    edit_json(base / "generation_config.json", num_beams=2, num_return_sequences=4)
    with pytest.raises(UserError, match=r"generation_config.json of .*num_return_sequences"):
        inside("train_sft.py", *sft_words(base, files, tmp_path / "o"))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 1e6},
        {
            "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 256,
        },
        {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 512},
    ],
    ids=lambda rope: rope["rope_type"],
)  # fmt: skip
def test_transformers_4_finds_its_keys(files, tmp_path, rope):
    base = Path(make_model(tmp_path / "base", "llama"))
    edit_json(base / "config.json", rope_parameters=rope)
    inside("train_sft.py", *sft_words(base, files, tmp_path / "o", epochs=1))
    config = json.loads((tmp_path / "o/model/config.json").read_text())
    assert config["rope_theta"] == rope["rope_theta"]
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    assert config["rope_scaling"] == (None if rope["rope_type"] == "default" else scaling)
    assert AutoConfig.from_pretrained(tmp_path / "o/model").rope_parameters == rope
    tokenizer = json.loads((tmp_path / "o/model/tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"  # a name that both versions know
    assert isinstance(tokenizer.get("extra_special_tokens", {}), dict)
