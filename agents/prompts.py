"""From a role and (x, y, r) to the messages of one question. The prompts: Table 13, see agents/prompts/README.md."""

from pathlib import Path

from data.errors import UserError

DEFAULT_DIR = Path(__file__).with_name("prompts")
NAMES = ("critic", "rethinker_easy", "rethinker_hard", "rethinker_incorrect", "verifier")


def load_prompts(folder=None):
    """{name: text} for the five prompts, from `folder` (default: Table 13). Raises UserError if one is missing."""
    folder = Path(folder) if folder else DEFAULT_DIR
    prompts = {}
    for name in NAMES:
        path = folder / f"{name}.txt"
        if not path.is_file():
            raise UserError(f"prompts_dir needs the file {path}; it must hold {', '.join(n + '.txt' for n in NAMES)}")
        prompts[name] = path.read_text(encoding="utf-8").strip()
        if not prompts[name]:
            raise UserError(f"the prompt {path} is empty")
    return prompts


def question(prompt, problem, answer, reasoning, role="system"):
    """The messages: the prompt in the system turn, or (role "user") behind the sections in a single user turn."""
    sections = f"Problem:\n{problem}\n\nAnswer:\n{answer}\n\nReasoning process:\n{reasoning}"
    if role == "system":
        return [{"role": "system", "content": prompt}, {"role": "user", "content": sections}]
    return [{"role": "user", "content": f"{sections}\n\n{prompt}"}]
