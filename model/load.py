"""From a folder or hub id to a tokenizer and a model ready for packed training.

No rank ever holds the whole model: it is built without storage (on the meta device), sharded, and each rank then reads
its own rows of every weight from the safetensors files (model/stream.py).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from data.render import Renderer
from errors import UserError
from model.attention import NAME, choose_backend
from model.logprobs import LogProbModel
from model.lora import add_adapters
from model.parallel import ParallelConfig, shard
from model.stream import WeightFiles, fill
from progress import say

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


def load_config(path):
    """The transformers config of a local folder or hub id. Raises UserError when there is none."""
    _check_folder(path)
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load a model from {path}: {_first_line(error)}") from None


def warn_of_length(cfg, model_config, longest):
    """Say so if sequences are longer than the positions that the model was made for. longest: tokens."""
    if longest > model_config.max_position_embeddings:
        say(
            f"warning: the longest sequence has {longest} tokens, {cfg.path} was made for "
            f"{model_config.max_position_embeddings} (max_position_embeddings)"
        )


def load_policy(cfg, ranks, tokenizer, parallel=None, lora=None, seed=0):
    """The model to train, sharded and filled: a LogProbModel in float32, computing in cfg.compute_dtype.

    cfg: ModelConfig. parallel: ParallelConfig. lora: LoraConfig; with adapters only they are float32 and trainable, and
    the frozen weights lie in the compute dtype. seed: of the adapters. Raises UserError for a model that cannot be
    trained.
    """
    dtype = resolve_dtype(cfg.compute_dtype, ranks.device)
    model = LogProbModel(build(cfg, ranks.device, tokenizer))
    files = WeightFiles(cfg.path)
    if lora and lora.rank:
        add_adapters(model.lm, lora, dtype)
    shard(model, parallel or ParallelConfig(), ranks, dtype)
    fill(model.lm, files, seed, ranks.device)
    return model.train()


def build(cfg, device, tokenizer):
    """The causal language model of `cfg` on the meta device, with packed attention. Raises UserError if unsupported.

    device: where it is going to compute.
    """
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
    return lm


def _generation_config(path):
    try:
        return GenerationConfig.from_pretrained(path)
    except OSError:  # a hub id without one
        return GenerationConfig()


def _check_folder(path):
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1 or os.path.exists(path)
    if looks_local and not (Path(path) / "config.json").is_file():
        what = "has no config.json" if os.path.isdir(path) else "does not exist"
        raise UserError(f"model folder {path} {what}; model.path takes a Hugging Face folder or a hub id")


def _first_line(error):
    return " ".join(str(error).split())[:300]
