"""Generates the missing responses of one model inside this process, and chooses its dtype and backend.

Backends: `slots` (model/generate.py) runs anywhere, and a response depends on nothing but its own prompt and seed.
`continuous` (evals/continuous.py) is transformers' continuous batching: keys and values live in pages, so that sixty
responses of 32,768 tokens need not fit at once, under CUDA graphs and flash attention. `auto` takes it on CUDA where
flash-attn is installed; without it its attention is slower than the slots'.

One process uses one GPU. For several, start a server on them (`vllm serve … --tensor-parallel-size 8`, or one server a
GPU with CUDA_VISIBLE_DEVICES) and evaluate `endpoint:NAME`, whose base_url may be a list.
"""

import time

import torch
from transformers import AutoTokenizer
from transformers.utils import is_flash_attn_2_available

from data.render import Renderer
from errors import UserError
from evals import continuous
from model import generate as slots
from progress import Progress, say


def choose_device(wanted):
    """ "auto", "cpu" or "cuda" -> torch.device. Raises UserError where there is no CUDA device."""
    device = torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and device.type == "cpu":
        raise UserError("device: cuda, but there is no CUDA device; use device: auto")
    return device


def choose_backend(wanted, device):
    """ "auto", "slots" or "continuous" -> one of the latter two. Raises UserError where it cannot run."""
    if wanted == "continuous" and device.type == "cpu":
        raise UserError("backend: continuous needs CUDA and flash-attn; use backend: auto")
    if wanted != "auto":
        return wanted
    return "continuous" if device.type == "cuda" and is_flash_attn_2_available() else "slots"


def respond(folder, missing, keep, cfg):
    """Generate the responses `missing` ({key: Wanted}) of the model in `folder`; keep(record) is called as each ends.

    cfg: evaluate.py's device, dtype, backend and batch_size. Returns (tokens, seconds).
    """
    device = choose_device(cfg.device)
    dtype, backend = slots.choose_dtype(cfg.dtype, device), choose_backend(cfg.backend, device)
    say(f"{folder}: {len(missing)} responses to generate ({dtype}, {device.type}, {backend})")
    tokenizer = slots.pretrained(AutoTokenizer, folder)
    renderer = Renderer(tokenizer)
    module = continuous if backend == "continuous" else slots
    model = module.load_model(folder, device, dtype)
    stop_ids = slots.stop_ids(model, tokenizer, renderer)
    groups = {}  # one pass a sampling; the benchmarks of a protocol mostly share it
    for key, want in missing.items():
        how = slots.Sampling(**want.settings.sampling, max_new_tokens=want.settings.max_new_tokens)
        groups.setdefault(how, []).append(slots.Request(key, renderer.prompt_ids(want.messages)))
    opening = "<think>\n" if renderer.opens_thought else ""  # the prompt ends in it; the response goes on from there
    start, tokens = time.monotonic(), 0

    def all_of_them():
        for sampling, requests in groups.items():
            yield from module.generate(model, requests, stop_ids, sampling, cfg.batch_size)

    with Progress(len(missing), f"generate {folder}", unit="responses") as bar:
        try:
            for done in all_of_them():
                record = {
                    "text": opening + tokenizer.decode(done.ids, skip_special_tokens=True),
                    "tokens": len(done.ids),
                    "finish_reason": done.finish_reason,
                    "seconds": round(done.seconds, 3),
                    "dtype": str(dtype).removeprefix("torch."),
                }
                keep(missing[done.key], record)
                tokens += len(done.ids)
                bar.update(1, tokens_per_s=tokens / (time.monotonic() - start))
        except torch.OutOfMemoryError:
            raise UserError(
                f"out of GPU memory; a batch_size below {cfg.batch_size} needs less. What was generated is kept"
            ) from None
    return tokens, time.monotonic() - start
