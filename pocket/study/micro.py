"""The micro student of the pocket study: a small Llama with random weights and a tokenizer of its own.

    python -m pocket.study.micro --config configs/pocket/study/scratch.yaml
    python -m pocket.study.micro out=out/study/blank text='[out/study/primer.jsonl, out/study/words.jsonl]'

train_sft.py then pretrains it on the exercises of pocket/study/primer.py. The tokenizer is a byte-level BPE trained on
the messages and problems of `text`, with every digit a token of its own and ChatML turns.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from config import run_cli
from data.rows import iter_rows
from errors import UserError
from pocket.tiny import train_tokenizer
from values import Count, FilePath, Seed

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PIECES = r"\d| ?[A-Za-z]+|\s+|[^\sA-Za-z\d]"  # every digit alone
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass
class MicroConfig:
    out: FilePath
    """folder of the model; nothing is done if it exists"""
    text: Annotated[list[FilePath], "filled"]
    """JSON Lines whose messages, problems and reasoning the tokenizer is trained on"""
    vocabulary: Annotated[int, f"at least {256 + len(SPECIAL)}"] = 768
    """tokens, the 256 bytes among them"""
    hidden: Count = 128
    """width"""
    layers: Count = 4
    """depth"""
    heads: Count = 4
    """attention heads"""
    intermediate: Count = 384
    """width of the feed-forward part"""
    seed: Seed = 0
    """of the weights"""


def main(cfg: MicroConfig) -> None:
    """Save the model and its tokenizer: all of it or, if this is killed, nothing. Raises UserError."""
    if cfg.hidden % (2 * cfg.heads):
        raise UserError(f"config key hidden must be a multiple of 2 x heads, not {cfg.hidden} with {cfg.heads} heads")
    import torch  # here, so that --help answers at once
    from transformers import LlamaConfig, LlamaForCausalLM

    if Path(cfg.out).exists():
        return
    texts = (text for file in cfg.text for _, row in iter_rows(file) for text in texts_of(row))
    tokenizer = train_tokenizer(
        texts, cfg.vocabulary, SPECIAL, CHATML, bos=None, eos=SPECIAL[2], pad=SPECIAL[0], pieces=PIECES
    )
    torch.manual_seed(cfg.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=cfg.hidden, intermediate_size=cfg.intermediate,
        num_hidden_layers=cfg.layers, num_attention_heads=cfg.heads, num_key_value_heads=cfg.heads,
        max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    partial = Path(cfg.out + ".partial")
    LlamaForCausalLM(config).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(cfg.out)


def texts_of(row: dict) -> list[str]:
    """List the texts of a problem or sft record."""
    return [message["content"] for message in row.get("messages", ())] + [
        row[key] for key in ("problem", "reasoning") if key in row
    ]


if __name__ == "__main__":
    run_cli(main, MicroConfig, __doc__)
