"""A host with OpenAI's Batch API: files and batches over real HTTP, whose questions a test's `answer` answers."""

import asyncio
import itertools
import json
import re

from aiohttp import web

from tests.support.scripted_endpoint import Server, parse, reply


class BatchHost(Server):
    """with BatchHost(answer) as host: … host.url …

    A batch is validated when it is first looked at, and ends when it is looked at for the `looks`-th time. ends(number)
    says how the number-th batch ends, "completed" by itself; "expired" and "cancelled" leave every second question
    unanswered, "failed: CODE: words" all; host.lines are then its questions. host.batches: {id: batch}. host.asked:
    questions in the order of their answers. gate: what a test does at ("files" or "batches", id of what was just made);
    what it returns is sent instead. It is called at ("looks", id), too. download(request, id of a file): the same, a
    coroutine, for what is read.
    """

    def __init__(self, answer, looks=2, ends=lambda number: "completed", gate=lambda what, id: None, **kwargs):
        super().__init__(answer, **kwargs)
        self.looks, self.ends, self.gate = looks, ends, gate
        self.files, self.batches, self.numbers = {}, {}, itertools.count(1)

    def _routes(self, app):
        super()._routes(app)
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._look)

    def _keep(self, content):
        id = f"file-{next(self.numbers)}"
        self.files[id] = content
        return id

    async def _upload(self, request):
        form = await request.post()
        assert form["purpose"] == "batch"
        id = self._keep(form["file"].file.read())
        return self.gate("files", id) or web.json_response({"id": id, "object": "file", "purpose": "batch"})

    async def _content(self, request):
        id = request.match_info["id"]
        return await self.download(request, id) or web.Response(body=self.files[id])

    async def download(self, request, id):
        return None

    async def _create(self, request):
        asked = await request.json()
        assert asked["endpoint"] == "/v1/chat/completions" and asked["completion_window"] == "24h"
        lines = self.lines = self.files[asked["input_file_id"]].splitlines()
        id, counts = f"batch_{len(self.batches) + 1}", {"total": len(lines), "completed": 0, "failed": 0}
        self.batches[id] = {"id": id, "object": "batch", "status": "validating", "request_counts": counts, "looks": 0,
                            **asked, "created_at": 0, "end": self.ends(len(self.batches) + 1)}  # fmt: skip
        return self.gate("batches", id) or web.json_response(self.batches[id])

    async def _list(self, request):
        return web.json_response({"object": "list", "data": [*self.batches.values()], "has_more": False})

    async def _look(self, request):
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return web.json_response({"error": {"message": "No such batch"}}, status=404)
        batch["looks"] += 1
        self.gate("looks", batch["id"])
        if batch["status"] in ("validating", "in_progress"):
            batch["status"] = "in_progress"
            if batch["looks"] >= self.looks:
                await self._finish(batch)
        return web.json_response(batch)

    async def _finish(self, batch):
        """Answer the questions of a batch, as far as it gets."""
        end, code, words = (*batch["end"].split(": ", 2), "", "")[:3]
        if end == "failed":
            batch |= {"errors": {"object": "list", "data": [{"code": code, "message": words}]}, "status": end}
            return
        rows = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        assert len({row["custom_id"] for row in rows}) == len(rows)
        answered, failed = [], []
        for place, row in enumerate(rows):
            if end != "completed" and place % 2:
                late = {"code": f"batch_{end}", "message": "This request could not be executed in time."}
                failed.append({"custom_id": row["custom_id"], "response": None, "error": late})
                continue
            assert (row["method"], row["url"]) == ("POST", "/v1/chat/completions")
            self.asked.append(asked := parse(row["body"], {}, 0))
            said = self.answer(asked)
            said = await said if asyncio.iscoroutine(said) else said
            said = reply(said) if isinstance(said, str) else said
            status, body = (200, said) if isinstance(said, dict) else (said.status, json.loads(said.text))
            row = {"custom_id": row["custom_id"], "response": {"status_code": status, "body": body}, "error": None}
            (answered if status == 200 else failed).append(row)
        for name, lines in (("output_file_id", answered), ("error_file_id", failed)):
            if lines:  # U+2028 in a line is no end of it
                batch[name] = self._keep("".join(json.dumps(n, ensure_ascii=False) + "\n" for n in lines).encode())
        batch["request_counts"] |= {"completed": len(answered), "failed": len(failed)}
        batch["status"] = end


def sizes(said):
    """The questions of each batch whose progress a run showed, in the order of their ends."""
    return [int(total) for total in re.findall(r"^batch_\d+: (\d+) of \1 answered", said, re.MULTILINE)]
