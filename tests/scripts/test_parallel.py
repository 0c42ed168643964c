"""More ranks, fewer bytes: sharding, start-up by rows, LoRA, recomputation and compilation change no trajectory."""

import math
import shutil
import signal
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file

from data.records import write_jsonl
from pocket.tiny import make_model
from tests.support.scripts import (
    ROOT,
    assert_same_run,
    cogpo_words,
    command,
    fails,
    metrics,
    run,
    sft_words,
    up_to_the_export,
    weights,
)
from tests.support.tiny import pair_rows


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Seven problems, of which three have one pair: four ranks never get the same."""
    folder = tmp_path_factory.mktemp("uneven")
    write_jsonl(folder / "pairs.jsonl", pair_rows(7))
    return folder


@pytest.fixture(scope="module")
def one_rank(tiny_qwen, uneven, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    run("train_cogpo.py", *words(tiny_qwen, uneven, out))
    return out


def words(model, uneven, out, **extra):
    held = {"heldout__file": uneven / "pairs.jsonl", "heldout__every_steps": 2, "batch__max_tokens": 300}
    return cogpo_words(model, uneven, out, **(held | extra))


def test_four_uneven_ranks_in_two_replicas_equal_one(one_rank, tiny_qwen, uneven, tmp_path):
    run("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "o", parallel__replicate=2), ranks=4)
    assert_same_run(one_rank, tmp_path / "o")
    for a, b in zip(metrics(one_rank), metrics(tmp_path / "o"), strict=True):
        assert a.keys() == b.keys()
        assert a.get("eval/loss") == pytest.approx(b.get("eval/loss"), abs=1e-5)


def test_three_ranks_with_recomputation_equal_one(one_rank, tiny_qwen, uneven, tmp_path):
    extra = {"parallel__activation_checkpointing": "full"}
    run("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "o", **extra), ranks=3)
    assert_same_run(one_rank, tmp_path / "o")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_layers_begin_at_ln_2_equal_eager_ones_and_resume_to_the_bit(dtype, tiny_qwen, uneven, tmp_path):
    """A resumed run meets rows in another order, and compiles its layers for others first."""
    keys = {"parallel__compile": "true", "model__compute_dtype": dtype, "batch__size": 6}
    whole, stopped = (words(tiny_qwen, uneven, tmp_path / name, **keys) for name in ("whole", "stopped"))
    run("train_cogpo.py", *whole)
    rows, out = metrics(tmp_path / "whole"), tmp_path / "stopped"
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    if dtype == "float32":
        run("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "eager", batch__size=6))
        assert_same_run(tmp_path / "eager", tmp_path / "whole")
    process = subprocess.Popen(command("train_cogpo.py", *stopped), cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None and not ((out / "metrics.jsonl").exists() and metrics(out)):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75 and len(metrics(out)) < len(rows) - 1
    run("train_cogpo.py", *stopped)
    resumed = weights(out)
    assert all(torch.equal(value, resumed[name]) for name, value in weights(tmp_path / "whole").items())


def test_replicas_must_divide_the_ranks(tiny_qwen, uneven, tmp_path):
    said = fails("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "o", parallel__replicate=2))
    assert "parallel.replicate=2 does not divide the 1 ranks" in said
    assert not (tmp_path / "o").exists()


def test_heldout_values_of_the_training_data_are_the_training_values(tiny_qwen, uneven, tmp_path):
    """One step holds all pairs, so the line's held-out loss is its training loss: both are of the same weights."""
    extra = {"batch__size": 1000, "epochs": 3, "heldout__every_steps": 1}
    run("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "o", **extra))
    rows = metrics(tmp_path / "o")
    assert [sorted(row)[0].startswith("eval/") for row in rows] == [True] * 4 and "loss" not in rows[-1]
    for row in rows[:-1]:
        for name in ("loss", "small/margin", "medium/chosen_logp", "large/accuracy"):
            assert row[f"eval/{name}"] == pytest.approx(row[name], abs=1e-4), name
    assert rows[-1]["eval/loss"] < rows[0]["eval/loss"]


def test_heldout_loss_of_sft(tiny_qwen, files, tmp_path):
    extra = {"batch__size": 1000, "heldout__every_steps": 1, "heldout__file": files / "sft.jsonl"}
    run("train_sft.py", *sft_words(tiny_qwen, files, tmp_path / "o", **extra))
    first, second, last = metrics(tmp_path / "o")
    assert first["eval/loss"] == pytest.approx(first["loss"], abs=1e-5)
    assert second["eval/loss"] == pytest.approx(second["loss"], abs=1e-5)
    assert last == {"step": 2, "eval/loss": last["eval/loss"]} and last["eval/loss"] < second["eval/loss"]


def test_looking_at_heldout_pairs_does_not_move_training(tiny_qwen, uneven, tmp_path):
    extra = {"loss__name": "beta_cogpo", "loss__alpha": 0.05, "epochs": 3}
    run("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "often", **extra, heldout__every_steps=1))
    run("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "never", **extra, heldout__file=""))
    often, never = metrics(tmp_path / "often"), metrics(tmp_path / "never")
    assert [row["loss"] for row in often[:-1]] == [row["loss"] for row in never]


def test_nll_term_is_the_mean_log_prob_of_chosen_responses(tiny_qwen, uneven, tmp_path):
    """One step over all pairs: loss = ln 2 + weight × mean over pairs of −log π(y_w)/|y_w|, here by transformers."""
    from transformers import AutoModelForCausalLM

    from data.dataset import DataConfig, load_pairs
    from data.render import Renderer
    from model.load import load_tokenizer

    extra = {"batch__size": 1000, "epochs": 1, "loss__nll_weight": 0.3, "heldout__file": ""}
    run("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "o", **extra))
    examples = load_pairs(DataConfig(str(uneven / "pairs.jsonl")), Renderer(load_tokenizer(tiny_qwen)), True)
    lm = AutoModelForCausalLM.from_pretrained(tiny_qwen)
    nll = []
    for pair in (pair for unit in examples.units for pair in unit.pairs):
        sequence = examples.sequences[pair.chosen]
        ids = torch.tensor(sequence.ids.tolist())[None]
        with torch.no_grad():
            logps = lm(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[sequence.prompt_len - 1 :]
        nll.append(-logps.mean().item())
    expected = torch.tensor(2.0).log().item() + 0.3 * sum(nll) / len(nll)
    assert metrics(tmp_path / "o")[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_lora_trains_adapters_alone_and_exports_a_plain_model(tiny_qwen, uneven, tmp_path):
    extra = {"lora__rank": 4, "optim__lr": 1e-2, "epochs": 3}
    run("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "one", **extra))
    run("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "two", **extra), ranks=2)
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert metrics(tmp_path / "one")[-2]["loss"] < 0.5
    before, after = load_file(f"{tiny_qwen}/model.safetensors"), weights(tmp_path / "one")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert changed == {n for n in before if (".self_attn." in n and "bias" not in n) or ".mlp." in n}


def test_lora_and_full_training_share_their_reference(tiny_qwen, uneven, tmp_path):
    """With B = 0 an adapter is an exact zero, so log π_ref is the same, and one cache serves both."""
    run("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "full"))
    cached = {p: p.stat().st_mtime_ns for p in (tmp_path / "reference").rglob("*.jsonl")}
    lines = [p.read_text() for p in cached]
    run("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "lora", lora__rank=4))
    assert [p.read_text() for p in (tmp_path / "reference").rglob("*.jsonl")] == lines


def test_lora_targets_that_do_not_exist(tiny_qwen, uneven, tmp_path):
    said = fails("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "o", lora__rank=4, lora__targets="[q_pro]"))
    assert "lora.targets=['q_pro']" in said and "Traceback" not in said


def test_frozen_weights_lie_in_the_compute_dtype(tiny_qwen):
    from model.load import ModelConfig, load_policy, load_tokenizer
    from model.lora import LoraConfig, is_adapter
    from model.parallel import Ranks

    model = load_policy(
        ModelConfig(tiny_qwen, compute_dtype="float32"), Ranks(), load_tokenizer(tiny_qwen), lora=LoraConfig(4)
    )
    assert {is_adapter(n) for n, p in model.named_parameters() if p.requires_grad} == {True}
    assert not any(p.requires_grad for n, p in model.named_parameters() if not is_adapter(n))


def test_offload_without_a_gpu_is_refused(tiny_qwen, uneven, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert "there is no GPU here" in fails(
        "train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "o", parallel__offload="true")
    )


COUNT_ROWS = """
import sys
import model.load as load
from model.load import ModelConfig, load_policy, load_tokenizer
from model.parallel import Ranks, own_rows

read = []

class Counted:
    def __init__(self, handle): self.handle = handle
    def keys(self): return self.handle.keys()
    def get_slice(self, name):
        whole = self.handle.get_slice(name)
        class Slice:
            get_shape = staticmethod(whole.get_shape)
            def __getitem__(self, part):
                rows = whole[part]
                read.append(rows.numel())
                return rows
        return Slice()

opened = load.safe_open
load.safe_open = lambda *args, **kwargs: Counted(opened(*args, **kwargs))
ranks = Ranks()
model = load_policy(ModelConfig(sys.argv[1]), ranks, load_tokenizer(sys.argv[1]))
held = sum(own_rows(p)[0].numel() for p in model.parameters())
whole = sum(p.numel() for p in model.parameters())
largest = max(p.numel() for p in model.parameters())
everywhere = ranks.gather((sum(read), held, max(read)))
if ranks.is_main:
    assert sum(r for r, _, _ in everywhere) == whole, everywhere  # each weight read once, by one rank
    assert all(r == h for r, h, _ in everywhere), everywhere
    assert all(m < largest for _, _, m in everywhere), everywhere
    open(sys.argv[2], "w").close()
"""


def test_each_rank_reads_its_own_rows_and_nothing_else(tiny_qwen, tmp_path):
    script = tmp_path / "count.py"
    script.write_text(COUNT_ROWS)
    run(script, tiny_qwen, tmp_path / "counted", ranks=3)
    assert (tmp_path / "counted").exists()


def test_weights_that_do_not_fit_the_config(uneven, tmp_path):
    """A missing weight, one of another shape, a damaged file, a file that the index names: one clear line each."""
    import json

    from safetensors.torch import save_file

    from errors import UserError
    from model.load import ModelConfig, load_policy, load_tokenizer
    from model.parallel import Ranks

    folder = tmp_path / "m"
    make_model(folder)
    tokenizer, whole = load_tokenizer(str(folder)), load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"

    def refused(match):
        with pytest.raises(UserError, match=match):
            load_policy(ModelConfig(str(folder)), Ranks(), tokenizer)

    save_file({k: v for k, v in whole.items() if k != name}, folder / "model.safetensors")
    refused("holds no weight named model.layers.1.mlp.up_proj.weight")
    save_file(whole | {name: whole[name][:, :-1].contiguous()}, folder / "model.safetensors")
    refused(r"has shape \[48, 31\], config.json asks for \[48, 32\]")
    (folder / "model.safetensors").write_bytes(b"not a tensor")
    refused("is damaged")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(whole, "model-00001-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused("lacks model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").unlink()
    refused("holds no ")


def test_a_second_copy_of_the_weights_is_not_read(tmp_path):
    """Some repositories hold consolidated.safetensors beside the indexed files."""
    import json

    from model.load import WeightFiles

    folder = tmp_path / "m"
    make_model(folder)
    (folder / "consolidated.safetensors").write_bytes(b"another format")
    index = {"weight_map": dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [file.name for file in WeightFiles(str(folder)).files] == ["model.safetensors"]


def test_a_hub_id_on_two_ranks(tiny_qwen, uneven, tmp_path, monkeypatch):
    """From the hub's own cache folder, as it stands after a download."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_qwen, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    run("train_cogpo.py", *words("someone/tiny", uneven, tmp_path / "hubbed", heldout__file=""), ranks=2, launched=True)
    run("train_cogpo.py", *words(tiny_qwen, uneven, tmp_path / "local", heldout__file=""))
    assert_same_run(tmp_path / "hubbed", tmp_path / "local")


def test_adapters_do_not_go_on_over_other_weights(files, tmp_path):
    base = make_model(tmp_path / "base")
    line = sft_words(base, files, tmp_path / "o", lora__rank=2, epochs=1)
    up_to_the_export("train_sft.py", line)
    shutil.rmtree(base)
    make_model(base, seed=1)
    assert "the content of model.path has changed" in fails("train_sft.py", *line)


def test_data_beyond_the_models_positions_is_told(tiny_qwen, files, tmp_path):
    import json

    folder = tmp_path / "m"
    shutil.copytree(tiny_qwen, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 40}))
    done = run("train_sft.py", *sft_words(folder, files, tmp_path / "o", epochs=1))
    assert "was made for 40 (max_position_embeddings)" in done.stderr
