"""Where a chain comes from: the fields that every exported record carries, so that it can be traced to its calls.

The keys and types are the same in every record and nothing is null ("" and 0 stand for "not by a call"): loaders that
infer a schema from the first megabytes (datasets, pyarrow) would refuse the file otherwise.
"""

from agents.journal import call_key, call_seed
from agents.roles import LEVELS, VERDICTS


def made_with(cfg, prompts):
    """What all records of a run have in common: models and prices by agent, prompt hashes by name, sampling, seed."""
    # several endpoints of one agent serve one model
    bound = {agent: cfg.endpoints[names[0]] for agent, names in vars(cfg.agents).items()}
    return {
        "models": {agent: endpoint.model for agent, endpoint in bound.items()},
        "prices": {agent: {"prompt": e.price_prompt, "completion": e.price_completion} for agent, e in bound.items()},
        "prompts": {name: call_key(text)[:16] for name, text in prompts.items()},
        "sampling": " ".join(f"{name}={value:g}" for name, value in cfg.sampling.options().items()),
        "seed": cfg.seed,
    }


def of_original(trace):
    """The input's own chain, with the votes of the Critic (and, rated medium, of the Verifier) on it."""
    return _fields("input", {}, None, 0, _votes(trace, 0))


def kept_step(trace):
    """The step in which r* was written."""
    return _step(trace, trace["rewritten"], lambda mode: mode != "incorrect")


def of_rewrite(trace, step, made):
    """A rewrite of r, with the votes on it. step: the one in which it was written."""
    return _fields(f"rethinker_{step['mode']}", made, step, step["round"], _votes(trace, step["round"]))


def of_incorrect(trace, made):
    """r~; round is the try that was taken."""
    step = _step(trace, trace["incorrect"], lambda mode: mode == "incorrect")
    return _fields("rethinker_incorrect", made, step, step["round"], {})


def _step(trace, text, suits):
    """The last step in which the Rethinker wrote this text."""
    steps = (s for s in reversed(trace["steps"]) if s["step"] == "rethinker" and suits(s["mode"]))
    return next(s for s in steps if s["text"] == text)


def _fields(by, made, step, round, votes):
    """call: key of the journal line. attempts: how often it was asked until the reply could be used."""
    last = step["calls"][-1]["key"] if step else ""
    return {
        "by": by,
        "model": made["models"]["rethinker"] if step else "",
        "prompt_hash": made["prompts"][by] if step else "",
        "sampling": made["sampling"] if step else "",
        "seed": call_seed(last) if step else 0,
        "call": last,
        "round": round,
        "attempts": len(step["calls"]) if step else 0,
        "votes": {label: votes.get(label, 0) for label in (*LEVELS, *VERDICTS)},
    }


def _votes(trace, round):
    """{label: votes} of Critic and Verifier on the chain of this round."""
    steps = [step for step in trace["steps"] if step["step"] != "rethinker" and step["round"] == round]
    return {label: count for step in steps for label, count in step["votes"].items()}
