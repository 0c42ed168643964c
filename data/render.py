"""One way from records to what a model sees: the response format, the prompt, the chat template, ids and loss mask.

SFT, CogPO and evaluation all render through `Renderer.prompt_ids`, so the prompt that a model is trained on is the
prompt that it is evaluated on, token for token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jinja2
import numpy as np

from errors import UserError

if TYPE_CHECKING:  # transformers takes seconds to import, and who only writes records needs no tokenizer
    from transformers import PreTrainedTokenizerBase

STYLES = {
    # Bespoke-Stratos-17k, Sky-T1 and OpenThoughts-114k: plain-text tags
    "bespoke": (
        "<|begin_of_thought|>\n\n{reasoning}\n\n<|end_of_thought|>",
        "\n\n<|begin_of_solution|>\n\n{solution}\n\n<|end_of_solution|>",
    ),
    "think": ("<think>\n{reasoning}\n</think>", "\n\n{solution}"),
    "plain": ("{reasoning}", "\n\n{solution}"),
}


def response_text(reasoning: str, solution: str | None, style: str) -> str:
    """Write the assistant's text in one of STYLES: reasoning, then the solution (None: nothing follows)."""
    before, after = STYLES[style]
    text = before.format(reasoning=reasoning.strip())
    return text if solution is None else text + after.format(solution=solution.strip())


def boxed_solution(answer: str) -> str:
    """Write the solution that says nothing but the final answer."""
    return f"The final answer is \\boxed{{{answer}}}."


def prompt_messages(problem: str, system: str | None = None, instruction: str = "{problem}") -> list[dict]:
    """Make the messages before the response. instruction: a template around the problem, e.g. Bespoke-Stratos'."""
    user = {"role": "user", "content": instruction.replace("{problem}", problem)}
    return [{"role": "system", "content": system}, user] if system else [user]


def problem_messages(problem: dict, system: str | None, instruction: str | dict[str, str]) -> list[dict]:
    """Make the messages before the response to a problem record. instruction: a template, or one for each domain and a
    `default`."""
    if isinstance(instruction, dict):
        instruction = instruction.get(problem.get("domain"), instruction["default"])
    return prompt_messages(problem["problem"], system, instruction)


@dataclass(frozen=True)
class Sequence:
    """One prompt and one response as tokens. ids: int32 [T]. Positions >= prompt_len are supervised (EOS included)."""

    ids: np.ndarray
    prompt_len: int

    def __len__(self):
        return len(self.ids)


class Renderer:
    """Renders messages through the tokenizer's own chat template. Raises UserError if there is none."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        if not tokenizer.chat_template:
            raise UserError(
                f"the tokenizer in {tokenizer.name_or_path} has no chat template; use an instruct model, or put a "
                f"template into its tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.turn_end = self._turn_end()
        question = [{"role": "user", "content": "."}]
        self.opens_thought = self._template(question, add_generation_prompt=True).endswith("<think>\n")

    def prompt_ids(self, messages: list[dict]) -> list[int]:
        """Tokenize up to where the assistant's text starts, with at most one BOS. Raises UserError where the template
        refuses the messages."""
        return self._prompts_ids([messages])[0]

    def sequence(self, messages: list[dict], response: str) -> Sequence:
        """Tokenize a prompt and the assistant's text. The last token of the Sequence ends the turn."""
        return self.sequences([(messages, response)])[0]

    def sequences(self, items: list[tuple[list[dict], str]]) -> list[Sequence]:
        """Tokenize (messages, response) pairs together: the tokenizer then uses all cores.

        A response is tokenized on its own: the prompt's tokens never depend on what follows, and the first token of
        the response is supervised in the very context that generation starts from. Where the prompt itself ends in
        <think> (DeepSeek-R1's templates), the response does not repeat it.
        """
        heads = self._prompts_ids([messages for messages, _ in items])
        texts = [text.removeprefix("<think>\n") if self.opens_thought else text for _, text in items]
        return [
            Sequence(np.asarray(head + response + self.turn_end, dtype=np.int32), len(head))
            for head, response in zip(heads, self._encode(texts), strict=True)
        ]

    def _prompts_ids(self, prompts):
        """Tokenize prompts, and refuse templates that write a second BOS."""
        found = self._encode([self._template(messages, add_generation_prompt=True) for messages in prompts])
        bos = self.tokenizer.bos_token_id
        if bos is not None and any(ids[:2] == [bos, bos] for ids in found):
            raise UserError(f"the chat template of {self.tokenizer.name_or_path} writes BOS twice")
        return found

    def _encode(self, texts):
        return self.tokenizer(texts, add_special_tokens=False).input_ids  # the template itself writes the BOS

    def _template(self, messages, **kwargs):
        """Render messages through the tokenizer's chat template."""
        try:
            # Llama 3.x writes the date into its system prompt; a fixed one (3.1's own), or tokens change overnight
            return self.tokenizer.apply_chat_template(messages, tokenize=False, date_string="26 Jul 2024", **kwargs)
        except jinja2.TemplateError as error:
            roles = ", ".join(m["role"] for m in messages)
            raise UserError(
                f"the chat template of {self.tokenizer.name_or_path} refuses messages with roles {roles}: {error}"
            ) from None

    def _turn_end(self):
        """Find the ids that close the assistant's turn, e.g. [<|im_end|>]: what the template puts behind the
        assistant's text, up to and including the first special token; the EOS if it puts none."""
        marker = "RESPONSE-GOES-HERE"
        turns = [{"role": "user", "content": "."}, {"role": "assistant", "content": marker}]
        ids = self._encode([self._template(turns).rpartition(marker)[2]])[0]
        special = set(self.tokenizer.all_special_ids)
        closing = next((ids[: i + 1] for i, token in enumerate(ids) if token in special), None)
        return closing or [self.tokenizer.eos_token_id]
