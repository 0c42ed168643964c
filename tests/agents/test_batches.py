"""OpenAI's Batch API: whole runs against a host with files and batches."""

import asyncio
import itertools
import json
import subprocess
import time
from collections import Counter

import pytest
from aiohttp import web

from agents.batches import Batches, in_files
from agents.client import Endpoint
from agents.journal import Journal
from agents.limits import EndpointConfig
from errors import UserError
from tests.support.batch_host import BatchHost, sizes
from tests.support.crv_cli import ROOT, check_refused, command, run, write_problems
from tests.support.moody_server import contents, moody, slowly, undisturbed
from tests.support.scripted_endpoint import RESET, Server, error

BATCH = ("endpoints.teacher.batch=true", "constant.batches.QUIET=0.1")
QUEUE = "failed: token_limit_exceeded: Enqueued token limit reached for m. Please try again once some batches are done."


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run whose questions were asked one by one: (folder, problems, the requests it took)."""
    return undisturbed(tmp_path_factory.mktemp("online"))


def questions(asked):
    return Counter(json.dumps(one.body, sort_keys=True) for one in asked)


def test_a_run_by_batches_is_the_run_one_by_one(whole, tmp_path):
    """Waves are whole, though `concurrency` is 8, and every question is asked once, as it is online."""
    out, problems, asked = whole
    with BatchHost(moody) as host:
        calm = ("constant.batches.QUIET=0.5", "endpoints.teacher.requests_per_minute=1")
        done = run(problems, tmp_path / "out", host.url, *BATCH, *calm)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(out)
    assert questions(host.asked) == questions(asked)
    assert sizes(done.stderr)[:2] == [60, 60] and len(host.batches) < 25
    assert "batch_1: 0 of 60 answered, validating" in done.stderr


@pytest.mark.parametrize("kills", [[("files", 2), ("batches", 4)], [("looks", 3), ("looks", 9)]])
def test_a_killed_run_finds_its_batches_again(whole, tmp_path, kills):
    """Killed between file and batch, before it knew the batch's id, and while it waited for one."""
    out, problems, asked = whole
    seen, process = Counter(), None

    def kill(what, id):
        seen[what] += 1
        if (what, seen[what]) in kills:
            process.kill()
            time.sleep(0.2)

    with BatchHost(moody, looks=3, gate=kill) as host:
        for _ in kills:
            words = command(problems, tmp_path / "out", host.url, *BATCH)
            process = subprocess.Popen(words, cwd=ROOT, stdout=-3, stderr=-3)
            process.wait(120)
            assert process.returncode == -9
        done = run(problems, tmp_path / "out", host.url, *BATCH)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(out)
    assert questions(host.asked) == questions(asked)


def test_a_batch_whose_answer_was_lost_is_not_begun_twice(whole, tmp_path):
    out, problems, asked = whole

    def lose(what, id):
        if id == "batch_2":
            return web.json_response({"error": {"message": "upstream"}}, status=502)

    with BatchHost(moody, gate=lose) as host:
        done = run(problems, tmp_path / "out", host.url, *BATCH)
    assert done.returncode == 0, done.stderr
    assert questions(host.asked) == questions(asked) and contents(tmp_path / "out") == contents(out)


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_a_batch_did_not_get_to_is_asked_again(whole, tmp_path, end):
    out, problems, asked = whole
    with BatchHost(moody, ends=lambda number: end if number in (1, 4) else "completed") as host:
        done = run(problems, tmp_path / "out", host.url, *BATCH)
    assert done.returncode == 0, done.stderr
    assert questions(host.asked) == questions(asked) and contents(tmp_path / "out") == contents(out)


def test_errors_of_single_lines_are_those_of_single_calls(tmp_path):
    """A refusal stands, trouble of the server passes, and what it wants otherwise is asked otherwise."""

    def answer(asked):
        seen[asked.problem] += 1
        if "max_tokens" in asked.body:
            return error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if asked.problem.startswith("What is 1 "):
            return error(400, "I only do mathematics")
        if asked.problem.startswith("What is 2 ") and seen[asked.problem] < 4:
            return error(500, "out of memory")
        return {"critic": "medium", "verifier": "YES"}.get(asked.role, f"Then\u2028\nOops, = {int(asked.answer) + 1}")

    seen, problems = Counter(), write_problems(tmp_path / "p.jsonl", 6)
    with BatchHost(answer) as host:
        done = run(problems, tmp_path / "out", host.url, *BATCH)
    assert done.returncode == 0, done.stderr
    assert "6 problems = 5 kept + 1 rejected" in done.stderr and "1 critic_refused" in done.stderr
    assert seen["What is 2 plus 2?"] - seen["What is 3 plus 3?"] == 2, seen
    traces = [json.loads(line) for line in (tmp_path / "out/traces.jsonl").read_text().rstrip().split("\n")]
    assert [row["incorrect"] for row in traces[1:]] == [f"Then\u2028\nOops, = {2 * n + 1}" for n in range(2, 7)]


def test_more_tokens_than_the_host_queues(whole, tmp_path):
    """Files become smaller, and wait for each other."""
    out, problems, asked = whole

    def ends(number):
        busy = [b for b in list(host.batches.values()) if b["status"] in ("validating", "in_progress")]
        return "completed" if not busy and len(host.lines) <= 25 else QUEUE

    with BatchHost(moody, ends=ends) as host:
        done = run(problems, tmp_path / "out", host.url, *BATCH)
    assert done.returncode == 0, done.stderr
    assert questions(host.asked) == questions(asked) and contents(tmp_path / "out") == contents(out)
    assert "token_limit_exceeded" in done.stderr and max(sizes(done.stderr), default=0) <= 25


@pytest.mark.parametrize("words", ["rate_limit_exceeded: Too many requests", "429: RESOURCE_EXHAUSTED"])
def test_a_batch_that_failed_as_its_host_was_busy_does_not_end_the_run(tmp_path, words):
    problems = write_problems(tmp_path / "p.jsonl", 3)
    with BatchHost(moody, ends=lambda number: f"failed: {words}" if number == 1 else "completed") as host:
        done = run(problems, tmp_path / "out", host.url, *BATCH)
    assert done.returncode == 0 and set(questions(host.asked).values()) == {1}, done.stderr


def test_files_grow_back_when_the_queue_has_room_again(tmp_path, monkeypatch):
    """Refused as files of 40, 40 and 20 questions, and then no more."""
    monkeypatch.setattr("agents.batches.QUIET", 0.1)
    monkeypatch.setattr("agents.limits.FIRST_PAUSE", 0.01)

    async def wave(batches, name):
        before = len(host.batches)
        bodies = [{"model": "m", "messages": [{"role": "user", "content": f"{n}"}]} for n in range(40)]
        await asyncio.gather(*(batches.ask(f"{name}/{n}", body) for n, body in enumerate(bodies)))
        return max(b["request_counts"]["completed"] for b in list(host.batches.values())[before:])

    async def waves():
        endpoint, journal = Endpoint("teacher", EndpointConfig(host.url, "m", batch=True)), Journal(tmp_path / "j")
        batches = Batches(endpoint, journal)
        try:
            return [await wave(batches, name) for name in "abcd"]
        finally:
            await endpoint.close()
            journal.close()

    with BatchHost(lambda asked: "yes", ends=lambda n: QUEUE if n <= 3 else "completed") as host:
        largest = asyncio.run(waves())
    assert largest[0] <= 20 and largest[-1] > 30, largest


@pytest.mark.parametrize("end", ["expired", "failed: internal_error: Try again later.", QUEUE])
def test_what_an_earlier_runs_batch_left_open_counts_as_no_try(tmp_path, end):
    """With retries=0, too."""
    problems, process = write_problems(tmp_path / "p.jsonl", 20), None

    def kill(what, id):
        if what == "looks":
            process.kill()
            time.sleep(0.2)

    with BatchHost(moody, ends=lambda number: end if number == 1 else "completed", gate=kill) as host:
        words = (*BATCH, "endpoints.teacher.retries=0")
        line = command(problems, tmp_path / "out", host.url, *words)
        process = subprocess.Popen(line, cwd=ROOT, stdout=-3, stderr=-3)
        process.wait(120)
        host.gate = lambda what, id: None
        done = run(problems, tmp_path / "out", host.url, *words)
    assert process.returncode == -9 and done.returncode == 0, done.stderr
    assert "transport" not in done.stderr and set(questions(host.asked).values()) == {1}, done.stderr


def test_a_host_that_refuses_the_batch_itself_while_its_queue_is_full(tmp_path):
    """And not later: it is asked again in smaller files, and the run is not ended."""
    problems, refused = write_problems(tmp_path / "p.jsonl", 8), []

    def full(what, id):
        if what == "batches" and len(host.lines) > 3:
            refused.append(host.batches.pop(id))
            said = {"error": {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for m"}}
            return web.json_response(said, status=400)

    with BatchHost(moody, gate=full) as host:
        done = run(problems, tmp_path / "out", host.url, *BATCH, "endpoints.teacher.retries=0")
    assert done.returncode == 0 and len(refused) > 1, done.stderr
    assert set(questions(host.asked).values()) == {1}


def test_a_batch_that_the_host_refuses_ends_the_run_with_its_words(tmp_path):
    problems = write_problems(tmp_path / "p.jsonl", 3)
    with BatchHost(moody, ends=lambda number: "failed: mismatched_model: The model m2 is none of ours") as host:
        done = run(problems, tmp_path / "out", host.url, *BATCH)
        check_refused(done, "batch_1 failed: mismatched_model: The model m2 is none of ours", lines=9)
        host.ends = lambda number: "completed"
        assert run(problems, tmp_path / "out", host.url, *BATCH).returncode == 0


def test_a_host_without_batches(tmp_path):
    problems = write_problems(tmp_path / "p.jsonl", 3)
    with Server(moody) as server:
        done = run(problems, tmp_path / "out", server.url, *BATCH)
    check_refused(done, rf"{server.url} takes no batch \(HTTP 404.*set endpoints.teacher.batch=false", lines=9)
    assert server.asked == []
    with BatchHost(
        moody, gate=lambda what, id: web.Response(text="<html>log in</html>", content_type="text/html")
    ) as host:
        done = run(problems, tmp_path / "other", host.url, *BATCH)
    check_refused(done, "says '<html>log in</html>' where a file or a batch was asked for", lines=9)


def test_another_host_does_not_know_the_batch(tmp_path):
    """After a move its questions are asked there."""
    problems = write_problems(tmp_path / "p.jsonl", 20)
    with BatchHost(moody, looks=10**6) as first:
        words = command(problems, tmp_path / "out", first.url, *BATCH)
        process = subprocess.Popen(words, cwd=ROOT, stdout=-3, stderr=-3)
        while not any(batch["looks"] for batch in list(first.batches.values())):
            time.sleep(0.05)
        process.kill()
        process.wait()
    with BatchHost(moody) as host:
        done = run(problems, tmp_path / "out", host.url, *BATCH)
    assert done.returncode == 0 and "its questions are asked anew" in done.stderr, done.stderr
    assert "20 problems = " in done.stderr and not first.asked


def test_a_cap_on_the_cost_holds_for_waves(tmp_path):
    """A call of 11 + 7 tokens costs half of 18 where a million tokens cost a million; it may cost 32 and some."""
    problems = write_problems(tmp_path / "p.jsonl", 40)
    words = (
        *BATCH,
        "sampling.max_tokens=64",
        "endpoints.teacher.price_completion=1e6",
        "endpoints.teacher.price_prompt=1e6",
    )
    with BatchHost(moody) as host:
        done = run(problems, tmp_path / "out", host.url, *words, "max_cost=2000")
        check_refused(done, r"max_cost 2000 is reached: [\d.]+ spent on \d+ calls, and another one may cost", lines=99)
        spent = len(host.asked) * 9
        assert 1000 < spent <= 2000
        assert run(problems, tmp_path / "out", host.url, *words, "max_cost=1e6").returncode == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert sum(report["cost"].values()) == pytest.approx(len(host.asked) * 9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (['endpoints.teacher.base_url=["http://a/v1", "http://b/v1"]'], "batch needs a single base_url"),
        (["endpoints.teacher.extra_body={stream: true}"], "answers of a batch are no streams"),
        (
            ["endpoints.b={base_url: http://b/v1, model: m}", "agents.critic=[teacher, b]"],
            "agents.critic is bound to teacher, b, .* and one with batch=true stands alone",
        ),
    ],
)
def test_what_cannot_be(tmp_path, words, said):
    problems = write_problems(tmp_path / "p.jsonl", 1)
    check_refused(run(problems, tmp_path / "out", "http://127.0.0.1:9/v1", *BATCH, *words), said)


def test_files_are_no_larger_than_a_host_takes(monkeypatch):
    lines = {str(n): b"x" * (9 if n % 2 else 99) for n in range(40)}
    monkeypatch.setattr("agents.batches.LARGEST_FILE", (10, 500))
    parts = list(in_files(lines, 10))
    assert dict(itertools.chain(*(part.items() for part in parts))) == lines
    assert all(len(part) <= 10 and sum(len(line) + 1 for line in part.values()) <= 500 for part in parts)
    assert len(list(in_files(lines, 3))) == 14 and not list(in_files({}, 3))


def test_an_error_elsewhere_does_not_wait_for_a_batch(tmp_path):
    """It may be a day; the next run finds it."""
    problems = write_problems(tmp_path / "p.jsonl", 20)
    words = ("endpoints.own.model=m", "endpoints.own.retries=0", "agents.verifier=own")
    with BatchHost(moody) as host, Server(lambda asked: RESET) as own:
        host.gate = lambda what, id: setattr(host, "looks", 2 if id == "batch_1" else 10**6)
        done = run(problems, tmp_path / "out", host.url, *BATCH, *words, f"endpoints.own.base_url={own.url}")
    check_refused(done, "endpoint own at", lines=9)


def test_questions_online_go_on_beside_batches(tmp_path):
    """A local Verifier, and a teacher behind batches."""
    problems = write_problems(tmp_path / "p.jsonl", 30)
    with BatchHost(moody) as host, Server(slowly) as own:
        words = (f"endpoints.own.base_url={own.url}", "endpoints.own.model=m", "agents.verifier=own")
        done = run(problems, tmp_path / "out", host.url, *BATCH, *words)
    assert done.returncode == 0, done.stderr
    assert {asked.role for asked in own.asked} == {"verifier"} and "verifier" not in {a.role for a in host.asked}


def test_a_download_that_breaks_off_is_tried_again(whole, tmp_path):
    out, problems, asked = whole
    broken = []

    async def cut(request, id):
        if not broken:
            broken.append(id)
            half = web.StreamResponse(headers={"Content-Length": str(len(host.files[id]))})
            await half.prepare(request)
            await half.write(host.files[id][: len(host.files[id]) // 2])
            request.transport.abort()
            return half

    with BatchHost(moody) as host:
        host.download = cut
        done = run(problems, tmp_path / "out", host.url, *BATCH)
    assert done.returncode == 0 and broken, done.stderr
    assert questions(host.asked) == questions(asked) and contents(tmp_path / "out") == contents(out)


@pytest.mark.parametrize("said", [(400, "not ready"), (410, "expired"), (200, "<html>log in</html>"), (200, "half")])
def test_a_download_that_is_refused_or_no_file_is_tried_again_and_nothing_is_asked_twice(whole, tmp_path, said):
    out, problems, asked = whole
    tried = []

    async def refuse(request, id):
        if not tried:
            tried.append(id)
            half = host.files[id].decode()[: len(host.files[id]) // 2]
            return web.Response(status=said[0], text=half if said[1] == "half" else said[1])

    with BatchHost(moody) as host:
        host.download = refuse
        done = run(problems, tmp_path / "out", host.url, *BATCH)
    assert done.returncode == 0 and tried, done.stderr
    assert questions(host.asked) == questions(asked) and contents(tmp_path / "out") == contents(out)


def test_answers_that_the_host_has_deleted_are_asked_for_anew(tmp_path):
    """Only they, and only once it says so a second time."""
    problems, gone = write_problems(tmp_path / "p.jsonl", 3), []

    async def deleted(request, id):
        if id in gone or not gone:
            gone.append(id)
            return web.json_response({"error": {"message": "No such File object"}}, status=404)

    with BatchHost(moody) as host:
        host.download = deleted
        done = run(problems, tmp_path / "out", host.url, *BATCH)
    assert done.returncode == 0 and "batch_1 is gone; its questions are asked anew" in done.stderr, done.stderr
    assert len(gone) == 2 and sorted(questions(host.asked).values())[-4:] == [1, 2, 2, 2]


def test_nothing_is_sent_after_the_end(tmp_path):
    """A question that a probe has held up until the others have stopped waits for no batch."""

    async def late():
        endpoint, journal = Endpoint("teacher", EndpointConfig(host.url, "m", batch=True)), Journal(tmp_path / "j")
        batches = Batches(endpoint, journal)
        batches.stop()
        try:
            await asyncio.wait_for(batches.ask("name", {"model": "m", "messages": []}), 5)
        finally:
            await endpoint.close()

    with BatchHost(moody) as host, pytest.raises(UserError, match="stopped"):
        asyncio.run(late())
    assert not host.files
