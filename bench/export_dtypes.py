"""What a dtype leaves of a preference stage: margins as trained, and after the weights were rounded to 16 bits.

    python -m bench.export_dtypes --start out/pocket/crv_sft/model --trained out/pocket/cogpo/model \\
        --pairs out/pocket/crv/pairs.jsonl --limit 36

A margin is β (Δ_w − Δ_l), CogPO's, in nats, the mean over the pairs of a gap; Δ is against the start as it is, and
against the start as a server with the same dtype has it. "nearest" is what a server does to weights that it loads,
"random" what model.export_dtype does. kept: the share of the trained change that the weights hold (model/rounding.py).
"""

import argparse

import torch

from data.dataset import load_pairs
from data.packing import pack
from data.records import GAPS
from data.render import Renderer
from errors import UserError
from losses.cogpo import cogpo_loss
from model.load import load_policy, load_tokenizer
from model.logprobs import response_sums
from model.parallel import Ranks
from model.rounding import Kept, round_stochastically
from settings import DataConfig, ModelConfig

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def main(start: str, trained: str, pairs: str, limit: int | None, max_length: int) -> None:
    """Print the table. start, trained: model folders. pairs: pairs.jsonl, of which the first `limit` are read."""
    ranks, tokenizer = Ranks(), load_tokenizer(trained)
    examples = load_pairs(DataConfig(pairs, max_length, limit=limit), Renderer(tokenizer), True)
    indices = torch.tensor([(p.chosen, p.rejected, p.gap) for unit in examples.units for p in unit.pairs])
    chosen, rejected, gap = indices.unbind(1)
    model = {}
    for name, folder in (("start", start), ("trained", trained)):
        model[name] = load_policy(ModelConfig(folder, compute_dtype="float32"), ranks, tokenizer)
    weights = {name: dict(m.lm.named_parameters()) for name, m in model.items()}

    @torch.no_grad()
    def logps(which, change):
        """Log-probs of all responses under one of the models, its weights changed: float32 [R]."""
        kept_as_they_are = {name: value.clone() for name, value in weights[which].items()}
        for name, value in weights[which].items():
            value.copy_(change(name, value))
        sums = [response_sums(model[which](batch), batch) for batch in (pack([s]) for s in examples.sequences)]
        for name, value in kept_as_they_are.items():
            weights[which][name].copy_(value)
        return torch.cat(sums)

    @torch.no_grad()
    def kept(change):
        """The share of the change that is kept, and the share of the weights that differ from the start's."""
        share, moved, count = Kept(), 0, 0
        for name, value in weights["trained"].items():
            before, after = weights["start"][name], change(name, value)
            share.add(name, before, value, after)
            moved, count = moved + (after != change(name, before)).sum().item(), count + value.numel()
        return share.summary()["kept"], moved / count

    def margins(policy, reference):
        """Three means over the pairs of a gap, nats."""
        found = cogpo_loss(policy, reference, chosen, rejected, gap).margin
        return " ".join(f"{found[gap == i].mean():7.3f}" for i in range(len(GAPS)))

    as_it_is = logps("start", lambda name, value: value)
    print(
        f"{len(gap)} pairs; margins {' / '.join(GAPS)}; against the start: as it is | in the same dtype | kept | moved"
    )
    rows = {"as trained": lambda name, value: value}
    for name, dtype in DTYPES.items():
        rows[f"{name} nearest"] = lambda name, value, dtype=dtype: value.to(dtype).float()
        rows[f"{name} random"] = lambda name, value, dtype=dtype: round_stochastically(value, dtype, name).float()
    for label, change in rows.items():
        policy, alike = logps("trained", change), as_it_is if label == "as trained" else logps("start", change)
        share, moved = kept(change)
        print(
            f"{label:17} {margins(policy, as_it_is)} | {margins(policy, alike)} | {share:5.3f} | {moved:6.1%}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for word, text in (("start", "model before the stage"), ("trained", "model after it"), ("pairs", "pairs.jsonl")):
        parser.add_argument(f"--{word}", required=True, help=text)
    parser.add_argument("--limit", type=int, help="first N pairs")
    parser.add_argument("--max-length", type=int, default=16384)
    try:
        main(**vars(parser.parse_args()))
    except UserError as error:
        parser.error(str(error))
