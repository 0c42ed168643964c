"""How well a chain of thought fits a student: how much it surprises, and how far down the student's list its words are.

    python -m model.fit model.path=out/student problems=problems.jsonl out=out/fit.jsonl
    torchrun --nproc_per_node 8 -m model.fit model.path=… problems=… out=…

Two numbers a chain, means over its T tokens t given the problem and the tokens before:

    NLL = −1/T Σ log p(t)            nats a token: what is said too tersely is hard to foresee
    RSR = Σ min(rank(t), 100) / Σ −log p(t)      rank 1: the student's first choice. Words that come as a surprise
                                                 although many others would have come first: detours, asides

RSR is the rank-surprisal ratio of arXiv 2601.14249. `out` holds a line a chain, found again by the content of weights
and tokens: a scoring that was killed goes on, and build_crv.py (critic_mode=student) reads what is there.
"""

import hashlib
import itertools
from collections.abc import Iterable
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data.packing import PackedBatch, Unit, plan_micro_batches
from data.records import numbered_records
from data.render import Renderer, Sequence, problem_messages
from data.rows import iter_rows
from errors import UserError
from model.cost import quadratic, shape_of
from model.load import WeightFiles, load_config, load_policy, load_tokenizer, warn_of_length
from model.logprobs import mm32, response_sums
from model.parallel import Ranks
from model.reference import SequenceValues, sequence_hash
from progress import Progress, say
from settings import ModelConfig
from values import Count, FilePath, Template

CLIP = 100  # ranks count as this at most, as in 2601.14249: beyond, a word is just unexpected
TOKENS = 256  # whose logits exist at a time: [256, V] in float32 is 156 MB for 152k words
WAVE = 64  # chains of each rank that are packed together

Text = tuple[list[dict], str]
"""The messages before a chain, and the chain."""


@dataclass(frozen=True)
class Fit:
    """tokens: of the chain. nll: nats a token. rsr: sum of its tokens' ranks over the sum of their surprisal."""

    tokens: int
    nll: float
    rsr: float


def ranks_of(h_ND: Tensor, weight_VD: Tensor, labels_N: Tensor) -> Tensor:
    """Compute the place of each label among the words, by falling logit, 1 for the first: int64 [N]."""
    found = []
    for h, labels in zip(h_ND.split(TOKENS), labels_N.split(TOKENS), strict=True):
        logits = mm32(h, weight_VD.T)  # rounded to bfloat16, the likeliest words would tie
        found.append(1 + (logits > logits.gather(-1, labels[:, None])).sum(-1))
    return torch.cat(found)


class Student:
    """A student that is asked how well chains fit it; under torchrun it is sharded, and all ranks ask together.

    path: file of the fits (`out`). max_tokens: packed into one row.
    """

    def __init__(self, cfg: ModelConfig, path: str | Path, max_tokens: int = 16384, ranks: Ranks | None = None):
        self.cfg, self.max_tokens, self.ranks = cfg, max_tokens, ranks or Ranks()
        self.tokenizer = load_tokenizer(cfg.path)
        self.renderer, self.config, self.model = Renderer(self.tokenizer), load_config(cfg.path), None
        self.weights = self.ranks.broadcast(WeightFiles(cfg.path).digest() if self.ranks.is_main else None)
        self.kept = SequenceValues(Path(path), self.ranks, Fit.__dataclass_fields__)

    def all_fits(self, texts: Iterable[Text], total: int) -> list[Fit]:
        """Return the fit of each of `total` texts, which are read as they are needed; shows how far it is."""
        found, texts, wave = [], iter(texts), WAVE * self.ranks.count
        with Progress(total, "fit", unit="chains") as bar:
            while chunk := list(itertools.islice(texts, wave)):
                found += self.fits(chunk)
                bar.update(len(chunk))
        return found

    def fits(self, texts: Several[Text]) -> list[Fit]:
        """Return the fit of each text, computed or read from the file. Raises UserError for a chain without a token."""
        sequences = self._sequences(texts)
        keys = [self._key(sequence) for sequence in sequences]
        new = {key: sequence for key, sequence in zip(keys, sequences, strict=True) if key not in self.kept.known}
        if new:
            self._compute(new)
        return [Fit(**self.kept.known[key]) for key in keys]

    def _sequences(self, texts):
        """Tokenize the chains behind their prompts, without what ends the assistant's turn."""
        closing, found = len(self.renderer.turn_end), self.renderer.sequences(list(texts))
        found = [Sequence(s.ids[: len(s) - closing], s.prompt_len) for s in found]
        if empty := [chain for (_, chain), s in zip(texts, found, strict=True) if len(s) <= s.prompt_len]:
            raise UserError(f"a chain without a token cannot be scored: {empty[0]!r}")
        return found

    def _key(self, sequence):
        return hashlib.sha256(f"{self.weights}/{sequence_hash(sequence)}".encode()).hexdigest()[:20]

    def _compute(self, new: dict[str, Sequence]) -> None:
        """Run sequences through the model, on every rank its share, and keep what came out."""
        if self.model is None:
            self.model = load_policy(self.cfg, self.ranks, self.tokenizer, trained=False)
            warn_of_length(self.cfg, self.config, max(map(len, new.values())))
            _answer_with_ranks(self.model)

        # rows of like cost, as many on every rank: the forward pass of a sharded model is a collective
        sequences, keys = list(new.values()), list(new)
        units, lengths = [Unit(seqs=(i,)) for i in range(len(keys))], [len(s) for s in sequences]
        cost = quadratic(shape_of(self.config))
        plan = plan_micro_batches([*range(len(keys))], units, lengths, self.max_tokens, self.ranks.count, cost)
        for _ in self.kept.compute(self.model, sequences, keys, plan[self.ranks.rank], _values):
            pass


def _values(answer: tuple[Tensor, Tensor], batch: PackedBatch) -> list[dict]:
    """Sum what a model says of tokens up to one Fit a chain, as a dict."""
    logps_N, ranks_N = answer
    surprisals = (-response_sums(logps_N, batch)).tolist()
    ranks = response_sums(ranks_N.clamp(max=CLIP).float(), batch).tolist()
    found = zip(batch.response_lens, surprisals, ranks, strict=True)
    return [vars(Fit(tokens, surprisal / tokens, rank / max(surprisal, 1e-6))) for tokens, surprisal, rank in found]


def _answer_with_ranks(model):
    """Have the model's head answer with (log-probs, ranks): called as a module, so that FSDP gathers its weight."""
    head, logps = model.lm.lm_head, model.lm.lm_head.forward
    head.forward = lambda h_ND, labels_N: (logps(h_ND, labels_N), ranks_of(h_ND, head.weight, labels_N))


@dataclass
class Config:
    model: ModelConfig
    """The student."""
    problems: FilePath
    """JSON Lines of problems, as build_crv.py reads them: their `reasoning` is scored."""
    out: FilePath
    """File of the fits; those that are there already are not computed again."""
    max_tokens: Count = 16384
    """Tokens packed into one row."""
    system: str = ""
    """System prompt before the problem, as in build_crv.py."""
    instruction: Template | dict[str, Template] = "{problem}"
    """User turn around {problem}, as in build_crv.py."""
    limit: Count | None = None
    """Only the first N problems."""


def main(cfg: Config) -> None:
    """Score all chains of a file, and say how they are spread."""
    total = sum(1 for _ in itertools.islice(numbered_records(cfg.problems, "problem"), cfg.limit))  # all are checked
    rows = itertools.islice((row for _, row in iter_rows(cfg.problems)), total)
    student = Student(cfg.model, cfg.out, cfg.max_tokens)
    texts = ((problem_messages(row, cfg.system, cfg.instruction), row["reasoning"]) for row in rows)
    fits = student.all_fits(texts, total)
    for name in ("nll", "rsr", "tokens"):
        values = torch.tensor([getattr(fit, name) for fit in fits], dtype=torch.float64)
        shown = ", ".join(f"{v:.2f}" for v in values.quantile(torch.tensor([0.1, 1 / 3, 0.5, 2 / 3, 0.9]).double()))
        say(f"{name}: {shown} (quantiles 0.1, 1/3, 0.5, 2/3, 0.9 of {len(fits)} chains)")
    student.ranks.close()


if __name__ == "__main__":
    from config import run_cli

    run_cli(main, Config, __doc__)
