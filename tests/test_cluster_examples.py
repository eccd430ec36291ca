"""examples/cluster: fields that the schedulers document, the exit codes of the command, and options that its parser knows."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from th_jax.avatars.shards import shard_of_environment
from th_jax.cli import finetune, train
from th_jax.cli.options import FAILED, INTERRUPTED, USAGE

yaml = pytest.importorskip("yaml")

FOLDER = Path(__file__).parent.parent / "examples" / "cluster"

# Documented fields: a type, a set of values, a list of one kind of item, or a mapping; "*" are free keys.
STRINGS = {"*": str}
CONTAINER = {
    "name": str, "image": str, "command": [str], "args": [str],
    "resources": {"requests": STRINGS, "limits": STRINGS},
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool, "subPath": str}],
}  # fmt: skip
EXIT_CODES = {"containerName": str, "operator": {"In", "NotIn"}, "values": [int]}
RULE = {
    "action": {"FailJob", "FailIndex", "Ignore", "Count"},
    "onExitCodes": EXIT_CODES,
    "onPodConditions": [{"type": str, "status": str}],
}
POD = {
    "restartPolicy": {"Never", "OnFailure"}, "terminationGracePeriodSeconds": int, "containers": [CONTAINER],
    "volumes": [{"name": str, "persistentVolumeClaim": {"claimName": str, "readOnly": bool}}],
}  # fmt: skip
JOB = {
    "apiVersion": {"batch/v1"},
    "kind": {"Job"},
    "metadata": {"name": str, "namespace": str, "labels": STRINGS, "annotations": STRINGS},
    "spec": {
        "activeDeadlineSeconds": int, "backoffLimit": int, "backoffLimitPerIndex": int,
        "completionMode": {"NonIndexed", "Indexed"}, "completions": int, "maxFailedIndexes": int, "parallelism": int,
        "podFailurePolicy": {"rules": [RULE]}, "podReplacementPolicy": {"TerminatingOrFailed", "Failed"},
        "suspend": bool, "template": {"spec": POD}, "ttlSecondsAfterFinished": int,
    },
}  # fmt: skip
TRAINER = CONTAINER | {"workingDir": str, "ports": [{"containerPort": int, "name": str, "protocol": {"TCP"}}]}
JOBSET = {
    "apiVersion": {"jobset.x-k8s.io/v1alpha2"},
    "kind": {"JobSet"},
    "metadata": JOB["metadata"],
    "spec": {
        "network": {"enableDNSHostnames": bool, "subdomain": str, "publishNotReadyAddresses": bool},
        "failurePolicy": {"maxRestarts": int}, "successPolicy": {"operator": {"All", "Any"}},
        "suspend": bool, "ttlSecondsAfterFinished": int,
        "replicatedJobs": [
            {
                "name": str, "replicas": int,
                "template": {"spec": JOB["spec"] | {"template": {"spec": POD | {"containers": [TRAINER]}}}},
            }
        ],
    },
}  # fmt: skip
RESOURCES = {
    "accelerators": str, "cpus": str, "memory": str, "use_spot": bool, "infra": str,
    "job_recovery": {"strategy": str, "max_restarts_on_errors": int, "recover_on_exit_codes": [int]},
}  # fmt: skip
MOUNTS = {"*": {"source": str, "mode": {"MOUNT", "COPY", "MOUNT_CACHED"}}}
SKYPILOT = {"name": str, "resources": RESOURCES, "envs": STRINGS, "file_mounts": MOUNTS, "setup": str, "run": str}
POOL = {"pool": {"workers": int}, "resources": RESOURCES, "file_mounts": MOUNTS, "setup": str}


def faults(value: Any, schema: Any, where: str = "") -> list[str]:
    """Unknown fields and values of the wrong type."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{where} is no mapping"]
        unknown = [f"{where}.{key} is unknown" for key in value if key not in schema and "*" not in schema]
        known = [key for key in value if key in schema or "*" in schema]
        return unknown + [
            f for key in known for f in faults(value[key], schema.get(key, schema.get("*")), f"{where}.{key}")
        ]
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            return [f"{where} is no list"]
        return [fault for n, item in enumerate(value) for fault in faults(item, schema[0], f"{where}[{n}]")]
    if isinstance(schema, set):
        return [] if value in schema else [f"{where} is {value}"]
    return [] if type(value) is schema else [f"{where} is no {schema.__name__}"]


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def options_of(text: str) -> Any:
    """The parsed options of the one th-jax command in shell text."""
    (line,) = [line for line in text.replace("\\\n", " ").splitlines() if "th-jax finetune" in line and "#" not in line]
    words = shlex.split(line)
    options = finetune.parse(words[words.index("finetune") + 1 :])
    finetune.check_combinations(options)
    return options


def test_the_schema_sees_mistakes() -> None:
    job = load("kubernetes.yaml")
    job["spec"]["backofLimitPerIndex"] = 3
    job["spec"]["completions"] = "8"
    job["spec"]["podFailurePolicy"]["rules"][0]["action"] = "Retry"
    assert faults(job, JOB) == [
        ".spec.backofLimitPerIndex is unknown",
        ".spec.completions is no int",
        ".spec.podFailurePolicy.rules[0].action is Retry",
    ]


def test_kubernetes() -> None:
    job = load("kubernetes.yaml")
    assert faults(job, JOB) == []
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (spec["completionMode"], pod["restartPolicy"]) == ("Indexed", "Never"), "required by backoffLimitPerIndex"
    assert spec["podReplacementPolicy"] == "Failed", "the only one that a podFailurePolicy allows"
    assert 0 < spec["maxFailedIndexes"] <= spec["completions"]
    assert spec["backoffLimitPerIndex"] > 0
    assert (job["metadata"]["labels"], spec["suspend"]) == ({"kueue.x-k8s.io/queue-name": "user-queue"}, True)
    rules = spec["podFailurePolicy"]["rules"]
    assert all(("onExitCodes" in rule) != ("onPodConditions" in rule) for rule in rules)
    by_code = {code: rule["action"] for rule in rules for code in rule.get("onExitCodes", {}).get("values", [])}
    assert by_code == {FAILED: "FailIndex", USAGE: "FailJob", INTERRUPTED: "Ignore"}
    codes = [rule["onExitCodes"] for rule in rules if "onExitCodes" in rule]
    assert {(code["containerName"], code["operator"]) for code in codes} == {(container["name"], "In")}
    assert rules[0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    options = options_of(shlex.join([*container["command"], *container["args"]]))
    assert options.shard_count == spec["completions"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert all(path.startswith(f"{mounts['shared']}/") for path in (options.meta, options.people_file, options.out))


def test_slurm() -> None:
    path = FOLDER / "slurm.sh"
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text()
    found = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.M))
    assert len(found) == len(re.findall(r"^#SBATCH", text, re.M))
    known = {
        "job-name",
        "array",
        "nodes",
        "ntasks",
        "cpus-per-task",
        "mem",
        "gpus",
        "time",
        "requeue",
        "open-mode",
        "signal",
        "output",
    }
    assert found.keys() == known
    first, last = map(int, found["array"].split("-"))
    (shards,) = re.findall(r"^SHARDS=(\d+)", text, re.M)
    assert (first, last) == (0, int(shards) - 1), "with --shard-count, tasks count from 0"
    options = options_of(text.replace('"$SHARDS"', shards).replace("$SHARED", "/shared"))
    assert options.shard_count == int(shards)
    assert f'"$code" -eq {INTERRUPTED}' in text


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, "", False), (1, "", False), (2, "", False), (75, "", True), (75, "10", False)],
)
def test_the_slurm_script_runs(code: int, restarts: str, requeued: bool, tmp_path: Path) -> None:
    """With programs in place of Slurm's, which write their arguments."""
    for name, ends in (("srun", code), ("scontrol", 0)):
        program = tmp_path / name
        program.write_text(f'#!/bin/bash\necho "{name} $*"\nexit {ends}\n')
        program.chmod(0o755)
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "5"}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **task} | (
        {"SLURM_RESTART_COUNT": restarts} if restarts else {}
    )
    done = subprocess.run(
        ["bash", str(FOLDER / "slurm.sh")], env=environment, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (code, "")
    assert lines[1:] == (["scontrol requeue 7_5"] if requeued else [])
    shard = shard_of_environment(environment, count=options_of(lines[0].removeprefix("srun ")).shard_count)
    assert shard is not None
    assert shard[:2] == (6, 8)


def test_skypilot() -> None:
    task, pool = load("skypilot.yaml"), load("skypilot-pool.yaml")
    assert faults(task, SKYPILOT) == []
    assert faults(pool, POOL) == []
    assert task["resources"]["accelerators"] == pool["resources"]["accelerators"]
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [INTERRUPTED]
    options = options_of(task["run"])
    assert (options.shard, options.shard_count) == (None, None), "SkyPilot's variables decide"
    (mount,) = pool["file_mounts"]
    assert all(path.startswith(f"{mount}/") for path in (options.meta, options.people_file, options.out))
    for text in (task["run"], pool["setup"]):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def train_options(text: str, **variables: str) -> Any:
    """The parsed options of the one train.py command in shell text, with the values of its variables."""
    text = text.replace("\\\n", " ")
    for name, value in variables.items():
        text = text.replace(f'"${name}"', value).replace(f"${name}", value)
    (line,) = [line for line in text.splitlines() if "train.py" in line]
    return train.parse(shlex.split(line[line.index("train.py") + len("train.py") :].rstrip('"')))


def test_jobset() -> None:
    jobset = load("jobset.yaml")
    assert faults(jobset, JOBSET) == []
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    options = train_options(container["args"][0], JOB_COMPLETION_INDEX="3")
    assert (options.processes, options.process) == (job["completions"], 3)
    assert job["parallelism"] == job["completions"], "all of them at once, or none"
    assert (job["completionMode"], job["backoffLimit"], pod["restartPolicy"]) == ("Indexed", 0, "Never")
    name = jobset["metadata"]["name"]
    assert options.coordinator == f"{name}-{replicated['name']}-0-0.{name}:{container['ports'][0]['containerPort']}"
    assert jobset["spec"]["network"]["enableDNSHostnames"]
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    (mount,) = container["volumeMounts"]
    assert options.workdir.startswith(f"{mount['mountPath']}/")


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, "", False), (2, "", False), (75, "", True), (134, "", True), (1, "99", True), (75, "100", False)],
)
def test_the_slurm_script_of_training_runs(code: int, restarts: str, requeued: bool, tmp_path: Path) -> None:
    for name, ends in (("srun", code), ("scontrol", 0)):
        program = tmp_path / name
        program.write_text(f'#!/bin/bash\necho "{name} $*"\nexit {ends}\n')
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    environment |= {"SLURM_RESTART_COUNT": restarts} if restarts else {}
    script = FOLDER / "slurm-train.sh"
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (code, "")
    assert lines[1:] == (["scontrol requeue 7"] if requeued else [])
    options = train_options(lines[0])
    assert (options.distributed, options.workdir) == (True, "/shared/runs/voxceleb2")
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", script.read_text(), re.M))
    assert (asked["ntasks-per-node"], asked["signal"]) == ("1", "TERM@120")


@pytest.mark.parametrize(("codes", "ends"), [([0], 0), ([2], 2), ([75, 134, 0], 0)])
def test_the_script_of_a_tpu_pod_runs(codes: list[int], ends: int, tmp_path: Path) -> None:
    """With a program in place of gcloud that ends with one code after the other."""
    (tmp_path / "codes").write_text("\n".join(map(str, codes)) + "\n")
    program = tmp_path / "gcloud"
    program.write_text(
        f'#!/bin/bash\necho "gcloud $*" | tr -d "\\n"; echo\ncode=$(head -1 {tmp_path}/codes)\n'
        f"sed -i 1d {tmp_path}/codes\nexit $code\n"
    )
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "NAME": "slice", "ZONE": "z", "BUCKET": "b", "PAUSE": "0"}
    script = FOLDER / "tpu-pod.sh"
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)
    called = [line for line in done.stdout.splitlines() if line.startswith("gcloud")]
    assert (done.returncode, len(called), done.stderr) == (ends, len(codes), "")
    assert called[0].startswith("gcloud compute tpus tpu-vm ssh slice --zone=z --worker=all --command=cd th_jax && ")
    options = train_options(called[0])
    assert (options.distributed, options.workdir) == (True, "gs://b/runs/voxceleb2")
