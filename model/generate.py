"""Generation with a KV cache: many prompts through one model, each row of the batch always busy.

The rows of the running responses stand right-aligned in transformers' own cache, so the models, their masks and their
attention are the library's. A response that ends leaves its row at once; when there is room again, prompts enter in a
pass of their own and join the cache, and what is left of the longest row is cut away.

One process uses one GPU. For several, start a server on them (`vllm serve … --generation-config vllm`, or one server a
GPU with CUDA_VISIBLE_DEVICES) and evaluate `endpoint:NAME`, whose base_url may be a list.

    B = rows of this pass  T = tokens of this pass  S = columns of the cache  V = vocabulary
"""

import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from data.render import Renderer
from errors import UserError
from model.attention import NAME
from model.guard import check_packing, differs, library_logps, probes, shown
from model.load import WeightFiles, build, check_vocabulary, fill, load_config, load_tokenizer, resolve_dtype
from model.logprobs import LogProbModel
from model.parallel import to_empty
from progress import Progress, say

PREFILL_TOKENS = 8192  # padded prompt tokens in one pass, so that a long first batch does not need all memory at once


@dataclass(frozen=True)
class Sampling:
    """temperature 0: greedy. top_p, top_k: 1.0 and 0 switch them off. seed: of the random numbers, not of a batch."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 512
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """ids: generated tokens without the stop token. finish_reason: "stop" or "length". seconds: from its prompt to its
    last token, shared with its neighbours."""

    key: str
    ids: list
    finish_reason: str
    seconds: float = 0.0


def respond(
    folder: str,
    asked: dict[str, tuple],
    keep: Callable[[str, dict], None],
    batch_size: int,
    dtype: str,
    chat_template_kwargs: dict | None = None,
) -> tuple[int, float]:
    """Generate a response to every question with the model in `folder`. Returns (tokens, seconds of generating).

    asked: {key: (messages, Sampling)}. keep(key, record) is called as each response ends; the record holds text,
    tokens, finish_reason, seconds, dtype, and the prompt as its tokens read. dtype: auto, float32 or bfloat16.
    chat_template_kwargs: for the template, as far as it reads them; what it does not is said. Computes on CUDA if there
    is a device. Raises UserError for a model that cannot be loaded, and when the memory does not suffice.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = resolve_dtype(dtype, device, load_config(folder))
    say(f"{folder}: {len(asked)} responses to generate ({dtype}, {device.type})")
    tokenizer = load_tokenizer(folder)
    renderer = Renderer(tokenizer, chat_template_kwargs, strict=False)
    model = load_model(folder, device, dtype)
    check_vocabulary(model, tokenizer, folder)
    ends = stop_ids(model, tokenizer, renderer)
    # one pass a sampling: most benchmarks of a protocol share it, and then fill one batch
    groups = {}
    for key, (messages, sampling) in asked.items():
        groups.setdefault(sampling, {})[key] = renderer.prompt_ids(messages)
    start, tokens = time.monotonic(), 0
    with Progress(len(asked), f"generate {folder}", unit="responses") as bar:
        try:
            for sampling, prompts in groups.items():
                for done in generate(model, prompts, ends, sampling, batch_size):
                    record = {
                        "text": renderer.opening + tokenizer.decode(done.ids, skip_special_tokens=True),
                        "tokens": len(done.ids),
                        "finish_reason": done.finish_reason,
                        "seconds": round(done.seconds, 3),
                        "dtype": str(dtype).removeprefix("torch."),
                        "prompt": tokenizer.decode(prompts[done.key], clean_up_tokenization_spaces=False),
                    }
                    keep(done.key, record)
                    tokens += len(done.ids)
                    bar.update(1, tokens_per_s=tokens / (time.monotonic() - start))
        except torch.OutOfMemoryError:
            raise UserError(
                f"out of GPU memory; a batch_size below {batch_size} needs less. What was generated is kept"
            ) from None
    return tokens, time.monotonic() - start


def load_model(folder: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Load a model for `generate`, by the reader and under the guard of training. Raises UserError if it cannot be."""
    files = WeightFiles(folder)
    lm = build(folder, files, dtype, NAME)
    lm.config.packed_backend = "sdpa"
    to_empty(lm, lm, device)
    fill(lm, files, 0, device, at_random=True)  # what a preference stage learnt is kept in 16 bits too
    lm.eval()
    # shown by the packed attention of training; then the library's own takes its place, which knows a cache
    fault = shown(folder, lm, lambda: check_packing(LogProbModel(lm), lm, device, dtype, folder))
    lm.config._attn_implementation, lm.config.output_router_logits = "sdpa", False  # and no loss over routes
    if fault := fault or shown(folder, lm, lambda: check_batch(lm, dtype, folder)):
        raise UserError(fault)
    return lm


@torch.inference_mode()
def check_batch(lm: nn.Module, dtype: torch.dtype, path: str) -> str:
    """Compare log-probs of generation, prompts side by side and steps, with those of one forward pass of transformers.

    Returns what is wrong, in words; "" if nothing is.
    """
    # two prompts of different length in one pass, then the tokens that follow them, one at a time
    rows, steps, cache = [sequence.ids.tolist() for sequence in probes(lm.config.vocab_size)[1:]], 5, DynamicCache()
    said = [forward(lm, cache, [row[:-steps] for row in rows], [len(row) - steps for row in rows])]
    for left in range(steps - 1, 0, -1):
        said.append(forward(lm, cache, [[row[-left - 1]] for row in rows], [len(row) - left for row in rows]))
    for row, logits_SV in zip(rows, torch.stack(said, 1), strict=True):
        ids = torch.tensor([row], device=lm.device)
        ours = logits_SV.log_softmax(-1).gather(-1, ids[0, -steps:, None])[:, 0]
        if fault := differs(ours, library_logps(lm, ids)[-steps:], lm, dtype, path):
            return fault
    return ""


def stop_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase, renderer: Renderer) -> set[int]:
    """Return the token ids that end a response: of training's end of a turn, the tokenizer's EOS, the model's list."""
    listed = model.generation_config.eos_token_id
    listed = listed if isinstance(listed, list) else [listed]
    return {renderer.turn_end[-1], tokenizer.eos_token_id, *listed} - {None}


@torch.inference_mode()
def generate(
    model: nn.Module, prompts: dict[str, list[int]], stop_ids: set[int], sampling: Sampling, batch_size: int
) -> Iterator[Completion]:
    """Yield a Completion for each prompt, in the order in which they finish.

    prompts: {key: token ids}; with Sampling.seed a key seeds its response's random numbers. stop_ids: token ids that
    end a response. batch_size: rows decoded together. The longest prompts come first, so memory is at its height at the
    start. A response depends on its own prompt, key and seed, not on its neighbours (up to the rounding of matrix
    products of another shape).
    """
    waiting = deque(sorted(prompts.items(), key=lambda item: -len(item[1])))
    running, cache = [], None  # rows: (key, prompt, generated ids, random numbers, when it began), as in the cache
    while running or waiting:
        # fill the free rows with waiting prompts, as many as one pass may hold
        fresh = []
        while waiting and len(running) + len(fresh) < batch_size:
            if fresh and (len(fresh) + 1) * len(fresh[0][1]) > PREFILL_TOKENS:
                break
            key, prompt = waiting.popleft()
            fresh.append((key, prompt, [], random.Random(f"{sampling.seed}/{key}"), time.monotonic()))

        # one forward pass: over the new prompts whole, or over the last token of every running row
        group, new = fresh or running, DynamicCache() if fresh else cache
        tokens = [prompt if fresh else ids[-1:] for _, prompt, ids, *_ in group]
        logits_BV = forward(model, new, tokens, [len(prompt) + len(ids) for _, prompt, ids, *_ in group])
        chosen = pick(logits_BV, sampling, [numbers.random() for *_, numbers, _ in group])
        for (_, _, ids, *_), token in zip(group, chosen, strict=True):
            ids.append(token)
        if fresh:
            cache, running = join(cache, new) if running else new, running + fresh

        # hand out what has ended; its row goes, and the columns that no other one needs
        ended = [ids[-1] in stop_ids or len(ids) >= sampling.max_new_tokens for _, _, ids, *_ in running]
        for key, _, ids, _, began in itertools.compress(running, ended):
            stopped, seconds = ids[-1] in stop_ids, time.monotonic() - began
            yield Completion(key, ids[:-1] if stopped else ids, "stop" if stopped else "length", seconds)
        if any(ended):
            left = [place for place, over in enumerate(ended) if not over]
            running = [running[place] for place in left]
            columns = max((len(prompt) + len(ids) - 1 for _, prompt, ids, *_ in running), default=0)
            for layer in cache.layers:
                layer.keys, layer.values = (x[left, :, x.shape[2] - columns :] for x in (layer.keys, layer.values))


def forward(model: nn.Module, cache: DynamicCache, tokens: list[list[int]], lengths: list[int]) -> torch.Tensor:
    """Run new tokens of B rows, which then have `lengths` tokens, through a model and its cache.

    Returns the logits after the last token of each row, float32 [B, V], as the model's own forward pass scales them.
    """
    # right-aligned: a row's first tokens stand behind what is masked
    width = max(map(len, tokens))
    ids_BT = torch.tensor([[0] * (width - len(ids)) + ids for ids in tokens], device=model.device)
    lengths_B1 = torch.tensor(lengths, device=model.device)[:, None]
    columns = torch.arange(cache.get_seq_length() + width, 0, -1, device=model.device)
    positions_BT = (lengths_B1 - columns[-width:]).clamp(min=0)
    out = model(ids_BT, columns <= lengths_B1, positions_BT, cache, use_cache=True, logits_to_keep=1)  # ids, mask, …
    return out.logits[:, -1].float()


def join(cache: DynamicCache, new: DynamicCache) -> DynamicCache:
    """Put the rows of a new cache behind those of another, aligned on the right."""
    columns = max(cache.get_seq_length(), new.get_seq_length())
    for ours, theirs in zip(cache.layers, new.layers, strict=True):
        for part in ("keys", "values"):
            both = [F.pad(x, (0, 0, columns - x.shape[2], 0)) for x in (getattr(ours, part), getattr(theirs, part))]
            setattr(ours, part, torch.cat(both))
    return cache


def pick(logits_BV: torch.Tensor, sampling: Sampling, uniform_B: list[float]) -> list[int]:
    """Choose the next token of each row. uniform_B: one random number in [0, 1) a row; unused if greedy."""
    if sampling.temperature == 0:
        return logits_BV.argmax(-1).tolist()
    probs, order = (logits_BV / sampling.temperature).softmax(-1).sort(dim=-1, descending=True)
    before = probs.cumsum(-1) - probs  # mass of the likelier tokens
    keep = before < sampling.top_p
    if sampling.top_k:
        keep[:, sampling.top_k :] = False
    total = (probs * keep).cumsum(-1)
    target = torch.tensor(uniform_B, device=probs.device)[:, None] * total[:, -1:]
    choice = (total <= target).sum(-1, keepdim=True).clamp(max=probs.shape[1] - 1)
    return order.gather(-1, choice).squeeze(-1).tolist()
