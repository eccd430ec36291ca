"""The reading of compiled programs, the page that is made of it, and a tiny step by the TPU's own compiler where it is."""

import copy
import os
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from benchmarks.accelerator_page import PAGE, bound, page, records
from benchmarks.accelerator_programs import exchange_faults, flop_by_dtype, summed_bytes, text_record, unmet
from benchmarks.accelerators import TARGETS, simulated_devices
from benchmarks.program_text import ArrayType, Program, grouped

TEXT = """\
HloModule jit_step, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias), {2}: (1, {}, may-alias) }

%fused_update (param_0: f32[1000,64], param_1: f32[4,64], param_2: s32[]) -> f32[1000,64] {
  %param_0 = f32[1000,64]{1,0:T(8,128)} parameter(0)
  %param_1 = f32[4,64]{1,0:T(4,128)} parameter(1)
  %param_2 = s32[]{:T(128)} parameter(2)
  ROOT %update = f32[1000,64]{1,0:T(8,128)} dynamic-update-slice(%param_0, %param_1, %param_2, %param_2)
}

%body (state: (s32[], f32[4,64])) -> (s32[], f32[4,64]) {
  %state = (s32[], f32[4,64]{1,0:T(4,128)}) parameter(0)
  %number = s32[]{:T(128)} get-tuple-element(%state), index=0
  %rows = f32[4,64]{1,0:T(4,128)} get-tuple-element(%state), index=1
  %sum = f32[4,64]{1,0:T(4,128)} all-reduce(%rows), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  ROOT %next = (s32[], f32[4,64]{1,0:T(4,128)}) tuple(%number, %sum)
}

%condition (state.1: (s32[], f32[4,64])) -> pred[] {
  %state.1 = (s32[], f32[4,64]{1,0:T(4,128)}) parameter(0)
  %turn = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %turns = s32[]{:T(128)} constant(7)
  ROOT %less = pred[]{:T(512)} compare(%turn, %turns), direction=LT
}

ENTRY %main (table: f32[1000,64], rows: bf16[4,64], at: s32[]) -> f32[1000,64] {
  %table = f32[1000,64]{1,0:T(8,128)} parameter(0)
  %some = bf16[4,64]{1,0:T(4,128)(2,1)} parameter(1)
  %at = s32[]{:T(128)} parameter(2)
  %reduced = f32[4,64]{1,0:T(4,128)S(1)} all-reduce(%some), channel_id=2, replica_groups={{0,1}}, to_apply=%add
  %start = (f32[4,64]{1,0:T(4,128)}, f32[4,64]{1,0:T(4,128)S(1)}, u32[]{:S(2)}) copy-start(%reduced)
  %wide = f32[4,64]{1,0:T(4,128)} copy-done(%start)
  %zero = s32[]{:T(128)} constant(0)
  %begin = (s32[], f32[4,64]{1,0:T(4,128)}) tuple(%zero, %wide)
  %loop = (s32[], f32[4,64]{1,0:T(4,128)}) while(%begin), condition=%condition, body=%body
  %last = f32[4,64]{1,0:T(4,128)} get-tuple-element(%loop), index=1
  ROOT %fusion = f32[1000,64]{1,0:T(8,128)} fusion(%table, %last, %at), kind=kLoop, calls=%fused_update
}
"""


def test_layouts_are_filled_up_to_whole_tiles() -> None:
    assert ArrayType("f32", (4, 64), "1,0:T(8,128)").size == 8 * 128 * 4
    assert ArrayType("f32", (4, 64), "0,1:T(8,128)").size == 64 * 128 * 4
    assert ArrayType("bf16", (3, 5, 100, 64), "2,3,1,0:T(8,128)(2,1)").size == 3 * 5 * 128 * 64 * 2
    assert ArrayType("f32", (4, 64)).size == ArrayType("f32", (4, 64), "1,0:T(8,128)").payload == 1024
    assert ArrayType("f32", (4,), "0:T(128)S(1)").on_chip


def test_loops_count_their_turns_and_updates_in_place_their_part() -> None:
    """By hand: tiles of 4 x 128 numbers are 2 KiB, and as bfloat16 1 KiB."""
    program = Program(TEXT)
    assert program.aliased == 2
    assert program.traffic() == {
        "collectives": 1024 + 7 * 2 * 2048,  # the first one's result stays on the chip
        "lookups and updates in place": 2048 + 4 + 2048,  # rows and their place are read, rows are written
        "moves to and from the chip": 2048,
    }


def test_sums_count_in_the_type_of_their_result() -> None:
    assert grouped(Program(TEXT).collectives()) == {"all-reduce f32": {"count": 8, "bytes": 8 * 1024}}


def test_an_exchange_that_is_divided_among_fusions_is_one() -> None:
    """As a TPU's compiler writes it: each step of the chain lies in a fusion of other work, which keeps its kind."""
    step = 'all-gather(%row), channel_id=1, dimensions={0}, frontend_attributes={chain_id="0"}'
    fused = """
%fused_NUMBER (row: f32[1,64], x: f32[64,64]) -> f32[64,64] {
  %row = f32[1,64]{1,0} parameter(0)
  %x = f32[64,64]{1,0} parameter(1)
  %rows.NUMBER = f32[4,64]{1,0} STEP
  ROOT %c = f32[64,64]{1,0} convolution(%x, %x), dim_labels=bf_io->bf
}
"""
    main = """
ENTRY %main (row: f32[1,64], x: f32[64,64]) -> f32[64,64] {
  %row = f32[1,64]{1,0} parameter(0)
  %x = f32[64,64]{1,0} parameter(1)
  %first = f32[64,64]{1,0} fusion(%row, %x), kind=kOutput, calls=%fused_0
  ROOT %second = f32[64,64]{1,0} fusion(%row, %first), kind=kOutput, calls=%fused_1
}
"""
    program = Program("".join(fused.replace("NUMBER", n).replace("STEP", step) for n in "01") + main)
    assert grouped(program.collectives()) == {"all-gather f32": {"count": 1, "bytes": 1024}}
    assert set(program.traffic()) == {"convolutions"}


def test_the_count_is_that_of_xlas_own_analysis() -> None:
    def function(x: Any, y: Any) -> Any:
        return jnp.sin(x @ y) * 2.0, jnp.cumsum(x, axis=0)[::2]

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 32), (32, 48))]
    compiled = jax.jit(function).lower(*shapes).compile()
    ours = sum(Program(compiled.as_text()).traffic().values())
    assert ours == pytest.approx(compiled.cost_analysis()["bytes accessed"], rel=0.1)


def test_arithmetic_is_counted_by_type_and_platform() -> None:
    def function(x: Any, y: Any) -> Any:
        def one(carry: Any, _: None) -> tuple[Any, None]:
            carry.T @ carry
            return carry @ y, None

        looped = jax.lax.scan(one, x, length=5)[0]
        narrow = (x.astype(jnp.bfloat16) @ y.astype(jnp.bfloat16)).astype(jnp.float32)
        chosen = jax.lax.platform_dependent(x, tpu=lambda x: x @ y @ y, default=lambda x: x)
        return looped + narrow + chosen

    jaxpr = jax.make_jaxpr(function)(jnp.zeros((8, 16)), jnp.zeros((16, 16))).jaxpr
    one = 2.0 * 8 * 16 * 16
    assert flop_by_dtype(jaxpr, "tpu") == {"float32": 7 * one, "bfloat16": one}
    assert flop_by_dtype(jaxpr, "cuda", shared=2) == {"float32": 2.5 * one, "bfloat16": one / 2}


GOOD = {
    "program": "meta-step",
    "target": "v5e-4",
    "devices": 4,
    "episodes": 4,
    "gradient_bytes": 1000,
    "flop": {"bfloat16": 197e9, "float32": 0.0},
    "traffic": {"copies": 819_000_000},
    "collectives": {
        "all-gather f32": {"count": 2, "bytes": 10},
        "all-reduce f32": {"count": 3, "bytes": 1010},
        "all-reduce s32": {"count": 1, "bytes": 1},
    },
    "memory": {"peak": 2**33, "aliased": 100, "results": 101},
}


def test_what_a_program_must_not_do_is_named() -> None:
    def faults(*path: str, value: Any) -> list[str]:
        record = changed = copy.deepcopy(GOOD)
        for name in path[:-1]:
            changed = changed[name]
        changed[path[-1]] = value
        return unmet(record)

    assert unmet(GOOD) == []
    many = {"count": 60, "bytes": 10}
    for path, value, wanted in (
        (("collectives", "all-to-all bf16"), many, "exchanges activations: all-to-all"),
        (("collectives", "collective-permute f32"), many, "exchanges activations: collective-permute"),
        (("collectives", "all-reduce bf16"), {"count": 1, "bytes": 5}, "sums in bf16"),
        (("collectives", "all-reduce f32"), {"count": 3, "bytes": 900}, "sums 0.0 MB in float32 where gradients have"),
        (("collectives", "all-gather f32"), many, "looks up and updates W in 61 exchanges, more than 8"),
        (
            ("collectives", "all-gather f32"),
            {"count": 1, "bytes": 500},
            "looks up and updates W with 0.0 MB, more than 2 %",
        ),
        (("memory", "peak"), 15 * 2**30, "takes 15.0 GiB of 16"),
        (("memory", "aliased"), 50, "does not reuse the memory of the old state"),
        (("refused",), "Used 20G of 15G hbm", "does not compile: Used 20G of 15G hbm"),
    ):
        found = faults(*path, value=value)
        assert any(line.startswith(wanted) for line in found), (path, found)


def test_the_least_time_of_a_step() -> None:
    least = bound(GOOD)
    assert least["arithmetic"] == least["memory"] == pytest.approx(1e-3)
    assert least["links"] == pytest.approx(1.5 * 1000 / 200e9)
    assert bound(GOOD | {"flop": {"float32": 197e9}})["step"] == pytest.approx(3e-3 + least["links"])


def test_the_page_is_made_of_the_results() -> None:
    assert PAGE.read_text() == page(records()), "run python -m benchmarks.accelerator_programs page"
    for record in records():
        assert "refused" in record or record.get("label") or record["unmet"] == unmet(record)


def test_a_tiny_step_by_the_compiler_of_tpus() -> None:
    pytest.importorskip("libtpu", reason="needs the environment of make accelerator-test")
    from tiny_runs import losses, networks, optimizers

    from th_jax.training.dry_run import batch_shapes, perceptual_shapes
    from th_jax.training.programs import MetaPrograms
    from th_jax.training.sharding import make_mesh

    before = dict(os.environ)
    try:
        mesh = make_mesh(devices=simulated_devices(TARGETS["v5e-4"]))
    finally:
        os.environ.clear()
        os.environ.update(before)
    programs = MetaPrograms(networks("bfloat16"), optimizers("adam"), losses(), mesh, videos=600)
    batch = batch_shapes(episodes=8, sources=2, size=16, points=70)
    compiled = programs.lowered_step(0, perceptual_shapes(("vgg16",)), batch).compile()
    record = text_record(compiled, gradient_bytes=summed_bytes(programs.shapes.weights))
    assert exchange_faults(record["collectives"], devices=4, gradient_bytes=record["gradient_bytes"]) == []
    assert Program(compiled.as_text()).aliased == len(jax.tree.leaves(programs.shapes))
