"""Every call on disk before its result is used (data/ledger.py): a run that was killed finds its answers here and pays
only for the calls that were in flight.
"""

import asyncio
import fcntl
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agents.limits import Earlier, tokens_of
from agents.replies import ANSWERED
from data.ledger import Ledger
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


class Journal(Ledger):
    """Every call under its key; those that no server answered are kept for the record, and not found again.

    files, batches: {file: its batch, "" if it is not known to be begun} and {question: its file}, for
    agents/batches.py. The journal is locked against a second run until `close`.
    """

    def __init__(self, path: str | Path):
        self.tally, self.files, self.batches = Earlier(), {}, {}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            super().__init__(path)
        except (BlockingIOError, UserError) as error:
            os.close(self.lock)
            if isinstance(error, UserError):  # damaged: once that line is deleted, it can be opened
                raise
            raise UserError(f"{path} is in use by another run; wait for it, or set another output folder") from None
        self.turn, self.synced = asyncio.Lock(), self.end
        self.thread = ThreadPoolExecutor(1)  # its own: never behind a slow comparison of answers

    def _index(self, record: dict, size: int) -> None:
        if record["status"] == "batch":
            self.files[record["key"]] = record["batch"]
            self.batches |= dict.fromkeys(record["questions"], record["key"])
            self.end += size
            return
        if record["status"] in ANSWERED:
            self.at[record["key"]] = self.end, size
        self.tally.add(record.get("endpoint", ""), record["model"], record["status"] in ANSWERED, *tokens_of(record))
        self.end += size

    async def keep(self, record: dict) -> None:
        """Append a record; returns when it is on the disk. Whoever waits for its turn shares the next fsync."""
        try:
            self.append(record)
            written = self.end
            async with self.turn:
                if self.synced < written:
                    end = self.end
                    await asyncio.get_running_loop().run_in_executor(self.thread, os.fsync, self.descriptor)
                    self.synced = end
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}; what was written before is kept") from None

    def close(self) -> None:
        """Gives the lock back."""
        self.thread.shutdown()
        os.close(self.lock)
        os.close(self.descriptor)
