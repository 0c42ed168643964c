"""What a stranger gets: the licence, a citation, a wheel with all that the rooms read, imports on other systems."""

import email
import os
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement

from tests.support.scripts import ROOT
from tests.test_layout import ROOMS, files_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = [room for room in ROOMS if room != "bench"]


def requirements(name):
    lines = [line.split(" #")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_licence_and_citation():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n" in text and "END OF TERMS AND CONDITIONS" in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"
    assert citation["version"] == PROJECT["project"]["version"]
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Cai", "Wang", "Yan", "Huang", "Fang"]
    assert "2504.09802" in paper["url"]


@pytest.mark.slow
def test_the_wheel_holds_the_rooms_and_what_they_read(tmp_path):
    """… asks for what requirements.txt asks for, and its scripts run from another folder."""
    pytest.importorskip("setuptools", minversion="77")
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in files:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, tmp_path / "tree"], check=True, timeout=300
    )
    (wheel,) = tmp_path.glob("*.whl")

    # the files: all of the rooms, and nothing else
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(archive.read(metadata))
    assert names == {name for name in files if name.split("/")[0].removesuffix(".py") in SHIPPED}

    # the dependencies: one source
    asked = [Requirement(line) for line in said.get_all("Requires-Dist")]
    plain = [r for r in asked if "extra ==" not in str(r.marker)]
    assert sorted(map(str, plain)) == sorted(map(str, requirements("requirements.txt")))
    assert said.get_all("Provides-Extra") == ["cuda", "pocket", "dev"] and said["Requires-Python"] == ">=3.11"

    # a script of it, and what it reads from its own folder
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    code = "import agents.prompts as p, pages.page; print(len(p.load_prompts('')), p.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert f"{tmp_path}/site/agents/prompts.py" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "evaluate", "--help"], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    assert b"benchmarks_dir" in done.stdout


# what macOS lacks
ABSENT = {
    "os": "sched_getaffinity sched_setaffinity pidfd_open memfd_create eventfd fdatasync posix_fallocate posix_fadvise "
    "getrandom setns unshare splice copy_file_range pipe2 getresuid setresuid O_PATH O_TMPFILE O_DIRECT",
    "signal": "SIGRTMIN SIGPWR SIGSTKFLT pidfd_send_signal sigtimedwait sigwaitinfo",
    "select": "epoll",
    "resource": "prlimit RLIMIT_OFILE",
    "socket": "AF_NETLINK AF_PACKET SO_PEERCRED",
    "time": "CLOCK_BOOTTIME",
}


@pytest.mark.slow
def test_every_room_is_imported_without_what_only_linux_has():
    """The libraries come first, then Linux' own names go, then every module of the tree is imported."""
    modules = [".".join(f.relative_to(ROOT).with_suffix("").parts) for room in SHIPPED for f in files_of(room)]
    code = (
        "import importlib, sys\n"
        "import torch, transformers, datasets, openai, numpy, peft, matplotlib.pyplot, math_verify, yaml, jinja2\n"
        "import torch.distributed.checkpoint, torch.distributed.fsdp, torch.utils.tensorboard, latex2mathml.converter\n"
        f"for module, names in {ABSENT}.items():\n"
        "    [delattr(sys.modules.get(module) or importlib.import_module(module), n) for n in names.split()\n"
        "     if hasattr(importlib.import_module(module), n)]\n"
        "sys.platform = 'darwin'\n"
        "open_ = open\n"
        "import builtins\n"
        "def no_proc(path, *rest, **more):\n"
        "    if str(path).startswith('/proc'): raise FileNotFoundError(path)\n"
        "    return open_(path, *rest, **more)\n"
        "builtins.open = no_proc\n"
        f"for module in {modules}: importlib.import_module(module)\n"
        "print('imported')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "imported", done.stderr[-2000:]
