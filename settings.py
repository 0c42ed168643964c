"""Every key of the two training scripts but CogPO's loss: dataclasses alone, so that `--help` need not load torch."""

import importlib.util
from dataclasses import dataclass, field
from typing import Annotated, Literal

from errors import UserError
from values import Count, FilePath, Filled, MaybePath, NotNegative, Positive, PositiveShare, Seed, Share, Whole

Decay = Annotated[float, "at least 0", "below 1"]  # of a moving average


@dataclass
class ModelConfig:
    """The model to train."""

    path: FilePath
    """local folder in Hugging Face format, or hub id (e.g. Qwen/Qwen2.5-7B-Instruct)"""
    attention: Literal["auto", "flash", "varlen", "sdpa"] = "auto"
    """flash = the flash-attn package, varlen = torch's own packed kernel (both CUDA), sdpa = one call a segment, runs
    anywhere; auto takes the first that works here"""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """dtype of matrix products; master weights, gradients' reduction, log-probs and losses are always float32.
    auto: bfloat16 on CUDA and, for models at least 256 wide, on CPUs that multiply it natively (AVX512_BF16, AMX)"""
    export_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """dtype of the exported Hugging Face folder. The 16-bit ones round at random, so that what was learnt is kept on
    average; the log and run.json say what share"""


@dataclass
class DataConfig:
    """What to train on."""

    file: FilePath
    """sft.jsonl or pairs.jsonl, as build_crv.py writes them, in any form that data/rows.py opens; or of the hub:
    owner/name, owner/name:split, owner/name:configuration:split"""
    max_length: Count = 16384
    """longest sequence in tokens, prompt and response together"""
    overlength: Literal["drop", "error"] = "error"
    """a longer example (for pairs: the whole pair) is dropped and counted, or the run refuses; nothing is ever cut"""
    limit: Count | None = None
    """only the first N records of the file"""
    chat_template_kwargs: dict = field(default_factory=dict)
    """what the chat template is given besides the messages, e.g. {enable_thinking: false}; a record's own column of
    this name goes before it"""


@dataclass
class OptimConfig:
    """AdamW with linear warm-up, then cosine to zero."""

    lr: Positive
    """peak learning rate (Table 8: 1e-5 for SFT, 5e-7 for the preference stage)"""
    warmup: Share = 0.1
    """share of the steps with linear warm-up"""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """AdamW's moments"""
    weight_decay: NotNegative = 0.0
    """decoupled weight decay, of matrices only"""
    max_grad_norm: Annotated[float, "above 0"] = 1.0
    """gradients are scaled down to this global norm; .inf leaves them as they are"""


@dataclass
class BatchConfig:
    """How much goes into a step and into a row."""

    size: Count = 96
    """examples (SFT) or pairs (CogPO) per optimizer step, over all ranks (Table 8)"""
    max_tokens: Count = 32768
    """tokens packed into one row, the micro-batch of one rank"""


@dataclass
class ParallelConfig:
    """How the model is spread over the ranks, and what it saves memory with."""

    replicate: Count = 1
    """HSDP: N copies of the model, each sharded over count/N ranks (one copy a node keeps the gathering of weights
    inside the node). 1 shards over all ranks"""
    activation_checkpointing: Literal["auto", "none", "products", "selective", "full"] = "auto"
    """full recomputes each layer in the backward pass; products keeps what attention and matrix products gave and
    recomputes the rest; selective keeps attention's and every second product's output; auto takes for each row the
    first of none, products, selective, full that --plan's count fits into the GPU with, on a CPU none"""
    compile: bool = False
    """torch.compile each decoder layer; where that does not work (it needs a C++ compiler on CPU, Triton on CUDA), it
    is said and nothing is compiled"""
    offload: bool = False
    """keep parameters, gradients and optimizer state in CPU memory; AdamW then runs there, on as many threads as
    OMP_NUM_THREADS says, which torchrun sets to 1 (CUDA)"""


@dataclass
class LoraConfig:
    """Train low-rank adapters instead of all weights."""

    rank: Whole = 0
    """rank of the adapters; 0 trains all weights"""
    alpha: Positive = 32.0
    """their scale is alpha / rank"""
    targets: Annotated[list[Filled], "filled"] | Filled = "all-linear"
    """names of the linear layers that get one, e.g. [q_proj, v_proj]; all-linear: every one but the head"""


@dataclass
class HeldOutConfig:
    """Loss and margins on data that is not trained on."""

    file: MaybePath = ""
    """a file like data.file; empty for none"""
    every_steps: Count = 50
    """steps between two evaluations; one more follows the last step"""


@dataclass
class CheckpointConfig:
    """When to save, what to keep."""

    every_steps: Count = 50
    """optimizer steps between checkpoints; the last step always makes one"""
    keep: Count = 2
    """how many of the newest checkpoints stay during the run; the disk must hold one more. The export removes
    them all"""
    export_every_steps: Whole = 0
    """optimizer steps between exports of the model as it is then, to exports/step-NNNNNN, which all stay: a table over
    them shows what each amount of training is worth. The last step's is model/; 0: no others"""


@dataclass
class WatchConfig:
    """Where metrics go besides <out>/metrics.jsonl and <out>/tensorboard, which are always written."""

    wandb: str = ""
    """Weights & Biases project (needs `pip install wandb`; WANDB_MODE=offline works); empty: off"""

    trackio: str = ""
    """trackio project (needs `pip install trackio`; it keeps its files on this machine, `trackio show` opens them);
    empty: off"""

    def __post_init__(self):
        for name, project in vars(self).items():
            if project and importlib.util.find_spec(name) is None:  # said before anything is loaded
                raise UserError(
                    f"watch.{name} is set, but the package is missing: pip install {name}, or leave the key empty"
                )


@dataclass
class PlanConfig:
    """Only print what the run will need in memory and hours on this machine; nothing is trained. Words behind --plan,
    not saved with a run."""

    gpus: Annotated[Count, "at most 16384"] = 8
    """how many GPUs"""
    memory_gb: Positive = 80.0
    """memory of one, in GiB"""
    gpu: str = "A800"
    """its name, for its peak FLOP/s (model/metrics.py)"""
    utilization: PositiveShare = 0.45
    """share of the peak that is assumed to be reached, recomputation included"""
    examples: Annotated[Whole, "at most 10000000"] = 0
    """assume N examples (CogPO: problems with a triad each) while there is no data.file yet; 0: read it"""
    tokens: Annotated[Count, "at most 10000000"] = 4000
    """median length of the assumed sequences; log-normal with σ 0.7, none longer than data.max_length"""


@dataclass
class TrainConfig:
    """What both training scripts have in common."""

    out: FilePath
    """output folder: model/ (Hugging Face format), run.json (what it was made from, how much of the change was kept),
    metrics.jsonl, plots.png, tensorboard/, config.yaml, exports/ if asked for, and while running checkpoints/"""
    model: ModelConfig
    data: DataConfig
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-5))
    batch: BatchConfig = field(default_factory=BatchConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    heldout: HeldOutConfig = field(default_factory=HeldOutConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    epochs: Count = 3
    """passes over the data (Table 8: 3 of SFT, 1 of CogPO)"""
    seed: Seed = 0
    """order of the data, and LoRA's initial values"""
    plan: PlanConfig | None = None
