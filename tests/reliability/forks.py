"""A process that has imported everything and forks a child for each command: a start costs milliseconds instead of seconds.

It forks before JAX has a backend, so that each child begins as a fresh process would. A child can be told when to kill itself
with SIGKILL: after some seconds, before its n-th change of the file system, or some time after the n-th call of a function.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 600
"""Seconds after which a child that hangs is killed."""

CALLS = {
    "restore": ("th_jax.storage.checkpoints", "Checkpoints._restore_whole"),
    "save": ("th_jax.storage.checkpoints", "Checkpoints.save"),
    "evaluation": ("th_jax.evaluation.watch", "HeldOutWatch.evaluate"),
    "step": ("th_jax.training.sharding", "put_batch"),
}
"""Functions around which a child can be killed."""

_CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Forks:
    """`with Forks() as forks: forks.run(["train", ...], kill={"change": 7})`."""

    def __enter__(self) -> "Forks":
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "TH_JAX_COMPILE_CACHE": "off"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.forks"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)

    def run(self, arguments: list[str], *, log: Path, kind: str = "command", **how: Any) -> dict[str, Any]:
        """Run a job in a child.

        Args:
            arguments: of the job.
            log: file to which the child's output is appended.
            kind: name of a function of this module's `JOBS`.
            how: "kill": when the child kills itself; "programs": folder of stored programs; "patches": names of `PATCHES`;
                "changes": file for the number of changes of the file system.

        Returns:
            "code", negative for a signal, and "seconds".
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"kind": kind, "arguments": arguments, "log": str(log), **how}) + "\n")
        self._process.stdin.flush()
        result: dict[str, Any] = json.loads(self._answer())
        return result

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that forks has ended"
        return line.strip()


def whole_command(job: dict[str, Any]) -> int:
    """`th-jax ARGUMENTS`, and `train.py ARGUMENTS`, which is the same."""
    from th_jax.cli.main import main

    return main(job["arguments"])


def seen(job: dict[str, Any]) -> int:
    """Write what a finished run of training came to as JSON: digest of every leaf, data position, hash of the next batch."""
    import hashlib

    import numpy as np

    from tests.reliability.killed_experiment import get_config
    from th_jax.data import Episodes, VideoRecords
    from th_jax.storage.checkpoints import Checkpoints

    workdir, out = map(Path, job["arguments"])
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        leaves, description = checkpoints.read([""])
        steps = checkpoints.steps()[-3:]  # a kill before the end can leave an older one
    digests = {
        name: hashlib.sha256(f"{leaf.dtype} {leaf.shape} ".encode() + np.ascontiguousarray(leaf).tobytes()).hexdigest()
        for name, leaf in leaves.items()
    }
    config = get_config()
    records = VideoRecords(config.data.folder, config.data.split)
    episodes = Episodes(records, image_size=config.networks.image_size, seed=config.seed, **config.episodes)
    batch = episodes.batch(int(leaves["step"]))
    following = hashlib.sha256(b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in batch)).hexdigest()
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    metrics = [  # without what depends on the clock, and the baselines, which each process measures at its first evaluation
        {name: value for name, value in line.items() if not name.startswith(("time", "resumed/"))}
        for line in lines
        if "heldout/mean_frame/ssim" not in line
    ]
    made = {
        "leaves": digests, "step": int(leaves["step"]), "saved": steps, "next_batch": following, "metrics": metrics,
        "config": description["config"],
    }  # fmt: skip
    out.write_text(json.dumps(made))
    return 0


def queue_of_studio(job: dict[str, Any]) -> int:
    """Accept jobs of the studio up to a number and do them, where an earlier process was killed; each writes a file."""
    from th_jax.storage.files import whole_file
    from th_jax.studio import jobs

    folder, total = Path(job["arguments"][0]), int(job["arguments"][1])
    folder.mkdir(exist_ok=True)
    jobs.MAX_STARTS = sys.maxsize  # random kills meet the same job more often than accidents do
    ended: set[int] = set()

    def work(one: jobs.Job) -> tuple[Path, str]:
        assert one.number not in ended, "its end was stored, and it is done again"
        one.stage("writing")
        made = folder / f"{one.request.avatar}.txt"
        with whole_file(made) as file:
            one.advance(1, 2)
            file.write(f"{one.number} {one.request.options['text']}".encode())
        return made, "done"

    queue = jobs.JobQueue(folder / "jobs.sqlite", lambda _: jobs.Work(work))
    accepted, own = folder / "accepted", jobs.UserJobs(queue)
    known = {one.number: one for one in own.progress()}
    ended.update(number for number, one in known.items() if one.state.ended)
    lines = accepted.read_text().split() if accepted.exists() else []
    assert set(map(int, lines)) <= known.keys(), "an accepted job is lost"
    queue.start()
    for number in range(len(known), total):
        submitted = own.submit(jobs.Request(jobs.Kind.VIDEO, f"a{number}", {"text": "x" * number}))
        with accepted.open("a") as file:
            file.write(f"{submitted.number}\n")
    for one in own.progress():
        assert own.get(one.number).wait(timeout=PATIENCE)
    (folder / "ended.json").write_text(json.dumps([[one.number, one.words] for one in own.progress()]))
    queue.close()
    return 0


JOBS: dict[str, Callable[[dict[str, Any]], int]] = {
    "command": whole_command,
    "seen": seen,
    "queue": queue_of_studio,
}


def _import_everything() -> None:
    import absl.flags
    import grain
    import ml_collections
    import tensorboardX

    import th_jax.avatars.enroll
    import th_jax.cli.evaluate
    import th_jax.cli.finetune
    import th_jax.cli.train
    import th_jax.storage.checkpoints
    import th_jax.training.dry_run
    import train

    del absl, grain, ml_collections, tensorboardX, train  # imported for the children
    th_jax.storage.checkpoints.orbax()


def _killing(kill: dict[str, Any]) -> Callable[[], int]:
    """Arrange for this process's end; returns what tells how often it has changed the file system."""

    def now() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def after(seconds: float) -> None:
        threading.Thread(target=lambda: (time.sleep(seconds), now()), daemon=True).start()

    if "change" in kill:
        left = [int(kill["change"])]

        def count(event: str, details: tuple[Any, ...]) -> None:
            if event in _CHANGES or (event == "open" and isinstance(details[2], int) and details[2] & _WRITING):
                left[0] -= 1
                if left[0] == 0:
                    now()

        sys.addaudithook(count)
        return lambda: int(kill["change"]) - left[0]
    if "call" in kill:
        module, name = CALLS[kill["call"]]
        _after_call(module, name, int(kill["number"]), lambda: after(float(kill["after"])))
    else:
        after(float(kill["after"]))
    return lambda: 0


def _after_call(module: str, name: str, number: int, action: Callable[[], None]) -> None:
    import importlib

    *owners, last = name.split(".")
    holder = importlib.import_module(module)
    for owner in owners:
        holder = getattr(holder, owner)
    plain, left = getattr(holder, last), [number]

    def watched(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            action()
        return plain(*arguments, **named)

    setattr(holder, last, watched)
    if not owners:  # imported by name
        import train

        if getattr(train, last, None) is plain:
            setattr(train, last, watched)


def _store_programs(folder: Path) -> None:
    """Trace each program of a run once for all children, which would otherwise take most of their time."""
    import jax

    from th_jax.program_cache import cached_jit, use_program_cache
    from th_jax.training import programs, sharding

    use_program_cache(folder)

    class Stored:
        def __getattr__(self, name: str) -> Any:
            return getattr(jax, name)

        @staticmethod
        def jit(function: Any, *, donate_argnums: Any = (), **_: Any) -> Any:
            inner = getattr(function, "func", function)
            donated = (donate_argnums,) if isinstance(donate_argnums, int) else tuple(donate_argnums)
            key = f"{inner.__module__}.{inner.__qualname__} {getattr(inner, 'players', '')}"
            return cached_jit(function, key=key, donate_argnums=donated)

    stored: Any = Stored()
    programs.jax = sharding.jax = stored
    plain = programs.MetaPrograms._traceable_step

    def named(self: Any, players: tuple[str, ...]) -> Any:
        step = plain(self, players)
        step.players = players  # type: ignore[attr-defined]
        return step

    programs.MetaPrograms._traceable_step = named  # type: ignore[method-assign]


def _child(job: dict[str, Any]) -> None:
    signal.alarm(PATIENCE)
    with open(job["log"], "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if "programs" in job:
        _store_programs(Path(job["programs"]))
    for patch in job.get("patches", ()):
        PATCHES[patch]()
    changes = _killing(job.get("kill", {"change": sys.maxsize}))
    code = 70
    with contextlib.suppress(SystemExit):
        code = JOBS[job["kind"]](job)
    if "changes" in job:
        Path(job["changes"]).write_text(str(changes()))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _noise_as_shots() -> None:
    """Shots without decoding, which depend on the person, at one moment of the calendar."""
    import numpy as np

    from th_jax.avatars import enroll
    from th_jax.avatars.person_files import PersonFiles
    from th_jax.data.shots import ImageOutcomes
    from th_jax.types import Shots

    def noise(path: Path, *, size: int, **_: Any) -> PersonFiles:
        rng = np.random.default_rng(list(path.name.encode()))
        frames = rng.integers(0, 256, (8, size, size, 3), dtype=np.uint8)
        points = rng.uniform(0.2, 0.8, (8, 68, 2)).astype(np.float32)
        return PersonFiles(Shots(frames, points, np.ones(8, np.float32)), ImageOutcomes(8), {})

    enroll.read_shots = noise
    enroll.check_face_models = lambda: None
    _stopped_clock()


def _quick_evaluation() -> None:
    """Arithmetic in place of face detection and of fine-tuning."""
    import pytest

    sys.path.insert(0, str(ROOT / "tests" / "evaluation"))
    import tiny_protocol

    from th_jax.evaluation.protocol import run

    tiny_protocol.use_fake_faces(pytest.MonkeyPatch())
    run.finetune_many = tiny_protocol.quick_finetune
    _stopped_clock()


def _stopped_clock() -> None:
    """The time of creation is part of a file's bytes."""
    import datetime

    from th_jax.provenance import record

    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Stopped":
            return cls(2026, 1, 1, tzinfo=tz)

    record.datetime = Stopped


def _stand_in_programs() -> None:
    """The loop of train.py with a step that compiles in no time: it mixes the batch into a small state."""
    import functools
    from types import SimpleNamespace
    from typing import NamedTuple

    import jax
    import jax.numpy as jnp
    from jax import Array

    import train
    from th_jax.losses import LossWeights
    from th_jax.training import sharding
    from th_jax.training.optimizers import AdversarySchedule

    class State(NamedTuple):
        step: Array
        skipped: Array
        skipped_in_a_row: Array
        values: Array

    def begin(seed: int) -> State:
        return State(*(jnp.zeros((), jnp.int32) for _ in range(3)), jnp.full((64, 64), float(seed)))

    @jax.jit
    def step(state: State, _: Any, batch: Any) -> tuple[State, dict[str, Array]]:
        seen = jnp.sum(batch.target_frame.astype(jnp.float32)) / 1e5 + jnp.sum(batch.video_index)
        values = jnp.sin(state.values + seen + jnp.arange(64.0)[None])
        return state._replace(step=state.step + 1, values=values), {"loss/generator": jnp.mean(values)}

    shapes, mesh = jax.eval_shape(functools.partial(begin, 0)), sharding.make_mesh()
    programs = SimpleNamespace(
        mesh=mesh, schedule=AdversarySchedule(), shapes=shapes, layout=sharding.state_layout(mesh, shapes), begin=begin,
        step_at=lambda _: step, averaged=lambda state: state.values, loss_weights=LossWeights({}),
    )  # fmt: skip

    class Watch:
        def evaluate(self, log: Any, step: int, networks: Any, averaged: Any, perceptual: Any) -> dict[str, float]:
            scores = {"heldout/l1/box": float(jnp.mean(averaged))}
            log.metrics(step, scores)
            return scores

    train.MetaPrograms = SimpleNamespace(from_settings=lambda *_, **__: programs)
    train.heldout_people = lambda *_: Watch()


PATCHES: dict[str, Callable[[], None]] = {
    "stand-in": _stand_in_programs,
    "noise": _noise_as_shots,
    "quick evaluation": _quick_evaluation,
}


def main() -> None:
    """Fork a child for each line of the standard input."""
    _import_everything()
    print("ready", flush=True)
    for line in _lines():
        job = json.loads(line)
        begun = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                _child(job)
            except BaseException:
                traceback.print_exc()  # into the log: `os._exit` would say nothing
            finally:
                sys.stderr.flush()
                os._exit(71)
        _, status = os.waitpid(pid, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - begun}
        print(json.dumps(answer), flush=True)


def _lines() -> Iterator[str]:
    while line := sys.stdin.readline():
        yield line


if __name__ == "__main__":
    main()
