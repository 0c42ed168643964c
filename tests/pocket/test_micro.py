"""The micro student: its tokenizer gives every digit a token, its folder renders, trains and ends a turn."""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.records import write_jsonl
from data.render import Renderer
from pocket.study.micro import MicroConfig, main
from tests.support.tiny import sft_rows


def test_student(tmp_path):
    write_jsonl(tmp_path / "text.jsonl", sft_rows(30))
    write_jsonl(tmp_path / "more.jsonl", [{"problem": "How many aardvarks?", "reasoning": "17 aardvarks"}] * 9)
    files = [str(tmp_path / "text.jsonl"), str(tmp_path / "more.jsonl")]
    cfg = MicroConfig(str(tmp_path / "student"), files, vocabulary=300, hidden=32, layers=1, heads=2, intermediate=48)
    main(cfg)
    folder = tmp_path / "student"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more.jsonl", "student", "text.jsonl"]

    tokenizer = AutoTokenizer.from_pretrained(folder)
    pieces = [tokenizer.decode([i]) for i in tokenizer("What is 345+12?", add_special_tokens=False).input_ids]
    assert "".join(pieces) == "What is 345+12?" and pieces[-7:] == ["3", "4", "5", "+", "1", "2", "?"]
    assert len(tokenizer(" aardvarks").input_ids) < 6  # learnt from the second file
    assert len(tokenizer) <= 300

    renderer = Renderer(tokenizer)
    sequence = renderer.sequences([([{"role": "user", "content": "1+1?"}], "2")])[0]
    assert tokenizer.decode(sequence.ids) == "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.eos_token_id == renderer.turn_end[-1] == tokenizer.eos_token_id
    assert torch.isfinite(model(torch.tensor([sequence.ids.tolist()])).logits).all()

    before = (folder / "model.safetensors").read_bytes()
    main(cfg)  # a second call changes nothing
    assert (folder / "model.safetensors").read_bytes() == before
