"""docs/accelerators.md, made of the results in docs/accelerators."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.accelerators import MOST_LOOKUPS, PROGRAMS, TARGETS, VIDEOS

RESULTS = Path(__file__).parent.parent / "docs" / "accelerators"
PAGE = RESULTS.with_suffix(".md")

HEADER = """\
# Programs for accelerators

What the accelerators' own compilers say of the programs, and what is counted in the compiled text. No device was there, so
nothing was run: there are no measured times here. `make accelerator-programs` compiles (into `docs/accelerators`)
and makes this page; combinations that were not compiled are listed at the end as not run.

The paper's networks at {image_size} px, width {base_width}, K = 8, content losses of VGG19 and VGGFace, {videos:,} rows of W,
two updates of D, without the guard against outliers. Episodes are those of one device; so are bytes and arithmetic.

Required of every program, and checked by `benchmarks/accelerator_programs.py::unmet` whenever one is compiled:

- devices sum gradients in float32 (the bytes of the gradients, give or take 5 %), look up and update W in at most {lookups}
  small exchanges, and exchange nothing else: no image and no activation leaves its device;
- arguments, results and temporary arrays together take at most 90 % of the device's memory;
- the new state takes the memory of the old one.

The default tests check the same of a tiny step that is compiled for eight simulated devices, and lowered for 256.

"""

NOTES = """\
Compile time is CPU time of one process on a shared virtual machine with two cores. "HBM" counts each instruction's operands
and results in the device's memory (`benchmarks/program_text.py`), without those that the compiler keeps in memory on the chip;
"compiler's bytes" is the TPU compiler's own count, which includes these. Arithmetic is that of the traced convolutions and
matrix products.

"""

BOUND = """\
## The least time of a step

From the figures above, with these assumptions: convolutions and products run at the published peak of their type (float32 in
three bfloat16 products on TPUs, in TF32 on GPUs), memory moves at its published rate, the longer of the two hides the shorter
one wholly, gradients are summed in a ring at the published rate of one direction of the links, and no arithmetic hides it.
Real steps take longer; by how much, only a device can tell. Days are for 75 epochs of {videos:,} episodes.

"""


def records() -> list[dict[str, Any]]:
    """Read all results, in the order of targets, types and batches."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    order = list(TARGETS)
    return sorted(found, key=lambda r: (r["program"], r["dtype"], order.index(r["target"]), r["episodes"]))


def page(results: list[dict[str, Any]]) -> str:
    """Return docs/accelerators.md."""
    now = [record for record in results if not record.get("label")]
    return "".join(
        (
            HEADER.format(image_size=256, base_width=64, videos=VIDEOS, lookups=MOST_LOOKUPS),
            NOTES,
            *(_section(program, now) for program in PROGRAMS),
            BOUND.format(videos=VIDEOS),
            _bounds(now),
            _changes(results),
            "## Not run\n\n",
            *(line + "\n" for line in _missing(now)),
            "\n",
            "## Versions\n\n",
            *(line + "\n" for line in sorted({_version_line(record) for record in results})),
        )
    )


def _section(program: str, results: list[dict[str, Any]]) -> str:
    chosen = [record for record in results if record["program"] == program]
    lines = [f"## {program}\n"]
    if not chosen:
        return f"## {program}\n\nNot run.\n\n"
    columns = "target | type | episodes | state and inputs | temporary | peak, share | HBM | compiler's bytes"
    lines += [f"| {columns} | TFLOP | compile | unmet |"]
    lines += ["|---" * 11 + "|"]
    for record in chosen:
        lines.append("| " + " | ".join(_row(record)) + " |")
    lines += ["", "| target | type | episodes | collectives | HBM by kind of work |", "|---" * 5 + "|"]
    for record in chosen:
        if "refused" not in record:
            kinds = ", ".join(f"{kind} {moved / 1e9:.2f}" for kind, moved in record["traffic"].items() if moved > 5e6)
            lines.append(f"| {_key(record)} | {_exchanged(record) or 'none'} | {kinds} GB |")
    return "\n".join(lines) + "\n\n"


def _exchanged(record: dict[str, Any]) -> str:
    groups = record["collectives"].items()
    return ", ".join(f"{group['count']} {name} {group['bytes'] / 1e6:,.1f} MB" for name, group in groups)


def _compilers_bytes(record: dict[str, Any]) -> str:
    own = record["compiler_bytes"]
    return f"{own / 1e9:.1f} GB" if own else "not said"


def _key(record: dict[str, Any]) -> str:
    return f"{record['target']} | {record['dtype']} | {record['episodes']}"


def _row(record: dict[str, Any]) -> list[str]:
    key = [record["target"], record["dtype"], str(record["episodes"])]
    if "refused" in record:
        return [*key, *["—"] * 7, f"does not compile: {record['refused']}"]
    memory, capacity = record["memory"], TARGETS[record["target"]].accelerator.memory_size
    own = record["compiler_bytes"]
    return [
        *key,
        f"{memory['arguments'] / 2**30:.2f} GiB",
        f"{memory['temporary'] / 2**30:.2f} GiB",
        f"{memory['peak'] / 2**30:.2f} GiB, {100 * memory['peak'] / capacity:.0f} %",
        f"{sum(record['traffic'].values()) / 1e9:.1f} GB",
        f"{own / 1e9:.1f} GB" if own else "not said",
        f"{sum(record['flop'].values()) / 1e12:.2f}" if record["flop"] else "not counted",
        f"{record['compile_cpu_seconds'] / 60:.1f} min",
        "; ".join(record["unmet"]) or "nothing",
    ]


def bound(record: dict[str, Any]) -> dict[str, float]:
    """Compute the least seconds of arithmetic, memory and links of a program, and of them together."""
    target = TARGETS[record["target"]]
    device, devices = target.accelerator, record["devices"]
    rates = {"bfloat16": device.bfloat16_flop}
    arithmetic = sum(flop / rates.get(dtype, device.float32_flop) for dtype, flop in record["flop"].items())
    memory = sum(record["traffic"].values()) / device.memory_bytes
    links = 2 * (devices - 1) / devices * record["gradient_bytes"] / device.link_bytes
    return {"arithmetic": arithmetic, "memory": memory, "links": links, "step": max(arithmetic, memory) + links}


def _bounds(results: list[dict[str, Any]]) -> str:
    lines = [
        "| target | type | episodes | arithmetic | memory | links | a step | episodes/s of all devices | days |",
        "|---" * 9 + "|",
    ]
    for record in results:
        if record["program"] != "meta-step" or "refused" in record or not record["flop"]:
            continue
        least = bound(record)
        rate = record["episodes"] * record["devices"] / least["step"]
        times = " | ".join(f"{1e3 * least[name]:.1f} ms" for name in ("arithmetic", "memory", "links", "step"))
        lines.append(f"| {_key(record)} | {times} | {rate:,.0f} | {75 * VIDEOS / rate / 86400:.2f} |")
    return "\n".join(lines) + "\n\n"


def _changes(results: list[dict[str, Any]]) -> str:
    before = {_key(record): record for record in results if record.get("label") == "before"}
    if not before:
        return ""
    lines = ["## What changed", ""]
    lines += [
        "The meta step before exchanges were written out and TPUs got their own resampling, and after, if compiled:",
        "",
    ]
    lines += [
        "| target | type | episodes | | HBM | compiler's bytes | temporary | copies | collectives | compile |",
        "|---" * 10 + "|",
    ]
    for record in results:
        if record["program"] != "meta-step" or _key(record) not in before or "refused" in record:
            continue
        lines.append(
            f"| {_key(record)} | {record.get('label', 'after')} | {sum(record['traffic'].values()) / 1e9:.1f} GB "
            f"| {_compilers_bytes(record)} | {record['memory']['temporary'] / 2**30:.2f} GiB "
            f"| {record['copies']:,} | {_exchanged(record)} | {record['compile_cpu_seconds'] / 60:.1f} min |"
        )
    return "\n".join(lines) + "\n\n"


def _missing(results: list[dict[str, Any]]) -> Iterator[str]:
    done = {(record["program"], _key(record)) for record in results}
    for program in PROGRAMS:
        for dtype in ("bfloat16", "float32"):
            left = {
                target: [str(n) for n in (1, 4, 8) if (program, f"{target} | {dtype} | {n}") not in done]
                for target in TARGETS
            }
            some = [f"{target} with {', '.join(counts)}" for target, counts in left.items() if counts]
            if some:
                none = all(len(counts) == 3 for counts in left.values())
                yield f"- {program} in {dtype}: {'all' if none else '; '.join(some)}"
    yield "- anything on a device: times, numerics, power"


def _version_line(record: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"- {record['device_kind']}: {versions}, compiled on {record['date']}"
