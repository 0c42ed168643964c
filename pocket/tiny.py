"""Tiny random models of the families that the paper trains, with tokenizers and chat templates in their styles.

    python -m pocket.tiny qwen2=out/smoke/Qwen/Qwen2.5-7B-Instruct …        also llama, mistral, r1

What they answer is noise. They are for smoke runs (`bash runs/table2.sh --smoke`) and tests, where the path counts.
"""

import argparse
import os
import shutil

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen2Config
from transformers.utils import logging as transformers_logging

# The shape of each family's template: turn markers, BOS, what closes a turn.
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }}[/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant roles') }}{% endif %}{% endfor %}"
)
R1 = (  # the prompt ends inside the thought
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<|User|>{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}<|Assistant|>{{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
FAMILIES = {
    "qwen2": (Qwen2Config, CHATML, None, "<|im_end|>", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
    "llama": (
        LlamaConfig,
        LLAMA3,
        "<|begin_of_text|>",
        "<|eot_id|>",
        ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
    ),
    "mistral": (MistralConfig, MISTRAL, "<s>", "</s>", ["<s>", "</s>", "[INST]", "[/INST]"]),
    "r1": (Qwen2Config, R1, "<|begin|>", "<|end|>", ["<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>", "<think>"]),
}
CORPUS = [
    "How many legs do 3 dogs and 2 birds have? Give the final answer in \\boxed{}.",
    "dogs: 3 × 4 = 12. birds: 2 × 2 = 4. total: 12 + 4 = 16. The final answer is \\boxed{16}.",
    "You are a helpful assistant. user system assistant",
]


def make_tokenizer(family):
    """A byte-level BPE tokenizer (about 300 tokens) with the family's special tokens and template."""
    _, template, bos, eos, special = FAMILIES[family]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=bos, eos_token=eos, pad_token=eos, extra_special_tokens=special
    )
    tokenizer.chat_template = template
    return tokenizer


def make_model(folder, family="qwen2", seed=0, tie=False, layers=2):
    """Save a model of a few thousand weights and its tokenizer into `folder`. Returns the folder as str."""
    tokenizer = make_tokenizer(family)
    torch.manual_seed(seed)
    config = FAMILIES[family][0](
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=tie,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, initializer_range=0.2,
        sliding_window=None,
    )  # fmt: skip
    lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def named(word):
    """FAMILY=FOLDER -> (family, folder)"""
    family, _, folder = word.partition("=")
    if family not in FAMILIES or not folder:
        raise argparse.ArgumentTypeError(f"{word} is not FAMILY=FOLDER with one of {', '.join(FAMILIES)}")
    return family, folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models", nargs="+", type=named, metavar="FAMILY=FOLDER", help=f"families: {', '.join(FAMILIES)}"
    )
    transformers_logging.disable_progress_bar()
    for number, (family, folder) in enumerate(parser.parse_args().models):
        if not os.path.isdir(folder):  # all of it or nothing, if it is killed
            shutil.rmtree(f"{folder}.partial", ignore_errors=True)
            make_model(f"{folder}.partial", family, seed=number)
            os.rename(f"{folder}.partial", folder)
