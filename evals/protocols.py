"""Protocols: how many responses a problem gets and how they are sampled. The prompts are the families'.

paper   One greedy response, at most 32,768 tokens. The paper does not state its settings. Its cells are k/N, so one
        response a problem; the rest are the defaults of SkyThought's evaluation, the harness that its numbers point to.
r1      Temperature 0.6, top_p 0.95, at most 32,768 tokens (DeepSeek-R1's model card, "DeepSeek-R1 Evaluation"), and no
        system prompt (its usage recommendations). Responses a problem: open-r1's, where they reproduce R1's numbers; R1
        itself says 64, or 4 to 64. One where neither says a number.

Neither sends a system message; for a model trained with one, set `system` to that. A chat template that inserts a
message of its own when there is none (Qwen2.5's does) still does so, as in training.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Protocol:
    """temperature 0: greedy. top_p 1, top_k 0: no cut. max_new_tokens: longest response, the thought included.
    samples: {kind of benchmark: responses a problem}, 1 where nothing is said. system: no message if empty."""

    temperature: float
    top_p: float
    top_k: int = 0
    max_new_tokens: int = 32768
    samples: dict = field(default_factory=dict)
    system: str = ""


R1_SAMPLES = {"aime2024": 64, "math500": 4, "gpqa_diamond": 8, "livecodebench_v2": 16}

PROTOCOLS = {
    "paper": Protocol(temperature=0.0, top_p=1.0),
    "r1": Protocol(temperature=0.6, top_p=0.95, samples=R1_SAMPLES),
}
