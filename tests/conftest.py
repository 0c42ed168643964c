"""Shared fixtures. Every test computes with one thread, so that results do not depend on the machine's load."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.tiny import make_model

torch.set_num_threads(1)


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
