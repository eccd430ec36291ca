"""What the text of a compiled program says: collectives with their payload, and bytes read and written by kind of work.

XLA prints the program that a device runs, with every array's shape, layout and memory. Only the entry computation and the
bodies of loops, branches and calls touch memory, and each of their instructions reads its operands and writes its results
once; what is inside of a fusion stays on the chip. This is a count of what the compiled program asks for, not a measurement.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

ITEM_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4,
              "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16}  # fmt: skip

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
_WITHIN = {"while", "conditional", "call"}
_SLICES = {"slice", "dynamic-slice", "gather"}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+)(?: \(.*\))? ?(?:->.*)?\{$")
_NAME = re.compile(r"%([\w.\-]+)")


class ArrayType(NamedTuple):
    """One array: element type, dimensions, and the layout as XLA prints it."""

    dtype: str
    shape: tuple[int, ...]
    layout: str = ""

    @property
    def on_chip(self) -> bool:
        """Whether the layout places it in memory on the chip, which costs no traffic."""
        return bool(re.search(r"S\([1-9]", self.layout))

    @property
    def payload(self) -> int:
        """Bytes of its numbers."""
        return int(math.prod(self.shape) * ITEM_BYTES.get(self.dtype, 0))

    @property
    def size(self) -> int:
        """Bytes in memory, with the tiles of a TPU's layout filled up."""
        order, _, tiling = self.layout.partition(":")
        tile = re.match(r"T\(([\d,]+)\)", tiling)
        if not tile or not self.shape:
            return self.payload
        sides = [int(side) for side in tile[1].split(",")]
        shape = [self.shape[int(axis)] for axis in order.split(",")][::-1]  # the fastest dimension last
        shape = [1] * (len(sides) - len(shape)) + shape
        for place, side in zip(range(-len(sides), 0), sides, strict=True):
            shape[place] = -(-shape[place] // side) * side
        return int(math.prod(shape) * ITEM_BYTES.get(self.dtype, 0))


@dataclass
class Instruction:
    """One line of a computation."""

    name: str
    results: list[ArrayType]
    opcode: str
    operands: list[str]
    rest: str
    root: bool = False

    @property
    def chain(self) -> str | None:
        """The exchange of which it is a step: a TPU divides one exchange among the fusions of unrelated work that hide it."""
        number = re.search(r'\bchain_id="(\d+)"', self.rest)
        return number[1] if number else None

    @property
    def called(self) -> list[str]:
        """Computations that it names."""
        found = []
        for key in ("calls", "to_apply", "body", "branch_computations", "true_computation", "false_computation"):
            for match in re.findall(rf"\b{key}=(%[\w.\-]+|\{{[^}}]*\}})", self.rest):
                found += _NAME.findall(match)
        return found


@dataclass
class Computation:
    """Instructions by name, in order."""

    instructions: dict[str, Instruction] = field(default_factory=dict)

    def users(self, name: str) -> list[Instruction]:
        """Instructions that read a result."""
        return [one for one in self.instructions.values() if name in one.operands]

    @property
    def root(self) -> Instruction:
        """The instruction that returns."""
        return next(one for one in self.instructions.values() if one.root)


class Collective(NamedTuple):
    """One exchange between devices."""

    kind: str
    dtypes: tuple[str, ...]
    payload: int
    """Bytes that one device holds: of the whole gathered array, or of the summed one."""
    times: int


class Program:
    """A compiled program's text, parsed.

    Args:
        text: what `jax.stages.Compiled.as_text()` returns.
    """

    def __init__(self, text: str) -> None:
        """Parse it."""
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        self.aliased = _aliased(text)
        current = None
        for line in text.splitlines():
            if line and not line[0].isspace() and (header := _HEADER.match(line)):
                current = self.computations[header[2]] = Computation()
                self.entry = header[2] if header[1] else self.entry
            elif current is not None and (instruction := _instruction(line)):
                current.instructions[instruction.name] = instruction

    def running(self) -> Iterator[tuple[Computation, Instruction, int]]:
        """All instructions that touch memory, each with the number of times it runs."""
        yield from self._running(self.entry, 1)

    def _running(self, name: str, times: int) -> Iterator[tuple[Computation, Instruction, int]]:
        computation = self.computations[name]
        for one in computation.instructions.values():
            if one.opcode in _WITHIN:
                turns = times * (self._turns(one) if one.opcode == "while" else 1)
                for below in one.called:
                    yield from self._running(below, turns)
            elif one.opcode not in _FREE:
                yield computation, one, times

    def _turns(self, loop: Instruction) -> int:
        known = re.search(r'known_trip_count"?[:=]\{"n":"(\d+)"', loop.rest)
        if known:
            return int(known[1])
        condition = re.search(r"condition=%([\w.\-]+)", loop.rest)
        inside = self.computations[condition[1]].instructions.values() if condition else ()
        limits = [int(one.rest.split(")")[0]) for one in inside if one.opcode == "constant" and one.results[0].shape == ()
                  and re.match(r"\d+\)", one.rest)]  # fmt: skip
        return max(limits, default=1)

    def collectives(self) -> list[Collective]:
        """All exchanges between devices, those within fusions and asynchronous ones included."""
        found: list[Collective] = []
        chains: set[tuple[str, str | None]] = set()

        def search(name: str, times: int) -> None:
            computation = self.computations[name]
            for one in computation.instructions.values():
                kind = one.opcode.removesuffix("-start")
                if kind in COLLECTIVES:
                    if one.chain is not None and (kind, one.chain) in chains:
                        continue
                    chains.add((kind, one.chain))
                    # Those of the results: a TPU sums bfloat16 operands in the float32 of the result.
                    arrays, sources = one.results, len(_arrays_of(computation, one.operands))
                    if one.opcode.endswith("-start") and kind != "all-reduce":
                        arrays = one.results[sources : 2 * sources]  # after the operands, which it hands on
                    payload = sum(array.payload for array in arrays)
                    found.append(Collective(kind, tuple(sorted({a.dtype for a in arrays})), payload, times))
                    continue
                turns = times * (self._turns(one) if one.opcode == "while" else 1)
                for below in one.called if one.opcode not in ("reduce", "scatter", "sort", "reduce-window") else ():
                    search(below, turns)

        search(self.entry, 1)
        return found

    def traffic(self) -> dict[str, int]:
        """Bytes that each kind of work reads and writes; see `category`."""
        total: Counter[str] = Counter()
        for computation, one, times in self.running():
            total[self.category(one)] += times * self._moved(computation, one)
        return {kind: moved for kind, moved in total.most_common() if moved}

    def category(self, one: Instruction) -> str:
        """Name the kind of work of an instruction: what it contains that is not elementwise."""
        inside = {one.opcode}
        for name in one.called if one.opcode in ("fusion", "async-start") else ():
            steps = self.computations[name].instructions.values()
            inside |= {below.opcode for below in steps if below.chain is None} or {below.opcode for below in steps}
        target = re.search(r'custom_call_target="([^"]+)"', one.rest)
        if any(kind.removesuffix("-start") in COLLECTIVES for kind in inside):
            return "collectives"
        if "convolution" in inside or (target and "conv" in target[1].lower()):
            return "convolutions"
        if "dot" in inside or (target and ("gemm" in target[1] or "matmul" in target[1])):
            return "products"
        if inside & {"gather", "scatter", "dynamic-update-slice", "dynamic-slice"}:
            return "lookups and updates in place"
        if inside & {"reduce", "reduce-window", "select-and-scatter"}:
            return "reductions"
        if one.opcode in ("copy-start", "slice-start"):
            return "moves to and from the chip"
        if one.opcode.startswith(("copy", "transpose", "reshape", "slice", "async", "concatenate", "pad")) or not (
            inside
            - {
                "fusion",
                "parameter",
                "bitcast",
                "copy",
                "transpose",
                "slice",
                "pad",
                "concatenate",
                "tuple",
                "constant",
            }
        ):
            return "copies"
        return "elementwise"

    def _moved(self, computation: Computation, one: Instruction) -> int:
        if one.opcode.endswith("-done"):
            return 0  # counted where it started
        if one.opcode in ("copy-start", "slice-start"):
            made = one.results[0 if one.opcode == "copy-start" else 1]
            source = _arrays_of(computation, one.operands)[0]
            return made.size * (int(not source.on_chip) + int(not made.on_chip))
        inside = self.computations.get(one.called[0]) if one.opcode == "fusion" and one.called else None
        results = one.results
        if one.opcode.endswith("-start") and one.opcode != "all-reduce-start":
            results = one.results[len(_arrays_of(computation, one.operands)) :]
        written = sum(array.size for array in results if not array.on_chip)
        read = 0
        for number, operand in enumerate(one.operands):
            for array in _arrays_of(computation, [operand]):
                if not array.on_chip:
                    read += _part_read(one, inside, number, array)
        if inside is not None:
            update = _updates_in_place(inside)
            written = min(written, update) if update is not None else written
        elif one.opcode in ("dynamic-update-slice", "scatter"):
            written = _arrays_of(computation, [one.operands[-1 if one.opcode == "scatter" else 1]])[0].size
        return read + written

    def copies(self) -> int:
        """Number of copies, slices and other instructions that only move numbers."""
        return sum(times for _, one, times in self.running() if self.category(one) == "copies")


def grouped(collectives: list[Collective]) -> dict[str, dict[str, int]]:
    """Number and payload of collectives by kind and element types: "all-reduce f32": {"count": 4, "bytes": 1000}."""
    groups: dict[str, dict[str, int]] = defaultdict(lambda: {"count": 0, "bytes": 0})
    for one in collectives:
        group = groups[f"{one.kind} {'+'.join(one.dtypes)}"]
        group["count"] += one.times
        group["bytes"] += one.times * one.payload
    return dict(sorted(groups.items()))


def _part_read(one: Instruction, inside: Computation | None, number: int, array: ArrayType) -> int:
    """Bytes that an instruction reads of an operand: of arrays that it only slices, looks up or updates, just this part."""
    if inside is None:
        if number == 0 and one.opcode in _SLICES:
            return sum(result.size for result in one.results)
        if number == 0 and one.opcode in ("dynamic-update-slice", "scatter"):
            return 0
        return array.size
    parameter = next(
        (i for i in inside.instructions.values() if i.opcode == "parameter" and i.rest.startswith(f"{number})")), None
    )
    users = inside.users(parameter.name) if parameter else []
    parts = 0
    for user in users:
        if user.opcode in _SLICES and user.operands[0] == parameter.name:
            parts += sum(result.size for result in user.results)
        elif user.opcode in ("dynamic-update-slice", "scatter") and user.operands[0] == parameter.name:
            continue
        else:
            return array.size
    return min(parts, array.size) if users else 0


def _updates_in_place(inside: Computation) -> int | None:
    """Bytes that a fusion writes if its root only updates a part of an operand in place, else None."""
    root = inside.root
    roots = [inside.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
    if not all(one.opcode in ("dynamic-update-slice", "scatter") for one in roots):
        return None
    updates = [one.operands[-1 if one.opcode == "scatter" else 1] for one in roots]
    return sum(array.size for name in updates for array in inside.instructions[name].results)


def _arrays_of(computation: Computation, names: list[str]) -> list[ArrayType]:
    return [
        array for name in names if name in computation.instructions for array in computation.instructions[name].results
    ]


def _aliased(text: str) -> int:
    """Number of results that take the place of an argument."""
    start = text.find("input_output_alias={")
    return 0 if start < 0 else len(re.findall(r"(?:may|must)-alias", text[start : text.find("\n", start)]))


def _instruction(line: str) -> Instruction | None:
    stripped = line.strip()
    root = stripped.startswith("ROOT ")
    name, equals, right = stripped.removeprefix("ROOT ").partition(" = ")
    if not equals or not name.startswith("%"):
        return None
    if right.startswith("("):
        end = _closing(right, 0)
        types, right = right[: end + 1], right[end + 1 :]
    else:
        types, _, right = right.partition(" ")
    opcode, _, right = right.strip().partition("(")
    end = _closing("(" + right, 0) - 1
    results = [
        ArrayType(dtype, tuple(int(side) for side in shape.split(",") if side), layout or "")
        for dtype, shape, layout in _ARRAY.findall(types)
    ]
    return Instruction(name[1:], results, opcode, _NAME.findall(right[:end]), right, root)


def _closing(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return len(text)
