"""One side of bench/versus_trl.py in a process of its own: `python -m bench.trainer_side SPEC`, SPEC as JSON.

It reports seconds (wall and CPU) from the end of one optimizer step to the end of the next, the loss of every step, and
the memory that training added to the process by the end of the last one.
"""

import gc
import importlib
import itertools
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback  # noqa: F401 (before memory counts)

from bench.harness import memory_now, memory_peak, report
from data.render import Renderer


class Clock(TrainerCallback):
    """Reads the time and the memory at the end of every step; made when everything has been imported."""

    def __init__(self):
        gc.collect()
        self.base, self.marks, self.losses = memory_now(), [], []

    def on_step_end(self, *args, **kwargs) -> None:
        """Note the end of a step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append((time.perf_counter(), time.process_time()))
        self.peak = memory_peak() - self.base
        if torch.cuda.is_available():  # so that the last peak is that of the last step alone
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
            time.sleep(0.005)

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
    cuda = torch.cuda.is_available()
    config = config_class(
        output_dir=tempfile.mkdtemp(), use_cpu=not cuda, bf16=cuda, optim="adamw_torch_fused", weight_decay=0.0,
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


if __name__ == "__main__":
    spec = json.loads(sys.argv[1])
    {"ours": ours, "TRL": trl}[spec.pop("side")](**spec)
