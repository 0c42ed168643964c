"""Protocols: how responses are sampled. The prompts, and how many responses a problem gets, are the
benchmarks' (evals/benchmarks.yaml).

paper   One greedy response, at most 32,768 tokens. The paper does not state its settings. Its cells are k/N, so one
        response a problem; the rest are the defaults of SkyThought's evaluation, the harness that its numbers point to.
r1      Temperature 0.6, top_p 0.95, at most 32,768 tokens (DeepSeek-R1's model card, "DeepSeek-R1 Evaluation"), and no
        system prompt (its usage recommendations). Responses a problem: open-r1's, where they reproduce R1's numbers; R1
        itself says 64, or 4 to 64. One where neither says a number.

Neither sends a system message; for a model trained with one, set `system` to that. A chat template that inserts a
message of its own when there is none (Qwen2.5's does) still does so, as in training.
"""

MAX_NEW_TOKENS = 32768  # longest response, the thought included
PROTOCOLS = {"paper": {"temperature": 0.0, "top_p": 1.0}, "r1": {"temperature": 0.6, "top_p": 0.95}}  # 0: greedy
