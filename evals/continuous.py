"""In-process generation by transformers' continuous batching (paged keys and values), for CUDA with flash attention.

Same contract as model/generate.py's `generate`, but for one thing: the random numbers come from one stream, so a
sampled response depends on which others ran beside it. Greedy ones do not, up to rounding.

It drives the manager of transformers itself: `generate_batch` hands nothing out before all have ended, and what goes
wrong there is told to a log and not to its caller.
"""

import hashlib

from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from errors import UserError
from model.generate import Completion, pretrained

WAIT = 1.0  # seconds between two looks at whether the generating thread still lives
STOP = 60.0  # seconds that it gets to end


def load_model(folder, device, dtype):
    """A model ready for `generate`. Raises UserError if it cannot be loaded."""
    attention = "flash_attention_2" if device.type == "cuda" else "sdpa"
    model = pretrained(AutoModelForCausalLM, folder, dtype=dtype, attn_implementation=attention)
    return model.to(device).eval()


def generate(model, requests, stop_ids, sampling, batch_size):
    """Yields a Completion for each Request, in the order in which they finish. batch_size: rows decoded together; pages
    for their keys and values take what memory is free. Raises UserError when the generating thread gives up."""
    greedy = sampling.temperature == 0
    chances = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    settings = GenerationConfig(
        do_sample=not greedy,
        **({} if greedy else chances),
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sorted(stop_ids) or -1,
        pad_token_id=0,
    )
    # a seed of its own for every set of requests: else a second sample, asked for later, would repeat the first
    seed = hashlib.sha256(" ".join([str(sampling.seed), *sorted(r.key for r in requests)]).encode()).digest()
    manager = model.init_continuous_batching(
        generation_config=settings,
        continuous_batching_config=ContinuousBatchingConfig(
            max_requests_per_batch=batch_size, seed=int.from_bytes(seed[:4]), auto_switch_to_flash=False
        ),
    )
    waiting = len(requests)
    try:
        manager.start()
        for request in sorted(requests, key=lambda r: -len(r.ids)):
            manager.add_request(request.ids, request_id=request.key, max_new_tokens=sampling.max_new_tokens)
        while waiting:
            done = manager.get_result(timeout=WAIT)
            if done is None:
                if not manager.is_running():
                    raise _failed(f"it ended with {waiting} responses open, see its log above", batch_size)
                continue
            if done.error is not None:
                raise _failed(" ".join(str(done.error).split())[:300], batch_size)
            if done.is_finished():
                waiting -= 1
                ids, stopped = done.generated_tokens, done.generated_tokens[-1] in stop_ids
                ids, reason = (ids[:-1], "stop") if stopped else (ids, "length")
                yield Completion(done.request_id, ids, reason, done.lifespan[1] - done.lifespan[0])
    finally:
        manager.stop(timeout=STOP, hard_stop=True)
        manager.destroy()


def _failed(reason, batch_size):
    return UserError(
        f"continuous batching failed ({reason}); a batch_size below {batch_size} needs less memory, and backend: slots "
        f"does without it. What was generated is kept"
    )
