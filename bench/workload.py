"""What the trainers are compared on: random models in published shapes, and triads with the lengths of real chains.

Speed and memory depend on shapes and lengths, not on what the weights know, so nothing needs downloading.

    python -m bench.workload FOLDER SHAPE        saves a random model
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config
from transformers.utils import logging as transformers_logging

from data.pairs import make_pairs
from pocket.tiny import make_tokenizer

transformers_logging.disable_progress_bar()

# layers, hidden, MLP, query heads, key/value heads, vocabulary, tied: SmolLM2-135M, Qwen2.5-1.5B, Qwen2.5-7B
SHAPES = {
    "tiny": (Qwen2Config, 4, 256, 704, 4, 2, 8192, True),
    "135m": (LlamaConfig, 30, 576, 1536, 9, 3, 49152, True),
    "1.5b": (Qwen2Config, 28, 1536, 8960, 12, 2, 151936, True),
    "7b": (Qwen2Config, 28, 3584, 18944, 28, 4, 152064, False),
}


def make_model(folder, shape):
    """Save a random model (bfloat16 weights) and a small tokenizer with a chat template. Returns the folder as str."""
    family, layers, hidden, mlp, heads, kv_heads, vocab, tied = SHAPES[shape]
    tokenizer = make_tokenizer("qwen2")
    config = family(
        num_hidden_layers=layers, hidden_size=hidden, intermediate_size=mlp, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=vocab, tie_word_embeddings=tied, max_position_embeddings=32768,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        lm = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def triads(problems, max_length, seed=0):
    """Pair records of `problems` problems, three pairs over three responses each, no sequence over `max_length` tokens.

    The suitable chain's length is log-normal around 0.28 · max_length with σ 0.6, which is how the R1 distillations'
    lengths lie under their cap; an easy original is a third to two thirds of it, a hard one 1.4 to 2.2 times as long,
    and the corrupted chain within a tenth of the original.
    """
    rng = np.random.default_rng(seed)
    room = max_length - 128  # for the prompt and the template
    rows = []
    for i in range(problems):
        level = ("easy", "hard")[i % 2]
        suitable = 0.28 * max_length * rng.lognormal(0, 0.6)
        original = suitable * (rng.uniform(0.35, 0.65) if level == "easy" else rng.uniform(1.4, 2.2))
        lengths = np.clip([suitable, original, original * rng.uniform(0.9, 1.1)], 16, room).astype(int)
        rewritten, reasoning, corrupted = (_digits(rng, n) for n in lengths)
        prompt = [{"role": "user", "content": _digits(rng, 48)}]
        rows += make_pairs(f"p{i}", prompt, level, reasoning, corrupted, rewritten=rewritten)
    return rows


def chains(rows):
    """SFT records: every response of `triads` once, as an example of its own."""
    seen = {}
    for row in rows:
        for side in ("chosen", "rejected"):
            seen.setdefault((row["problem_id"], row[side][0]["content"]), row["prompt"] + row[side])
    return [{"id": f"s{i}", "messages": messages} for i, messages in enumerate(seen.values())]


def write(path, rows):
    """JSON Lines. Returns the path as str."""
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_first(path, source, n):
    """The first n lines of the file `source`. Returns the path as str."""
    Path(path).write_text("".join(Path(source).read_text().splitlines(keepends=True)[:n]))
    return str(path)


def _digits(rng, n):
    """Text of about n tokens and never more: tokenizers read digits one by one or a few at a time."""
    return "".join(map(str, rng.integers(0, 10, n)))


if __name__ == "__main__":
    make_model(*sys.argv[1:])
