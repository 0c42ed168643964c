"""Protocols: how many responses a problem gets and how they are sampled. The prompts are the families'.

paper   One greedy response, at most 32,768 tokens. The paper does not state its settings. Its cells are k/N, so one
        response a problem; the rest are the defaults of SkyThought's evaluation, the harness that its numbers point to.
r1      Temperature 0.6, top_p 0.95, at most 32,768 tokens (DeepSeek-R1's model card, "DeepSeek-R1 Evaluation"), and no
        system prompt (its usage recommendations). Responses a problem: open-r1's, where they reproduce R1's numbers; R1
        itself says 64, or 4 to 64. One where neither says a number.

Neither sends a system message; for a model trained with one, set `system` to that. A chat template that inserts a
message of its own when there is none (Qwen2.5's does) still does so, as in training.
"""

MAX_NEW_TOKENS = 32768  # longest response, the thought included
PROTOCOLS = {  # temperature 0: greedy. samples: responses a problem by kind of benchmark, 1 where nothing is said
    "paper": {"temperature": 0.0, "top_p": 1.0, "samples": {}},
    "r1": {
        "temperature": 0.6,
        "top_p": 0.95,
        "samples": {"aime2024": 64, "math500": 4, "gpqa_diamond": 8, "livecodebench_v2": 16},
    },
}
