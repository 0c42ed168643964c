"""Generation with a KV cache: many prompts through one model, each row of the batch always busy.

A fixed number of slots hold the keys and values of the running responses. A response that ends leaves its slot at once
to the next prompt; when no prompt is left, the last running row moves into the gap, so that every forward pass is over
running responses only. Rows start at column 0 and each has its own length: nothing is padded while decoding.

The slots live behind an attention function registered with transformers (as model/attention.py does for training), so
the models stay the library's own.

One process uses one GPU. For several, start a server on them (`vllm serve … --generation-config vllm`, or one server a
GPU with CUDA_VISIBLE_DEVICES) and evaluate `endpoint:NAME`, whose base_url may be a list.

    B = rows of this pass  T = tokens of this pass  S = columns in use  N query heads  K key/value heads  H head size
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from data.render import Renderer
from errors import UserError
from model.attention import causal_attention, only_plain
from model.guard import differs, library_logps, probes, shown
from model.load import WeightFiles, build, check_vocabulary, fill, load_config, load_tokenizer, resolve_dtype
from model.logprobs import logit_scale
from model.parallel import to_empty
from progress import Progress, say

NAME = "slots"
GROW = 256  # columns by which the slots grow when a response outgrows them
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
class Request:
    """key: unique; with Sampling.seed it seeds this response's random numbers. ids: the prompt's tokens."""

    key: str
    ids: list


@dataclass(frozen=True)
class Completion:
    """ids: generated tokens without the stop token. finish_reason: "stop" or "length". seconds: from its prompt to its
    last token, shared with its neighbours."""

    key: str
    ids: list
    finish_reason: str
    seconds: float = 0.0


class Slots:
    """Keys and values of the running rows: per layer two tensors [rows, K, columns, H], allocated when first seen."""

    def __init__(self, rows, columns):
        self.rows, self.columns, self.layers = rows, columns, {}

    def start(self, rows):
        """The next pass is over whole prompts, for these slots (a list)."""
        self.filling, self.lengths = rows, None

    def step(self, lengths_B):
        """The next pass is over one token for slots 0 … B-1. lengths_B: int64, tokens each of them already holds."""
        self.filling, self.lengths = None, lengths_B
        self.in_use = int(lengths_B.max()) + 1
        while self.in_use > self.columns:
            self.columns += GROW
        # how far back each column lies, [B, 1, 1, S]
        self.back = lengths_B[:, None, None, None] - torch.arange(self.in_use, device=lengths_B.device)

    def visible(self, window):
        """Which columns a step sees [B, 1, 1, S]. window: of the layer, or None."""
        return (self.back >= 0) & (self.back < window) if window else self.back >= 0

    def move(self, source, target):
        for keys, values in self.layers.values():
            keys[target], values[target] = keys[source], values[source]

    def _layer(self, index, *like):
        """The two tensors of a layer, enlarged to self.columns. like: new keys and values, [B, K, T, H]."""
        old = self.layers.get(index)
        if old is None or old[0].shape[2] < self.columns:
            new = [part.new_zeros(self.rows, part.shape[1], self.columns, part.shape[3]) for part in like]
            for wide, narrow in zip(new, old or (), strict=False):
                wide[:, :, : narrow.shape[2]] = narrow
            self.layers[index] = new
        return self.layers[index]


def slot_attention(module, q_BNTH, k_BKTH, v_BKTH, attention_mask, scaling=None, slots=None, **kwargs):
    """The function that transformers calls. Stores keys and values, attends. Returns ([B, T, N, H], None)."""
    only_plain(module, kwargs, slots is not None)
    window = kwargs.get("sliding_window")
    keys, values = slots._layer(module.layer_idx, k_BKTH, v_BKTH)
    if slots.filling is not None:  # right-padded prompts: causal attention never looks at the padding
        keys[slots.filling, :, : k_BKTH.shape[2]] = k_BKTH
        values[slots.filling, :, : v_BKTH.shape[2]] = v_BKTH
        out = causal_attention(q_BNTH, k_BKTH, v_BKTH, scaling, window)
    else:
        rows = torch.arange(len(q_BNTH), device=q_BNTH.device)
        keys[rows, :, slots.lengths], values[rows, :, slots.lengths] = k_BKTH[:, :, 0], v_BKTH[:, :, 0]
        k_BKSH, v_BKSH = keys[: len(rows), :, : slots.in_use], values[: len(rows), :, : slots.in_use]
        # the query heads of one key/value head as so many queries: no copy of the keys for each of them
        q_BKGH = q_BNTH.reshape(len(rows), k_BKSH.shape[1], -1, q_BNTH.shape[3])
        out = F.scaled_dot_product_attention(q_BKGH, k_BKSH, v_BKSH, attn_mask=slots.visible(window), scale=scaling)
        out = out.reshape(*q_BNTH.shape[:3], -1)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, slot_attention)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)  # the slots know what is visible


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
    requests = {}
    for key, (messages, sampling) in asked.items():
        requests.setdefault(sampling, []).append(Request(key, renderer.prompt_ids(messages)))
    prompts = {request.key: request.ids for group in requests.values() for request in group}
    start, tokens = time.monotonic(), 0
    with Progress(len(asked), f"generate {folder}", unit="responses") as bar:
        try:
            for sampling, group in requests.items():
                for done in generate(model, group, ends, sampling, batch_size):
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
    to_empty(lm, lm, device)
    fill(lm, files, 0, device, at_random=True)  # what a preference stage learnt is kept in 16 bits too
    lm.eval()
    if fault := shown(folder, lm, lambda: check_slots(lm, dtype, folder)):
        raise UserError(fault)
    return lm


@torch.inference_mode()
def check_slots(lm: nn.Module, dtype: torch.dtype, path: str) -> str:
    """Compare log-probs of generation, prompts and steps in slots, with those of transformers' own forward pass.

    Returns what is wrong, in words; "" if nothing is.
    """
    rows = [sequence.ids.tolist() for sequence in probes(lm.config.vocab_size)[1:]]
    steps, slots = 4, Slots(len(rows), max(map(len, rows)))
    ends = [len(row) - 1 - steps for row in rows]
    # two prompts of different length in one pass, then the tokens that follow them, one at a time
    passes = [prefill(lm, slots, [0, 1], [row[:end] for row, end in zip(rows, ends, strict=True)])]
    for step in range(steps):
        lengths = torch.tensor([end + step for end in ends], device=lm.device)
        last = torch.tensor([[row[end + step]] for row, end in zip(rows, ends, strict=True)], device=lm.device)
        passes.append(decode(lm, slots, lengths, last))
    logps_BSV = logits_of(lm, torch.stack(passes, 1)).log_softmax(-1)
    for logps_SV, row, end in zip(logps_BSV, rows, ends, strict=True):
        ours = logps_SV.gather(-1, torch.tensor(row[end:], device=lm.device)[:, None])[:, 0]
        library = library_logps(lm, torch.tensor([row], device=lm.device))[end - 1 :]
        if fault := differs(ours, library, lm, dtype, path):
            return fault
    return ""


def stop_ids(model, tokenizer, renderer: Renderer) -> set[int]:
    """Return the token ids that end a response: of training's end of a turn, the tokenizer's EOS, the model's list."""
    listed = model.generation_config.eos_token_id
    listed = listed if isinstance(listed, list) else [listed]
    return {renderer.turn_end[-1], tokenizer.eos_token_id, *listed} - {None}


@torch.inference_mode()
def generate(
    model, requests: list[Request], stop_ids: set[int], sampling: Sampling, batch_size: int
) -> Iterator[Completion]:
    """Yield a Completion for each Request, in the order in which they finish.

    stop_ids: token ids that end a response. batch_size: rows decoded together. The longest prompts come first, so
    memory is at its height at the start. A response depends on its own prompt, key and seed, not on its neighbours
    (up to the rounding of matrix products of another shape).
    """
    waiting = deque(sorted(requests, key=lambda r: -len(r.ids)))
    if not waiting:
        return
    rows = min(batch_size, len(waiting))
    slots = Slots(rows, len(waiting[0].ids) + min(GROW, sampling.max_new_tokens))
    running = []  # (request, generated ids, random numbers); position = slot
    device = model.device

    def choose(hidden_BD, group):
        return pick(logits_of(model, hidden_BD), sampling, [numbers.random() for _, _, numbers, _ in group])

    def finished(row):
        ids = running[row][1]
        return ids[-1] in stop_ids or len(ids) >= sampling.max_new_tokens

    while running or waiting:
        # fill the free slots with waiting prompts, as many as one prefill may hold
        fresh = []
        while waiting and len(running) < rows:
            if fresh and (len(fresh) + 1) * len(fresh[0][0].ids) > PREFILL_TOKENS:
                break
            request = waiting.popleft()
            fresh.append((request, [], random.Random(f"{sampling.seed}/{request.key}"), time.monotonic()))
            running.append(fresh[-1])
        # one forward pass: over the new prompts whole, or over the last token of every running row
        if fresh:
            places = list(range(len(running) - len(fresh), len(running)))
            hidden = prefill(model, slots, places, [request.ids for request, *_ in fresh])
            group = fresh
        else:
            lengths = torch.tensor([len(request.ids) + len(ids) - 1 for request, ids, *_ in running], device=device)
            last = torch.tensor([[ids[-1]] for _, ids, *_ in running], device=device)
            hidden, group = decode(model, slots, lengths, last), running
        for (_, ids, *_), token in zip(group, choose(hidden, group), strict=True):
            ids.append(token)
        # hand out what has ended; the last running row moves into the gap, so that slots 0 … B-1 stay the busy ones
        for row in reversed(range(len(running))):
            if finished(row):
                request, ids, _, began = running[row]
                stopped, seconds = ids[-1] in stop_ids, time.monotonic() - began
                final = running.pop()
                if row < len(running):
                    running[row] = final
                    slots.move(len(running), row)
                yield Completion(request.key, ids[:-1] if stopped else ids, "stop" if stopped else "length", seconds)


def prefill(model, slots, places, prompts):
    """Run prompts into these slots. Returns the hidden state of each prompt's last token [B, D]."""
    width, device = max(map(len, prompts)), model.device
    ids_BT = torch.tensor([ids + [0] * (width - len(ids)) for ids in prompts], device=device)
    positions_BT = torch.arange(width, device=device).expand_as(ids_BT)
    slots.columns = max(slots.columns, width)
    slots.start(places)
    hidden = model.base_model(ids_BT, position_ids=positions_BT, use_cache=False, slots=slots).last_hidden_state
    ends_B = torch.tensor([len(ids) - 1 for ids in prompts], device=device)
    return hidden[torch.arange(len(prompts), device=device), ends_B]


def decode(model, slots, lengths_B, last_B1):
    """Run one more token of the rows in slots 0 … B-1, which hold lengths_B tokens. Returns hidden states [B, D]."""
    slots.step(lengths_B)
    hidden = model.base_model(last_B1, position_ids=lengths_B[:, None], use_cache=False, slots=slots)
    return hidden.last_hidden_state[:, 0]


def logits_of(model, hidden):
    """The head's logits, float32 [..., V], as the model scales them."""
    return model.lm_head(hidden).float() * logit_scale(model)


def pick(logits_BV, sampling, uniform_B):
    """Next tokens, a list of B ints. uniform_B: one random number in [0, 1) a row; unused if greedy."""
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
