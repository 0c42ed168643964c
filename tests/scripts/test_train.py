"""The two training scripts through their command lines, on tiny models, and the invariances they promise.

Runs that must follow the same trajectory (whatever the micro-batching, packing, ranks, deduplication) are
compared by their exported weights and their metrics.
"""

import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.records import write_jsonl
from pocket.tiny import make_model
from tests.support.scripts import (
    ROOT,
    assert_same_run,
    cogpo_words,
    command,
    fails,
    inside,
    metrics,
    run,
    sft_words,
    weights,
)


@pytest.fixture(scope="module")
def sft_run(tiny_qwen, files, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "sft"
    run("train_sft.py", *sft_words(tiny_qwen, files, out))
    return out


@pytest.fixture(scope="module")
def cogpo_run(tiny_qwen, files, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "cogpo"
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, out))
    return out


def test_sft_learns_and_exports(sft_run):
    losses = [m["loss"] for m in metrics(sft_run)]
    assert len(losses) == 6 and losses[-1] < losses[0] - 0.5
    lm = AutoModelForCausalLM.from_pretrained(sft_run / "model")
    AutoTokenizer.from_pretrained(sft_run / "model").apply_chat_template([{"role": "user", "content": "?"}])
    assert torch.equal(lm.state_dict()["model.norm.weight"], weights(sft_run)["model.norm.weight"])
    assert "packed" not in (sft_run / "model" / "config.json").read_text()
    assert sorted(p.name for p in sft_run.iterdir()) == [
        "config.yaml",
        "metrics.jsonl",
        "model",
        "plots.png",
        "run.json",
        "tensorboard",
    ]


def test_the_export_stops_where_training_stopped(files, tmp_path):
    """A base model's own end-of-text token stays, the end of a turn joins it."""
    base = make_model(tmp_path / "base", "qwen2")
    lm = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    end_of_text, turn_end = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    lm.generation_config.eos_token_id = end_of_text
    lm.save_pretrained(base)
    run("train_sft.py", *sft_words(base, files, tmp_path / "o", epochs=1))
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "o" / "model")
    assert exported.generation_config.eos_token_id == [turn_end, end_of_text]


def test_first_sft_loss_is_the_models_own(sft_run, tiny_qwen, files):
    """The logged loss of step 0 against transformers' unpacked forward pass over the same 8 examples."""
    from data.dataset import DataConfig, load_sft
    from data.packing import plan_epoch
    from data.render import Renderer
    from model.load import load_tokenizer

    examples = load_sft(DataConfig(str(files / "sft.jsonl")), Renderer(load_tokenizer(tiny_qwen)))
    lm = AutoModelForCausalLM.from_pretrained(tiny_qwen).eval()
    total = count = 0
    for unit in plan_epoch(examples.units, 8, 0, 0)[0]:
        sequence = examples.sequences[unit]
        ids = torch.tensor(sequence.ids.tolist())[None]
        with torch.no_grad():
            logps = lm(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        total -= logps[sequence.prompt_len - 1 :].sum().item()
        count += len(sequence) - sequence.prompt_len
    assert metrics(sft_run)[0]["loss"] == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("max_tokens", [1, 200])
def test_sft_accumulation_does_not_matter(sft_run, tiny_qwen, files, tmp_path, max_tokens):
    """1 × 8 = 8 × 1: max_tokens=1 puts every example into a micro-batch of its own."""
    run("train_sft.py", *sft_words(tiny_qwen, files, tmp_path / "o", batch__max_tokens=max_tokens))
    assert_same_run(sft_run, tmp_path / "o")


@pytest.mark.parametrize("mode, ranks", [("full", 1), ("selective", 1), ("products", 1), ("products", 2)])
def test_activation_checkpointing_does_not_matter(sft_run, tiny_qwen, files, tmp_path, mode, ranks):
    words = sft_words(tiny_qwen, files, tmp_path / "o", parallel__activation_checkpointing=mode)
    run("train_sft.py", *words, ranks=ranks)
    assert_same_run(sft_run, tmp_path / "o")


@pytest.mark.parametrize(("given", "saved"), [({}, (0.9, True)), ({"do_sample": False}, (None, False))])
def test_sampling_settings_without_do_sample_do_not_cost_the_model(files, tmp_path, given, saved):
    """As vicuna's: transformers loads such a generation config, but refuses to save it. Who wants greedy keeps it."""
    base = Path(make_model(tmp_path / "base"))
    settings = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps(settings | {"temperature": 0.9} | given))
    inside("train_sft.py", *sft_words(base, files, tmp_path / "o", epochs=1))
    exported = json.loads((tmp_path / "o/model/generation_config.json").read_text())
    assert (exported.get("temperature"), exported.get("do_sample")) == saved


@pytest.mark.parametrize("script, words", [("train_sft.py", sft_words), ("train_cogpo.py", cogpo_words)])
def test_what_is_too_long_is_counted_aloud(tiny_qwen, files, tmp_path, capsys, script, words):
    """What trains and what is left out are the whole file; the limit is one token below the longest."""
    from data.dataset import DataConfig, load_pairs, load_sft
    from data.render import Renderer
    from model.load import load_tokenizer

    name, load = ("sft.jsonl", load_sft) if words is sft_words else ("pairs.jsonl", lambda *a: load_pairs(*a, True))
    lengths = sorted(load(DataConfig(str(files / name)), Renderer(load_tokenizer(tiny_qwen))).lengths)
    extra = {"data__overlength": "drop", "data__max_length": lengths[-1] - 1, "epochs": 1}
    inside(script, *words(tiny_qwen, files, tmp_path / "o", **extra))
    told = re.search(r"^(\d+) (?:examples|pairs).*?, (\d+) dropped as too long, ", capsys.readouterr().err)
    kept, dropped = map(int, told.groups())
    assert dropped > 0 and kept + dropped == len((files / name).read_text().splitlines())


def test_the_export_says_its_dtype(tiny_qwen, files, tmp_path):
    run("train_sft.py", *sft_words(tiny_qwen, files, tmp_path / "o", model__export_dtype="bfloat16", epochs=1))
    assert {w.dtype for w in weights(tmp_path / "o").values()} == {torch.bfloat16}
    config = json.loads((tmp_path / "o" / "model" / "config.json").read_text())
    before = json.loads((Path(tiny_qwen) / "config.json").read_text())
    rope = {"rope_theta": before["rope_parameters"]["rope_theta"], "rope_scaling": None}  # as transformers 4 reads it
    assert config == before | rope | {"dtype": "bfloat16"}


@pytest.mark.slow
def test_sft_two_ranks_equal_one(sft_run, tiny_qwen, files, tmp_path):
    run("train_sft.py", *sft_words(tiny_qwen, files, tmp_path / "o"), ranks=2, launched=True)
    assert_same_run(sft_run, tmp_path / "o")


def test_tied_weights_two_ranks_equal_one(files, tmp_path):
    model = make_model(tmp_path / "tied", "llama", tie=True)
    run("train_sft.py", *sft_words(model, files, tmp_path / "one"))
    run("train_sft.py", *sft_words(model, files, tmp_path / "two"), ranks=2)
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert "lm_head.weight" not in weights(tmp_path / "one")


def test_cogpo_starts_at_ln2_and_learns(cogpo_run):
    rows = metrics(cogpo_run)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[-1]["loss"] < math.log(2) - 0.1
    betas = {gap: rows[0][f"{gap}/beta"] for gap in ("small", "medium", "large")}
    assert betas == pytest.approx({"small": 0.1, "medium": 0.2, "large": 0.5})
    assert rows[-1]["large/accuracy"] == 1.0


@pytest.mark.parametrize("max_tokens", [1, 300])
def test_cogpo_accumulation_does_not_matter(cogpo_run, tiny_qwen, files, tmp_path, max_tokens):
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "o", batch__max_tokens=max_tokens))
    assert_same_run(cogpo_run, tmp_path / "o")


def test_cogpo_two_ranks_equal_one(cogpo_run, tiny_qwen, files, tmp_path):
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "o"), ranks=2)
    assert_same_run(cogpo_run, tmp_path / "o")


def test_bfloat16_on_two_ranks_starts_at_ln2_and_stays_close(cogpo_run, tiny_qwen, files, tmp_path):
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "o", model__compute_dtype="bfloat16"), ranks=2)
    rows = metrics(tmp_path / "o")
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert rows[-1]["loss"] == pytest.approx(metrics(cogpo_run)[-1]["loss"], abs=0.05)


@pytest.mark.parametrize("loss", ["dpo", "beta_dpo", "beta_cogpo", "simpo"])
def test_baselines_train_on_the_same_pairs(tiny_qwen, files, tmp_path, loss):
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "o", loss__name=loss, loss__alpha=0.01))
    rows = metrics(tmp_path / "o")
    assert rows[-1]["loss"] < rows[0]["loss"]
    if loss != "simpo":
        assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("keys, unread", [({"loss__beta": 0.3}, ["loss.beta"]), ({"loss__betas": [0.1, 0.2, 0.3]}, [])])
def test_a_key_of_another_loss_is_named(tiny_qwen, files, tmp_path, capsys, keys, unread):
    inside("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "o", **keys))
    assert re.findall(r"warning: loss.name=cogpo does not read (\S+)", capsys.readouterr().err) == unread


def test_epochs_of_different_numbers_of_steps(tiny_qwen, files, tmp_path):
    """Whole triads fill a step differently in every order: here 5 steps, then 4."""
    words = cogpo_words(tiny_qwen, files, tmp_path / "o", batch__size=12)
    run("train_cogpo.py", *words)
    rows = metrics(tmp_path / "o")
    assert len(rows) == 9 and rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_three_unique_responses_equal_six_separate(tiny_qwen, files):
    """Loss and gradient of a triad with shared responses = the same with every pair's responses run on their own."""
    from data.dataset import DataConfig, load_pairs
    from data.packing import pack
    from data.render import Renderer
    from losses import cogpo_loss
    from model.load import ModelConfig, load_policy, load_tokenizer
    from model.logprobs import response_sums
    from model.parallel import Ranks
    from train_cogpo import local_batch

    tokenizer = load_tokenizer(tiny_qwen)
    examples = load_pairs(DataConfig(str(files / "pairs.jsonl")), Renderer(tokenizer), group_by_problem=True)
    device = torch.device("cpu")
    model = load_policy(ModelConfig(tiny_qwen), Ranks(), tokenizer)
    micro = [u for u, unit in enumerate(examples.units) if unit.items == 3][:3]

    batch, seqs, chosen, rejected, gap = local_batch(micro, examples, device)
    assert len(seqs) == 9 and len(gap) == 9  # 3 problems: 9 responses for 9 pairs, not 18
    refs = torch.randn(len(examples.sequences))
    shared = cogpo_loss(response_sums(model(batch), batch), refs[seqs], chosen, rejected, gap).loss
    shared.sum().backward()
    shared_grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()

    pairs = [p for u in micro for p in examples.units[u].pairs]
    six = [s for p in pairs for s in (p.chosen, p.rejected)]
    batch = pack([examples.sequences[s] for s in six])
    index = torch.arange(len(six))
    separate = cogpo_loss(response_sums(model(batch), batch), refs[six], index[0::2], index[1::2], gap).loss
    separate.sum().backward()
    torch.testing.assert_close(shared, separate)
    for grad, p in zip(shared_grads, model.parameters(), strict=True):
        torch.testing.assert_close(grad, p.grad, rtol=1e-4, atol=1e-4)


def test_ungrouped_pairs_see_the_same_data(tiny_qwen, files, tmp_path):
    done = run(
        "train_cogpo.py",
        *cogpo_words(tiny_qwen, files, tmp_path / "o", batch__group_by_problem="false", batch__size=1000, epochs=1),
    )
    grouped = tmp_path / "g"
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, grouped, batch__size=1000, epochs=1))
    assert_same_run(tmp_path / "o", grouped)  # one step over all pairs: the order cannot matter
    assert "pairs over" in done.stderr


def test_a_finished_run_says_so(sft_run, tiny_qwen, files):
    before = os.stat(sft_run / "model" / "model.safetensors").st_mtime_ns
    done = run("train_sft.py", *sft_words(tiny_qwen, files, sft_run))
    assert "already done" in done.stderr
    assert os.stat(sft_run / "model" / "model.safetensors").st_mtime_ns == before


def test_bad_input_is_one_line(tiny_qwen, files, sft_run, tmp_path):
    sft = sft_words(tiny_qwen, files, tmp_path / "o")
    assert "unknown config key optim.rl; did you mean optim.lr?" in fails("train_sft.py", *sft, "optim.rl=1")
    assert "config key epochs must be a whole number" in fails("train_sft.py", *sft, "epochs=two")
    assert "checkpoint.every_steps must be at least 1" in fails("train_sft.py", *sft, "checkpoint.every_steps=0")
    assert "does not exist" in fails("train_sft.py", *sft, "model.path=./nowhere")
    assert "a record of kind sft lacks messages" in fails("train_sft.py", *sft, f"data.file={files / 'pairs.jsonl'}")
    assert "a record of kind pair lacks problem_id" in fails("train_cogpo.py", *sft)
    other = sft_words(tiny_qwen, files, sft_run, seed=5)
    assert "another configuration (seed: 0 there, 5 now)" in fails("train_sft.py", *other)


def test_a_model_without_chat_template_is_one_line(tiny_qwen, files, tmp_path):
    bare = tmp_path / "bare"
    AutoModelForCausalLM.from_pretrained(tiny_qwen).save_pretrained(bare)
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(bare)
    assert "has no chat template" in fails("train_sft.py", *sft_words(bare, files, tmp_path / "o"))


def test_logits_that_the_loss_would_get_wrong_are_refused(tiny_qwen, files, tmp_path):
    folder = tmp_path / "scaled"
    shutil.copytree(tiny_qwen, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"logit_scale": 0.0625}))
    assert "transforms its logits (logit_scale)" in fails("train_sft.py", *sft_words(folder, files, tmp_path / "o"))


def test_a_stale_reference_is_caught_before_any_step(tiny_qwen, files, tmp_path):
    words = cogpo_words(tiny_qwen, files, tmp_path / "a")
    run("train_cogpo.py", *words)
    (cache,) = (tmp_path / "reference").glob("*.jsonl")
    rows = [json.loads(line) for line in cache.read_text().splitlines()]
    write_jsonl(cache, [row | {"logp": row["logp"] - 5.0 * i} for i, row in enumerate(rows)])
    said = fails("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "b"))
    assert "policy and reference log-probs differ by " in said and f"delete {tmp_path}/reference" in said
    assert not (tmp_path / "b" / "model").exists()


def test_reference_cache_is_shared_by_a_sweep_and_missed_by_other_weights(tiny_qwen, files, tmp_path):
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "a"))
    (cache,) = (tmp_path / "reference").glob("*.jsonl")
    before = cache.read_text()
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "b", loss__name="dpo"))
    assert cache.read_text() == before
    other = make_model(tmp_path / "other", "qwen2", seed=1)
    run("train_cogpo.py", *cogpo_words(other, files, tmp_path / "c"))
    assert len(list((tmp_path / "reference").iterdir())) == 2


def test_help_names_every_key():
    done = subprocess.run(command("train_cogpo.py", "--help"), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    wanted = (
        "loss.betas",
        "batch.group_by_problem",
        "optim.lr: a number, above 0 and finite = 5e-07",
        "checkpoint.every_steps",
    )
    for key in wanted:
        assert key in done.stdout
