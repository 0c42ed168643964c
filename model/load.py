"""From a folder or hub id to a tokenizer and a model ready for packed training."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from data.errors import UserError
from data.render import Renderer
from model.attention import NAME, choose_backend

transformers_logging.disable_progress_bar()  # one bar at a time, and it is the script's


@dataclass
class ModelConfig:
    """The model to train."""

    path: str
    """local folder in Hugging Face format, or hub id (e.g. Qwen/Qwen2.5-7B-Instruct)"""
    attention: Literal["auto", "flash", "varlen", "sdpa"] = "auto"
    """flash = the flash-attn package, varlen = torch's own packed kernel (both CUDA), sdpa = one call a segment, runs
    anywhere; auto takes the first that works here"""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """dtype of matrix products; master weights, gradients' reduction, log-probs and losses are always float32.
    auto: bfloat16 on CUDA, float32 on CPU"""
    export_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """dtype of the exported Hugging Face folder"""
    activation_checkpointing: bool = False
    """recompute each layer in the backward pass instead of keeping its activations"""


def resolve_dtype(name, device):
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, name)


def load_tokenizer(path):
    """The tokenizer of a local folder or hub id. Raises UserError when there is none."""
    _check_folder(path)
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load a tokenizer from {path}: {_first_line(error)}") from None


def load_model(cfg, device, tokenizer):
    """The float32 master model on the CPU, with packed attention. Raises UserError for a model that cannot be trained.

    It is moved or sharded afterwards, by model.parallel.shard.
    """
    _check_folder(cfg.path)
    dtype = resolve_dtype(cfg.compute_dtype, device)
    try:
        config = AutoConfig.from_pretrained(cfg.path)
        backend = choose_backend(cfg.attention, device, dtype)
        lm = AutoModelForCausalLM.from_pretrained(
            cfg.path, config=config, dtype=torch.float32, attn_implementation=NAME
        )
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot load a model from {cfg.path}: {_first_line(error)}") from None
    lm.config.packed_backend = backend
    # the token that ends a turn in training must end one in any server that reads the export, base models included
    listed = lm.generation_config.eos_token_id
    listed = listed if isinstance(listed, list) else [] if listed is None else [listed]
    lm.generation_config.eos_token_id = list(dict.fromkeys([Renderer(tokenizer).turn_end[-1], *listed]))
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
    if cfg.activation_checkpointing:
        lm.gradient_checkpointing_enable({"use_reentrant": False})
    lm.train()
    return lm


def weights_id(path):
    """sha256 over the weight files' contents of a model folder or cached hub id: changes when any weight changes."""
    digest = hashlib.sha256()
    for file in _weight_files(path):
        digest.update(file.name.encode())
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def _weight_files(path):
    folder = Path(path)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download  # only a hub id needs it; load_model has filled the cache

        folder = Path(snapshot_download(path, local_files_only=True))
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not files:
        raise UserError(f"{path} holds no weight files (*.safetensors or *.bin)")
    return files


def _check_folder(path):
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1 or os.path.exists(path)
    if looks_local and not (Path(path) / "config.json").is_file():
        what = "has no config.json" if os.path.isdir(path) else "does not exist"
        raise UserError(f"model folder {path} {what}; model.path takes a Hugging Face folder or a hub id")


def _first_line(error):
    return " ".join(str(error).split())[:300]
