"""Weights from safetensors files straight into sharded parameters, each rank its own rows."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from errors import UserError
from model.lora import initial_value, is_adapter, plain_name
from model.parallel import own_rows

INDEX = "model.safetensors.index.json"


class WeightFiles:
    """The safetensors files of a model folder or hub id, by parameter name. Raises UserError if there are none.

    A hub id is downloaded into the local cache first.
    """

    def __init__(self, path):
        self.path, self.folder = path, Path(path)
        if not self.folder.is_dir():
            self.folder = _download(path)
        if (self.folder / INDEX).is_file():  # some repositories hold a second copy under other names
            named = json.loads((self.folder / INDEX).read_text())["weight_map"].values()
            self.files = [self.folder / name for name in sorted(set(named))]
        else:
            self.files = sorted(self.folder.glob("*.safetensors"))
        missing = [file.name for file in self.files if not file.is_file()]
        if missing or not self.files:
            what = f"lacks {missing[0]}" if missing else "holds no *.safetensors files"
            raise UserError(
                f"{path} {what}; save the model once more with transformers' save_pretrained, which writes them"
            )

    def digest(self):
        """sha256 over the files' contents, hex: changes when any weight changes."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(file.name.encode())
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()

    def open(self):
        """{parameter name: an open file that holds it}"""
        named = {}
        for file in self.files:
            try:
                handle = safe_open(file, framework="pt")
            except SafetensorError as error:
                raise UserError(f"{file} is damaged: {error}; copy or download it again") from None
            named |= dict.fromkeys(handle.keys(), handle)
        return named


def fill(lm, files, seed, device):
    """Give every parameter of a sharded, empty model its values; adapters get their initial ones, drawn from `seed`.

    files: WeightFiles. device: where buffers live. Raises UserError if the files do not hold what the model needs.
    """
    named = files.open()
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            rows, first = own_rows(parameter)
            part = slice(first, first + len(rows))
            if is_adapter(name):
                rows.copy_(initial_value(name, parameter.shape, seed)[part])
                continue
            stored = plain_name(name)
            if stored not in named:
                raise UserError(f"{files.path} holds no weight named {stored}, which {type(lm).__name__} needs")
            whole = named[stored].get_slice(stored)
            if whole.get_shape() != list(parameter.shape):
                raise UserError(
                    f"{files.path}: {stored} has shape {whole.get_shape()}, config.json asks for "
                    f"{list(parameter.shape)}"
                )
            rows.copy_(whole[part])
    # the only buffers of these models, computed from the config
    lm.model.rotary_emb = type(lm.model.rotary_emb)(config=lm.config).to(device)
    stray = [name for name, buffer in lm.named_buffers() if buffer.is_meta or "rotary_emb" not in name]
    assert not stray, f"buffers that nothing fills: {stray}"


def _download(path):
    """The local copy of a hub id. Its files' locks make the ranks of a machine wait for the one that downloads."""
    from huggingface_hub import snapshot_download

    wanted, second_copies = ["*.safetensors", "*.json"], ["original/*", "consolidated*"]
    try:
        return Path(snapshot_download(path, allow_patterns=wanted, ignore_patterns=second_copies))
    except OSError as error:
        raise UserError(f"cannot download {path}: {' '.join(str(error).split())[:300]}") from None
