"""From a folder or a hub id to the files of a model: the one place that asks the hub, and that says which files count.

A model is its weights, as transformers finds them (one file before an index), and what it reads beside them. Notes,
logs, and copies of the weights in other formats are no part of it.
"""

from pathlib import Path

from errors import UserError, one_line, read_json

FOLDER, EXPORTS = "model", "exports"  # of a training's output: its model, and those of earlier steps by name
RECORD = "run.json"  # what the model was made from; exports/step-N has a step-N.json
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BESIDE = [  # config, tokenizer, template
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "tekken.json",
    "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json", "adapter_config.json",
    "additional_chat_templates/*.jinja",
]  # fmt: skip


def model_folder(path: str, offline: bool = False) -> str | None:
    """Return the folder with a model's files: `path` itself, or where a hub id (owner/name) lies in the local cache.

    A hub id is downloaded first; the files' locks make the ranks of a machine wait for the one that downloads. offline:
    nothing is downloaded. None where there is no such folder and no hub id. Raises UserError if the hub has none.
    """
    refuse_adapter(path)
    if (Path(path) / "config.json").is_file():
        return path
    if not is_hub_id(path):
        return None
    from huggingface_hub import snapshot_download  # half a second that --help does not need

    try:
        # which weights to ask for stands in the small files
        folder = snapshot_download(path, local_files_only=offline, allow_patterns=[*BESIDE, SINGLE, INDEX])
        if not offline and (named := _weight_names(Path(folder))) != [SINGLE]:
            snapshot_download(path, allow_patterns=named)
        return folder
    except (OSError, ValueError) as error:  # the hub's own errors are OSErrors; ValueError: not a valid id
        if offline:
            return None
        said = one_line(error)
        raise UserError(f"no model folder {path}, and none from the hub ({said}); give a local folder") from None


def is_hub_id(path: str) -> bool:
    """Tell whether a path may be owner/name of the hub: where no folder of this machine is called as the owner."""
    owner, _, name = path.partition("/")
    return bool(owner and name) and "/" not in name and not Path(owner).exists()


def refuse_adapter(folder: str | Path) -> None:
    """Raise UserError for a folder with an adapter beside or instead of whole weights: nothing here would apply it."""
    if (Path(folder) / "adapter_config.json").is_file():
        raise UserError(
            f"{folder} holds an adapter (adapter_config.json) beside or instead of whole weights; merge it first with "
            f"peft's merge_and_unload() and save_pretrained"
        )


def weight_files(folder: str | Path, path: str = "") -> list[Path]:
    """List the files that hold the weights of the model in `folder`, by name. path: as the user spells it.

    Raises UserError if one is absent, and for an adapter beside them.
    """
    folder, path = Path(folder), path or str(folder)
    refuse_adapter(folder)
    files = [folder / name for name in _weight_names(folder)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        what = f"lacks {missing[0]}" if missing != [SINGLE] else f"holds no {SINGLE} and no {INDEX}"
        raise UserError(
            f"{path} {what}; save the model once more with transformers' save_pretrained, which writes them"
        )
    return files


def content_files(folder: str | Path) -> list[Path]:
    """List every file that a model's answers depend on, by name; none if its weights are not whole."""
    folder, weights = Path(folder), _weight_names(Path(folder))
    if not all((folder / name).is_file() for name in weights):
        return []
    return sorted({*small_files(folder), *(folder / name for name in weights)})


def small_files(folder: str | Path) -> list[Path]:
    """List a model's config, tokenizer and templates."""
    return [file for name in BESIDE for file in sorted(Path(folder).glob(name)) if file.is_file()]


def record_of(folder: Path) -> Path:
    """Return the file beside an exported folder that says what it was made from."""
    return folder.with_name(RECORD if folder.name == FOLDER else f"{folder.name}.json")


def _weight_names(folder):
    """Name the files that transformers would read: what the config says, else one file, else those of an index."""
    config, again, wanted = folder / "config.json", "copy or download it again", None
    if config.is_file():
        wanted = read_json(config, again, lambda config: config.get("transformers_weights"))
    wanted = wanted or (INDEX if (folder / INDEX).is_file() and not (folder / SINGLE).is_file() else SINGLE)
    if not wanted.endswith(".index.json") or not (folder / wanted).is_file():
        return [wanted]
    return read_json(folder / wanted, again, lambda index: sorted(set(index["weight_map"].values())))
