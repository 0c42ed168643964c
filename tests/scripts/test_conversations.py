"""Records of every shape through the training scripts: several turns, tools, columns, large groups, another day."""

import json
import math
from datetime import datetime

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import chat_template_utils

from pocket.tiny import make_model
from tests.support.scripts import assert_same_run, cogpo_words, fails, inside, metrics, sft_words
from tests.support.templates import GRANITE, QWEN3

USER = {"role": "user", "content": "2 birds?"}


def says(content, **more):
    return {"role": "assistant", "content": content} | more


def written(folder, name, rows):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def model_with(template, folder):
    make_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def conversations(n, **more):
    turns = lambda i: [USER, says(f"two {i}"), {"role": "user", "content": f"{i} dogs?"}, says(f"{4 * i} legs.")]  # noqa: E731
    return [{"id": str(i), "messages": turns(i)} | more for i in range(n)]


def test_the_loss_of_conversations_is_that_of_all_their_answers(tiny_qwen, tmp_path):
    """Against transformers' own forward pass, over what TRL's assistant_only_loss supervises."""
    data = written(tmp_path / "d", "sft.jsonl", conversations(5))
    inside("train_sft.py", *sft_words(tiny_qwen, data, tmp_path / "o", epochs=1))
    lm, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_qwen).eval(), AutoTokenizer.from_pretrained(tiny_qwen)
    total = count = 0
    for row in conversations(5):
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        answers = [turn["content"] + "<|im_end|>" for turn in row["messages"][1::2]]
        spans = [(text.index(answer), text.index(answer) + len(answer)) for answer in answers]
        ids = torch.tensor([encoded.input_ids])
        with torch.no_grad():
            logps = lm(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        inside_answer = [any(a <= start < b for a, b in spans) for start, _ in encoded.offset_mapping[1:]]
        total -= logps[torch.tensor(inside_answer)].sum().item()
        count += sum(inside_answer)
    (line,) = metrics(tmp_path / "o")
    assert line["loss"] == pytest.approx(total / count, rel=1e-4)


def test_turns_that_a_template_changes_later_stay_in_one_step(tmp_path, capfd):
    model = model_with(QWEN3, tmp_path / "m")
    rows = conversations(6, source="here")
    rows[3]["messages"][1] |= {"model": "some-72b", "annotations": [], "refusal": None}
    data = written(tmp_path / "d", "sft.jsonl", rows)
    inside("train_sft.py", *sft_words(model, data, tmp_path / "o", epochs=1, batch__size=2))
    said = capfd.readouterr().err
    assert "6 examples in 12 sequences" in said and "does not read the columns model (of messages), source\n" in said
    assert len(metrics(tmp_path / "o")) == 3


def test_a_turn_of_weight_0_is_context(tiny_qwen, tmp_path):
    turns = [USER, says("two", weight=0), {"role": "user", "content": "dogs?"}, says("4 legs.", weight=1)]
    data = written(tmp_path / "d", "sft.jsonl", [{"id": "1", "messages": turns}])
    inside("train_sft.py", *sft_words(tiny_qwen, data, tmp_path / "o", epochs=1))
    plain = [{k: v for k, v in turn.items() if k != "weight"} for turn in turns]
    from data.render import Renderer

    sequence = Renderer(AutoTokenizer.from_pretrained(tiny_qwen)).sequences([(plain[:3], "4 legs.")])[0]
    assert metrics(tmp_path / "o")[0]["tokens"] == len(sequence) and sequence.gaps == ()


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"messages": [{"role": "human", "content": "?"}, says("!")]}, "record 'x': messages: message 1 has the role"),
        ({"messages": [says("!")]}, "record 'x': the first message is the assistant's"),
        ({"messages": [USER, USER]}, "record 'x': the last message must be the assistant's"),
        ({"messages": [USER, says("!", weight=0)]}, "record 'x': every turn of the assistant has the weight 0"),
        ({"messages": [USER, says("!", thought="I see")]}, "record 'x': messages: message 2 has the key thought"),
        ({"system": "Base 8."}, "record 'x': the column system would not be trained"),
        ({"weight": 0}, "record 'x': the column weight would not be trained"),
        ({"tools": [{"name": "legs"}]}, "record 'x': the chat template of .* leaves out of the tools 'legs'"),
        ({"chat_template_kwargs": "x"}, "record 'x': chat_template_kwargs must be an object"),
        ({"tools": "legs"}, "record 'x': tools must be a list of objects"),
        (
            {"chat_template_kwargs": {"enable_thinking": False}},
            "record 'x': the chat template .* does not read enable_th",
        ),
    ],
)
def test_a_record_that_cannot_be_trained_whole_is_named(tiny_qwen, tmp_path, change, reason):
    rows = [conversations(1)[0], {"id": "x", "messages": [USER, says("!")]} | change]
    data = written(tmp_path / "d", "sft.jsonl", rows)
    with pytest.raises(ValueError, match=rf"sft.jsonl:2: {reason}"):
        inside("train_sft.py", *sft_words(tiny_qwen, data, tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_columns_whose_text_is_in_the_messages_are_no_loss(tiny_qwen, tmp_path):
    messages = [{"role": "system", "content": "Base 8."}, USER, says("!")]
    row = {"id": "x", "messages": messages, "system": "Base 8.", "images": [], "weight": 1.0, "input": None}
    data = written(tmp_path / "d", "sft.jsonl", [row])
    inside("train_sft.py", *sft_words(tiny_qwen, data, tmp_path / "o", epochs=1))
    (step,) = metrics(tmp_path / "o")
    assert step["tokens"] > 0 and math.isfinite(step["loss"])


def samples(n=24):
    """Pairs of one problem, as sampled answers make them: each right one against each wrong one."""
    return [
        {"id": str(i), "problem_id": "p", "prompt": [USER], "chosen": [says(f"right {i % 4}")],
         "rejected": [says(f"wrong {i // 4}")], "gap": "large"}
        for i in range(n)
    ]  # fmt: skip


def test_a_group_larger_than_a_row_is_split_with_equal_loss_and_gradient(tiny_qwen, tmp_path):
    data = written(tmp_path / "d", "pairs.jsonl", samples())
    for name, max_tokens in (("whole", 10**6), ("split", 200), ("pairs", 1)):
        words = cogpo_words(tiny_qwen, data, tmp_path / name, epochs=2, batch__size=24, batch__max_tokens=max_tokens)
        inside("train_cogpo.py", *words)
    assert metrics(tmp_path / "whole")[0]["sequences_saved"] == 48 - 10
    assert 0 < metrics(tmp_path / "split")[0]["sequences_saved"] < 38
    assert_same_run(tmp_path / "whole", tmp_path / "split")
    assert_same_run(tmp_path / "whole", tmp_path / "pairs")


def test_a_group_larger_than_a_step_is_several_steps(tiny_qwen, tmp_path):
    data = written(tmp_path / "d", "pairs.jsonl", samples(10))
    inside("train_cogpo.py", *cogpo_words(tiny_qwen, data, tmp_path / "o", epochs=1, batch__size=4))
    counts = [
        sum(line.get(f"{gap}/pairs", 0) for gap in ("small", "medium", "large")) for line in metrics(tmp_path / "o")
    ]
    assert sorted(counts) == [2, 4, 4]


def test_earlier_answers_in_the_prompt_of_a_pair_are_context(tmp_path):
    """Their thoughts as the template leaves them, as the model will see them."""
    model = model_with(QWEN3, tmp_path / "m")
    prompt = [USER, says("<think>\nR\n</think>\n\ntwo", weight=0), {"role": "user", "content": "3 dogs?"}]
    data = written(tmp_path / "d", "pairs.jsonl", [samples(1)[0] | {"prompt": prompt}])
    inside("train_cogpo.py", *cogpo_words(model, data, tmp_path / "o", epochs=1))
    from data.dataset import load_pairs
    from data.render import Renderer
    from settings import DataConfig

    tokenizer = AutoTokenizer.from_pretrained(model)
    sequences = load_pairs(DataConfig(str(data / "pairs.jsonl")), Renderer(tokenizer), True).sequences
    assert [tokenizer.decode(s.ids[s.prompt_len :]) for s in sequences] == [
        f"<think>\n\n</think>\n\n{side} 0<|im_end|>" for side in ("right", "wrong")
    ]
    assert "assistant\ntwo<|im_end|>" in tokenizer.decode(sequences[0].ids[: sequences[0].prompt_len])


def test_sides_that_differ_in_nothing_that_is_trained(tiny_qwen, tmp_path):
    pair = samples(1)[0]
    for sides in ({"rejected": [says("right 0", source="b")]}, {"rejected": [says("right 0<|im_end|>")]}):
        data = written(tmp_path / "d", "pairs.jsonl", [pair | sides])
        with pytest.raises(ValueError, match="record '0': chosen and rejected"):
            inside("train_cogpo.py", *cogpo_words(tiny_qwen, data, tmp_path / "o"))


def test_killed_and_resumed_on_another_day(tmp_path, monkeypatch):
    model = model_with(GRANITE, tmp_path / "m")
    data = written(tmp_path / "d", "sft.jsonl", conversations(4))
    words = sft_words(model, data, tmp_path / "o", epochs=1)
    inside("train_sft.py", *words)

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 2)

    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    text = AutoTokenizer.from_pretrained(model).apply_chat_template([USER], tokenize=False)
    assert "January 02, 2031" in text, "the template has a clock, and it is tomorrow"
    inside("train_sft.py", *words)  # the same data: already done


def test_chat_template_kwargs_of_training_and_evaluation_make_one_prompt(tmp_path, monkeypatch):
    from data.dataset import load_sft
    from data.render import Renderer
    from model import generate as gen
    from settings import DataConfig

    model = model_with(QWEN3, tmp_path / "m")
    data = written(tmp_path / "d", "sft.jsonl", [{"id": "1", "messages": [USER, says("two")]}])
    given = {"enable_thinking": False}
    renderer = Renderer(AutoTokenizer.from_pretrained(model), given)
    (sequence,) = load_sft(DataConfig(str(data / "sft.jsonl"), chat_template_kwargs=given), renderer).sequences
    asked = {}
    monkeypatch.setattr(gen, "generate", lambda model, prompts, *_: asked.update(prompts) or [])
    gen.respond(str(model), {"q": ([USER], gen.Sampling())}, print, 2, "float32", given)
    assert asked["q"] == sequence.ids[: sequence.prompt_len].tolist()
    assert renderer.tokenizer.decode(asked["q"]).endswith("assistant\n<think>\n\n</think>\n\n")


def test_the_command_line_names_a_template_that_does_not_read_a_key(tiny_qwen, tmp_path):
    data = written(tmp_path / "d", "sft.jsonl", conversations(1))
    words = sft_words(tiny_qwen, data, tmp_path / "o", data__chat_template_kwargs="{enable_thinking: false}")
    assert "does not read enable_thinking of chat_template_kwargs" in fails("train_sft.py", *words)
