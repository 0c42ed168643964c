"""Every key of build_crv.py but those of its endpoints (agents/limits.py) and of the student (agents/measured.py)."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from agents.limits import EndpointConfig
from agents.measured import StudentConfig
from values import Count, FilePath, Filled, MaybePath, NotNegative, Positive, PositiveShare, Seed, Template, Whole

Endpoints = Filled | Annotated[list[Filled], "filled"]


@dataclass
class Bindings:
    critic: Endpoints = "teacher"
    """Endpoint of the Critic: π_large (§3.2.1, A.5). Several that serve the same model share the work: [a, b]."""
    rethinker: Endpoints = "teacher"
    """Endpoint of the Rethinker, for incorrect chains too: π_large (§3.2.2)."""
    verifier: Endpoints = "teacher"
    """Endpoint of the Verifier. §3.2.3 says π_base, A.2 and A.5 say π_large: bind it to another one for the former."""

    def __post_init__(self):
        for agent, names in vars(self).items():
            setattr(self, agent, [names] if isinstance(names, str) else names)


@dataclass
class Sampling:
    """§A.2: the same for all three agents."""

    temperature: NotNegative | None = 0.7
    """Sampling temperature (A.2); null leaves it out of the request."""
    top_p: PositiveShare | None = 0.9
    """Nucleus sampling (A.2); null leaves it out of the request."""
    top_k: Whole | None = 50
    """A.2. Not in OpenAI's own API: null leaves it out, for hosts that refuse it."""
    max_tokens: Count = 16384
    """Longest answer, thought included. A truncated answer is asked for once more with twice as many."""
    send_seed: bool = True
    """Send a seed with every request: a deterministic server then repeats itself. Off for hosts that refuse it."""

    def options(self) -> dict:
        """Returns the fields of a request; a key that is null is left out."""
        fields = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass
class Config:
    problems: FilePath
    """Problems, in any form that data/rows.py opens, or a dataset of the hub (owner/name:split): id,
    problem, answer, reasoning, and optionally solution, domain, tests (of code: {"fn_name"?, "inputs", "outputs"})."""
    out: FilePath
    """Output folder."""
    endpoints: Annotated[dict[str, EndpointConfig], "filled"]
    """OpenAI-compatible endpoints by name."""
    agents: Bindings = field(default_factory=Bindings)
    """Which endpoint plays which agent."""
    probe: bool = True
    """A few test questions to each endpoint before its first real one, remembered in probe.json: where thoughts come
    back, how it wants to be asked, whether it honours top_k; and one prompt of 6,000 words: a server that cuts it
    without a word (Ollama does) stops the run."""
    max_cost: Positive | None = None
    """Stop before all answers together cost more than this, by the endpoints' prices; null for no cap."""
    sampling: Sampling = field(default_factory=Sampling)
    """Sampling of all agents (A.2)."""
    prompts_dir: MaybePath = ""
    """Folder with the five prompts; empty for Table 13 (agents/prompts)."""
    prompt_role: Literal["system", "user"] = "system"
    """Where the prompt stands. user: one user turn, prompt last, for R1-type models that want no system prompt."""
    critic_mode: Literal["llm", "student"] = "llm"
    """llm: the Critic is asked (§3.2.1). student: nobody is asked, a chain's level follows from how well it fits
    student.path (agents/measured.py)."""
    student: StudentConfig = field(default_factory=StudentConfig)
    """The student itself, measured on every chain that is rated."""
    verifier_mode: Literal["judge", "solve"] = "judge"
    """judge: YES or NO with the answer in view (Table 13). solve: finish from the chain without it, and the answer is
    graded (§3.2.3: whether π_base can derive y); bind agents.verifier to π_base. Programs are graded by `tests`."""
    seed: Seed = 0
    """Every call's seed derives from this and from what is asked."""
    journal: MaybePath = ""
    """Journal file; empty for journal.jsonl in `out`. Output folders may share one, one after the other: what is
    already answered there is not paid for again."""
    stages: Literal["crv", "cr", "c"] = "crv"
    """Table 6: c keeps what the Critic rates medium; cr adds rewrites, unverified and not rated again; crv is all."""
    max_rounds: Count = 3
    """Rewrites of one problem at most, whatever they fail at (§3.2.3)."""
    recritique: Literal["retry", "discard"] = "retry"
    """A verified rewrite that the Critic rates easy or hard again: rewrite it further within max_rounds, or discard."""
    medium_failed: Literal["discard", "rewrite"] = "discard"
    """A medium original that fails verification: discard the problem, or have the Rethinker extend it."""
    retry_from: Literal["source", "rewrite"] = "source"
    """After a failed verification the Rethinker gets the chain it had before (not known to be wrong), or its failed
    rewrite."""
    votes: Count = 1
    """Calls per rating and per verdict, majority wins (Table 1: 3). A tie draws two more; then the problem is
    quarantined."""
    check_answer: bool = True
    """A rewrite whose final answer differs from y fails verification, whatever the Verifier says."""
    check_incorrect: bool = True
    """An incorrect chain must state a final answer that differs from y."""
    incorrect_tries: Whole = 3
    """Tries for an incorrect chain; without one the problem is kept for SFT, and only its small-gap pair remains. 0
    makes none, for studies that need no pairs."""
    guards: bool = True
    """Whether a rewrite must pass the guards (agents/guards.py) before the Verifier sees it, and an incorrect chain
    before it is used; a failure costs one of the rounds or tries, and is counted in report.json. The paper has none."""
    response_style: Literal["bespoke", "think", "plain"] = "bespoke"
    """Format of responses: Bespoke-Stratos tags, <think> tags, or none."""
    rejected_answer: Literal["gold", "from_reasoning", "none"] = "gold"
    """What follows an incorrect chain: the right solution (as in the authors' published example), its own answer, or
    nothing."""
    system: str = ""
    """System prompt of the records; empty for none."""
    instruction: Template | dict[str, Template] = "{problem}"
    """User turn of the records, around {problem}; or one for each domain and a `default`, e.g. {math: "…", default:
    "{problem}"}."""
    level_size: Count | Literal["min"] | None = None
    """Chains in each of sft_easy, sft_medium and sft_hard, drawn with `seed` (Table 5: 10000); min: as many as the
    smallest of them has; null: all."""
    limit: Count | None = None
    """Only the first N problems."""
