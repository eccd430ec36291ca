"""Log of a training run: metrics.jsonl, TensorBoard events, sample grids and a progress bar, written by process 0 only.

The state of a run is visible with `ls` and `tail -f`. Remote storage (a workdir such as gs://...) has no appendable objects,
so its log is kept in a temporary local folder that is uploaded once a minute and at the end; a kill loses the last minute.
"""

import contextlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from th_jax.provenance import Kind, Provenance, write_image
from th_jax.storage.files import is_remote
from th_jax.storage.run_folder import METRICS_FILE, lines_until, metrics_line, read_whole, write_whole
from th_jax.storage.run_folder import read_metrics as read_metrics
from th_jax.storage.run_folder import write_config as write_config

_EVENTS_FOLDER = "tensorboard"
_BAR_SECONDS = 1.0
_PLAIN_SECONDS = 10.0
_COPY_SECONDS = 60.0


class RunLog:
    """Log of one run: `with RunLog(workdir, total_steps=1000, start_step=0) as log: ...`.

    Every process creates one; all but the first write nothing.

    Args:
        workdir: the run's folder, a path or an address; created if it does not exist.
        total_steps: last step of the run.
        start_step: step from which the run resumes, 0 for a new run. Logged entries of later steps are dropped, so that a
            curve has each step once, and a truncated last line is removed.
        process_index: `jax.process_index()`.
        tensorboard: whether to write TensorBoard events as well.
        progress: whether to show progress: a bar on a terminal, otherwise a line every ten seconds.

    Attributes:
        workdir: the run's folder, a path or an address.
        folder: local folder whose files belong to the run; None on processes that write nothing.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        total_steps: int,
        start_step: int,
        process_index: int = 0,
        tensorboard: bool = True,
        progress: bool = True,
    ) -> None:
        """Open the log and truncate it to `start_step`."""
        self._active = process_index == 0
        self.workdir = str(workdir).rstrip("/")
        self.folder: Path | None = None
        self._total, self._start, self._step = total_steps, start_step, start_step
        self._bar: Any = None
        self._events: Any = None
        if not self._active:
            return
        self._remote = self.workdir if is_remote(workdir) else None
        self._scratch = tempfile.TemporaryDirectory() if self._remote else None
        self.folder = self._folder = Path(self._scratch.name if self._scratch else workdir)
        self._name = Path(str(workdir)).name
        self._copied: dict[Path, int] = {}
        self._copied_at = self._shown_at = self._started_at = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._reopen(self._folder / METRICS_FILE)
        self._lines = (self._folder / METRICS_FILE).open("a", encoding="utf-8")
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(self._folder / _EVENTS_FOLDER), purge_step=start_step + 1, flush_secs=10)
        self._progress = progress
        if progress and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total_steps, initial=start_step, unit="step", dynamic_ncols=True, disable=None)

    def __enter__(self) -> "RunLog":
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log, also after an error."""
        self.close()

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line of numbers, and write the same numbers as TensorBoard scalars.

        Numbers that are not finite are written as "nan", "inf" and "-inf", because JSON cannot represent them.

        Args:
            step: number of the step; steps must not decrease.
            values: numbers by path-like names such as `loss/content`.

        Raises:
            ValueError: if a later step was already logged, or a value is not a number.
        """
        if not self._active:
            return
        if step < self._step:
            raise ValueError(
                f"metrics must be logged in the order of their steps, but step {step} follows {self._step}"
            )
        numbers = {name: _number(name, value) for name, value in values.items()}
        self._step = step
        with self._forgiving():
            self._lines.write(metrics_line(step, time.time(), numbers))
            self._lines.flush()  # after an error, the lines stay in the buffer for the next time
        with self._forgiving():
            if self._events is not None:
                self._add_scalars(step, numbers)
            self._copy_up()

    def progress(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Show the step, the rate, the remaining time and those metrics whose name starts with `loss/`.

        Metrics are read only when they are shown, at most once a second, because reading waits for the device.
        """
        if not (self._active and self._progress):
            return
        now = time.monotonic()
        pause = _PLAIN_SECONDS if self._bar is None else _BAR_SECONDS
        losses = {}
        if due := now - self._shown_at >= pause or step >= self._total:
            self._shown_at = now
            found = {name.removeprefix("loss/"): x for name, x in metrics.items() if name.startswith("loss/")}
            losses = {name: f"{float(value):.3g}" for name, value in found.items()}
        if self._bar is not None:
            if due:
                self._bar.set_postfix(losses, refresh=False)
            self._bar.update(step - self._bar.n)
        elif due:
            rate = (step - self._start) / max(now - self._started_at, 1e-9)
            left = f"{(self._total - step) / rate / 60:.0f} min left" if rate else "no step yet"
            shown = " ".join(f"{name} {value}" for name, value in losses.items())
            self.message(f"step {step} of {self._total} · {rate:.3g} steps/s · {left} · {shown}")

    def picture(
        self, step: int, name: str, frames: UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "rows columns H W 3"]
    ) -> Path | None:
        """Write an image, or a grid of frames, as NAME/STEP.png with its provenance, and to TensorBoard.

        Args:
            step: step whose weights produced the image.
            name: folder within the workdir, and tag in TensorBoard; "samples" for the held-out people.
            frames: RGB in 0..255.

        Returns:
            The path of the file (in the temporary folder if the workdir is an address); None on other processes, and if it
            could not be written.

        Raises:
            ValueError: if the name is not a single folder.
        """
        if not self._active:
            return None
        if not re.fullmatch(r"[a-z0-9_]+", name):
            raise ValueError(f"a picture's name must be of small letters, digits and _, but is {name!r}")
        if frames.ndim == 5:
            rows, columns, height, width, _ = frames.shape
            frames = frames.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
        path = self._folder / name / f"{step:06d}.png"
        record = Provenance(kind=Kind.TRAINING_GRID, notes=f"{name} at step {step} of the run {self._name}")
        with self._forgiving():
            path.parent.mkdir(exist_ok=True)
            write_image(path, frames, provenance=record)
            if self._events is not None:
                self._add_picture(step, name, path.read_bytes(), frames)
            self._copy_up()
            return path
        return None

    def message(self, text: str) -> None:
        """Print a message to standard error without breaking the progress bar."""
        if not self._active:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flush and close everything; further calls do nothing."""
        if not self._active:
            return
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        with self._forgiving():
            if self._events is not None:
                self._events.close()
        with self._forgiving():
            self._lines.close()
        with self._forgiving():
            self._copy_up(now=True)
        self._active = False
        if self._scratch is not None:
            self._scratch.cleanup()

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        """Report an error of the disk instead of ending the run, which may still be able to save its state."""
        try:
            yield
        except OSError as error:
            self.message(f"NOT LOGGED: {error}; training continues")

    def _reopen(self, path: Path) -> None:
        """Keep the complete lines of steps up to the start."""
        if self._remote and (old := read_whole(f"{self._remote}/{METRICS_FILE}")) is not None:
            path.write_bytes(old)
        if path.exists():
            write_whole(str(path), lines_until(path.read_bytes(), self._start))

    def _add_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        # tensorboardX's add_scalar warns about every NaN, which is a normal value here for metrics without a measurement.
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._events.file_writer.add_summary(Summary(value=values), step)

    def _add_picture(self, step: int, name: str, png: bytes, frame: np.ndarray) -> None:
        # tensorboardX's add_image needs Pillow, an optional dependency, and the file is already a PNG.
        from tensorboardX.proto.summary_pb2 import Summary

        image = Summary.Image(encoded_image_string=png, height=frame.shape[0], width=frame.shape[1], colorspace=3)
        self._events.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def _copy_up(self, *, now: bool = False) -> None:
        if self._remote is None or (not now and time.monotonic() - self._copied_at < _COPY_SECONDS):
            return
        self._copied_at = time.monotonic()
        for path in sorted(p for p in self._folder.rglob("*") if p.is_file()):
            changed = path.stat().st_mtime_ns
            if self._copied.get(path) != changed:
                write_whole(f"{self._remote}/{path.relative_to(self._folder).as_posix()}", path.read_bytes())
                self._copied[path] = changed


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metric {name} must be one number, but is {type(value).__name__}: {error}") from error
