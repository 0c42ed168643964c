"""The trained model as a Hugging Face folder, streamed from shards on many ranks to safetensors files."""

import importlib.metadata
import json
import platform
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.core_model_loading import revert_weight_conversion

from errors import UserError, one_line, read_json
from model.checkpoint import on_main, sync
from model.files import FOLDER, RECORD, record_of
from model.load import load_config, stored_tensors
from model.logprobs import LogProbModel
from model.lora import adapter_change, is_adapter, plain_name, whole
from model.parallel import Ranks
from model.rounding import Kept, round_stochastically
from progress import cosmetic, say
from settings import TrainConfig

SHARD_BYTES = 5 * 10**9
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors")
ENOUGH = 0.9  # share of the change that should survive


def export(
    cfg: TrainConfig,
    model: LogProbModel,
    tokenizer: PreTrainedTokenizerBase,
    ranks: Ranks,
    made: dict,
    target: str = FOLDER,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the folder `target` in cfg.out, which AutoModelForCausalLM.from_pretrained opens. It appears whole: with
    <cfg.out>/model the run is done.

    made: {"inputs": digests of what the model was made from, "step": after how many updates}, kept in run.json beside
    it (files.record_of), with the versions of the libraries and the share of the change since model.path that the
    files hold (model/rounding.py). Tied weights are written once, adapters merged into what they
    adapt. Rank 0 holds the tensors of one file at a time (shard_bytes, or one larger parameter), and one of model.path.
    Raises UserError on every rank if the disk refuses, and on rank 0 if a weight is too large for the dtype.
    """
    # which parameter goes into which file
    parameters = {name: tensor for name, tensor in stored_tensors(model.lm).items() if not is_adapter(name)}
    change = adapter_change(model.lm)
    folder, dtype = Path(cfg.out) / target, getattr(torch, cfg.model.export_dtype)
    partial, kept = folder.with_name(f"{folder.name}.partial"), Kept()
    if ranks.is_main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    files, place = plan_files(parameters, dtype.itemsize, shard_bytes), {}

    def saved(name, value, added):
        """Make the tensor to save, on the CPU. value: the model's; added: what its adapter adds, or None."""
        plain, before = plain_name(name), None
        with cosmetic(f"share of the change of {plain} since {cfg.model.path}"):
            before = model.files.rows(model.lm, plain, list(value.shape), slice(None))
        if before is not None and not parameters[name].requires_grad:
            value = before  # frozen: as in the file; the model's copy lies in the compute dtype
        value = value.detach().to("cpu", torch.float32)
        if added is not None:
            value = value + added.detach().to("cpu")
        rounded = value if dtype == torch.float32 else round_stochastically(value, dtype, f"{cfg.seed} {plain}")
        if not rounded.isfinite().all():
            raise UserError(
                f"{plain} holds {value.abs().max():.6g}, which {cfg.model.export_dtype} cannot; run the same command "
                f"again with another model.export_dtype, or train with a lower optim.lr"
            )
        if before is not None:
            kept.add(plain, before, value, rounded)
        return rounded.contiguous()

    for number, names in enumerate(files, start=1):
        file = f"model-{number:05d}-of-{len(files):05d}.safetensors" if len(files) > 1 else "model.safetensors"
        tensors = {}
        for name in names:
            value, added = whole(parameters[name]), change(name)  # collectives
            if ranks.is_main:
                tensors[plain_name(name)] = saved(name, value, added)
        tensors = as_stored(model.lm, tensors)
        place |= dict.fromkeys(tensors, file)
        on_main(ranks, partial / file, lambda t=tensors, f=file: save_file(t, partial / f, metadata={"format": "pt"}))
        del value, added, tensors

    def finish():
        if len(files) > 1:
            size = sum(p.numel() for p in parameters.values()) * dtype.itemsize
            index = {"metadata": {"total_size": size}, "weight_map": place}
            (partial / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
        save_all_but_weights(partial, cfg, model, tokenizer)
        # beside the model, whose folder is the same for the same weights; before its rename, which means done
        libraries = {package: importlib.metadata.version(package) for package in LIBRARIES}
        record = made | {"export": {"dtype": cfg.model.export_dtype, **kept.summary()}}
        record |= {"libraries": {"python": platform.python_version(), **libraries}}
        record_of(folder).write_text(json.dumps(record, indent=2) + "\n")
        sync(partial)
        partial.rename(folder)
        sync(folder.parent)
        if target == FOLDER and _say_kept(cfg, kept.summary()):
            shutil.rmtree(Path(cfg.out) / "checkpoints", ignore_errors=True)

    on_main(ranks, folder, finish)


def as_stored(lm: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name and cut tensors as files have them, experts one by one: what transformers, and servers, read."""
    stored = revert_weight_conversion(lm, tensors)
    return stored if stored.keys() == tensors.keys() else {name: value.clone() for name, value in stored.items()}


def _say_kept(cfg, summary):
    """Say what survived of the change since model.path. Returns whether it is enough for the checkpoints to go."""
    share, what = summary["kept"], f"saved as {cfg.model.export_dtype}"
    if share is None:
        say(f"{what}; no weight differs from {cfg.model.path}" if summary["rms_change"] == 0 else what)
        return True
    say(f"{what}: {share:.1%} of the change since {cfg.model.path} (rms {summary['rms_change']:.2g}) is in the files")
    enough = abs(1 - share) <= 1 - ENOUGH  # too much of it is as wrong: then the rounding's noise is as large
    if not enough:
        say(
            f"warning: the rounding spoils what was learnt; the checkpoints stay: delete {cfg.out}/{FOLDER} and run "
            f"the same command again with model.export_dtype=float32"
        )
    return enough


def save_all_but_weights(
    folder: Path, cfg: TrainConfig, model: LogProbModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Save config, generation config and tokenizer so that transformers 5 reads them, and 4 too."""
    config = type(model.lm.config).from_dict(model.lm.config.to_dict())
    config.__dict__.pop("packed_backend", None)  # this project's own
    config.dtype, config.architectures = getattr(torch, cfg.model.export_dtype), [type(model.lm).__name__]
    config.save_pretrained(folder)
    model.lm.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _for_transformers_4(folder)


def _for_transformers_4(folder):
    """Add the keys that transformers 4, and servers built on it, read: without them they take other positions."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    rope = config.get("rope_parameters") or {}
    full = rope if "rope_type" in rope else rope.get("full_attention")  # one for all layers, or one a kind of layer
    if full:
        moved = ("rope_theta", "partial_rotary_factor")
        config |= {key: full[key] for key in moved if key in full}
        scaling = {key: value for key, value in full.items() if key not in moved}
        config["rope_scaling"] = None if full["rope_type"] == "default" else scaling
    if sliding := rope.get("sliding_attention"):
        config["rope_local_base_freq"] = sliding["rope_theta"]
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    # the tokenizer's general class had another name; its special tokens are marked in tokenizer.json
    file = folder / "tokenizer_config.json"
    if file.exists():
        config = json.loads(file.read_text())
        if config.get("tokenizer_class") == "TokenizersBackend":
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
        if isinstance(config.get("extra_special_tokens"), list):
            config["additional_special_tokens"] = config.pop("extra_special_tokens")
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def try_saving(cfg: TrainConfig, model: LogProbModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save and read again all but the weights in a temporary folder: what cannot be saved is refused before training.

    Raises UserError naming what the library said, and if the saved tokenizer gives other tokens.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            save_all_but_weights(Path(folder), cfg, model, tokenizer)
            again = AutoTokenizer.from_pretrained(folder)
            load_config(folder)
    except Exception as error:  # whatever a model's own files make a library say
        parts = "config, generation config or tokenizer"
        raise UserError(
            f"{parts} of {cfg.model.path} cannot be saved: {type(error).__name__}: {one_line(error)}"
        ) from None
    probe = "  3 × 14?\n\n```\nx = 1\n```" + "".join(tokenizer.all_special_tokens)
    if again.chat_template != tokenizer.chat_template or again(probe).input_ids != tokenizer(probe).input_ids:
        raise UserError(f"the tokenizer of {cfg.model.path} is another one once it is saved; save it anew yourself")


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


def inputs_of_export(out: str) -> dict[str, str] | None:
    """Read from which inputs <out>/model was made; None if there is no exported model, {} if they were not recorded."""
    folder = Path(out) / FOLDER
    if not (folder / "config.json").exists():
        return None
    record, remedy = Path(out) / RECORD, f"restore it, or delete {out} to train again"
    return read_json(record, remedy, lambda made: made["inputs"]) if record.exists() else {}
