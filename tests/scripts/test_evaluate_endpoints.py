"""evaluate.py over endpoints, through its command line: real HTTP, scripted answers."""

import json
import subprocess
import sys
import time

import pytest

from tests.support.evaluate_cli import ROOT, error_line, kill_at, lines, run
from tests.support.scripted_endpoint import Server, error, reply

SLOW = "9^{9^{9^{9}}}"  # the grader gives up on it after some seconds


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """Eight problems n + n. Beside them slow.jsonl has a ninth, whose answer takes the grader seconds to compare."""
    file = tmp_path_factory.mktemp("problems") / "sums.jsonl"
    rows = [{"id": f"p{n}", "problem": f"What is {n} plus {n}?", "answer": str(2 * n)} for n in range(1, 9)]
    slow = {"id": "p9", "problem": "What is 9 plus 9?", "answer": "7^{7^{7^{7}}}"}
    file.with_name("slow.jsonl").write_text(json.dumps(slow) + "\n")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def number(asked):
    return int(asked.body["messages"][-1]["content"].split()[2])


def think(asked):
    """A function of the question and the seed: right for even seeds."""
    n = number(asked)
    value = SLOW if n == 9 else 2 * n + asked.seed % 2
    return reply(f"So \\boxed{{{value}}}.", reasoning=f"hm, seed {asked.seed}", model="m", completion_tokens=20 + n)


def words(out, url, problems, *more):
    return [
        sys.executable, "evaluate.py", f"out={out}", "models.served=endpoint:mine", f"benchmarks.sums.file={problems}",
        f"endpoints.mine.base_url={url}", "endpoints.mine.model=m", "endpoints.mine.concurrency=2",
        "endpoints.mine.retries=1", "probe=false", "max_new_tokens=64", *more,
    ]  # fmt: skip


SAMPLED = ("samples=3", "sampling.temperature=0.6", "sampling.top_p=0.95")


def server(answer):
    return Server(None, probe=answer)  # what is no question of CRV's goes to `probe`


def test_every_sample_is_a_request_with_its_own_seed_and_none_is_asked_twice(tmp_path, problems):
    out = tmp_path / "eval"
    with server(think) as it:
        done = run(*words(out, it.url, problems, *SAMPLED, "system=be brief", "benchmarks.sums.limit=3"))
        assert done.returncode == 0, done.stderr
        bodies = [asked.body for asked in it.probes]
        assert len(bodies) == 9 == len({body["seed"] for body in bodies})
        assert all(body["temperature"] == 0.6 and body["top_p"] == 0.95 for body in bodies)
        assert all(body["max_tokens"] == 64 and "top_k" not in body for body in bodies)
        assert {body["messages"][0]["content"] for body in bodies} == {"be brief"}

        made = lines(out / "generations.jsonl")
        assert sorted((row["problem_id"], row["sample"]) for row in made) == [
            (f"p{n}", sample) for n in (1, 2, 3) for sample in (0, 1, 2)
        ]
        assert all(row["text"].startswith("<think>hm, seed ") and "</think>So \\boxed{" in row["text"] for row in made)
        assert {row["tokens"] for row in made} == {21, 22, 23}
        assert {(row["finish_reason"], row["endpoint"]) for row in made} == {("stop", "mine")}
        grades = {row["generation"]: row["status"] for row in lines(out / "grades.jsonl")}
        for row in made:
            odd = int(row["text"].split("seed ")[1].split("<")[0]) % 2
            assert grades[row["key"]] == ("wrong" if odd else "correct")
        right = list(grades.values()).count("correct")
        assert f"{right} correct, {9 - right} wrong" in done.stdout and "3 responses a problem" in done.stdout

        again = run(*words(out, it.url, problems, *SAMPLED, "system=be brief", "benchmarks.sums.limit=3"))
        assert again.returncode == 0 and len(it.probes) == 9
        more = run(*words(out, it.url, problems, *SAMPLED, "system=be brief", "benchmarks.sums.limit=3", "samples=4"))
        assert more.returncode == 0 and len(it.probes) == 12, "the samples that are there are kept"


def test_what_a_server_cuts_or_will_not_answer_is_kept_counted_and_not_asked_again(tmp_path, problems):
    def answer(asked):
        n = number(asked)
        if n == 2:
            return reply("the box in it is \\boxed{4} but", finish="length")
        if n == 3:
            return reply(None, finish="length", reasoning="\\boxed{6}? let me see")
        if n == 4:
            return error(400, "this prompt is too long")
        if n == 5:
            return reply("\\boxed{10}?</think>I do not know", finish="stop")
        return think(asked)

    out = tmp_path / "eval"
    with server(answer) as it:
        done = run(*words(out, it.url, problems, "endpoints.mine.concurrency=1", "--generate-only"))
        assert done.returncode == 0, done.stderr
        assert not (out / "grades.jsonl").exists() and not (out / "table.md").exists()
        asked = len(it.probes)
    done = run(*words(out, it.url, problems, "--grade-only"))  # the server is gone
    assert done.returncode == 0, done.stderr
    made = {row["problem_id"]: row for row in lines(out / "generations.jsonl")}
    assert asked == 8 == len(made)
    assert made["p2"]["text"] == "the box in it is \\boxed{4} but" and made["p2"]["finish_reason"] == "length"
    assert made["p3"]["text"] == "<think>\\boxed{6}? let me see" and made["p3"]["finish_reason"] == "length"
    assert made["p4"]["finish_reason"] == "refused" and "too long" in made["p4"]["detail"]
    assert made["p5"]["text"].startswith("<think>")
    grades = {row["problem_id"]: row for row in lines(out / "grades.jsonl")}
    assert grades["p2"]["status"] == "correct", "boxed outside a thought before the cut"
    assert grades["p3"]["status"] == "truncated"
    assert grades["p4"]["status"] == "no_answer" and "too long" in grades["p4"]["detail"]
    assert grades["p5"]["status"] in ("no_answer", "wrong")
    assert "1 truncated" in done.stdout and "no answer" in done.stdout


@pytest.mark.slow
def test_killed_while_sampling_and_while_grading_ends_as_if_never_killed(tmp_path, problems):
    sampled = (*SAMPLED, f"benchmarks.slow.file={problems.with_name('slow.jsonl')}", "benchmarks.slow.samples=1")

    async def slowly(asked):
        import asyncio

        await asyncio.sleep(0.1)
        return think(asked)

    whole, out = tmp_path / "whole", tmp_path / "killed"
    with server(think) as it:
        assert run(*words(whole, it.url, problems, *sampled)).returncode == 0
    with server(slowly) as it:
        command = words(out, it.url, problems, *sampled)
        kill_at(command, out / "generations.jsonl", 5)
        with (out / "generations.jsonl").open("ab") as torn:
            torn.write(b'{"key": "cut in the mid')
        kept, before = (out / "generations.jsonl").read_bytes().count(b"\n"), len(it.probes)
        assert before - kept <= 2, "only what was in flight is lost"
        kill_at(command, out / "grades.jsonl", 5)
        assert len(it.probes) - before == 25 - kept, "nothing that is kept is asked again"
        graded = lines(out / "grades.jsonl")
        assert 5 <= len(graded) <= 24 and "p9" not in {row["problem_id"] for row in graded}, "appended as they come"
        done = run(*command)
        assert done.returncode == 0, done.stderr
    for name, fields in {"generations": ("text", "tokens", "sample"), "grades": ("status", "extracted")}.items():
        one, two = (
            {row["key"]: [row[field] for field in fields] for row in lines(folder / f"{name}.jsonl")}
            for folder in (whole, out)
        )
        assert one == two and len(one) == 25 and "timeout" in str(lines(out / "grades.jsonl"))
    assert (whole / "table.md").read_text() == (out / "table.md").read_text()


def test_another_model_than_asked(tmp_path, problems):
    out = tmp_path / "eval"
    with server(think) as it:
        it.models = {"object": "list", "data": [{"id": "other"}, {"id": "third"}]}
        line = error_line(run(*words(out, it.url, problems)))
        assert "does not serve m but other, third" in line and not it.probes
        it.models = {"object": "list", "data": [{"id": "m"}]}
        it.probe = lambda asked: think(asked) | {"model": "other"}
        assert "answers as other, but m was asked for" in error_line(run(*words(out, it.url, problems)))
        assert not (out / "generations.jsonl").exists()
        (out / "generations.jsonl").write_text('{"key": "of a first answer, ki')
        it.probe = think
        corrected = run(*words(out, it.url, problems, "max_new_tokens=32", "benchmarks.sums.limit=2"))
        assert corrected.returncode == 0, "a run that kept nothing refuses no other configuration"


def test_a_server_that_refuses_everything_or_breaks_leaves_what_was_kept(tmp_path, problems):
    out = tmp_path / "eval"
    with server(lambda asked: error(422, "no such field: top_p")) as it:
        line = error_line(run(*words(out, it.url, problems)))
        assert "refuses top_p; set endpoints.mine.extra_body.top_p=null to leave it out" in line
        assert "no such field: top_p" in line
        assert not (out / "generations.jsonl").exists(), "the request may be wrong: no answer is made of it"

        refused = len(it.probes)
        it.probe = lambda asked: think(asked) if len(it.probes) < refused + 4 else error(401, "who are you?")
        assert "who are you?" in error_line(run(*words(out, it.url, problems, "endpoints.mine.concurrency=1")))
        kept = (out / "generations.jsonl").read_text()
        assert kept.count("\n") == 3
        assert "served" in run(*words(out, it.url, problems, "--render-only")).stdout
        it.probe = think
        done = run(*words(out, it.url, problems))
    assert done.returncode == 0, done.stderr
    assert (out / "generations.jsonl").read_text().startswith(kept)
    assert len(lines(out / "generations.jsonl")) == 8


def test_a_server_that_refuses_what_is_sent_and_one_with_a_small_window(tmp_path, problems):
    """Mistral knows no seed, Claude no top_p beside a temperature; protocol=paper asks for 32,768 tokens."""

    def answer(asked):
        for key in ("seed", "top_p"):
            if key in asked.body:
                return error(422, f"body.{key}: Extra inputs are not permitted")
        if asked.body["max_tokens"] > 2048:
            said = f"max_tokens={asked.body['max_tokens']} cannot be greater than max_model_len=2048."
            return error(400, f"{said} Please request fewer output tokens.")
        return f"\\boxed{{{2 * number(asked)}}}"

    out = tmp_path / "eval"
    with server(answer) as it:
        done = run(*words(out, it.url, problems, "protocol=paper", "max_new_tokens=32768",
                          "endpoints.mine.extra_body.top_p=null"))  # fmt: skip
        assert done.returncode == 0, done.stderr
        asked = len(it.probes)
    assert "refuses seed, which is left out" in done.stderr and "answers are shortened to fit" in done.stderr
    made = lines(out / "generations.jsonl")
    assert {(row["finish_reason"], *row["left_out"]) for row in made} == {("stop", "seed")} and len(made) == 8
    assert asked <= 8 + 2 * 2, "what was found out is not tried with every question"


def test_a_question_that_fails_alone_is_asked_again_next_time(tmp_path, problems):
    out = tmp_path / "eval"
    with server(lambda asked: error(500, "boom") if number(asked) == 2 else think(asked)) as it:
        done = run(*words(out, it.url, problems, "benchmarks.sums.limit=4", "endpoints.mine.concurrency=1"))
        assert "1 of the questions got no answer (the last one: HTTP 500: boom)" in error_line(done)
        assert len(lines(out / "generations.jsonl")) == 3 and (out / "table.md").exists()
        it.probe = think
        done = run(*words(out, it.url, problems, "benchmarks.sums.limit=4"))
    assert done.returncode == 0 and len(lines(out / "generations.jsonl")) == 4


def test_max_cost_counts_what_earlier_runs_spent(tmp_path, problems):
    prices = ("endpoints.mine.price_prompt=0", "endpoints.mine.price_completion=1e6", "endpoints.mine.concurrency=1")
    out = tmp_path / "eval"
    with server(think) as it:
        line = error_line(run(*words(out, it.url, problems, *prices, "max_cost=70")))
        assert "max_cost 70 is reached" in line
        kept = len(lines(out / "generations.jsonl"))
        assert kept == len(it.probes) == 3  # 21 + 22 + 23
        assert "max_cost 75 is reached" in error_line(run(*words(out, it.url, problems, *prices, "max_cost=75")))
        assert len(it.probes) == 3


def test_answers_whose_prompt_came_from_a_cache_are_kept_and_cost_less(tmp_path, problems):
    def cached(asked):
        said = think(asked)
        said["usage"]["prompt_tokens_details"] = {"cached_tokens": 8}
        return said

    price = ("endpoints.mine.price_prompt=1e6", "endpoints.mine.price_cached=0", "max_cost=40")
    with server(cached) as it:
        assert run(*words(tmp_path / "eval", it.url, problems, "benchmarks.sums.limit=4", *price)).returncode == 0
        assert run(*words(tmp_path / "eval", it.url, problems, *price)).returncode == 0
        prompt_tokens = lines(tmp_path / "eval" / "generations.jsonl")[0]["prompt_tokens"]
        assert len(it.probes) == 8 and 8 * (prompt_tokens - 8) < 40 < 8 * prompt_tokens
    assert all(row["cached_tokens"] == 8 for row in lines(tmp_path / "eval" / "generations.jsonl"))


def test_one_run_at_a_time_in_a_folder_and_looking_is_free(tmp_path, problems):
    import asyncio

    async def hang(asked):
        if number(asked) > 2:
            await asyncio.sleep(600)
        return think(asked)

    out = tmp_path / "eval"
    with server(hang) as it:
        command = words(out, it.url, problems)
        first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while len(it.probes) < 4 and time.monotonic() < deadline:
                time.sleep(0.05)
            before = {file.name: file.read_bytes() for file in out.iterdir()}
            assert "is in use by another run" in error_line(run(*command, "title=Other"))
            assert {file.name: file.read_bytes() for file in out.iterdir()} == before
            assert run(*command, "--render-only").returncode == 0
        finally:
            first.kill()
            first.wait()


def test_a_line_damaged_in_the_middle_is_named_and_nothing_is_overwritten(tmp_path, problems):
    out = tmp_path / "eval"
    with server(think) as it:
        assert run(*words(out, it.url, problems)).returncode == 0
        file = out / "generations.jsonl"
        rows = file.read_text().splitlines(keepends=True)
        file.write_text("".join([rows[0], rows[1][:40] + "\n", *rows[2:], '{"torn']))
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        assert "generations.jsonl:2 is damaged" in error_line(run(*words(out, it.url, problems, "title=Other")))
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_label_makes_another_model_of_the_same_name(tmp_path, problems):
    out = tmp_path / "eval"
    with server(think) as it:
        assert run(*words(out, it.url, problems, "benchmarks.sums.limit=2")).returncode == 0
        labelled = ("benchmarks.sums.limit=2", "models.served=endpoint:mine@step 200")
        assert run(*words(out, it.url, problems, *labelled)).returncode == 0
        assert len(it.probes) == 4
        moved = ("benchmarks.sums.limit=2", "endpoints.mine.timeout=99", "endpoints.mine.concurrency=7")
        assert run(*words(out, it.url, problems, *moved)).returncode == 0
        assert len(it.probes) == 4


def test_a_private_benchmark_stays_out_of_shared_files_and_logs(tmp_path):
    """GPQA's authors ask that its questions never appear in plain text. The row here is made up."""
    secret = "the colour of the made-up quux"
    row = {"Record ID": "r1", "Question": f"What is {secret}?", "Correct Answer": "mauve"}
    row |= {f"Incorrect Answer {n}": f"hue {n}" for n in (1, 2, 3)}
    file, out = tmp_path / "gpqa.jsonl", tmp_path / "eval"
    file.write_text(json.dumps(row) + "\n")
    with server(lambda asked: f"Since {secret} is known: \\boxed{{A}}") as it:
        command = words(out, it.url, file)
        command = [word.replace("benchmarks.sums", "benchmarks.GPQA Diamond") for word in command]
        done = run(*command, "allow_size=true", "protocol=paper")
    assert done.returncode == 0, done.stderr
    made = out / "generations-private.jsonl"
    assert secret in made.read_text() and made.stat().st_mode & 0o777 == 0o600
    assert sorted(lines(made)[0]["order"]) == [0, 1, 2, 3], "the order of the options is recorded"
    for path in out.iterdir():
        assert path.suffix == ".png" or "private" in path.name or secret not in path.read_text(), path
    assert secret not in done.stdout + done.stderr
