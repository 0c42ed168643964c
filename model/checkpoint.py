"""Checkpoints of a run that can be killed at any moment, and the export to a Hugging Face folder.

A checkpoint is written under a temporary name and renamed when it is whole; a reader sees a complete one or none. It
holds the sharded weights, the optimizer state and a small JSON of the caller's. The data position needs no state: the
plan is a pure function of the step.
"""

import json
import os
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

from data.errors import UserError

FINAL = "model"

# a single process is meant, not an accident to warn of at every checkpoint
warnings.filterwarnings("ignore", message="torch.distributed is (disabled|unavailable)")


@dataclass
class CheckpointConfig:
    """When to save, what to keep."""

    every_steps: int = 50
    """optimizer steps between checkpoints"""
    keep: int = 2
    """how many of the newest checkpoints stay while the run goes on"""
    keep_after_export: bool = False
    """keep the last checkpoint after the model was exported"""


def save(cfg, step, model, optimizer, extra, ranks):
    """Write <cfg.out>/checkpoints/step-NNNNNN, after `step` steps, and drop all but the newest. extra: JSON-able."""
    folder = Path(cfg.out) / "checkpoints"
    final, partial = folder / f"step-{step:06d}", folder / f"step-{step:06d}.partial"
    if ranks.is_main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    ranks.barrier()
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optim": moments}, checkpoint_id=str(partial))
    if ranks.is_main:
        (partial / "extra.json").write_text(json.dumps(extra | {"step": step}))
        _sync(partial)
        partial.rename(final)
        for old in _steps(folder)[: -cfg.checkpoint.keep]:
            shutil.rmtree(old)
    ranks.barrier()


def load_latest(folder, model, optimizer, inputs):
    """Restore the newest whole checkpoint in place. Returns its extra JSON, or None if there is none.

    inputs: {config key: digest of what it points at}; a run does not go on from other inputs than it began with.
    Raises UserError if one differs from the checkpoint's own `inputs`.
    """
    found = _steps(Path(folder))
    if not found:
        return None
    extra = json.loads((found[-1] / "extra.json").read_text())
    changed = [key for key, digest in inputs.items() if extra["inputs"][key] != digest]
    if changed:
        raise UserError(
            f"the content of {' and '.join(changed)} has changed since {found[-1]} was written; "
            f"set another output folder, or delete this one"
        )
    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optim": moments}
    dcp.load(state, checkpoint_id=str(found[-1]))
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optim"])
    return extra


def export(cfg, model, tokenizer, ranks):
    """Write <cfg.out>/model, which AutoModelForCausalLM.from_pretrained opens. Its rename is the sign of a run done."""
    folder, dtype = Path(cfg.out), getattr(torch, cfg.model.export_dtype)
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if ranks.is_main:
        partial = folder / f"{FINAL}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        lm = model.lm
        names = {id(p): n for n, p in lm.named_parameters()}  # tied weights appear once
        weights = {n: weights[f"lm.{n}"].to(dtype) for n in names.values()}
        config, lm.config = lm.config, _clean(lm.config)
        lm.save_pretrained(partial, state_dict=weights)
        lm.config.dtype = dtype
        lm.config.save_pretrained(partial)  # once more: the model's own save wrote the dtype of the master weights
        lm.config = config
        tokenizer.save_pretrained(partial)
        _sync(partial)
        partial.rename(folder / FINAL)
        if not cfg.checkpoint.keep_after_export:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    ranks.barrier()


def _clean(config):
    """The config as it is exported: without what belongs to this project's training."""
    config = type(config).from_dict(config.to_dict())
    config.__dict__.pop("packed_backend", None)
    return config


def _steps(folder):
    """Whole checkpoints, oldest first."""
    names = [p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    return sorted(names, key=lambda p: int(p.name[5:]))


def _sync(folder):
    """Flush the files of a folder to disk, so that a rename that survives a crash names files that did too."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def is_done(folder):
    return (Path(folder) / FINAL / "config.json").exists()
