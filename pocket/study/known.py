"""What the study's student thinks of each kind of chain before the preference stage: the median of log π_ref, in nats.

    python -m pocket.study.known --config configs/pocket/study/micro.yaml

This reads the reference log-probs that the study's CogPO runs left. easy, med and hard are original chains by the
Critic's first verdict, easy* and hard* their verified rewrites, ~easy, ~med and ~hard the incorrect ones.
"""

import statistics
from collections import defaultdict
from pathlib import Path

from config import run_cli
from data.ledger import Ledger
from data.records import read_records
from data.render import Renderer
from errors import UserError
from evals.tables import markdown_rows
from pocket.study.design import Replicate, StudyConfig

KINDS = ("easy*", "hard*", "med", "easy", "hard", "~med", "~easy", "~hard")


def main(cfg: StudyConfig) -> None:
    """Print a line a kind of chain: the median, and of how many chains. Raises UserError if a run has not ended."""
    from model.load import load_tokenizer  # here, so that --help answers at once
    from model.reference import sequence_hash

    renderer, logps = Renderer(load_tokenizer(cfg.student)), defaultdict(list)
    for mixture in cfg.mixtures:
        for seed in cfg.seeds:
            replicate, known = Replicate(cfg, mixture, seed), {}
            if not Path(replicate.model("cogpo")).exists():  # a run that ended has every reference log-prob
                where = replicate.output("cogpo")
                raise UserError(f"{where} has not ended; run pocket.study.study with this config first")
            for path in Path(replicate.output("reference")).iterdir():
                known |= {record["key"]: record["logp"] for record in Ledger(path)}

            # a response's log-prob is found by a hash of its tokens
            chains = chains_of(replicate.records("pairs"))
            for (_, kind), sequence in zip(chains, renderer.sequences(list(chains.values())), strict=True):
                logps[mixture, kind].append(known[sequence_hash(sequence)])
    rows = [[kind, *(_shown(logps[mixture, kind]) for mixture in cfg.mixtures)] for kind in KINDS]
    print("\n".join(markdown_rows([["", *cfg.mixtures], *rows])))


def chains_of(pairs: str) -> dict[tuple[str, str], tuple[list[dict], str]]:
    """Read {(problem id, kind): (prompt, response)} from a pairs file, each response once."""
    chains = {}
    for row in read_records(pairs, "pair"):
        for kind, side in zip(row["origin"].split(">"), ("chosen", "rejected"), strict=True):
            chains[row["problem_id"], kind] = row["prompt"], row[side][0]["content"]
    return chains


def _shown(values):
    return f"{statistics.median(values):.1f} ({len(values)})" if values else "–"


if __name__ == "__main__":
    run_cli(main, StudyConfig, __doc__)
