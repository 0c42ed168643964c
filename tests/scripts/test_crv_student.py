"""`build_crv.py` with a student measured on every chain that is rated, through the command line."""

import json
import shutil

from data.rows import iter_rows
from pocket.tiny import make_model
from tests.support.crv_cli import check_refused, run, write_problems
from tests.support.scripted_endpoint import Server


def answer(asked):
    """A teacher whose rewrites always pass, and who rates everything medium."""
    number = int(asked.answer) // 2
    if asked.role == "incorrect":
        return f"chain{number} goes wrong: {number} + {number} = {asked.answer}0"
    said = {"critic": "medium", "verifier": "YES"}
    return said.get(asked.role, f"chain{number} {asked.role}: {number} and {number} are {asked.answer}")


def built(tmp_path, student, out, *words):
    """(traces, report, roles that were asked)"""
    problems = write_problems(tmp_path / "problems.jsonl", 20)
    with Server(answer) as server:
        done = run(problems, out, server.url, f"student.path={student}", *words)
    assert done.returncode == 0, done.stderr
    traces = [trace for _, trace in iter_rows(out / "traces.jsonl")]
    return traces, json.loads((out / "report.json").read_text()), [asked.role for asked in server.asked]


def test_the_student_rates_and_nobody_is_asked(tiny_qwen, tmp_path):
    traces, report, roles = built(tmp_path, tiny_qwen, tmp_path / "out", "critic_mode=student")
    assert "critic" not in roles and {"easy", "hard", "verifier"} <= set(roles)
    assert report["levels_before"] == {"easy": 7, "medium": 6, "hard": 7, "unrated": 0}  # the shares of the input
    student = report["made_with"]["student"]
    for step in (step for trace in traces for step in trace["steps"] if step["step"] == "critic"):
        fit, hard = step["fit"], step["fit"]["rsr"] > student["hard_rsr"]
        assert step["label"] == ("hard" if hard else "easy" if fit["nll"] > student["easy_nll"] else "medium")
    assert report["made_with"]["models"]["critic"] == f"{tiny_qwen}, measured"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "How well the chains fit the student" in page and page.count("<circle") == sum(
        "fit" in step for trace in traces for step in trace["steps"]
    )

    # thresholds of this run for another one; what was measured is not measured again
    words = [f"student.{key}={student[key]}" for key in ("hard_rsr", "easy_nll")]
    again, _, _ = built(
        tmp_path, tiny_qwen, tmp_path / "again", "critic_mode=student", f"student.fits={tmp_path}/out/fit.jsonl", *words
    )
    assert again == traces


def test_beside_a_critic_its_numbers_are_noted(tiny_qwen, tmp_path):
    traces, report, roles = built(tmp_path, tiny_qwen, tmp_path / "out")
    assert roles.count("critic") == 20 and report["levels_before"]["medium"] == 20
    assert report["fits"]["original"]["medium"]["count"] == 20 and all("fit" in t["steps"][0] for t in traces)


def test_other_weights_of_the_student_need_a_folder_of_their_own(tmp_path):
    student = make_model(tmp_path / "student")
    built(tmp_path, student, tmp_path / "out", "critic_mode=student")
    shutil.rmtree(student)
    make_model(tmp_path / "student", seed=1)
    done = run(tmp_path / "problems.jsonl", tmp_path / "out", "http://127.0.0.1:9/v1", f"student.path={student}",
               "critic_mode=student")  # fmt: skip
    check_refused(done, "was made with other weights of", lines=4)


def test_contradictions_are_said_before_anything_is_asked(tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", 2)
    nowhere = "http://127.0.0.1:9/v1"
    for words, message in (
        (["critic_mode=student"], "critic_mode=student needs student.path"),
        (["student.hard_share=0.7", "student.easy_share=0.3"], "leave some to be medium"),
        (["critic_mode=student", f"student.path={tmp_path}/none"], "none"),
    ):
        check_refused(run(problems, tmp_path / "out", nowhere, *words), message, lines=4)
