"""One run at a time in an output folder: a lock that the kernel takes back when the process ends, however it ends."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from config import check_folder
from errors import UserError
from progress import say

NAME = ".lock"  # says who holds it; a file, as network file systems lock none but files open for writing


def take(folder: str | Path) -> int:
    """Make the folder and keep a second run out of it, until the file descriptor that is returned is closed by this
    process and by those that inherited it. Raises UserError naming the process that is in it."""
    check_folder(folder)
    path = Path(folder) / NAME
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}; set another output folder") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise UserError(
                f"{folder} is in use by another run ({holder}); wait for it, or set another output folder"
            ) from None
        except OSError as error:
            say(f"warning: {folder} cannot be locked ({error.strerror}): start no second run in it")
        # between the opening and the lock its holder may have removed the file, and a third run made another
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            break
        os.close(descriptor)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return descriptor


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[int | None]:
    """Hold the lock of a folder inside `with`: taken by rank 0 for all ranks. Yields `take`'s descriptor."""
    if int(os.environ.get("RANK", "0")):
        yield
        return
    descriptor = take(folder)
    try:
        yield descriptor
    finally:
        # nothing stays behind: no file, and no folder that holds nothing else
        (Path(folder) / NAME).unlink(missing_ok=True)
        os.close(descriptor)
        with contextlib.suppress(OSError):  # it is not empty
            Path(folder).rmdir()
