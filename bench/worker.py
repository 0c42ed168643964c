"""One side of a comparison in a process of its own: `python -m bench.worker SIDE SPEC`, SPEC as JSON.

    ours      {"script": "train_cogpo", "words": ["model.path=…", …]}        the script as shipped, its `main` called
    trl_dpo   {"model", "file", "args": {DPOConfig}, "model_args": {…}}      the same records through TRL
    trl_sft   {"model", "file", "args": {SFTConfig}, "model_args": {…}}

Both sides report seconds (wall and CPU) from the end of one optimizer step to the end of the next, data loading
included, the loss of every step, the reference pass's seconds and the memory that all this added to the process. A
step goes over all records of the file, so the order in which a trainer takes them does not matter. Neither side writes
its model or a checkpoint.
"""

import gc
import importlib
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench.common import memory_now, memory_peak, report


class Clock:
    def __init__(self):
        self.steps, self.losses, self.reference = [], [], 0.0

    def start(self):
        self.last = time.perf_counter(), time.process_time()

    def step(self):
        now = time.perf_counter(), time.process_time()
        self.steps.append((now[0] - self.last[0], now[1] - self.last[1]))
        self.last = now
        self.peak = memory_peak()  # after the last step: what follows, plots and exports, is not compared
        import torch  # not above: what a side imports counts as its own

        if torch.cuda.is_available():  # on both sides the peak is that of the last step
            torch.cuda.reset_peak_memory_stats()

    def timed_reference(self, function):
        def call(*args, **kwargs):
            began = time.perf_counter()
            value = function(*args, **kwargs)
            self.reference += time.perf_counter() - began
            return value

        return call

    def report(self, base, **more):
        seconds, cpu_seconds = zip(*self.steps, strict=True)
        report(
            seconds=seconds, cpu_seconds=cpu_seconds, losses=self.losses, reference=self.reference,
            memory=self.peak - base, **more,
        )  # fmt: skip


def ours(spec):
    import config

    module = importlib.import_module(spec["script"])
    base, clock = _base(), Clock()

    class ClockedMetrics(module.Metrics):
        def __init__(self, *args):
            super().__init__(*args)
            clock.start()

        def log(self, **values):
            super().log(**values)
            clock.losses.append(values["loss"])
            clock.step()

    module.Metrics = ClockedMetrics
    for owner, name in ((module, "export"), (module.Saver, "save")):
        assert callable(getattr(owner, name))
        setattr(owner, name, lambda *args: None)
    if hasattr(module, "reference"):
        module.reference = clock.timed_reference(module.reference)
    with tempfile.TemporaryDirectory() as out:
        words = [*spec["words"], f"out={out}/run", "checkpoint.every_steps=1000000"]
        words += [f"reference_cache={out}/reference"] if spec["script"] == "train_cogpo" else []
        module.main(config.load(module.Config, words))
    clock.report(base)


def trl_dpo(spec):
    from trl import DPOConfig, DPOTrainer

    from data.dataset import DataConfig, load_pairs

    base, clock = _base(), Clock()
    tokenizer, renderer, text, end = _rendering(spec)
    rows = [
        {"prompt": text(row["prompt"])} | {side: row[side][0]["content"] + end for side in ("chosen", "rejected")}
        for row in map(json.loads, Path(spec["file"]).read_text().splitlines())
    ]
    for row in rows:  # for TRL's sampler that groups by length
        row["length"] = max(len(tokenizer(row["prompt"] + row[side])["input_ids"]) for side in ("chosen", "rejected"))

    class Trainer(DPOTrainer):
        _precompute_ref_logps = clock.timed_reference(DPOTrainer._precompute_ref_logps)

    trainer = _trainer(Trainer, DPOConfig, spec, rows, tokenizer, clock)
    examples = load_pairs(DataConfig(spec["file"], max_length=10**9), renderer, True)
    sequences = examples.sequences
    want = Counter(
        tuple(tuple(sequences[s].ids.tolist()) for s in (pair.chosen, pair.rejected))
        for unit in examples.units
        for pair in unit.payload
    )
    have = Counter(
        (tuple(row["prompt_ids"] + row["chosen_ids"]), tuple(row["prompt_ids"] + row["rejected_ids"]))
        for row in trainer.train_dataset
    )
    assert have == want, "TRL trains on other tokens"
    _train(trainer, clock, base)


def trl_sft(spec):
    from trl import SFTConfig, SFTTrainer

    from data.dataset import DataConfig, load_sft

    base, clock = _base(), Clock()
    tokenizer, renderer, text, end = _rendering(spec)
    rows = [
        {"prompt": text(row["messages"][:-1]), "completion": row["messages"][-1]["content"] + end}
        for row in map(json.loads, Path(spec["file"]).read_text().splitlines())
    ]
    trainer = _trainer(SFTTrainer, SFTConfig, spec, rows, tokenizer, clock)
    packed = trainer.train_dataset
    have = Counter()
    for row in packed:
        start = 0
        for n in row["seq_lengths"] if "seq_lengths" in row else [len(row["input_ids"])]:
            labels = row["labels"][start : start + n]
            have[tuple(row["input_ids"][start : start + n]), sum(label == -100 for label in labels)] += 1
            start += n
    sequences = load_sft(DataConfig(spec["file"], max_length=10**9), renderer).sequences
    want = Counter((tuple(s.ids.tolist()), s.prompt_len) for s in sequences)
    assert spec["args"]["packing_strategy"] == "wrapped" or have == want, "TRL trains on other tokens"
    _train(trainer, clock, base, rows=len(packed))


def _rendering(spec):
    from transformers import AutoTokenizer

    from data.render import Renderer

    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    renderer = Renderer(tokenizer)

    def text(messages):
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    return tokenizer, renderer, text, tokenizer.decode(renderer.turn_end)


def _trainer(trainer_class, config_class, spec, rows, tokenizer, clock):
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            clock.start()

        def on_step_end(self, *args, **kwargs):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            clock.step()

        def on_log(self, args, state, control, logs=None, **kwargs):
            clock.losses += [logs["loss"]] if "loss" in logs else []

    cuda = torch.cuda.is_available()
    args = config_class(
        output_dir=tempfile.mkdtemp(), use_cpu=not cuda, bf16=cuda, optim="adamw_torch_fused", weight_decay=0.0,
        max_grad_norm=1.0, lr_scheduler_type="cosine", logging_steps=1, save_strategy="no", report_to="none",
        disable_tqdm=True, model_init_kwargs={"dtype": "float32"} | spec["model_args"], **spec["args"],
    )  # fmt: skip
    return trainer_class(
        spec["model"], args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[Watch()]
    )


def _train(trainer, clock, base, **more):
    trainer.train()
    clock.report(base, **more)


def _base():
    gc.collect()
    return memory_now()


if __name__ == "__main__":
    {"ours": ours, "trl_dpo": trl_dpo, "trl_sft": trl_sft}[sys.argv[1]](json.loads(sys.argv[2]))
