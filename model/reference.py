"""Reference log-probs (log π_ref in Eq. 1): computed once per unique response, kept on disk, re-used by every run.

The reference is the model before any step of this stage. Its values are made by the policy's own forward pass, in the
micro-batches of the first epoch's plan: the same kernels, dtype and shapes, so before the first update policy and
reference are equal to the last bit.

On disk: <folder>/<key>/rank-<n>.jsonl with lines [sequence hash, log-prob]. The key is made from the content of the
weights, the compute dtype, the kernels and the code that computes; the sequence hash from the token ids (which the chat
template went into) and the prompt length. So a changed weight file, template or token is a miss, and a β sweep is not.
"""

import contextlib
import hashlib
import inspect
import json
import sys
from pathlib import Path

import torch
import transformers

from data import packing
from data.packing import pack
from data.render import Sequence
from model import attention, load, logprobs, parallel
from model.logprobs import LogProbModel, response_sums
from model.parallel import Ranks, reshard
from progress import Progress, say


def cache_key(weights: str, compute_dtype: torch.dtype, backend: str) -> str:
    """Name the cache folder of a model: a short hex string. weights: model.load.WeightFiles.digest().

    It changes with everything that the values depend on besides the tokens: the weights, the dtype, the kernels
    (backend, versions of torch and transformers), and the code that computes them.
    """
    parts = [weights, str(compute_dtype), backend, torch.__version__, transformers.__version__]
    parts += [
        inspect.getsource(module) for module in (packing, attention, load, logprobs, parallel, sys.modules[__name__])
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


def sequence_hash(sequence: Sequence) -> str:
    """Hash what a response's log-prob depends on: all token ids (the chat template is in them), and where it begins."""
    digest = hashlib.blake2b(sequence.ids.tobytes(), digest_size=16)
    digest.update(str(sequence.prompt_len).encode())
    return digest.hexdigest()


def reference_logps(
    model: LogProbModel, sequences: list[Sequence], micro_batches: list[list[int]], folder: Path, ranks: Ranks
) -> torch.Tensor:
    """Compute, or read, the summed response log-probs under `model`: float32 [R] on the CPU, R = len(sequences).

    model: a LogProbModel that has not been trained. micro_batches: this rank's lists of sequence indices, as many as on
    every other rank; together they cover all sequences. folder: the cache folder of this model.
    """
    # what is known already; a micro-batch is run again if a rank misses one of its values
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    hashes = [sequence_hash(s) for s in sequences]
    known = read_cache(folder)
    ranks.barrier()  # nobody appends while another rank still reads, or ranks would disagree about what is missing
    done = ranks.gather([all(hashes[i] in known for i in micro) for micro in micro_batches])
    todo = [n for n, on_rank in enumerate(zip(*done, strict=True)) if not all(on_rank)]
    if not todo:
        say(f"reference log-probs: all {len(sequences)} read from {folder}")
    # every value is on disk as soon as it is known: a pass that is killed loses one micro-batch
    path = folder / f"rank-{ranks.rank}.jsonl"
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    new = {}
    with path.open("a") as file, Progress(len(todo), "reference", unit="batch") as bar:
        file.write("\n" if torn else "")
        for n in todo:  # on every rank alike: the forward pass is a collective
            micro = micro_batches[n] or [0]
            batch = pack([sequences[i] for i in micro]).to(ranks.device)
            with torch.no_grad():
                sums = response_sums(model(batch), batch).tolist()
            for i, value in zip(micro, sums, strict=True):
                file.write(json.dumps([hashes[i], value]) + "\n")
                new.setdefault(hashes[i], value)
            file.flush()
            bar.update()
    reshard(model)
    # what each rank has of its own micro-batches: not read again from the folder, which may be one of each machine
    mine = {hashes[i]: known[hashes[i]] for micro in micro_batches for i in micro if hashes[i] in known}
    for on_rank in ranks.gather(mine | new):
        known = on_rank | known
    return torch.tensor([known[h] for h in hashes], dtype=torch.float32)


def read_cache(folder: Path) -> dict[str, float]:
    """Read {sequence hash: log-prob}; a line torn by a kill, or damaged, is left out. The first of a hash counts."""
    known = {}
    for path in sorted(folder.glob("rank-*.jsonl"), key=lambda path: int(path.stem[5:])):
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError):
                key, value = json.loads(line)
                known.setdefault(key, float(value))
    return known
