"""Kills commands with SIGKILL at random moments until they are done, and compares the results with undisturbed ones.

python -m tests.reliability.kill_test --out runs/kill-test --kills 100

The report, OUT/report.jsonl, has a line for each attempt with what it was killed by, and one for each result. The same command
continues from it. Every moment is drawn from the seed, the scenario, and the numbers of the run and the attempt.
"""

import argparse
import collections
import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.reliability.forks import ROOT, Forks
from th_jax.storage.files import file_sha256

ATTEMPTS = 12
"""Killed attempts of a run, after which it may finish."""

SHARDS = 4


class Scenario(ABC):
    """A command that is killed, and what it leaves."""

    name = ""
    part = 1.0
    """Share of the whole work that one attempt does."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self.folder, self.forks = folder, forks
        self.log = folder / "log.txt"
        self.whole_seconds, self.whole_changes = 0.0, 0

    @abstractmethod
    def prepare(self) -> None:
        """Make what the command reads."""

    @abstractmethod
    def attempt(self, out: Path, kill: dict[str, Any] | None, chance: random.Random) -> tuple[int, bool]:
        """Run the command once; returns its exit code, and whether all is done."""

    @abstractmethod
    def result(self, out: Path) -> Any:
        """JSON values by which two results are compared."""

    def moments(self, chance: random.Random) -> dict[str, Any]:
        """Draw when to kill."""
        kind = chance.choice(["change", "change", "time", "first second"])
        if kind == "change":
            return {"change": chance.randint(1, max(int(self.whole_changes * self.part), 1))}
        return {"after": chance.uniform(0, 1 if kind == "first second" else self.whole_seconds * self.part)}

    def fork(self, arguments: list[str], kill: dict[str, Any] | None, **how: Any) -> int:
        """Run `th-jax ARGUMENTS` in a child."""
        killed = {} if kill is None else {"kill": kill}
        answer = self.forks.run(
            arguments, log=self.log, changes=str(self.folder / "changes"), programs=str(self.folder / "programs"),
            **killed, **how,
        )  # fmt: skip
        if kill is None:
            self.whole_seconds = max(self.whole_seconds, answer["seconds"])
            self.whole_changes = max(self.whole_changes, int((self.folder / "changes").read_text()))
        return int(answer["code"])


class Training(Scenario):
    """train.py through all stages: its steps, saves, evaluations, and the reset of W."""

    name = "train"
    patches: tuple[str, ...] = ()

    def prepare(self) -> None:
        pass

    def attempt(self, out: Path, kill: dict[str, Any] | None, chance: random.Random) -> tuple[int, bool]:
        config = ["--config", str(ROOT / "tests" / "reliability" / "killed_experiment.py")]
        code = self.fork(["train", *config, "--workdir", str(out)], kill, patches=list(self.patches))
        return code, code == 0

    def moments(self, chance: random.Random) -> dict[str, Any]:
        if chance.random() < 0.5:
            return super().moments(chance)
        call = chance.choice(["restore", "save", "evaluation", "step"])
        return {"call": call, "number": chance.randint(1, 2), "after": chance.choice([0, chance.uniform(0, 0.5)])}

    def result(self, out: Path) -> Any:
        made = out.with_suffix(".json")
        answer = self.forks.run([str(out), str(made)], log=self.log, kind="seen")
        assert answer["code"] == 0, self.log.read_text()[-3000:]
        return json.loads(made.read_text())


class Finetuning(Scenario):
    """`finetune --people-file` over shards, in any order: each person once, and the bytes of a single process."""

    name = "finetune"
    part = 1 / SHARDS
    people = 200

    def prepare(self) -> None:
        from tests.tiny_people import write_tiny_weights

        write_tiny_weights(self.folder / "tiny.safetensors")
        chance = random.Random(7)
        lines = [["name", "shots"]]
        for number in range(self.people):
            shots = self.folder / "photos" / f"p{number:03d}"
            shots.mkdir(parents=True)
            for picture in range(chance.randint(1, 4)):
                (shots / f"{picture}.jpg").write_bytes(bytes([number % 256, picture]))
            lines.append([shots.name, f"photos/{shots.name}"])
        with (self.folder / "people.csv").open("w", newline="") as file:
            csv.writer(file).writerows(lines)

    def attempt(self, out: Path, kill: dict[str, Any] | None, chance: random.Random) -> tuple[int, bool]:
        done = out.with_name(f"{out.name}.done")
        finished = set(done.read_text().split()) if done.exists() else set()
        alone = out.name == "whole"
        shard = "1/1" if alone else chance.choice(sorted({f"{i}/{SHARDS}" for i in range(1, SHARDS + 1)} - finished))
        code = self.fork(
            [
                "finetune", "--meta", str(self.folder / "tiny.safetensors"), "--people-file",
                str(self.folder / "people.csv"), "--out", str(out), "--consent", "none", "--feed-forward", "--shard", shard,
            ],
            kill, patches=["noise"],
        )  # fmt: skip
        if code == 0:
            done.write_text(" ".join(sorted(finished | {shard})))
        return code, code == 0 and (alone or len(finished) + 1 == SHARDS)

    def result(self, out: Path) -> Any:
        reported = collections.Counter(
            line["name"]
            for path in out.glob("report*.jsonl")
            for line in map(json.loads, path.read_text().splitlines())
            if line["status"] == "finished"
        )
        return {
            "bytes": {path.name: file_sha256(path) for path in sorted(out.glob("*.safetensors"))},
            "lines": dict(sorted(reported.items())),
        }


class Evaluating(Scenario):
    """`evaluate`: cells, faces, pictures, and the documents of results."""

    name = "evaluate"

    def prepare(self) -> None:
        sys.path.insert(0, str(ROOT / "tests" / "evaluation"))
        import tiny_protocol

        tiny_protocol.write_tiny(self.folder)

    def attempt(self, out: Path, kill: dict[str, Any] | None, chance: random.Random) -> tuple[int, bool]:
        import tiny_protocol

        arguments = tiny_protocol.arguments(self.folder, out.name)
        code = self.fork(["evaluate", *arguments], kill, patches=["quick evaluation"])
        return code, code == 0

    def result(self, out: Path) -> Any:
        names = ["results.json", "table.md", "chosen.json"]
        files = [*(out / name for name in names), *out.glob("cells/**/*.json")]
        pictures = sorted(
            str(path.relative_to(out)) for path in out.glob("study/**/*") if not path.name.startswith(".")
        )
        return {
            "files": {str(path.relative_to(out)): file_sha256(path) for path in sorted(files)},
            "pictures": pictures,
        }


class Preparing(Scenario):
    """`prepare build`, whose workers end with it."""

    name = "prepare"

    def prepare(self) -> None:
        from tests.data_prep.clips_of_people import write_talk

        for person, seed in (("ada", 1), ("bob", 3)):
            write_talk(self.folder / "source" / person / "1.mp4", seed, take=1)

    def attempt(self, out: Path, kill: dict[str, Any] | None, chance: random.Random) -> tuple[int, bool]:
        short = ["--size", "64", "--frames", "4", "--gap", "0.3", "--min-frames", "2", "--workers", "1"]
        command = [sys.executable, "-m", "th_jax.cli.main", "prepare", "build", "--source", str(self.folder / "source")]
        begun = time.monotonic()
        with self.log.open("ab") as log:
            process = subprocess.Popen([*command, "--out", str(out), *short], cwd=ROOT, stdout=log, stderr=log)
            try:
                code = process.wait(None if kill is None else kill["after"])
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                code = process.wait()
        if kill is None:
            self.whole_seconds = max(self.whole_seconds, time.monotonic() - begun)
        whole = out.exists() and not out.with_name(f".{out.name}.staging").exists()
        return (0, True) if code == 1 and whole else (code, code == 0)  # killed after its end: the folder exists

    def moments(self, chance: random.Random) -> dict[str, Any]:
        return {"after": chance.uniform(0.2, 1.1) * self.whole_seconds}

    def result(self, out: Path) -> Any:
        return {path.name: file_sha256(path) for path in sorted(out.iterdir())}


class Studio(Scenario):
    """The studio's jobs: no accepted one is lost, and none whose end is stored is done again."""

    name = "studio"
    jobs = 40

    def prepare(self) -> None:
        pass

    def attempt(self, out: Path, kill: dict[str, Any] | None, chance: random.Random) -> tuple[int, bool]:
        code = self.fork([str(out), str(self.jobs)], kill, kind="queue")
        return code, code == 0

    def result(self, out: Path) -> Any:
        made = {path.name: file_sha256(path) for path in sorted(out.glob("*.txt"))}
        return {"files": made, "jobs": json.loads((out / "ended.json").read_text())}


SCENARIOS: dict[str, type[Scenario]] = {
    kind.name: kind for kind in (Training, Finetuning, Evaluating, Preparing, Studio)
}


def kill_until_done(scenario: Scenario, report: Path, *, seed: int, kills: int) -> Iterator[str]:
    """Run a scenario again and again until it was killed so many times.

    Args:
        scenario: what to run.
        report: file with a line for each attempt, which is continued.
        seed: of all moments.
        kills: number of kills.

    Yields:
        Messages.

    Raises:
        AssertionError: if a result differs, or an attempt ends by anything but its kill.
    """
    lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    lines = [line for line in lines if line["scenario"] == scenario.name]
    attempts = [line for line in lines if "attempt" in line]
    killed = sum(line["killed"] for line in attempts)
    ended = [line["run"] for line in lines if "equal" in line]
    number = len(ended)
    whole = scenario.folder / "whole"
    if not (scenario.folder / "prepared").exists():
        shutil.rmtree(scenario.folder, ignore_errors=True)
        scenario.folder.mkdir(parents=True)
        scenario.prepare()
        (scenario.folder / "prepared").touch()
    code, done = scenario.attempt(whole, None, random.Random(0))
    if scenario.name != "prepare" or code:  # twice, because the first one has stored its programs
        shutil.rmtree(whole)
        code, done = scenario.attempt(whole, None, random.Random(0))
    assert done, f"the undisturbed run ended with {code}: {scenario.log.read_text()[-3000:]}"
    expected = scenario.result(whole)

    def write(**line: Any) -> None:
        with report.open("a") as file:
            file.write(json.dumps({"scenario": scenario.name, "seed": seed, "run": number, **line}) + "\n")

    while killed < kills:
        out = scenario.folder / f"run{number}"
        attempt = sum(line["run"] == number for line in attempts)
        done = False
        while not done:
            chance = random.Random(f"{seed} {scenario.name} {number} {attempt}")
            kill = scenario.moments(chance) if attempt < ATTEMPTS else {"after": 1e6}
            code, done = scenario.attempt(out, kill, chance)
            write(attempt=attempt, kill=kill, killed=code == -signal.SIGKILL)
            assert code in (0, -signal.SIGKILL), f"run {number} ended with {code}: {scenario.log.read_text()[-3000:]}"
            killed += code != 0
            attempt += 1
        made = scenario.result(out)
        write(equal=made == expected)
        assert made == expected, f"run {number} differs: see {out}"
        shutil.rmtree(out)
        yield f"{scenario.name}: run {number} was killed {killed} of {kills} times in all, and its result is equal"
        number += 1


def main() -> None:
    """Read the options, and kill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/kill-test"), help="folder of the report and the runs")
    parser.add_argument("--kills", type=int, default=100, help="kills of each scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=[*SCENARIOS], help="scenarios")
    options = parser.parse_args()
    options.out = options.out.absolute()
    options.out.mkdir(parents=True, exist_ok=True)
    with Forks() as forks:
        for name in options.only:
            scenario = SCENARIOS[name](options.out / name, forks)
            for message in kill_until_done(
                scenario, options.out / "report.jsonl", seed=options.seed, kills=options.kills
            ):
                print(message, flush=True)


if __name__ == "__main__":
    main()
