"""Every call on disk before its result is used: an append-only JSON Lines file, and an index of it in memory.

A run that was killed finds its answers here and pays only for the calls that were in flight. Many appends share one
fsync: while the disk is busy with one batch, the next gathers. Memory holds positions, not texts.
"""

import asyncio
import fcntl
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agents.client import ANSWERED
from data.errors import UserError


def call_key(question, *place):
    """Name of a call: hash of what is asked (JSON-able: model, messages, sampling, seed) and of where it is asked
    (problem id, prompt, round, vote, attempt). Never a position in a file, so that nothing shifts when problems are
    added, and two equal problems with different ids stay two."""
    text = json.dumps([question, *place], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Journal:
    """Opens or creates the file, repairs a torn last line, and locks it against a second run."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.fd)
            raise UserError(
                f"{self.path} is in use by another run; wait for it, or set another output folder"
            ) from None
        self.at = {}  # key -> (offset, length) of the last answered entry
        self.models = set()
        self.size = self._load()
        self.pending, self.writer = [], None
        self.thread = ThreadPoolExecutor(1)  # its own: never behind a slow comparison of answers

    def _load(self):
        """Index the file; returns its length after a half-written last line (a kill, a full disk) is cut off."""
        offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    os.ftruncate(self.fd, offset)
                    break
                try:
                    entry = json.loads(line)
                    self._index(entry, offset, len(line))
                except (ValueError, KeyError, TypeError):
                    raise UserError(f"{self.path}:{number} is damaged; delete that line to go on") from None
                offset += len(line)
        return offset

    def _index(self, entry, offset, length):
        if entry["status"] in ANSWERED:
            self.at[entry["key"]] = (offset, length)
            self.models.add(entry["model"])

    def __len__(self):
        return len(self.at)

    def get(self, key):
        """The entry under `key`, or None."""
        if key not in self.at:
            return None
        offset, length = self.at[key]
        return json.loads(os.pread(self.fd, length, offset))

    async def append(self, entry):
        """Returns when the entry is on the disk. Entries that are no answers are kept for the record only."""
        done = asyncio.get_running_loop().create_future()
        self.pending.append((entry, done))
        if self.writer is None:
            self.writer = asyncio.create_task(self._write_all())
        await done

    async def _write_all(self):
        while self.pending:
            batch, self.pending = self.pending, []
            lines = [json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry, _ in batch]
            try:
                await asyncio.get_running_loop().run_in_executor(self.thread, self._sync, b"".join(lines))
            except OSError as error:
                failure = UserError(f"cannot write {self.path}: {error.strerror}; what was written before is kept")
                for _, done in batch + self.pending:
                    if not done.done():
                        done.set_exception(failure)
                self.pending = []
                break
            for (entry, done), line in zip(batch, lines, strict=True):
                self._index(entry, self.size, len(line))
                self.size += len(line)
                if not done.done():  # its waiter may have been cancelled
                    done.set_result(None)
        self.writer = None

    def _sync(self, data):
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]
        os.fsync(self.fd)

    async def close(self):
        if self.writer is not None:
            await self.writer
        self.thread.shutdown()
        os.close(self.fd)
