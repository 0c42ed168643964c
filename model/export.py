"""The trained model as a Hugging Face folder, streamed from shards on many ranks to safetensors files."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from model.checkpoint import on_main, sync
from model.lora import is_adapter, merged_value, plain_name

FOLDER = "model"
SHARD_BYTES = 5 * 10**9


def export(cfg, model, tokenizer, ranks, shard_bytes=SHARD_BYTES):
    """Write <cfg.out>/model, which AutoModelForCausalLM.from_pretrained opens. Its rename is the sign of a run done.

    Tied weights are written once, adapters merged into what they adapt. Rank 0 holds the tensors of one file at a time
    (shard_bytes, or one larger parameter). Raises UserError on every rank if the disk refuses.
    """
    parameters, value = {n: p for n, p in model.lm.named_parameters() if not is_adapter(n)}, merged_value(model.lm)
    folder, dtype = Path(cfg.out), getattr(torch, cfg.model.export_dtype)
    partial = folder / f"{FOLDER}.partial"
    if ranks.is_main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    files, place = plan_files(parameters, dtype.itemsize, shard_bytes), {}
    for number, names in enumerate(files, start=1):
        file = f"model-{number:05d}-of-{len(files):05d}.safetensors" if len(files) > 1 else "model.safetensors"
        place |= {plain_name(name): file for name in names}
        tensors = {}
        for name in names:
            tensor = value(name, parameters[name])  # a collective
            if ranks.is_main:
                tensors[plain_name(name)] = tensor.detach().to("cpu", dtype).contiguous()
        on_main(ranks, partial / file, lambda t=tensors, f=file: save_file(t, partial / f, metadata={"format": "pt"}))
        del tensor, tensors

    def finish():
        if len(files) > 1:
            size = sum(p.numel() for p in parameters.values()) * dtype.itemsize
            index = {"metadata": {"total_size": size}, "weight_map": place}
            (partial / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
        config = _clean(model.lm.config)
        config.dtype, config.architectures = dtype, [type(model.lm).__name__]
        config.save_pretrained(partial)
        model.lm.generation_config.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        sync(partial)
        partial.rename(folder / FOLDER)
        sync(folder)
        if not cfg.checkpoint.keep_after_export:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    on_main(ranks, folder / FOLDER, finish)


def plan_files(parameters, itemsize, shard_bytes):
    """The parameters' names in order, cut into lists of at most shard_bytes each (a larger parameter is alone)."""
    files, room = [], 0
    for name, parameter in parameters.items():
        size = parameter.numel() * itemsize
        if not files or size > room:
            files.append([])
            room = shard_bytes
        files[-1].append(name)
        room -= size
    return files


def _clean(config):
    """The config as it is exported: without what belongs to this project's training."""
    config = type(config).from_dict(config.to_dict())
    config.__dict__.pop("packed_backend", None)
    return config


def is_done(folder):
    return (Path(folder) / FOLDER / "config.json").exists()
