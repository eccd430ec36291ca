"""Does anything grow? Trains, then drives a clip again and again, and watches both processes from outside.

python -m benchmarks.soak --minutes 120 --out runs/soak

Every few seconds, memory, open files, threads and temporary files of the process and its children are written to NAME.csv,
with the work done so far. NAME.svg has the plots. The slopes are fitted after the first quarter, which is warm-up: memory may
grow by 1 MB per hour, handles, threads and temporary files not at all.

A step's own memory comes and goes: freed memory is returned to the system at once (`MALLOC_TRIM_THRESHOLD_`), so that what is
resident is what is in use.
"""

import argparse
import csv
import html
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 0.25
"""Share of the time that does not count."""

RETURNS_MEMORY = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""Settings of glibc: it would otherwise keep freed memory, more or less of it."""

COLUMNS = ("seconds", "megabytes", "handles", "threads", "temporary_files", "done")
_DRIVE = "--drive-into"
_STOP_SECONDS = 120


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for member in found:
        found += parents.get(member, [])
    return found


def measure(pid: int, temporary: Path) -> dict[str, float]:
    """Count what a process and its descendants hold."""
    pages = handles = threads = 0
    for member in family(pid):
        try:
            pages += int(Path(f"/proc/{member}/statm").read_text().split()[1])
            handles += len(os.listdir(f"/proc/{member}/fd"))
            threads += len(os.listdir(f"/proc/{member}/task"))
        except OSError:  # it has just ended
            continue
    return {
        "megabytes": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "handles": handles,
        "threads": threads,
        "temporary_files": sum(1 for _ in temporary.rglob("*")),
    }


def watch(
    name: str, command: list[str], done: Path, *, out: Path, minutes: float, pause: float
) -> list[dict[str, float]]:
    """Run a command for some minutes, and write what was measured to OUT/NAME.csv.

    Args:
        name: of the files.
        command: a program that runs on until it gets SIGTERM.
        done: file to which the program appends a line for each piece of work.
        out: folder of the files.
        minutes: length of the measurement, from the first piece of work on.
        pause: seconds between two measurements.

    Raises:
        RuntimeError: if the program ends by itself.
    """
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as temporary, (out / f"{name}.log").open("w") as log:
        environment = os.environ | {
            "TMPDIR": temporary,
            "XDG_CONFIG_HOME": str(out / "config"),
            "PYTHONPATH": str(ROOT),
            **RETURNS_MEMORY,
        }
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            begun: float | None = None
            with (out / f"{name}.csv").open("w", newline="") as file:
                table = csv.DictWriter(file, COLUMNS)
                table.writeheader()
                while begun is None or time.monotonic() - begun < 60 * minutes:
                    time.sleep(pause)
                    if process.poll() is not None:
                        raise RuntimeError(f"the program ended by itself with {process.returncode}: see {log.name}")
                    lines = done.read_bytes().count(b"\n") if done.exists() else 0
                    if begun is None:
                        begun = time.monotonic() if lines else None
                        continue
                    row = {"seconds": time.monotonic() - begun, **measure(process.pid, Path(temporary)), "done": lines}
                    rows.append(row)
                    table.writerow(row)
                    file.flush()
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
    return rows


def slopes(rows: list[dict[str, float]]) -> dict[str, float]:
    """Fit each number after the warm-up by a line.

    A step's own memory comes and goes, and a measurement falls anywhere in a step: least squares would follow the few highest
    of them. The Theil-Sen estimator is the median of the slopes between all pairs. What a program never gives back raises the
    lowest memory of each window of time, whatever the speed of the steps; the mean also moves with that.

    Returns:
        the slopes per hour, `megabytes_low` and `megabytes_high` (the 95 % interval of memory's slope), `megabytes_floor` (the
        slope of the lowest memory in each tenth of the time), and the change of speed in percent.
    """
    late = [row for row in rows if row["seconds"] >= WARM_UP * rows[-1]["seconds"]]
    hours = np.array([row["seconds"] for row in late]) / 3600
    fits = {
        name: stats.theilslopes([row[name] for row in late], hours)
        for name in COLUMNS
        if name not in ("seconds", "done")
    }
    found = {name: float(fit.slope) for name, fit in fits.items()}
    memory = fits["megabytes"]
    found |= {"megabytes_low": float(memory.low_slope), "megabytes_high": float(memory.high_slope)}
    parts = [part for part in np.array_split(np.arange(len(late)), 10) if len(part)]
    floors = [min(part, key=lambda number: late[number]["megabytes"]) for part in parts]
    found["megabytes_floor"] = float(stats.theilslopes([late[n]["megabytes"] for n in floors], hours[floors]).slope)
    middle = len(late) // 2

    def speed(part: list[dict[str, float]]) -> float:
        return (part[-1]["done"] - part[0]["done"]) / max(part[-1]["seconds"] - part[0]["seconds"], 1e-9)

    found["speed_percent"] = 100 * (speed(late[middle:]) / max(speed(late[: middle + 1]), 1e-9) - 1)
    return found


def plot(rows: list[dict[str, float]], path: Path, title: str) -> None:
    """Draw every number over the minutes, with the warm-up in gray."""
    names = [name for name in COLUMNS if name != "seconds"]
    width, height, left = 640, 110, 120
    last = rows[-1]["seconds"]
    parts = [f'<text x="{left}" y="18" font-size="14">{html.escape(title)}</text>']
    for place, name in enumerate(names):
        top = 30 + place * (height + 20)
        values = [row[name] for row in rows]
        low, high = min(values), max(values)
        span = (high - low) or 1
        points = " ".join(
            f"{left + width * row['seconds'] / last:.1f},{top + height * (1 - (row[name] - low) / span):.1f}"
            for row in rows
        )
        parts += [
            f'<rect x="{left}" y="{top}" width="{width * WARM_UP:.1f}" height="{height}" fill="#eee"/>',
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>',
            f'<polyline points="{points}" fill="none" stroke="#1f77b4"/>',
            f'<text x="4" y="{top + height / 2:.0f}">{name.replace("_", " ")}</text>',
            f'<text x="{left - 6}" y="{top + 10}" text-anchor="end">{high:g}</text>',
            f'<text x="{left - 6}" y="{top + height}" text-anchor="end">{low:g}</text>',
        ]
    bottom = 30 + len(names) * (height + 20)
    parts.append(f'<text x="{left + width}" y="{bottom}" text-anchor="end">{last / 60:.1f} minutes</text>')
    size = f'width="{left + width + 10}" height="{bottom + 10}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="10">'
    path.write_text("\n".join([svg, *parts, "</svg>", ""]))


def drive(folder: Path) -> None:
    """Drive an avatar of a bundled portrait with the same clip until a signal comes."""
    import th_jax
    from tests.base_clip import write_base_clip

    meta = th_jax.load_meta("heads64")
    avatar = th_jax.finetune(meta, ROOT / "th_jax/assets/portrait/astronaut.jpg", train=False)
    clip = write_base_clip(folder / "clip.mp4")
    while True:
        th_jax.animate(avatar, clip, folder / "driven.mp4", seconds=1)
        with (folder / "driven.txt").open("a") as file:
            file.write("driven\n")


def main() -> None:
    """Run both, and print the slopes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120, help="length of each part")
    parser.add_argument("--pause", type=float, default=5, help="seconds between two measurements")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"))
    parser.add_argument("--only", nargs="+", choices=("train", "drive"), default=["train", "drive"])
    parser.add_argument(_DRIVE, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive_into is not None:
        drive(options.drive_into)
        return
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "run", ignore_errors=True)
    # Both players from scratch with small networks: many steps, whose own memory does not hide what stays.
    small = "start_from= networks.image_size=32 networks.base_width=8 episodes.batch_size=2 episodes.sources=2"
    settings = f"steps=1000000 log_every=10 checkpoint_every=1000 evaluate_every=2000 {small}".split()
    programs = {
        "train": (
            [
                "train.py",
                "--config",
                "configs/warm.py",
                "--workdir",
                str(out / "run"),
                *(f"--config.{s}" for s in settings),
            ],
            out / "run" / "metrics.jsonl",
        ),
        "drive": (["-m", "benchmarks.soak", _DRIVE, str(out)], out / "driven.txt"),
    }
    for name in options.only:
        arguments, done = programs[name]
        done.unlink(missing_ok=True)
        rows = watch(name, [sys.executable, *arguments], done, out=out, minutes=options.minutes, pause=options.pause)
        plot(rows, out / f"{name}.svg", f"{name}: {options.minutes:g} minutes")
        print(f"{name}: {len(rows)} measurements over {options.minutes:g} minutes; per hour after the warm-up:")
        for number, slope in slopes(rows).items():
            print(f"  {number:<18}{slope:>12.3f}")


if __name__ == "__main__":
    main()
