"""Checkpoints of a run that can be killed at any point, and preemption.

A checkpoint is written under a temporary name and renamed when it is whole; a reader sees a complete one or none. It
holds the sharded trainable weights, the optimizer state and a small JSON of the caller's, and is loaded on any number
of ranks. The data position needs no state: the plan is a pure function of the step.

On SIGTERM a training step is finished and saved; anything else stops at once. Both exit with status 75. Under torchrun
the workers exit with 75, torchrun itself with 1; it passes SIGTERM on and kills what still runs after 30 seconds: give
a large model longer with `torchrun --shutdown-timeout 300 …`.
"""

import json
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from errors import UserError, one_line
from model.parallel import Ranks
from progress import say
from settings import TrainConfig

TRAINABLE = StateDictOptions(ignore_frozen_params=True, strict=False)  # what is frozen is read from model.path again

# a single process is meant, not an accident to warn of at every checkpoint
warnings.filterwarnings("ignore", message="torch.distributed is (disabled|unavailable)")


PREEMPTED = 75  # exit status of a run that was stopped from outside and can be resumed: EX_TEMPFAIL, try again later


class Preemption:
    """SIGTERM ends this process from now on. Inside `with` it only sets `asked`: the caller leaves, in order.

    Outside of it there is nothing to save (all files are written so that a kill does not hurt them), and rank 0 may be
    anywhere in a library: so the process goes without unwinding.
    """

    def __init__(self):
        self.asked, self.waits, self.left = False, False, None
        signal.signal(signal.SIGTERM, self._on_signal)

    def __enter__(self):
        self.waits = True
        return self

    def __exit__(self, *exc):
        self.waits = False
        if self.left is not None:  # said here: the bar inside has had its last word
            say(f"stopped by SIGTERM after step {self.left}; checkpoint saved; run the same command again to resume")
        elif self.asked and exc[0] is None:
            self._on_signal()

    def _on_signal(self, *_):
        self.asked = True
        if not self.waits:
            if os.environ.get("RANK", "0") == "0":
                os.write(2, b"stopped by SIGTERM; run the same command again to resume\n")  # print may be mid-call
            os._exit(PREEMPTED)

    def leave(self, step: int) -> None:
        """End this process after `step` whole steps, which a checkpoint on disk holds."""
        self.left = step
        sys.exit(PREEMPTED)


def check_inputs(made_from: dict, inputs: dict, what: str, out: str) -> None:
    """Refuse to take `what`, made in the folder `out`, for the outcome of this run when its inputs were others.

    made_from, inputs: {config key or file of the code: digest of its content}. Raises UserError naming what changed.
    """
    changed = sorted(key for key in made_from.keys() | inputs.keys() if made_from.get(key) != inputs.get(key))
    if changed:
        raise UserError(
            f"the content of {' and '.join(changed)} has changed since {what} was made; "
            f"set another output folder (out=…), or delete {out}"
        )


def newest(out: str | Path) -> tuple[str, dict] | None:
    """Find the newest whole checkpoint in the run's folder `out`: (its folder, its inputs), or None."""
    found = _steps(Path(out) / "checkpoints")
    return (str(found[-1]), _extra(found[-1])["inputs"]) if found else None


def _extra(folder):
    try:
        return json.loads((folder / "extra.json").read_text())
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from None


def _damaged(folder, error):
    return UserError(
        f"cannot read the checkpoint {folder} ({one_line(error, 200)}); every machine must see it; if it "
        f"is damaged, delete that folder and run the same command again to resume from the one before"
    )


class Saver:
    """Reads and writes <out>/checkpoints/step-NNNNNN. `save` returns once the state is copied; a thread writes it.

    The copy takes as much CPU memory as this rank's weights and moments, from `save` until the file is written; at most
    one save is in flight. Every rank calls every method, in the same order. The thread's collectives run in a process
    group of their own, so that they never mix with those of training.

        with saver:                          # SIGTERM no longer ends the process in the midst of a step
            for step in range(start, last):
                …
                saver.after_step(step + 1, last, model, optimizer, extra)
    """

    def __init__(self, cfg: TrainConfig, ranks: Ranks, stop: Preemption):
        """Open <cfg.out>/checkpoints, and remove what a killed save left there."""
        self.every, self.keep = cfg.checkpoint.every_steps, cfg.checkpoint.keep
        self.ranks, self.stop = ranks, stop
        self.out, self.folder = cfg.out, Path(cfg.out) / "checkpoints"
        self.group = dist.new_group(backend="gloo") if ranks.count > 1 else None
        self.thread, self.pending = ThreadPoolExecutor(1), None
        if ranks.is_main:
            for partial in self.folder.glob("*.partial"):
                shutil.rmtree(partial)
        ranks.barrier()

    def __enter__(self):
        self.stop.__enter__()
        return self

    def __exit__(self, *exc):
        if exc[0] is None:
            self.wait()
        self.stop.__exit__(*exc)

    def after_step(self, step: int, num_steps: int, model: nn.Module, optimizer: Optimizer, extra: dict) -> None:
        """Save if it is time, or the last step. If a rank was told to stop: save, wait, and exit with PREEMPTED.

        Raises as `wait` does, one step after a write has failed.
        """
        # what one rank was told, all do; exchanged by CPUs: no GPU is waited for
        leaving = self.ranks.sum(torch.tensor(float(self.stop.asked or self.failed))).item() > 0
        if leaving or step == num_steps or step % self.every == 0:
            self.save(step, model, optimizer, extra)
        if leaving:
            self.wait()
            self.stop.leave(step)

    def save(self, step: int, model: nn.Module, optimizer: Optimizer, extra: dict) -> None:
        """Begin to write the state after `step` steps; all but the newest checkpoints go once it stands.

        extra: JSON-able dict, for `load_latest` to return. Waits for the save before this one, and raises as `wait`.
        """
        self.wait()
        # a copy on the CPU, which later steps do not touch; of a sharded tensor, this rank's part
        state = tree_map(lambda x: x.to("cpu", copy=True) if torch.is_tensor(x) else x, _state(model, optimizer))
        self.pending = self.thread.submit(self._write, step, state, json.dumps(extra | {"step": step}))

    def wait(self) -> None:
        """Wait until the save in flight is on disk. Raises UserError on every rank if one of them could not write."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            pending.result()

    @property
    def failed(self) -> bool:
        """Tell whether the save in flight has failed, which `wait` will raise."""
        return self.pending is not None and self.pending.done() and self.pending.exception() is not None

    def _write(self, step, state, extra):
        final = self.folder / f"step-{step:06d}"
        partial = final.with_name(final.name + ".partial")
        writer = _Writer(partial, per_thread_copy_ahead=0)  # the copy is on the CPU: no CUDA stream is needed
        try:
            dcp.save(state, storage_writer=writer, process_group=self.group, no_dist=self.group is None)
        except CheckpointException as error:
            reasons = [e for e, _ in error.failures.values() if isinstance(e, OSError)]
            if not reasons:
                raise
            if self.ranks.is_main:
                shutil.rmtree(partial, ignore_errors=True)  # leave the room on a full disk to others
            raise _cannot_write(final, reasons[0]) from None

        def finish():
            (partial / "extra.json").write_text(extra)
            sync(partial)
            partial.rename(final)
            sync(self.folder)
            for old in _steps(self.folder)[: -self.keep]:
                shutil.rmtree(old)

        on_main(self.ranks, final, finish, self.group)

    def load_latest(self, model: nn.Module, optimizer: Optimizer, inputs: dict) -> dict | None:
        """Restore the newest whole checkpoint in place. Returns its extra JSON, or None if there is none.

        inputs: as for `check_inputs`, which raises UserError if they are not those of the checkpoint.
        """
        found = self.ranks.broadcast(_steps(self.folder))
        if not found:
            return None
        extra = _extra(found[-1])
        check_inputs(extra["inputs"], inputs, str(found[-1]), self.out)
        state = _state(model, optimizer)
        try:
            dcp.load(state, checkpoint_id=str(found[-1]), process_group=self.group, no_dist=self.group is None)
        except CheckpointException as error:
            raise _damaged(found[-1], next(iter(error.failures.values()))[0]) from None
        weights, moments = state["model"], state["optim"]
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=TRAINABLE)
        return extra


def _state(model, optimizer):
    weights, moments = get_state_dict(model, optimizer, options=TRAINABLE)
    return {"model": weights, "optim": moments}


class _Writer(dcp.FileSystemWriter):
    def write_data(self, plan, planner):
        try:
            return super().write_data(plan, planner)
        except RuntimeError as error:  # torch.save, cut short by a full disk, complains of its own bookkeeping
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def on_main(ranks: Ranks, target: Path, write: Callable[[], None], group: dist.ProcessGroup | None = None) -> None:
    """Run write() on rank 0. Raises UserError on every rank if the disk refuses. target: what is being written."""
    problem = None
    if ranks.is_main:
        try:
            write()
        except Exception as error:  # the libraries in Rust, for weights and tokenizers, have errors of their own
            if not isinstance(error, OSError) and "os error" not in str(error):
                raise
            problem = _cannot_write(target, error)
    if ranks.count > 1:
        box = [problem]
        dist.broadcast_object_list(box, src=0, group=group)
        problem = box[0]
    if problem is not None:
        raise problem


def _cannot_write(target, error):
    reason = getattr(error, "strerror", None) or error
    return UserError(f"cannot write {target}: {reason}; once there is room, run the same command again to resume")


def _steps(folder):
    """List the whole checkpoints, the oldest first."""
    names = [p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    return sorted(names, key=lambda p: int(p.name[5:]))


def sync(folder: Path) -> None:
    """Flush the files of a folder to disk, so that a rename that survives a crash names files that did too."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
