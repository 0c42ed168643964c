"""What train_cogpo.py offers beside the paper's losses: length-normalised log-probs, DPOP's penalty, measured pulls."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from data.records import write_jsonl
from data.render import Renderer
from model.load import load_tokenizer
from tests.support.scripts import assert_same_run, cogpo_words, inside, metrics, run
from tests.support.tiny import pair_rows


@pytest.fixture(scope="module")
def one_problem(tmp_path_factory):
    """A folder whose pairs.jsonl holds one problem's three pairs."""
    folder = tmp_path_factory.mktemp("one")
    write_jsonl(folder / "pairs.jsonl", [row for row in pair_rows(3) if row["problem_id"] == "p1"])
    return folder


def by_hand(folder, row, side):
    """(log-prob of a response, the gradient of it as one vector, its length) by transformers' own forward pass."""
    lm, renderer = AutoModelForCausalLM.from_pretrained(folder), Renderer(load_tokenizer(folder))
    sequence = renderer.sequences([(row["prompt"], row[side][0]["content"])])[0]
    ids = torch.tensor(sequence.ids.astype("int64"))
    logps = lm(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])[sequence.prompt_len - 1 :]
    logps.sum().backward()
    grad = torch.cat([p.grad.flatten() for p in lm.parameters() if p.grad is not None])
    return logps.sum().item(), grad, len(logps)


def test_the_pull_of_each_side_is_its_own_gradient(tiny_qwen, one_problem, tmp_path):
    inside("train_cogpo.py", *cogpo_words(tiny_qwen, one_problem, tmp_path / "out", epochs=1, gradients_every=1))
    line = metrics(tmp_path / "out")[0]
    for row in (row for row in pair_rows(3) if row["problem_id"] == "p1"):
        beta = {"small": 0.1, "medium": 0.2, "large": 0.5}[row["gap"]]
        for side in ("chosen", "rejected"):
            _, grad, _ = by_hand(tiny_qwen, row, side)
            # before the first update every pair pulls with β σ(0) = β/2
            assert line[f"{row['gap']}/{side}_grad"] == pytest.approx(beta / 2 * grad.norm().item(), rel=1e-3)


def test_measuring_the_pulls_changes_nothing_and_ranks_agree(tiny_qwen, files, tmp_path):
    plain, measured = (cogpo_words(tiny_qwen, files, tmp_path / name, epochs=1) for name in ("plain", "measured"))
    inside("train_cogpo.py", *plain)
    run("train_cogpo.py", *measured, "gradients_every=2", ranks=2)
    assert_same_run(tmp_path / "plain", tmp_path / "measured", atol=1e-4)
    inside("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "alone", epochs=1, gradients_every=2))
    for one, two in zip(metrics(tmp_path / "alone"), metrics(tmp_path / "measured"), strict=True):
        names = [name for name in one if name.endswith(("chosen_grad", "rejected_grad"))]
        assert bool(names) == (one["step"] % 2 == 0)
        assert [two[name] for name in names] == pytest.approx([one[name] for name in names], rel=1e-3)


def test_per_token_divides_both_log_probs_by_the_length(tiny_qwen, one_problem, tmp_path):
    words = cogpo_words(tiny_qwen, one_problem, tmp_path / "out", epochs=1, gradients_every=1)
    inside("train_cogpo.py", *words, "loss.name=dpo", "loss.per_token=true", "loss.beta=5")
    line = metrics(tmp_path / "out")[0]
    assert line["loss"] == pytest.approx(math.log(2), abs=1e-5)
    for row in (row for row in pair_rows(3) if row["problem_id"] == "p1"):
        for side in ("chosen", "rejected"):
            _, grad, length = by_hand(tiny_qwen, row, side)
            assert line[f"{row['gap']}/{side}_grad"] == pytest.approx(5 / 2 * grad.norm().item() / length, rel=1e-3)
