"""Tokens a second of the two training scripts on 1, 2, 4 and 8 ranks.

    python -m bench.ranks                                        a tiny random model
    python -m bench.ranks --shape 135m --length 384 --problems 8

On CUDA machines every rank has a GPU of its own. On a CPU the ranks are gloo processes of one thread: beyond the number
of cores the table shows what sharding and collectives cost, not a speed-up.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch

from bench.common import environment_line, python, run, table
from bench.workload import SHAPES, chains, make_model, triads, write


def measure(script, model, file, examples, max_tokens, ranks, steps, folder):
    """Median tokens a second of the steps after the first, a step being all examples of the file."""
    out = Path(folder) / f"{script}-{ranks}"
    words = [
        f"{script}.py", f"model.path={model}", f"data.file={file}", "data.max_length=1000000", f"out={out}",
        f"batch.size={examples}", f"batch.max_tokens={max_tokens}", f"epochs={steps + 1}", "optim.lr=1e-5",
    ]  # fmt: skip
    if script == "train_cogpo":
        words.append(f"reference_cache={out}/reference")
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", ranks, "--rdzv_backend", "c10d"]
    done = run(python(*[*launch, "--rdzv_endpoint", "localhost:0"] * (ranks > 1), *words), threads=1)
    if done.status:
        raise SystemExit(f"{script} on {ranks} ranks failed:\n{done.tail}")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(row["tokens_per_second"] for row in rows[1:])


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--length", type=int, default=512, help="longest sequence, tokens")
    parser.add_argument("--problems", type=int, default=32, help="problems a step, three responses each")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed, after the first")
    args = parser.parse_args(argv)
    print(environment_line(), flush=True)
    most = torch.cuda.device_count() if torch.cuda.is_available() else max(args.ranks)
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(f"{folder}/model", args.shape)
        pairs = triads(args.problems, args.length)
        examples = chains(pairs)
        files = {
            "train_sft": (write(f"{folder}/sft.jsonl", examples), len(examples)),
            "train_cogpo": (write(f"{folder}/pairs.jsonl", pairs), len(pairs)),
        }
        rows = []
        for ranks in (n for n in args.ranks if n <= most):
            row = {"ranks": ranks}
            for script, (file, count) in files.items():
                row[f"{script}, tokens/s"] = measure(
                    script, model, file, count, 2 * args.length, ranks, args.steps, folder
                )
            rows.append(row)
    for script in files:
        for row in rows:
            row[f"{script}, of one rank"] = row[f"{script}, tokens/s"] / rows[0][f"{script}, tokens/s"]
    print(f"\n{args.shape}, chains of up to {args.length} tokens\n\n{table(rows)}")


if __name__ == "__main__":
    main()
