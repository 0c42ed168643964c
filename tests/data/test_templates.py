"""What the chat templates of well-known models make of a record: all that was given is trained, once, behind the prompt
that the model sees, or it is refused."""

from itertools import groupby

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data.messages import check_messages
from data.render import Renderer, joined
from errors import UserError
from tests.support.templates import CHATML_LIKE, tokenizer

USER, AGAIN = {"role": "user", "content": "2 birds?"}, {"role": "user", "content": "3 dogs?"}
SYSTEM = {"role": "system", "content": "Base 8."}
TOOLS = [
    {"type": "function", "function": {"name": "legs", "description": 'Counts "legs"', "parameters": {
        "type": "object", "properties": {"animal": {"type": "string", "description": "é"}}}}}
]  # fmt: skip
CALL = {"id": "1", "type": "function", "function": {"name": "legs", "arguments": '{"animal": "bird"}'}}


def says(content, **more):
    return {"role": "assistant", "content": content} | more


def shown(renderer, sequence):
    """The text of a sequence, what is supervised in ⟦ ⟧."""

    def trained(item):
        at = item[0]
        return at >= sequence.prompt_len and not any(start <= at < end for start, end in sequence.gaps)

    parts = [(kind, [token for _, token in part]) for kind, part in groupby(enumerate(sequence.ids.tolist()), trained)]
    texts = [(kind, renderer.tokenizer.decode(ids)) for kind, ids in parts]
    assert sequence.supervised == sum(len(ids) for kind, ids in parts if kind)
    return "".join(f"⟦{text}⟧" if kind else text for kind, text in texts)


def trained(name, messages, tools=None, **kwargs):
    check_messages(messages, "messages")
    renderer = Renderer(tokenizer(name), kwargs)
    ends = [end for end, message in enumerate(messages, 1) if message["role"] == "assistant"]
    return [shown(renderer, s) for s in joined(renderer.encode([renderer.text(messages[:e], tools) for e in ends]))]


THOUGHT = "<think>\nR\n</think>\n\nC"
CHATML = "<|im_start|>user\n2 birds?<|im_end|>\n<|im_start|>assistant\n"
QWEN25 = "<|im_start|>system\nYou are Qwen.<|im_end|>" + CHATML
R1 = "<|begin|><|User|>2 birds?<|Assistant|><think>\n"
GIVEN = {  # one thought and one answer, as datasets write them
    "tags": says(THOUGHT),
    "tags without line breaks": says("<think>R</think>C"),
    "no opening tag": says("R\n</think>\n\nC"),
    "reasoning_content": says("C", reasoning_content="R"),
    "reasoning": says("C", reasoning="R"),
    "text parts": says([{"type": "text", "text": "<think>\nR\n</think>"}, {"type": "text", "text": "\n\nC"}]),
}


@pytest.mark.parametrize("form", GIVEN)
@pytest.mark.parametrize(
    "name, prompt, response",
    [
        ("qwen3", CHATML, THOUGHT + "<|im_end|>"),
        ("qwen3-thinking", CHATML + "<think>\n", THOUGHT.removeprefix("<think>\n") + "<|im_end|>"),
        ("r1", R1, THOUGHT.removeprefix("<think>\n") + "<|endoftext|>"),
        ("bare", CHATML + "<think>", THOUGHT.removeprefix("<think>") + "<|im_end|>"),
        ("two breaks", CHATML + "<think>\n\n", THOUGHT.removeprefix("<think>\n") + "<|im_end|>"),
    ],
)
def test_a_thought_is_opened_once_and_closed_once(form, name, prompt, response):
    (text,) = trained(name, [USER, GIVEN[form]])
    if name == "qwen3" or form in ("tags", "reasoning_content", "reasoning", "text parts"):
        assert text == f"{prompt}⟦{response}⟧"
    assert "".join(text.split()) == "".join(f"{prompt}⟦{response}⟧".split())


def test_without_a_thought():
    assert trained("qwen2.5", [USER, says("C")]) == [QWEN25 + "⟦C<|im_end|>⟧"]
    # the template's own empty thought, supervised where the model has to write it
    assert trained("qwen3", [USER, says("C")]) == [CHATML + "⟦<think>\n\n</think>\n\nC<|im_end|>⟧"]
    assert trained("qwen3", [USER, says("C")], enable_thinking=False) == [
        CHATML + "<think>\n\n</think>\n\n⟦C<|im_end|>⟧"
    ]
    assert trained("qwen3.5-small", [USER, says("C")]) == [CHATML + "<think>\n\n</think>\n\n⟦C<|im_end|>⟧"]
    assert trained("qwen3-thinking", [USER, says("C")]) == [CHATML + "<think>\n⟦\n</think>\n\nC<|im_end|>⟧"]
    with pytest.raises(UserError, match="ends with <think>, but the response has no thought"):
        trained("r1", [USER, says("C")])


@pytest.mark.parametrize("name, end", [("qwen3", "<|im_end|>"), ("r1", "<|endoftext|>"), ("mistral", "</s>")])
def test_an_end_of_turn_that_is_there_already_is_trained_once(name, end):
    wanted = trained(name, [USER, says(THOUGHT)])
    assert (
        trained(name, [USER, says(THOUGHT + end)]) == trained(name, [USER, says(THOUGHT + end + "\n" + end)]) == wanted
    )
    assert trained(name, [USER, says(THOUGHT + end), AGAIN, says("<think>\nS\n</think>\n\nD")]) == trained(
        name, [USER, says(THOUGHT), AGAIN, says("<think>\nS\n</think>\n\nD")]
    )


def test_a_thought_cut_short_stays_open():
    """Rejected answers of samples that met their length."""
    assert trained("r1", [USER, says("<think>\nR")]) == [R1 + "⟦R<|endoftext|>⟧"]
    assert trained("qwen3", [USER, says("<think>\nR")]) == [CHATML + "⟦<think>\nR<|im_end|>⟧"]


@pytest.mark.parametrize("form", GIVEN)
@pytest.mark.parametrize("name", ["qwen3.5-small", "v3.1"])
def test_a_thought_behind_a_prompt_that_closes_it_is_refused(name, form):
    with pytest.raises(UserError, match="ends with </think>, a thought that is over"):
        trained(name, [USER, GIVEN[form]])
    if name == "qwen3.5-small":
        (text,) = trained(name, [USER, GIVEN[form]], enable_thinking=True)
        assert text.count("<think>") == text.count("</think>") == 1


def test_a_thought_that_is_opened_twice_is_refused():
    for name in ("qwen2.5", "r1"):
        with pytest.raises(UserError, match="thought twice"):
            trained(name, [USER, says("<think>\n<think>\nR\n</think>\n\nC")])


def test_every_turn_is_trained_behind_the_prompt_it_answers():
    first, second = says("<think>\nR\n</think>\n\nC"), says("<think>\nS\n</think>\n\nD")
    # a template that keeps earlier turns as they are: one sequence
    assert trained("qwen2.5", [USER, first, AGAIN, second]) == [
        QWEN25 + f"⟦{THOUGHT}<|im_end|>⟧\n<|im_start|>user\n3 dogs?<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\nS\n</think>\n\nD<|im_end|>⟧"
    ]
    # one that drops their thoughts: each response behind the prompt that the model will see then
    assert trained("qwen3", [USER, first, AGAIN, second]) == [
        f"{CHATML}⟦{THOUGHT}<|im_end|>⟧",
        f"{CHATML}C<|im_end|>\n<|im_start|>user\n3 dogs?<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\nS\n</think>\n\nD<|im_end|>⟧",
    ]
    assert trained("mistral", [SYSTEM, USER, says("C"), AGAIN, says("D")]) == [
        "<s>[INST] Base 8.\n\n2 birds?[/INST]⟦ C</s>⟧",
        "<s>[INST] 2 birds?[/INST] C</s>[INST] Base 8.\n\n3 dogs?[/INST]⟦ D</s>⟧",
    ]
    assert trained("phi3", [USER, says("C"), AGAIN, says("D")]) == [
        "<|user|>\n2 birds?<|end|>\n<|assistant|>\n⟦C<|end|>⟧\n<|user|>\n3 dogs?<|end|>\n<|assistant|>\n⟦D<|end|>⟧"
    ]


def test_a_switch_that_the_template_takes_out_is_no_loss():
    (text,) = trained("smollm3", [{"role": "system", "content": "Base 8. /no_think\r\nBe brief."}, USER, says("C")])
    assert "\nBase 8. \r\nBe brief.<|im_end|>" in text and text.endswith("⟦C<|im_end|>⟧")
    with pytest.raises(UserError, match="leaves out the developer message 'Base 8"):
        trained("smollm3", [{"role": "developer", "content": "Base 8. /no_think"}, USER, says("C")])


def test_channels_are_the_templates_own():
    prompt = "<|start|>user<|stop|>2 birds?<|end|><|start|>assistant"
    assert trained("harmony", [USER, says("C")]) == [prompt + "⟦<|channel|>final<|stop|>C<|return|>⟧"]
    assert trained("harmony", [USER, says("C", reasoning_content="R")]) == [
        prompt + "⟦<|channel|>analysis<|stop|>R<|end|><|start|>assistant<|channel|>final<|stop|>C<|return|>⟧"
    ]


def test_tools_and_their_calls():
    turns = [USER, says(None, tool_calls=[CALL]), {"role": "tool", "tool_call_id": "1", "content": '"4"'}, says("4.")]
    (text,) = trained("qwen2.5", turns, TOOLS)
    assert '"description": "Counts \\"legs\\""' in text and '<tool_response>\n"4"\n</tool_response>' in text
    assert '⟦<tool_call>\n{"name": "legs", "arguments": {"animal": "bird"}}\n</tool_call><|im_end|>⟧' in text
    (text,) = trained("llama3.1", turns, TOOLS)
    assert '⟦{"name": "legs", "parameters": {"animal": "bird"}}<|eom_id|>⟧' in text and text.endswith("⟦4.<|eot_id|>⟧")
    with pytest.raises(UserError, match="leaves out of the tools 'legs'"):
        trained("granite", [USER, says("4.")], TOOLS)
    with pytest.raises(UserError, match="does not write tool calls"):
        trained("granite", turns)


@pytest.mark.parametrize(
    "name, turns, reason",
    [
        ("qwen2.5", [{"role": "developer", "content": "Base 8."}, USER, says("C")], "leaves out the developer message"),
        ("granite", [USER, {"role": "tool", "content": "9 legs"}, says("C")], "leaves out the text '9 legs'"),
        ("gemma", [SYSTEM, USER, says("C")], "System role not supported"),
        ("qwen2.5", [USER, says("C <|im_end|> D")], r"goes on behind <\|im_end\|>"),
        ("qwen2.5", [{"role": "human", "content": "?"}, says("C")], "message 1 has the role 'human'"),
        ("qwen2.5", [USER | {"content": [{"type": "image_url"}]}, says("C")], "part of type 'image_url'"),
        ("qwen2.5", [USER, says("")], "message 2 is the assistant's and empty"),
        ("qwen2.5", [USER, says(THOUGHT, reasoning="R")], "gives its reasoning twice"),
        ("qwen2.5", [USER | {"reasoning_content": "R"}, says("C")], "are an assistant's"),
        ("qwen2.5", [USER, says("C", weight=0.5)], "has the weight 0.5"),
        ("qwen2.5", [USER | {"images": ["a.png"]}, says("C")], "has the key images"),
        ("qwen2.5", [USER, says("C", loss=False), USER, says("D")], "has the key loss, .* is weight: 0"),
        ("qwen2.5", [USER, says("C", masked=True), USER, says("D")], "has the key masked, .* is weight: 0"),
        ("qwen2.5", [USER, says("C", thought="R")], "has the key thought, which would not be trained"),
    ],
)
def test_what_cannot_be_trained_is_refused(name, turns, reason):
    with pytest.raises(UserError, match=reason):
        trained(name, turns)


def test_keys_that_say_that_a_turn_is_trained_are_no_fault():
    turns = [USER | {"loss": False, "train": False}, says("C", loss=True, train=True, mask=False, trainable=None)]
    assert trained("qwen2.5", turns) == trained("qwen2.5", [USER, says("C")])


def test_white_space_that_a_template_trims_is_no_loss():
    (text,) = trained("gemma", [USER | {"content": "\n 2 birds? \n"}, says("  C\n\nD  ")])
    assert text == "<|begin|><start_of_turn>user\n2 birds?<end_of_turn>\n<start_of_turn>model\n⟦C\n\nD<end_of_turn>⟧"


def test_the_date_is_that_of_the_project():
    assert "Today is July 26, 2024." in trained("granite", [USER, says("C")])[0]
    assert "Today Date: 26 July 2024" in trained("smollm3", [USER, says("C")])[0]
    assert "Today Date: 1 Jan" in trained("llama3.1", [USER, says("C")], date_string="1 Jan")[0]
    clock = tokenizer("granite")
    clock.chat_template = "{% set layout = '%d' %}{{ strftime_now(layout) }}" + clock.chat_template
    with pytest.raises(UserError, match="it would change daily"):
        Renderer(clock)


def test_kwargs_that_a_template_does_not_read_are_refused(capsys):
    with pytest.raises(UserError, match=r"does not read enable_thinkng of chat_template_kwargs; it reads .*enable_th"):
        Renderer(tokenizer("qwen3"), {"enable_thinkng": False})
    Renderer(tokenizer("qwen2.5"), {"enable_thinking": False}, strict=False)
    assert "warning: the chat template of" in capsys.readouterr().err


def test_a_sentencepiece_tokenizer_puts_no_space_before_the_response():
    pieces = ["<unk>", "<|im_start|>", "<|im_end|>", "▁", "▁The", "The", "\n", "user", "assistant", "▁user", "?"]
    inner = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Split("\n", "isolated")]
    )
    ids = lambda *texts: [pieces.index(text) for text in texts]  # noqa: E731
    plain = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML_LIKE,
    )  # fmt: skip
    assert plain("The", add_special_tokens=False).input_ids == ids("▁The")
    sequence = Renderer(plain).sequences([([{"role": "user", "content": "?"}], "The")])[0]
    assert sequence.ids[sequence.prompt_len :].tolist() == ids("The", "<|im_end|>")
