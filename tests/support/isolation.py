"""Which ways to isolate programs work here, and what the kernel can do for them."""

import ctypes
import os
from pathlib import Path

from grading.programs import all_ways, try_way

WAYS = [way for way in all_ways() if try_way(way)[0]]


def has_filter_and_landlock() -> bool:
    """Tell whether this kernel can do what grading/cell.py asks of it; asked of the kernel, not of grading/cell.py."""
    filters = "Seccomp:" in Path("/proc/self/status").read_text() and os.uname().machine in ("x86_64", "aarch64")
    return filters and ctypes.CDLL(None).syscall(444, None, 0, 1) > 0
