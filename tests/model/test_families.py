"""A tiny random model of every family in docs/models.md: packed = alone = transformers, a step, its export, generation.

The library's side is always its own model, read by its own from_pretrained, with its reference attention.
"""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

import config
from data.dataset import load_sft
from data.packing import pack
from data.render import Renderer, Sequence
from model import generate as gen
from model.attention import ATTEND
from model.cost import shape_of
from model.export import export
from model.generate import Sampling
from model.load import ModelConfig, load_config, load_policy, load_tokenizer
from model.parallel import Ranks
from pocket.tiny import make_tokenizer
from tests.support.scripts import ROOT, sft_words, weights
from train_sft import Config

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
    "initializer_range": 0.2,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 9}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_routed_experts": 4, "n_group": 1,
       "topk_group": 1, "first_k_dense_replace": 1, "shared_expert_intermediate_size": 16}  # fmt: skip
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12,
          "num_key_value_heads": 4}  # fmt: skip
FAMILIES = {  # docs/models.md lists them: {name: (transformers' model_type, what its config has beyond SIZES)}
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2, yarn": ("qwen2", {"rope_parameters": YARN}),
    "qwen2, windows": ("qwen2", LAYERS | {"use_sliding_window": True}),
    "qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "llama": ("llama", {}),
    "llama, llama3 rope": ("llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama, linear rope": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, window": ("mistral", {"sliding_window": 9}),
    "ministral": ("ministral", LAYERS),
    "ministral3": ("ministral3", {}),
    "phi3": ("phi3", {"resid_pdrop": 0.5, "attention_dropout": 0.5}),
    "smollm3": ("smollm3", {}),
    "olmo": ("olmo", {"clip_qkv": 1.0}),
    "olmo2": ("olmo2", {}),
    "gemma": ("gemma", {}),
    "olmo3": ("olmo3", LAYERS),
    "gemma3_text": ("gemma3_text", LAYERS | {"query_pre_attn_scalar": 8}),
    "cohere2": ("cohere2", LAYERS),
    "exaone4": ("exaone4", LAYERS),
    "glm": ("glm", {}),
    "glm4": ("glm4", {}),
    "granite": ("granite", {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22}),
    "cohere": ("cohere", {"logit_scale": 0.0625}),
    "starcoder2": ("starcoder2", {"sliding_window": None, "residual_dropout": 0.1}),
    "helium": ("helium", {}),
    "arcee": ("arcee", {}),
    "apertus": ("apertus", {}),
    "ernie4_5": ("ernie4_5", {}),
    "seed_oss": ("seed_oss", {}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {}),
    "exaone": ("exaone", {}),
    "internlm3": ("internlm3", {}),
    "bitnet": ("bitnet", {}),
    "jais2": ("jais2", {}),
    "qwen2_moe": ("qwen2_moe", MOE),
    "qwen3_moe": ("qwen3_moe", MOE | {"router_aux_loss_coef": 0.5, "output_router_logits": True}),
    "mixtral": ("mixtral", {"sliding_window": None, "num_local_experts": 4, "router_jitter_noise": 0.5}),
    "olmoe": ("olmoe", MOE),
    "glm4_moe": ("glm4_moe", MOE),
    "afmoe": ("afmoe", MOE | LAYERS),
    "deepseek_v2": ("deepseek_v2", MOE | LATENT),
    "deepseek_v3": ("deepseek_v3", MOE | LATENT),
    "granitemoe": ("granitemoe", {"num_local_experts": 4, "logits_scaling": 6.0}),
}


SELECTED = re.compile(r"expert|gate\.weight|router")  # a model may choose between experts without a gradient


def build(folder, model_type, **how):
    """Save a random model with a tokenizer; no weight is 0 or 1, as norms and biases are when they are made."""
    tokenizer = make_tokenizer("qwen2")
    config = AutoConfig.for_model(model_type, **(SIZES | {"vocab_size": len(tokenizer)} | how))
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn_like(parameter))
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    model_type, how = FAMILIES[request.param]
    return build(tmp_path_factory.mktemp("family"), model_type, **how)


@pytest.fixture(scope="module")
def library(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def library_logps(library, sequence):
    ids = torch.from_numpy(sequence.ids.astype(np.int64))[None]
    with torch.no_grad():
        logps = library(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return logps[sequence.prompt_len - 1 :]


def test_packed_is_alone_is_transformers(folder, library):
    model, rng = load_policy(ModelConfig(folder), Ranks(), load_tokenizer(folder)), np.random.default_rng(1)
    sequences = [Sequence(rng.integers(5, 250, n).astype(np.int32), p) for n, p in ((40, 7), (5, 1), (23, 20))]
    with torch.no_grad():
        packed = model(pack(sequences))
        alone = torch.cat([model(pack([sequence])) for sequence in sequences])
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-4)
    expected = torch.cat([library_logps(library, sequence) for sequence in sequences])
    torch.testing.assert_close(packed, expected, rtol=0, atol=1e-4)


def test_kernels_that_know_one_head_size(tmp_path, monkeypatch):
    """As those of CUDA in bfloat16 do; the values of latent attention are smaller than its keys."""

    def one_size(q, k, v, *rest):
        assert q.shape[-1] == k.shape[-1] == v.shape[-1]
        return right(q, k, v, *rest)

    right = ATTEND["sdpa"]
    monkeypatch.setitem(ATTEND, "sdpa", one_size)
    folder = build(tmp_path, "deepseek_v3", **MOE | LATENT)
    load_policy(ModelConfig(folder), Ranks(), load_tokenizer(folder))


def test_a_step_and_its_export(folder, library, files, tmp_path):
    """The loss is the library's; after a step every weight is another, and the library reads what was exported."""
    (tmp_path / "o").mkdir()
    cfg = config.load(Config, sft_words(folder, files, tmp_path / "o"))
    tokenizer = load_tokenizer(folder)
    model, sequences = load_policy(cfg.model, Ranks(), tokenizer), load_sft(cfg.data, Renderer(tokenizer)).sequences[:5]
    loss = -model(pack(sequences)).mean()
    expected = -torch.cat([library_logps(library, sequence) for sequence in sequences]).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    loss.backward()
    torch.optim.AdamW(model.parameters(), lr=1e-2).step()
    export(cfg, model, tokenizer, Ranks(), {})
    shape_of(load_config(folder))  # which a run asks for first
    assert weights(tmp_path / "o").keys() == load_file(f"{folder}/model.safetensors").keys()

    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "o/model", dtype=torch.float32)
    after = trained.state_dict()
    assert library.state_dict().keys() == after.keys()
    unmoved = [name for name, value in library.named_parameters() if torch.equal(value, after[name])]
    assert [name for name in unmoved if not SELECTED.search(name)] == []
    for name, value in model.lm.state_dict().items():
        assert torch.equal(value, after[name]), name


def test_generation_is_transformers_own(folder, library):
    model, rng = gen.load_model(folder, CPU, torch.float32), np.random.default_rng(2)
    prompts = {str(n): rng.integers(5, 250, n).tolist() for n in (30, 3, 11)}
    done = {made.key: made.ids for made in gen.generate(model, prompts, set(), Sampling(max_new_tokens=12), 2)}
    for key, prompt in prompts.items():
        ids = torch.tensor([prompt])
        how = {"do_sample": False, "max_new_tokens": 12, "pad_token_id": 0, "eos_token_id": None}
        theirs = library.generate(ids, attention_mask=torch.ones_like(ids), **how)
        assert done[key] == theirs[0, len(prompt) :].tolist()


def test_the_page_names_what_is_tested():
    page = (ROOT / "docs/models.md").read_text()
    named = re.findall(r"`(\w+)`", page[page.index("* Dense") : page.index("Experts are trained")])
    assert sorted(named) == sorted({model_type for model_type, _ in FAMILIES.values()})
