"""The micro student of the pocket study: a small Llama with random weights and a tokenizer of its own.

    python -m pocket.study.micro out=out/study/blank text=out/study/primer.jsonl,out/study/words.jsonl

train_sft.py then pretrains it on pocket/study/primer.py's exercises. The tokenizer is a byte-level BPE trained on the
messages of `text`, with every digit a token of its own and ChatML turns.
"""

from dataclasses import dataclass, field
from pathlib import Path

from data.records import iter_jsonl

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass
class ScratchConfig:
    out: str
    """folder of the model; nothing is done if it exists"""
    text: list[str] = field(default_factory=list)
    """JSON Lines whose messages, prompts and problems the tokenizer is trained on"""
    vocabulary: int = 768
    """tokens, the 256 bytes among them"""
    hidden: int = 128
    """width"""
    layers: int = 4
    """depth"""
    heads: int = 4
    """attention heads"""
    intermediate: int = 384
    """width of the feed-forward part"""
    seed: int = 0
    """of the weights"""


def main(cfg):
    import torch  # here, so that --help answers at once
    from transformers import LlamaConfig, LlamaForCausalLM

    if Path(cfg.out).exists():
        return
    tokenizer = make_tokenizer(cfg.text, cfg.vocabulary)
    torch.manual_seed(cfg.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=cfg.hidden, intermediate_size=cfg.intermediate,
            num_hidden_layers=cfg.layers, num_attention_heads=cfg.heads, num_key_value_heads=cfg.heads,
            max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    partial = Path(cfg.out + ".partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(cfg.out)


def make_tokenizer(files, vocabulary):
    """A byte-level BPE over the texts of JSON Lines files."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| ?[A-Za-z]+|\s+|[^\sA-Za-z\d]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator((text for file in files for _, row in iter_jsonl(file) for text in texts_of(row)), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=SPECIAL[2], pad_token=SPECIAL[0], extra_special_tokens=SPECIAL
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def texts_of(row):
    """The texts of a problem or sft record."""
    return [message["content"] for message in row.get("messages", ())] + [
        row[key] for key in ("problem", "reasoning") if key in row
    ]


if __name__ == "__main__":
    from config import run_cli

    run_cli(main, ScratchConfig, __doc__)
