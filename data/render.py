"""One way from records to what a model sees: the response format, the prompt, the chat template, ids and loss mask.

SFT, CogPO and evaluation all render through `Renderer.prompt_ids`, so the prompt that a model is trained on is the
prompt that it is evaluated on, token for token.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import jinja2
import jinja2.meta
import numpy as np

from data.messages import THINK_TAG, THOUGHTS, lost, readable, texts_of, texts_of_tools
from errors import UserError, one_line
from progress import say

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

# Some templates write today's date into the system prompt: a fixed one (Llama 3.1's own), or tokens change overnight
DAY = datetime(2024, 7, 26)
CLOCK = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
RESERVED = {"messages", "tools", "add_generation_prompt", "strftime_now", "raise_exception", "bos_token", "eos_token"}
MARKER = "RESPONSE-GOES-HERE"

# A prompt may end in an open thought (DeepSeek-R1) or in an empty one that is over (Qwen3 without thinking)
OPENED = re.compile(r"<(think|thought)>\s*\Z")
CLOSED = re.compile(r"</(?:think|thought)>\s*\Z")
EMPTY = re.compile(r"\A\s*<(think|thought)>\s*</\1>\s*")
THOUGHT = re.compile(r"\A\s*<(?:think|thought)>|</(?:think|thought)>")
DOUBLED = re.compile(r"\s*(?:<(think|thought)>\s*(?:</\1>\s*)?<\1>|</(think|thought)>\s*</?\2>)")


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
    """A conversation as tokens. ids: int32 [T]. Positions >= prompt_len are supervised (EOS included), but for `gaps`,
    the (start, end) of what others say between two of the assistant's turns."""

    ids: np.ndarray
    prompt_len: int
    gaps: tuple[tuple[int, int], ...] = ()

    def __len__(self):
        return len(self.ids)

    @property
    def supervised(self) -> int:
        """Count the tokens that are."""
        return len(self) - self.prompt_len - sum(end - start for start, end in self.gaps)


def joined(turns: list[Sequence]) -> list[Sequence]:
    """Make one sequence of a conversation's turns, where the prompt of each begins with all of the one before it.

    A turn that the template changes later (Qwen3's drops the thoughts of earlier turns) stays a sequence of its own:
    each response is supervised once, behind the very prompt that the model will see.
    """
    found = []
    for turn in turns:
        last = found[-1] if found else None
        if last is not None and turn.prompt_len >= len(last) and np.array_equal(turn.ids[: len(last)], last.ids):
            found[-1] = Sequence(turn.ids, last.prompt_len, (*last.gaps, (len(last), turn.prompt_len)))
        else:
            found.append(turn)
    return found


class Text(NamedTuple):
    """A prompt as rendered, and what the model is to write behind it. ended: with the end of its turn."""

    prompt: str
    response: str
    ended: bool = False


class Renderer:
    """Renders messages through the tokenizer's own chat template.

    chat_template_kwargs: what the template is given besides the messages, e.g. {"enable_thinking": False}; a record's
    own go before them. strict: a key that the template does not read is an error, else it is named and left out. Raises
    UserError if there is no template.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, chat_template_kwargs: dict | None = None, strict: bool = True
    ):
        if not tokenizer.chat_template:
            raise UserError(
                f"the tokenizer in {tokenizer.name_or_path} has no chat template; use an instruct model, or put a "
                f"template into its tokenizer_config.json"
            )
        self.tokenizer, self.where = tokenizer, f"the chat template of {tokenizer.name_or_path}"
        self.beyond = {id for id in tokenizer.added_tokens_decoder if id >= getattr(tokenizer, "rows", math.inf)}
        self.variables = self._variables()
        self.given = {"date_string": DAY.strftime("%d %b %Y")}
        self.given |= self._read_by_template(chat_template_kwargs or {}, strict)
        question, answer = {"role": "user", "content": "."}, {"role": "assistant", "content": MARKER}
        prompt = self._template([question], add_generation_prompt=True)
        before, _, self.behind = self._template([question, answer]).rpartition(MARKER)
        # around the assistant's text: white space (Mistral's) and what ends the turn, some ids of which close it
        self.lead = before.removeprefix(prompt) if before.startswith(prompt) and before[len(prompt) :].isspace() else ""
        self.turn_end = self._turn_end(before + MARKER)
        opened = OPENED.search(prompt)
        self.opening = opened[0] if opened else ""  # the thought that the prompt begins and the response goes on with

    def prompt_ids(self, messages: list[dict]) -> list[int]:
        """Tokenize up to where the assistant's text starts, with at most one BOS. Raises UserError where the template
        refuses the messages or leaves one out."""
        return self._prompts_ids([self._prompt([readable(message) for message in messages])])[0]

    def sequences(self, items: list[tuple[list[dict], str]]) -> list[Sequence]:
        """Tokenize texts behind the prompts of messages, as they are: what is measured, not what a record trains. The
        last token of each ends the turn."""
        prompts = [self._prompt([readable(message) for message in messages]) for messages, _ in items]
        said = [continued(prompt, text, thinks=True) for prompt, (_, text) in zip(prompts, items, strict=True)]
        return self.encode([Text(prompt, text) for prompt, text in zip(prompts, said, strict=True)])

    def text(self, messages: list[dict], tools: list | str | None = None, kwargs: dict | None = None) -> Text:
        """Render a conversation that ends with the assistant's message, which is the response.

        The response is what the template makes of it behind the prompt. Where the template cannot go on from its own
        prompt, or drops the thought (DeepSeek-R1's), it is the text as given, a thought in <think> tags before it.
        tools, kwargs: the record's tools and chat_template_kwargs. Raises UserError for what is refused or left out.
        """
        *before, reply = [readable(message) for message in messages]
        given = {"tools": _parsed(tools) or None} | self._read_by_template(kwargs or {})
        for message in (*before, reply):
            if message["role"] == "assistant":
                message["content"] = self._without_end(message["content"])
        prompt = self._prompt(before, **given)

        # as the template writes it: behind the prompt, up to the end of the turn, with all that was given
        whole, ended = self._template([*before, reply], **given), False
        response = whole.removeprefix(prompt)
        if response.endswith(self.behind):
            response = response.removesuffix(self.behind)
        else:  # a tool call may end the turn in another way
            response, ended = response.rstrip(), True
        good = whole.startswith(prompt) and (not ended or response.endswith(tuple(self.tokenizer.all_special_tokens)))
        if not good or lost(texts_of(reply), response) is not None or DOUBLED.match(response):
            # as it was given
            if "tool_calls" in reply:
                raise UserError(f"{self.where} does not write tool calls where the response begins")
            thought, response, ended = reply.get(THOUGHTS[0]), reply["content"], False
            response = self.lead + (response_text(thought, response or None, "think") if thought else response)
        thinks = THOUGHTS[0] in reply or THINK_TAG.search(reply["content"]) is not None
        return Text(prompt, continued(prompt, response, thinks), ended)

    def encode(self, texts: list[Text]) -> list[Sequence]:
        """Tokenize texts together: the tokenizer then uses all cores.

        The prompt's tokens never depend on what follows: generation starts from them. The response's are those that
        follow them in the whole text (a SentencePiece tokenizer puts a space before a text of its own), unless its
        first characters would merge with the prompt's last token.
        """
        heads = self._prompts_ids([text.prompt for text in texts])
        bodies = self._continue(heads, [text.prompt for text in texts], [text.response for text in texts])
        return [
            Sequence(np.asarray(head + body + ([] if text.ended else self.turn_end), dtype=np.int32), len(head))
            for text, head, body in zip(texts, heads, bodies, strict=True)
        ]

    def _continue(self, heads, befores, texts):
        """Tokenize texts behind others, whose ids are `heads`."""
        whole = self._ids([before + text for before, text in zip(befores, texts, strict=True)])
        found = [ids[len(head) :] if ids[: len(head)] == head else None for ids, head in zip(whole, heads, strict=True)]
        return [self._ids([text])[0] if ids is None else ids for ids, text in zip(found, texts, strict=True)]

    def _prompt(self, messages, **given):
        """Render the messages before a response. Raises UserError if one of them, or a tool, is not in the prompt."""
        prompt = self._template(messages, add_generation_prompt=True, **given)
        # system prompts and tools wherever they are, the others in order, of the assistant's earlier turns the answers
        system = [m for m in messages if m["role"] in ("system", "developer")]
        others = (text for m in messages if m not in system for text in texts_of(m, visible=m["role"] == "assistant"))
        given_in = [("the text", others), ("of the tools", texts_of_tools(given.get("tools")))]
        for what, texts in given_in + [(f"the {m['role']} message", texts_of(m)) for m in system]:
            missing = lost(texts, prompt, anywhere=texts is not others)
            if missing is not None:
                raise UserError(
                    f"{self.where} leaves out {what} {one_line(missing, 60)!r}; take another template, or "
                    f"take it out of the record"
                )
        return prompt

    def _prompts_ids(self, prompts):
        """Tokenize prompts, and refuse templates that write a second BOS."""
        found = self._ids(prompts)
        bos = self.tokenizer.bos_token_id
        if bos is not None and any(ids[:2] == [bos, bos] for ids in found):
            raise UserError(f"{self.where} writes BOS twice")
        return found

    def _ids(self, texts):
        found = self.tokenizer(texts, add_special_tokens=False).input_ids  # the template itself writes the BOS
        return [self._embedded(ids) for ids in found]

    def _embedded(self, ids):
        """Refuse tokens that the model has no embedding for."""
        if beyond := self.beyond.intersection(ids):
            token = self.tokenizer.convert_ids_to_tokens(min(beyond))
            raise UserError(
                f"{token} is token {min(beyond)} of the tokenizer in {self.tokenizer.name_or_path}, but the model has "
                f"embeddings for {self.tokenizer.rows}; take it out of the texts and the chat template, or resize the "
                f"embedding"
            )
        return ids

    def _template(self, messages, **kwargs):
        """Render messages through the tokenizer's chat template."""
        try:
            source = self.tokenizer.get_chat_template(tools=kwargs.get("tools"))
            source = CLOCK.sub(lambda found: repr(DAY.strftime(found[2])), source)
            given = {"chat_template": source, "tokenize": False} | self.given | kwargs
            return self.tokenizer.apply_chat_template(messages, **given)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            roles = ", ".join(m["role"] for m in messages)
            raise UserError(f"{self.where} refuses messages with roles {roles}: {error}") from None

    def _variables(self):
        """List what the template reads from outside. Raises UserError if it is no Jinja."""
        source = self.tokenizer.chat_template  # or several templates by name
        source = "\n".join(source.values()) if isinstance(source, dict) else source
        if "strftime_now(" in CLOCK.sub("", source):
            raise UserError(f"{self.where} writes the time, in a format that is not spelled out: it would change daily")
        source = re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", source)  # transformers' own tag
        try:
            parsed = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)
        except jinja2.TemplateError as error:
            raise UserError(f"{self.where} is no Jinja template: {error}") from None
        return jinja2.meta.find_undeclared_variables(parsed) - RESERVED - jinja2.defaults.DEFAULT_NAMESPACE.keys()

    def _read_by_template(self, kwargs, strict=True):
        """Return the kwargs that are not empty and that the template reads."""
        kwargs = {key: value for key, value in kwargs.items() if value not in (None, "", [], {})}
        if unread := sorted(kwargs.keys() - self.variables):
            read = ", ".join(sorted(self.variables)) or "none"
            problem = f"{self.where} does not read {', '.join(unread)} of chat_template_kwargs; it reads {read}"
            if strict:
                raise UserError(problem)
            say(f"warning: {problem}")
        return {key: value for key, value in kwargs.items() if key in self.variables}

    def _turn_end(self, before):
        """Find the ids that close the assistant's turn, e.g. [<|im_end|>]: what the template puts behind `before`, up
        to and including the first special token; the EOS if it puts none."""
        ids = self._continue(self._ids([before]), [before], [self.behind])[0]
        special = set(self.tokenizer.all_special_ids)
        closing = next((ids[: i + 1] for i, token in enumerate(ids) if token in special), None)
        if closing is None and self.tokenizer.eos_token_id is None:
            raise UserError(f"{self.where} does not end a turn, and the tokenizer has no EOS; set its eos_token")
        return closing or self._embedded([self.tokenizer.eos_token_id])

    def _without_end(self, text):
        """Take the end of the turn off an assistant's text. Raises UserError for one that goes on behind it."""
        tokenizer = self.tokenizer
        ends = (tokenizer.convert_ids_to_tokens(self.turn_end[-1]), tokenizer.eos_token, tokenizer.pad_token)
        ends = {end for end in ends if end and len(end) > 2}  # some pad with a plain "!"
        while text.rstrip().endswith(tuple(ends)):
            end = next(end for end in ends if text.rstrip().endswith(end))
            text = text.rstrip().removesuffix(end)
        if inside := [end for end in ends if end in text]:
            raise UserError(f"an assistant's text goes on behind {inside[0]}, which ends its turn; take that token out")
        return text


def continued(prompt: str, response: str, thinks: bool) -> str:
    """Return what of a response is still to be written where the prompt has opened its thought, or closed an empty one.

    thinks: whether the record has a thought. Raises UserError where thought and answer could not be told apart then.
    """
    opened, closed = OPENED.search(prompt), CLOSED.search(prompt)
    head = (opened or closed or [""])[0].strip()
    begun = response.lstrip()
    if opened and begun.startswith(head):  # the prompt has it already, with this white space
        begun = begun.removeprefix(head)
        response = begun.lstrip() if opened[0] != head else begun
    elif opened and not thinks and f"</{opened[1]}>" not in response:
        raise UserError(
            f"the prompt ends with {head}, but the response has no thought: give its reasoning, or set "
            f"chat_template_kwargs={{enable_thinking: false}} if the template reads that"
        )
    elif closed:
        response = EMPTY.sub("", response, count=1)
        if THOUGHT.search(response):
            raise UserError(
                f"the prompt ends with {head}, a thought that is over, but the response has one: set "
                f"chat_template_kwargs={{enable_thinking: true}} if the template reads that"
            )
    if DOUBLED.match(head + response):
        raise UserError(f"the response would open or close its thought twice: {(head + response)[:60]!r}")
    return response


def _parsed(tools):
    """Return a list of tools, which many datasets hold as JSON."""
    if isinstance(tools, str):
        with contextlib.suppress(ValueError):  # what is no JSON stays a text, which the next line refuses
            tools = json.loads(tools)
    if tools and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise UserError(f"tools must be a list of objects, or its JSON, not {str(tools)[:60]!r}")
    return tools
