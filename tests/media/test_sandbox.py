"""A sandboxed call may hang, crash, exhaust memory or lie; only that call fails."""

import builtins
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from th_jax.data.shots import load_shots
from th_jax.media import Limits, MediaError, MediaFault, open_video, read_image
from th_jax.media.isolation import ProcessLimits, Sandbox, confined, exit_error, run_limited

PORTRAIT = Path(__file__).parent.parent.parent / "th_jax" / "assets" / "portrait" / "astronaut.jpg"
QUICK = ProcessLimits(memory=3 * 2**30, cpu_seconds=20.0, seconds=20.0)


def spin() -> None:
    while True:
        pass


def compute(seconds: float) -> bool:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return True


def answer_of(size: int) -> np.ndarray:
    """A broadcast array, which takes no memory here."""
    return np.broadcast_to(np.uint8(7), size)


def eat_memory() -> int:
    return len([np.ones(2**24) for _ in range(1000)])


def raise_error(kind: str) -> None:
    raise getattr(builtins, kind)("what was wrong")


def answer_nonsense() -> object:
    return object()


def process_number() -> int:
    return os.getpid()


def print_and_answer() -> str:
    print("noise")
    return "still fine"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as sandbox:
        yield sandbox


def fault(sandbox, function, *arguments, **within):
    with pytest.raises(MediaError) as refused:
        sandbox.run(function, *arguments, within=QUICK._replace(**within))
    return refused.value.fault, str(refused.value)


def test_shots_equal_those_of_this_process():
    expected = load_shots(PORTRAIT, size=64)
    received = run_limited(load_shots, PORTRAIT, size=64, within=QUICK)
    assert isinstance(received, tuple)
    for array, wanted in zip(received, expected, strict=True):
        np.testing.assert_array_equal(array, wanted)
        assert array.flags.writeable


def test_one_process_serves_many_calls_and_is_replaced_when_it_dies(sandbox):
    first = sandbox.run(process_number, within=QUICK)
    assert first != os.getpid()
    assert sandbox.run(process_number, within=QUICK) == first
    os.kill(first, signal.SIGKILL)
    time.sleep(0.1)
    second = sandbox.run(process_number, within=QUICK)
    assert second != first
    assert sandbox.run(print_and_answer, within=QUICK) == "still fine"


def test_relative_paths_are_those_of_the_current_folder(sandbox, tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert sandbox.run(os.getcwd, within=QUICK) == str(tmp_path / name)


@pytest.mark.parametrize(
    ("function", "arguments", "within", "expected", "sentence"),
    [
        (time.sleep, (60,), {"seconds": 0.3}, MediaFault.OVER_LIMITS, "takes longer than 0.3 s, the limit"),
        (spin, (), {"cpu_seconds": 1.0}, MediaFault.OVER_LIMITS, "more than 1 s of CPU time, the limit"),
        (eat_memory, (), {"memory": 2**30}, MediaFault.OVER_LIMITS, "more than 1024 MiB of memory, the limit"),
        (os.abort, (), {}, MediaFault.UNDECODABLE, r"the process that read it crashed \(SIGABRT\)"),
        (os._exit, (3,), {}, MediaFault.UNDECODABLE, r"the process that read it exited with code 3"),
    ],
    ids=["waits", "spins", "eats memory", "crashes", "ends"],
)
def test_bad_ends_are_faults_of_the_file(sandbox, function, arguments, within, expected, sentence):
    kind, message = fault(sandbox, function, *arguments, **within)
    assert kind is expected
    assert re.search(sentence, message)
    assert sandbox.run(abs, -1, within=QUICK) == 1, "and the next call is served"


def test_cpu_time_of_earlier_calls_does_not_count(sandbox):
    assert sandbox.run(compute, 2.5, within=QUICK)
    assert sandbox.run(compute, 0.2, within=QUICK._replace(cpu_seconds=1.0))


def test_an_answer_larger_than_the_memory_of_its_call_is_rejected(sandbox):
    assert len(sandbox.run(answer_of, 2**26, within=QUICK._replace(memory=2**26))) == 2**26
    kind, message = fault(sandbox, answer_of, 2**26 + 1, memory=2**26)
    assert kind is MediaFault.UNDECODABLE
    assert "invalid answer: arrays exceed their size limit" in message
    assert sandbox.run(abs, -1, within=QUICK) == 1, "and the next call is served"


def test_a_media_error_keeps_its_fault_and_message(sandbox, tmp_path):
    assert fault(sandbox, read_image, tmp_path / "a.png") == (MediaFault.MISSING, f"{tmp_path}/a.png does not exist")


@pytest.mark.parametrize("kind", [ValueError, ImportError, FileNotFoundError, TypeError])
def test_builtin_errors_are_passed_on(sandbox, kind):
    with pytest.raises(kind, match="what was wrong"):
        sandbox.run(raise_error, kind.__name__, within=QUICK)


def test_other_errors_are_named(sandbox):
    with pytest.raises(RuntimeError, match="ZeroDivisionError: what was wrong"):
        sandbox.run(raise_error, "ZeroDivisionError", within=QUICK)
    with pytest.raises(TypeError, match="can be sent"):
        sandbox.run(answer_nonsense, within=QUICK)
    with pytest.raises(TypeError, match="can be sent"):
        sandbox.run(abs, object(), within=QUICK)


def test_uncallable_functions_are_rejected_here(sandbox):
    with pytest.raises(ValueError, match="top level of a module"):
        sandbox.run(lambda: 1)
    with pytest.raises(ValueError, match="limit seconds must be positive, got 0"):
        sandbox.run(abs, -1, within=QUICK._replace(seconds=0.0))


def test_calls_from_threads_wait_in_line(sandbox):
    results: list[float] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(sandbox.run(abs, -n, within=QUICK))) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(6))


def test_an_image_that_decodes_to_too_much_memory(sandbox, tmp_path):
    """70 KB on disk, 216 MB as pixels: within the image limits, over the process limit."""
    Image.new("RGB", (9000, 8000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 300_000
    kind, message = fault(sandbox, read_image, tmp_path / "bomb.png", memory=600 * 2**20)
    assert kind is MediaFault.OVER_LIMITS
    assert "memory" in message


def test_a_video_whose_frames_do_not_fit_is_rejected(sandbox, tmp_path):
    """Decoders may report out-of-memory as damage."""
    path = tmp_path / "8k.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        container.mux(stream.encode(av.VideoFrame(7680, 4320, "yuv420p")))
        container.mux(stream.encode(None))
    assert sandbox.run(size_of_first, str(path), within=QUICK) == (7680, 4320)
    for memory in (400, 800):
        kind, message = fault(sandbox, size_of_first, str(path), memory=memory * 2**20)
        reported = (kind, "more memory than is available" in message, "damaged" in message)
        assert reported in ((MediaFault.OVER_LIMITS, True, False), (MediaFault.UNDECODABLE, False, True)), (
            memory,
            message,
        )


def size_of_first(path: str) -> tuple[int, int]:
    with open_video(path) as video:
        for _, frame in video.frames():
            return frame.shape[1], frame.shape[0]
    raise MediaError(MediaFault.UNDECODABLE, "every frame was left out as damaged")


def test_limits_of_the_file_pass_through(sandbox):
    kind, _ = fault(sandbox, read_small, str(PORTRAIT))
    assert kind is MediaFault.OVER_LIMITS


def read_small(path: str) -> np.ndarray:
    return read_image(path, limits=Limits(pixels=100))


def test_limits_end_with_their_block_and_leave_no_core():
    program = """
import resource, signal, sys
from th_jax.media.isolation import ProcessLimits, confined
kinds = resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE
before = [resource.getrlimit(kind) for kind in kinds]
used = resource.getrusage(resource.RUSAGE_SELF)
used = used.ru_utime + used.ru_stime
with confined(ProcessLimits(memory=2**32, cpu_seconds=5.0, seconds=5.0)):
    inside = [resource.getrlimit(kind)[0] for kind in kinds]
    assert inside[0] == 2**32 and used + 5 <= inside[1] <= used + 7 and inside[2] == 0, (used, inside)
    assert 4 < signal.getitimer(signal.ITIMER_REAL)[0] <= 5
assert [resource.getrlimit(kind) for kind in kinds] == before
assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
with confined(ProcessLimits(seconds=0.2)):
    while True: pass
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGALRM


def test_an_exit_is_explained():
    limits = ProcessLimits(cpu_seconds=7.0)
    meaning = exit_error(-signal.SIGXCPU, limits)
    assert (meaning.fault, str(meaning)) == (MediaFault.OVER_LIMITS, "it needs more than 7 s of CPU time, the limit")
    assert exit_error(-signal.SIGKILL, limits).fault is MediaFault.OVER_LIMITS
    assert exit_error(-signal.SIGSEGV, limits).fault is MediaFault.UNDECODABLE
    assert exit_error(None, limits).fault is MediaFault.UNDECODABLE
    with pytest.raises(ValueError, match="limit memory must be positive"), confined(ProcessLimits(memory=0)):
        pass
