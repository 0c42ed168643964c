"""OpenAI's Batch API: the questions that wait at a time are asked as one file, answered within a day at half the price.

The journal holds the id of a file and of its questions before the batch is begun, and the batch's id after that: at
whatever point a run is killed, the same command finds its batches again and nothing is asked or paid for twice.
"""

import asyncio
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Coroutine, Iterable, Iterator

from agents.client import DECIDED, Endpoint
from agents.complaints import SAID, CallError, kind_of, parse, read_refusal
from agents.journal import Journal, call_key
from agents.limits import LARGEST_FILE, AdaptiveLimit, pause
from errors import UserError
from progress import say

QUIET = 2.0  # seconds without another question: then everybody waits, and what was gathered is sent
TRANSFER = 3600.0  # seconds for one file, up or down
MISSING = (404, 405, 501)  # HTTP statuses of an address that a host does not have
GONE = (404, 410)  # HTTP statuses of a file that is deleted, or older than a host keeps them
ENDED = ("completed", "failed", "expired", "cancelled")
SHOWN = 0.05  # of a batch, answered since the last line about it
AT_ONCE = 20  # files at the host at most
COUNTS = ("completed", "failed"), ("total",)
URL = "/v1/chat/completions"


class Batches:
    """`ask(name, body) -> the response's body`, of one endpoint.

    waiting: {id: line of a file} of what is not sent yet. asked: {id: future} of all that is not answered. A question's
    id is the hash of its name and of what is asked. largest: questions a file; files: how many are at the host. Where
    it lets only so many tokens wait, both become less, and more again with every file that is answered.
    """

    def __init__(self, endpoint: Endpoint, journal: Journal):
        self.endpoint, self.journal = endpoint, journal
        self.waiting, self.asked, self.last, self.tasks = {}, {}, 0.0, set()
        self.largest, self.files = LARGEST_FILE[0], AdaptiveLimit(AT_ONCE)
        self.stopped = None  # what everybody is told after `stop`
        # the library tries again what changes nothing at the host; where it gives up, the pool asks again
        self.client = endpoint.openai.with_options(max_retries=endpoint.cfg.retries)
        self.client.organization = self.client.project = None

    async def ask(self, name: str, body: dict) -> bytes:
        """Returns the body of the response, once a batch has brought it. Raises CallError for this question's failure,
        or for that of its batch; UserError after `stop`."""
        if self.stopped:
            raise self.stopped
        body = {key: value for key, value in body.items() if not key.startswith("stream")}
        id = call_key(body, name)
        self.asked[id] = asyncio.get_running_loop().create_future()
        self._wait({id: json.dumps({"custom_id": id, "method": "POST", "url": URL, "body": body}).encode()})
        try:
            return await self.asked[id]
        finally:
            del self.asked[id]

    def stop(self) -> None:
        """Wait for nothing any more; the next run finds what is under way."""
        for task in self.tasks:
            task.cancel()
        self.stopped = UserError("stopped; every answer so far is kept")
        self._fail(self.asked, self.stopped)

    # --- from questions to files ---

    def _wait(self, lines: dict[str, bytes]) -> None:
        if not self.waiting:
            self._start(self._gather())
        self.waiting |= lines
        self.last = time.monotonic()

    def _start(self, work: Coroutine) -> None:
        self.tasks.add(task := asyncio.create_task(work))
        task.add_done_callback(self.tasks.discard)

    async def _gather(self) -> None:
        """When nobody asks any more, begin what waits, and look again at files that earlier runs sent."""
        while (rest := self.last + QUIET - time.monotonic()) > 0:
            await asyncio.sleep(rest)
        files, self.waiting, waited = defaultdict(dict), {}, self.waiting
        for id, line in waited.items():
            files[self.journal.batches.get(id, "")][id] = line
        for lines in in_files(files.pop("", {}), self.largest):
            self._start(self._answer(lines))
        for file, lines in files.items():
            self._start(self._answer(lines, file))

    async def _answer(self, lines: dict[str, bytes], file: str = "") -> None:
        """Have the questions of one file answered. file: its id, if the host has it already."""
        while not self.files.free:
            await self.files.changed.given()
        self.files.enter()
        alone, cuts = int(self.files.limit) == 1, self.files.cuts
        try:
            # all that the host wrote down; what then has no answer is asked anew
            batch = await self._over(await self._begun(lines, file), len(lines))
            for name in filter(None, (batch.output_file_id, batch.error_file_id)):
                try:
                    await self.endpoint.reach(TRANSFER, self._read(name))
                except CallError as error:
                    if not file or error.status not in GONE:
                        if error.kind in DECIDED:  # to refuse a file is to refuse no question
                            raise CallError(str(error), error.status, wait=error.wait, kind="passing") from None
                        raise
                    say(f"{self.endpoint.where}: {name} of {batch.id} is gone; its questions are asked anew ({error})")
            for id in lines:
                self.journal.batches.pop(id, None)
            failure = failure_of(batch)
        except Exception as error:  # whoever waits for an answer gets it
            batch, failure = None, error

        # more tokens than the host lets wait: fewer files at a time then, and if one alone is too much, smaller ones
        again = {}
        full = getattr(failure, "code", "") == "queue" and not (file and batch)
        if full and not (alone and len(lines) == 1):
            for id in lines:  # a file whose batch the host did not begin is not sent again as it is
                self.journal.batches.pop(id, None)
            self.files.congested(cuts)
            self.largest, again = len(lines) // 2 if alone else self.largest, lines
            at_once = f"{int(self.files.limit)} at a time then, of {self.largest} questions at most"
            say(f"{self.endpoint.where}: {failure}; files: {at_once}")
        elif batch and batch.status != "failed":
            self.files.answered()
            if self.largest < min(LARGEST_FILE[0], 2 * len(lines)):
                self.largest += self.largest // 4 + 1
        if file and batch:  # what an earlier run's batch has no answer to was not tried by this one
            again = {id: line for id, line in lines.items() if id in self.asked and not self.asked[id].done()}
        self.files.leave()
        self._fail(lines.keys() - again, failure)
        if again:
            self._wait(again)

    # --- one batch ---

    async def _begun(self, lines: dict[str, bytes], file: str) -> object:
        """Returns the batch of a file: a new one, or the one that was begun before."""
        earlier = bool(file)
        try:
            if not earlier:
                content = "questions.jsonl", b"".join(line + b"\n" for line in lines.values())
                file = (await self._call(self.client.files.create(file=content, purpose="batch"))).id
                await self.journal.keep({"key": file, "status": "batch", "batch": "", "questions": [*lines]})
            batch = await self._call(self._batch_of(file, earlier))
        except CallError as error:
            if not earlier or not error.fatal:
                raise
            say(f"{self.endpoint.where} does not know {file} of an earlier run; its questions are asked anew ({error})")
            return await self._begun(lines, "")
        await self.journal.keep({"key": file, "status": "batch", "batch": batch.id, "questions": []})
        return batch

    async def _batch_of(self, file: str, earlier: bool) -> object:
        if known := self.journal.files[file]:
            return await self.client.batches.retrieve(known)
        if earlier:  # the run was killed, or cut off, before it knew whether the batch was begun
            async for batch in self.client.batches.list(limit=100):
                if batch.input_file_id == file:
                    return batch
        once = self.endpoint.openai  # not tried again by itself
        return await once.batches.create(input_file_id=file, endpoint=URL, completion_window="24h")

    async def _over(self, batch: object, waited_for: int) -> object:
        """Returns the batch as it is when it has ended."""
        shown = -1.0
        for looks in itertools.count(1):
            # hosts leave out counts, or send 0 in all of them at first
            done, total = (sum(getattr(batch.request_counts, kind, 0) or 0 for kind in kinds) for kinds in COUNTS)
            if batch.status in ENDED or shown < 0 or done >= shown + max(1, SHOWN * total):
                say(f"{batch.id}: {done} of {total or waited_for} answered, {batch.status}")
                shown = done
            if batch.status in ENDED:
                return batch
            await asyncio.sleep(pause(min(looks, 10)))
            batch = await self._call(self.client.batches.retrieve(batch.id))

    async def _read(self, file: str) -> None:
        """Hand out the lines of a file as they arrive: it may be a gigabyte."""
        async with self.client.files.with_streaming_response.content(file) as response:
            rest = b""
            async for chunk in response.iter_bytes():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._hand_out(parse(line))
            if rest:
                self._hand_out(parse(rest))

    def _hand_out(self, row: object) -> None:
        """Give an answer or an error to whoever waits for it. Raises CallError for what is no line of a batch."""
        if not isinstance(row, dict):  # a web page, or half a line: the file is to be read again
            raise CallError(f"says {str(row)[:120]!r} where an answer of a batch was to be read", kind="passing")
        answered = self.asked.get(row.get("custom_id"))
        failed = row["error"].get("code") if isinstance(row.get("error"), dict) else ""
        if answered is None or answered.done() or str(failed).startswith("batch_"):  # the batch's end, not an answer
            return
        response = row.get("response") or {}
        status, body = response.get("status_code") or 0, json.dumps(response.get("body") or row).encode()
        if status == 200:
            answered.set_result(body)
        else:
            answered.set_exception(read_refusal(status, body, key=self.endpoint.key))

    async def _call(self, asking: Awaitable) -> object:
        """Returns a file or a batch. Raises CallError; to refuse one is to refuse no question, but all of them."""
        try:
            found = await self.endpoint.reach(TRANSFER, asking)
        except CallError as error:
            if queue_is_full(str(error)):
                raise CallError(str(error), error.status, "queue", error.wait, kind="congested") from None
            if error.kind not in DECIDED and error.status not in MISSING:
                raise
            words = f"takes no batch ({error}); set endpoints.{self.endpoint.name}.batch=false if it never does"
            raise CallError(words, error.status, fatal=True, kind="passing") from None
        if not getattr(found, "id", ""):
            raise CallError(f"says {str(found)[:120]!r} where a file or a batch was asked for", kind="passing")
        return found

    def _fail(self, ids: Iterable[str], failure: Exception) -> None:
        for id in ids:
            if id in self.asked and not self.asked[id].done():
                self.asked[id].set_exception(failure)


def in_files(lines: dict[str, bytes], most: int) -> Iterator[dict[str, bytes]]:
    """Yield parts of {id: line}, each no larger than a file may be. most: lines a file."""
    part, size = {}, 0
    for id, line in lines.items():
        if len(part) == most or (part and size + len(line) >= LARGEST_FILE[1]):
            yield part
            part, size = {}, 0
        part[id], size = line, size + len(line) + 1
    if part:
        yield part


def failure_of(batch: object) -> CallError:
    """Returns why questions of a batch that has ended have no answer. code "queue": the host has too many of them."""
    if batch.status != "failed":
        return CallError(f"{batch.id} {batch.status} without an answer to this question", kind="passing")
    errors = getattr(batch.errors, "data", None) or []
    words = f"{batch.id} failed: {'; '.join(f'{error.code}: {error.message}' for error in errors[:3])}"
    if queue_is_full(words) or kind_of(400, words) == "congested":
        return CallError(words, code="queue", kind="congested")
    return CallError(words, fatal=True, kind="passing")


def queue_is_full(words: str) -> bool:
    """Whether a host says that more tokens wait in its batches than it lets wait."""
    return any(row.search(words) for row in SAID["queue"])
