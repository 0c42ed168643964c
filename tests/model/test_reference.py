"""The cache of reference log-probs: what is a hit, what is a miss, and what a killed pass costs."""

import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.dataset import DataConfig, load_pairs
from data.ledger import Ledger
from data.render import Renderer, Sequence
from errors import UserError
from model.load import ModelConfig, WeightFiles, load_policy, load_tokenizer
from model.parallel import Ranks
from model.reference import cache_key, reference_logps
from pocket.tiny import make_model
from tests.support.small_runs import on_ranks


@pytest.fixture(scope="module")
def model(tiny_qwen):
    return load_policy(ModelConfig(tiny_qwen), Ranks(), load_tokenizer(tiny_qwen))


@pytest.fixture(scope="module")
def sequences(tiny_qwen, files):
    return load_pairs(DataConfig(str(files / "pairs.jsonl")), Renderer(load_tokenizer(tiny_qwen)), True).sequences[:9]


def compute(model, sequences, folder):
    """(log-probs, how many of them were computed rather than read)"""
    path = folder / "key.jsonl"
    before = len(Ledger(path))
    logps = reference_logps(model, sequences, [[i] for i in range(len(sequences))], path, Ranks())
    return logps, len(Ledger(path)) - before


def test_the_second_time_everything_is_read(model, sequences, tmp_path):
    first, count = compute(model, sequences, tmp_path)
    again, none = compute(model, list(reversed(sequences)), tmp_path)
    assert (count, none) == (9, 0)
    assert torch.equal(first, again.flip(0))


def test_a_changed_token_or_prompt_length_is_a_miss(model, sequences, tmp_path):
    compute(model, sequences, tmp_path)
    ids = sequences[0].ids.copy()
    ids[-3] += 1
    changed = [Sequence(ids, sequences[0].prompt_len), Sequence(sequences[1].ids, sequences[1].prompt_len - 1)]
    _, count = compute(model, [*changed, *sequences[2:]], tmp_path)
    assert count == 2


def test_a_changed_template_is_a_miss(model, sequences, tiny_qwen, files, tmp_path):
    compute(model, sequences, tmp_path)
    tokenizer = load_tokenizer(tiny_qwen)
    tokenizer.chat_template = tokenizer.chat_template.replace("You are a helpful assistant.", "Think.")
    other = load_pairs(DataConfig(str(files / "pairs.jsonl")), Renderer(tokenizer), True).sequences[:9]
    _, count = compute(model, other, tmp_path)
    assert count == 9


def test_what_changes_rounding_is_part_of_the_key(tmp_path, monkeypatch):
    """Weights, dtype, backend, what is compiled and how it recomputes, the version of a package with kernels."""
    folder = tmp_path / "m"
    make_model(folder)
    before = WeightFiles(str(folder)).digest()
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] += 2**-20
    save_file(weights, folder / "model.safetensors")
    after = WeightFiles(str(folder)).digest()
    model = load_policy(ModelConfig(str(folder)), Ranks(), load_tokenizer(str(folder)))

    def keys():
        dtypes, compiled = (torch.float32, torch.bfloat16), (None, {"none": 100}, {"none": 10, "full": 100})
        for weights, model.dtype, backend, model.compiled in itertools.product((before, after), dtypes, "ab", compiled):
            model.lm.config.packed_backend = backend
            yield cache_key(weights, model, torch.device("cpu"))

    found = list(keys())
    assert len(set(found)) == 24 and found == list(keys())
    packages = [SimpleNamespace(version="2.8.3")]
    monkeypatch.setattr("model.reference.distributions", lambda name: packages if name == "flash-attn" else [])
    assert not set(found) & set(keys())


def test_a_pass_that_was_killed_goes_on(model, sequences, tmp_path):
    whole, _ = compute(model, sequences, tmp_path / "whole")
    (tmp_path / "torn").mkdir()
    lines = (tmp_path / "whole" / "key.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "torn" / "key.jsonl").write_text("".join(lines[:4]) + lines[4][:20])
    again, count = compute(model, sequences, tmp_path / "torn")
    assert torch.equal(whole, again) and count == 5


def reads_again_what_rank_0_wrote(ranks, student, sequences, folder):
    model, path = load_policy(ModelConfig(student), ranks, load_tokenizer(student)), folder / f"{ranks.rank}.jsonl"
    mine = [[i] for i in range(ranks.rank, len(sequences), ranks.count)]
    first, again = (reference_logps(model, sequences, mine, path, ranks) for _ in range(2))
    assert torch.equal(first, again) and len(Ledger(path)) == len(sequences) * ranks.is_main


def test_each_machine_may_have_a_disk_of_its_own(tiny_qwen, sequences, tmp_path):
    on_ranks(2, reads_again_what_rank_0_wrote, tiny_qwen, sequences[:8], tmp_path)
    assert len(Ledger(tmp_path / "0.jsonl")) == 8 and not len(Ledger(tmp_path / "1.jsonl"))  # what outlives the ranks


def test_a_record_without_its_value_is_computed_again(model, sequences, tmp_path):
    whole, _ = compute(model, sequences, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "key.jsonl").read_text().splitlines()]
    lines[2]["logp"] = None
    del lines[5]["logp"]
    (tmp_path / "key.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    again, _ = compute(model, sequences, tmp_path)
    assert torch.equal(whole, again)


def test_a_damaged_line_of_the_cache_is_named(model, sequences, tmp_path):
    (tmp_path / "key.jsonl").write_bytes(b'{"key": "a", "logp": -1.5}\n\xff\xfe]\n')
    with pytest.raises(UserError, match=r"key\.jsonl:2 is damaged"):
        compute(model, sequences, tmp_path)
