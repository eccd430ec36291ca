"""Messages through a sandbox's pipe: plain values survive, other types are rejected, forged messages are detected."""

from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from th_jax.media import MediaFault
from th_jax.media.isolation import receive_plain, send_plain

VALUES = [
    None,
    True,
    -3,
    2.5,
    float("inf"),
    "ünï",
    [1, "a", None],
    (1, (2.0,)),
    {"a": [True], "b": {}},
    MediaFault.EMPTY,
    Path("a/\udcff.mp4"),
]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_plain_values_survive(value):
    here, there = Pipe()
    send_plain(here, value)
    assert receive_plain(there, most=0) == value


def test_arrays_survive():
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=(3, 4)).astype(np.float32)[:, ::2],
        np.zeros((0, 3), np.int64),
        np.array(3.5),
        rng.integers(0, 256, (5, 7, 3), np.uint8),
        np.array([True, False]),
    ]
    here, there = Pipe()
    send_plain(here, arrays)
    for received, sent in zip(receive_plain(there, most=1000), arrays, strict=True):
        assert received.dtype == sent.dtype
        np.testing.assert_array_equal(received, sent)


@pytest.mark.parametrize("value", [{1: 2}, b"bytes", np.array(["text"]), np.array([None]), {"a": {3, 4}}], ids=str)
def test_other_values_are_not_sent(value):
    here, there = Pipe()
    with pytest.raises(TypeError, match="can be sent"):
        send_plain(here, value)
    assert not there.poll()


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b'{"array": ["<f4", [100000, 100000]]}', "exceed their size limit"),
        (b'{"array": ["<f4", [-4, -4]]}', "a message contains"),
        (b'{"array": ["O", [1]]}', "invalid type 'O'"),
        (b'{"array": ["<f4", [true]]}', "a message contains"),
        (b'{"array": ["(f4", [1]]}', r"invalid type '\(f4'"),
        (b'{"array": ["<f3", [1]]}', "invalid type '<f3'"),
        (b'{"call": "os.system"}', "a message contains"),
        (b"[" * 200_000, "nested too deeply"),
        (b"\x80\x04N.", "not valid UTF-8"),
    ],
)
def test_forged_headers_are_rejected_before_allocation(header, match):
    here, there = Pipe()
    here.send_bytes(header)
    with pytest.raises(ValueError, match=match):
        receive_plain(there, most=10**6)


def test_an_array_must_have_exactly_its_declared_length():
    here, there = Pipe()
    here.send_bytes(b'{"array": ["|u1", [8]]}')
    here.send_bytes(b"1234")
    with pytest.raises(ValueError, match="fewer bytes than its shape"):
        receive_plain(there, most=100)
    here.send_bytes(b'{"array": ["|u1", [8]]}')
    here.send_bytes(b"123456789")
    with pytest.raises(EOFError, match="bad message length"):
        receive_plain(there, most=100)
