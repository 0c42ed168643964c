"""What is no model for packed training or generation here is refused in one line, by both; what is harmless is not."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from errors import UserError
from model import attention, guard, load
from model import generate as gen
from model.guard import dropouts
from model.load import ModelConfig, WeightFiles, load_policy, load_tokenizer
from model.parallel import Ranks
from pocket.tiny import make_model, make_tokenizer
from tests.model.test_families import CPU, MOE, SIZES, build
from tests.support.scripts import inside, sft_words

ONE = "model.layers.0.self_attn.q_proj.weight"


def refusals(folder):
    """What training and generation say of a folder, a line each."""
    said = []
    for attempt in (
        lambda: load_policy(ModelConfig(str(folder)), Ranks(), make_tokenizer("qwen2")),
        lambda: gen.load_model(str(folder), CPU, torch.float32),
    ):
        with pytest.raises(UserError) as error:
            attempt()
        said.append(str(error.value))
    assert "\n" not in "".join(said)
    return said


def refused(folder, match):
    """Whether both refuse it, for that reason."""
    return all(re.search(match, said) for said in refusals(folder))


def edit(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.fixture
def folder(tiny_qwen, tmp_path):
    return shutil.copytree(tiny_qwen, tmp_path / "m")


ROPE = {"rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 16}
SHORT = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"layer_types": ["full_attention", "chunked_attention"]}, "layer_types: chunked_attention"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "layer_types: linear_attention"),
        ({"layer_types": ["conv", "full_attention"]}, "layer_types: conv"),
        ({"rope_parameters": ROPE | {"rope_type": "dynamic"}}, "rope_type: dynamic"),
        ({"rope_parameters": ROPE | SHORT | {"rope_type": "longrope"}}, "rope_type: longrope"),
        ({"rope_scaling": ROPE | {"type": "dynamic"}, "rope_parameters": None}, "rope_type: dynamic"),
        ({"quantization_config": {"quant_method": "fp8"}}, "is quantised .fp8: quantization_config"),
        ({"quantization_config": {"load_in_4bit": True}}, "is quantised"),
        ({"logit_scale": 0.0625}, r"transforms its logits \(logit_scale\)"),
        ({"hidden_act": "no such thing"}, "cannot load a model from"),
        ({"num_attention_heads": 0}, "cannot load a model from"),
        ({"model_type": "of tomorrow"}, "cannot load a model from"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}, "cannot load a model from"),
        ({"is_causal": False}, "differ by"),
        ({"attn_logit_softcapping": 50.0}, "caps its logits or scores .attn_logit_softcapping"),
    ],
)
def test_what_a_config_declares(folder, values, match):
    edit(folder, **values)
    assert refused(folder, match)


@pytest.mark.parametrize(
    ("model_type", "how", "match"),
    [
        ("gpt2", {}, "GPT2LMHeadModel.* no model.embed_tokens"),
        ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}, "OPTForCausalLM"),
        ("gpt_neox", {}, "GPTNeoXForCausalLM"),
        ("mamba", {}, "mamba.*layer_types: linear_attention"),
        ("phi", {}, "PhiForCausalLM"),
        ("stablelm", {}, "StableLmAttention"),
        ("nemotron", {}, "NemotronAttention"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "layer_types: conv"),
        (
            "gemma2",
            {"layer_types": ["full_attention"] * 2, "query_pre_attn_scalar": 8},
            "caps its logits",
        ),
        ("gpt_oss", {"layer_types": ["full_attention"] * 2, "num_local_experts": 2}, "attention sinks|rope_type"),
        ("nanochat", {"initializer_range": 2.0}, "final_logit_softcapping"),
    ],
)
def test_what_a_family_computes(tmp_path, files, model_type, how, match):
    build(tmp_path / "m", model_type, **how)
    assert refused(tmp_path / "m", match)
    with pytest.raises(UserError, match=match):
        inside("train_sft.py", *sft_words(tmp_path / "m", files, tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_more_than_a_language_model(folder):
    text = AutoConfig.for_model("gemma3_text", **SIZES, vocab_size=300).to_dict()
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    assert refused(folder, "more than a language model .*vision_config")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda w: {ONE: w[ONE].to(torch.float8_e4m3fn)}, f"{ONE} is stored as float8_e4m3fn: quantised"),
        (lambda w: {ONE: w[ONE].to(torch.int8)}, f"{ONE} is stored as int8"),
        (lambda w: {f"{ONE}_scale_inv": torch.ones(1)}, f"holds {ONE}_scale_inv, for which Qwen2ForCausalLM has no"),
        (lambda w: {ONE.replace("weight", "SCB"): torch.ones(32)}, "q_proj.SCB, for which"),
        (lambda w: {"model.layers.1.mlp.up_proj.bias": torch.ones(48)}, "up_proj.bias, for which"),
        (lambda w: {ONE: w[ONE] * torch.nan}, "not finite"),
        (
            lambda w: {ONE.replace("weight", "lora_A.default.weight"): torch.ones(4, 32)},
            "q_proj.lora_A.default.weight, ",
        ),
        (lambda w: {"lm_head.weight": None}, "holds no weight named lm_head.weight"),
        (lambda w: {ONE: w[ONE][:, :-1].contiguous()}, r"has shape \[32, 31\], config.json asks for \[32, 32\]"),
    ],
)
def test_what_the_files_hold(folder, change, match):
    stored = load_file(folder / "model.safetensors")
    stored |= change(stored)
    save_file({name: value for name, value in stored.items() if value is not None}, folder / "model.safetensors")
    assert refused(folder, match)


def test_an_adapter_beside_the_weights(folder):
    (folder / "adapter_config.json").write_text("{}")
    assert refused(folder, "holds an adapter .*merge")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="holds an adapter"):
        load_tokenizer(str(folder))


def test_weights_are_chosen_as_transformers_does(folder):
    """One file before an index; what belongs to no module is named, and no more."""
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(folder / "model.safetensors"), "other.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    other = {name: value + 1 for name, value in load_file(folder / "model.safetensors").items()}
    save_file(other, folder / "other.safetensors")
    same_as_the_library(folder)
    (folder / "model.safetensors").unlink()
    assert [file.name for file in WeightFiles(str(folder)).files] == ["other.safetensors"]
    same_as_the_library(folder)


def test_names_without_the_prefix_and_what_nobody_uses(folder, capsys):
    stored = load_file(folder / "model.safetensors")
    plain = {name.removeprefix("model."): value for name, value in stored.items()}
    save_file(plain | {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, folder / "model.safetensors")
    same_as_the_library(folder)
    assert "holds 1 tensors that Qwen2ForCausalLM does not use" in capsys.readouterr().err


@pytest.mark.parametrize("stored", ["both equal", "other head", "head alone"])
def test_tied_weights(tmp_path, stored):
    """As transformers reads them: what is stored once is both; what is stored twice and differs stays two."""
    folder = tmp_path / "m"
    make_model(folder, tie=True)
    held = load_file(folder / "model.safetensors")
    embedding = held["model.embed_tokens.weight"]
    held["lm_head.weight"] = embedding + 0.1 if stored == "other head" else embedding.clone()
    if stored == "head alone":
        del held["model.embed_tokens.weight"]
    save_file(held, folder / "model.safetensors")
    ours = same_as_the_library(folder)
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) == (stored != "other head")
    assert ours.config.tie_word_embeddings == (stored != "other head")


def same_as_the_library(folder):
    ours = load_policy(ModelConfig(str(folder)), Ranks(), load_tokenizer(str(folder))).lm
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    generating = gen.load_model(str(folder), CPU, torch.float32).state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs[name]) and torch.equal(generating[name], theirs[name]), name
    return ours


def test_dropout_is_not_done_and_said(folder, capsys):
    edit(folder, attention_dropout=0.5)
    model = load_policy(ModelConfig(str(folder)), Ranks(), load_tokenizer(str(folder)))
    assert "attention_dropout in the config" in capsys.readouterr().err
    assert not any(module.training for module in model.modules())
    assert dropouts(model.lm.config) == {"attention_dropout": 0.5}


def test_a_plan_is_refused_too(tmp_path):
    build(tmp_path, "gpt2")
    with pytest.raises(UserError, match="GPT2LMHeadModel"):
        inside("train_sft.py", f"model.path={tmp_path}", "data.file=none", "out=none", "--plan", "examples=8")


def test_the_file_that_the_config_names(folder):
    stored = load_file(folder / "model.safetensors")
    save_file({name: value + 1 for name, value in stored.items()}, folder / "named.safetensors")
    edit(folder, transformers_weights="named.safetensors")
    assert torch.equal(same_as_the_library(folder).lm_head.weight, stored["lm_head.weight"] + 1)


def test_a_leak_shows(tiny_qwen, monkeypatch):
    """The guard's own negative controls: attention over the whole row, a head without its scale."""

    def leaky(q, k, v, cu_seqlens, *rest):
        return right(q, k, v, cu_seqlens[[0, -1]], *rest)

    right = attention.ATTEND["sdpa"]
    monkeypatch.setitem(attention.ATTEND, "sdpa", leaky)
    with pytest.raises(UserError, match="what stands before a packed sequence changes its log-probs"):
        load_policy(ModelConfig(tiny_qwen), Ranks(), load_tokenizer(tiny_qwen))


def test_experts_that_round_by_the_number_of_their_rows_are_no_leak(tmp_path, monkeypatch):
    """Half a unit in the last place up or down, as products of other shapes do on a GPU: of all tokens of a row."""
    build(tmp_path, "qwen3_moe", **MOE | {"num_hidden_layers": 8, "initializer_range": 0.4})
    right = Qwen3MoeExperts.forward

    def rounded_anew(self, hidden, *routes):
        numbers = torch.Generator().manual_seed(int(hidden.float().sum() * 1000) % 2**31)
        out = right(self, hidden, *routes)
        rounding = (torch.rand(out.shape, generator=numbers) - 0.5) * torch.finfo(out.dtype).eps
        return (out * (1 + rounding)).to(out.dtype)

    monkeypatch.setattr(Qwen3MoeExperts, "forward", rounded_anew)
    seen, distance = [], guard._distance
    monkeypatch.setattr(guard, "_distance", lambda *pair: seen.append(distance(*pair)) or seen[-1])
    load_policy(ModelConfig(str(tmp_path), compute_dtype="bfloat16"), Ranks(), make_tokenizer("qwen2"))
    assert seen[1] > 8 * torch.finfo(torch.bfloat16).eps  # what a dense model may not do


def test_a_forgotten_window_shows(tmp_path, monkeypatch):
    """Also one that is longer than the sequences that are tried."""
    build(tmp_path, "mistral", sliding_window=200)
    right = attention.causal_attention
    monkeypatch.setattr(attention, "causal_attention", lambda *args: right(*args[:4], None))
    assert refused(tmp_path, "differ by")


def test_a_forgotten_scale_shows(tmp_path, monkeypatch):
    build(tmp_path, "granite", logits_scaling=8.0)
    monkeypatch.setattr("model.logprobs.logit_scale", lambda lm: 1.0)
    assert refused(tmp_path, r"transforms its logits \(.*logits_scaling.*\).* differ by")


def test_a_wrong_step_shows(tiny_qwen, monkeypatch):
    forward = gen.forward
    leaky = lambda lm, cache, tokens, lengths: forward(lm, cache, tokens, [n + 1 for n in lengths])  # noqa: E731
    monkeypatch.setattr(gen, "forward", leaky)
    with pytest.raises(UserError, match="differ by"):
        gen.load_model(tiny_qwen, CPU, torch.float32)


def test_buffers_that_the_library_does_not_fill(tiny_qwen, monkeypatch):
    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel._init_weights", lambda self, module: None)
    with pytest.raises(UserError, match="a buffer that nothing here fills"):
        gen.load_model(tiny_qwen, CPU, torch.float32)


def test_the_guard_is_cheap(tiny_qwen, monkeypatch):
    """Four passes of at most 41 tokens, whatever the model."""
    tokens = []
    run = load.LogProbModel.forward
    monkeypatch.setattr(
        load.LogProbModel,
        "forward",
        lambda self, batch, **how: tokens.append(batch.max_seqlen) or run(self, batch, **how),
    )
    load_policy(ModelConfig(tiny_qwen), Ranks(), load_tokenizer(tiny_qwen))
    assert len(tokens) == 4 and max(tokens) <= 24
