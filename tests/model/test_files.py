"""Which files of a hub's repository are downloaded: from a server on this machine that speaks the hub's protocol."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from model.files import content_files
from tests.support.scripts import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHERS = ("notes.txt", "consolidated.safetensors", "pytorch_model.bin", "original/model.safetensors", "onnx/model.onnx")


def name_of(content):
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub():
    """Yield (address, names of the files asked for, {name: bytes} of its one repository someone/tiny, to be filled)."""
    asked, files = [], {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.partition("?")[0].rpartition(f"/resolve/{COMMIT}/")[2]
            body, headers = files.get(name), {}
            if "/tree/" in self.path:
                listed = {name: {"size": len(content), "oid": name_of(content)} for name, content in files.items()}
                body = json.dumps([{"type": "file", "path": name} | more for name, more in listed.items()]).encode()
            elif "/api/models/" in self.path:
                siblings = [{"rfilename": name} for name in files]
                body = json.dumps({"id": "someone/tiny", "sha": COMMIT, "siblings": siblings}).encode()
            elif body is not None:
                asked.append(name)
                headers = {"ETag": f'"{name_of(body)}"', "X-Repo-Commit": COMMIT}
            self.send_response(404 if body is None else 200)
            for key, value in (headers | {"Content-Length": str(len(body or b""))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body or b"")

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked, files
        server.shutdown()


@pytest.mark.parametrize("sharded", [False, True])
def test_only_what_a_model_consists_of_is_downloaded(hub, tiny_qwen, tmp_path, sharded):
    address, asked, files = hub
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

    code = "from model.load import WeightFiles; w = WeightFiles('someone/tiny'); print(len(w.open()), w.folder)"
    environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert set(asked) == files.keys() - set(OTHERS)
    assert int(done.stdout.split()[0]) == len(load_file(f"{tiny_qwen}/model.safetensors"))


def test_templates_in_a_folder_of_their_own_are_part_of_a_model(tmp_path):
    names = ["model.safetensors", "config.json", "additional_chat_templates/tool_use.jinja"]
    for name in [*names, "notes.txt", "additional_chat_templates/notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert content_files(tmp_path) == sorted(tmp_path / name for name in names)
