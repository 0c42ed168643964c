"""What a run says about itself: metrics.jsonl, TensorBoard, trackers; per-gap statistics; speed and memory.

A line of metrics.jsonl is one step: `{"step": 7, "loss": 0.61, "small/margin": 0.2, …}`; its values are those of the
weights after `step` updates. Held-out values (`eval/…`) stand on the line of their step, or, after training, on a line
of their own whose step is the number of steps. A value that is not finite is null: JSON has no NaN.
"""

import importlib
import json
import math
import re
import resource
import secrets
import sys
import time
from pathlib import Path

import torch

from data.records import GAPS, write_text
from errors import UserError
from losses import PairLoss
from model.parallel import Ranks
from progress import cosmetic
from settings import WatchConfig

# dense bfloat16 TFLOP/s (no sparsity) by the words of a GPU's name, from NVIDIA's data sheets; the first match counts
PEAK_TFLOPS = (
    ({"B200"}, 2250), ({"H200", "NVL"}, 836), ({"H200"}, 989), ({"GH200"}, 989),
    ({"H100", "PCIE"}, 756), ({"H100", "NVL"}, 836), ({"H100"}, 989), ({"H800"}, 989),
    ({"H20"}, 148), ({"A100"}, 312), ({"A800"}, 312), ({"A40"}, 150),
    ({"A10"}, 125), ({"A6000"}, 155), ({"L40S"}, 362), ({"L40"}, 181),
    ({"L4"}, 121), ({"4090"}, 165), ({"3090"}, 71),
)  # fmt: skip


class Metrics:
    """The sinks of a run, on rank 0; on other ranks every method does nothing.

    Metrics(out, cfg.watch, next_step, ranks, flat(cfg)): lines of steps before `next_step` stay, what a killed run
    wrote beyond its last checkpoint goes, in metrics.jsonl and in TensorBoard. (Trackers keep what they were given; the
    steps that are run again give the same values.) resolved_config: dict, for the trackers.

    The files are opened with the first line, so that a run with no step left to do needs none of them. Of the sinks
    only metrics.jsonl can stop a run; TensorBoard and trackers are dropped with one warning when they fail.
    """

    def __init__(self, out: str | Path, cfg: WatchConfig, next_step: int, ranks: Ranks, resolved_config: dict):
        self.out, self.cfg, self.next_step, self.resolved_config = Path(out), cfg, next_step, resolved_config
        self.is_main = ranks.is_main
        self.file = self.board = None
        self.trackers = {}  # name of the package -> its run

    def _open(self):
        self.file = _cut_back(self.out / "metrics.jsonl", self.next_step).open("a", buffering=1)
        with cosmetic("TensorBoard curves"):
            from torch.utils.tensorboard import SummaryWriter  # a second to import, and only this rank needs it

            self.board = SummaryWriter(self.out / "tensorboard", purge_step=self.next_step)
        for package, project in vars(self.cfg).items():
            if project:
                self.trackers[package] = _tracker(package, self.out, project, self.resolved_config)

    def log(self, step: int, **values: float) -> None:
        """Write one line. values: numbers; `**{"small/loss": 0.6}` for nested names."""
        if not self.is_main:
            return
        if self.file is None:
            self._open()
        clean = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self.file.write(json.dumps({"step": step} | clean, allow_nan=False) + "\n")
        board, trackers, self.board, self.trackers = self.board, self.trackers, None, {}  # what fails stays dropped
        with cosmetic("TensorBoard curves from here on"):
            if board is not None:
                for name, value in values.items():
                    board.add_scalar(name, value, step)
                board.flush()  # a killed run loses nothing that its checkpoint is past
                self.board = board
        for package, tracker in trackers.items():
            with cosmetic(f"{package} from here on"):
                tracker.log(values, step=step)
                self.trackers[package] = tracker

    def close(self) -> None:
        """Close every sink. The lines are on disk already, so a failure is one warning."""
        with cosmetic("last line of metrics.jsonl"):
            if self.file is not None:
                self.file.close()
        with cosmetic("last line in TensorBoard"):
            if self.board is not None:
                self.board.close()
        for package, tracker in self.trackers.items():
            with cosmetic(f"finished run in {package}"):
                tracker.finish()


def _cut_back(path, next_step):
    """Drop the lines of `next_step` and later, and one that a kill left unfinished. Returns the path."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < next_step]
    write_text(path, "".join(kept))  # a kill here must not cost the history
    return path


def _tracker(package, out, project, config):
    """Begin a run of wandb or trackio, or resume the one whose id is in <out>/<package>.id."""
    id_file = out / f"{package}.id"
    if not id_file.exists():
        id_file.write_text(secrets.token_hex(4))
    name, library = id_file.read_text(), importlib.import_module(package)
    if package == "trackio":
        return library.init(project, name=f"{out.name}-{name}", resume="allow", config=config, embed=False)
    try:
        return library.init(project=project, id=name, resume="allow", dir=out, config=config)
    except library.Error as error:
        raise UserError(f"watch.wandb: {error} (WANDB_MODE=offline needs no account)") from None


def peak_flops(device_name: str) -> float | None:
    """Look up the dense bfloat16 FLOP/s of a GPU by its name, e.g. "NVIDIA A100-SXM4-80GB"; None if unknown."""
    words = set(re.split(r"[\s_-]+", device_name.upper()))
    return next((tflops * 1e12 for name, tflops in PEAK_TFLOPS if name <= words), None)


class Speed:
    """Tokens a second, use of the hardware and peak memory of one step: `start()`, the step, `read(tokens, flops)`.

    peak_flops: what one device can do in bfloat16, FLOP/s, or None where that is unknown.
    """

    def __init__(self, ranks: Ranks, peak_flops: float | None = None):
        self.ranks, self.peak_flops = ranks, peak_flops
        self.on_cuda = ranks.device.type == "cuda"

    def start(self) -> None:
        """Start the clock of a step, and on CUDA its peak of memory."""
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats(self.ranks.device)
        self.began = time.perf_counter()

    def read(self, tokens: int, flops: float) -> dict[str, float]:
        """Measure the step since `start`. tokens, flops: of the step, over all ranks. Every rank calls it.

        memory_gib is the peak over ranks, on CUDA of this step's tensors (reserved_gib: with the allocator's spare
        blocks), on CPU of the process since it began, which cannot be reset. It is exchanged by CPUs. A step reads its
        loss and norm of all ranks before the update (model.optim.apply_step), so a GPU has done all before that when
        the clock is read; what is still queued of the update is waited for, and counts, in the next step.
        """
        seen = torch.zeros(self.ranks.count, 2, dtype=torch.float64)
        seen[self.ranks.rank] = torch.tensor(self._memory(), dtype=torch.float64)
        used, reserved = self.ranks.sum(seen).max(dim=0).values.tolist()
        seconds = time.perf_counter() - self.began
        per_rank = flops / seconds / self.ranks.count
        out = {"seconds": seconds, "tokens_per_second": tokens / seconds, "tflops_per_rank": per_rank / 1e12}
        if self.peak_flops is not None:
            out["mfu"] = per_rank / self.peak_flops
        out["memory_gib"] = used / 2**30
        if self.on_cuda:
            out["reserved_gib"] = reserved / 2**30
        return out

    def _memory(self) -> tuple[int, int]:
        """Return (peak in use, peak reserved) of this rank, bytes."""
        if self.on_cuda:
            device = self.ranks.device
            return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts in kB on Linux, in bytes on macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, 0


class GapStats:
    """Per gap: pairs, loss, margin, accuracy, chosen and rejected log-prob and reward, β. Stays on the device."""

    NAMES = (
        "pairs", "loss", "margin", "accuracy", "chosen_logp", "rejected_logp", "chosen_reward", "rejected_reward",
        "beta",
    )  # fmt: skip

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(len(GAPS), len(self.NAMES), dtype=torch.float64, device=device)

    def add(
        self, pairs: PairLoss, gap: torch.Tensor, logps: torch.Tensor, chosen: torch.Tensor, rejected: torch.Tensor
    ):
        """Add P pairs over R responses. gap, chosen, rejected: int64 [P]. logps: float32 [R], summed, nats."""
        logps = logps.detach()
        columns = (
            torch.ones_like(pairs.margin), pairs.loss.detach(), pairs.margin, (pairs.margin > 0).float(), logps[chosen],
            logps[rejected], pairs.chosen_reward, pairs.rejected_reward, pairs.beta,
        )  # fmt: skip
        self.sums.index_add_(0, gap, torch.stack(columns, dim=1).double())

    @classmethod
    def means(cls, sums: list[float]) -> dict[str, float]:
        """Turn the sums of all ranks, flattened, into {"small/pairs": count, "small/loss": mean over pairs, …}.

        A gap without pairs is left out.
        """
        out, width = {}, len(cls.NAMES)
        for i, gap in enumerate(GAPS):
            count, *rest = sums[i * width : (i + 1) * width]
            if count:
                out[f"{gap}/pairs"] = int(count)
                out |= {f"{gap}/{name}": value / count for name, value in zip(cls.NAMES[1:], rest, strict=True)}
        return out
