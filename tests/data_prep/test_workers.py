"""Worker processes that die cost their task and nothing else, and all have ended when the run has."""

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import pytest

from data_prep import workers as workers_module
from data_prep.workers import Died, InvalidAnswer, run_in_processes
from tests.data_prep.folders import command_of


def work(task: int) -> int:
    if task == 3:
        signal.raise_signal(signal.SIGKILL)
    if task == 7:
        raise OSError("no more disk")
    return task * task


def threads(_: int) -> tuple[int, str | None, str | None]:
    return cv2.getNumThreads(), os.environ.get("OPENBLAS_NUM_THREADS"), os.environ.get("OMP_NUM_THREADS")


def sleep(_: int) -> None:
    time.sleep(60)


def dies_amid_its_answer(_: int) -> None:
    """Half a message lies in the pipe when the process ends, as when it is killed while it sends."""
    os.write(int(sys.argv[1]), b"\0\0\1\0half of it")
    signal.raise_signal(signal.SIGKILL)


class Task(NamedTuple):
    path: Path
    numbers: tuple[int, ...]


def gives_anything(_: int) -> object:
    return object()


def fields(task: tuple) -> tuple:
    return type(task).__name__, *task


EARLIER: set[str] = set()
"""Children of this process from before a test, such as the sandbox that it shares with other tests."""


def children() -> set[str]:
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return {pid for pid in found if "isolation_child" in command_of(pid)}


@pytest.fixture(autouse=True)
def earlier_children() -> None:
    EARLIER.clear()
    EARLIER.update(children())


def has_no_children() -> bool:
    return children() <= EARLIER


def test_a_death_costs_one_task():
    results = dict(run_in_processes(work, [0, 1, 2, 3, 4, 5], workers=2))
    assert results == {0: 0, 1: 1, 2: 4, 3: Died(-signal.SIGKILL), 4: 16, 5: 25}
    assert has_no_children()


def test_a_death_amid_an_answer_is_a_death():
    assert dict(run_in_processes(dies_amid_its_answer, [1], workers=1)) == {0: Died(-signal.SIGKILL)}


NESTED = b'{"list":[' * 100_000
HUGE = b'{"tuple": ["done", {"array": ["<f8", [1000000000000]]}]}'
SHORT_ARRAY = (b'{"tuple": ["done", {"array": ["<f8", [3]]}]}', b"12345678")
HOSTILE = {
    "no JSON": ((b"\xff\x80\x04K\x01.",), "not valid UTF-8"),
    "another type": ((b"17",), "neither a result nor an error"),
    "an answer of another shape": ((b'{"tuple": ["done", 1, 2]}',), "neither a result nor an error"),
    "an invalid error": ((b'{"tuple": ["failed", 3]}',), "neither a result nor an error"),
    "an unknown object": ((b'{"pickle": "gASVBQ"}',), "a message contains"),
    "an array of objects": ((b'{"tuple": ["done", {"array": ["|O", [1]]}]}',), "an array has the invalid type"),
    "an array of negative size": ((b'{"tuple": ["done", {"array": ["<f8", [-1]]}]}',), "a message contains"),
    "an impossible shape": ((b'{"tuple": ["done", {"array": ["<f8", [0, 1%s]]}]}' % (b"0" * 40),), "dimension"),
    "a huge array": ((HUGE,), "exceed their size limit"),
    "an array that is too short": (SHORT_ARRAY, "fewer bytes"),
    "too many levels": ((NESTED,), "nested too deeply"),
}


def sends(name: str) -> None:
    """Write raw messages to the pipe, as code that took this process over could."""
    if name == "":
        return
    for message in HOSTILE[name][0]:
        os.write(int(sys.argv[1]), struct.pack("!i", len(message)) + message)


@pytest.fixture(scope="module")
def answers():
    """What hostile workers are taken for; harmless tasks stand between them."""
    tasks = [task for name in HOSTILE for task in (name, "")]
    return tasks, dict(run_in_processes(sends, tasks, workers=1))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_costs_one_task(answers, name):
    tasks, results = answers
    result = results[tasks.index(name)]
    assert isinstance(result, InvalidAnswer)
    assert HOSTILE[name][1] in result.problem
    assert str(result).startswith("its process sent an invalid answer: ")


def test_tasks_beside_hostile_ones_are_done(answers):
    tasks, results = answers
    assert sorted(results) == list(range(len(tasks)))
    assert [results[number] for number, task in enumerate(tasks) if task == ""] == [None] * len(HOSTILE)


def announces_two_gigabytes(_: int) -> None:
    os.write(int(sys.argv[1]), struct.pack("!i", 2**31 - 1) + b"x" * 1000)
    signal.raise_signal(signal.SIGKILL)


def stops_amid_its_answer(_: int) -> None:
    """Neither finishes its answer nor ends, and heeds no alarm."""
    os.write(int(sys.argv[1]), struct.pack("!i", 1000) + b"half of it")
    time.sleep(600)


def test_a_huge_message_is_not_read():
    (result,) = dict(run_in_processes(announces_two_gigabytes, [1], workers=1)).values()
    assert result in (Died(-signal.SIGKILL), Died(0))  # it kills itself, or exits because its pipe was closed


def test_an_answer_that_never_ends_is_cut_off(monkeypatch):
    monkeypatch.setattr(workers_module, "_GRACE", 1.0)
    assert dict(run_in_processes(stops_amid_its_answer, [1], workers=1)) == {0: Died(-signal.SIGKILL)}
    assert has_no_children()


def test_tasks_are_plain():
    task = Task(Path("a/\udcff.mp4"), (1, 2))
    assert dict(run_in_processes(fields, [task], workers=1)) == {0: ("tuple", *task)}
    with pytest.raises(TypeError, match="can be sent"):
        list(run_in_processes(fields, [(object(),)], workers=1))
    with pytest.raises(ValueError, match="top level of a module"):
        list(run_in_processes(lambda task: task, [1], workers=1))
    with pytest.raises(RuntimeError, match=r"a worker process failed: TypeError: .*<class 'object'>"):
        list(run_in_processes(gives_anything, [1], workers=1))
    assert has_no_children()


def test_an_error_that_a_task_lets_out_ends_the_run():
    with pytest.raises(RuntimeError, match="a worker process failed: OSError: no more disk"):
        list(run_in_processes(work, [1, 7, 2, 4], workers=1))
    assert has_no_children()


def test_a_run_that_is_left_early_ends_its_workers():
    results = run_in_processes(work, list(range(10, 50)), workers=1)
    assert next(results) == (0, 100)
    results.close()
    assert has_no_children()


def test_workers_have_one_thread_and_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for number, found in run_in_processes(threads, [0, 1], workers=1):
        assert found == (1, "1", "1"), number
        assert os.environ["OPENBLAS_NUM_THREADS"] == "7"
        assert "OMP_NUM_THREADS" not in os.environ


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    """Even in the middle of a long task, and with no process left to close their pipes."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_workers import sleep
from data_prep.workers import run_in_processes
if __name__ == "__main__":
    list(run_in_processes(sleep, [1, 2], workers=1))
"""
    (script := tmp_path / "run.py").write_text(program)
    root = str(Path(__file__).parents[2])
    run = subprocess.Popen([sys.executable, str(script)], cwd=root, env=os.environ | {"PYTHONPATH": root})
    worker = None
    deadline = time.monotonic() + 30
    while worker is None:
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.05)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        worker = next((pid for pid in children if "isolation_child" in command_of(pid)), None)
    time.sleep(1.5)  # it has loaded the function and sleeps
    run.send_signal(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 10
    while "isolation_child" in command_of(worker):
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)


def test_no_workers_are_refused_and_no_tasks_are_done_at_once():
    assert list(run_in_processes(work, [], workers=2)) == []
    with pytest.raises(ValueError, match="workers must be 1 or more, but is 0"):
        list(run_in_processes(work, [1], workers=0))


def test_workers_load_neither_jax_nor_tensorflow():
    program = """
import sys, data_prep.build.shards
print([name for name in ("jax", "flax", "tensorflow", "grain", "dlib", "av") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
