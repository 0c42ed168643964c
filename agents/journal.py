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

from agents.replies import ANSWERED
from errors import UserError


def call_key(question: object, *place: object) -> str:
    """Returns the name of a call: hash of what is asked (JSON-able: model, messages, sampling, seed) and of where it is
    asked (problem id, prompt, round, vote, attempt). Never a position in a file, so that nothing shifts when problems
    are added, and two equal problems with different ids stay two."""
    text = json.dumps([question, *place], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def call_seed(key: str) -> int:
    """Returns the seed that a call sends: a function of the call alone, so the order of the calls changes nothing."""
    return int(key[:7], 16)


class Journal:
    """Opens or creates the file, repairs a torn last line, and locks it against a second run."""

    def __init__(self, path: str | Path):
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
        self.at = {}  # hash of a key -> offset of its last answered entry: 130 bytes a call, keys would be 300
        self.models = set()
        self.tokens = {}  # endpoint -> (calls, prompt tokens, completion tokens)
        self.reader = self.path.open("rb")
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
                    self._index(entry, offset)
                except (ValueError, KeyError, TypeError):
                    raise UserError(f"{self.path}:{number} is damaged; delete that line to resume") from None
                offset += len(line)
        return offset

    def _index(self, entry, offset):
        if entry["status"] in ANSWERED:
            self.at[hash(entry["key"])] = offset
            self.models.add(entry["model"])
        name = entry.get("endpoint", "")
        if entry.get("completion_tokens"):
            calls, asked, spent = self.tokens.get(name, (0, 0, 0))
            self.tokens[name] = calls + 1, asked + entry["prompt_tokens"], spent + entry["completion_tokens"]

    def __len__(self) -> int:
        return len(self.at)

    def get(self, key: str) -> dict | None:
        """Returns the entry under `key`, or None."""
        offset = self.at.get(hash(key))
        if offset is None:
            return None
        self.reader.seek(offset)
        entry = json.loads(self.reader.readline())
        return entry if entry["key"] == key else None  # two keys of one hash: the older is paid for again

    async def append(self, entry: dict) -> None:
        """Returns when the entry is on the disk. Entries that are no answers are kept for the record only."""
        line = (
            json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        )  # here: what cannot be written is its caller's error
        done = asyncio.get_running_loop().create_future()
        self.pending.append((entry, line, done))
        if self.writer is None:
            self.writer = asyncio.create_task(self._write_all())
        await done

    async def _write_all(self):
        while self.pending:
            batch, self.pending = self.pending, []
            data = b"".join(line for _, line, _ in batch)
            try:
                await asyncio.get_running_loop().run_in_executor(self.thread, self._sync, data)
            except OSError as error:
                os.ftruncate(self.fd, self.size)  # half a line would spoil what another call may still append
                failure = UserError(f"cannot write {self.path}: {error.strerror}; what was written before is kept")
                for _, _, done in batch + self.pending:
                    if not done.done():
                        done.set_exception(failure)
                self.pending = []
                break
            for entry, line, done in batch:
                self._index(entry, self.size)
                self.size += len(line)
                if not done.done():  # its waiter may have been cancelled
                    done.set_result(None)
        self.writer = None

    def _sync(self, data):
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]
        os.fsync(self.fd)

    async def drain(self) -> None:
        """Returns when nothing waits to be written any more."""
        if self.writer is not None:
            await self.writer

    def close(self) -> None:
        """Gives the lock back; after `drain`."""
        self.thread.shutdown()
        self.reader.close()
        os.close(self.fd)
