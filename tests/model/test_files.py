"""Which files of a hub's repository are downloaded: from a server on this machine that speaks the hub's protocol."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from model.files import content_files
from tests.support.hub import hub
from tests.support.scripts import ROOT

OTHERS = ("notes.txt", "consolidated.safetensors", "pytorch_model.bin", "original/model.safetensors", "onnx/model.onnx")


@pytest.mark.parametrize("sharded", [False, True])
def test_only_what_a_model_consists_of_is_downloaded(tiny_qwen, tmp_path, sharded):
    with hub() as (environment, asked, files):
        fill(files, tiny_qwen, tmp_path, sharded)
        code = "from model.load import WeightFiles; w = WeightFiles('someone/thing'); print(len(w.open()), w.folder)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | environment | {"HF_HOME": str(tmp_path / "hf")},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert set(asked) == files.keys() - set(OTHERS)
    assert int(done.stdout.split()[0]) == len(load_file(f"{tiny_qwen}/model.safetensors"))


def fill(files, tiny_qwen, tmp_path, sharded):
    files |= {file.name: file.read_bytes() for file in Path(tiny_qwen).iterdir()}
    files |= dict.fromkeys(OTHERS, b"of no use")
    if sharded:
        weights = list(load_file(f"{tiny_qwen}/model.safetensors").items())
        for number, part in enumerate((weights[:5], weights[5:]), start=1):
            save_file(dict(part), tmp_path / "part")
            files[f"model-{number}.safetensors"] = (tmp_path / "part").read_bytes()
        place = {name: f"model-{1 if i < 5 else 2}.safetensors" for i, (name, _) in enumerate(weights)}
        files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": place}).encode()
        del files["model.safetensors"]


def test_templates_in_a_folder_of_their_own_are_part_of_a_model(tmp_path):
    names = ["model.safetensors", "config.json", "additional_chat_templates/tool_use.jinja"]
    for name in [*names, "notes.txt", "additional_chat_templates/notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert content_files(tmp_path) == sorted(tmp_path / name for name in names)
