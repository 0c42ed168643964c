"""From a folder or hub id to a tokenizer and a model ready for packed training.

No rank ever holds the whole model: it is built without storage (on the meta device), sharded, and each rank then reads
its own rows of every weight from the safetensors files.
"""

import copy
import hashlib
import itertools
import math
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key
from transformers.utils import logging as transformers_logging

from data.render import Renderer
from errors import UserError, one_line
from model.attention import NAME, choose_backend
from model.files import is_hub_id, model_folder, refuse_adapter, weight_files
from model.guard import check_packing, dropouts, shown, skeleton
from model.logprobs import LogProbModel
from model.lora import add_adapters, initial_value, is_adapter, plain_name
from model.parallel import Ranks, own_rows, reshard, shard
from model.rounding import round_stochastically
from progress import say
from settings import LoraConfig, ModelConfig, ParallelConfig

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

transformers_logging.disable_progress_bar()  # one bar at a time, and it is the script's


WIDE = 256  # hidden size from which bfloat16 pays on a CPU: in narrower models its casts cost what its products gain


def resolve_dtype(name: str, device: torch.device, config: PretrainedConfig) -> torch.dtype:
    """Return the dtype that model.compute_dtype, or evaluate.py's dtype, means for a model on a device.

    auto: bfloat16 on CUDA, and on a CPU that multiplies it natively if the model is wide enough; else float32.
    """
    if name != "auto":
        return getattr(torch, name)
    # torch asks the CPU for its flags; versions and builds that do not know one say no
    native = any(getattr(torch.cpu, f"_is_{flag}_supported", bool)() for flag in ("avx512_bf16", "amx_tile"))
    fast = native and config.get_text_config().hidden_size >= WIDE
    return torch.bfloat16 if device.type == "cuda" or fast else torch.float32


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local folder or hub id. Raises UserError when there is none.

    Its `rows`: how many tokens the model has embeddings for. Added tokens may lie beyond, as Gemma 3's for images do in
    its model of text alone, or a padding token that somebody added: data.render.Renderer refuses texts that hold one.
    """
    _check_folder(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # whatever the library says to files that it cannot read
        raise UserError(f"cannot load a tokenizer from {path}: {one_line(error)}") from error
    tokenizer.rows = getattr(load_config(path).get_text_config(), "vocab_size", len(tokenizer))
    return tokenizer


def load_config(path: str) -> PretrainedConfig:
    """Load the transformers config of a local folder or hub id. Raises UserError when there is none."""
    _check_folder(path)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"cannot load a model from {path}: {one_line(error)}") from error


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
    trained: bool = True,
    longest: dict[str, int] | None = None,
) -> LogProbModel:
    """Load the model to train, sharded and filled: a LogProbModel in float32, computing in cfg.compute_dtype.

    With lora, only the adapters are float32 and trainable, and the frozen weights lie in the compute dtype; so do all
    weights of a model that is not to be trained. seed: of the adapters. longest: which rows are recomputed, as
    model.parallel.checkpointed has it. Raises UserError on every rank for a model that cannot be trained.
    """
    files = WeightFiles(cfg.path)
    dtype = resolve_dtype(cfg.compute_dtype, ranks.device, load_config(cfg.path))
    lm = build(cfg.path, files, torch.float32 if trained else dtype, NAME)
    if not trained:  # FSDP takes a layer with parameters of several dtypes, a router's float32, only if none is trained
        lm.requires_grad_(False)
    size = getattr(lm.config, "qk_head_dim", None) or getattr(lm.config, "head_dim", None)
    size = size or lm.config.hidden_size // lm.config.num_attention_heads
    lm.config.packed_backend = choose_backend(cfg.attention, ranks.device, dtype, size)
    # what cannot be saved after all training is mended or refused now
    _check_generation(lm.generation_config, cfg.path)
    # the token that ends a turn in training must end one in any server that reads the export, base models included
    listed = lm.generation_config.eos_token_id
    listed = listed if isinstance(listed, list) else [] if listed is None else [listed]
    if not all(isinstance(id, int) for id in listed):
        raise _bad_generation(cfg.path, f"eos_token_id is {listed}")
    lm.generation_config.eos_token_id = list(dict.fromkeys([Renderer(tokenizer).turn_end[-1], *listed]))
    check_vocabulary(lm, tokenizer, cfg.path)
    if asked := dropouts(lm.config):
        say(f"warning: {', '.join(asked)} in the config of {cfg.path} does nothing: models are trained without dropout")
    model = LogProbModel(lm, dtype)
    if lora and lora.rank:
        add_adapters(lm, lora, dtype)
    shard(model, parallel or ParallelConfig(), ranks, dtype, longest)
    fill(lm, files, seed, ranks.device)
    model.files = files  # the export compares with them
    model.eval()  # nothing in a language model but dropout asks whether it is being trained
    # on every rank or on none: the passes are collectives
    faults = ranks.gather(shown(cfg.path, lm, lambda: check_packing(model, lm, ranks.device, dtype, cfg.path)))
    reshard(model)
    if fault := next(filter(None, faults), None):
        raise UserError(fault)
    return model


def build(path: str, files: "WeightFiles", dtype: torch.dtype, attention: str) -> nn.Module:
    """Build the causal language model of a folder or hub id on the meta device. Raises UserError if it fails.

    dtype: of its weights. attention: the name of a function registered with transformers, which takes the place of
    the model's own.
    """
    lm = skeleton(load_config(path), path, dtype, attention)
    files.map(lm)
    if os.path.isfile(os.path.join(path, "generation_config.json")) or not os.path.isdir(path):
        lm.generation_config = _generation_config(path)
    return lm


def check_vocabulary(lm: nn.Module, tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Refuse a tokenizer with more tokens, but for added ones, than the model has embeddings for."""
    vocab = lm.get_input_embeddings().weight.shape[0]
    if any(id >= vocab and id not in tokenizer.added_tokens_decoder for id in tokenizer.get_vocab().values()):
        raise UserError(
            f"the tokenizer of {path} has {len(tokenizer)} tokens, the model's vocabulary only {vocab}: they do "
            f"not belong together"
        )


def _check_generation(config: GenerationConfig, path: str) -> None:
    """Make a generation config one that can be saved: sampling settings without do_sample mean sampling, and beside
    do_sample=false they mean nothing."""
    try:
        config.validate(strict=True)
    except ValueError:
        if config.do_sample is False:
            config.update(**dict.fromkeys(SAMPLING))
        else:
            config.do_sample = True
        try:
            config.validate(strict=True)
        except ValueError as error:
            raise _bad_generation(path, error) from None


def _generation_config(path):
    try:
        return GenerationConfig.from_pretrained(path)
    except Exception as error:  # whatever the library says to files that it cannot read
        if isinstance(error, OSError) and not os.path.isdir(path):  # a hub id without one
            return GenerationConfig()
        raise _bad_generation(path, error) from None


def _bad_generation(path, reason):
    return UserError(f"generation_config.json of {path} is not valid: {one_line(reason)}; correct or delete it")


def _check_folder(path):
    refuse_adapter(path)
    if not is_hub_id(path) and not (Path(path) / "config.json").is_file():
        what = "has no config.json" if os.path.isdir(path) else "does not exist"
        raise UserError(f"model folder {path} {what}; model.path takes a Hugging Face folder or a hub id, owner/name")


class WeightFiles:
    """The safetensors files of a model folder or hub id, by parameter name. Raises UserError if there are none.

    A hub id is downloaded into the local cache first.
    """

    def __init__(self, path: str):
        folder = path if Path(path).is_dir() else model_folder(path)
        if folder is None:
            raise UserError(f"no model folder {path}; model.path takes a Hugging Face folder or a hub id")
        self.path, self.folder = path, Path(folder)
        self.files = weight_files(folder, path)

    def digest(self) -> str:
        """Return sha256 over the files' contents, hex: changes when any weight changes."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(file.name.encode())
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()

    def open(self) -> dict:
        """Map {stored name: an open file that holds it}."""
        named = {}
        for file in self.files:
            try:
                handle = safe_open(file, framework="pt")
            except SafetensorError as error:
                raise UserError(f"{file} is damaged: {error}; copy or download it again") from None
            named |= dict.fromkeys(handle.keys(), handle)
        return named

    def map(self, lm: nn.Module) -> None:
        """Find where each tensor of a model (on the meta device) is stored; tie its embeddings as transformers does.

        Raises UserError for what is absent, and for a stored tensor of one of the model's modules that it has no place
        for: a scale, say, without which the weights mean something else.
        """
        self.named, self.stored, self.converters, strays = self.open(), {}, {}, []
        # the library's own names, and its rules for those that older or other checkpoints have
        tensors, rules = lm.state_dict(), get_model_conversion_mapping(lm)
        renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        converters = {p: rule for rule in rules if isinstance(rule, WeightConverter) for p in rule.source_patterns}
        for name in sorted(self.named, key=dot_natural_key):
            unique = list({id(rule): rule for rule in converters.values()}.values())
            target, pattern = rename_source_key(name, renamings, unique, lm.base_model_prefix, tensors)
            if target not in tensors and name in tensors:
                target, pattern = name, None
            if target not in tensors:
                strays.append(name)
                continue
            self.stored.setdefault(target, []).append(name)
            if pattern is not None:  # one of the tensors that others are made of, experts one by one, say
                rule, _ = self.converters.setdefault(target, (copy.deepcopy(converters[pattern]), target))
                rule.add_tensor(target, name, pattern, name)
                for made in rule.target_patterns[1:]:
                    made = target.replace(rule.target_patterns[0], made)
                    self.stored[made], self.converters[made] = [name], (rule, target)
        self._tie(lm)
        absent = [name for name in tensors if name not in self.stored]
        if absent:
            raise UserError(f"{self.path} holds no weight named {absent[0]}, which {type(lm).__name__} needs")
        modules = {name.rpartition(".")[0] for name in tensors}
        for name in strays:  # an adapter's lie deeper: q_proj.lora_A.default.weight
            parents = itertools.accumulate(name.split(".")[:-1], "{}.{}".format)
            if not modules.isdisjoint(parents):
                raise UserError(f"{self.path} holds {name}, for which {type(lm).__name__} has no place")
        if strays:
            say(
                f"warning: {self.path} holds {len(strays)} tensors that {type(lm).__name__} does not use: {strays[0]} …"
            )

    def _tie(self, lm):
        """Let the one of two tied weights that is stored stand for both; untie two that differ."""
        for target, source in list(lm.all_tied_weights_keys.items()):
            if target in self.stored and source in self.stored:
                a, b = (self.named[self.stored[name][0]].get_slice(self.stored[name][0]) for name in (target, source))
                rows = range(0, a.get_shape()[0], 4096)
                if a.get_shape() != b.get_shape() or any(
                    not torch.equal(a[i : i + 4096], b[i : i + 4096]) for i in rows
                ):
                    say(f"warning: {self.path} holds another {target} than {source}, which its config ties: untied")
                    del lm.all_tied_weights_keys[target]
                    lm.config.tie_word_embeddings = False
                    lm.lm_head.weight = nn.Parameter(torch.empty_like(lm.lm_head.weight))
            elif there := self.stored.get(target) or self.stored.get(source):
                self.stored[target] = self.stored[source] = there

    def rows(self, lm: nn.Module, name: str, shape: list[int], part: slice) -> torch.Tensor:
        """Read rows of a tensor of the model that `map` has seen. Raises UserError for another shape or dtype."""
        if name in self.converters:
            rule, first = copy.deepcopy(self.converters[name])
            for pattern, stored in rule.collected_tensors.items():
                rule.collected_tensors[pattern] = [self.named[part].get_tensor(part) for part in stored]
            whole = rule.convert(first, model=lm, config=lm.config)[name]
            whole = whole[0] if isinstance(whole, list) else whole
            found = list(whole.shape)
        else:
            whole = self.named[self.stored[name][0]].get_slice(self.stored[name][0])
            found = whole.get_shape()
        if found != list(shape):
            raise UserError(f"{self.path}: {name} has shape {found}, config.json asks for {list(shape)}")
        rows = whole[part] if found else self.named[self.stored[name][0]].get_tensor(self.stored[name][0])
        if rows.dtype not in FLOATS:
            dtype = str(rows.dtype).removeprefix("torch.")
            raise UserError(f"{self.path}: {name} is stored as {dtype}: quantised weights cannot be used here")
        return rows


def fill(lm: nn.Module, files: WeightFiles, seed: int, device: torch.device, at_random: bool = False) -> None:
    """Give every parameter of a sharded, empty model its values; adapters get their initial ones, drawn from `seed`.

    files: its WeightFiles, mapped. device: where buffers live. at_random: float32 files become a 16-bit model by
    rounding that is right on average (model/rounding.py). Raises UserError if a weight is not what it must be.
    """
    with torch.no_grad():
        fill_buffers(lm, files, device)
        for name, parameter in lm.named_parameters():
            # this rank's rows: drawn for an adapter, else read from the file that holds the weight
            rows, first = own_rows(parameter)
            part = slice(first, first + len(rows))
            if is_adapter(name):
                rows.copy_(initial_value(name, parameter.shape, seed)[part])
                continue
            value = files.rows(lm, plain_name(name), parameter.shape, part)
            if at_random and value.dtype == torch.float32 != rows.dtype:
                value = round_stochastically(value, rows.dtype, name)
            rows.copy_(value)


def stored_tensors(lm: nn.Module) -> dict[str, torch.Tensor]:
    """Return what is kept of a model: its parameters, tied ones once, and the buffers that belong to its weights."""
    kept = lm.state_dict().keys()
    return dict(lm.named_parameters()) | {name: buffer for name, buffer in lm.named_buffers() if name in kept}


def fill_buffers(lm: nn.Module, files: WeightFiles, device: torch.device) -> None:
    """Move buffers to the device where they are used, and fill them: from the files, or computed by the library."""
    kept = lm.state_dict().keys()
    for prefix, module in lm.named_modules():
        computed = []
        for name, buffer in module.named_buffers(prefix, recurse=False):
            module._buffers[name.rpartition(".")[2]] = buffer = torch.empty_like(buffer, device=device)
            if name in kept:
                buffer.copy_(files.rows(lm, name, buffer.shape, slice(None)))
            else:
                computed.append((name, buffer.fill_(math.nan) if buffer.is_floating_point() else buffer))
        if computed:
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = True  # the library leaves those alone; they are read from the files
            lm._init_weights(module)
        for name, buffer in computed:
            if not buffer.is_floating_point() or buffer.isnan().any():
                raise UserError(f"{files.path} ({type(lm).__name__}) has a buffer that nothing here fills: {name}")
