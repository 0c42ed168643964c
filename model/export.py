"""The trained model as a Hugging Face folder, streamed from shards on many ranks to safetensors files."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from model.checkpoint import on_main, sync
from model.logprobs import LogProbModel
from model.lora import is_adapter, merged_value, plain_name
from model.parallel import Ranks
from settings import TrainConfig

FOLDER = "model"
RECORD = "run.json"
SHARD_BYTES = 5 * 10**9


def export(
    cfg: TrainConfig,
    model: LogProbModel,
    tokenizer: PreTrainedTokenizerBase,
    ranks: Ranks,
    inputs: dict[str, str],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write <cfg.out>/model, which AutoModelForCausalLM.from_pretrained opens. It appears whole: the run is done then.

    inputs: digests of what the model was made from, kept in run.json beside it. Tied weights are written once, adapters
    merged into what they adapt. Rank 0 holds the tensors of one file at a time (shard_bytes, or one larger parameter).
    Raises UserError on every rank if the disk refuses.
    """
    # which parameter goes into which file
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
        # beside the model, whose folder is the same for the same weights; before its rename, which means done
        (folder / RECORD).write_text(json.dumps({"inputs": inputs}, indent=2) + "\n")
        sync(partial)
        partial.rename(folder / FOLDER)
        sync(folder)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    on_main(ranks, folder / FOLDER, finish)


def plan_files(parameters: dict[str, torch.Tensor], itemsize: int, shard_bytes: int) -> list[list[str]]:
    """Cut the parameters' names, in order, into lists of at most shard_bytes each (a larger parameter is alone)."""
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


def inputs_of_export(out: str) -> dict[str, str] | None:
    """Read from which inputs <out>/model was made; None if there is no exported model, {} if they were not recorded."""
    folder = Path(out) / FOLDER
    if not (folder / "config.json").exists():
        return None
    record = Path(out) / RECORD
    return json.loads(record.read_text())["inputs"] if record.exists() else {}
