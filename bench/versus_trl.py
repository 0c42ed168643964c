"""CogPO and SFT here against TRL's DPOTrainer and SFTTrainer: speed and memory on the same records.

    python -m bench.versus_trl cogpo                                   all cases of this machine (CPU, or one GPU)
    python -m bench.versus_trl sft --cases 135m:384 1.5b:4096          model shape : longest sequence

Models are random, in published shapes, and records random digits with the lengths of real chains: speed and memory
depend on nothing else. A step is all records of the case, so both sides must report the same losses step by step, or
the comparison is void. cogpo: ours has three equal betas of 0.1, which is DPO at β = 0.1; TRL gets its reference
log-probs precomputed (its `padding_free` is ignored by version 1.16). sft: TRL packs with `bfd`, which keeps examples
apart as ours does. Each setting of a side runs in a process of its own, which reports the seconds (wall and CPU) from
the end of one optimizer step to that of the next, the losses, and the memory that it added.
"""

import argparse
import gc
import importlib
import itertools
import json
import re
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time, sleep

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, TrainerCallback
from transformers.utils import is_flash_attn_2_available

from bench.harness import SHAPES, config_of, environment_line, memory_now, memory_peak, report, run, table
from data.pairs import make_pairs
from data.records import write_jsonl
from data.render import Renderer

LR = 1e-5
CUDA = torch.cuda.is_available()
CASES = [f"{s}:{n}" for s in ("1.5b", "7b") for n in (2048, 4096, 8192, 16384)] if CUDA else ["tiny:1024", "135m:384"]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# --- what is trained: random models, random records ---


def make_model(folder: str, shape: str) -> None:
    """Save a random model of a shape of SHAPES (bfloat16 weights) into `folder`, with a tokenizer of bytes."""
    alphabet, turns = sorted(pre_tokenizers.ByteLevel.alphabet()), ["<|im_start|>", "<|im_end|>"]
    raw = Tokenizer(models.BPE(vocab={byte: n for n, byte in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=turns[1], pad_token=turns[1], extra_special_tokens=turns, chat_template=CHATML
    )
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    with torch.device("cuda" if CUDA else "cpu"):
        model = AutoModelForCausalLM.from_config(config_of(shape, **ids), dtype=torch.bfloat16)
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


# --- how: the settings of each side that are worth trying, in words and as the arguments of the side's function ---


def our_settings(kind: str, model: str, file: str, length: int, records: int, steps: int) -> Iterator[tuple[str, dict]]:
    """Yield the two ends of what the keys allow, the fastest and the leanest; on CUDA compiled or not."""
    wide = (4 if CUDA else 8) * length
    ends = {f"rows of {wide} tokens": (wide, "auto"), "a problem a row, all recomputed": (1, "full")}
    for compiled, (settings, (budget, mode)) in itertools.product([False, True] if CUDA else [False], ends.items()):
        words = [
            f"model.path={model}", f"data.file={file}", f"data.max_length={length}", f"batch.size={records}",
            f"batch.max_tokens={budget}", f"parallel.activation_checkpointing={mode}", f"parallel.compile={compiled}",
            f"optim.lr={LR}", "optim.warmup=0", f"model.compute_dtype={'bfloat16' if CUDA else 'float32'}",
        ]  # fmt: skip
        words += ["loss.name=cogpo", "loss.betas=[0.1, 0.1, 0.1]"] if kind == "cogpo" else []
        yield settings + ", compiled" * compiled, {"side": "ours", "kind": kind, "words": words, "steps": steps}


def trl_settings(kind: str, model: str, file: str, length: int, records: int, steps: int) -> Iterator[tuple[str, dict]]:
    """Yield TRL's batch or row sizes, orders and checkpointing; on CUDA with Liger's kernels."""
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


# --- one side, in a process of its own ---


class Clock(TrainerCallback):
    """Reads the time and the memory at the end of every step; made when everything has been imported."""

    def __init__(self):
        gc.collect()
        self.base, self.marks, self.losses = memory_now(), [], []

    def on_step_end(self, *args, **kwargs) -> None:
        """Note the end of a step."""
        if CUDA:
            torch.cuda.synchronize()
        self.marks.append((perf_counter(), process_time()))
        self.peak = memory_peak() - self.base
        if CUDA:  # so that the last peak is that of the last step alone
            torch.cuda.reset_peak_memory_stats()

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Note the loss that TRL logs."""
        self.losses += [logs["loss"]] if "loss" in logs else []

    def report(self) -> None:
        """Hand over the seconds of each step but the first, all losses, and bytes."""
        wall, cpu = ([b - a for a, b in itertools.pairwise(times)] for times in zip(*self.marks, strict=True))
        report(seconds=wall, cpu_seconds=cpu, losses=self.losses, memory=self.peak)


def ours(kind: str, words: list[str], steps: int) -> None:
    """Call the script's own main, and follow its metrics.jsonl, a line a step, from a thread."""
    script, config = importlib.import_module(f"train_{kind}"), importlib.import_module("config")
    clock = Clock()

    def follow(metrics):
        while len(clock.losses) < steps:
            lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
            for line in lines[len(clock.losses) :]:
                if line.endswith("\n"):
                    clock.on_step_end()
                    clock.losses.append(json.loads(line)["loss"])
            sleep(0.005)

    with tempfile.TemporaryDirectory() as out:
        words = [*words, f"out={out}/run", f"epochs={steps}", "checkpoint.every_steps=1000000"]
        words += [f"reference_cache={out}/reference"] if kind == "cogpo" else []
        follower = threading.Thread(target=follow, args=[Path(out, "run/metrics.jsonl")], daemon=True)
        follower.start()
        script.main(config.load(script.Config, words))
        follower.join()
    clock.report()


def trl(kind: str, model: str, file: str, args: dict, model_args: dict) -> None:
    """Train the same records with TRL; args and model_args: of its config and of the model."""
    import trl as library
    from datasets import Dataset

    trainer_class, config_class, names = {
        "cogpo": (library.DPOTrainer, library.DPOConfig, ("chosen", "rejected")),
        "sft": (library.SFTTrainer, library.SFTConfig, ("completion",)),
    }[kind]
    clock = Clock()

    # the records as TRL wants them: already in the template, with the end of turn that is trained here
    tokenizer = AutoTokenizer.from_pretrained(model)
    renderer, rows, want = Renderer(tokenizer), [], 0
    end = tokenizer.decode(renderer.turn_end)
    for record in map(json.loads, Path(file).read_text().splitlines()):
        prompt = record["prompt"] if kind == "cogpo" else record["messages"][:-1]
        responses = [(record[name] if kind == "cogpo" else record["messages"])[-1]["content"] for name in names]
        text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        lengths = [len(s) for s in renderer.sequences([(prompt, said) for said in responses])]
        rows.append({"prompt": text} | {name: said + end for name, said in zip(names, responses, strict=True)})
        rows[-1] |= {"length": max(lengths)} if kind == "cogpo" else {}  # for its order by length
        want += sum(lengths)

    # what both sides have in common: AdamW without weight decay, a cosine, the same clipping, nothing saved
    config = config_class(
        output_dir=tempfile.mkdtemp(), use_cpu=not CUDA, bf16=CUDA, optim="adamw_torch_fused", weight_decay=0.0,
        max_grad_norm=1.0, lr_scheduler_type="cosine", logging_steps=1, save_strategy="no", report_to="none",
        disable_tqdm=True, model_init_kwargs={"dtype": "float32"} | model_args, **args,
    )  # fmt: skip
    trainer = trainer_class(
        model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[clock]
    )
    columns = ["prompt_ids", "chosen_ids", "prompt_ids", "rejected_ids"] if kind == "cogpo" else ["input_ids"]
    have = sum(len(row[column]) for row in trainer.train_dataset for column in columns)
    assert have == want, f"TRL trains on {have} tokens, not {want}"
    trainer.train()
    clock.report()


# --- both, compared ---


def measure(settings: str, spec: dict) -> dict | None:
    """Run one side once. Returns its report, or None if it failed (out of memory, say), which is told on stderr."""
    found, output, _ = run("-m", "bench.versus_trl", spec["kind"], "--side", json.dumps(spec))
    said = f"steps of {' '.join(f'{s:.1f}' for s in found['seconds'])} s" if found else f"failed: {output[-4000:]}"
    print(f"{spec['side']} ({settings}): {'out of memory' if 'OutOfMemory' in output else said}", file=sys.stderr)
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


def summary(case: str, found: dict[tuple[str, str], dict], items: int, unit: str) -> tuple[list[dict], dict]:
    """Return (table rows, {what: ours / TRL}); no ratios if one side never ran. found: {(side, settings): report}.

    items: how many records, a `unit` each, a step holds. Rates are medians over all steps but the first.
    """
    speed, cpu, memory = measures = f"{unit}s/s", f"{unit}s/CPU-s", "memory, GB"
    rows = [
        {"case": case, "trainer": side, "settings": settings, speed: items / statistics.median(of["seconds"]),
         cpu: items / statistics.median(of["cpu_seconds"]), memory: of["memory"] / 1e9}
        for (side, settings), of in found.items()
    ]  # fmt: skip
    # the fastest and the leanest settings of each side are compared; a busy machine stretches the wall clock
    fastest = speed if CUDA else cpu
    of_side = [[row for row in rows if row["trainer"] == side] for side in ("ours", "TRL")]
    if not all(of_side):
        return rows, {}
    fast, their_fast = (max(rows, key=lambda row: row[fastest]) for rows in of_side)
    lean, their_lean = (min(rows, key=lambda row: row[memory]) for rows in of_side)
    ratios = {f"{name}, each at its fastest": fast[name] / their_fast[name] for name in measures}
    return rows, ratios | {f"{memory}, each at its leanest": lean[memory] / their_lean[memory]}


def read_case(text: str) -> str:
    """Refuse a case of the command line that is none."""
    shape, _, length = text.partition(":")
    if shape not in SHAPES or not re.fullmatch("[0-9]{1,7}", length) or int(length) < 144:  # 128 are for the prompt
        raise argparse.ArgumentTypeError(f"{text!r} is not {'|'.join(SHAPES)}:LENGTH, at least 144, e.g. tiny:1024")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["cogpo", "sft"])
    parser.add_argument("--cases", nargs="+", type=read_case, default=CASES, metavar="SHAPE:LENGTH")
    parser.add_argument("--problems", type=int, help="random problems a step, three responses each (8; 2 with 135m)")
    parser.add_argument("--steps", type=int, default=2, help="steps that are timed, after the first")
    parser.add_argument("--side", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return {"ours": ours, "TRL": trl}[args.side.pop("side")](**args.side)
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

            # every setting of each side, once
            setting, found = (args.kind, model, file, int(length), len(records), args.steps + 1), {}
            for settings, spec in [*our_settings(*setting), *trl_settings(*setting)]:
                if done := measure(settings, spec):
                    found[spec["side"], settings] = done
            agree({", ".join(key): done["losses"] for key, done in found.items()})
            rows, ratios = summary(f"{case}, {len(records)} {unit}s", found, len(records), unit)
            lines = [f"{name}: ours / TRL = {value:.2f}" for name, value in ratios.items()]
            print("\n" + (table(rows) if rows else f"{case}: nothing ran"), "", *lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
