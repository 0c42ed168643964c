"""Values of sequences under a model that is not trained: computed once, kept on disk. Of these, reference log-probs.

The reference (log π_ref in Eq. 1) is the model before any step of this stage. Its values are made by the policy's own
forward pass, in the micro-batches of the first epoch's plan: the same kernels, dtype and shapes, so before the first
update policy and reference are equal to the last bit.

On disk: <folder>/<key>.jsonl, a log-prob for each sequence hash. The key is made from the content of the
weights, the compute dtype, the kernels and the code that computes; the sequence hash from the token ids (which the chat
template went into) and the prompt length. So a changed weight file, template or token is a miss, and a β sweep is not.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable, Collection, Iterator
from importlib.metadata import distributions
from pathlib import Path

import torch
import transformers

from data import packing
from data.ledger import SharedLedger
from data.packing import PackedBatch, pack
from data.render import Sequence
from errors import UserError
from model import attention, load, logprobs, parallel
from model.logprobs import LogProbModel, response_sums
from model.parallel import Ranks, reshard
from progress import Progress, say


def cache_key(weights: str, model: LogProbModel, device: torch.device) -> str:
    """Name the cache file of a model: a short hex string. weights: model.load.WeightFiles.digest().

    It changes with everything that the values depend on besides the tokens, down to their rounding: the weights, the
    dtype, the kernels (backend and its package, torch.compile, the processor, versions of torch and transformers), and
    the code that computes them.
    """
    kernels = (model.lm.config.packed_backend, str(model.compiled), torch.__version__, transformers.__version__)
    parts = [weights, str(model.dtype), *kernels]
    on_cuda = device.type == "cuda"
    parts.append(torch.cuda.get_device_name(device) if on_cuda else torch.backends.cpu.get_cpu_capability())
    parts += [found.version for name in ("flash-attn", "flash-attn-3") for found in distributions(name=name)]
    parts += [
        inspect.getsource(module) for module in (packing, attention, load, logprobs, parallel, sys.modules[__name__])
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


def sequence_hash(sequence: Sequence) -> str:
    """Hash what a response's log-prob depends on: all token ids (the chat template is in them), and where it begins."""
    digest = hashlib.blake2b(sequence.ids.tobytes(), digest_size=16)
    digest.update(str(sequence.prompt_len).encode())
    return digest.hexdigest()


class SequenceValues:
    """What a model says of sequences, {key: {name: number}}: in a file that rank 0 reads and writes, known to all."""

    def __init__(self, path: Path, ranks: Ranks, names: Collection[str]):
        """Read what is there; a record without one of `names` is none. Raises UserError on rank 0 for a damaged file,
        and for one that cannot be written."""
        self.path, self.ranks, self.ledger, known = path, ranks, None, {}
        if ranks.is_main:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab"):
                    self.ledger = SharedLedger(path)
            except OSError as error:
                raise UserError(f"cannot write {path}: {error.strerror}") from None
            kept = ({name: record.get(name) for name in ("key", *names)} for record in self.ledger)
            known = {record.pop("key"): record for record in kept if None not in record.values()}
        self.known = ranks.broadcast(known)

    def compute(
        self,
        model: LogProbModel,
        sequences: list[Sequence],
        keys: list[str],
        micro_batches: list[list[int]],
        values: Callable[[object, PackedBatch], list[dict]],
    ) -> Iterator[None]:
        """Compute what is not known of `sequences`; yields after each micro-batch, when its values are on disk.

        micro_batches: this rank's lists of sequence indices, as many as on every other rank. values: (what the model
        answers, the batch) -> the values of each sequence of it.
        """
        # a micro-batch is run where a rank misses one of its values, on every rank alike: the pass is a collective
        unknown = self.ranks.gather([any(keys[i] not in self.known for i in micro) for micro in micro_batches])
        for micro, wanted in zip(micro_batches, zip(*unknown, strict=True), strict=True):
            if any(wanted):
                batch = pack([sequences[i] for i in micro or [0]]).to(self.ranks.device)
                with model.without_backward():
                    found = values(model(batch), batch)
                new = {keys[i]: value for i, value in zip(micro, found, strict=False)}  # an empty one ran for others
                for key, value in ((k, v) for on_rank in self.ranks.gather(new) for k, v in on_rank.items()):
                    if self.known.setdefault(key, value) is value and self.ranks.is_main:
                        self.ledger.append({"key": key, **value})
            yield
        reshard(model)


def reference_logps(
    model: LogProbModel, sequences: list[Sequence], micro_batches: list[list[int]], path: Path, ranks: Ranks
) -> torch.Tensor:
    """Compute, or read, the summed response log-probs under `model`: float32 [R] on the CPU, R = len(sequences).

    model: a LogProbModel that has not been trained. micro_batches: this rank's lists of sequence indices, as many as on
    every other rank; together they cover all sequences. path: the cache file of this model.
    """

    def logps(logps_N, batch):
        return [{"logp": value} for value in response_sums(logps_N, batch).tolist()]

    kept, keys = SequenceValues(path, ranks, ["logp"]), [sequence_hash(s) for s in sequences]
    if kept.known.keys() >= set(keys):
        say(f"reference log-probs: all {len(sequences)} read from {path}")
    else:
        with Progress(len(micro_batches), "reference", unit="batch") as bar:
            for _ in kept.compute(model, sequences, keys, micro_batches, logps):
                bar.update()
    return torch.tensor([kept.known[key]["logp"] for key in keys], dtype=torch.float32)
