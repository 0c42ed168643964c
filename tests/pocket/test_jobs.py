"""Jobs: order, several at a time, each once; a failure names its log; others under a known name are refused."""

import os
import signal
import subprocess
import sys
import time

import pytest

from errors import UserError
from lock import locked
from pocket.study.jobs import Job, run_jobs


def note(name, file, needs=()):
    return Job(name, ("-c", f"open({str(file)!r}, 'a').write({name!r} + ' ')"), needs)


def test_each_once_and_in_order(tmp_path):
    file = tmp_path / "notes"
    jobs = [note("c", file, ("a/x", "b")), note("a/x", file), note("b", file, ("a/x",))]
    run_jobs(jobs, tmp_path / "jobs", 2, 1, "test")
    assert file.read_text() == "a/x b c "
    run_jobs([*jobs, note("d", file, ("c",))], tmp_path / "jobs", 2, 1, "test")
    assert file.read_text() == "a/x b c d "


def test_two_at_a_time(tmp_path):
    """Each waits for the other to have started, which one after the other never happens."""
    code = """
import pathlib, time
mine, other = map(pathlib.Path, {!r})
mine.touch()
end = time.monotonic() + 30
while not other.exists():
    assert time.monotonic() < end, "alone"
    time.sleep(0.01)
mine.write_text("met")
"""
    a, b = tmp_path / "a", tmp_path / "b"
    jobs = [Job(x.name, ("-c", code.format([str(x), str(y)]))) for x, y in ((a, b), (b, a))]
    run_jobs(jobs, tmp_path / "jobs", 2, 1, "test")
    assert a.read_text() == b.read_text() == "met"


def test_failure_names_the_log_and_is_tried_again(tmp_path):
    flag, file = tmp_path / "flag", tmp_path / "notes"
    code = f"import pathlib, sys\nif not pathlib.Path({str(flag)!r}).exists(): sys.exit('error: no flag')"
    jobs = [Job("first", ("-c", code)), note("second", file, ("first",))]
    with pytest.raises(UserError, match=r"first failed \(exit 1\): error: no flag; see .*first.log"):
        run_jobs(jobs, tmp_path / "jobs", 2, 1, "test")
    assert not file.exists()
    flag.touch()
    run_jobs(jobs, tmp_path / "jobs", 2, 1, "test")
    assert file.read_text() == "second "


def test_other_arguments_are_refused(tmp_path):
    run_jobs([Job("a", ("-c", "x = 1"))], tmp_path, 1, 1, "test")
    with pytest.raises(UserError, match="'x = 1', now 'x = 2'"):
        run_jobs([Job("a", ("-c", "x = 2"))], tmp_path, 1, 1, "test")


def test_threads_and_late_arguments(tmp_path):
    """OMP_NUM_THREADS reaches the job; what is known only at its start is not part of its mark."""
    job = Job(
        "a", ("-c", f"import os; open({str(tmp_path / 'seen')!r}, 'w').write(os.environ['OMP_NUM_THREADS'] + '@')")
    )
    run_jobs([job], tmp_path, 1, 3, "test", lambda argument: argument.replace("@", "!"))
    assert (tmp_path / "seen").read_text() == "3!"
    run_jobs([job], tmp_path, 1, 3, "test", lambda argument: argument.replace("@", "?"))
    assert (tmp_path / "seen").read_text() == "3!"


def test_another_config_under_the_same_name_is_refused(tmp_path):
    base, file = tmp_path / "base.yaml", tmp_path / "a.yaml"
    base.write_text("lr: 1\n")
    file.write_text("extends: base.yaml\n")
    job = Job("a", ("-c", "import sys; open(sys.argv[1])", str(file)))
    run_jobs([job], tmp_path / "jobs", 1, 1, "test")
    base.write_text("lr: 2\n")
    with pytest.raises(UserError, match=r"another command \('.*a.yaml"):
        run_jobs([job], tmp_path / "jobs", 1, 1, "test")


def test_what_a_killed_run_leaves_behind_keeps_others_out(tmp_path):
    wait = Job("a", ("-c", f"import pathlib, time\npathlib.Path({str(tmp_path / 'pid')!r}).touch()\ntime.sleep(60)"))
    jobs = f"[Job('a', {wait.arguments!r})]"
    code = f"from pocket.study.jobs import *\nrun_jobs({jobs}, {str(tmp_path / 'jobs')!r}, 1, 1, 'test')"
    driver = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while not (tmp_path / "pid").exists():
            assert driver.poll() is None
            time.sleep(0.02)
        driver.kill()
        driver.wait()
        with pytest.raises(UserError, match="in use by another run"):
            run_jobs([wait], tmp_path / "jobs", 1, 1, "test")
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
    for _ in range(100):  # until the kernel has closed what the killed job held
        try:
            with locked(tmp_path / "jobs"):
                break
        except UserError:
            time.sleep(0.05)
    run_jobs([note("b", tmp_path / "notes")], tmp_path / "jobs", 1, 1, "test")
