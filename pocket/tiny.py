"""Tiny random models of the families that the recipes train, with tokenizers and chat templates in their styles.

    python -m pocket.tiny qwen2=out/smoke/Qwen/Qwen2.5-7B-Instruct …        also llama, mistral, r1, …

Their answers are noise. They are for smoke runs (`bash runs/table2.sh --smoke`) and tests, where only the path counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from config import run_main

if TYPE_CHECKING:  # imported where it is needed, so that --help answers at once
    from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).with_name("templates")  # each family's: turn markers, BOS, what closes a turn


class Family(NamedTuple):
    """model_type: transformers' name. special: special tokens, bos and eos among them."""

    model_type: str
    bos: str | None
    eos: str
    special: list[str]


CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA_TOKENS = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
R1_TOKENS = ["<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>", "<think>", "<|endoftext|>"]  # Qwen adds the last
FAMILIES = {  # by the name of their template
    "qwen2": Family("qwen2", None, "<|im_end|>", CHATML_TOKENS),
    "llama": Family("llama", "<|begin_of_text|>", "<|eot_id|>", LLAMA_TOKENS),
    "mistral": Family("mistral", "<s>", "</s>", ["<s>", "</s>", "[INST]", "[/INST]"]),
    "r1": Family("qwen2", "<|begin|>", "<|end|>", R1_TOKENS),
    "qwen3": Family("qwen3", None, "<|im_end|>", CHATML_TOKENS),
    "smollm3": Family("smollm3", None, "<|im_end|>", CHATML_TOKENS),
    "olmo2": Family("olmo2", "<|endoftext|>", "<|endoftext|>", ["<|endoftext|>", "<|pad|>"]),
    "llama3.2": Family("llama", "<|begin_of_text|>", "<|eot_id|>", LLAMA_TOKENS),
}
CORPUS = [
    "How many legs do 3 dogs and 2 birds have? Give the final answer in \\boxed{}.",
    "dogs: 3 × 4 = 12. birds: 2 × 2 = 4. total: 12 + 4 = 16. The final answer is \\boxed{16}.",
    "You are a helpful assistant. user system assistant",
]


def make_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Build a tokenizer of about 300 tokens with the special tokens and the template of a family."""
    _, bos, eos, special = FAMILIES[family]
    template = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8").removesuffix("\n")
    return train_tokenizer(CORPUS, 320, special, template, bos=bos, eos=eos, pad=eos)


def train_tokenizer(
    texts: Iterable[str],
    vocabulary: int,
    special: list[str],
    template: str,
    *,
    bos: str | None,
    eos: str,
    pad: str,
    pieces: str | None = None,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on texts.

    vocabulary: tokens at most, the 256 bytes and the special ones among them. template: Jinja. pieces: a regular
    expression for what no token may be larger than; None: GPT-2's.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # texts fall into pieces, and those into bytes
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pieces is None)
    if pieces:
        split = pre_tokenizers.Split(Regex(pieces), "isolated")
        raw.pre_tokenizer = pre_tokenizers.Sequence([split, raw.pre_tokenizer])
    raw.decoder = decoders.ByteLevel()

    # merges are learnt; every byte has a token, whether or not it occurs
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet)
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=bos, eos_token=eos, pad_token=pad, extra_special_tokens=special
    )
    tokenizer.chat_template = template
    return tokenizer


def make_model(folder: str | os.PathLike, family: str = "qwen2", seed: int = 0, tie=False, layers: int = 2) -> str:
    """Save a model of a few thousand weights and its tokenizer into `folder`. tie: input and output embeddings are
    one. Returns the folder as str."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = make_tokenizer(family)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        FAMILIES[family].model_type, vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48,
        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
        tie_word_embeddings=tie, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2, sliding_window=None, pad_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def main(models: list[tuple[str, str]]) -> None:
    """Make the models, (family, folder) each, that are not there yet."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    for number, (family, folder) in enumerate(models):
        if not os.path.isdir(folder):  # all of it or nothing, if it is killed
            shutil.rmtree(f"{folder}.partial", ignore_errors=True)
            make_model(f"{folder}.partial", family, seed=number)
            os.rename(f"{folder}.partial", folder)


def named(word: str) -> tuple[str, str]:
    """Split FAMILY=FOLDER. Raises ArgumentTypeError."""
    family, _, folder = word.partition("=")
    if family not in FAMILIES or not folder:
        raise argparse.ArgumentTypeError(f"{word} is not FAMILY=FOLDER with one of {', '.join(FAMILIES)}")
    return family, folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    families = f"families: {', '.join(FAMILIES)}"
    parser.add_argument("models", nargs="+", type=named, metavar="FAMILY=FOLDER", help=families)
    run_main(main, parser.parse_args().models)
