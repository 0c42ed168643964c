"""Phase 1 (§3.1): supervised fine-tuning on packed sequences.

    python train_sft.py --config configs/pocket/sft.yaml                               one process, CPU or one GPU
    torchrun --nproc_per_node 8 train_sft.py --config configs/paper/crv_sft_7b.yaml    eight GPUs, sharded
    … --plan gpus=8 gpu=A800 memory_gb=80                                              what it would need, without a run

The loss of a step is the sum over its supervised tokens divided by their global count, whatever the packing, the
number of micro-batches or of ranks. Stopped or killed at any point, run the same command to resume.
"""

from config import parse, run_cli
from settings import TrainConfig as Config

if __name__ == "__main__":
    parse(Config, __doc__)  # --help and mistyped keys are answered before torch and transformers load

import torch

from data.dataset import Examples, count_tokens, load_sft, plan_step
from data.packing import pack
from lock import locked
from losses import sft_loss
from model.optim import apply_step, lr_at
from model.parallel import reshard
from model.session import Run, begin, finish, predict, resume
from progress import Progress


def main(cfg: Config) -> None:
    if cfg.plan:
        return print(predict(cfg, load_sft))
    with locked(cfg.out):
        run = begin(cfg, __file__, load_sft, describe, lambda: sft_loss(torch.zeros(1), 1.0))
        if run is not None:
            resume(run)
            train(run)
            finish(run, evaluate)


def describe(examples: Examples) -> str:
    """Say what was read: examples, and their sequences where the template changes a turn once others follow."""
    count = sum(unit.items for unit in examples.units)
    return f"{count} examples" + (f" in {len(examples.units)} sequences" if len(examples.units) > count else "")


def train(run: Run) -> None:
    """Do the optimizer steps from run.start to the end of the plan, with checkpoints and one line of metrics each."""
    cfg, ranks, num_steps = run.cfg, run.ranks, len(run.steps)
    with run.saver, Progress(num_steps, "sft", initial=run.start, unit="step") as bar:
        for step in range(run.start, num_steps):
            # held-out loss first: all values of a line belong to the same weights, those before the update
            eval_metrics = evaluate(run) if run.is_eval_step(step) else {}
            run.speed.start()

            # the micro-batches of every rank, as many for each (sharding makes every pass a collective), and the
            # global count of supervised tokens, so that all losses are parts of one mean
            plan_by_rank = plan_step(run.steps[step], run.examples, cfg.batch, ranks.count, run.quadratic)
            _, num_supervised = count_tokens(run.examples, plan_by_rank)

            # forward and backward: the gradients of the micro-batches add up
            total = torch.zeros(1, device=ranks.device)
            for micro in plan_by_rank[ranks.rank]:
                loss = micro_batch_loss(run, run.examples, micro) / num_supervised
                loss.backward()
                total += loss.detach()

            # update, unless the loss or the gradient is not finite
            lr = lr_at(cfg.optim, step, num_steps)
            (loss,), norm = apply_step(cfg.optim, run.model, run.optimizer, lr, step, ranks.sum(total))

            bar.update(**run.log(step, plan_by_rank, loss=loss, lr=lr, grad_norm=norm, **eval_metrics))
            run.save(step + 1)


def micro_batch_loss(run: Run, examples: Examples, micro: list[int]) -> torch.Tensor:
    """Run one micro-batch (unit indices) and sum its loss over supervised tokens: float32 [], nats, not divided.

    An empty one runs a sequence that weighs nothing, so that every rank takes part in the collectives.
    """
    picked = [s for u in micro for s in examples.units[u].seqs]
    batch = pack([examples.sequences[s] for s in picked or [0]]).to(run.ranks.device)
    return sft_loss(run.model(batch), float(bool(picked)))


def evaluate(run: Run) -> dict[str, float]:
    """Compute {"eval/loss": mean loss over the supervised tokens of the held-out examples, nats}."""
    plan_by_rank = plan_step(run.heldout.everything, run.heldout, run.cfg.batch, run.ranks.count, run.quadratic)
    total = torch.zeros((), device=run.ranks.device)
    with run.model.without_backward():
        for micro in plan_by_rank[run.ranks.rank]:
            total += micro_batch_loss(run, run.heldout, micro).detach()
    reshard(run.model)
    return {"eval/loss": run.ranks.sum(total).item() / count_tokens(run.heldout, plan_by_rank)[1]}


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
