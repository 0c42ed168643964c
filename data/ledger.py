"""An append-only JSON Lines file of records with keys: for what costs hours or money, and must survive any kill."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from errors import UserError


def holds_records(path: Path) -> bool:
    """Tell whether a run has kept anything in a file: a run that was killed before that holds its folder to nothing."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        return file.readline().endswith(b"\n")


class Ledger:
    """One append-only file as {key: record}; of two records with one key the later counts.

    Nothing is written before the first `append`, which then cuts off a last line that a kill left unfinished. Memory
    holds positions, not texts. Reading is safe from any thread, appending from one.
    """

    def __init__(self, path: str | Path, private: bool = False):
        """Index what is there. private: readable by its owner alone. Raises UserError naming the line that is
        damaged."""
        self.path, self.private = Path(path), private
        self.at, self.end, self.descriptor = {}, 0, None  # at: key -> (position, bytes); end: of the last whole line
        if self.path.exists():
            self.descriptor = os.open(self.path, os.O_RDONLY)
            self._read_on()
        self.writing = False

    def _read_on(self):
        """Index the whole lines behind those that are known. Raises UserError naming the line that is damaged."""
        with self.path.open("rb") as file:
            file.seek(self.end)
            for line in file:
                if line.endswith(b"\n"):
                    try:
                        self._index(json.loads(line), len(line))
                    except (ValueError, KeyError, TypeError):
                        number = self.path.read_bytes()[: self.end].count(b"\n") + 1
                        raise UserError(
                            f"{self.path}:{number} is damaged, it is no record of this project; delete that line "
                            f"and run the same command again to resume"
                        ) from None

    def _index(self, record: dict, size: int) -> None:
        """Note the record that ends the file now."""
        self.at[record["key"]] = self.end, size
        self.end += size

    def __contains__(self, key: str) -> bool:
        return key in self.at

    def __getitem__(self, key: str) -> dict:
        position, size = self.at[key]
        return json.loads(os.pread(self.descriptor, size, position))

    def get(self, key: str) -> dict | None:
        """Return the record under `key`, or None."""
        return self[key] if key in self.at else None

    def __iter__(self) -> Iterator[dict]:
        """Yield the records, in order."""
        return (self[key] for key in self.at)

    def __len__(self) -> int:
        return len(self.at)

    def append(self, record: dict) -> None:
        """Write one record. Raises OSError, and then leaves the file as it was."""
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        if not self.writing:
            self._open()
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self.descriptor, view) :]
        except OSError:
            os.ftruncate(self.descriptor, self.end)  # half a line would spoil what another answer may still append
            raise
        self._index(record, len(line))

    def _open(self):
        """Open the file for writing, from where its last whole line ends."""
        mode = 0o600 if self.private else 0o644
        opened = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode)
        if self.descriptor is None:
            self.descriptor = opened
        else:  # under the same number, for another thread may be reading
            os.dup2(opened, self.descriptor, inheritable=False)
            os.close(opened)
        os.ftruncate(self.descriptor, self.end)
        self.writing = True


class SharedLedger(Ledger):
    """A ledger that several processes may append to at the same time, one record after the other."""

    def append(self, record: dict) -> None:
        """Write one record, behind what others wrote meanwhile. Raises OSError, and then leaves the file as it was."""
        with self.path.open("ab") as held:
            with contextlib.suppress(OSError):  # a file system without locks: as if nobody else were there
                fcntl.flock(held, fcntl.LOCK_EX)
            if os.fstat(held.fileno()).st_size < self.end:  # somebody has deleted or emptied it
                self.at, self.end = {}, 0
            self._read_on()
            self.writing = False  # what follows now is half a line of one that was killed: it is cut off
            super().append(record)
