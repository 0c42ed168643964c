"""Builds the messages of one question from a role and (x, y, r). The prompts: Table 13, and one of our own for what the
paper describes without a prompt; see agents/prompts/README.md."""

from pathlib import Path

from errors import UserError

DEFAULT_DIR = Path(__file__).with_name("prompts")
NAMES = ("critic", "rethinker_easy", "rethinker_hard", "rethinker_incorrect", "verifier")
OURS = ("verifier_solve",)


def load_prompts(folder: str | Path | None = None) -> dict[str, str]:
    """Returns {name: text}: Table 13's five from `folder` (default: agents/prompts), and ours, which that folder may
    replace in its subfolder `ours`. Raises UserError if one is missing."""
    folder = Path(folder) if folder else DEFAULT_DIR
    prompts = {}
    for name in NAMES + OURS:
        path = folder / f"{name}.txt" if name in NAMES else folder / "ours" / f"{name}.txt"
        if name in OURS and not path.is_file():
            path = DEFAULT_DIR / "ours" / f"{name}.txt"
        if not path.is_file():
            raise UserError(f"prompts_dir needs the file {path}; it must hold {', '.join(n + '.txt' for n in NAMES)}")
        prompts[name] = path.read_text(encoding="utf-8").strip()
        if not prompts[name]:
            raise UserError(f"the prompt {path} is empty")
    return prompts


def question(prompt: str, problem: str, answer: str | None, reasoning: str, role: str = "system") -> list[dict]:
    """Returns the messages: the prompt in the system turn, or (role "user") behind the sections in a single user turn.
    answer: None for an agent that must find it."""
    given = "" if answer is None else f"Answer:\n{answer}\n\n"
    sections = f"Problem:\n{problem}\n\n{given}Reasoning process:\n{reasoning}"
    if role == "system":
        return [{"role": "system", "content": prompt}, {"role": "user", "content": sections}]
    return [{"role": "user", "content": f"{sections}\n\n{prompt}"}]
