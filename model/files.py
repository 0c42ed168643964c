"""From a folder or a hub id to the files of a model: the one place that asks the hub for them."""

from pathlib import Path

from errors import UserError

BESIDE = [  # config, tokenizer, template
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "tekken.json",
    "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json", "adapter_config.json",
]  # fmt: skip
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]  # weights, config, tokenizer
SECOND_COPIES = ["original/*", "consolidated*"]  # of the weights, in other formats


def model_folder(path: str, offline: bool = False) -> str | None:
    """Return the folder with a model's files: `path` itself, or where a hub id (owner/name) lies in the local cache.

    A hub id is downloaded first; the files' locks make the ranks of a machine wait for the one that downloads. offline:
    nothing is downloaded. None where there is no such folder and no hub id. Raises UserError if the hub has none.
    """
    if (Path(path) / "config.json").is_file():
        return path
    owner, _, name = path.partition("/")
    if not name or "/" in name or Path(owner).exists():
        return None
    from huggingface_hub import snapshot_download  # half a second that --help does not need

    try:
        return snapshot_download(path, local_files_only=offline, allow_patterns=WANTED, ignore_patterns=SECOND_COPIES)
    except (OSError, ValueError) as error:  # the hub's own errors are OSErrors; ValueError: not a valid id
        if offline:
            return None
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"no model folder {path}, and none from the hub ({reason}); give a local folder") from None
