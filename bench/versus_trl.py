"""CogPO and SFT here against TRL's DPOTrainer and SFTTrainer: speed and memory on the same records.

    python -m bench.versus_trl cogpo                                   all cases of this machine (CPU, or one GPU)
    python -m bench.versus_trl sft --cases 135m:384 1.5b:4096          model shape : longest sequence

Models are random, in published shapes, and records random digits with the lengths of real chains: speed and memory
depend on nothing else. A step is all records of the case, so both sides must report the same losses step by step, or
the comparison is void. cogpo: ours has three equal betas of 0.1, which is DPO at β = 0.1; TRL gets its reference
log-probs precomputed (its `padding_free` is ignored by version 1.16). sft: TRL packs with `bfd`, which keeps examples
apart as ours does.
"""

import argparse
import itertools
import json
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config
from transformers.utils import is_flash_attn_2_available

from bench.harness import environment_line, run, table
from data.pairs import make_pairs
from data.records import write_jsonl

LR = 1e-5
CUDA = torch.cuda.is_available()
CASES = [f"{s}:{n}" for s in ("1.5b", "7b") for n in (2048, 4096, 8192, 16384)] if CUDA else ["tiny:1024", "135m:384"]
# layers, hidden, MLP, query heads, key/value heads, vocabulary, tied: SmolLM2-135M, Qwen2.5-1.5B, Qwen2.5-7B
SHAPES = {
    "tiny": (Qwen2Config, 4, 256, 704, 4, 2, 8192, True),
    "135m": (LlamaConfig, 30, 576, 1536, 9, 3, 49152, True),
    "1.5b": (Qwen2Config, 28, 1536, 8960, 12, 2, 151936, True),
    "7b": (Qwen2Config, 28, 3584, 18944, 28, 4, 152064, False),
}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_model(folder: str, shape: str) -> None:
    """Save a random model of a shape of SHAPES (bfloat16 weights) into `folder`, with a tokenizer of bytes."""
    alphabet, turns = sorted(pre_tokenizers.ByteLevel.alphabet()), ["<|im_start|>", "<|im_end|>"]
    raw = Tokenizer(models.BPE(vocab={byte: n for n, byte in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=turns[1], pad_token=turns[1], extra_special_tokens=turns, chat_template=CHATML
    )
    family, layers, hidden, mlp, heads, kv_heads, vocabulary, tied = SHAPES[shape]
    config = family(
        num_hidden_layers=layers, hidden_size=hidden, intermediate_size=mlp, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=vocabulary, tie_word_embeddings=tied, max_position_embeddings=32768,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if CUDA else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def triads(problems: int, max_length: int, seed: int = 0) -> list[dict]:
    """Draw pair records of `problems` problems: three pairs over three responses each, at most `max_length` tokens."""
    rng = np.random.default_rng(seed)

    def digits(n):
        return "".join(map(str, rng.integers(0, 10, n)))

    rows = []
    for i in range(problems):
        # the suitable chain's length lies under the cap as the R1 distillations' do; an easy original is about half as
        # long, a hard one about twice, the corrupted one nearly as long; 128 tokens are left for prompt and template
        level = ("easy", "hard")[i % 2]
        suitable = 0.28 * max_length * rng.lognormal(0, 0.6)
        original = suitable * (rng.uniform(0.35, 0.65) if level == "easy" else rng.uniform(1.4, 2.2))
        lengths = np.clip([suitable, original, original * rng.uniform(0.9, 1.1)], 16, max_length - 128).astype(int)
        rewritten, reasoning, corrupted = map(digits, lengths)
        prompt = [{"role": "user", "content": digits(48)}]
        rows += make_pairs(f"p{i}", prompt, level, reasoning, corrupted, rewritten=rewritten)
    return rows


def chains(rows: list[dict]) -> list[dict]:
    """Turn pair records into SFT records: every response once, as an example of its own."""
    seen = {}
    for row in rows:
        for side in ("chosen", "rejected"):
            seen.setdefault((row["problem_id"], row[side][0]["content"]), row["prompt"] + row[side])
    return [{"id": f"s{i}", "messages": messages} for i, messages in enumerate(seen.values())]


def our_settings(kind: str, model: str, file: str, length: int, records: int, steps: int) -> Iterator[tuple[str, dict]]:
    """Yield our settings worth trying, in words and for bench/trainer_side.py: rows of few or many tokens, with and
    without recomputation."""
    budgets = {"cogpo": [2 * length] if CUDA else [1, 4096], "sft": [length, (4 if CUDA else 2) * length]}[kind]
    modes = itertools.product([False, True] if CUDA else [False], ["none", "selective", "full"], budgets)
    for compiled, recompute, budget in modes:
        words = [
            f"model.path={model}", f"data.file={file}", f"data.max_length={length}", f"batch.size={records}",
            f"batch.max_tokens={budget}", f"parallel.activation_checkpointing={recompute}",
            f"parallel.compile={compiled}", f"optim.lr={LR}", "optim.warmup=0",
        ]  # fmt: skip
        words += ["loss.name=cogpo", "loss.betas=[0.1, 0.1, 0.1]"] if kind == "cogpo" else []
        settings = "a problem a row" if budget == 1 else f"rows of {budget} tokens"
        settings += f", {recompute} recomputation" * (recompute != "none") + ", compiled" * compiled
        yield settings, {"side": "ours", "kind": kind, "words": words, "steps": steps}


def trl_settings(kind: str, model: str, file: str, length: int, records: int, steps: int) -> Iterator[tuple[str, dict]]:
    """Yield TRL's settings worth trying: batch or row sizes, orders and checkpointing; on CUDA with Liger's kernels."""
    scales = (1, 4) if CUDA else (1, 2)
    if kind == "cogpo":
        common = {"beta": 0.1, "max_length": None, "precompute_ref_log_probs": True}
        sizes = [n for n in scales if records % n == 0]
        tries = {f"{n} pairs a batch": {"per_device_train_batch_size": n, "gradient_accumulation_steps": records // n}
                 for n in sizes}  # fmt: skip
        name, largest = list(tries.items())[-1]
        by_length = {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
        tries[f"{name}, by length"] = largest | by_length
    else:
        # accumulate without end: a step ends with the epoch
        common = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 10**6, "packing": True}
        tries = {f"bfd, rows of {n * length} tokens": {"packing_strategy": "bfd", "max_length": n * length}
                 for n in scales}  # fmt: skip
    common |= {"num_train_epochs": steps, "learning_rate": LR, "use_liger_kernel": CUDA}
    attention = {"attn_implementation": "flash_attention_2" if CUDA and is_flash_attn_2_available() else "sdpa"}
    for (settings, args), recompute in itertools.product(tries.items(), [False, True]):
        args = common | args | {"gradient_checkpointing": recompute}
        spec = {"side": "TRL", "kind": kind, "model": model, "file": file, "args": args, "model_args": attention}
        yield settings + ", checkpointing" * recompute, spec


def measure(settings: str, spec: dict) -> dict | None:
    """Run one side once. Returns its report, or None if it failed (out of memory, say), which is told on stderr."""
    found, tail = run("-m", "bench.trainer_side", json.dumps(spec))
    said = f"steps of {' '.join(f'{s:.1f}' for s in found['seconds'])} s" if found else f"failed: {tail}"
    print(f"{spec['side']} ({settings}): {'out of memory' if 'OutOfMemory' in tail else said}", file=sys.stderr)
    return found


def agree(losses: dict[str, list[float]]) -> None:
    """Stop unless all settings report the same losses, and losses that moved."""
    tolerance, drift = (2e-2, 0.1) if CUDA else (1e-3, 0.0)  # in bfloat16 kernels drift apart as training goes on
    want = next(iter(losses.values()), [])
    for settings, got in losses.items():
        near = [abs(a - b) <= tolerance + drift * abs(b - want[0]) for a, b in zip(got, want, strict=False)]
        if len(got) != len(want) or not all(near):
            raise SystemExit(f"void: {settings} reports losses {got}, not {want}")
    if want and abs(want[-1] - want[0]) < 3 * tolerance:
        raise SystemExit(f"void: the losses {want} do not move, so that they agree says nothing")


def summary(case: str, found: dict[tuple[str, str], list[dict]], items: int, unit: str) -> tuple[list[dict], dict]:
    """Return (table rows, {what: ours / TRL}); no ratios if one side never ran. found: {(side, settings): reports}.

    items: how many records, a `unit` each, a step holds. Rates are medians over all runs and all steps but the first.
    """
    rows = []
    for (side, settings), reports in found.items():
        wall, cpu = ([s for r in reports for s in r[clock]] for clock in ("seconds", "cpu_seconds"))
        rows.append({
            "case": case, "trainer": side, "settings": settings, f"{unit}s/s": items / statistics.median(wall),
            f"{unit}s/CPU-s": items / statistics.median(cpu),
            "memory, GB": statistics.median(r["memory"] for r in reports) / 1e9, "runs": len(reports), "": "",
        })  # fmt: skip
    # the fastest and the leanest settings of each side are compared
    best, measures = {}, list(rows[0])[3:6] if rows else ()
    for side in {row["trainer"] for row in rows}:
        of_side = [row for row in rows if row["trainer"] == side]
        best[side] = max(of_side, key=lambda row: row[measures[0]]), min(of_side, key=lambda row: row["memory, GB"])
        for row, mark in zip(best[side], ("fastest", "leanest"), strict=True):
            row[""] += ", " * bool(row[""]) + mark
    if len(best) < 2:
        return rows, {}
    (fast, lean), (their_fast, their_lean) = best["ours"], best["TRL"]
    ratios = {name: fast[name] / their_fast[name] for name in measures}
    return rows, ratios | {"memory, GB, leanest settings": lean["memory, GB"] / their_lean["memory, GB"]}


def read_case(text: str) -> str:
    """Refuse a case of the command line that is none."""
    shape, _, length = text.partition(":")
    if shape not in SHAPES or not re.fullmatch("[0-9]+", length) or int(length) < 144:  # 128 are left for the prompt
        raise argparse.ArgumentTypeError(f"{text!r} is not {'|'.join(SHAPES)}:LENGTH, at least 144, e.g. tiny:1024")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["cogpo", "sft"])
    parser.add_argument("--cases", nargs="+", type=read_case, default=CASES, metavar="SHAPE:LENGTH", help="see SHAPES")
    parser.add_argument("--problems", type=int, help="random problems a step, three responses each (8; 2 with 135m)")
    parser.add_argument("--steps", type=int, default=2, help="steps that are timed, after the first")
    parser.add_argument("--repeats", type=int, default=1, help="runs of every setting of each side, in turns")
    args = parser.parse_args()
    unit = {"cogpo": "pair", "sft": "example"}[args.kind]
    print(environment_line("trl", "peft", "liger-kernel", "flash-attn"), flush=True)
    for case in args.cases:
        with tempfile.TemporaryDirectory() as folder:
            # the records, and the model, which a process of its own makes: this one holds no GPU memory
            (shape, length), file, model = case.split(":"), f"{folder}/records.jsonl", f"{folder}/model"
            records = triads(args.problems or (2 if shape == "135m" else 8), int(length))
            records = records if args.kind == "cogpo" else chains(records)
            write_jsonl(file, records)
            run("-c", f"from bench.versus_trl import make_model; make_model('{model}', '{shape}')")

            # every setting in turns: what disturbs one disturbs all
            setting, found = (args.kind, model, file, int(length), len(records), args.steps + 1), {}
            for settings, spec in [*our_settings(*setting), *trl_settings(*setting)] * args.repeats:
                if done := measure(settings, spec):
                    found.setdefault((spec["side"], settings), []).append(done)
            agree({", ".join(key): reports[0]["losses"] for key, reports in found.items()})
            rows, ratios = summary(f"{case}, {len(records)} {unit}s", found, len(records), unit)
            lines = [f"{name}: ours / TRL = {value:.2f}" for name, value in ratios.items()]
            print("\n" + (table(rows) if rows else f"{case}: nothing ran"), "", *lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
