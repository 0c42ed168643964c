"""Rendering: labels start after the prompt, the end of the turn is supervised, one BOS at most, one prompt for all."""

import pytest

from data.render import Renderer, prompt_messages, response_text
from errors import UserError
from pocket.tiny import FAMILIES, make_tokenizer

TURN_END = {"qwen2": "<|im_end|>", "llama": "<|eot_id|>", "mistral": "</s>"}


@pytest.fixture(scope="module")
def renderer(family):
    return Renderer(make_tokenizer(family))


def test_labels_start_after_the_prompt_and_the_turn_end_is_the_last(renderer, family):
    messages = prompt_messages("How many legs do 3 dogs have?")
    sequence = renderer.sequences([(messages, "3 × 4 = 12.")])[0]
    supervised = sequence.ids[sequence.prompt_len :].tolist()
    assert renderer.tokenizer.decode(supervised) == "3 × 4 = 12." + TURN_END[family]
    assert sequence.ids[: sequence.prompt_len].tolist() == renderer.prompt_ids(messages)


def test_the_whole_equals_the_template_rendering(renderer, family):
    """Up to what follows the turn's end, and Mistral's space before the text, tokens are the template's own text."""
    messages = prompt_messages("2 birds?")
    text = renderer.tokenizer.decode(renderer.sequences([(messages, "4 legs")])[0].ids)
    template = renderer.tokenizer.apply_chat_template(
        [*messages, {"role": "assistant", "content": "4 legs"}], tokenize=False
    )
    assert template.replace("[/INST] ", "[/INST]").startswith(text)


def test_at_most_one_bos(renderer, family):
    ids = renderer.sequences([(prompt_messages("2 birds?"), "4")])[0].ids.tolist()
    bos = FAMILIES[family].bos
    count = 0 if bos is None else ids.count(renderer.tokenizer.convert_tokens_to_ids(bos))
    assert count == (0 if bos is None else 1)


def test_double_bos_is_refused():
    tokenizer = make_tokenizer("llama")
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(UserError, match="BOS twice"):
        Renderer(tokenizer).prompt_ids(prompt_messages("?"))


def test_no_chat_template_is_refused():
    tokenizer = make_tokenizer("qwen2")
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        Renderer(tokenizer)


def test_a_template_that_refuses_the_roles_says_so():
    with pytest.raises(UserError, match="refuses messages with roles system, user"):
        Renderer(make_tokenizer("mistral")).prompt_ids(prompt_messages("?", system="Think."))


def test_response_styles():
    assert response_text("r", "s", "plain") == "r\n\ns"
    assert response_text("r", "s", "think") == "<think>\nr\n</think>\n\ns"
    bespoke = response_text("r", "s", "bespoke")
    assert bespoke.startswith("<|begin_of_thought|>\n\nr\n\n<|end_of_thought|>")
    assert bespoke.endswith("<|begin_of_solution|>\n\ns\n\n<|end_of_solution|>")
    assert response_text("r", None, "think") == "<think>\nr\n</think>"


def test_instruction_and_system():
    messages = prompt_messages("1+1?", system="Think.", instruction="Box it. {problem}")
    assert messages == [{"role": "system", "content": "Think."}, {"role": "user", "content": "Box it. 1+1?"}]


def test_a_prompt_that_opens_the_thought_is_not_repeated():
    tokenizer = make_tokenizer("qwen2")
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>assistant\n{% endif", "<think>\n{% endif")
    renderer = Renderer(tokenizer)
    sequence = renderer.sequences([(prompt_messages("2 birds?"), response_text("2 × 2 = 4", "4", "think"))])[0]
    text = tokenizer.decode(sequence.ids)
    assert text.endswith("<think>\n2 × 2 = 4\n</think>\n\n4<|im_end|>") and text.count("<think>") == 1


def test_the_date_in_a_template_is_fixed():
    tokenizer = make_tokenizer("llama")
    tokenizer.chat_template = "{{ date_string or strftime_now('%d %b %Y') }} " + tokenizer.chat_template
    assert tokenizer.decode(Renderer(tokenizer).prompt_ids(prompt_messages("?"))).startswith("26 Jul 2024")
