"""From a folder or hub id to a tokenizer and a model ready for packed training.

No rank ever holds the whole model: it is built without storage (on the meta device), sharded, and each rank then reads
its own rows of every weight from the safetensors files.
"""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from data.render import Renderer
from errors import UserError
from model.attention import NAME, choose_backend
from model.files import model_folder
from model.logprobs import LogProbModel
from model.lora import add_adapters, initial_value, is_adapter, plain_name
from model.parallel import Ranks, own_rows, shard
from progress import say
from settings import LoraConfig, ModelConfig, ParallelConfig

INDEX = "model.safetensors.index.json"

transformers_logging.disable_progress_bar()  # one bar at a time, and it is the script's


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype that model.compute_dtype means on a device."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, name)


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local folder or hub id. Raises UserError when there is none."""
    _check_folder(path)
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load a tokenizer from {path}: {_first_line(error)}") from None


def load_config(path: str) -> PretrainedConfig:
    """Load the transformers config of a local folder or hub id. Raises UserError when there is none."""
    _check_folder(path)
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load a model from {path}: {_first_line(error)}") from None


def warn_of_length(cfg: ModelConfig, model_config: PretrainedConfig, longest: int) -> None:
    """Say so if sequences are longer than the positions that the model was made for. longest: tokens."""
    if longest > model_config.max_position_embeddings:
        say(
            f"warning: the longest sequence has {longest} tokens, {cfg.path} was made for "
            f"{model_config.max_position_embeddings} (max_position_embeddings)"
        )


def load_policy(
    cfg: ModelConfig,
    ranks: Ranks,
    tokenizer: PreTrainedTokenizerBase,
    parallel: ParallelConfig | None = None,
    lora: LoraConfig | None = None,
    seed: int = 0,
) -> LogProbModel:
    """Load the model to train, sharded and filled: a LogProbModel in float32, computing in cfg.compute_dtype.

    With lora, only the adapters are float32 and trainable, and the frozen weights lie in the compute dtype. seed: of
    the adapters. Raises UserError for a model that cannot be trained.
    """
    dtype = resolve_dtype(cfg.compute_dtype, ranks.device)
    model = LogProbModel(build(cfg, ranks.device, tokenizer))
    files = WeightFiles(cfg.path)
    if lora and lora.rank:
        add_adapters(model.lm, lora, dtype)
    shard(model, parallel or ParallelConfig(), ranks, dtype)
    fill(model.lm, files, seed, ranks.device)
    model.files = files  # the export compares with them
    return model.train()


def build(cfg: ModelConfig, device: torch.device, tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """Build the causal language model of `cfg` on the meta device, with packed attention. Raises UserError if it fails.

    device: where it is going to compute.
    """
    # transformers' own model without storage, its attention replaced by the packed one
    backend = choose_backend(cfg.attention, device, resolve_dtype(cfg.compute_dtype, device))
    config = load_config(cfg.path)
    try:
        with torch.device("meta"):
            lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=NAME)
    except ValueError as error:
        raise UserError(f"cannot load a model from {cfg.path}: {_first_line(error)}") from None
    lm.config.packed_backend = backend
    if os.path.isfile(os.path.join(cfg.path, "generation_config.json")) or not os.path.isdir(cfg.path):
        lm.generation_config = _generation_config(cfg.path)
    # what cannot be saved after all training is mended or refused now
    _check_generation(lm.generation_config, cfg.path)
    # the token that ends a turn in training must end one in any server that reads the export, base models included
    listed = lm.generation_config.eos_token_id
    listed = listed if isinstance(listed, list) else [] if listed is None else [listed]
    lm.generation_config.eos_token_id = list(dict.fromkeys([Renderer(tokenizer).turn_end[-1], *listed]))
    # what would train or be scored wrongly
    vocab = lm.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocab:
        raise UserError(
            f"the tokenizer of {cfg.path} has {len(tokenizer)} tokens, the model's vocabulary only {vocab}: they do "
            f"not belong together, or the embedding was not resized"
        )
    window = getattr(lm.config, "sliding_window", None)
    if window and getattr(lm.config, "use_sliding_window", True) and window < lm.config.max_position_embeddings:
        raise UserError(f"{cfg.path} attends through a sliding window ({window} tokens), which is not supported")
    if not isinstance(getattr(lm, "lm_head", None), torch.nn.Linear) or lm.lm_head.bias is not None:
        raise UserError(f"{cfg.path} ({type(lm).__name__}) has no plain linear lm_head; only such models are supported")
    scaled = [k for k in ("final_logit_softcapping", "logits_scaling", "logit_scale") if getattr(lm.config, k, None)]
    if scaled:  # Gemma 2, Granite, Cohere; model/logprobs.py would leave it out, in policy and reference alike
        raise UserError(f"{cfg.path} transforms its logits ({', '.join(scaled)}), which is not supported")
    return lm


def _check_generation(config: GenerationConfig, path: str) -> None:
    """Make a generation config one that can be saved: sampling settings without do_sample mean sampling."""
    try:
        config.validate(strict=True)
    except ValueError:
        config.do_sample = True
        try:
            config.validate(strict=True)
        except ValueError as error:
            reason = _first_line(error)
            raise UserError(f"generation_config.json of {path} is not valid: {reason}; correct or delete it") from None


def _generation_config(path):
    try:
        return GenerationConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not os.path.isdir(path):  # a hub id without one
            return GenerationConfig()
        reason = _first_line(error)
        raise UserError(f"generation_config.json of {path} is not valid: {reason}; correct or delete it") from None


def _check_folder(path):
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1 or os.path.exists(path)
    if looks_local and not (Path(path) / "config.json").is_file():
        what = "has no config.json" if os.path.isdir(path) else "does not exist"
        raise UserError(f"model folder {path} {what}; model.path takes a Hugging Face folder or a hub id, owner/name")


def _first_line(error):
    return " ".join(str(error).split())[:300]


class WeightFiles:
    """The safetensors files of a model folder or hub id, by parameter name. Raises UserError if there are none.

    A hub id is downloaded into the local cache first.
    """

    def __init__(self, path: str):
        folder = path if Path(path).is_dir() else model_folder(path)
        if folder is None:
            raise UserError(f"no model folder {path}; model.path takes a Hugging Face folder or a hub id")
        self.path, self.folder = path, Path(folder)
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

    def digest(self) -> str:
        """Return sha256 over the files' contents, hex: changes when any weight changes."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(file.name.encode())
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()

    def rows(self, lm: nn.Module, name: str, shape: list[int], part: slice) -> torch.Tensor:
        """Read rows of a parameter that `fill` has found."""
        return self.named[name].get_slice(name)[part]

    def open(self) -> dict:
        """Map {parameter name: an open file that holds it}."""
        self.named = named = {}
        for file in self.files:
            try:
                handle = safe_open(file, framework="pt")
            except SafetensorError as error:
                raise UserError(f"{file} is damaged: {error}; copy or download it again") from None
            named |= dict.fromkeys(handle.keys(), handle)
        return named


def fill(lm: nn.Module, files: WeightFiles, seed: int, device: torch.device) -> None:
    """Give every parameter of a sharded, empty model its values; adapters get their initial ones, drawn from `seed`.

    files: WeightFiles. device: where buffers live. Raises UserError if the files do not hold what the model needs.
    """
    named = files.open()
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            # this rank's rows: drawn for an adapter, else read from the file that holds the weight
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
