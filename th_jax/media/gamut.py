"""Tables that bring HDR and wide gamuts to SDR of BT.709, whose numbers are those of ordinary films and of sRGB.

From the published formulas: SMPTE ST 2084 (PQ), ARIB STD-B67 and ITU-R BT.2100 (HLG, shown at 1000 cd/m2), BT.1886 (SDR), and
BT.2408's reference white of 203 cd/m2, which becomes white: what is brighter is clipped, and so are colors outside of BT.709.
FFmpeg's filter `zscale` does the same, but is missing from PyAV's wheels; swscale's own misses skin by up to 6 of 255.
"""

import functools

import numpy as np
from jaxtyping import Float, UInt16

PQ, HLG = 16, 18
"""Transfer characteristics by their numbers in ITU-T H.273."""

BT709, BT2020, DCI_P3, DISPLAY_P3 = 1, 9, 11, 12
"""Color primaries by their numbers in ITU-T H.273."""

_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_PRIMARIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    **{DCI_P3: _P3, DISPLAY_P3: _P3},
}
"""CIE x, y of red, green and blue. White is D65's for all: that of cinemas is shown as a display's white."""

_WHITE = (0.3127, 0.3290)
_DISPLAY = 2.4
"""The exponent of BT.1886."""
_HDR_WHITE, _PQ_PEAK, _HLG_PEAK = 203.0, 10000.0, 1000.0
"""In cd/m2."""

LEVEL = 8
"""FFmpeg's measure of a Hald CLUT: a cube with sides of the square of this."""


def needs_table(transfer: int, primaries: int) -> bool:
    """Whether films that declare these (by H.273) look wrong as they are.

    Primaries of standard definition and unknown ones are taken for those of BT.709, transfers of SDR for each other, as
    players do.
    """
    return transfer in (PQ, HLG) or primaries in (BT2020, DCI_P3, DISPLAY_P3)


@functools.cache
def hald_table(transfer: int, primaries: int) -> UInt16[np.ndarray, "512 512 3"]:
    """What becomes of every signal, for FFmpeg's filter haldclut: RGB of 16 bits, red changing fastest."""
    steps = np.linspace(0.0, 1.0, LEVEL**2)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    light = _light(np.stack([red, green, blue], -1), transfer)
    unknown = BT2020 if transfer in (PQ, HLG) else BT709
    source = _to_xyz(primaries if primaries in _PRIMARIES else unknown)
    light = np.clip(light @ np.linalg.solve(_to_xyz(BT709), source).T, 0.0, 1.0)
    return np.round(65535 * light ** (1 / _DISPLAY)).astype(np.uint16).reshape(LEVEL**3, LEVEL**3, 3)


def _light(signal: Float[np.ndarray, "... 3"], transfer: int) -> Float[np.ndarray, "... 3"]:
    """Light of a display, in parts of white, for signals of 0..1."""
    if transfer == PQ:
        root = signal ** (32 / 2523)
        power = np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)
        return _PQ_PEAK / _HDR_WHITE * power ** (16384 / 2610)
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        luminance = scene @ _to_xyz(BT2020)[1]
        return _HLG_PEAK / _HDR_WHITE * scene * luminance[..., None] ** 0.2
    return signal**_DISPLAY


def _to_xyz(primaries: int) -> Float[np.ndarray, "3 3"]:
    """The matrix from linear RGB, in columns, to CIE XYZ."""
    x, y = np.array([*_PRIMARIES[primaries], _WHITE]).T
    directions = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    return directions[:, :3] * np.linalg.solve(directions[:, :3], directions[:, 3])
