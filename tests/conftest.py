"""Shared fixtures. Every test computes with one thread, so that results do not depend on the machine's load."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

if not os.environ.get("TEST_GPU"):  # what is compared to the last bit is compared on the CPU
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
import torch

from data.records import write_jsonl
from pocket.tiny import make_model
from tests.support.tiny import pair_rows, sft_rows

torch.set_num_threads(1)


def pytest_ignore_collect(collection_path, config):
    """With -m gpu other files are not even imported: they may need packages that training does not."""
    if config.option.markexpr == "gpu":
        files = collection_path.rglob("test_*.py") if collection_path.is_dir() else [collection_path]
        return True if not any("pytest.mark.gpu" in file.read_text() for file in files) else None
    return None


def pytest_collection_modifyitems(items):
    """Each process's share begins with its part of the files that have slow tests. Who is done takes over from the ends
    of the other shares (--dist worksteal): a long test there would leave processes idle."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    slow = list(dict.fromkeys(item.path for item in items if item.get_closest_marker("slow")))
    quick, ordered = [item for item in items if item.path not in slow], []
    for number in range(count):
        share = [item for item in items if item.path in slow[number::count]]
        room = max(0, len(items) // count - len(share)) if number < count - 1 else None
        ordered += share + quick[:room]
        del quick[:room]
    items[:] = ordered


@pytest.fixture(scope="session", params=["qwen2", "llama", "mistral"])
def family(request):
    return request.param


@pytest.fixture(scope="session")
def tiny(family, tmp_path_factory):
    """Folder of a tiny random model of each family in turn."""
    return make_model(tmp_path_factory.mktemp(family), family)


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("tiny_qwen"), "qwen2")


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Folder with sft.jsonl and pairs.jsonl of 20 problems."""
    folder = tmp_path_factory.mktemp("files")
    write_jsonl(folder / "sft.jsonl", sft_rows(20))
    write_jsonl(folder / "pairs.jsonl", pair_rows(20))
    return folder
