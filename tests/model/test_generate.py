"""Generation: batched with refilled rows = one at a time = the library's own loop; stops, limits, sampling."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.render import Renderer, prompt_messages
from errors import UserError
from model import generate as gen
from model.generate import Sampling, generate, pick
from model.load import load_policy
from model.parallel import Ranks
from settings import ModelConfig

CPU = torch.device("cpu")


def load(folder, dtype=torch.float32):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    renderer = Renderer(tokenizer)
    model = gen.load_model(folder, CPU, dtype)
    return model, renderer, gen.stop_ids(model, tokenizer, renderer)


def some_requests(renderer, n=9):
    texts = [f"What is {7 * i} + {i}?" + " Think." * (3 * i % 7) for i in range(n)]
    return {f"r{i}": renderer.prompt_ids(prompt_messages(text)) for i, text in enumerate(texts)}


def run(model, requests, stop_ids, sampling, batch_size):
    done = list(generate(model, requests, stop_ids, sampling, batch_size))
    assert Counter(c.key for c in done) == Counter(list(requests))
    return {c.key: (c.ids, c.finish_reason) for c in done}


def frequent_stops(model, requests):
    """Stop tokens that make the rows of a random model end at different times: the most frequent of its outputs."""
    free = run(model, requests, set(), Sampling(max_new_tokens=40), 4)
    counts = Counter(token for ids, _ in free.values() for token in set(ids))
    return {token for token, _ in counts.most_common(3)}


@pytest.mark.parametrize("batch_size", [2, 4, 16])
def test_batched_equals_one_at_a_time_and_the_librarys_loop(tiny, batch_size, monkeypatch):
    monkeypatch.setattr(gen, "PREFILL_TOKENS", 150)  # so that prompts enter in several passes
    model, renderer, _ = load(tiny)
    requests = some_requests(renderer)
    stops = frequent_stops(model, requests)
    sampling = Sampling(max_new_tokens=40)
    batched = run(model, requests, stops, sampling, batch_size)
    assert len({len(ids) for ids, _ in batched.values()}) > 2, "the rows must end at different times"

    library = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    for key, prompt in requests.items():
        assert run(model, {key: prompt}, stops, sampling, 1)[key] == batched[key]
        ids = torch.tensor([prompt])
        settings = {"do_sample": False, "max_new_tokens": 40, "eos_token_id": list(stops), "pad_token_id": 0}
        theirs = library.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()
        reason = "stop" if theirs[-1] in stops else "length"
        assert batched[key] == (theirs[:-1] if reason == "stop" else theirs, reason)


def test_a_wrong_mask_would_show(tiny_qwen, monkeypatch):
    """The negative control of the test above: rows that see one column too many give other tokens."""
    model, renderer, _ = load(tiny_qwen)
    requests, sampling = some_requests(renderer), Sampling(max_new_tokens=20)
    right = run(model, requests, set(), sampling, 4)
    forward = gen.forward
    monkeypatch.setattr(
        gen, "forward", lambda lm, cache, tokens, lengths: forward(lm, cache, tokens, [n + 1 for n in lengths])
    )
    assert run(model, requests, set(), sampling, 4) != right


def test_length_limit_counts_new_tokens(tiny_qwen):
    model, renderer, _ = load(tiny_qwen)
    done = run(model, some_requests(renderer, 3), set(), Sampling(max_new_tokens=5), 2)
    assert all(len(ids) == 5 and reason == "length" for ids, reason in done.values())
    assert run(model, {}, set(), Sampling(), 2) == {}


def test_sampling_depends_on_key_and_seed_not_on_the_batch(tiny_qwen):
    model, renderer, _ = load(tiny_qwen)
    requests = some_requests(renderer)
    sampling = Sampling(temperature=1.0, top_p=0.9, top_k=50, max_new_tokens=12, seed=3)
    first = run(model, requests, set(), sampling, 4)
    assert run(model, dict(reversed(requests.items())), set(), sampling, 7) == first
    assert run(model, requests, set(), Sampling(1.0, 0.9, 50, 12, seed=4), 4) != first
    same_prompt = {"a": requests["r0"], "b": requests["r0"]}
    done = run(model, same_prompt, set(), sampling, 2)
    assert done["a"] != done["b"]


def test_pick_follows_the_distribution():
    probs = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    logits = probs.log()

    def at(u, **settings):
        return pick(logits, Sampling(temperature=1.0, **settings), [u])[0]

    # likeliest first: 1 up to .5, 3 up to .75, 2 up to .9, 0 to the end
    assert [at(u) for u in (0.0, 0.49, 0.51, 0.74, 0.76, 0.89, 0.91, 0.999)] == [1, 1, 3, 3, 2, 2, 0, 0]
    assert at(0.99, top_k=1) == 1
    assert [at(u, top_k=2) for u in (0.66, 0.67)] == [1, 3]  # 2/3 and 1/3
    assert [at(u, top_p=0.6) for u in (0.66, 0.67)] == [1, 3]  # the token that crosses top_p is kept
    assert at(0.99, top_p=0.5) == 1
    assert pick(logits, Sampling(), [0.99]) == [1]
    assert pick(logits, Sampling(temperature=0.01), [0.99]) == [1]


def test_stop_ids_hold_the_end_of_a_turn(tiny):
    _, renderer, stops = load(tiny)
    assert renderer.turn_end[-1] in stops
    assert renderer.tokenizer.eos_token_id in stops
    assert None not in stops


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "width", "type"])
def test_a_damaged_model_is_one_line(tiny_qwen, tmp_path, file):
    shutil.copytree(tiny_qwen, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    if file in ("width", "type"):
        config["hidden_size"] = 2 * config["hidden_size"] if file == "width" else "wide"
        (tmp_path / "config.json").write_text(json.dumps(config))
    else:
        (tmp_path / file).write_bytes(Path(tiny_qwen, file).read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cannot load a (model|tokenizer) from|is damaged|has shape") as error:
        gen.respond(str(tmp_path), {}, print, 2, "float32")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", [[], {"eos_token_id": "<|im_end|>"}, {"eos_token_id": [2, [3]]}])
def test_a_generation_config_that_is_none_is_one_line(tiny_qwen, tmp_path, config):
    shutil.copytree(tiny_qwen, tmp_path, dirs_exist_ok=True)
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"generation_config\.json of .* is not valid: .*; correct or delete it"):
        load_policy(ModelConfig(str(tmp_path)), Ranks(), AutoTokenizer.from_pretrained(tiny_qwen))


def test_a_template_that_opens_the_thought_is_told_by_the_text(tiny_qwen, tmp_path):
    """Else the answer in a thought that never ended would pass for a final one."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"
    )
    AutoModelForCausalLM.from_pretrained(tiny_qwen).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    kept = []
    asked = {"k": (prompt_messages("1+1?"), Sampling(max_new_tokens=4))}
    gen.respond(str(tmp_path), asked, lambda key, made: kept.append(made), 2, "float32")
    assert kept[0]["text"].startswith("<think>\n") and kept[0]["dtype"] == "float32" and kept[0]["seconds"] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu_in_float32(tiny_qwen):
    model, renderer, _ = load(tiny_qwen)
    requests, sampling = some_requests(renderer), Sampling(max_new_tokens=20)
    here = run(model, requests, set(), sampling, 4)
    there = gen.load_model(tiny_qwen, torch.device("cuda"), torch.float32)
    assert run(there, requests, set(), sampling, 4) == here


def test_a_float32_model_in_sixteen_bits_is_rounded_at_random(tiny_qwen):
    """To nearest, a preference stage's change would be dropped; what a 16-bit file holds stays as it is."""
    exact, rounded = (gen.load_model(tiny_qwen, CPU, dtype) for dtype in (torch.float32, torch.bfloat16))
    again = gen.load_model(tiny_qwen, CPU, torch.bfloat16)
    away = 0
    for (name, w), r, a in zip(exact.named_parameters(), rounded.parameters(), again.parameters(), strict=True):
        assert torch.equal(r, a) and r.dtype == torch.bfloat16, name
        assert ((r.float() - w).abs() <= 2**-7 * w.abs()).all(), name
        away += (r != w.bfloat16()).sum().item()
    assert away > 1000
