"""What both training scripts do before and after their loop.

run = begin(cfg, __file__, load)      data, weights, code: what decides the result; then the model. None: done already
resume(run)                           optimizer, and the newest checkpoint if there is one
…                                     the loop, in the script
finish(run, evaluate)                 export the model; then whatever only shows the run
"""

import ast
import hashlib
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

import losses
from config import check_output, claim_output, flat
from data.dataset import Examples, count_tokens
from data.packing import plan_epoch, plan_stats
from data.render import Renderer
from errors import UserError
from model.card import write_card
from model.checkpoint import Preemption, Saver, check_inputs, newest
from model.cost import Shape, longest_rows, quadratic, settings_of, shape_of, train_flops
from model.export import export, inputs_of_export, try_saving
from model.files import EXPORTS, FOLDER, small_files
from model.load import WeightFiles, load_config, load_policy, load_tokenizer, resolve_dtype, warn_of_length
from model.logprobs import LogProbModel
from model.metrics import Metrics, Speed, peak_flops
from model.optim import make_optimizer
from model.parallel import Ranks
from model.plan import show_plan
from model.plots import plot_run
from progress import cosmetic, say
from settings import DataConfig, TrainConfig

# how a run is spread over ranks, watched and saved changes nothing that it computes
MAY_CHANGE_ON_RESUME = ("checkpoint", "heldout", "parallel", "watch", "reference_cache")

Load = Callable[[DataConfig, Renderer], Examples]
"""How a script reads a file of its kind."""


@dataclass
class Run:
    """Everything a training loop works with."""

    cfg: TrainConfig
    ranks: Ranks
    tokenizer: PreTrainedTokenizerBase
    examples: Examples
    heldout: Examples | None
    inputs: dict[str, str]  # {what decides the result besides the config: a digest of its content}
    steps: list[list[int]]  # the units of each optimizer step, all epochs in a row
    shape: Shape
    quadratic: float  # what attention adds to the cost of n tokens: quadratic · n²
    model: LogProbModel
    saver: Saver
    speed: Speed
    optimizer: torch.optim.Optimizer | None = None  # from `resume` on
    start: int = 0  # the first step that is still to be done
    metrics: Metrics | None = None

    def is_eval_step(self, step: int) -> bool:
        """Tell whether the held-out examples are evaluated before this step's update."""
        return self.heldout is not None and step % self.cfg.heldout.every_steps == 0

    def save(self, step: int) -> None:
        """Export and save what is due after `step` whole steps; leave with status 75 if told to stop (SIGTERM)."""
        every = self.cfg.checkpoint.export_every_steps
        if every and step % every == 0 and step < len(self.steps):  # before the checkpoint: no resumed run misses it
            name = f"{EXPORTS}/step-{step:06d}"
            self.export(step, name)
            _card(self.ranks, Path(self.cfg.out) / name)
        self.saver.after_step(step, len(self.steps), self.model, self.optimizer, {"inputs": self.inputs})

    def export(self, step: int, name: str) -> None:
        """Write the model, as it is after `step` updates, into the folder `name` of cfg.out."""
        export(self.cfg, self.model, self.tokenizer, self.ranks, {"inputs": self.inputs, "step": step}, name)

    def log(self, step: int, plan_by_rank: list[list[list[int]]], **values: float) -> dict:
        """Write a step's line: the values given, its speed, how full its rows were. Every rank calls it.

        Returns what a progress line shows.
        """
        lengths, supervised = count_tokens(self.examples, plan_by_rank)
        speed = self.speed.read(sum(lengths), train_flops(self.shape, lengths, supervised, self.cfg.lora.rank))
        cap, units = self.cfg.batch.max_tokens, self.examples.units
        packing = plan_stats(plan_by_rank, units, self.examples.lengths, cap, self.quadratic)
        num_pairs = sum(len(units[u].pairs) for u in self.steps[step])
        if num_pairs:  # passes that shared responses spared: 2 a pair without sharing
            packing["sequences_saved"] = 2 * num_pairs - len(lengths)
        self.metrics.log(step=step, **values, tokens=sum(lengths), **speed, **packing)
        shown = {"loss": values["loss"], "tok/s": f"{speed['tokens_per_second']:,.0f}"}
        return shown | ({"MFU": f"{speed['mfu']:.0%}"} if "mfu" in speed else {})


def begin(
    cfg: TrainConfig, script: str, load: Load, describe: Callable[[Examples], str], loss: Callable[[], object]
) -> Run | None:
    """Read the data and load the model; None if the run is done already.

    script: the file of the running script, part of what decides the result. describe: says what was read, in words.
    loss: a call of the loss on some numbers; the files of losses/ that it runs through, and what they import from
    there, decide the result too, and an edit of the others leaves the run as it is. Holds no lock: see `lock.locked`.
    Raises UserError for bad data or models, and for a folder that holds another run.
    """
    stop, ranks = Preemption(), Ranks()
    made_from, stopped = ranks.broadcast((inputs_of_export(cfg.out), newest(cfg.out)))
    may_change = _may_change(cfg, made_from, stopped)
    check_output(cfg, cfg.out, may_change)

    # what decides the result, by content: a finished or a stopped run of other inputs is not this one
    tokenizer = load_tokenizer(cfg.model.path)
    renderer = Renderer(tokenizer, cfg.data.chat_template_kwargs)
    examples = load(cfg.data, renderer)
    model_config = load_config(cfg.model.path)
    dtype = str(resolve_dtype(cfg.model.compute_dtype, ranks.device, model_config)).removeprefix("torch.")
    inputs = _digests(cfg, script, loss, examples, dtype, ranks)
    if made_from is not None:
        check_inputs(made_from, inputs, f"{cfg.out}/{FOLDER}", cfg.out)
        say(f"already done: {cfg.out}/{FOLDER}, from the same data, weights, code and configuration")
        _card(ranks, Path(cfg.out) / FOLDER)
        return None
    if stopped is not None:  # said now, before the model is loaded and the reference computed
        check_inputs(stopped[1], inputs, stopped[0], cfg.out)
    heldout = None
    if cfg.heldout.file:
        heldout = load(replace(cfg.data, file=cfg.heldout.file, limit=None), renderer)
        _check_same(ranks, {"heldout.file": heldout.digest()})

    # the plan of all steps: a function of the data and the seed alone, so a resumed run walks the same one
    shape = shape_of(model_config)
    steps = [
        step for epoch in range(cfg.epochs) for step in plan_epoch(examples.units, cfg.batch.size, cfg.seed, epoch)
    ]
    say(
        f"{describe(examples)}, {examples.dropped} dropped as too long, {sum(examples.lengths)} tokens; "
        f"{len(steps)} steps on {ranks.count} x {ranks.device.type} in {dtype}"
    )

    # the folder is claimed once the model is known to load: a mistyped path must not leave one that refuses a retry
    warn_of_length(cfg.model, model_config, max(examples.lengths))
    longest = peak = None
    if ranks.device.type == "cuda":
        peak = peak_flops(torch.cuda.get_device_name(ranks.device))
        memory = torch.cuda.get_device_properties(ranks.device).total_memory
        longest = longest_rows(shape, settings_of(cfg, ranks.count), memory)
        if len(longest) > 1:
            say(f"rows above {longest['none']} tokens are recomputed, fully above {longest['selective']}")
    model = load_policy(cfg.model, ranks, tokenizer, cfg.parallel, cfg.lora, cfg.seed, longest=longest)
    if ranks.is_main:
        try_saving(cfg, model, tokenizer)
        claim_output(cfg, cfg.out, may_change)
    return Run(
        cfg, ranks, tokenizer, examples, heldout, inputs, steps, shape, quadratic(shape), model,
        saver=Saver(cfg, ranks, stop), speed=Speed(ranks, peak),
    )  # fmt: skip


def resume(run: Run) -> None:
    """Make the optimizer, and restore the newest checkpoint. Raises UserError if that is of other inputs."""
    run.optimizer = make_optimizer(run.cfg.optim, run.model)
    saved = run.saver.load_latest(run.model, run.optimizer, run.inputs)
    run.start = saved["step"] if saved else 0
    if saved:
        say(f"resuming after step {run.start} of {len(run.steps)}")
    if run.ranks.is_main:  # exports of steps that are still to be done are a stopped run's, perhaps of other data
        for folder in Path(run.cfg.out, EXPORTS).glob("step-*"):
            if int(folder.name.partition(".")[0][5:]) > run.start:
                shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    run.metrics = Metrics(run.cfg.out, run.cfg.watch, run.start, run.ranks, flat(run.cfg))


def finish(run: Run, evaluate: Callable[[Run], dict[str, float]]) -> None:
    """Export the model. After that, nothing that fails can cost it: each becomes one warning on stderr."""
    out = Path(run.cfg.out)
    run.export(len(run.steps), FOLDER)
    say(f"model in {out}/{FOLDER}, metrics in {out}/metrics.jsonl")
    with cosmetic("held-out values of the trained model"):
        if run.heldout is not None:
            run.metrics.log(step=len(run.steps), **evaluate(run))
    run.metrics.close()
    with cosmetic("plots.png"):
        if run.ranks.is_main:
            plot_run(out / "metrics.jsonl", out / "plots.png")
            say(f"curves in {out}/plots.png")
    _card(run.ranks, out / FOLDER)
    run.ranks.close()


def _card(ranks, folder):
    """Describe an exported model, unless that is done."""
    with cosmetic(f"{folder}/README.md"):
        if ranks.is_main and not (folder / "README.md").exists():
            write_card(folder)


def predict(cfg: TrainConfig, load: Load, triads: bool = False, reference: bool = False) -> str:
    """Return what --plan prints: memory and hours on the machine of cfg.plan. See model.cost.show_plan."""
    examples = None
    if not cfg.plan.examples:
        examples = load(cfg.data, Renderer(load_tokenizer(cfg.model.path), cfg.data.chat_template_kwargs))
    return show_plan(cfg, load_config(cfg.model.path), examples, triads, reference)


def _may_change(cfg, made_from, stopped):
    """Name the keys that may differ from those of the run that the folder holds: all while it has saved nothing."""
    if made_from is not None:
        return MAY_CHANGE_ON_RESUME
    return tuple(vars(cfg)) if stopped is None else (*MAY_CHANGE_ON_RESUME, "model.export_dtype")


def _digests(
    cfg: TrainConfig, script: str, loss: Callable[[], object], examples: Examples, dtype: str, ranks: Ranks
) -> dict:
    """Digest what decides the result: {its name: digest of its content}. Raises UserError if ranks have different ones.

    Every rank reads for itself: copies on the disks of several machines may differ.
    """
    inputs = {"data.file": examples.digest(), "model.compute_dtype": dtype}  # auto may mean another one elsewhere
    # the weights are long: of ranks that see the very same files the first reads them for all
    files = WeightFiles(cfg.model.path)
    stats = [file.stat() for file in files.files]
    place = [platform.node(), *((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for s in stats)]
    first = ranks.gather(place).index(place)
    inputs["model.path"] = ranks.gather(files.digest() if first == ranks.rank else None)[first]
    # what the export takes over from beside them, the code of the loss, and the script
    named = {f"model.path/{file.relative_to(files.folder)}": file for file in small_files(files.folder)}
    named |= {f"losses/{path.name}": path for path in _files_of(loss)} | {Path(script).name: Path(script)}
    inputs |= {name: hashlib.sha256(path.read_bytes()).hexdigest()[:20] for name, path in named.items()}
    _check_same(ranks, inputs | {f"value of {key}": value for key, value in flat(cfg).items()})
    return inputs


def _check_same(ranks, mine):
    """Refuse ranks that work on different things. mine: {name: value}, this rank's."""
    found = ranks.gather(mine)
    for rank, other in enumerate(found):
        if changed := [key for key in found[0] | other if found[0].get(key) != other.get(key)]:
            raise UserError(
                f"rank {rank} has another {changed[0]} than rank 0; every machine must see the same files and config"
            )


def _files_of(loss):
    """Find the files of losses/ that a call of `loss` runs through, and what these import from there, and so on."""
    folder, ran, before = Path(losses.__file__).parent, set(), sys.getprofile()
    sys.setprofile(lambda frame, *_: ran.add(Path(frame.f_code.co_filename)))
    try:
        loss()
    finally:
        sys.setprofile(before)
    found, todo = set(), {path for path in ran if path.parent == folder}
    while todo:
        path = todo.pop()
        found.add(path)
        modules = (module.split(".") for module in _imports(path, folder.name) if module.split(".")[0] == folder.name)
        paths = {folder / f"{module[1] if module[1:] else '__init__'}.py" for module in modules}
        todo |= {path for path in paths - found if path.exists()}
    return sorted(found)


def _imports(path, package):
    """Yield the full names of the modules that a file of a package may import."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, (package if node.level else "", node.module)))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
